//! Bytes by their hash: files beside SQLite, rows in PostgreSQL.
//!
//! Owns: that bytes are whole and durable before anybody is told that they are kept, and that they go
//! when nobody names them any more. Knows nothing of who names them; see [`Readers::names_blob`].
//!
//! Everything here blocks, for as long as the bytes take.
//!
//! [`Readers::names_blob`]: crate::Readers::names_blob

mod files;
mod rows;

use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use agentflow_core::blob::{BlobHash, BlobRef, NewBlob};
use agentflow_core::time::Wall;
use sha2::{Digest, Sha256};

use crate::error::{Error, Kind};
use crate::target::Target;
use files::Files;
use rows::Rows;

/// Why bytes were not kept.
#[derive(Debug, thiserror::Error)]
pub enum PutError {
    /// They are others than those that were announced.
    #[error("the bytes have the SHA-256 {0}")]
    OtherHash(BlobHash),
    /// There are too many.
    #[error("there are more than {0} bytes")]
    TooLarge(u64),
    /// They could not be read.
    #[error("the bytes did not arrive: {0}")]
    Source(#[source] io::Error),
    /// They could not be written.
    #[error(transparent)]
    Store(#[from] Error),
}

/// The store. Clones share it.
#[derive(Clone)]
pub struct Blobs(Arc<Home>);

enum Home {
    Files(Files),
    Rows(Rows),
}

/// Bytes being read.
pub struct BlobReader(Reading);

enum Reading {
    File(std::fs::File, u64),
    Rows(rows::Reader),
}

impl Blobs {
    /// Opens the store of a database; `directory` is made and used where it keeps files. The
    /// [`Writer`](crate::Writer) must have been opened before.
    ///
    /// # Errors
    /// If there is no such directory and none can be made, or no connection.
    pub fn open(target: &Target, directory: &Path) -> Result<Self, Error> {
        let home = match target {
            Target::Sqlite(_) => Home::Files(Files::open(directory)?),
            Target::Postgres(url) => Home::Rows(Rows::open(url)?),
        };
        Ok(Self(Arc::new(home)))
    }

    /// Keeps bytes, at most `limit`, that have this hash. Once it returns they are durable. What is
    /// there already is as if it had just arrived.
    ///
    /// # Errors
    /// Nothing has changed then.
    pub fn put(
        &self,
        sha256: BlobHash,
        limit: u64,
        source: &mut dyn Read,
        now: Wall,
    ) -> Result<BlobRef, PutError> {
        match &*self.0 {
            Home::Files(files) => files.put(sha256, limit, source),
            Home::Rows(rows) => rows.put(sha256, limit, source, now),
        }
    }

    /// Keeps a text that was hashed already.
    ///
    /// # Errors
    /// As with [`Blobs::put`].
    pub fn put_text(&self, blob: &NewBlob, now: Wall) -> Result<BlobRef, Error> {
        match self.put(blob.sha256, u64::MAX, &mut blob.text.as_bytes(), now) {
            Ok(named) => Ok(named),
            Err(PutError::Store(error)) => Err(error),
            Err(other) => Err(Error::with_source(Kind::Other, "a text could not be kept", other)),
        }
    }

    /// Bytes to read; `None` if they are not kept.
    ///
    /// # Errors
    /// Those of the disk or database.
    pub fn open_blob(&self, sha256: &BlobHash) -> Result<Option<BlobReader>, Error> {
        Ok(match &*self.0 {
            Home::Files(files) => {
                files.read(sha256)?.map(|(file, bytes)| BlobReader(Reading::File(file, bytes)))
            }
            Home::Rows(rows) => rows.read(sha256)?.map(|reader| BlobReader(Reading::Rows(reader))),
        })
    }

    /// All of it as text, if it is kept; what is no UTF-8 becomes U+FFFD, and so does NUL, as in rows.
    ///
    /// # Errors
    /// Those of the disk or database.
    pub fn text(&self, sha256: &BlobHash) -> Result<Option<String>, Error> {
        let Some(mut reader) = self.open_blob(sha256)? else { return Ok(None) };
        let mut bytes = Vec::with_capacity(usize::try_from(reader.size()).unwrap_or_default());
        reader.read_to_end(&mut bytes).map_err(|error| io_error("a blob could not be read", error))?;
        let text = String::from_utf8(bytes)
            .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned());
        Ok(Some(if text.contains('\0') { text.replace('\0', "\u{FFFD}") } else { text }))
    }

    /// Removes some of what arrived before `before` and of which `is_named` says that nobody names
    /// it; a whole round takes many calls. Returns how many blobs were removed.
    ///
    /// # Errors
    /// Those of the disk or database, and of `is_named`.
    pub fn sweep(
        &self,
        before: Wall,
        is_named: &mut dyn FnMut(&BlobHash) -> Result<bool, Error>,
    ) -> Result<usize, Error> {
        match &*self.0 {
            Home::Files(files) => files.sweep(before, is_named),
            Home::Rows(rows) => rows.sweep(before),
        }
    }
}

impl BlobReader {
    /// How many there are in all.
    #[must_use]
    pub fn size(&self) -> u64 {
        match &self.0 {
            Reading::File(_, bytes) => *bytes,
            Reading::Rows(reader) => reader.size(),
        }
    }
}

impl Read for BlobReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.0 {
            Reading::File(file, _) => file.read(buffer),
            Reading::Rows(reader) => reader.read(buffer),
        }
    }
}

/// Counts and hashes what passes.
struct Meter {
    hasher: Sha256,
    bytes: u64,
    limit: u64,
}

impl Meter {
    fn new(limit: u64) -> Self {
        Self { hasher: Sha256::new(), bytes: 0, limit }
    }

    fn pass(&mut self, bytes: &[u8]) -> Result<(), PutError> {
        self.bytes += bytes.len() as u64;
        if self.bytes > self.limit {
            return Err(PutError::TooLarge(self.limit));
        }
        self.hasher.update(bytes);
        Ok(())
    }

    fn end(self, expected: BlobHash) -> Result<BlobRef, PutError> {
        let sha256 = BlobHash(self.hasher.finalize().into());
        if sha256 == expected {
            Ok(BlobRef { sha256, bytes: self.bytes })
        } else {
            Err(PutError::OtherHash(sha256))
        }
    }
}

/// Fills the buffer as far as there is something.
fn fill(source: &mut dyn Read, buffer: &mut [u8]) -> Result<usize, PutError> {
    let mut filled = 0;
    while filled < buffer.len() {
        match source.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(PutError::Source(error)),
        }
    }
    Ok(filled)
}

fn io_error(context: impl Into<String>, error: io::Error) -> Error {
    let kind = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Kind::Full,
        io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => Kind::ReadOnly,
        _ => Kind::Other,
    };
    Error::with_source(kind, context, error)
}

//! Blobs as files: `ab/ab12…`, written beside and renamed when they are whole and on the disk.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use agentflow_core::blob::{BlobHash, BlobRef};
use agentflow_core::time::Wall;

use super::{Meter, PutError, fill, io_error};
use crate::error::Error;

/// Read and written at once.
const STEP_BYTES: usize = 256 << 10;

/// Where files are until they are whole.
const UNFINISHED: &str = "unfinished";

pub(super) struct Files {
    directory: PathBuf,
    numbers: AtomicU64,
    /// The next of the 256 directories that is swept.
    shard: AtomicU64,
    /// Held while a file gets or loses its name, so that none is removed that has just come again.
    names: Mutex<()>,
}

impl Files {
    pub(super) fn open(directory: &Path) -> Result<Self, Error> {
        let failed = |error| io_error(format!("the directory {} cannot be used", directory.display()), error);
        let unfinished = directory.join(UNFINISHED);
        // What another master did not finish nobody was told of.
        match fs::remove_dir_all(&unfinished) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        fs::create_dir_all(&unfinished).map_err(failed)?;
        Ok(Self {
            directory: directory.to_owned(),
            numbers: AtomicU64::new(0),
            shard: AtomicU64::new(0),
            names: Mutex::new(()),
        })
    }

    fn path(&self, sha256: &BlobHash) -> PathBuf {
        let name = sha256.to_string();
        self.directory.join(&name[..2]).join(name)
    }

    pub(super) fn put(
        &self,
        sha256: BlobHash,
        limit: u64,
        source: &mut dyn Read,
    ) -> Result<BlobRef, PutError> {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let unfinished = self.directory.join(UNFINISHED).join(number.to_string());
        let kept = self.write(&unfinished, sha256, limit, source);
        if kept.is_err()
            && let Err(error) = fs::remove_file(&unfinished)
            && error.kind() != io::ErrorKind::NotFound
        {
            log::warn!("{} stays behind: {error}", unfinished.display());
        }
        kept
    }

    fn write(
        &self,
        unfinished: &Path,
        sha256: BlobHash,
        limit: u64,
        source: &mut dyn Read,
    ) -> Result<BlobRef, PutError> {
        let failed = |error| PutError::Store(io_error("a blob could not be written", error));
        let mut meter = Meter::new(limit);
        let mut file = File::create_new(unfinished).map_err(failed)?;
        let mut buffer = vec![0; STEP_BYTES];
        loop {
            let count = fill(source, &mut buffer)?;
            if count == 0 {
                break;
            }
            meter.pass(&buffer[..count])?;
            file.write_all(&buffer[..count]).map_err(failed)?;
        }
        let named = meter.end(sha256)?;
        file.sync_data().map_err(failed)?;
        drop(file);
        self.name(unfinished, &self.path(&sha256)).map_err(failed)?;
        Ok(named)
    }

    /// Gives a file its name, and makes that durable. The file is newer than one that had it before.
    fn name(&self, unfinished: &Path, path: &Path) -> io::Result<()> {
        let shard = path.parent().unwrap_or(&self.directory);
        let _names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        if !shard.is_dir() {
            fs::create_dir_all(shard)?;
            File::open(&self.directory)?.sync_all()?;
        }
        fs::rename(unfinished, path)?;
        File::open(shard)?.sync_all()
    }

    pub(super) fn read(&self, sha256: &BlobHash) -> Result<Option<(File, u64)>, Error> {
        let failed = |error| io_error(format!("blob {sha256} could not be read"), error);
        match File::open(self.path(sha256)) {
            Ok(file) => {
                let bytes = file.metadata().map_err(failed)?.len();
                Ok(Some((file, bytes)))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed(error)),
        }
    }

    /// One of the 256 directories.
    pub(super) fn sweep(
        &self,
        before: Wall,
        is_named: &mut dyn FnMut(&BlobHash) -> Result<bool, Error>,
    ) -> Result<usize, Error> {
        let shard = self.shard.fetch_add(1, Ordering::Relaxed) % 256;
        let directory = self.directory.join(format!("{shard:02x}"));
        let failed = |error| io_error(format!("{} could not be swept", directory.display()), error);
        let entries = match fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
            Err(error) => return Err(failed(error)),
        };
        let before = UNIX_EPOCH + Duration::from_micros(before.0.try_into().unwrap_or_default());
        let is_old = |path: &Path| -> io::Result<bool> { Ok(modified(path)?.is_some_and(|at| at < before)) };
        let mut removed = 0;
        for entry in entries {
            let path = entry.map_err(failed)?.path();
            let Some(Ok(sha256)) = path.file_name().and_then(|name| name.to_str()).map(str::parse) else {
                continue;
            };
            if !is_old(&path).map_err(failed)? || is_named(&sha256)? {
                continue;
            }
            let _names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
            // It may have come again while somebody was asked.
            if is_old(&path).map_err(failed)? {
                fs::remove_file(&path).map_err(failed)?;
                removed += 1;
            }
        }
        Ok(removed)
    }
}

fn modified(path: &Path) -> io::Result<Option<SystemTime>> {
    match fs::metadata(path) {
        Ok(metadata) => metadata.modified().map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

//! One master per database: a lock file that names its holder.
//!
//! The lock is the kernel's (`flock`) and ends with the process, however that ends; the text in the
//! file is only for those who find it locked. For PostgreSQL the lock covers one data directory:
//! between machines the `leadership` row decides.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

use agentflow_schema::Target;
use serde::{Deserialize, Serialize};

use crate::error::Error;

/// What the file says.
#[derive(Serialize, Deserialize)]
struct Holder {
    pid: u32,
    /// Absent until the master listens.
    url: Option<String>,
}

/// Held while it lives.
#[derive(Debug)]
pub(crate) struct LockFile {
    file: File,
    path: PathBuf,
}

impl LockFile {
    /// Takes the lock that belongs to a database.
    pub(crate) fn take(target: &Target, data_dir: &Path) -> Result<Self, Error> {
        let path = match target {
            Target::Sqlite(path) => {
                let mut name = path.clone().into_os_string();
                name.push(".lock");
                PathBuf::from(name)
            }
            Target::Postgres(_) => data_dir.join("postgres.lock"),
        };
        let failed = |source| Error::LockFile { path: path.clone(), source };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Error::Locked { holder: describe(&mut file), path });
            }
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        let mut lock = Self { file, path };
        lock.write(None)?;
        Ok(lock)
    }

    /// Says where this master listens.
    pub(crate) fn announce(&mut self, url: &str) -> Result<(), Error> {
        self.write(Some(url.to_owned()))
    }

    fn write(&mut self, url: Option<String>) -> Result<(), Error> {
        let text = serde_json::to_string(&Holder { pid: std::process::id(), url }).unwrap_or_default();
        let mut replace = || {
            self.file.set_len(0)?;
            self.file.rewind()?;
            self.file.write_all(text.as_bytes())
        };
        replace().map_err(|source| Error::LockFile { path: self.path.clone(), source })
    }
}

impl Drop for LockFile {
    fn drop(&mut self) {
        // The file stays: removing it would let two masters hold locks on two files of one name.
        if let Err(error) = self.file.set_len(0) {
            log::warn!("the lock file '{}' could not be emptied: {error}", self.path.display());
        }
    }
}

fn describe(file: &mut File) -> String {
    let mut text = String::new();
    let holder =
        file.take(4_096).read_to_string(&mut text).ok().and_then(|_| serde_json::from_str(&text).ok());
    match holder {
        Some(Holder { pid, url: Some(url) }) => format!("process {pid} at {url}"),
        Some(Holder { pid, url: None }) => format!("process {pid}, which is starting"),
        None => "an unknown process".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_master_is_told_about_the_first() {
        let dir = tempfile::tempdir().expect("a directory");
        let target = Target::Sqlite(dir.path().join("a.db"));
        let mut first = LockFile::take(&target, dir.path()).expect("free");
        first.announce("http://127.0.0.1:6767").expect("written");
        let error = LockFile::take(&target, dir.path()).expect_err("held");
        assert!(error.is_locked());
        assert!(error.to_string().contains("http://127.0.0.1:6767"), "{error}");
        drop(first);
        LockFile::take(&target, dir.path()).expect("free again");
    }
}

//! The worker's directory: one worker at a time, and one secret for everything that it starts.
//!
//! ```text
//! lock          held as long as the worker lives
//! key           marks every process that a worker on this directory starts
//! spool.jsonl   reports that a successor must send
//! attempts/     files that attempts use; made by them
//! worker.sock   where attempts speak to their worker
//! logs/         output on its way; nameless files
//! ```

use std::fs::{File, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use agentflow_core::ids::BootId;
use tempfile::TempDir;

use crate::error::{Error, Kind, at};

/// Bytes of the longest path of a Unix socket on any system.
const SOCKET_PATH_BYTES: usize = 100;

/// A data directory that is ours until this value is dropped.
#[derive(Debug)]
pub(crate) struct DataDir {
    pub(crate) path: PathBuf,
    /// Where attempts speak to their worker.
    pub(crate) socket: PathBuf,
    _socket_dir: Option<TempDir>,
    key: String,
    _lock: File,
}

impl DataDir {
    /// Makes the directory where it is missing, and locks it.
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        let path = std::path::absolute(path).map_err(at(path))?;
        for dir in [path.clone(), path.join("attempts"), path.join("logs")] {
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir).map_err(at(&dir))?;
        }
        let lock_path = path.join("lock");
        let lock = File::options().create(true).append(true).open(&lock_path).map_err(at(&lock_path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(Kind::Locked(path).into()),
            Err(TryLockError::Error(cause)) => return Err(at(&lock_path)(cause)),
        }
        let key_path = path.join("key");
        let key = key(&key_path).map_err(at(&key_path))?;
        let (socket, socket_dir) = socket_path(&path)?;
        Ok(Self { path, socket, _socket_dir: socket_dir, key, _lock: lock })
    }

    /// How the attempt keys of every worker on this directory begin.
    pub(crate) fn key(&self) -> String {
        format!("{}.", self.key)
    }

    /// How the attempt keys of one life begin: a warden that is late must not kill what the
    /// successor has begun.
    pub(crate) fn key_of(&self, boot: BootId) -> String {
        format!("{}.{:x}.", self.key, boot.0)
    }

    /// Deletes what attempts of a predecessor have left.
    pub(crate) fn clean(&self) -> Result<(), Error> {
        for dir in [self.path.join("attempts"), self.path.join("logs")] {
            for entry in std::fs::read_dir(&dir).map_err(at(&dir))? {
                let path = entry.map_err(at(&dir))?.path();
                if path.is_dir() {
                    std::fs::remove_dir_all(&path).map_err(at(&path))?;
                } else {
                    std::fs::remove_file(&path).map_err(at(&path))?;
                }
            }
        }
        Ok(())
    }
}

/// In the directory itself, or in a short one of its own where that path would be too long.
fn socket_path(dir: &Path) -> Result<(PathBuf, Option<TempDir>), Error> {
    let own = dir.join("worker.sock");
    if own.as_os_str().len() <= SOCKET_PATH_BYTES {
        return Ok((own, None));
    }
    // Only this user may look into it.
    let short = tempfile::Builder::new().prefix("agentflow-").tempdir().map_err(at(dir))?;
    Ok((short.path().join("worker.sock"), Some(short)))
}

/// Reads the directory's key, or makes one.
fn key(path: &Path) -> io::Result<String> {
    match std::fs::read_to_string(path) {
        Ok(text) if text.trim().len() >= 32 => return Ok(text.trim().to_owned()),
        // Empty or torn: nothing was ever started under it.
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(io::Error::other)?;
    let text: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut file = File::options().create(true).write(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_has_one_worker_and_keeps_its_key() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("worker");
        let first = DataDir::open(&path).expect("the first");
        assert!(first.key_of(BootId(26)).strip_prefix(&first.key()).is_some_and(|rest| rest == "1a."));
        assert!(DataDir::open(&path).expect_err("taken").is_locked());
        std::fs::write(path.join("attempts/1.1.1.output"), "x").expect("a file");
        first.clean().expect("clean");
        assert!(!path.join("attempts/1.1.1.output").exists());
        let key = first.key();
        drop(first);
        assert_eq!(DataDir::open(&path).expect("the next").key(), key);
    }
}

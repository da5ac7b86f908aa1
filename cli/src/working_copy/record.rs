//! What is noted of the locks that were taken in a working copy: `agentflow/locks.json` in its git
//! directory. Hooks read it, so that they need no network.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use agentflow_core::lock::{LockFence, LockId, PathLock, Repository};
use agentflow_protocol::Timestamp;
use serde::{Deserialize, Serialize};

use crate::clock::now;
use crate::error::Error;

/// A lock as it is noted.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct NotedLock {
    /// Its name.
    pub(crate) id: LockId,
    /// Its number within its repository.
    pub(crate) fence: LockFence,
    /// Of which repository.
    pub(crate) repo: Repository,
    /// Whose it is.
    pub(crate) owner: String,
    /// What it locks.
    pub(crate) paths: Vec<PathLock>,
    /// By this machine's clock it has not ended before then; absent when it does not end by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) expires_at: Option<Timestamp>,
}

impl NotedLock {
    /// Whether it may still be held at that time.
    pub(crate) fn is_alive(&self, at: Timestamp) -> bool {
        self.expires_at.is_none_or(|end| at < end)
    }
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct Noted {
    locks: Vec<NotedLock>,
}

/// The notes of a working copy.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    directory: PathBuf,
}

impl Record {
    /// That of the working copy with this git directory.
    pub(super) fn of(git_dir: &Path) -> Self {
        Self { directory: git_dir.join("agentflow") }
    }

    /// Where it is.
    pub(crate) fn file(&self) -> PathBuf {
        self.directory.join("locks.json")
    }

    /// The locks that have not ended by themselves.
    ///
    /// # Errors
    /// When the file is there and cannot be read.
    pub(crate) fn read(&self) -> Result<Vec<NotedLock>, Error> {
        let path = self.file();
        let failed = |error| Error::io(format!("cannot read {}", path.display()), error);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed(error)),
        };
        let noted: Noted = serde_json::from_slice(&text).map_err(|error| failed(error.into()))?;
        let now = now();
        Ok(noted.locks.into_iter().filter(|lock| lock.is_alive(now)).collect())
    }

    /// Notes a lock, in the place of what was noted of it before.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(crate) fn note(&self, lock: NotedLock) -> Result<(), Error> {
        self.change(|locks| {
            locks.retain(|known| known.id != lock.id);
            locks.push(lock);
        })
    }

    /// Notes that these are held no more.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(crate) fn forget(&self, ids: &[LockId]) -> Result<(), Error> {
        self.change(|locks| locks.retain(|known| !ids.contains(&known.id)))
    }

    /// One after the other: what two processes note at once is there afterwards.
    fn change(&self, change: impl FnOnce(&mut Vec<NotedLock>)) -> Result<(), Error> {
        let failed = |error| Error::io(format!("cannot write {}", self.file().display()), error);
        fs::create_dir_all(&self.directory).map_err(failed)?;
        let turn = self.open("locks.turn").map_err(failed)?;
        turn.lock().map_err(failed)?;
        let mut locks = self.read()?;
        change(&mut locks);
        // Who reads meanwhile sees the old one or the new one.
        let partial = self.directory.join("locks.partial");
        let write = || -> io::Result<()> {
            let mut file = self.open("locks.partial")?;
            file.set_len(0)?;
            file.write_all(&serde_json::to_vec(&Noted { locks })?)?;
            fs::rename(&partial, self.file())
        };
        write().map_err(failed)
    }

    fn open(&self, name: &str) -> io::Result<File> {
        let path = self.directory.join(name);
        OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
    }
}

#[cfg(test)]
mod tests {
    use agentflow_core::lock::{LockMode, LockPath};
    use agentflow_core::time::Wall;

    use super::*;

    fn lock(number: u8, expires_at: Option<Timestamp>) -> NotedLock {
        NotedLock {
            id: LockId([number; 16]),
            fence: LockFence(u64::from(number)),
            repo: Repository::new("example.com/app").expect("a repository"),
            owner: "ann@here".to_owned(),
            paths: vec![PathLock { path: LockPath::new("src/**").expect("a path"), mode: LockMode::Write }],
            expires_at,
        }
    }

    #[test]
    fn locks_are_noted_and_forgotten() {
        let git_dir = tempfile::tempdir().expect("a directory");
        let record = Record::of(git_dir.path());
        assert_eq!(record.read().expect("nothing yet"), []);
        record.note(lock(1, None)).expect("written");
        record.note(lock(2, Some(Timestamp(Wall(4_000_000_000_000_000))))).expect("written");
        record.note(lock(3, Some(Timestamp(Wall(5))))).expect("written");
        record.note(NotedLock { owner: "bob".into(), ..lock(1, None) }).expect("written");
        let read = record.read().expect("readable");
        let told: Vec<_> = read.iter().map(|lock| (lock.id.0[0], lock.owner.as_str())).collect();
        assert_eq!(told, [(2, "ann@here"), (1, "bob")], "the third one has ended");
        record.forget(&[LockId([1; 16]), LockId([9; 16])]).expect("written");
        assert_eq!(record.read().expect("readable").len(), 1);
        let text = fs::read_to_string(record.file()).expect("readable");
        assert!(text.starts_with(r#"{"locks":[{"id":"02"#) && !text.contains("null"), "{text}");
    }

    #[test]
    fn what_is_noted_at_once_is_all_there() {
        let git_dir = tempfile::tempdir().expect("a directory");
        let record = Record::of(git_dir.path());
        std::thread::scope(|scope| {
            for number in 1..=40 {
                let record = &record;
                scope.spawn(move || record.note(lock(number, None)).expect("written"));
            }
        });
        assert_eq!(record.read().expect("readable").len(), 40);
    }

    #[test]
    fn a_broken_record_is_said() {
        let git_dir = tempfile::tempdir().expect("a directory");
        let record = Record::of(git_dir.path());
        record.note(lock(1, None)).expect("written");
        fs::write(record.file(), "{").expect("written");
        let error = record.read().expect_err("broken").to_string();
        assert!(error.contains("locks.json"), "{error}");
    }
}

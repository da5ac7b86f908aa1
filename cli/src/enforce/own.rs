//! The locks that whoever changes files has: those of the attempt in which this runs, and those that
//! were noted in the working copy.

use std::io;
use std::path::{Path, PathBuf};

use agentflow_core::lock::{LockFence, LockId, LockMode, LockPath, PathLock, Repository};
use agentflow_protocol::locks::LockView;
use serde::Deserialize;

use crate::error::Error;
use crate::inside::own_task;
use crate::working_copy::WorkingCopy;

/// The file in which a worker keeps the locks of an attempt, by the name of its variable.
const DECLARED: &str = "AGENTFLOW_LOCKS";

/// Who took a lock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum By {
    /// The attempt in which this runs.
    Attempt,
    /// A person, in this working copy.
    Person,
}

/// A lock that is held here.
#[derive(Clone, Debug, Deserialize)]
struct OwnLock {
    id: LockId,
    repo: Repository,
    fence: LockFence,
    paths: Vec<PathLock>,
}

#[derive(Deserialize)]
struct Declared {
    locks: Vec<OwnLock>,
}

/// A grant under which something may be written.
#[derive(Clone, Debug)]
pub(crate) struct Grant {
    pub(crate) by: By,
    pub(crate) id: LockId,
    pub(crate) fence: LockFence,
    /// What may be written; folded where case does not count.
    paths: Vec<LockPath>,
}

/// What is held here, in one repository.
#[derive(Clone, Debug)]
pub(crate) struct Own {
    ignore_case: bool,
    grants: Vec<Grant>,
    ids: Vec<LockId>,
    /// Other repositories in which the attempt has locks.
    elsewhere: Vec<Repository>,
    /// The owner under which the task's locks are shown.
    task: Option<String>,
}

/// Where the locks of the attempt in which this runs are, if it has any.
pub(crate) fn declared() -> Option<PathBuf> {
    let path = PathBuf::from(std::env::var_os(DECLARED).filter(|path| !path.is_empty())?);
    // One that cannot be looked at is there.
    path.try_exists().unwrap_or(true).then_some(path)
}

impl Own {
    /// What is held in a working copy.
    ///
    /// # Errors
    /// When it cannot be read what is held.
    pub(crate) fn of(copy: &WorkingCopy) -> Result<Self, Error> {
        let attempt = declared().map_or_else(|| Ok(Vec::new()), |path| read(&path))?;
        let noted = copy.record().read()?.into_iter().filter(|lock| is_mine(&lock.owner));
        let person =
            noted.map(|lock| OwnLock { id: lock.id, repo: lock.repo, fence: lock.fence, paths: lock.paths });
        let all = attempt.into_iter().map(|lock| (By::Attempt, lock));
        let all = all.chain(person.map(|lock| (By::Person, lock)));
        Ok(Self::new(&copy.repo, copy.ignore_case, all))
    }

    fn new(repo: &Repository, ignore_case: bool, locks: impl Iterator<Item = (By, OwnLock)>) -> Self {
        let task = own_task().map(|task| format!("task:{task}"));
        let mut own = Self { ignore_case, grants: Vec::new(), ids: Vec::new(), elsewhere: Vec::new(), task };
        for (by, lock) in locks {
            if lock.repo != *repo {
                if by == By::Attempt && !own.elsewhere.contains(&lock.repo) {
                    own.elsewhere.push(lock.repo);
                }
                continue;
            }
            own.ids.push(lock.id);
            let written = lock.paths.into_iter().filter(|path| path.mode == LockMode::Write);
            let paths: Vec<LockPath> = written.map(|lock| own.folded(&lock.path)).collect();
            if !paths.is_empty() {
                own.grants.push(Grant { by, id: lock.id, fence: lock.fence, paths });
            }
        }
        own
    }

    /// That of an attempt whose worker has written this.
    #[cfg(test)]
    pub(super) fn in_attempt(repo: &Repository, text: &str) -> Self {
        let declared: Declared = serde_json::from_str(text).unwrap_or(Declared { locks: Vec::new() });
        Self::new(repo, false, declared.locks.into_iter().map(|lock| (By::Attempt, lock)))
    }

    fn folded(&self, path: &LockPath) -> LockPath {
        if self.ignore_case { path.folded() } else { path.clone() }
    }

    /// Whether a file may be written under one of these.
    pub(crate) fn covers(&self, path: &LockPath) -> bool {
        let path = self.folded(path);
        self.grants.iter().any(|grant| grant.paths.iter().any(|own| own.covers(&path)))
    }

    /// Whether a file may be written under a lock of the attempt, which its worker keeps true.
    pub(crate) fn covers_in_attempt(&self, path: &LockPath) -> bool {
        let path = self.folded(path);
        let of_attempt = self.grants.iter().filter(|grant| grant.by == By::Attempt);
        of_attempt.flat_map(|grant| &grant.paths).any(|own| own.covers(&path))
    }

    /// What is left of these where a master has just said who holds those places: a lock that was noted
    /// here may have been given back or broken elsewhere.
    pub(crate) fn confirmed(&self, held: &[LockView]) -> Self {
        let is_held = |grant: &Grant| grant.by == By::Attempt || held.iter().any(|lock| lock.id == grant.id);
        let grants = self.grants.iter().filter(|grant| is_held(grant)).cloned().collect();
        Self { grants, ..self.clone() }
    }

    /// The grants under which one of these files may be written.
    pub(crate) fn covering<'a>(&'a self, paths: &'a [LockPath]) -> impl Iterator<Item = &'a Grant> {
        let paths: Vec<LockPath> = paths.iter().map(|path| self.folded(path)).collect();
        self.grants
            .iter()
            .filter(move |grant| grant.paths.iter().any(|own| paths.iter().any(|path| own.covers(path))))
    }

    /// Whether a lock is one of these, or of the same task.
    pub(crate) fn has(&self, lock: &LockView) -> bool {
        self.ids.contains(&lock.id) || self.task.as_ref().is_some_and(|task| *task == lock.owner)
    }

    /// Whether two paths may be one file's.
    pub(crate) fn overlap(&self, a: &LockPath, b: &LockPath) -> bool {
        let (a, b) = (self.folded(a), self.folded(b));
        // Of thousands of locks and changes most are apart from their first directory on.
        let first = |text: &str| text.find('/').unwrap_or(text.len());
        let (one, other) = (&a.as_str()[..first(a.as_str())], &b.as_str()[..first(b.as_str())]);
        let is_plain = !one.contains(['*', '?']) && !other.contains(['*', '?']);
        !(is_plain && one != other) && a.overlaps(&b)
    }

    /// The other repositories in which the attempt has locks.
    pub(crate) fn elsewhere(&self) -> &[Repository] {
        &self.elsewhere
    }
}

/// Whether a lock that is noted in the working copy is for this shell. What a person has locked there is
/// not for a task that works in the same place, nor for a shell that goes by another name.
fn is_mine(owner: &str) -> bool {
    crate::who::owner() == owner
}

/// What a worker has written down for its attempt.
fn read(path: &Path) -> Result<Vec<OwnLock>, Error> {
    let failed =
        |error| Error::io(format!("cannot read {}, the locks of this attempt", path.display()), error);
    let text = match std::fs::read(path) {
        Ok(text) => text,
        // The attempt has just lost its last lock.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let declared: Declared = serde_json::from_slice(&text).map_err(|error| failed(error.into()))?;
    Ok(declared.locks)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> LockPath {
        LockPath::new(text).expect("a path")
    }

    fn own(ignore_case: bool, text: &str) -> Own {
        let declared: Declared = serde_json::from_str(text).expect("locks");
        let repo = Repository::new("example.com/app").expect("a repository");
        Own::new(&repo, ignore_case, declared.locks.into_iter().map(|lock| (By::Attempt, lock)))
    }

    const LOCKS: &str = r#"{"locks": [
        {"id": "a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1", "repo": "https://example.com/app.git", "fence": 17,
         "paths": [{"path": "src/**", "mode": "write"}, {"path": "docs/**", "mode": "read"}]},
        {"id": "a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2", "repo": "example.com/app", "fence": 18, "paths": [{"path": "Read.me"}]},
        {"id": "a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3", "repo": "default", "fence": 1, "paths": [{"path": "**"}]}]}"#;

    #[test]
    fn what_is_locked_for_writing_here_is_covered() {
        let held = own(false, LOCKS);
        assert!(held.covers(&path("src/a/b.rs")) && held.covers(&path("Read.me")));
        for other in ["docs/a", "read.me", "x", "src*/a"] {
            assert!(!held.covers(&path(other)), "{other}");
        }
        assert!(own(true, LOCKS).covers(&path("SRC/read.ME")) && own(true, LOCKS).covers(&path("read.ME")));
        assert_eq!(held.elsewhere(), [Repository::default()]);
        let fences: Vec<u64> =
            held.covering(&[path("src/a"), path("x")]).map(|grant| grant.fence.0).collect();
        assert_eq!(fences, [17]);
    }

    #[test]
    fn a_file_that_is_gone_is_no_lock_and_a_broken_one_is_said() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("locks.json");
        assert!(read(&file).expect("none").is_empty());
        std::fs::write(&file, "{").expect("written");
        assert!(read(&file).expect_err("broken").to_string().contains("of this attempt"));
    }
}

//! Which repository is meant, what its paths are called, and who speaks.

use std::path::{Path, PathBuf};

use agentflow_core::limits;
use agentflow_core::lock::{LockId, LockMode, LockPath, PathLock, PathsError, Repository, check_paths};
use agentflow_protocol::Timestamp;
use agentflow_protocol::locks::LockView;

use crate::args::{LockOwnerFlag, LockPlace};
use crate::error::Error;
use crate::who;
use crate::working_copy::{NotedLock, Record, WorkingCopy};

/// A repository in which something is locked.
pub(super) struct Ground {
    pub(super) repo: Repository,
    /// Whether upper and lower case are the same in its paths.
    pub(super) ignore_case: bool,
    /// The working copy of it in which the command was typed, if it was in one.
    copy: Option<WorkingCopy>,
}

impl Ground {
    /// The one that is named, else that of the current directory.
    ///
    /// # Errors
    /// When none is named, and there is none.
    pub(super) fn find(place: &LockPlace) -> Result<Self, Error> {
        let here = here()?;
        let Some(repo) = &place.repo else { return WorkingCopy::find(&here).map(Self::of) };
        // In one of its own copies it may be named as well. What is wrong with another one is no matter.
        let copy = WorkingCopy::around(&here).ok().flatten().filter(|copy| copy.repo == *repo);
        Ok(copy.map_or_else(|| Self { repo: repo.clone(), ignore_case: false, copy: None }, Self::of))
    }

    fn of(copy: WorkingCopy) -> Self {
        Self { repo: copy.repo.clone(), ignore_case: copy.ignore_case, copy: Some(copy) }
    }

    /// What a path that was typed is called in the repository: outside of its working copies it begins at
    /// the root.
    ///
    /// # Errors
    /// When it is none of the repository's.
    pub(super) fn path(&self, typed: &Path) -> Result<LockPath, Error> {
        match &self.copy {
            Some(copy) => Ok(copy.path(typed)?),
            None => LockPath::new(&typed.to_string_lossy())
                .map_err(|error| Error::Usage(format!("'{}': {error}", typed.display()))),
        }
    }

    /// What all these are called, each once.
    ///
    /// # Errors
    /// When one is none of the repository's, or two of them overlap.
    pub(super) fn paths(&self, typed: &[PathBuf], mode: LockMode) -> Result<Vec<PathLock>, Error> {
        let paths = typed.iter().map(|path| Ok(PathLock { path: self.path(path)?, mode }));
        let mut paths = paths.collect::<Result<Vec<_>, Error>>()?;
        paths.sort_unstable();
        paths.dedup();
        match check_paths(&paths) {
            Ok(()) => Ok(paths),
            Err(PathsError::Patterns(count)) => Err(Error::Usage(format!(
                "{count} patterns are too many for one lock; at most {}, beside files and dir/**",
                limits::LOCK_PATTERNS
            ))),
            Err(PathsError::Overlap(one, other)) => Err(Error::Usage(format!(
                "'{}' and '{}' have files in common: name those once",
                paths[one].path, paths[other].path
            ))),
        }
    }

    /// Notes a lock where hooks find it; `expires_at` is by this machine's clock. One that cannot be
    /// noted is held all the same.
    pub(super) fn note(&self, lock: &LockView, expires_at: Option<Timestamp>) {
        let Some(record) = self.record() else { return };
        let noted = NotedLock {
            id: lock.id,
            fence: lock.fence,
            repo: lock.repo.clone(),
            owner: lock.owner.clone(),
            paths: lock.paths.to_vec(),
            expires_at,
        };
        if let Err(error) = record.note(noted) {
            eprintln!("agentflow: hooks here will not know of this lock: {error}");
        }
    }

    /// Notes that a lock is held no more.
    pub(super) fn forget(&self, lock: LockId) {
        if let Some(Err(error)) = self.record().map(|record| record.forget(&[lock])) {
            eprintln!("agentflow: {error}");
        }
    }

    /// The notes of the working copy.
    pub(super) fn record(&self) -> Option<Record> {
        self.copy.as_ref().map(WorkingCopy::record)
    }

    /// The locks that are noted in the working copy.
    ///
    /// # Errors
    /// When the notes cannot be read.
    pub(super) fn noted(&self) -> Result<Vec<NotedLock>, Error> {
        let mut noted = self.record().map_or_else(|| Ok(Vec::new()), |record| record.read())?;
        noted.retain(|lock| lock.repo == self.repo);
        Ok(noted)
    }
}

/// The current directory.
pub(super) fn here() -> Result<PathBuf, Error> {
    std::env::current_dir().map_err(|error| Error::io("cannot tell the current directory", error))
}

/// Whose locks are meant.
pub(super) fn owner(flag: &LockOwnerFlag) -> String {
    flag.owner.clone().unwrap_or_else(who::owner)
}

//! The crate's one error: why a worker could not start, or had to end.

use std::io;
use std::path::{Path, PathBuf};

/// Why a worker could not start, or had to end.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct Error(Box<Kind>);

#[derive(Debug, thiserror::Error)]
pub(crate) enum Kind {
    #[error("{0}")]
    Config(String),
    #[error("{}: {cause}", path.display())]
    File { path: PathBuf, cause: io::Error },
    #[error("another worker is using {}; give each worker its own --data-dir", .0.display())]
    Locked(PathBuf),
    #[error("processes of an earlier worker are still alive and cannot be killed: {0}")]
    Leftovers(String),
    #[error("the warden cannot be started: {0}")]
    Warden(io::Error),
    #[error("a thread cannot be started: {0}")]
    Thread(io::Error),
    #[error("the master refuses this worker: {0}")]
    Refused(String),
    #[error("the worker's thread has panicked")]
    Panicked,
}

impl From<Kind> for Error {
    fn from(kind: Kind) -> Self {
        Self(Box::new(kind))
    }
}

impl Error {
    /// Whether what the worker was told is wrong: nothing was begun.
    #[must_use]
    pub fn is_config(&self) -> bool {
        matches!(*self.0, Kind::Config(_))
    }

    /// Whether another worker holds the data directory.
    #[must_use]
    pub fn is_locked(&self) -> bool {
        matches!(*self.0, Kind::Locked(_))
    }

    /// Whether the master does not want this worker, and will not later.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        matches!(*self.0, Kind::Refused(_))
    }
}

/// Names the file in an error.
pub(crate) fn at(path: &Path) -> impl FnOnce(io::Error) -> Error + '_ {
    |cause| Kind::File { path: path.to_owned(), cause }.into()
}

//! Why a master did not start, or did not end well.

use std::path::PathBuf;

/// What stops a master. The text says what to do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The configuration is wrong.
    #[error("{0}")]
    Configuration(String),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}{hint}")]
    Listen {
        /// As configured.
        address: String,
        /// What the system says.
        source: std::io::Error,
        /// What to do.
        hint: &'static str,
    },
    /// The data directory cannot be used.
    #[error("the data directory '{}' cannot be used: {source}; choose another with --data-dir", path.display())]
    DataDir {
        /// Which.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The lock file cannot be made.
    #[error("the lock file '{}' cannot be made: {source}", path.display())]
    LockFile {
        /// Which.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// Another master has the database.
    #[error("another master has this database: {holder}. Use that one, or stop it first (lock file '{}')", path.display())]
    Locked {
        /// Which.
        path: PathBuf,
        /// What the lock file says about who holds it.
        holder: String,
    },
    /// The database cannot be used.
    #[error("{0}")]
    Database(String),
    /// A thread or runtime could not be started.
    #[error("the system gives no more threads or descriptors: {0}")]
    System(#[from] std::io::Error),
    /// The store failed while running: memory is ahead of the disk, and a restart recovers.
    #[error("the store failed; a restart recovers everything that was acknowledged")]
    StoreFailed,
    /// A thread of the master panicked; the log says where.
    #[error("the master's main thread panicked; see the log")]
    Panicked,
}

impl Error {
    /// Whether the database failed while the master ran (exit code 70).
    #[must_use]
    pub fn is_store_failure(&self) -> bool {
        matches!(self, Self::StoreFailed)
    }

    /// Whether another master has the database.
    #[must_use]
    pub fn is_locked(&self) -> bool {
        matches!(self, Self::Locked { .. })
    }

    /// Whether the address is taken or cannot be listened on.
    #[must_use]
    pub fn is_listen(&self) -> bool {
        matches!(self, Self::Listen { .. })
    }

    /// Whether the configuration is wrong.
    #[must_use]
    pub fn is_configuration(&self) -> bool {
        matches!(self, Self::Configuration(_))
    }
}

/// An error and everything behind it, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        // Some causes repeat what was said.
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    text
}

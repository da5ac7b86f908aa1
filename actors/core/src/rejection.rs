//! Why a command changed nothing.

use std::sync::Arc;

use crate::ids::TaskId;
use crate::status::Status;

/// A typed refusal. Nothing was changed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Rejection {
    /// There is no such task.
    #[error("there is no task {0}")]
    UnknownTask(TaskId),
    /// There is no such worker.
    #[error("there is no worker '{0}'; see the list of workers")]
    UnknownWorker(Arc<str>),
    /// The status forbids it.
    #[error("the task is {status}; {action} needs {needs}")]
    Illegal {
        /// Where it stands.
        status: Status,
        /// What was asked.
        action: &'static str,
        /// Where it would have to stand.
        needs: &'static str,
    },
    /// The report is of an attempt that is over, or was given to another worker.
    #[error("the attempt is not the current one")]
    Stale,
    /// The idempotency key was used with another body.
    #[error("the idempotency key was used before with another body; use a new key for other work")]
    KeyConflict,
    /// The same task is being changed by another request.
    #[error("another request is reopening the task; try again")]
    Busy,
    /// A limit is reached; trying later may work.
    #[error("{what}: at most {limit}; try again later")]
    Limit {
        /// What there is too much of.
        what: &'static str,
        /// How much is allowed.
        limit: usize,
    },
}

impl Rejection {
    /// Whether the thing named does not exist.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::UnknownTask(_) | Self::UnknownWorker(_))
    }

    /// Whether trying again later may succeed.
    #[must_use]
    pub fn is_limit(&self) -> bool {
        matches!(self, Self::Limit { .. })
    }
}

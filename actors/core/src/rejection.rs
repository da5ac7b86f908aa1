//! Why a command changed nothing.

use std::fmt;
use std::sync::Arc;

use crate::ids::{CheckpointId, Fence, RunId, TaskId};
use crate::lock::{LockFence, LockId, LockMode, LockOwner, LockPath, Repository};
use crate::run::RunStatus;
use crate::run::mapping::MappingError;
use crate::status::Status;
use crate::time::Wall;

/// Who stands in the way of a lock.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Holder {
    /// The lock; absent when its owner only waits for it, and came first.
    pub lock: Option<(LockId, LockFence)>,
    /// Who.
    pub owner: LockOwner,
    /// Where.
    pub path: LockPath,
    /// How.
    pub mode: LockMode,
    /// When it ends unless it is renewed; absent when it ends with an attempt, or only on request.
    pub expires_at: Option<Wall>,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { lock, owner, path, mode, .. } = self;
        match lock {
            Some((_, fence)) => write!(f, "{owner} holds '{path}' for {mode} (fence {fence})"),
            None => write!(f, "{owner} waits for '{path}' to {mode} it, and came first"),
        }
    }
}

/// Why a lock was not granted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Locked {
    /// Who stands in the way, the first [`crate::limits::HOLDERS_NAMED`].
    pub holders: Vec<Holder>,
    /// How many requests for the same paths would be, or were, served before.
    pub position: u32,
    /// Whether somebody waited for it as long as he was ready to.
    pub waited: bool,
}

impl fmt::Display for Locked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, holder) in self.holders.iter().take(3).enumerate() {
            write!(f, "{}{holder}", if at == 0 { "" } else { "; " })?;
        }
        if self.holders.len() > 3 {
            write!(f, "; and {} more", self.holders.len() - 3)?;
        }
        write!(f, "; {} in the queue before", self.position)?;
        f.write_str(if self.waited { "; the time to wait is over" } else { "" })
    }
}

/// A typed refusal. Nothing was changed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Rejection {
    /// There is no such task.
    #[error("there is no task {0}")]
    UnknownTask(TaskId),
    /// There is no such run, or it has ended.
    #[error("there is no run {0} that has not ended")]
    UnknownRun(RunId),
    /// There is no such schedule.
    #[error("there is no schedule '{0}'; see the list of schedules")]
    UnknownSchedule(Arc<str>),
    /// The run's status forbids it.
    #[error("the run is {status}; {action} needs {needs}")]
    IllegalRun {
        /// Where it stands.
        status: RunStatus,
        /// What was asked.
        action: &'static str,
        /// Where it would have to stand.
        needs: &'static str,
    },
    /// When a task of a run runs is decided by its run: it cannot be run again alone, nor be made to
    /// come after something else.
    #[error("the task is a part of run {0}, which alone decides when it runs")]
    PartOfRun(RunId),
    /// What is to run again is at work.
    #[error("node '{0}' has not ended; cancel it first, or wait")]
    NodeAtWork(Arc<str>),
    /// The new workflow of a run has something else where a worker is at work.
    #[error(
        "node '{0}' is at work, and the new workflow has something else there: wait for it, cancel it, or \
         upgrade with 'restart'; a foreach or a child workflow must have ended"
    )]
    OtherWork(Arc<str>),
    /// A run that has ended would stay so.
    #[error("run {0} has ended, and nothing of the new workflow would run; name nodes with 'restart_from'")]
    NothingToRun(RunId),
    /// What is asked does not fit the workflows.
    #[error("{0}")]
    Mapping(#[from] MappingError),
    /// The run has no such node.
    #[error("the run has no node '{0}'")]
    UnknownNode(Arc<str>),
    /// No node failed or was cancelled.
    #[error("nothing in run {0} failed; name the nodes to run again with 'from'")]
    NothingFailed(RunId),
    /// Other values would make another graph.
    #[error("with these values run {0} would have other nodes; begin a new run")]
    OtherNodes(RunId),
    /// A task would wait for itself.
    #[error("that would be a cycle: {0}")]
    Cycle(String),
    /// Two tasks that are said to be independent are not.
    #[error("the tasks are not independent: {0}")]
    NotParallel(String),
    /// A task that should wait for another has begun, or has ended.
    #[error("task {0} has started; only a task that has not may be made to wait")]
    HasStarted(TaskId),
    /// A predecessor has ended since its row was read: look again.
    #[error("task {0} has just ended; try again")]
    JustEnded(TaskId),
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
    /// What an attempt asks comes too late: another has taken over, or none runs.
    #[error(
        "the attempt with the fence {given} is not the current one: {}",
        match current {
            None => "no attempt runs".to_owned(),
            Some(fence) if fence == given => "another worker has that one".to_owned(),
            Some(fence) => format!("that has the fence {fence}"),
        }
    )]
    StaleAttempt {
        /// Of the attempt that asks.
        given: Fence,
        /// Of the attempt that runs.
        current: Option<Fence>,
    },
    /// What an attempt asks is not well-formed.
    #[error("{0}")]
    Malformed(String),
    /// There is no such checkpoint any more.
    #[error("there is no checkpoint {0}, or it is not kept any more; see the checkpoints of its task")]
    CheckpointGone(CheckpointId),
    /// A memory is full.
    #[error("the memory would have more than {limit} {what}; forget something first")]
    MemoryFull {
        /// Of what there is too much.
        what: &'static str,
        /// How much is allowed.
        limit: usize,
    },
    /// One value is too large for any memory.
    #[error(
        "a value in a memory has at most {most} bytes, this one {0}; save it as a checkpoint or leave it as an artifact",
        most = crate::limits::MEMORY_VALUE_BYTES
    )]
    ValueTooLarge(usize),
    /// The task is no part of a run, so that there is no memory of a run.
    #[error("task {0} is no part of a run: it has only a memory of its own")]
    NoRun(TaskId),
    /// The task or the run has another version than the one that was expected.
    #[error("the version is {current}, not {expected}; look at it and try again")]
    OtherVersion {
        /// What was expected.
        expected: u32,
        /// What it is.
        current: u32,
    },
    /// There is no such lock, or it has ended.
    #[error("there is no lock {0} that is held")]
    UnknownLock(LockId),
    /// Nothing was ever locked in that repository.
    #[error("nothing was ever locked in the repository '{0}'; is that its origin?")]
    UnknownRepository(Repository),
    /// Others have locks there, or wait for them.
    #[error("{0}")]
    Locked(Box<Locked>),
    /// Whoever waits would wait for himself.
    #[error("that would be a deadlock: {0}")]
    Deadlock(String),
    /// The lock is held no more, or was another one.
    #[error("the lock is lost: {0}")]
    LockLost(String),
    /// Somebody else holds it.
    #[error("the lock is {0}'s; only its owner releases it, an operator breaks it with a reason")]
    OthersLock(LockOwner),
    /// Several paths are locked together.
    #[error("the lock {0} holds more than that path; release it by its id")]
    LockedTogether(LockId),
    /// The idempotency key was used with another body.
    #[error("the idempotency key was used before with another body; use a new key for other work")]
    KeyConflict,
    /// The same task or run is being changed by another request.
    #[error("another request is changing it; try again")]
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
        matches!(
            self,
            Self::UnknownTask(_)
                | Self::UnknownRun(_)
                | Self::UnknownWorker(_)
                | Self::UnknownSchedule(_)
                | Self::UnknownLock(_)
                | Self::UnknownRepository(_)
        )
    }

    /// Whether trying again later may succeed.
    #[must_use]
    pub fn is_limit(&self) -> bool {
        matches!(self, Self::Limit { .. })
    }
}

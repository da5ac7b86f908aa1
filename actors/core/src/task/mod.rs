//! One task: its state, the commands that it takes and what they lead to.
//!
//! [`decide`](Task::decide) is pure and total over phase and command; [`evolve`](Task::evolve)
//! applies what was decided and cannot fail. A task knows nothing of queues, workers' capacity or
//! the database: the kernel draws those consequences from the event.

mod decide;
mod evolve;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use crate::attempt::End;
use crate::ids::{Attempt, Fence};
use crate::spec::RetryPolicy;
use crate::status::Status;
use crate::time::Wall;

/// Position of a worker in the kernel's table.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct WorkerIndex(pub u32);

/// A task in memory. Live ones only: a settled task is written and forgotten.
#[derive(Clone, PartialEq, Debug)]
pub struct Task {
    /// Where it stands.
    pub phase: Phase,
    /// When it was accepted.
    pub created_at: Wall,
    /// Since when it is ready, or when it will be. Its place in the queue follows from it, so that
    /// a task that comes back keeps its age.
    pub ready_at: Wall,
    /// Since when it waits for a worker, for `queue_timeout_ms`: its time in the hands of a worker
    /// that was lost does not count. Not kept in the row: after a restart it counts anew for a task
    /// that was lost.
    pub pending_since: Wall,
    /// The latest assignment.
    pub fence: Fence,
    /// The latest try.
    pub attempt: Attempt,
    /// Attempts that failed and count against `retry.max`.
    pub failures: u32,
    /// Attempts that were lost and count against `retry.max_lost`.
    pub lost: u32,
    /// 0 to 100.
    pub priority: u8,
}

/// Where a task stands, with what is known only there.
#[derive(Clone, PartialEq, Debug)]
pub enum Phase {
    /// Waits for predecessors, or for `release`, or for its run to go on.
    Blocked,
    /// Waits for somebody's approval.
    Gate,
    /// The master itself is at it: it consists of items or of a child run.
    Open(Parts),
    /// Waits for `ready_at`.
    Delayed(Option<Box<Orphan>>),
    /// Waits for a worker.
    Ready(Option<Box<Orphan>>),
    /// A worker has it.
    Assigned(Hold),
    /// Done.
    Settled(Status),
}

/// A task that consists of others.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Parts {
    /// Since when.
    pub started_at: Wall,
    /// It was told to stop: its parts are.
    pub cancelling: bool,
}

/// An attempt in the hands of a worker.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hold {
    /// Whose.
    pub worker: WorkerIndex,
    /// Since when.
    pub assigned_at: Wall,
    /// Since when it runs.
    pub started_at: Option<Wall>,
    /// It was told to stop.
    pub cancelling: bool,
    /// It was asked back.
    pub returning: bool,
    /// Its attempt may have a row already: it was lost once, or an earlier master gave it away.
    /// Whatever becomes of it must then be written over that row.
    pub has_row: bool,
}

/// A lost attempt that may yet be heard of: its result counts until the task is assigned anew.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Orphan {
    /// As it was when it was lost.
    pub hold: Hold,
}

/// What may be asked of a task.
#[derive(Clone, PartialEq, Debug)]
pub enum Command {
    /// Give it to a worker.
    Assign {
        /// To whom.
        worker: WorkerIndex,
    },
    /// Its worker has begun.
    Start {
        /// By the report.
        attempt: Attempt,
        /// By the report.
        fence: Fence,
        /// By the worker's clock.
        at: Wall,
    },
    /// Its worker has ended it.
    Finish {
        /// By the report.
        attempt: Attempt,
        /// By the report.
        fence: Fence,
        /// How.
        end: End,
        /// When it began, by the worker's clock.
        started_at: Wall,
        /// Why it failed.
        error: Option<Arc<str>>,
        /// If it ended well: whether its `loop` goes round again.
        again: bool,
    },
    /// Ask its worker to give it back.
    AskBack,
    /// Its worker gave it back before it began.
    Return {
        /// By the report.
        attempt: Attempt,
        /// By the report.
        fence: Fence,
    },
    /// Its worker is gone.
    Lose {
        /// How the master knows.
        reason: Arc<str>,
        /// Whether it may have begun although nobody has heard of it: its start was still to be
        /// told.
        may_have_begun: bool,
    },
    /// Take it from whoever has it, or may still have it: a new attempt is to be made.
    Supersede {
        /// Why.
        reason: Arc<str>,
    },
    /// A returning worker still has it.
    Adopt {
        /// Who.
        worker: WorkerIndex,
        /// By the worker.
        attempt: Attempt,
        /// By the worker.
        fence: Fence,
        /// By the worker.
        started: bool,
    },
    /// Stop it.
    Cancel,
    /// Run it again.
    Retry,
    /// Have it wait to be run again.
    Rewind,
    /// Its time may have come.
    Wake,
    /// It may have waited too long.
    ExpireQueue {
        /// The limit.
        queue_timeout_ms: u64,
    },
    /// Serve it sooner or later.
    Prioritise {
        /// 0 to 100.
        priority: u8,
    },
    /// Have it wait for something.
    Block,
    /// What it waited for has come.
    Unblock,
    /// Never run it.
    Skip {
        /// Because of what.
        cause: Arc<str>,
    },
    /// Have somebody be asked whether it may go on.
    Ask,
    /// Let it go on.
    Approve,
    /// Do not let it go on.
    Reject {
        /// Why.
        reason: Arc<str>,
    },
    /// Begin its parts.
    Open,
    /// Its parts are over.
    Conclude {
        /// Why it failed, if it did.
        error: Option<Arc<str>>,
    },
}

/// What a command led to.
#[derive(Clone, PartialEq, Debug)]
pub enum TaskEvent {
    /// A worker has it now.
    Assigned {
        /// Who.
        worker: WorkerIndex,
        /// When.
        at: Wall,
    },
    /// It runs.
    Started {
        /// By the worker's clock.
        at: Wall,
    },
    /// It is asked back.
    AskedBack,
    /// It is ready again; the attempt never was.
    Returned,
    /// It is ready again; the attempt may yet be heard of.
    Lost {
        /// Whether it counts against `retry.max_lost`.
        counted: bool,
        /// How the master knows.
        reason: Arc<str>,
        /// When.
        at: Wall,
    },
    /// It is ready again; nothing that its attempt still says counts.
    Superseded {
        /// Why.
        reason: Arc<str>,
        /// When.
        at: Wall,
    },
    /// The worker that had it has it again.
    Adopted {
        /// Who.
        worker: WorkerIndex,
        /// When.
        at: Wall,
        /// Whether it runs.
        started: bool,
    },
    /// Its attempt was told to stop.
    Cancelling,
    /// It failed and will be tried again.
    Retrying {
        /// Wait before the next try.
        delay_ms: u64,
        /// When that is.
        ready_at: Wall,
        /// Why it failed.
        error: Arc<str>,
    },
    /// It is done.
    Settled {
        /// How.
        status: Status,
        /// When its attempt began, if the report says so.
        started_at: Option<Wall>,
        /// Why it failed.
        error: Option<Arc<str>>,
    },
    /// It was settled and is ready again.
    Reopened {
        /// When.
        at: Wall,
    },
    /// It was settled and waits to be run again.
    Rewound,
    /// Its time has come.
    Woken,
    /// Its priority changed.
    Prioritised {
        /// 0 to 100.
        priority: u8,
    },
    /// It waits for something.
    Blocked,
    /// It waits no more.
    Unblocked {
        /// When.
        at: Wall,
    },
    /// Somebody is asked whether it may go on.
    Asked,
    /// It may go on, as soon as its run has room for it.
    Approved,
    /// Its parts have begun.
    Opened {
        /// When.
        at: Wall,
    },
    /// It ended well, and its `loop` goes round again.
    Repeated {
        /// When.
        at: Wall,
    },
}

/// What a decision needs to know beside the task.
#[derive(Clone, Copy, Debug)]
pub struct Policy<'a> {
    /// The specification's.
    pub retry: &'a RetryPolicy,
    /// A number that differs from task to task, for jitter.
    pub seed: u64,
}

impl Task {
    /// A new task: ready at once, or at a later time.
    #[must_use]
    pub fn new(now: Wall, not_before: Option<Wall>, priority: u8) -> Self {
        let ready_at = not_before.map_or(now, |time| time.max(now));
        Self {
            phase: if ready_at > now { Phase::Delayed(None) } else { Phase::Ready(None) },
            created_at: now,
            ready_at,
            pending_since: ready_at,
            fence: Fence(0),
            attempt: Attempt(0),
            failures: 0,
            lost: 0,
            priority,
        }
    }

    /// As users see it.
    #[must_use]
    pub fn status(&self) -> Status {
        match &self.phase {
            Phase::Blocked => Status::Blocked,
            Phase::Gate | Phase::Delayed(_) | Phase::Ready(_) => Status::Pending,
            Phase::Open(_) => Status::Running,
            Phase::Assigned(hold) if hold.started_at.is_some() => Status::Running,
            Phase::Assigned(_) => Status::Pending,
            Phase::Settled(status) => *status,
        }
    }

    /// The worker's hold on it.
    #[must_use]
    pub fn hold(&self) -> Option<&Hold> {
        match &self.phase {
            Phase::Assigned(hold) => Some(hold),
            _ => None,
        }
    }

    /// The lost attempt that may yet be heard of.
    #[must_use]
    pub fn orphan(&self) -> Option<&Orphan> {
        match &self.phase {
            Phase::Delayed(orphan) | Phase::Ready(orphan) => orphan.as_deref(),
            _ => None,
        }
    }

    /// Whether it waits in a queue.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        matches!(self.phase, Phase::Ready(_))
    }

    /// Whether it waits in no queue and in no hands: for predecessors, a time or an approval.
    #[must_use]
    pub fn is_parked(&self) -> bool {
        matches!(self.phase, Phase::Blocked | Phase::Gate | Phase::Delayed(_))
    }

    /// Whether anything beside a first attempt that succeeds has happened to it, so that its
    /// attempts need rows of their own.
    #[must_use]
    pub fn has_history(&self) -> bool {
        self.attempt.0 > 1 || self.failures > 0 || self.lost > 0
    }
}

// A million queued tasks are to fit into 300 MB, queue and tables included.
const _: () = assert!(size_of::<Task>() <= 96);

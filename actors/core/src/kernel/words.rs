//! What goes into the kernel and what comes out of it.

mod locks;
mod request;

use std::sync::Arc;

use crate::attempt::{AttemptKey, Hello, Report};
use crate::batch::{Batch, RelationRow, SavedTask, SettledCounts, TaskRow};
use crate::checkpoint::{Ask, Given, HeldLock};
use crate::ids::{CheckpointId, DecisionNumber, ReplyTo, RunId, SessionEpoch, SpecHash, TaskId};
use crate::rejection::Rejection;
use crate::time::Mono;

pub use super::prepared::PreparedSpec;
pub use super::relations::Predecessor;
pub use super::runs::{
    Again, Fork, LoadedRun, MakeTask, NewRun, PreparedRun, RunAction, SavedRun, UpgradeRun,
};
pub use locks::{LockFilter, LockRequest, Unlock, WaitingLock};
pub use request::{
    Answer, NewTask, NewVersion, NodeWhy, Reply, Request, RestoreRequest, RunWhy, SaveRequest, Stats,
    SubmitKey, WorkerInfo,
};

/// A settled task that was asked for by [`Effect::Load`].
#[derive(Clone, PartialEq, Debug)]
pub struct LoadedTask {
    /// Its row.
    pub row: TaskRow,
    /// Its specification.
    pub spec: Arc<PreparedSpec>,
    /// Its relations to live tasks that come after it.
    pub successors: Vec<RelationRow>,
    /// Its checkpoints and its memory.
    pub saved: SavedTask,
}

/// Everything that can happen to the kernel.
#[derive(Clone, PartialEq, Debug)]
pub enum Input {
    /// A client asks.
    Request {
        /// Who waits.
        reply: ReplyTo,
        /// What.
        request: Request,
    },
    /// A worker has said hello on a new socket.
    Hello {
        /// Which socket.
        session: SessionEpoch,
        /// Who.
        hello: Box<Hello>,
    },
    /// Any frame of a worker: it is alive.
    Heard {
        /// On which socket.
        session: SessionEpoch,
    },
    /// A worker reports.
    Reports {
        /// On which socket.
        session: SessionEpoch,
        /// In order.
        reports: Vec<Report>,
    },
    /// Running attempts ask for something.
    Asks {
        /// On which socket.
        session: SessionEpoch,
        /// In order.
        asks: Vec<Ask>,
    },
    /// A worker takes no new work.
    Draining {
        /// On which socket.
        session: SessionEpoch,
    },
    /// A worker leaves, with nothing left.
    Goodbye {
        /// On which socket.
        session: SessionEpoch,
    },
    /// A socket has closed.
    Disconnected {
        /// Which.
        session: SessionEpoch,
    },
    /// The answer to [`Effect::Load`].
    Loaded {
        /// What was asked for.
        asked: Vec<TaskId>,
        /// What there is of it.
        tasks: Vec<LoadedTask>,
    },
    /// The answer to [`Effect::LoadRun`]; none if there is no such run.
    RunLoaded {
        /// What was asked for.
        run: RunId,
        /// Its rows.
        loaded: Option<Box<LoadedRun>>,
    },
    /// Whoever asked has gone: if he waits for a lock, he loses his place.
    Abandoned {
        /// Who.
        reply: ReplyTo,
    },
    /// Retention has removed settled tasks.
    Pruned(SettledCounts),
    /// Everything up to that decision is durable.
    Committed(DecisionNumber),
    /// The time of [`Output::wake_at`] has come, or any other time.
    Tick,
}

/// One assignment, as it goes to a worker.
#[derive(Clone, PartialEq, Debug)]
pub struct Assigned {
    /// What to call it.
    pub key: AttemptKey,
    /// Names the specification, to send it once for many.
    pub spec: SpecHash,
    /// The specification's JSON.
    pub body: Arc<str>,
    /// Its place in the queue: smaller ones begin first at the worker too.
    pub rank: i64,
    /// The run that it is a part of.
    pub run: Option<RunId>,
    /// The checkpoint at which it begins.
    pub checkpoint: Option<CheckpointId>,
    /// Whether the task remembers something.
    pub remembers: bool,
    /// The locks that its specification names, in their order.
    pub locks: Vec<HeldLock>,
}

/// What the shell has to do. Effects of a decision come out once it is durable.
#[derive(Clone, PartialEq, Debug)]
pub enum Effect {
    /// Answer a client.
    Reply {
        /// Who waits.
        to: ReplyTo,
        /// What to say.
        reply: Reply,
    },
    /// Answer a hello.
    Welcome {
        /// On which socket.
        session: SessionEpoch,
        /// What stays the worker's.
        keep: Vec<AttemptKey>,
        /// What it must stop.
        stop: Vec<AttemptKey>,
    },
    /// Refuse a hello.
    Refuse {
        /// On which socket.
        session: SessionEpoch,
        /// Why.
        reason: String,
    },
    /// Hand over work.
    Assign {
        /// On which socket.
        session: SessionEpoch,
        /// What.
        tasks: Vec<Assigned>,
    },
    /// Reports up to that number are durable.
    Ack {
        /// On which socket.
        session: SessionEpoch,
        /// Inclusive.
        up_to: u64,
    },
    /// What became of what attempts asked, by its number.
    Answers {
        /// On which socket.
        session: SessionEpoch,
        /// In the order of the questions.
        answers: Vec<(u64, Result<Given, Rejection>)>,
    },
    /// Have attempts stopped and reported.
    Cancel {
        /// On which socket.
        session: SessionEpoch,
        /// Which.
        keys: Vec<AttemptKey>,
    },
    /// Have attempts stopped that are no longer the worker's.
    Drop {
        /// On which socket.
        session: SessionEpoch,
        /// Which.
        keys: Vec<AttemptKey>,
    },
    /// Ask for attempts that have not begun.
    Return {
        /// On which socket.
        session: SessionEpoch,
        /// Which.
        keys: Vec<AttemptKey>,
    },
    /// Tell a worker to take no new work and to leave.
    Drain {
        /// On which socket.
        session: SessionEpoch,
    },
    /// Shut a socket from outside: a newer one took its place, or its lease has passed.
    Close {
        /// Which.
        session: SessionEpoch,
    },
    /// Read settled tasks and send them back with [`Input::Loaded`], after everything that is
    /// already decided is durable.
    Load {
        /// Which.
        tasks: Vec<TaskId>,
    },
    /// Read a run with its ended tasks and send it back with [`Input::RunLoaded`], after everything
    /// that is already decided is durable.
    LoadRun {
        /// Which.
        run: RunId,
        /// Whether with the files that its tasks left.
        files: bool,
        /// Names of nodes whose large values are to be read, beside those of which its workflow reads
        /// them.
        also: Vec<Box<str>>,
    },
}

/// What one step leads to.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Output {
    /// To be made durable, in the order of the steps; its number comes back with
    /// [`Input::Committed`]. `None` when the step changed nothing.
    pub batch: Option<Batch>,
    /// To be done now: their decisions are durable.
    pub effects: Vec<Effect>,
    /// When to step with [`Input::Tick`], at the latest.
    pub wake_at: Option<Mono>,
}

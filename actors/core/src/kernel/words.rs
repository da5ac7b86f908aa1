//! What goes into the kernel and what comes out of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::keys::KeyInfo;
use super::schedules::SavedSchedule;
use crate::attempt::{AttemptKey, Hello, Report};
use crate::batch::{Batch, KeyHash, KeyLimitRow, RelationRow, ScheduleRow, SettledCounts, TaskRow};
use crate::ids::{BootId, DecisionNumber, ReplyTo, RunId, SessionEpoch, SpecHash, TaskId};
use crate::rejection::Rejection;
use crate::relation::Relation;
use crate::time::{Mono, Wall};
use crate::why::{Reason, Why};

pub use super::prepared::PreparedSpec;
pub use super::relations::Predecessor;
pub use super::runs::{Again, LoadedRun, MakeTask, NewRun, PreparedRun, RunAction, SavedRun};

/// A task to be made. Its form was checked at the door.
#[derive(Clone, PartialEq, Debug)]
pub struct NewTask {
    /// One line for people.
    pub title: Box<str>,
    /// Which workers may take it.
    pub group: Arc<str>,
    /// 0 to 100.
    pub priority: u8,
    /// The rest.
    pub spec: Arc<PreparedSpec>,
    /// Not before then.
    pub not_before: Option<Wall>,
    /// Whether it waits for `release`.
    pub hold: bool,
    /// What it depends on.
    pub needs: Vec<Predecessor>,
}

/// An idempotency key with the hash of the body that it came with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SubmitKey {
    /// The key, within its scope.
    pub key: KeyHash,
    /// The body.
    pub body: KeyHash,
}

/// What clients ask.
#[derive(Clone, PartialEq, Debug)]
pub enum Request {
    /// Make tasks: all or none.
    Submit {
        /// At most [`crate::limits::TASKS_PER_SUBMISSION`].
        tasks: Vec<NewTask>,
        /// For the whole submission.
        key: Option<SubmitKey>,
    },
    /// Stop tasks.
    Cancel {
        /// Which.
        tasks: Vec<TaskId>,
    },
    /// Run settled tasks again.
    Retry {
        /// Which.
        tasks: Vec<TaskId>,
    },
    /// Change waiting tasks.
    Patch {
        /// Which.
        tasks: Vec<TaskId>,
        /// A new priority.
        priority: Option<u8>,
        /// A new group.
        group: Option<Arc<str>>,
    },
    /// Let held tasks go.
    Release {
        /// Which.
        tasks: Vec<TaskId>,
    },
    /// Let a node go on that waits for an approval.
    Approve {
        /// Which.
        task: TaskId,
    },
    /// Do not let it go on.
    Reject {
        /// Which.
        task: TaskId,
        /// Why; may be empty.
        reason: Box<str>,
    },
    /// Have one task come after another.
    Relate {
        /// Before.
        predecessor: Predecessor,
        /// After.
        successor: TaskId,
        /// How.
        relation: Relation,
    },
    /// Begin a run.
    StartRun {
        /// What it does.
        run: Box<NewRun>,
        /// For the run.
        key: Option<SubmitKey>,
    },
    /// Pause, resume or cancel a run.
    ControlRun {
        /// Which.
        run: RunId,
        /// What.
        action: RunAction,
    },
    /// Run a part of a run again.
    Rerun(Box<Again>),
    /// Say why a run does not go on.
    WhyRun {
        /// Which.
        run: RunId,
    },
    /// Set the limits of a concurrency key, or take them away.
    ConfigureKey(KeyLimitRow),
    /// List the concurrency keys.
    Keys,
    /// Make or change a schedule.
    PutSchedule(Box<SavedSchedule>),
    /// Take a schedule away.
    RemoveSchedule {
        /// Which.
        name: Arc<str>,
    },
    /// Have a schedule wait, or go on.
    PauseSchedule {
        /// Which.
        name: Arc<str>,
        /// Whether it waits.
        paused: bool,
    },
    /// Begin what a schedule begins now.
    FireSchedule {
        /// Which.
        name: Arc<str>,
    },
    /// List the schedules.
    Schedules,
    /// Say why a task is not running.
    Why {
        /// Which.
        task: TaskId,
    },
    /// Count.
    Stats,
    /// List the workers.
    Workers,
    /// Give a worker no new work.
    Drain {
        /// Which.
        worker: Arc<str>,
    },
    /// Every process of that life of the worker is dead: its warden says so.
    WorkerDead {
        /// Which.
        worker: Arc<str>,
        /// Which life.
        boot: BootId,
    },
}

/// What a run is at, and what it waits for.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RunWhy {
    /// Nodes and items that have not ended, the first hundred: what has begun before what waits.
    pub nodes: Vec<NodeWhy>,
    /// How many more there are.
    pub more: u64,
}

/// What holds up one node of a run, or one item.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeWhy {
    /// Its name; an item's is `name[3]`, a child's node's `name/node`.
    pub name: Arc<str>,
    /// Its task.
    pub task: TaskId,
    /// All of them; that it runs, where it does.
    pub reasons: Vec<Reason>,
}

/// What clients get.
#[derive(Clone, PartialEq, Debug)]
pub enum Answer {
    /// Tasks were made, or had been made before by the same key.
    Submitted {
        /// The first; the others follow without a gap.
        first: TaskId,
        /// How many.
        count: u32,
        /// When.
        at: Wall,
        /// Whether the key was used before.
        replayed: bool,
    },
    /// What became of each task that was named.
    Changed {
        /// Tasks that were changed, or were already so.
        changed: u32,
        /// The others.
        refused: Vec<(TaskId, Rejection)>,
    },
    /// A run was made, or had been made before by the same key.
    RunStarted {
        /// Which.
        run: RunId,
        /// Whether the key was used before.
        replayed: bool,
    },
    /// The schedules, by name.
    Schedules(Vec<ScheduleRow>),
    /// The concurrency keys, by name.
    Keys(Vec<KeyInfo>),
    /// The reasons, by node.
    WhyRun(RunWhy),
    /// The reasons.
    Why(Box<Why>),
    /// The counts.
    Stats(Box<Stats>),
    /// The workers, by name.
    Workers(Vec<WorkerInfo>),
    /// It is so.
    Done,
}

/// An answer or a refusal.
pub type Reply = Result<Answer, Rejection>;

/// Counts, kept as they change.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Stats {
    /// Live tasks that wait for predecessors.
    pub blocked: u64,
    /// Live tasks that are ready.
    pub pending: u64,
    /// Live tasks that have begun.
    pub running: u64,
    /// Settled ones.
    pub settled: SettledCounts,
    /// Workers that hold a lease and take work.
    pub online: u64,
    /// Workers without a lease.
    pub offline: u64,
    /// Workers that take no new work.
    pub draining: u64,
    /// Slots of workers that are not offline.
    pub slots: u64,
    /// Of these, taken.
    pub slots_used: u64,
}

/// A worker as listings show it.
#[derive(Clone, PartialEq, Debug)]
pub struct WorkerInfo {
    /// Its id.
    pub name: Arc<str>,
    /// Whom it serves.
    pub groups: Vec<Arc<str>>,
    /// What it is.
    pub labels: BTreeMap<String, String>,
    /// Attempts at once.
    pub slots: u32,
    /// Attempts that have begun.
    pub running: u32,
    /// Attempts that are there.
    pub assigned: u32,
    /// Whether it holds a lease.
    pub online: bool,
    /// Whether its socket is open.
    pub connected: bool,
    /// Whether it takes no new work.
    pub draining: bool,
    /// Since when it is so.
    pub changed_at: Wall,
}

/// A settled task that was asked for by [`Effect::Load`].
#[derive(Clone, PartialEq, Debug)]
pub struct LoadedTask {
    /// Its row.
    pub row: TaskRow,
    /// Its specification.
    pub spec: Arc<PreparedSpec>,
    /// Its relations to live tasks that come after it.
    pub successors: Vec<RelationRow>,
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

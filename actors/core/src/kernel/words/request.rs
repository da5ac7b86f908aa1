//! What clients ask of the kernel, and what they get.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::batch::{KeyHash, KeyLimitRow, LockRow, ScheduleRow, SettledCounts};
use crate::checkpoint::NewCheckpoint;
use crate::ids::{BootId, CheckpointId, Fence, RunId, SpecHash, TaskId};
use crate::kernel::keys::KeyInfo;
use crate::kernel::prepared::PreparedSpec;
use crate::kernel::relations::Predecessor;
use crate::kernel::runs::{Again, Fork, NewRun, RunAction, UpgradeRun};
use crate::kernel::schedules::SavedSchedule;
use crate::kernel::words::{LockFilter, LockRequest, Unlock, WaitingLock};
use crate::lock::{LockFence, LockId, LockOwner, LockPath, Repository};
use crate::memory::{Memory, Owner};
use crate::rejection::Rejection;
use crate::relation::Relation;
use crate::spec::ContinueFrom;
use crate::time::Wall;
use crate::why::{Reason, Why};

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

/// A checkpoint that a client makes.
#[derive(Clone, PartialEq, Debug)]
pub struct SaveRequest {
    /// Of which task; it must not have ended.
    pub task: TaskId,
    /// By which assignment: then that must be the current one.
    pub fence: Option<Fence>,
    /// What is saved.
    pub checkpoint: NewCheckpoint,
    /// What the task is to remember from now on; as before when absent.
    pub memory: Option<Memory>,
}

/// A checkpoint at which a task is to go on.
#[derive(Clone, PartialEq, Debug)]
pub struct RestoreRequest {
    /// The task.
    pub task: TaskId,
    /// Its checkpoint.
    pub checkpoint: CheckpointId,
    /// The beginning means that only its memory is restored.
    pub continue_from: ContinueFrom,
    /// What the task remembered then.
    pub memory: Memory,
}

/// Another version of a task. Its form was checked at the door.
#[derive(Clone, PartialEq, Debug)]
pub struct NewVersion {
    /// Of which task.
    pub task: TaskId,
    /// The version that it was made from: the task must still have it.
    pub from: u32,
    /// The specification that it was made from: the task must still have it. A task that is given the
    /// outputs of another one has the same version and another specification.
    pub base: SpecHash,
    /// Its title.
    pub title: Box<str>,
    /// What is to be done.
    pub spec: Arc<PreparedSpec>,
    /// Why.
    pub reason: Arc<str>,
    /// By whom.
    pub author: Box<str>,
    /// The title that the task had as its first version, for the history.
    pub first: Box<str>,
    /// Whether a running attempt is to be begun anew.
    pub restart: bool,
    /// Where the next attempt begins.
    pub continue_from: ContinueFrom,
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
        /// Where they begin.
        continue_from: ContinueFrom,
    },
    /// Save the state of a task.
    Save {
        /// What.
        save: Box<SaveRequest>,
        /// For the checkpoint.
        key: Option<SubmitKey>,
    },
    /// Have a task go on at a checkpoint: a new attempt is made.
    Restore(Box<RestoreRequest>),
    /// Give a task another version.
    Upgrade(Box<NewVersion>),
    /// Have a live task or run remember something, or forget it.
    Remember {
        /// Who.
        owner: Owner,
        /// Under that name.
        name: Arc<str>,
        /// JSON as text; forgotten when absent.
        value: Option<Arc<str>>,
        /// For so long; for ever when absent.
        ttl_ms: Option<u64>,
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
    /// Begin a run where another one was.
    Fork(Box<Fork>),
    /// Give a run another workflow; [`Answer::Upgraded`].
    UpgradeRun(Box<UpgradeRun>),
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
    /// Lock files; [`Answer::Locked`].
    Lock {
        /// What.
        want: Box<LockRequest>,
        /// How long to wait for it; 0 is a try.
        wait_ms: u64,
    },
    /// Lock files for many, each by itself and without waiting; [`Answer::Locks`].
    LockEach(Vec<LockRequest>),
    /// Give locks back; [`Answer::Unlocked`].
    Unlock(Vec<Unlock>),
    /// Give back what an owner holds: of one repository if that is named, at one path if that is;
    /// [`Answer::Released`].
    UnlockBy {
        /// Whose.
        owner: LockOwner,
        /// Where.
        repo: Option<Repository>,
        /// Which.
        path: Option<LockPath>,
    },
    /// Hold a lock longer; [`Answer::Locked`].
    Renew {
        /// Which.
        lock: LockId,
        /// Its number, which must be right.
        fence: LockFence,
        /// How long from now; as before when absent. `Some(None)` is for ever.
        ttl_ms: Option<Option<u64>>,
    },
    /// Take a lock away from its owner; [`Answer::Locked`].
    Break {
        /// Which.
        lock: LockId,
        /// Why.
        reason: Arc<str>,
    },
    /// List the locks that are held, and who waits; [`Answer::LockList`].
    Locks(LockFilter),
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
    /// A checkpoint was made, or had been made before by the same key.
    Saved {
        /// Which.
        checkpoint: CheckpointId,
        /// When.
        at: Wall,
    },
    /// A task has another version.
    Upgraded {
        /// Its number.
        version: u32,
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
    /// A lock as it is now.
    Locked(Box<LockRow>),
    /// What became of each request.
    Locks(Vec<Result<LockRow, Rejection>>),
    /// What became of each lock that was to be given back.
    Unlocked(Vec<Result<(), Rejection>>),
    /// So many locks were given back.
    Released(u32),
    /// Locks.
    LockList {
        /// Those that are held, by number.
        locks: Vec<LockRow>,
        /// Those who wait, in the order of their turns; the first hundred.
        waiting: Vec<WaitingLock>,
        /// Whether there are more that are held.
        more: bool,
    },
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
    /// Locks of files that are held.
    pub locks_held: u64,
    /// Requests and tasks that wait for locks of files.
    pub locks_waiting: u64,
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

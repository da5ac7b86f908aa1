//! What one or several kernel steps want written. The store turns it into one transaction.
//!
//! Rows are whole snapshots of what changes, so that several changes of one task within a batch
//! become one row: the later state replaces the earlier.

mod locks;
mod runs;
mod saved;
mod standing;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::blob::{BlobHash, BlobRef, Left, NewBlob, Outputs};
use crate::event::Event;
use crate::ids::{Attempt, BootId, CheckpointId, DecisionNumber, Fence, LockNumber, RunId, SpecHash, TaskId};
use crate::status::Status;
use crate::time::Wall;

pub use locks::{
    LockBirth, LockEnd, LockEnded, LockLease, LockRow, LockSpaceRow, LockState, LockWrite, LockedBy,
};
pub use runs::{
    DefinitionRow, LiveRelation, NodeRename, OutdatedRow, RelationKey, RelationRow, RoundRow, RunBirth,
    RunChange, RunLayout, RunRow, RunState, RunVersionRow, RunWrite, SettledNode, Stopping,
};
pub use saved::{CheckpointRow, ChoiceRow, MemoryRow, SavedTask, SavedWrites, VersionRow};
pub use standing::{CatchUp, KeyLimit, KeyLimitRow, Rate, ScheduleRow, ScheduleWrite};

/// A specification that the database may not have yet.
#[derive(Clone, PartialEq, Debug)]
pub struct SpecRow {
    /// Its key.
    pub hash: SpecHash,
    /// Its canonical JSON.
    pub body: Arc<str>,
    /// What its input is kept under, if that is too large for the text.
    pub blobs: Box<[BlobHash]>,
}

/// The part of a task that is written once, when it is created.
#[derive(Clone, PartialEq, Debug)]
pub struct TaskBirth {
    /// Its specification.
    pub spec: SpecHash,
    /// One line for people.
    pub title: Box<str>,
    /// When it was accepted.
    pub created_at: Wall,
    /// The run that it is a part of.
    pub run: Option<RunNode>,
}

/// A task's place in a run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RunNode {
    /// Which run.
    pub run: RunId,
    /// Its node's name; `name[3]` for an item of a `foreach`.
    pub node: Arc<str>,
}

/// For what a task waits that no worker can give, or what it consists of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Waits {
    /// For `release`; and, whatever this says, for its predecessors.
    Release = 1,
    /// For somebody's approval.
    Approval = 2,
    /// For its items or its child run: it is itself no work for a worker.
    Parts = 3,
    /// It was decided on or approved, and its run is paused or has no room for it.
    Room = 4,
}

impl Waits {
    /// The wait with that number.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        [Self::Release, Self::Approval, Self::Parts, Self::Room]
            .into_iter()
            .find(|waits| *waits as u8 == number)
    }
}

/// The part of a task that changes; always written whole.
#[derive(Clone, PartialEq, Debug)]
pub struct TaskState {
    /// Where it stands. An assigned task that has not begun is `pending` with a worker.
    pub status: Status,
    /// Whom it waits for.
    pub group: Arc<str>,
    /// 0 to 100.
    pub priority: u8,
    /// The latest try.
    pub attempt: Attempt,
    /// The latest assignment.
    pub fence: Fence,
    /// Attempts that failed and were counted against `retry.max`.
    pub failures: u32,
    /// Attempts that were lost and counted against `retry.max_lost`.
    pub lost: u32,
    /// Raised by each upgrade; from 1.
    pub version: u32,
    /// The worker that holds it, or that settled it.
    pub worker: Option<Arc<str>>,
    /// Since when it is ready, or when it will be.
    pub ready_at: Wall,
    /// When the latest attempt was given away.
    pub assigned_at: Option<Wall>,
    /// When the latest attempt began.
    pub started_at: Option<Wall>,
    /// When it settled.
    pub settled_at: Option<Wall>,
    /// Whether a running attempt has been told to stop.
    pub cancelling: bool,
    /// For what it waits beside workers and time.
    pub waits: Option<Waits>,
}

/// How an attempt ended, as far as it is kept.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Outcome {
    /// The process's exit code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// The signal that ended it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// The tail of its output, at most [`crate::limits::RESULT_BYTES`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result: Option<Box<str>>,
    /// What it wrote into `AGENTFLOW_OUTPUT`: a JSON object as text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outputs: Option<Box<str>>,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<Arc<str>>,
    /// What it left that is too large for a row, and its files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub left: Option<Box<Left>>,
}

impl Outcome {
    /// Its outputs as JSON text; `None` if there are none.
    ///
    /// # Errors
    /// They are kept elsewhere, and nobody has read them.
    pub fn outputs(&self) -> Result<Option<&str>, BlobRef> {
        let left = self.left.as_deref();
        match (&self.outputs, left.and_then(|left| left.outputs)) {
            (Some(text), _) => Ok(Some(text)),
            (None, None) => Ok(None),
            (None, Some(blob)) => left.and_then(|left| left.outputs_text.as_deref()).map(Some).ok_or(blob),
        }
    }

    /// Its outputs, to be handed on as they are.
    #[must_use]
    pub fn whole_outputs(&self) -> Option<Outputs> {
        let blob = self.left.as_ref().and_then(|left| left.outputs);
        self.outputs.clone().map(Outputs::Text).or(blob.map(Outputs::Blob))
    }

    /// Its result; `None` if there is none.
    ///
    /// # Errors
    /// As with [`Outcome::outputs`].
    pub fn result(&self) -> Result<Option<&str>, BlobRef> {
        let left = self.left.as_deref();
        match (&self.result, left.and_then(|left| left.result)) {
            (Some(text), _) => Ok(Some(text)),
            (None, None) => Ok(None),
            (None, Some(blob)) => left.and_then(|left| left.result_text.as_deref()).map(Some).ok_or(blob),
        }
    }
}

/// What happens to the outcome columns of a task.
#[derive(Clone, PartialEq, Debug, Default)]
pub enum OutcomeChange {
    /// They stay.
    #[default]
    Keep,
    /// They are replaced.
    Set(Box<Outcome>),
}

/// A task was given another specification.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SpecChange {
    /// No longer named by the task.
    pub old: SpecHash,
    /// Named by it from now on; its text is in [`Batch::specs`] if it may be new.
    pub new: SpecHash,
}

/// Who holds what the master itself is at: a node that consists of items or of a child run.
pub const MASTER: &str = "(master)";

/// One task's row.
#[derive(Clone, PartialEq, Debug)]
pub struct TaskWrite {
    /// Which.
    pub id: TaskId,
    /// Present when the row is new.
    pub birth: Option<Box<TaskBirth>>,
    /// Another specification than before: present when it was changed.
    pub spec: Option<SpecChange>,
    /// Another title than before: present when it was changed.
    pub title: Option<Box<str>>,
    /// As it is now.
    pub state: TaskState,
    /// How its latest attempt ended.
    pub outcome: OutcomeChange,
}

/// How an attempt ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum AttemptEnd {
    /// Exit 0.
    Completed = 0,
    /// Anything else of its own doing.
    Failed = 1,
    /// Stopped on request.
    Cancelled = 2,
    /// Gone with its worker.
    Lost = 3,
}

impl AttemptEnd {
    /// The end with that number.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        [Self::Completed, Self::Failed, Self::Cancelled, Self::Lost].get(usize::from(number)).copied()
    }
}

/// One ended attempt. The first attempt of a task has no row when it succeeds: the task's own row
/// says it all.
#[derive(Clone, PartialEq, Debug)]
pub struct AttemptRow {
    /// Whose.
    pub task: TaskId,
    /// Which try.
    pub attempt: Attempt,
    /// Its assignment.
    pub fence: Fence,
    /// Where.
    pub worker: Arc<str>,
    /// When it was given away.
    pub assigned_at: Wall,
    /// When it began.
    pub started_at: Option<Wall>,
    /// When the master learned of its end.
    pub ended_at: Wall,
    /// How.
    pub end: AttemptEnd,
    /// What is kept of it.
    pub outcome: Outcome,
}

/// Where to find the output of an attempt that wrote something.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogRow {
    /// Whose.
    pub task: TaskId,
    /// Which try.
    pub attempt: Attempt,
    /// Bytes that the process wrote.
    pub bytes: u64,
    /// Of these, bytes cut out of the middle.
    pub cut: u64,
}

/// What is known of a worker.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct WorkerRow {
    /// Its id.
    pub name: Arc<str>,
    /// Its life.
    pub boot: BootId,
    /// Whom it serves.
    pub groups: Vec<Arc<str>>,
    /// What it is.
    pub labels: BTreeMap<String, String>,
    /// Attempts at once.
    pub slots: u32,
    /// Attempts beyond the slots.
    pub prefetch: u32,
    /// Whether it takes no new work.
    pub draining: bool,
    /// When it first came.
    pub registered_at: Wall,
    /// When it was last connected or lost.
    pub changed_at: Wall,
}

/// An idempotency key within its scope, hashed like a specification.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct KeyHash(pub [u8; 16]);

impl KeyHash {
    /// The first 128 bits of the SHA-256 of the scope, a zero byte and the text.
    #[must_use]
    pub fn of(scope: &str, text: &[u8]) -> Self {
        let digest = Sha256::new().chain_update(scope).chain_update([0]).chain_update(text).finalize();
        let mut hash = [0; 16];
        hash.copy_from_slice(&digest[..16]);
        Self(hash)
    }
}

/// A key and what it was used for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeyRow {
    /// The key.
    pub key: KeyHash,
    /// The hash of the body that came with it.
    pub body: KeyHash,
    /// The first task that it made.
    pub first: TaskId,
    /// How many tasks, numbered on from the first.
    pub count: u32,
    /// When.
    pub at: Wall,
}

/// Settled tasks by status; live ones are counted in memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct SettledCounts {
    /// Done, well.
    pub completed: u64,
    /// Done, badly.
    pub failed: u64,
    /// Stopped on request.
    pub cancelled: u64,
    /// Never run.
    pub skipped: u64,
}

impl SettledCounts {
    /// The count of one settled status; `None` for a live one.
    pub fn of(&mut self, status: Status) -> Option<&mut u64> {
        match status {
            Status::Completed => Some(&mut self.completed),
            Status::Failed => Some(&mut self.failed),
            Status::Cancelled => Some(&mut self.cancelled),
            Status::Skipped => Some(&mut self.skipped),
            Status::Blocked | Status::Pending | Status::Running => None,
        }
    }
}

/// The numbers that go on from where they were when a master starts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    /// The last task number given away.
    pub last_task: TaskId,
    /// The last run number given away.
    pub last_run: RunId,
    /// The last checkpoint number given away.
    pub last_checkpoint: CheckpointId,
    /// The last number of a lock given away.
    pub last_lock: LockNumber,
    /// Settled tasks that are still in the database.
    pub settled: SettledCounts,
}

/// What one kernel step wants written.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Batch {
    /// The step's number: batches are committed in this order, without a gap.
    pub decision: DecisionNumber,
    /// Bytes to be kept before anything names them; the same ones may come again.
    pub blobs: Vec<Arc<NewBlob>>,
    /// Specifications not seen before.
    pub specs: Vec<SpecRow>,
    /// Workflows not seen before by this master.
    pub definitions: Vec<DefinitionRow>,
    /// Runs, in order: a later entry of a run replaces an earlier one.
    pub runs: Vec<RunWrite>,
    /// Tasks, in order: a later entry of a task replaces an earlier one.
    pub tasks: Vec<TaskWrite>,
    /// Versions of runs.
    pub run_versions: Vec<RunVersionRow>,
    /// Other names of tasks in their runs, in order, after all tasks of this batch.
    pub renames: Vec<NodeRename>,
    /// Attempts of older versions of runs; a later entry of a task replaces an earlier one.
    pub outdated: Vec<OutdatedRow>,
    /// Rounds of loops; a later entry of a task replaces an earlier one.
    pub rounds: Vec<RoundRow>,
    /// New relations between tasks; the same one may come again and is then kept as it was.
    pub relations: Vec<RelationRow>,
    /// Relations that another has taken the place of. They go before the new ones come.
    pub parted: Vec<RelationKey>,
    /// Ended attempts.
    pub attempts: Vec<AttemptRow>,
    /// Output of ended attempts.
    pub logs: Vec<LogRow>,
    /// Workers, at most one entry each.
    pub workers: Vec<WorkerRow>,
    /// Events, in their order.
    pub events: Vec<Event>,
    /// Checkpoints, memories and versions.
    pub saved: SavedWrites,
    /// Idempotency keys.
    pub keys: Vec<KeyRow>,
    /// Limits of concurrency keys; a later entry of a key replaces an earlier one.
    pub key_limits: Vec<KeyLimitRow>,
    /// Schedules; a later entry of a schedule replaces an earlier one.
    pub schedules: Vec<ScheduleWrite>,
    /// Repositories in which something is locked; a later entry of one replaces an earlier one.
    pub lock_spaces: Vec<LockSpaceRow>,
    /// Grants, in order: a later entry of one replaces an earlier one.
    pub locks: Vec<LockWrite>,
    /// Absolute, as of this decision.
    pub counters: Counters,
    /// Whether the commit may wait for company: nobody waits for it.
    pub lazy: bool,
}

impl Batch {
    /// Whether nothing is to be written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows() == 0
    }

    /// Rows and events, for the store's limits.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.blobs.len()
            + self.specs.len()
            + self.definitions.len()
            + self.runs.len()
            + self.tasks.len()
            + self.run_versions.len()
            + self.renames.len()
            + self.outdated.len()
            + self.rounds.len()
            + self.relations.len()
            + self.parted.len()
            + self.attempts.len()
            + self.logs.len()
            + self.workers.len()
            + self.events.len()
            + self.saved.rows()
            + self.keys.len()
            + self.key_limits.len()
            + self.schedules.len()
            + self.lock_spaces.len()
            + self.locks.len()
    }
}

/// A live task as recovery and `retry` read it back: its row and its specification's text.
#[derive(Clone, PartialEq, Debug)]
pub struct TaskRow {
    /// Which.
    pub id: TaskId,
    /// Its specification.
    pub spec: SpecHash,
    /// When it was accepted.
    pub created_at: Wall,
    /// The run that it is a part of.
    pub run: Option<RunNode>,
    /// As it was last written.
    pub state: TaskState,
}

//! What workers say of themselves and of their attempts, as the kernel hears it and as it stands
//! on the wire.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::batch::Outcome;
use crate::ids::{Attempt, BootId, Fence, TaskId};
use crate::spec::{Resources, RetryOn};
use crate::time::Wall;

/// Names one assignment: what every report about it must carry.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize, PartialOrd, Ord)]
pub struct AttemptKey {
    /// The task.
    pub task: TaskId,
    /// Which try.
    pub attempt: Attempt,
    /// Which assignment.
    pub fence: Fence,
}

/// The first version of the protocol in which attempts hold locks, and ask for them.
pub const LOCKS_VERSION: u32 = 4;

/// Who the worker is and what it still has.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Hello {
    /// The newest version of the protocol that the worker speaks; see [`LOCKS_VERSION`].
    pub version: u32,
    /// Its id.
    pub worker: Arc<str>,
    /// This life of it. A new one says that every process of the old one is dead.
    pub boot: BootId,
    /// Whom it serves.
    pub groups: Vec<Arc<str>>,
    /// What it is.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// What it has.
    #[serde(default)]
    pub resources: Resources,
    /// Attempts at once.
    pub slots: u32,
    /// Attempts that may wait there beyond the slots.
    #[serde(default)]
    pub prefetch: u32,
    /// Names of its handlers.
    #[serde(default)]
    pub handlers: Vec<String>,
    /// Names of its sandbox backends, strongest first; none means no sandbox.
    #[serde(default)]
    pub sandboxes: Vec<String>,
    /// Every assignment that it has received and whose end (`Finished` or `Returned`) was not yet
    /// acknowledged: waiting, running, or over and still to be reported. A new boot lists what its
    /// predecessor left in the spool. What is missing here is lost.
    #[serde(default)]
    pub running: Vec<Held>,
    /// Whether it takes no new work.
    #[serde(default)]
    pub draining: bool,
    /// Its wall clock, so that skew can be shown.
    pub at: Wall,
}

/// An attempt that a returning worker still has.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Held {
    /// Which.
    #[serde(flatten)]
    pub key: AttemptKey,
    /// Whether it has begun.
    pub started: bool,
}

/// One numbered report. Numbers rise by one within a boot; a worker keeps a report until an `Ack`
/// covers it, and sends what is not acknowledged again after a reconnect.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Report {
    /// Its number, from 1.
    pub no: u64,
    /// About which assignment.
    #[serde(flatten)]
    pub key: AttemptKey,
    /// What happened.
    #[serde(flatten)]
    pub body: ReportBody,
}

/// What happened to an attempt.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum ReportBody {
    /// It has begun.
    Started {
        /// By the worker's clock.
        at: Wall,
    },
    /// It is over. Log bytes of the attempt were acknowledged before.
    Finished(Box<Finished>),
    /// It was given back before it began.
    Returned {},
}

/// How an attempt ended.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Finished {
    /// When it began, by the worker's clock.
    pub started_at: Wall,
    /// When it ended, by the worker's clock.
    pub finished_at: Wall,
    /// How.
    pub end: End,
    /// Exit code, result, outputs, error.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// Bytes that the process wrote.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub log_bytes: u64,
    /// Of these, bytes that were cut out of the middle.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub log_cut: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// How an attempt ended, as its worker saw it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "end", content = "class")]
pub enum End {
    /// Well.
    Completed,
    /// Badly, in that manner.
    Failed(RetryOn),
    /// Stopped because the master said so.
    Cancelled,
    /// Stopped because the worker was told to leave or lost the master; not the task's fault.
    Interrupted,
}

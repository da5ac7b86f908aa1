//! The durable vocabulary: everything that can have happened, as it is kept and published.
//!
//! A word here is forever: rename nothing, add fields only with a default.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::ids::{Attempt, CheckpointId, Fence, RunId, TaskId};
use crate::lock::{LockFence, LockId, PathLock, Repository};
use crate::time::Wall;

/// Whom an event is about.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Subject {
    /// `task:5`
    Task(TaskId),
    /// `worker:w1`
    Worker(Arc<str>),
    /// `run:5`
    Run(RunId),
    /// `schedule:nightly`
    Schedule(Arc<str>),
    /// `lock:0f…`, by its id.
    Lock(LockId),
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Task(id) => write!(f, "task:{id}"),
            Self::Worker(name) => write!(f, "worker:{name}"),
            Self::Run(id) => write!(f, "run:{id}"),
            Self::Schedule(name) => write!(f, "schedule:{name}"),
            Self::Lock(id) => write!(f, "lock:{id}"),
        }
    }
}

impl FromStr for Subject {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once(':') {
            Some(("task", id)) => {
                id.parse().map(Self::Task).map_err(|_| format!("'{id}' is no task id; write task:5"))
            }
            Some(("lock", id)) => id.parse().map(Self::Lock).map_err(|wrong| format!("'{id}': {wrong}")),
            Some(("worker", name)) if !name.is_empty() => Ok(Self::Worker(name.into())),
            Some(("schedule", name)) if !name.is_empty() => Ok(Self::Schedule(name.into())),
            Some(("run", id)) => id
                .parse()
                .map(|id| Self::Run(RunId(id)))
                .map_err(|_| format!("'{id}' is no run id; write run:5")),
            _ => Err(format!(
                "'{text}' is no subject; allowed: task:ID, run:ID, worker:NAME, schedule:NAME, lock:ID"
            )),
        }
    }
}

impl Serialize for Subject {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Subject {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// What happened.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "type", content = "data")]
pub enum Happening {
    /// A task was accepted.
    #[serde(rename = "task.created")]
    TaskCreated {
        /// Its group.
        group: Arc<str>,
        /// Its priority.
        priority: u8,
        /// The run that it is a part of.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        run: Option<RunId>,
        /// Its place in the run.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        node: Option<Arc<str>>,
    },
    /// An attempt was given to a worker.
    #[serde(rename = "task.assigned")]
    TaskAssigned {
        /// To whom.
        worker: Arc<str>,
        /// Which try.
        attempt: Attempt,
        /// The number that its reports must carry.
        fence: Fence,
    },
    /// The worker has begun the attempt.
    #[serde(rename = "task.started")]
    TaskStarted {
        /// Which try.
        attempt: Attempt,
    },
    /// An assignment was taken back before it began.
    #[serde(rename = "task.returned")]
    TaskReturned {
        /// Which try.
        attempt: Attempt,
    },
    /// Settled, well.
    #[serde(rename = "task.completed")]
    TaskCompleted {
        /// Which try.
        attempt: Attempt,
    },
    /// Settled, badly.
    #[serde(rename = "task.failed")]
    TaskFailed {
        /// Which try; 0 when there was none.
        attempt: Attempt,
        /// Why.
        error: Arc<str>,
    },
    /// The attempt went down with its worker; the task is pending again.
    #[serde(rename = "task.lost")]
    TaskLost {
        /// Which try.
        attempt: Attempt,
        /// The worker.
        worker: Arc<str>,
        /// How the master knows.
        reason: Arc<str>,
    },
    /// A lost attempt was found alive on its returning worker.
    #[serde(rename = "task.adopted")]
    TaskAdopted {
        /// Which try.
        attempt: Attempt,
        /// The worker.
        worker: Arc<str>,
    },
    /// The attempt failed; another will be made.
    #[serde(rename = "task.retrying")]
    TaskRetrying {
        /// The try that failed.
        attempt: Attempt,
        /// Why it failed.
        error: Arc<str>,
        /// Wait before the next.
        delay_ms: u64,
    },
    /// A settled task was opened again on request.
    #[serde(rename = "task.reopened")]
    TaskReopened {
        /// The last try so far.
        attempt: Attempt,
    },
    /// Somebody asked to stop a running attempt; `task.cancelled` follows.
    #[serde(rename = "task.cancelling")]
    TaskCancelling {
        /// Which try.
        attempt: Attempt,
    },
    /// Settled on request.
    #[serde(rename = "task.cancelled")]
    TaskCancelled {
        /// Which try; 0 when there was none.
        attempt: Attempt,
    },
    /// Settled without having been run, because of another or of a condition.
    #[serde(rename = "task.skipped")]
    TaskSkipped {
        /// Why.
        cause: Arc<str>,
    },
    /// Somebody let it go on.
    #[serde(rename = "task.approved")]
    TaskApproved {},
    /// It waits for others.
    #[serde(rename = "task.blocked")]
    TaskBlocked {},
    /// It waits for an approval again: it is to run again, or is something else now.
    #[serde(rename = "task.asked")]
    TaskAsked {},
    /// It waits no more.
    #[serde(rename = "task.unblocked")]
    TaskUnblocked {},
    /// An attempt ended well, and the task's `loop` goes round again.
    #[serde(rename = "task.repeating")]
    TaskRepeating {
        /// The attempt that ended.
        attempt: Attempt,
    },
    /// Its state was saved.
    #[serde(rename = "task.checkpointed")]
    TaskCheckpointed {
        /// Which try was current; 0 when there was none.
        attempt: Attempt,
        /// The checkpoint.
        checkpoint: CheckpointId,
        /// Its name.
        name: Arc<str>,
    },
    /// Somebody chose where it goes on; a running attempt was stopped for it.
    #[serde(rename = "task.restored")]
    TaskRestored {
        /// The last try so far.
        attempt: Attempt,
        /// The checkpoint that was restored.
        checkpoint: CheckpointId,
    },
    /// Its running attempt was taken from it: a new one will be made.
    #[serde(rename = "task.superseded")]
    TaskSuperseded {
        /// Which try.
        attempt: Attempt,
        /// Why.
        reason: Arc<str>,
    },
    /// It has another version.
    #[serde(rename = "task.upgraded")]
    TaskUpgraded {
        /// Its number.
        version: u32,
        /// Why.
        reason: Arc<str>,
    },
    /// Priority or group was changed.
    #[serde(rename = "task.changed")]
    TaskChanged {
        /// As it is now.
        group: Arc<str>,
        /// As it is now.
        priority: u8,
    },
    /// A run was accepted.
    #[serde(rename = "run.created")]
    RunCreated {
        /// Its workflow's name.
        name: Arc<str>,
        /// How many nodes it has.
        nodes: u32,
        /// The task of another run that it is.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        parent: Option<TaskId>,
        /// The run whose completed nodes it took over.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        forked_from: Option<RunId>,
    },
    /// Its first node was decided on.
    #[serde(rename = "run.started")]
    RunStarted {},
    /// It starts nothing new.
    #[serde(rename = "run.paused")]
    RunPaused {},
    /// It goes on.
    #[serde(rename = "run.resumed")]
    RunResumed {},
    /// A part of it runs again.
    #[serde(rename = "run.rerun")]
    RunRerun {
        /// Which time it is, from 2.
        revision: u32,
        /// The nodes, the first hundred of them.
        nodes: Vec<Arc<str>>,
    },
    /// It has another workflow from now on.
    #[serde(rename = "run.upgraded")]
    RunUpgraded {
        /// Which version it is, from 2.
        version: u32,
        /// Why; empty when nobody said.
        reason: Arc<str>,
    },
    /// Ended, well.
    #[serde(rename = "run.completed")]
    RunCompleted {},
    /// Ended, badly.
    #[serde(rename = "run.failed")]
    RunFailed {
        /// Why.
        error: Arc<str>,
    },
    /// Ended on request.
    #[serde(rename = "run.cancelled")]
    RunCancelled {},
    /// A schedule was made or changed.
    #[serde(rename = "schedule.set")]
    ScheduleSet {
        /// Its next time.
        next_at: Option<Wall>,
    },
    /// A schedule was taken away.
    #[serde(rename = "schedule.removed")]
    ScheduleRemoved {},
    /// A schedule has begun something.
    #[serde(rename = "schedule.fired")]
    ScheduleFired {
        /// For which of its times.
        due_at: Wall,
        /// The task that was made.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        task: Option<TaskId>,
        /// The run that was made.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        run: Option<RunId>,
    },
    /// A schedule could not begin anything.
    #[serde(rename = "schedule.failed")]
    ScheduleFailed {
        /// For which of its times.
        due_at: Wall,
        /// Why.
        error: Arc<str>,
    },
    /// A lock was granted.
    #[serde(rename = "lock.acquired")]
    LockAcquired {
        /// In which repository.
        repo: Repository,
        /// Its number there.
        fence: LockFence,
        /// Whose.
        owner: Arc<str>,
        /// What, the first hundred.
        paths: Arc<[PathLock]>,
        /// How many more paths there are.
        #[serde(default, skip_serializing_if = "is_zero")]
        more: u32,
        /// When it ends unless it is renewed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        expires_at: Option<Wall>,
    },
    /// Somebody waits for a lock.
    #[serde(rename = "lock.waiting")]
    LockWaiting {
        /// In which repository.
        repo: Repository,
        /// Who.
        owner: Arc<str>,
        /// For what, the first hundred.
        paths: Arc<[PathLock]>,
        /// How many more paths there are.
        #[serde(default, skip_serializing_if = "is_zero")]
        more: u32,
    },
    /// A lock was given back, or ended with its attempt.
    #[serde(rename = "lock.released")]
    LockReleased {
        /// In which repository.
        repo: Repository,
        /// Its number there.
        fence: LockFence,
        /// Whose.
        owner: Arc<str>,
        /// Why, where it was not its owner's wish.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<Arc<str>>,
    },
    /// Nobody renewed a lock.
    #[serde(rename = "lock.expired")]
    LockExpired {
        /// In which repository.
        repo: Repository,
        /// Its number there.
        fence: LockFence,
        /// Whose.
        owner: Arc<str>,
    },
    /// An operator took a lock away.
    #[serde(rename = "lock.broken")]
    LockBroken {
        /// In which repository.
        repo: Repository,
        /// Its number there.
        fence: LockFence,
        /// Whose.
        owner: Arc<str>,
        /// Why.
        reason: Arc<str>,
    },
    /// A worker came for the first time.
    #[serde(rename = "worker.registered")]
    WorkerRegistered {
        /// Whom it serves.
        groups: Vec<Arc<str>>,
        /// Attempts that it runs at once.
        slots: u32,
    },
    /// A worker is connected.
    #[serde(rename = "worker.online")]
    WorkerOnline {},
    /// Its socket closed; its lease still runs.
    #[serde(rename = "worker.disconnected")]
    WorkerDisconnected {},
    /// Its lease has passed, or it said good-bye.
    #[serde(rename = "worker.offline")]
    WorkerOffline {
        /// How the master knows.
        reason: Arc<str>,
    },
    /// It takes no new work.
    #[serde(rename = "worker.draining")]
    WorkerDraining {},
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(count: &u32) -> bool {
    *count == 0
}

impl Happening {
    /// Whether the task is settled, or the run has ended, after this.
    #[must_use]
    pub fn settles(&self) -> bool {
        matches!(
            self,
            Self::TaskCompleted { .. }
                | Self::TaskFailed { .. }
                | Self::TaskCancelled { .. }
                | Self::TaskSkipped { .. }
                | Self::RunCompleted { .. }
                | Self::RunFailed { .. }
                | Self::RunCancelled { .. }
        )
    }
}

/// One line of the log. Its `seq` is given by the store when it commits.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Event {
    /// When the master decided it.
    pub at: Wall,
    /// Whom it is about.
    pub subject: Subject,
    /// What happened.
    #[serde(flatten)]
    pub happening: Happening,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_has_the_published_shape() {
        let event = Event {
            at: Wall(7),
            subject: Subject::Task(TaskId(5)),
            happening: Happening::TaskStarted { attempt: Attempt(1) },
        };
        let text = serde_json::to_string(&event).expect("plain data");
        assert_eq!(text, r#"{"at":7,"subject":"task:5","type":"task.started","data":{"attempt":1}}"#);
        assert_eq!(serde_json::from_str::<Event>(&text).expect("round trip"), event);
    }

    #[test]
    fn subjects_are_checked() {
        assert_eq!("worker:w1".parse(), Ok(Subject::Worker("w1".into())));
        assert!("worker:".parse::<Subject>().is_err());
        assert!("task:x".parse::<Subject>().is_err());
        assert!("lock".parse::<Subject>().is_err());
    }
}

//! The durable vocabulary: everything that can have happened, as it is kept and published.
//!
//! A word here is forever: rename nothing, add fields only with a default.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::ids::{Attempt, Fence, TaskId};
use crate::time::Wall;

/// Whom an event is about.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Subject {
    /// `task:5`
    Task(TaskId),
    /// `worker:w1`
    Worker(Arc<str>),
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Task(id) => write!(f, "task:{id}"),
            Self::Worker(name) => write!(f, "worker:{name}"),
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
            Some(("worker", name)) if !name.is_empty() => Ok(Self::Worker(name.into())),
            _ => Err(format!("'{text}' is no subject; allowed: task:ID, worker:NAME")),
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
    /// Priority or group was changed.
    #[serde(rename = "task.changed")]
    TaskChanged {
        /// As it is now.
        group: Arc<str>,
        /// As it is now.
        priority: u8,
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

//! Frames between master and worker: JSON text frames over one WebSocket, log bytes as binary
//! frames (see [`crate::log_frame`]).
//!
//! ```text
//! worker                                   master
//!   | -- Hello (versions, boot, running) ---> |
//!   | <-- Welcome (session, keep, stop) ----- |
//!   | <-- Assign ---------------------------- |   only after the assignment is durable
//!   | -- Reports (started, finished) -------> |
//!   | <-- Ack (up to) ----------------------- |   only after the reports are durable
//!   | -- Heartbeat -------------------------> |
//!   | <-- HeartbeatAck ---------------------- |
//!   | <-- Cancel / Return ------------------- |
//!   | == log bytes =========================> |
//!   | <-- LogAck ---------------------------- |
//! ```
//!
//! A worker refuses frames whose `epoch` is smaller than one it has seen.

use std::collections::BTreeMap;
use std::sync::Arc;

use agentflow_core::batch::Outcome;
use agentflow_core::ids::{Attempt, BootId, Epoch, Fence, SessionEpoch, TaskId};
use agentflow_core::spec::{Resources, RetryOn};
use agentflow_core::time::Wall;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// The version that this program speaks.
pub const VERSION: u32 = 2;

/// The oldest version that this program understands. Version 1 has no `Return` and no `Progress`.
pub const OLDEST_VERSION: u32 = 1;

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

/// From worker to master.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum FromWorker {
    /// The first frame on every socket.
    Hello(Hello),
    /// A sign of life; any other frame is one too.
    Heartbeat {
        /// Counts up within a session; comes back in the acknowledgement.
        n: u64,
    },
    /// What happened to attempts, in order.
    Reports {
        /// At most [`agentflow_core::limits::REPORTS_PER_FRAME`].
        reports: Vec<Report>,
    },
    /// Latest-wins progress; neither numbered nor acknowledged nor kept.
    Progress {
        /// Of what.
        key: AttemptKey,
        /// 0 to 100.
        percent: f32,
        /// For people.
        #[serde(default)]
        message: String,
    },
    /// The worker takes no new work and leaves when it has finished what it has.
    Draining {},
    /// The worker has nothing left and closes.
    Goodbye {},
}

/// Who the worker is and what it still has.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Hello {
    /// The newest version that the worker speaks.
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
    /// What it holds, begun or not, whose end it has not yet reported.
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
#[derive(Clone, Debug, Serialize, Deserialize)]
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
#[derive(Clone, Debug, Serialize, Deserialize)]
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
#[derive(Clone, Debug, Serialize, Deserialize)]
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

/// From master to worker.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ToWorker {
    /// The answer to `Hello`.
    Welcome(Welcome),
    /// The answer to a `Hello` that cannot be served; the socket closes after it.
    Refused {
        /// Why, for people.
        reason: String,
        /// Whether trying again later makes sense.
        retry: bool,
    },
    /// New work.
    Assign(Assign),
    /// Reports up to this number are durable.
    Ack {
        /// Inclusive.
        up_to: u64,
    },
    /// The lease is renewed, counted from when heartbeat `n` was *sent*.
    HeartbeatAck {
        /// Of which heartbeat.
        n: u64,
    },
    /// Stop these attempts: TERM, then KILL after the task's grace. Each is reported finished.
    Cancel {
        /// Which.
        keys: Vec<AttemptKey>,
    },
    /// Stop these at once and report nothing: they were given to another or are settled.
    Drop {
        /// Which.
        keys: Vec<AttemptKey>,
    },
    /// Give these back if they have not begun.
    Return {
        /// Which.
        keys: Vec<AttemptKey>,
    },
    /// Log bytes up to this offset of the attempt's stream are written.
    LogAck {
        /// Which attempt.
        key: AttemptKey,
        /// Bytes from the start of the stream.
        offset: u64,
    },
    /// Take no new work; leave when what is there has finished.
    Drain {},
    /// The master goes away in good order: keep running, reconnect.
    Restarting {},
}

/// The answer to `Hello`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Welcome {
    /// The version that both will speak: the smaller of the two newest.
    pub version: u32,
    /// The master's.
    pub epoch: Epoch,
    /// This socket's.
    pub session: SessionEpoch,
    /// Send a heartbeat this often.
    pub heartbeat_ms: u64,
    /// The lease after each acknowledged heartbeat.
    pub lease_ms: u64,
    /// Of what the worker still has: what stays its own.
    pub keep: Vec<AttemptKey>,
    /// Of what the worker still has: what it must stop at once.
    pub stop: Vec<AttemptKey>,
}

/// New work: assignments that share specifications.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Assign {
    /// The master's.
    pub epoch: Epoch,
    /// Specifications, each once. The JSON is [`agentflow_core::spec::Spec`].
    pub specs: Vec<Box<RawValue>>,
    /// The work, in the order in which it should begin.
    pub tasks: Vec<Assignment>,
}

/// One attempt to make.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Assignment {
    /// What to call it.
    #[serde(flatten)]
    pub key: AttemptKey,
    /// Position in [`Assign::specs`].
    pub spec: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_survive_the_wire() {
        let key = AttemptKey { task: TaskId(5), attempt: Attempt(1), fence: Fence(2) };
        let frame = FromWorker::Reports {
            reports: vec![
                Report { no: 1, key, body: ReportBody::Started { at: Wall(3) } },
                Report {
                    no: 2,
                    key,
                    body: ReportBody::Finished(Box::new(Finished {
                        started_at: Wall(3),
                        finished_at: Wall(4),
                        end: End::Failed(RetryOn::Timeout),
                        outcome: Outcome { exit_code: Some(1), ..Outcome::default() },
                        log_bytes: 0,
                        log_cut: 0,
                    })),
                },
                Report { no: 3, key, body: ReportBody::Returned {} },
            ],
        };
        let text = serde_json::to_string(&frame).expect("plain data");
        let again: FromWorker = serde_json::from_str(&text).expect("own text");
        assert_eq!(serde_json::to_string(&again).expect("plain data"), text);
        assert!(text.contains(r#""no":1,"task":5,"attempt":1,"fence":2,"event":"started","at":3"#), "{text}");
    }
}

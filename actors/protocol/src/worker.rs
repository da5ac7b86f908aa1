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

pub use agentflow_core::attempt::{
    AttemptKey, End, Finished, Held, Hello, LOCKS_VERSION, Report, ReportBody,
};
pub use agentflow_core::checkpoint::{Ask, AskBody, Given, HeldLock, LockAsk};
use agentflow_core::ids::{CheckpointId, Epoch, RunId, SessionEpoch};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::Problem;

/// The version that this program speaks.
pub const VERSION: u32 = 4;

/// The oldest version that this program understands. Version 2 has no `Asks` and begins every attempt
/// at the beginning.
pub const OLDEST_VERSION: u32 = 2;

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
    /// What running attempts ask of the master; each question is answered.
    Asks {
        /// At most [`agentflow_core::limits::ASKS`].
        asks: Vec<Ask>,
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
    /// What became of what attempts asked: durable, or refused.
    Answers {
        /// In any order.
        answers: Vec<AskAnswer>,
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

impl ToWorker {
    /// Reads a frame. Use this instead of `Deserialize`: specifications are raw JSON, which
    /// serde cannot carry through an enum that is told apart by a field inside it.
    ///
    /// # Errors
    /// When the text is no frame of ours.
    pub fn read(text: &str) -> Result<Self, serde_json::Error> {
        #[derive(Deserialize)]
        struct Tag<'a> {
            #[serde(rename = "type", borrow)]
            name: std::borrow::Cow<'a, str>,
        }
        if serde_json::from_str::<Tag<'_>>(text)?.name == "assign" {
            return serde_json::from_str(text).map(Self::Assign);
        }
        serde_json::from_str(text)
    }
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
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Assignment {
    /// What to call it.
    #[serde(flatten)]
    pub key: AttemptKey,
    /// Position in [`Assign::specs`].
    pub spec: u32,
    /// Smaller ones begin first; equal ones in the order in which they came. Masters of before did
    /// not say.
    #[serde(default)]
    pub rank: i64,
    /// The run that it is a part of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<RunId>,
    /// The checkpoint at which it begins: `GET /checkpoints/{id}/data`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<CheckpointId>,
    /// Whether the task remembers something: `GET /tasks/{id}/memory`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub memory: bool,
    /// What it holds of the locks that its specification names, in their order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub locks: Vec<HeldLock>,
}

/// What became of one question.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct AskAnswer {
    /// Its number.
    pub no: u64,
    /// It is durable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub given: Option<Given>,
    /// It was refused, and nothing was changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
}

#[cfg(test)]
mod tests {
    use agentflow_core::batch::Outcome;
    use agentflow_core::ids::{Attempt, Fence, TaskId};
    use agentflow_core::lock::{LockFence, LockId, Repository};
    use agentflow_core::spec::RetryOn;
    use agentflow_core::time::Wall;

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

    #[test]
    fn an_assignment_carries_its_specifications_as_they_are() {
        let spec = r#"{"kind":"handler","name":"h","input":{"n":1.50}}"#;
        let key = AttemptKey { task: TaskId(5), attempt: Attempt(1), fence: Fence(2) };
        let checkpoint = Some(CheckpointId(7));
        let locks = vec![HeldLock { id: LockId([7; 16]), repo: Repository::default(), fence: LockFence(9) }];
        let run = Some(RunId(3));
        let assignment = Assignment { key, spec: 0, rank: -5, run, checkpoint, memory: true, locks };
        let frame = ToWorker::Assign(Assign {
            epoch: Epoch(1),
            specs: vec![RawValue::from_string(spec.to_owned()).expect("JSON")],
            tasks: vec![assignment.clone()],
        });
        let text = serde_json::to_string(&frame).expect("plain data");
        match ToWorker::read(&text).expect("own text") {
            ToWorker::Assign(assign) => {
                assert_eq!(assign.specs[0].get(), spec);
                assert_eq!(assign.tasks, [assignment]);
            }
            other => panic!("no assignment: {other:?}"),
        }
        assert!(matches!(ToWorker::read(r#"{"type":"drain"}"#), Ok(ToWorker::Drain {})));
        assert!(ToWorker::read(r#"{"type":"dance"}"#).is_err());
    }
}

//! A worker's session: one socket's conversation, between the door and the kernel.
//!
//! ```text
//!   door ──FromDoor──► WorkerSession ──step──► kernel
//!   door ◄──ToDoor────               ◄──ToSession── effects
//! ```
//!
//! How much may be under way to a worker is bounded by its credits, which the kernel counts.

use std::rc::Rc;

use actix::{
    Actor, ActorContext, ActorFutureExt, AsyncContext, Context, Handler, Message, Recipient, WrapFuture,
};
use agentflow_core::attempt::{AttemptKey, Report};
use agentflow_core::checkpoint::{Ask, Given};
use agentflow_core::ids::{Epoch, SessionEpoch, SpecHash};
use agentflow_core::kernel::{Assigned, Input};
use agentflow_core::limits;
use agentflow_core::rejection::Rejection;
use agentflow_protocol::Problem;
use agentflow_protocol::worker::{AskAnswer, Assign, Assignment, FromWorker, ToWorker, Welcome};
use agentflow_schema::Blobs;
use rustc_hash::FxHashMap;
use serde_json::value::RawValue;

use crate::scheduler::Scheduler;
use crate::task::{self, Progress};
use crate::values;

/// Bytes of what is in one `Assign` frame.
const ASSIGN_BYTES: usize = limits::FRAME_BYTES - 4_096;

/// Bytes of the longest assignment in JSON, without its locks.
const ASSIGNMENT_BYTES: usize = 224;

/// Bytes of the longest of its locks, without the repository.
const LOCK_BYTES: usize = 96;

/// A frame that came in over the worker's socket.
#[derive(Message, Debug)]
#[rtype(result = "()")]
pub struct FromDoor(pub FromWorker);

/// The worker's socket has closed.
#[derive(Message, Debug)]
#[rtype(result = "()")]
pub struct Gone;

/// To the door of the worker's socket.
#[derive(Message, Debug)]
#[rtype(result = "()")]
pub enum ToDoor {
    /// Send this.
    Frame(Box<ToWorker>),
    /// Close the socket.
    Close {
        /// Why, for people.
        reason: String,
    },
}

/// What the kernel's effects say to one worker.
#[derive(Message, Debug)]
#[rtype(result = "()")]
pub(crate) enum ToSession {
    Welcome { keep: Vec<AttemptKey>, stop: Vec<AttemptKey> },
    Refuse { reason: String },
    Assign { tasks: Vec<Assigned> },
    Ack { up_to: u64 },
    Answers { answers: Vec<(u64, Result<Given, Rejection>)> },
    Cancel { keys: Vec<AttemptKey> },
    Drop { keys: Vec<AttemptKey> },
    Return { keys: Vec<AttemptKey> },
    Drain,
    Close { reason: String },
}

/// What a worker is told when it is welcomed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    pub(crate) version: u32,
    pub(crate) heartbeat_ms: u64,
    pub(crate) lease_ms: u64,
}

/// The actor.
pub struct WorkerSession {
    pub(crate) scheduler: Rc<Scheduler>,
    pub(crate) blobs: Blobs,
    pub(crate) session: SessionEpoch,
    pub(crate) epoch: Epoch,
    pub(crate) terms: Terms,
    pub(crate) door: Recipient<ToDoor>,
}

impl WorkerSession {
    fn send(&self, frame: ToWorker) {
        self.door.do_send(ToDoor::Frame(Box::new(frame)));
    }

    /// Reads the large values that reports name, on a thread that may wait; nothing else of this worker
    /// is heard meanwhile, so that everything keeps its order.
    fn read_first(&self, mut reports: Vec<Report>, context: &mut Context<Self>) {
        let blobs = self.blobs.clone();
        let read = actix_rt::task::spawn_blocking(move || {
            values::read_reports(&blobs, &mut reports).map(|()| reports)
        });
        context.wait(read.into_actor(self).map(|read, session, _| match read {
            Ok(Ok(reports)) => {
                let session_epoch = session.session;
                session.scheduler.step(Input::Reports { session: session_epoch, reports });
            }
            Ok(Err(error)) => session.give_up(&error),
            Err(error) => session.give_up(&error),
        }));
    }

    /// Has what attempts ask decided, and the bytes that they say are kept looked for: on a thread that
    /// may wait, if there are any.
    fn hear(&self, asks: Vec<Ask>, context: &mut Context<Self>) {
        let session = self.session;
        if !asks.iter().any(|ask| values::named_by(ask).is_some()) {
            return self.scheduler.step(Input::Asks { session, asks });
        }
        let blobs = self.blobs.clone();
        let look = actix_rt::task::spawn_blocking(move || values::without_missing(&blobs, asks));
        // Asks keep their order: a repeated one is known by its number.
        context.wait(look.into_actor(self).map(|looked, session, _| match looked {
            Ok(Ok((asks, missing))) => {
                session.answer(missing);
                if !asks.is_empty() {
                    session.scheduler.step(Input::Asks { session: session.session, asks });
                }
            }
            Ok(Err(error)) => session.give_up(&error),
            Err(error) => session.give_up(&error),
        }));
    }

    fn answer(&self, answers: Vec<(u64, Result<Given, Rejection>)>) {
        if answers.is_empty() {
            return;
        }
        let answers = answers.into_iter().map(|(no, answer)| match answer {
            Ok(given) => AskAnswer { no, given: Some(given), problem: None },
            Err(rejection) => AskAnswer { no, given: None, problem: Some(Problem::of(&rejection)) },
        });
        self.send(ToWorker::Answers { answers: answers.collect() });
    }

    /// The worker comes again and says it again.
    fn give_up(&self, error: &dyn std::fmt::Display) {
        log::error!("session {}: what a worker says is kept cannot be read: {error}", self.session);
        self.door.do_send(ToDoor::Close { reason: "the master cannot read what was left".to_owned() });
    }

    fn assign(&self, tasks: &[Assigned]) {
        for frame in frames(self.epoch, tasks) {
            self.send(ToWorker::Assign(frame));
        }
    }
}

/// Puts assignments into frames; each frame carries each of its specifications once.
fn frames(epoch: Epoch, tasks: &[Assigned]) -> Vec<Assign> {
    let mut frames = Vec::new();
    let mut frame = Assign { epoch, specs: Vec::new(), tasks: Vec::new() };
    let mut known: FxHashMap<SpecHash, u32> = FxHashMap::default();
    let mut bytes = 0;
    for assigned in tasks {
        let locks = assigned.locks.iter().map(|lock| LOCK_BYTES + lock.repo.as_str().len());
        let own_bytes = ASSIGNMENT_BYTES + locks.sum::<usize>();
        let spec_bytes = if known.contains_key(&assigned.spec) { 0 } else { assigned.body.len() };
        if bytes > 0 && bytes + own_bytes + spec_bytes > ASSIGN_BYTES {
            frames
                .push(std::mem::replace(&mut frame, Assign { epoch, specs: Vec::new(), tasks: Vec::new() }));
            known.clear();
            bytes = 0;
        }
        let spec = match known.get(&assigned.spec) {
            Some(spec) => *spec,
            None => {
                let body = match RawValue::from_string(assigned.body.to_string()) {
                    Ok(body) => body,
                    Err(error) => {
                        log::error!("{:?}: the specification is no JSON: {error}", assigned.key);
                        continue;
                    }
                };
                let spec = u32::try_from(frame.specs.len()).unwrap_or(u32::MAX);
                frame.specs.push(body);
                known.insert(assigned.spec, spec);
                bytes += assigned.body.len();
                spec
            }
        };
        bytes += own_bytes;
        frame.tasks.push(Assignment {
            key: assigned.key,
            spec,
            rank: assigned.rank,
            run: assigned.run,
            checkpoint: assigned.checkpoint,
            memory: assigned.remembers,
            locks: assigned.locks.clone(),
        });
    }
    if !frame.tasks.is_empty() {
        frames.push(frame);
    }
    frames
}

impl Actor for WorkerSession {
    type Context = Context<Self>;
}

impl Handler<FromDoor> for WorkerSession {
    type Result = ();

    fn handle(&mut self, FromDoor(frame): FromDoor, context: &mut Context<Self>) {
        let session = self.session;
        match frame {
            FromWorker::Heartbeat { n } => {
                self.scheduler.step(Input::Heard { session });
                self.send(ToWorker::HeartbeatAck { n });
            }
            FromWorker::Reports { reports } if reports.iter().any(values::has_left) => {
                self.read_first(reports, context);
            }
            FromWorker::Reports { reports } => self.scheduler.step(Input::Reports { session, reports }),
            FromWorker::Asks { asks } => self.hear(asks, context),
            FromWorker::Progress { key, percent, message } => {
                task::progress(&self.scheduler, Progress { key, percent, message });
            }
            FromWorker::Draining {} => self.scheduler.step(Input::Draining { session }),
            FromWorker::Goodbye {} => self.scheduler.step(Input::Goodbye { session }),
            FromWorker::Hello(_) => log::warn!("session {session}: a second hello is not heard"),
        }
    }
}

impl Handler<Gone> for WorkerSession {
    type Result = ();

    fn handle(&mut self, _: Gone, context: &mut Context<Self>) {
        self.scheduler.forget(self.session);
        self.scheduler.step(Input::Disconnected { session: self.session });
        context.stop();
    }
}

impl Handler<ToSession> for WorkerSession {
    type Result = ();

    fn handle(&mut self, words: ToSession, context: &mut Context<Self>) {
        match words {
            ToSession::Welcome { keep, stop } => self.send(ToWorker::Welcome(Welcome {
                version: self.terms.version,
                epoch: self.epoch,
                session: self.session,
                heartbeat_ms: self.terms.heartbeat_ms,
                lease_ms: self.terms.lease_ms,
                keep,
                stop,
            })),
            ToSession::Refuse { reason } => {
                self.send(ToWorker::Refused { reason: reason.clone(), retry: false });
                self.door.do_send(ToDoor::Close { reason });
                context.stop();
            }
            ToSession::Assign { tasks } => self.assign(&tasks),
            ToSession::Ack { up_to } => self.send(ToWorker::Ack { up_to }),
            ToSession::Answers { answers } => self.answer(answers),
            ToSession::Cancel { keys } => self.send(ToWorker::Cancel { keys }),
            ToSession::Drop { keys } => self.send(ToWorker::Drop { keys }),
            ToSession::Return { keys } => self.send(ToWorker::Return { keys }),
            ToSession::Drain => self.send(ToWorker::Drain {}),
            ToSession::Close { reason } => {
                self.door.do_send(ToDoor::Close { reason });
                context.stop();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use agentflow_core::checkpoint::HeldLock;
    use agentflow_core::ids::{Attempt, Fence, TaskId};
    use agentflow_core::lock::{LockFence, LockId, Repository};

    fn assigned(task: u64, spec: u8, body: &str) -> Assigned {
        let key = AttemptKey { task: TaskId(task), attempt: Attempt(1), fence: Fence(1) };
        let spec = SpecHash([spec; 16]);
        let (run, checkpoint, locks) = (None, None, Vec::new());
        Assigned { key, spec, body: body.into(), rank: 0, run, checkpoint, remembers: false, locks }
    }

    #[test]
    fn a_specification_is_sent_once_for_many() {
        let noop = r#"{"kind":"noop"}"#;
        let tasks = [assigned(1, 1, noop), assigned(2, 2, r#"{"kind":"x"}"#), assigned(3, 1, noop)];
        let frames = frames(Epoch(1), &tasks);
        assert_eq!(frames.len(), 1);
        assert_eq!(frames[0].specs.len(), 2);
        assert_eq!(frames[0].tasks.iter().map(|task| task.spec).collect::<Vec<_>>(), [0, 1, 0]);
    }

    #[test]
    fn frames_stay_below_the_limit() {
        let body = format!("\"{}\"", "x".repeat(limits::SPEC_BYTES - 2));
        let tasks: Vec<_> = (0..3).map(|n| assigned(n, u8::try_from(n).expect("small"), &body)).collect();
        for frame in frames(Epoch(1), &tasks) {
            let text = serde_json::to_string(&ToWorker::Assign(frame)).expect("plain data");
            assert!(text.len() < limits::FRAME_BYTES, "{}", text.len());
        }
        let repo = Repository::new(&format!("example.com/{}", "x".repeat(1_000))).expect("a repository");
        let lock = HeldLock { id: LockId([255; 16]), repo, fence: LockFence(u64::MAX) };
        let many =
            (0..20_000).map(|n| Assigned { locks: vec![lock.clone(); n % 3], ..assigned(n as u64, 1, "{}") });
        let many: Vec<_> = many.collect();
        let frames = frames(Epoch(1), &many);
        assert_eq!(frames.iter().map(|frame| frame.tasks.len()).sum::<usize>(), 20_000);
        for frame in frames {
            assert!(serde_json::to_string(&frame).expect("plain data").len() < limits::FRAME_BYTES);
        }
    }
}

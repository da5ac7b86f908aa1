//! What attempts say at the door, on its way to the master.

use actix::Handler;
use agentflow_core::ids::TaskId;
use agentflow_protocol::Problem;
use agentflow_protocol::log_frame::Stream;
use agentflow_protocol::worker::{AskAnswer, AskBody, AttemptKey, FromWorker, LOCKS_VERSION};
use tokio::sync::oneshot;

use super::Daemon;
use crate::asks::{Answer, Change};
use crate::clock::boottime;
use crate::door::{Caller, Note, Question, Tell, Who};

/// The first version of the protocol whose masters keep checkpoints.
const KEEPS_CHECKPOINTS: u32 = 3;

impl Daemon {
    /// The key of an attempt: unguessable, and naming its task.
    pub(super) fn new_secret(&self, task: TaskId) -> String {
        match getrandom::u64() {
            Ok(random) => format!("{}{task}.{random:016x}", self.key_prefix),
            // It still marks the processes; it only opens nothing.
            Err(_) => self.key_prefix.clone(),
        }
    }

    /// Asks the master something for an attempt.
    pub(super) fn ask(&mut self, key: AttemptKey, body: AskBody, waits: Option<oneshot::Sender<Answer>>) {
        let (since, what) = match body {
            AskBody::Lock(_) | AskBody::Unlock { .. } => (LOCKS_VERSION, "grant locks"),
            _ => (KEEPS_CHECKPOINTS, "keep checkpoints"),
        };
        if self.version < since {
            let detail = format!("the master is too old to {what}; upgrade it");
            let problem = Problem::new(503, "old_master", detail);
            match waits {
                Some(waits) => drop(waits.send(Err(problem))),
                None => log::warn!("task {}: {problem}", key.task),
            }
            return;
        }
        self.outbox.asks(|asks| asks.push(key, body, waits));
    }

    pub(super) fn answered(&mut self, answers: Vec<AskAnswer>) {
        let is_leased = self.lease.is_held(boottime());
        for (key, change) in self.outbox.asks(|asks| asks.answered(answers, is_leased)) {
            // Those of an attempt that has ended end with it.
            let Some(attempt) = self.held(key) else { continue };
            match change {
                Change::Granted(grant) => attempt.locks.add(grant),
                Change::Released(lock) => attempt.locks.remove(lock),
                Change::Unwanted(lock) => self.ask(key, AskBody::Unlock { lock }, None),
            }
        }
    }
}

impl Handler<Who> for Daemon {
    type Result = Option<Caller>;

    fn handle(&mut self, Who(secret): Who, _: &mut Self::Context) -> Self::Result {
        let task = secret.strip_prefix(&self.key_prefix)?.split_once('.')?.0.parse().ok()?;
        let attempt = self.attempts.get(&TaskId(task)).filter(|attempt| *attempt.secret == *secret)?;
        Some(Caller {
            key: attempt.key,
            run: attempt.run,
            spec: attempt.spec.clone(),
            control: attempt.control.clone(),
            place: attempt.place.clone(),
            locks: attempt.locks.clone(),
        })
    }
}

impl Handler<Question> for Daemon {
    type Result = ();

    fn handle(&mut self, Question { key, body, waits }: Question, _: &mut Self::Context) {
        self.ask(key, body, Some(waits));
    }
}

impl Handler<Note> for Daemon {
    type Result = ();

    fn handle(&mut self, Note { key, text }: Note, _: &mut Self::Context) {
        let Some(attempt) = self.held(key) else { return };
        if attempt.log.append(Stream::Err, text.as_bytes()) {
            let log = attempt.log.clone();
            self.outbox.queue_log(key, &log);
        }
    }
}

impl Handler<Tell> for Daemon {
    type Result = ();

    fn handle(&mut self, Tell { key, percent, message }: Tell, _: &mut Self::Context) {
        // Only the latest counts: what is said while nobody listens is not kept.
        if self.welcomed {
            self.outbox.send(&FromWorker::Progress { key, percent, message });
        }
    }
}

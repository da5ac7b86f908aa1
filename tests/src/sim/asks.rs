//! What attempts ask of their master: steps to be saved, values to be kept in mind.
//!
//! Each attempt counts steps on from the checkpoint at which it began, and saves some of them. A worker
//! keeps a question until it is answered and asks it again, under its number, on every new socket,
//! whatever became of the attempt; its death loses them.
//!
//! Invariants, checked as frames arrive: an answer is to a question that is open; the checkpoint at
//! which an attempt begins is there when it does.

use std::sync::Arc;

use agentflow_core::attempt::AttemptKey;
use agentflow_core::checkpoint::{Ask, AskBody, Given, NewCheckpoint, Whose};
use agentflow_core::ids::{CheckpointId, SessionEpoch};
use agentflow_core::rejection::Rejection;

use super::network::Upward;
use super::promises::is_held;
use super::saved::content_of;
use super::store::Store;
use super::work::Stage;
use super::worker::Alarm;
use super::world::World;

/// Names under which something is remembered, and one that is none.
const NAMES: [&str; 4] = ["a", "b", "c", "../d"];

impl World {
    /// An attempt has begun, or has asked: it may ask again.
    pub(super) fn plan_ask(&mut self, index: usize, key: AttemptKey) {
        if self.kinds.asks && self.random.chance(850) {
            let later = self.random.ms(1, 400);
            self.alarm(index, later, Alarm::Ask(key));
        }
    }

    /// An attempt asks for one thing or several.
    pub(super) fn attempt_asks(&mut self, index: usize, key: AttemptKey) {
        let is_at_work = self.workers[index]
            .work
            .get(&key)
            .is_some_and(|work| matches!(work.stage, Stage::Running | Stage::Stopping));
        if !is_at_work {
            return;
        }
        for _ in 0..self.random.between(1, 3) {
            self.asks_for(index, key);
        }
        self.plan_ask(index, key);
    }

    /// Asks one thing, for an attempt that may be somebody else's.
    pub(super) fn asks_for(&mut self, index: usize, key: AttemptKey) {
        let locks = self.kinds.locks && self.random.chance(250);
        let body = match self.random.below(10) {
            _ if locks => self.lock_ask(index, key),
            0..=5 => self.next_step(index, key),
            6..=8 => AskBody::Remember {
                whose: self.whose(),
                name: self.some_name(),
                value: self.random.below(1_000).to_string().into(),
                ttl_ms: self.random.pick(&[None, None, Some(100), Some(5_000)]).flatten(),
            },
            _ => AskBody::Forget { whose: self.whose(), name: self.some_name() },
        };
        let worker = &mut self.workers[index];
        worker.last_ask += 1;
        let ask = Ask { no: worker.last_ask, key, body };
        worker.asks.push_back(ask.clone());
        if let Some(session) = worker.session
            && worker.is_welcome
        {
            self.send_up(session, Upward::Asks(vec![ask]));
        }
    }

    /// The next step of an attempt, or nonsense in its place.
    fn next_step(&mut self, index: usize, key: AttemptKey) -> AskBody {
        let is_named = self.random.chance(970);
        let name = if is_named { "step" } else { "task_start" };
        let step = match self.workers[index].work.get_mut(&key) {
            Some(work) => {
                work.step += u64::from(is_named);
                work.step
            }
            None => 0,
        };
        let new = NewCheckpoint { name: name.into(), json: true, content: content_of(step), files: None };
        AskBody::Checkpoint(Box::new(new))
    }

    fn whose(&mut self) -> Whose {
        if self.random.chance(700) { Whose::Task } else { Whose::Run }
    }

    pub(super) fn some_name(&mut self) -> Arc<str> {
        let good = NAMES.len() - 1;
        let at = if self.random.chance(970) { self.random.below(good) } else { good };
        NAMES[at].into()
    }

    /// Asks everything again that was not answered, on a new socket.
    pub(super) fn ask_again(&mut self, index: usize) {
        let worker = &self.workers[index];
        let Some(session) = worker.session.filter(|_| !worker.asks.is_empty()) else { return };
        let asks: Vec<Ask> = worker.asks.iter().cloned().collect();
        self.send_asks(session, asks);
    }

    /// In one frame, or in several.
    fn send_asks(&mut self, session: SessionEpoch, mut asks: Vec<Ask>) {
        while !asks.is_empty() {
            let count = self.random.below(asks.len()) + 1;
            let rest = asks.split_off(count);
            self.send_up(session, Upward::Asks(std::mem::replace(&mut asks, rest)));
        }
    }

    pub(super) fn answered(
        &mut self,
        index: usize,
        answers: &[(u64, Result<Given, Rejection>)],
    ) -> Result<(), String> {
        let worker = &mut self.workers[index];
        for (no, given) in answers {
            let Some(at) = worker.asks.iter().position(|ask| ask.no == *no) else {
                // One about a lock is answered when the lock comes, and may have been asked again meanwhile.
                let may_come_twice = match given {
                    Ok(given) => given.lock.is_some(),
                    Err(rejection) => matches!(
                        rejection,
                        Rejection::StaleAttempt { .. } | Rejection::Locked(_) | Rejection::Deadlock(_)
                    ),
                };
                if may_come_twice {
                    continue;
                }
                return Err(format!("worker {} heard {given:?} to {no}, which is not open", worker.name));
            };
            let ask = worker.asks.remove(at);
            if let (Some(ask), Ok(Given { lock: Some(lock), .. })) = (ask, given)
                && let Some(work) = worker.work.get_mut(&ask.key)
            {
                work.locks.push(lock.id);
            }
        }
        Ok(())
    }
}

impl Store {
    /// The step after which an attempt begins that a worker starts now.
    pub(super) fn begin_at(&self, key: AttemptKey, checkpoint: Option<CheckpointId>) -> Result<u64, String> {
        let Some(id) = checkpoint else { return Ok(0) };
        if let Some(step) = self.saved.step_of(id) {
            return Ok(step);
        }
        let row = self.rows.get(&key.task).filter(|row| is_held(row));
        match row.filter(|row| row.state.fence == key.fence && !row.state.cancelling) {
            // A master that took over takes the newest checkpoint for the one in use: clients that save
            // may then have pushed out the real one. The worker is taken to have read it before.
            Some(_) if self.promises.in_use.get(&key.task) != Some(&id) => {
                Ok(self.promises.begins.get(&(key.task, key.fence)).map_or(0, |begin| begin.step))
            }
            Some(row) => {
                Err(format!("{key:?} begins at checkpoint {id}, which is gone; the row says {row:?}"))
            }
            // It is no longer the task's attempt, and has not heard of that yet.
            None => Ok(0),
        }
    }
}

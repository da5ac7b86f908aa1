//! What attempts and clients ask to be saved and remembered, followed apart from the kernel: what each
//! question must lead to, and what must be answered.
//!
//! Every decision is written with what caused it. Since decisions are written in their order, the rows
//! before it say what the kernel knew then: whether the attempt that asks was the current one, what its
//! task remembered, which checkpoints it had.
//!
//! Invariants: a question of an attempt that is not the current one of its task is refused and changes
//! nothing; the same question has the same answer; steps are saved one by one; a checkpoint holds what
//! its task remembers at that moment; what is acknowledged is durable.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use agentflow_core::checkpoint::{Ask, AskBody, Given, NewCheckpoint, Whose, check_key};
use agentflow_core::ids::{CheckpointId, DecisionNumber, Fence, SessionEpoch, TaskId};
use agentflow_core::kernel::{Input, Request, SaveRequest};
use agentflow_core::limits::CHECKPOINTS_KEPT;
use agentflow_core::memory::{Entry, Memory, Owner};
use agentflow_core::rejection::Rejection;
use agentflow_core::time::Wall;

use super::promises::{Promises, Written, is_held};
use super::saved::Entries;
use super::store::Store;

/// What led to a decision.
#[derive(Clone, Debug, Default)]
pub(super) enum Cause {
    /// Nothing of all this.
    #[default]
    Other,
    /// Attempts of that worker asked.
    Asks { worker: Arc<str>, session: SessionEpoch, asks: Vec<Ask>, now: Wall },
    /// A client asked.
    Request { request: Box<Request>, now: Wall },
}

impl Cause {
    /// What an input may lead to.
    pub(super) fn of(input: &Input, worker: Option<&Arc<str>>, now: Wall) -> Self {
        match (input, worker) {
            (Input::Asks { session, asks }, Some(worker)) => {
                Self::Asks { worker: Arc::clone(worker), session: *session, asks: asks.clone(), now }
            }
            (Input::Request { request, .. }, _) => match request {
                Request::Save { .. }
                | Request::Restore(_)
                | Request::Upgrade(_)
                | Request::Remember { .. } => Self::Request { request: Box::new(request.clone()), now },
                _ => Self::Other,
            },
            _ => Self::Other,
        }
    }

    pub(super) fn request(&self) -> Option<&Request> {
        match self {
            Self::Request { request, .. } => Some(request),
            _ => None,
        }
    }
}

/// What an attempt is to hear.
#[derive(Clone, Debug)]
pub(super) enum Expected {
    Done(Option<CheckpointId>),
    Stale,
    Malformed,
    NoRun,
    /// What it asks would have changed something, and nothing was changed: there is no right answer.
    Undone,
}

impl Promises {
    /// Whether something is remembered then.
    pub(super) fn remembers(&self, owner: Owner, at: Wall) -> bool {
        self.memories.get(&owner).is_some_and(|entries| entries.values().any(|entry| !is_over(entry, at)))
    }

    pub(super) fn replace_memory(&mut self, owner: Owner, memory: &Memory) {
        let entries = memory.iter(Wall(i64::MIN));
        let entries = entries.map(|(name, entry)| (Arc::clone(name), entry.clone())).collect();
        self.memories.insert(owner, entries);
    }

    /// Has an entry be so from now on. Whoever touches a memory finds nothing there that is over.
    fn remember(&mut self, owner: Owner, name: &Arc<str>, entry: Option<Entry>, now: Wall) {
        let entries = self.memories.entry(owner).or_default();
        entries.retain(|_, entry| !is_over(entry, now));
        match entry {
            Some(entry) => drop(entries.insert(Arc::clone(name), entry)),
            None => drop(entries.remove(name)),
        }
    }
}

/// Such questions are followed in `locks.rs`.
fn is_of_locks(ask: &Ask) -> bool {
    matches!(ask.body, AskBody::Lock(_) | AskBody::Unlock { .. })
}

fn is_over(entry: &Entry, now: Wall) -> bool {
    entry.expires_at.is_some_and(|at| at <= now)
}

fn entry_of(value: &Arc<str>, ttl_ms: Option<u64>, now: Wall) -> Entry {
    Entry { value: Arc::clone(value), expires_at: ttl_ms.map(|ms| now.plus_ms(ms)) }
}

impl Store {
    /// Whether what a task or run has may change.
    pub(super) fn is_live(&self, owner: Owner) -> bool {
        match owner {
            Owner::Task(task) => self.rows.get(&task).is_some_and(|row| !row.state.status.is_settled()),
            Owner::Run(run) => self.ties.runs.get(&run).is_some_and(|row| !row.state.status.is_settled()),
        }
    }

    /// What was asked by whoever caused the decision.
    pub(super) fn follow_cause(
        &mut self,
        batch: &Written,
        cause: &Cause,
        touched: &mut BTreeSet<Owner>,
    ) -> Result<(), String> {
        match cause {
            Cause::Asks { worker, session, asks, now } => {
                for ask in asks.iter().filter(|ask| !is_of_locks(ask)) {
                    touched.insert(Owner::Task(ask.key.task));
                    let expected = self.follow_ask(worker, ask, *now)?;
                    self.promises.expected.entry((*session, ask.no)).or_default().push_back(expected);
                }
                Ok(())
            }
            Cause::Request { request, now } => match &**request {
                Request::Save { save, .. } => self.follow_save(batch, save, *now),
                Request::Remember { owner, name, value, ttl_ms } => {
                    touched.insert(*owner);
                    if self.is_live(*owner) && check_key(name).is_ok() {
                        let entry = value.as_ref().map(|value| entry_of(value, *ttl_ms, *now));
                        self.promises.remember(*owner, name, entry, *now);
                    }
                    Ok(())
                }
                _ => Ok(()),
            },
            Cause::Other => Ok(()),
        }
    }

    /// A client's checkpoint, if one was made.
    fn follow_save(&mut self, batch: &Written, save: &SaveRequest, now: Wall) -> Result<(), String> {
        let task = save.task;
        if !batch.owners.contains(&Owner::Task(task)) {
            return Ok(());
        }
        let row = self.rows.get(&task).filter(|row| !row.state.status.is_settled());
        let is_current = |fence: Fence| row.is_some_and(|row| is_held(row) && row.state.fence == fence);
        if row.is_none() || save.fence.is_some_and(|fence| !is_current(fence)) {
            return Err(format!("{save:?} was taken; the row says {row:?}"));
        }
        if let Some(memory) = &save.memory {
            self.promises.replace_memory(Owner::Task(task), memory);
        }
        self.follow_checkpoint(task, &save.checkpoint, (save.fence.unwrap_or_default(), 0), now)?;
        // Whoever saves from outside knows where to go on.
        self.promises.begins_elsewhere(task);
        Ok(())
    }

    /// Whether the attempt is in that worker's hands.
    fn is_current(&self, worker: &Arc<str>, ask: &Ask) -> bool {
        let row = self.rows.get(&ask.key.task).filter(|row| is_held(row));
        row.is_some_and(|row| {
            (row.state.attempt, row.state.fence) == (ask.key.attempt, ask.key.fence)
                && row.state.worker.as_ref() == Some(worker)
        })
    }

    /// What a question is to be answered with, if it changes nothing.
    fn refusal(&self, worker: &Arc<str>, ask: &Ask) -> Result<Owner, Expected> {
        let task = ask.key.task;
        if !self.is_current(worker, ask) {
            return Err(Expected::Stale);
        }
        let (whose, name) = match &ask.body {
            AskBody::Checkpoint(new) if new.check().is_err() => return Err(Expected::Malformed),
            AskBody::Checkpoint(_) => {
                return match self.known(task, ask.key.fence, ask.no) {
                    Some(known) => Err(Expected::Done(known)),
                    None => Ok(Owner::Task(task)),
                };
            }
            AskBody::Remember { whose, name, .. } | AskBody::Forget { whose, name } => (whose, name),
            AskBody::Lock(_) | AskBody::Unlock { .. } => return Err(Expected::Undone),
        };
        let run = self.rows.get(&task).and_then(|row| row.run.as_ref()).map(|place| place.run);
        // One that an upgrade took away is a part of nothing.
        let run = run
            .filter(|run| self.runs.views.get(run).is_none_or(|view| !view.earlier.removed.contains(&task)));
        let owner = match (whose, run) {
            (Whose::Task, _) => Owner::Task(task),
            (Whose::Run, Some(run)) => Owner::Run(run),
            (Whose::Run, None) => return Err(Expected::NoRun),
        };
        if check_key(name).is_err() { Err(Expected::Malformed) } else { Ok(owner) }
    }

    /// The checkpoint that a question made when it was asked before; none if newer ones of the same
    /// attempt have pushed it out. If those of others did, it is not known again, and saved again.
    fn known(&self, task: TaskId, fence: Fence, no: u64) -> Option<Option<CheckpointId>> {
        let kept = self.promises.kept.get(&task)?;
        let own = self.promises.made.range((task, fence, no)..=(task, fence, u64::MAX));
        let (number, id) =
            own.map(|((_, _, number), id)| (*number, *id)).find(|(_, id)| kept.contains(id))?;
        Some((number == no).then_some(id))
    }

    fn follow_ask(&mut self, worker: &Arc<str>, ask: &Ask, now: Wall) -> Result<Expected, String> {
        let owner = match self.refusal(worker, ask) {
            Ok(owner) => owner,
            Err(expected) => return Ok(expected),
        };
        let (name, entry) = match &ask.body {
            AskBody::Checkpoint(new) => {
                let (task, fence) = (ask.key.task, ask.key.fence);
                let id = self.follow_checkpoint(task, new, (fence, ask.no), now)?;
                if self.promises.made.insert((task, fence, ask.no), id).is_none() {
                    self.step_follows(task, fence, id)?;
                }
                return Ok(Expected::Done(Some(id)));
            }
            AskBody::Remember { name, value, ttl_ms, .. } => (name, Some(entry_of(value, *ttl_ms, now))),
            AskBody::Forget { name, .. } => (name, None),
            AskBody::Lock(_) | AskBody::Unlock { .. } => return Ok(Expected::Undone),
        };
        self.promises.remember(owner, name, entry, now);
        Ok(Expected::Done(None))
    }

    /// A checkpoint is made: the oldest one beyond the limit goes, but not the one in use.
    fn follow_checkpoint(
        &mut self,
        task: TaskId,
        new: &NewCheckpoint,
        (fence, number): (Fence, u64),
        now: Wall,
    ) -> Result<CheckpointId, String> {
        let id = self.promises.last.next();
        self.promises.last = id;
        let row = self.saved.checkpoints.get(&id);
        if row.is_none() && !self.saved.removed.contains(&id) {
            return Err(format!("{new:?} of task {task}, fence {fence}, number {number} was not kept"));
        }
        if let Some(row) = row {
            let same = row.task == task
                && (&row.name, row.json, &row.content) == (&new.name, new.json, &new.content);
            let attempt = self.rows.get(&task).map(|row| row.state.attempt);
            if !same || (row.fence, row.number) != (fence, number) || Some(row.attempt) != attempt {
                return Err(format!("{row:?} was to be {new:?} of fence {fence}, number {number}"));
            }
            let text = row.memory.as_deref().unwrap_or("{}");
            let memory: Entries = Memory::from_text(text)?
                .iter(Wall(i64::MIN))
                .map(|(name, entry)| (Arc::clone(name), entry.clone()))
                .collect();
            let mut entries = self.promises.memories.get(&Owner::Task(task)).cloned().unwrap_or_default();
            entries.retain(|_, entry| !is_over(entry, now));
            if memory != entries {
                return Err(format!("checkpoint {id} holds {memory:?}, the task remembered {entries:?}"));
            }
        }
        let most = self.limit_of(task);
        let in_use = self.promises.in_use.get(&task).copied();
        self.promises.choices.remove(&task);
        let kept = self.promises.kept.entry(task).or_default();
        kept.push(id);
        while let Some(at) = kept.iter().position(|old| Some(*old) != in_use && *old != id)
            && kept.len() > most
        {
            kept.remove(at);
        }
        Ok(id)
    }

    /// How many checkpoints of a task are kept: as the version says that is at work.
    fn limit_of(&self, task: TaskId) -> usize {
        let Some(row) = self.rows.get(&task) else { return 0 };
        let at_work = self.promises.in_hand.get(&task).filter(|_| is_held(row)).unwrap_or(&row.spec);
        let most = self.prepared(at_work).and_then(|spec| spec.spec.keep_checkpoints);
        most.unwrap_or(CHECKPOINTS_KEPT) as usize
    }

    /// The steps of an attempt count on from where it began.
    fn step_follows(&mut self, task: TaskId, fence: Fence, id: CheckpointId) -> Result<(), String> {
        let Some(begin) = self.promises.begins.get_mut(&(task, fence)) else {
            return Err(format!("checkpoint {id} is of an attempt that was never given away"));
        };
        begin.step += 1;
        match self.saved.step_of(id) {
            Some(step) if step != begin.step => {
                Err(format!("step {step} of task {task} was saved after step {}", begin.step - 1))
            }
            _ => Ok(()),
        }
    }

    /// Questions that led to no decision: they saw the latest one.
    pub(super) fn led_to_nothing(&mut self, seen: DecisionNumber, cause: Cause) {
        if matches!(cause, Cause::Asks { .. }) {
            self.promises.idle.push_back((seen, cause));
        }
        self.answer_idle();
    }

    /// Works out the answers to such questions as soon as what they saw is written.
    pub(super) fn answer_idle(&mut self) {
        let durable = self.durable();
        while let Some((_, cause)) = self.promises.idle.pop_front_if(|(seen, _)| *seen <= durable) {
            let Cause::Asks { worker, session, asks, now } = cause else { continue };
            for ask in asks.into_iter().filter(|ask| !is_of_locks(ask)) {
                let expected = self.if_idle(&worker, &ask, now);
                self.promises.expected.entry((session, ask.no)).or_default().push_back(expected);
            }
        }
    }

    fn if_idle(&self, worker: &Arc<str>, ask: &Ask, now: Wall) -> Expected {
        let owner = match self.refusal(worker, ask) {
            Ok(owner) => owner,
            Err(expected) => return expected,
        };
        let entries = self.promises.memories.get(&owner);
        let has_old = entries.is_some_and(|entries| entries.values().any(|entry| is_over(entry, now)));
        match &ask.body {
            AskBody::Forget { name, .. }
                if !has_old && !entries.is_some_and(|entries| entries.contains_key(name)) =>
            {
                Expected::Done(None)
            }
            _ => Expected::Undone,
        }
    }

    /// An answer leaves the master: it must be what follows from the rows.
    pub(super) fn check_given(
        &mut self,
        session: SessionEpoch,
        no: u64,
        given: &Result<Given, Rejection>,
    ) -> Result<(), String> {
        let expected = self.promises.expected.get_mut(&(session, no)).and_then(VecDeque::pop_front);
        let Some(expected) = expected else {
            return Err(format!("the answer to question {no} left before its decision was durable"));
        };
        let fits = match (&expected, given) {
            (Expected::Done(id), Ok(given)) => given.checkpoint == *id,
            (Expected::Stale, Err(Rejection::StaleAttempt { .. }))
            | (Expected::Malformed, Err(Rejection::Malformed(_)))
            | (Expected::NoRun, Err(Rejection::NoRun(_))) => true,
            _ => false,
        };
        if !fits {
            return Err(format!("question {no} was answered with {given:?}, expected was {expected:?}"));
        }
        let Some(id) = given.as_ref().ok().and_then(|given| given.checkpoint) else { return Ok(()) };
        match self.saved.checkpoints.get(&id) {
            Some(row) => {
                let task = row.task;
                let step = self.saved.step_of(id).unwrap_or_default();
                self.promises.acknowledge(task, id, step);
                Ok(())
            }
            None if self.saved.removed.contains(&id) => Ok(()),
            None => Err(format!("checkpoint {id} was acknowledged and is lost")),
        }
    }
}

//! Checkpoints and memories of live tasks and runs: what is kept, and where the next attempt begins.
//!
//! ```text
//! Ask ──► check: is it the current attempt? ──► row, event ──► Effect::Answer, once it is durable
//!                                                 └── the oldest one beyond the limit goes
//! assignment ──► begins_at: the chosen one, else the newest ──► named in the frame
//! ```
//!
//! The bytes of checkpoints are not here, only their numbers; memories are, since each checkpoint
//! holds one. A checkpoint from which the current attempt began, or the next one will, stays.

use std::collections::BTreeMap;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::words::{Answer, Effect, Reply, SaveRequest, SubmitKey};
use super::{Kernel, Step};
use crate::attempt::AttemptKey;
use crate::batch::{CheckpointRow, ChoiceRow, MemoryRow, SavedTask};
use crate::checkpoint::{Ask, AskBody, Choice, Given, KeptCheckpoint, NewCheckpoint, Whose, check_key};
use crate::event::Happening;
use crate::ids::{CheckpointId, Fence, RunId, SessionEpoch, TaskId};
use crate::limits;
use crate::memory::{Entry, Memory, Owner, check_value};
use crate::rejection::Rejection;
use crate::spec::ContinueFrom;
use crate::task::WorkerIndex;
use crate::time::Wall;

/// The checkpoints of one live task.
#[derive(Debug, Default)]
struct Kept {
    /// The oldest first.
    checkpoints: Vec<KeptCheckpoint>,
    choice: Option<Choice>,
    /// Where the current attempt began.
    in_use: Option<CheckpointId>,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Saved {
    tasks: FxHashMap<TaskId, Kept>,
    // Ordered, so that simulations repeat.
    memories: BTreeMap<Owner, Memory>,
    /// Bytes of all memories.
    bytes: usize,
}

impl Saved {
    /// What the database has of a task that comes back to life, or lives.
    pub(super) fn enter(&mut self, task: TaskId, saved: SavedTask) {
        let SavedTask { kept, choice, memory } = saved;
        if !kept.is_empty() || choice.is_some() {
            self.tasks.insert(task, Kept { checkpoints: kept, choice, in_use: None });
        }
        self.enter_memory(Owner::Task(task), memory);
    }

    pub(super) fn enter_memory(&mut self, owner: Owner, memory: Memory) {
        if !memory.is_empty() {
            self.bytes += memory.bytes();
            self.memories.insert(owner, memory);
        }
    }

    /// A task has ended: its rows stay.
    pub(super) fn leave(&mut self, task: TaskId) {
        self.tasks.remove(&task);
        self.leave_memory(Owner::Task(task));
    }

    pub(super) fn leave_memory(&mut self, owner: Owner) {
        if let Some(memory) = self.memories.remove(&owner) {
            self.bytes -= memory.bytes();
        }
    }

    fn memory(&self, owner: Owner) -> Option<&Memory> {
        self.memories.get(&owner)
    }

    /// Whether the task remembers anything.
    pub(super) fn remembers(&self, task: TaskId, now: Wall) -> bool {
        self.memory(Owner::Task(task)).is_some_and(|memory| memory.iter(now).next().is_some())
    }

    fn choice(&self, task: TaskId) -> Option<Choice> {
        self.tasks.get(&task)?.choice
    }

    /// Whether a checkpoint is kept of a live task.
    pub(super) fn has(&self, task: TaskId, checkpoint: CheckpointId) -> bool {
        self.tasks.get(&task).is_some_and(|kept| kept.checkpoints.iter().any(|kept| kept.id == checkpoint))
    }

    /// Where an attempt begins that is given away now.
    pub(super) fn begin(&mut self, task: TaskId, usual: ContinueFrom) -> Option<CheckpointId> {
        let kept = self.tasks.get_mut(&task)?;
        kept.in_use = match (kept.choice, usual) {
            (Some(Choice::At(checkpoint)), _) => Some(checkpoint),
            (Some(Choice::Beginning), _) | (None, ContinueFrom::Beginning) => None,
            (None, ContinueFrom::Checkpoint) => kept.checkpoints.last().map(|kept| kept.id),
        };
        kept.in_use
    }

    /// How many things are held, for the invariants.
    pub(super) fn owners(&self) -> impl Iterator<Item = Owner> {
        let tasks = self.tasks.keys().map(|task| Owner::Task(*task));
        tasks.chain(self.memories.keys().copied())
    }
}

impl Kernel {
    /// What running attempts ask.
    pub(super) fn on_asks(&mut self, step: &mut Step, session: SessionEpoch, asks: Vec<Ask>) {
        // A socket that was superseded has nothing more to say; its successor says it again.
        let Some(worker) = self.workers.of_session(session) else { return };
        self.renew_lease(step.now, worker);
        let mut answers = Vec::with_capacity(asks.len());
        for ask in asks {
            let no = ask.no;
            answers.extend(self.answer(step, worker, ask).transpose().map(|answer| (no, answer)));
        }
        if !answers.is_empty() {
            step.effects.push(Effect::Answers { session, answers });
        }
    }

    /// Nothing means that it is answered later: the attempt waits for a lock.
    fn answer(&mut self, step: &mut Step, worker: WorkerIndex, ask: Ask) -> Result<Option<Given>, Rejection> {
        let Ask { no, key, body } = ask;
        self.check_current(worker, key)?;
        let at = step.now.wall;
        match body {
            AskBody::Checkpoint(checkpoint) => {
                checkpoint.check().map_err(Rejection::Malformed)?;
                let kept = self.saved.tasks.get(&key.task);
                let mut own = kept.iter().flat_map(|kept| &kept.checkpoints);
                // Numbers rise, and asks come in their order.
                let known = own.find(|kept| kept.fence == key.fence && kept.number >= no);
                let id = match known {
                    // It was asked before, and the answer was lost.
                    Some(kept) if kept.number == no => Some(kept.id),
                    // And it has made room for newer ones since.
                    Some(_) => None,
                    None => Some(self.save(step, key.task, *checkpoint, (key.fence, no))?),
                };
                Ok(Some(Given { checkpoint: id, lock: None, at }))
            }
            AskBody::Remember { whose, name, value, ttl_ms } => {
                let owner = self.owner(key.task, whose)?;
                self.remember(step, owner, name, Some(value), ttl_ms)?;
                Ok(Some(Given { checkpoint: None, lock: None, at }))
            }
            AskBody::Lock(ask) => self.on_lock_ask(step, key, no, *ask).transpose(),
            AskBody::Unlock { lock } => self.on_unlock_ask(step, key, lock).map(Some),
            AskBody::Forget { whose, name } => {
                let owner = self.owner(key.task, whose)?;
                self.remember(step, owner, name, None, None)?;
                Ok(Some(Given { checkpoint: None, lock: None, at }))
            }
        }
    }

    /// Only the attempt that is in that worker's hands may ask.
    fn check_current(&self, worker: WorkerIndex, key: AttemptKey) -> Result<(), Rejection> {
        let current = self.tasks.get(key.task).and_then(|entry| {
            let hold = entry.task.hold()?;
            Some((hold.worker, entry.task.attempt, entry.task.fence))
        });
        match current {
            Some((holder, attempt, fence))
                if (holder, attempt, fence) == (worker, key.attempt, key.fence) =>
            {
                Ok(())
            }
            other => {
                let current = other.map(|(_, _, fence)| fence);
                Err(Rejection::StaleAttempt { given: key.fence, current })
            }
        }
    }

    fn owner(&self, task: TaskId, whose: Whose) -> Result<Owner, Rejection> {
        match whose {
            Whose::Task => Ok(Owner::Task(task)),
            Whose::Run => self.run_of(task).map(Owner::Run).ok_or(Rejection::NoRun(task)),
        }
    }

    /// Saves the state of a live task.
    fn save(
        &mut self,
        step: &mut Step,
        id: TaskId,
        new: NewCheckpoint,
        (fence, number): (Fence, u64),
    ) -> Result<CheckpointId, Rejection> {
        let entry = self.tasks.get(id).ok_or(Rejection::UnknownTask(id))?;
        let spec = &self.specs.get(entry.spec).spec;
        let most = spec.keep_checkpoints.unwrap_or(limits::CHECKPOINTS_KEPT) as usize;
        let attempt = entry.task.attempt;
        let checkpoint = self.counters.last_checkpoint.next();
        self.counters.last_checkpoint = checkpoint;
        let memory = self.saved.memory(Owner::Task(id)).and_then(|memory| memory.to_text(step.now.wall));
        let NewCheckpoint { name, json, content, files } = new;
        step.task_event(id, Happening::TaskCheckpointed { attempt, checkpoint, name: Arc::clone(&name) });
        step.batch.saved.checkpoints.push(CheckpointRow {
            id: checkpoint,
            task: id,
            attempt,
            fence,
            number,
            name,
            json,
            content,
            files,
            memory,
            at: step.now.wall,
        });
        // The newest one counts again.
        self.choose(step, id, None);
        let kept = self.saved.tasks.entry(id).or_default();
        kept.checkpoints.push(KeptCheckpoint { id: checkpoint, fence, number });
        let mut surplus = kept.checkpoints.len().saturating_sub(most);
        let in_use = kept.in_use;
        kept.checkpoints.retain(|old| {
            let goes = surplus > 0 && Some(old.id) != in_use && old.id != checkpoint;
            surplus -= usize::from(goes);
            if goes {
                step.batch.saved.removed.push(old.id);
            }
            !goes
        });
        step.urgent = true;
        Ok(checkpoint)
    }

    /// Sets where the next attempt begins.
    pub(super) fn choose(&mut self, step: &mut Step, task: TaskId, choice: Option<Choice>) {
        if self.saved.choice(task) == choice {
            return;
        }
        self.saved.tasks.entry(task).or_default().choice = choice;
        step.batch.saved.choices.push(ChoiceRow { task, choice });
        step.urgent = true;
    }

    /// The next attempt begins at the beginning, if there is anything else.
    pub(super) fn begin_anew(&mut self, step: &mut Step, task: TaskId) {
        if self.saved.tasks.get(&task).is_some_and(|kept| !kept.checkpoints.is_empty()) {
            self.choose(step, task, Some(Choice::Beginning));
        }
    }

    /// A client saves the state of a task.
    pub(super) fn on_save(&mut self, step: &mut Step, save: SaveRequest, key: Option<SubmitKey>) -> Reply {
        let SaveRequest { task, fence, checkpoint, memory } = save;
        if let Some(key) = key
            && let Some(recent) = self.keys.recent(step.now.mono, key)?
        {
            return Ok(Answer::Saved { checkpoint: CheckpointId(recent.first.0), at: recent.at() });
        }
        let entry = self.tasks.get(task).ok_or(Rejection::UnknownTask(task))?;
        if let Some(given) = fence {
            let current = entry.task.hold().map(|_| entry.task.fence);
            if current != Some(given) {
                return Err(Rejection::StaleAttempt { given, current });
            }
        }
        if let Some(memory) = memory {
            self.replace_memory(step, Owner::Task(task), memory)?;
        }
        let id = self.save(step, task, checkpoint, (fence.unwrap_or_default(), 0))?;
        if let Some(key) = key {
            self.keys.remember(step, key, TaskId(id.0), 1);
        }
        Ok(Answer::Saved { checkpoint: id, at: step.now.wall })
    }

    /// A client remembers something for a task or run, or forgets it.
    pub(super) fn on_remember(
        &mut self,
        step: &mut Step,
        owner: Owner,
        name: Arc<str>,
        value: Option<Arc<str>>,
        ttl_ms: Option<u64>,
    ) -> Result<(), Rejection> {
        match owner {
            Owner::Task(id) if self.tasks.get(id).is_none() => Err(Rejection::UnknownTask(id)),
            Owner::Run(id) if !self.has_run(id) => Err(Rejection::UnknownRun(id)),
            _ => self.remember(step, owner, name, value, ttl_ms),
        }
    }

    /// Sets an entry of a memory, or takes it away.
    fn remember(
        &mut self,
        step: &mut Step,
        owner: Owner,
        name: Arc<str>,
        value: Option<Arc<str>>,
        ttl_ms: Option<u64>,
    ) -> Result<(), Rejection> {
        check_key(&name).map_err(Rejection::Malformed)?;
        let now = step.now.wall;
        let entry = value.map(|value| Entry { value, expires_at: ttl_ms.map(|ms| now.plus_ms(ms)) });
        if let Some(entry) = &entry {
            check_value(&entry.value)?;
            if self.saved.bytes + name.len() + entry.value.len() > limits::MEMORIES_BYTES {
                return Err(Rejection::Limit {
                    what: "bytes of memories of live tasks and runs",
                    limit: limits::MEMORIES_BYTES,
                });
            }
        }
        let memory = self.saved.memories.entry(owner).or_default();
        let before = memory.bytes();
        let mut rows: Vec<MemoryRow> =
            memory.expire(now).into_iter().map(|name| MemoryRow { owner, name, entry: None }).collect();
        let done = match &entry {
            Some(entry) => memory.set(Arc::clone(&name), entry.clone()).map(|()| true),
            None => Ok(memory.remove(&name)),
        };
        self.saved.bytes = self.saved.bytes - before + memory.bytes();
        if memory.is_empty() {
            self.saved.memories.remove(&owner);
        }
        if matches!(done, Ok(true)) {
            rows.push(MemoryRow { owner, name, entry });
        }
        step.urgent |= !rows.is_empty();
        step.batch.saved.memory.extend(rows);
        done.map(drop)
    }

    /// Whether there is room for a memory in the place of the present one.
    pub(super) fn check_memory(&self, owner: Owner, memory: &Memory) -> Result<(), Rejection> {
        let before = self.saved.memory(owner).map_or(0, Memory::bytes);
        if self.saved.bytes - before + memory.bytes() > limits::MEMORIES_BYTES {
            return Err(Rejection::Limit {
                what: "bytes of memories of live tasks and runs",
                limit: limits::MEMORIES_BYTES,
            });
        }
        Ok(())
    }

    /// Has a memory be what it was at another time.
    pub(super) fn replace_memory(
        &mut self,
        step: &mut Step,
        owner: Owner,
        memory: Memory,
    ) -> Result<(), Rejection> {
        self.check_memory(owner, &memory)?;
        let rows = &mut step.batch.saved.memory;
        if let Some(old) = self.saved.memory(owner) {
            let gone = old.names().filter(|name| memory.get(name, Wall(i64::MIN)).is_none());
            rows.extend(gone.map(|name| MemoryRow { owner, name: Arc::clone(name), entry: None }));
        }
        let all = memory.iter(Wall(i64::MIN));
        rows.extend(all.map(|(name, entry)| {
            let (name, entry) = (Arc::clone(name), Some(entry.clone()));
            MemoryRow { owner, name, entry }
        }));
        self.saved.leave_memory(owner);
        self.saved.enter_memory(owner, memory);
        step.urgent = true;
        Ok(())
    }

    /// Forgets all that a task remembered.
    pub(super) fn forget_all(&mut self, step: &mut Step, task: TaskId) {
        if self.saved.memory(Owner::Task(task)).is_some() {
            // An empty memory always fits.
            let _fits = self.replace_memory(step, Owner::Task(task), Memory::default());
        }
    }

    /// What the database has of checkpoints and memories of live tasks and runs.
    pub(super) fn restore_saved(&mut self, tasks: Vec<(TaskId, SavedTask)>, runs: Vec<(RunId, Memory)>) {
        for (task, saved) in tasks {
            self.saved.enter(task, saved);
            // The attempt that is under way, if any, was given what would be given now, unless a
            // checkpoint came since: then nobody needs the older one for certain.
            if let Some(entry) = self.tasks.get(task)
                && entry.task.hold().is_some()
            {
                let usual = self.specs.get(entry.spec).spec.continue_from;
                self.saved.begin(task, usual);
            }
        }
        for (run, memory) in runs {
            self.saved.enter_memory(Owner::Run(run), memory);
        }
    }
}

//! Where attempts begin and what they run: what is promised, worked out from the events and from what
//! was asked, without the kernel.
//!
//! Invariants: an attempt begins at the newest checkpoint, at the one that somebody chose, or at the
//! beginning where its task, a retry or an upgrade says so, and each round of a loop does; it never
//! begins before the newest step whose saving was acknowledged, unless somebody asked for that; it runs
//! the newest version; after every commit the rows hold exactly the checkpoints, the choice and the
//! memory that follow from what was asked (`asked.rs`).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use agentflow_core::attempt::AttemptKey;
use agentflow_core::batch::{Batch, MASTER};
use agentflow_core::checkpoint::Choice;
use agentflow_core::event::{Event, Happening, Subject};
use agentflow_core::ids::{CheckpointId, DecisionNumber, Fence, ReplyTo, SessionEpoch, SpecHash, TaskId};
use agentflow_core::kernel::{NewVersion, Request, RestoreRequest};
use agentflow_core::memory::Owner;
use agentflow_core::spec::ContinueFrom;
use agentflow_core::time::Wall;

use super::asked::{Cause, Expected};
use super::saved::Entries;
use super::store::{Row, Store};

/// How an attempt begins.
#[derive(Clone, Debug)]
pub(super) struct Begin {
    pub(super) checkpoint: Option<CheckpointId>,
    pub(super) spec: SpecHash,
    pub(super) remembers: bool,
    /// The last step that it saved, or that it begins after.
    pub(super) step: u64,
}

/// What was acknowledged of a task's steps.
#[derive(Clone, Copy, Debug, Default)]
struct Floor {
    step: u64,
    /// Somebody had it begin elsewhere when that was its newest checkpoint.
    from: CheckpointId,
}

/// What must be so.
#[derive(Debug, Default)]
pub(super) struct Promises {
    pub(super) begins: BTreeMap<(TaskId, Fence), Begin>,
    /// The checkpoint that each question of an attempt made.
    pub(super) made: BTreeMap<(TaskId, Fence, u64), CheckpointId>,
    pub(super) memories: BTreeMap<Owner, Entries>,
    pub(super) kept: BTreeMap<TaskId, Vec<CheckpointId>>,
    pub(super) choices: BTreeMap<TaskId, Choice>,
    /// Where the latest attempt began, as long as the master knows.
    pub(super) in_use: BTreeMap<TaskId, CheckpointId>,
    /// What the attempt in a worker's hands runs, as far as the master knows.
    pub(super) in_hand: BTreeMap<TaskId, SpecHash>,
    /// Requests about tasks that have ended, and not yet answered.
    pub(super) wishes: BTreeMap<ReplyTo, Request>,
    /// Answers that attempts are to get.
    pub(super) expected: BTreeMap<(SessionEpoch, u64), VecDeque<Expected>>,
    /// Questions that changed nothing, by the decision that they saw.
    pub(super) idle: VecDeque<(DecisionNumber, Cause)>,
    /// Checkpoints of which an attempt was told.
    pub(super) acknowledged: BTreeSet<CheckpointId>,
    /// The newest checkpoint.
    pub(super) last: CheckpointId,
    floors: BTreeMap<TaskId, Floor>,
}

impl Promises {
    /// Somebody chose where the task goes on: nothing is promised of earlier steps.
    pub(super) fn begins_elsewhere(&mut self, task: TaskId) {
        let from = self.kept.get(&task).and_then(|kept| kept.last()).copied();
        let before = self.floors.get(&task).map_or(CheckpointId(0), |floor| floor.from);
        self.floors.insert(task, Floor { step: 0, from: from.unwrap_or_default().max(before) });
    }

    /// An attempt was told that a step of its task is saved.
    pub(super) fn acknowledge(&mut self, task: TaskId, checkpoint: CheckpointId, step: u64) {
        self.acknowledged.insert(checkpoint);
        let floor = self.floors.entry(task).or_default();
        if checkpoint > floor.from {
            floor.step = floor.step.max(step);
        }
    }

    /// The next attempt begins at the beginning, if there is anything else.
    fn begin_anew(&mut self, task: TaskId) {
        if self.kept.get(&task).is_some_and(|kept| !kept.is_empty()) {
            self.choices.insert(task, Choice::Beginning);
        }
        self.begins_elsewhere(task);
    }

    fn where_to(&self, task: TaskId, usual: ContinueFrom) -> Option<CheckpointId> {
        match (self.choices.get(&task), usual) {
            (Some(Choice::At(checkpoint)), _) => Some(*checkpoint),
            (Some(Choice::Beginning), _) | (None, ContinueFrom::Beginning) => None,
            (None, ContinueFrom::Checkpoint) => self.kept.get(&task)?.last().copied(),
        }
    }

    fn use_checkpoint(&mut self, task: TaskId, checkpoint: Option<CheckpointId>) {
        match checkpoint {
            Some(checkpoint) => drop(self.in_use.insert(task, checkpoint)),
            None => drop(self.in_use.remove(&task)),
        }
    }

    /// The master is gone: what it owed nobody gets.
    pub(super) fn crash(&mut self) {
        self.wishes.clear();
        self.expected.clear();
        self.idle.clear();
    }

    fn restore(&mut self, restore: &RestoreRequest) {
        let RestoreRequest { task, checkpoint, continue_from, memory } = restore;
        let choice = match continue_from {
            ContinueFrom::Checkpoint => Choice::At(*checkpoint),
            ContinueFrom::Beginning => Choice::Beginning,
        };
        self.choices.insert(*task, choice);
        self.replace_memory(Owner::Task(*task), memory);
        self.begins_elsewhere(*task);
    }
}

/// Whether a worker has that in its hands.
pub(super) fn is_held(row: &Row) -> bool {
    let is_workers = row.state.worker.as_ref().is_some_and(|worker| **worker != *MASTER);
    is_workers && !row.state.status.is_settled()
}

impl Store {
    /// What follows from a decision that is written now.
    pub(super) fn keep_promises(&mut self, batch: &Written, cause: &Cause) -> Result<(), String> {
        let mut touched = batch.owners.clone();
        self.follow_cause(batch, cause, &mut touched)?;
        for event in &batch.events {
            let Subject::Task(task) = event.subject else { continue };
            self.follow_event(task, event, batch, cause)
                .map_err(|what| format!("task {task}, {:?}: {what}", event.happening))?;
            if !matches!(event.happening, Happening::TaskCreated { .. } | Happening::TaskStarted { .. }) {
                touched.insert(Owner::Task(task));
            }
        }
        touched.iter().try_for_each(|owner| self.check_saved(*owner))
    }

    fn follow_event(
        &mut self,
        task: TaskId,
        event: &Event,
        batch: &Written,
        cause: &Cause,
    ) -> Result<(), String> {
        match &event.happening {
            Happening::TaskAssigned { worker, fence, .. } if **worker != *MASTER => {
                return self.attempt_begins(task, *fence, event.at);
            }
            Happening::TaskAdopted { .. } => {
                if let Some(row) = self.rows.get(&task) {
                    self.promises.in_hand.insert(task, row.spec);
                }
            }
            Happening::TaskRepeating { .. } => self.promises.begin_anew(task),
            Happening::TaskReopened { .. } => return self.is_reopened(task, batch),
            Happening::TaskRestored { checkpoint, .. } => {
                let restore = self.restore_asked(task, *checkpoint, cause)?;
                self.promises.restore(&restore);
            }
            Happening::TaskUpgraded { version, reason } => {
                let new = self.upgrade_asked(task, *version, reason, cause)?;
                self.is_upgraded(&new, batch)?;
            }
            Happening::TaskCompleted { .. }
            | Happening::TaskFailed { .. }
            | Happening::TaskCancelled { .. }
            | Happening::TaskSkipped { .. } => {
                self.promises.in_use.remove(&task);
            }
            _ => {}
        }
        Ok(())
    }

    fn attempt_begins(&mut self, task: TaskId, fence: Fence, at: Wall) -> Result<(), String> {
        let Some(row) = self.rows.get(&task) else { return Ok(()) };
        let usual = self.spec_of(row).map(|spec| spec.spec.continue_from).unwrap_or_default();
        let checkpoint = self.promises.where_to(task, usual);
        if usual == ContinueFrom::Beginning {
            self.promises.begins_elsewhere(task);
        }
        let step = match checkpoint {
            None => 0,
            Some(id) => self.saved.step_of(id).ok_or(format!("checkpoint {id} is not kept"))?,
        };
        let floor = self.promises.floors.get(&task).copied().unwrap_or_default();
        if step < floor.step {
            return Err(format!("step {} was acknowledged, and it begins after step {step}", floor.step));
        }
        let remembers = self.promises.remembers(Owner::Task(task), at);
        self.promises.begins.insert((task, fence), Begin { checkpoint, spec: row.spec, remembers, step });
        self.promises.in_hand.insert(task, row.spec);
        self.promises.use_checkpoint(task, checkpoint);
        Ok(())
    }

    /// A task that had ended is to run again, for a reason that some request gave.
    fn is_reopened(&mut self, task: TaskId, batch: &Written) -> Result<(), String> {
        self.promises.in_use.remove(&task);
        let is_other = |event: &Event| {
            event.subject == Subject::Task(task)
                && matches!(event.happening, Happening::TaskRestored { .. } | Happening::TaskUpgraded { .. })
        };
        if batch.events.iter().any(is_other) {
            return Ok(());
        }
        let run = self.rows.get(&task).and_then(|row| row.run.as_ref()).map(|place| place.run);
        let is_upgrade = |event: &Event| {
            run.is_some_and(|run| event.subject == Subject::Run(run))
                && matches!(event.happening, Happening::RunUpgraded { .. })
        };
        if batch.events.iter().any(is_upgrade) {
            // A node that runs again begins anew.
            self.promises.begin_anew(task);
            self.promises.memories.remove(&Owner::Task(task));
            return Ok(());
        }
        let from = self.promises.wishes.values().filter_map(|wish| match wish {
            Request::Retry { tasks, continue_from } if tasks.contains(&task) => Some(*continue_from),
            _ => None,
        });
        let from: Vec<ContinueFrom> = from.collect();
        let anew = from.contains(&ContinueFrom::Beginning);
        let on = from.contains(&ContinueFrom::Checkpoint);
        // Of two that wait either may have been first: what was written says which.
        let has_kept = self.promises.kept.get(&task).is_some_and(|kept| !kept.is_empty());
        let owner = Owner::Task(task);
        let fits_anew = self.saved.memory(owner).is_empty()
            && (!has_kept || self.saved.choice(task) == Some(Choice::Beginning));
        match (on, anew) {
            (false, false) => return Err("nobody asked for that".to_owned()),
            (_, true) if !on || fits_anew => {
                self.promises.begin_anew(task);
                self.promises.memories.remove(&owner);
            }
            _ => {}
        }
        Ok(())
    }

    fn restore_asked(
        &self,
        task: TaskId,
        checkpoint: CheckpointId,
        cause: &Cause,
    ) -> Result<RestoreRequest, String> {
        let mut asked = cause.request().into_iter().chain(self.promises.wishes.values());
        let choice = self.saved.choice(task);
        let found = asked.find_map(|request| match request {
            Request::Restore(restore) => {
                let is_it = restore.task == task && restore.checkpoint == checkpoint;
                let is_anew = restore.continue_from == ContinueFrom::Beginning;
                let fits = is_anew == (choice == Some(Choice::Beginning));
                (is_it && fits).then(|| (**restore).clone())
            }
            _ => None,
        });
        found.ok_or_else(|| format!("nobody asked for that; the choice is {choice:?}"))
    }

    fn upgrade_asked(
        &self,
        task: TaskId,
        version: u32,
        reason: &Arc<str>,
        cause: &Cause,
    ) -> Result<NewVersion, String> {
        let mut asked = cause.request().into_iter().chain(self.promises.wishes.values());
        let found = asked.find_map(|request| match request {
            Request::Upgrade(new) => {
                let is_it = new.task == task && new.from + 1 == version && new.reason == *reason;
                is_it.then(|| (**new).clone())
            }
            _ => None,
        });
        found.ok_or_else(|| "nobody asked for that".to_owned())
    }

    fn is_upgraded(&mut self, new: &NewVersion, batch: &Written) -> Result<(), String> {
        let task = new.task;
        let rows = self.saved.versions.get(&task).map_or(&[][..], Vec::as_slice);
        let row = self.rows.get(&task);
        let is_it = rows.last().is_some_and(|last| {
            (last.version, &last.title, last.spec) == (new.from + 1, &new.title, new.spec.hash)
                && (&last.reason, &last.author) == (&new.reason, &new.author)
        });
        let is_written = row.is_some_and(|row| row.spec == new.spec.hash);
        if !is_it || !is_written {
            return Err(format!("versions {rows:?}; the row {row:?}"));
        }
        let before = batch.specs_before.get(&task);
        if before != Some(&new.base) {
            return Err(format!("it was made from {:?}, and it was {before:?}", new.base));
        }
        if new.from == 1 {
            let first = rows.first();
            if first.is_none_or(|first| Some(&first.spec) != before || first.title != new.first) {
                return Err(format!("it was {before:?}; kept as {first:?}"));
            }
        }
        if new.continue_from == ContinueFrom::Beginning {
            self.promises.begin_anew(task);
            self.promises.memories.remove(&Owner::Task(task));
        }
        Ok(())
    }

    /// The rows of a task or run against what follows from what was asked.
    fn check_saved(&self, owner: Owner) -> Result<(), String> {
        let memory = self.promises.memories.get(&owner).cloned().unwrap_or_default();
        if self.saved.memory(owner) != memory {
            return Err(format!("{owner:?} remembers {:?}, asked was {memory:?}", self.saved.memory(owner)));
        }
        let Owner::Task(task) = owner else { return Ok(()) };
        self.check_version(task)?;
        let kept = self.promises.kept.get(&task).map_or(&[][..], Vec::as_slice);
        if self.saved.kept(task) != kept {
            return Err(format!("of task {task} are kept {:?}, not {kept:?}", self.saved.kept(task)));
        }
        let choice = self.promises.choices.get(&task).copied();
        if self.saved.choice(task) != choice {
            let written = self.saved.choice(task);
            return Err(format!("the next attempt of task {task} begins at {written:?}, not {choice:?}"));
        }
        Ok(())
    }

    /// What a worker is told to drop is no longer in its hands.
    pub(super) fn check_dropped(&self, keys: &[AttemptKey]) -> Result<(), String> {
        let is_held = |key: &&AttemptKey| {
            let row = self.rows.get(&key.task).filter(|row| is_held(row));
            row.is_some_and(|row| (row.state.attempt, row.state.fence) == (key.attempt, key.fence))
        };
        match keys.iter().find(is_held) {
            Some(key) => Err(format!("{key:?} is dropped and is the current attempt")),
            None => Ok(()),
        }
    }

    /// All rows, at the end.
    pub(super) fn check_all_saved(&self) -> Result<(), String> {
        let tasks = self.rows.keys().map(|task| Owner::Task(*task));
        tasks.chain(self.saved.owners()).try_for_each(|owner| self.check_saved(owner))?;
        let is_lost =
            |id: &&CheckpointId| !self.saved.checkpoints.contains_key(id) && !self.saved.removed.contains(id);
        match self.promises.acknowledged.iter().find(is_lost) {
            Some(id) => Err(format!("checkpoint {id} was acknowledged and is lost")),
            None => Ok(()),
        }
    }

    /// A new master knows what the rows say.
    pub(super) fn is_recovered(&mut self) {
        self.promises.in_use.clear();
        let held: Vec<(TaskId, SpecHash)> =
            self.live().filter(|(_, row)| is_held(row)).map(|(task, row)| (task, row.spec)).collect();
        for (task, spec) in held {
            let usual = self.rows.get(&task).and_then(|row| self.spec_of(row));
            let usual = usual.map(|spec| spec.spec.continue_from).unwrap_or_default();
            self.promises.in_hand.insert(task, spec);
            let checkpoint = self.promises.where_to(task, usual);
            self.promises.use_checkpoint(task, checkpoint);
        }
    }
}

/// What is needed of a batch once its rows are written.
#[derive(Debug, Default)]
pub(super) struct Written {
    pub(super) events: Vec<Event>,
    pub(super) owners: BTreeSet<Owner>,
    /// The specifications that its upgraded tasks had.
    specs_before: BTreeMap<TaskId, SpecHash>,
}

impl Written {
    pub(super) fn of(batch: &mut Batch, store: &Store) -> Self {
        let tasks = batch.saved.checkpoints.iter().map(|row| row.task);
        let tasks = tasks.chain(batch.saved.choices.iter().map(|row| row.task)).map(Owner::Task);
        let owners = tasks.chain(batch.saved.memory.iter().map(|row| row.owner)).collect();
        let of_row = |task: TaskId| Some((task, store.rows.get(&task)?.spec));
        let specs_before = batch.saved.versions.iter().filter_map(|row| of_row(row.task)).collect();
        Self { events: std::mem::take(&mut batch.events), owners, specs_before }
    }

    /// Whether a task's end is taken back.
    pub(super) fn reopens(&self, task: TaskId) -> bool {
        let is_it = |event: &&Event| event.subject == Subject::Task(task);
        let mut events = self.events.iter().filter(is_it);
        events.any(|event| matches!(event.happening, Happening::TaskReopened { .. }))
    }
}

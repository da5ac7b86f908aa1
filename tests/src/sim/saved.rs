//! What outlives attempts, as the database keeps it: checkpoints, choices, memories, versions.
//!
//! Invariants, checked with every row: checkpoints are numbered without a gap, as counted; what goes
//! was there; a choice names a checkpoint that is kept of its task; a memory forgets only what it
//! holds; versions are numbered from 1 and name specifications that are there; nothing is written for
//! what has ended, except by a step that opens it again. What the rows must say is worked out in
//! `promises.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use agentflow_core::batch::{CheckpointRow, ChoiceRow, MemoryRow, SavedTask, SavedWrites, VersionRow};
use agentflow_core::checkpoint::{Choice, Content, KeptCheckpoint};
use agentflow_core::ids::{CheckpointId, RunId, TaskId};
use agentflow_core::memory::{Entry, Memory, Owner};

use super::store::Store;

/// A memory, by names.
pub(super) type Entries = BTreeMap<Arc<str>, Entry>;

/// The rows.
#[derive(Debug, Default)]
pub(super) struct SavedRows {
    pub(super) checkpoints: BTreeMap<CheckpointId, CheckpointRow>,
    pub(super) versions: BTreeMap<TaskId, Vec<VersionRow>>,
    pub(super) titles: BTreeMap<TaskId, Box<str>>,
    pub(super) last: CheckpointId,
    /// Checkpoints that went because there were newer ones.
    pub(super) removed: BTreeSet<CheckpointId>,
    /// Whether the newest checkpoint is not read back, as in a database that sorts wrongly.
    pub(super) reads_old: bool,
    kept: BTreeMap<TaskId, Vec<CheckpointId>>,
    choices: BTreeMap<TaskId, Choice>,
    memories: BTreeMap<Owner, Entries>,
}

impl SavedRows {
    /// The checkpoints of a task, the oldest first.
    pub(super) fn kept(&self, task: TaskId) -> &[CheckpointId] {
        self.kept.get(&task).map_or(&[], Vec::as_slice)
    }

    /// Tasks that have checkpoints.
    pub(super) fn tasks(&self) -> Vec<TaskId> {
        self.kept.iter().filter(|(_, kept)| !kept.is_empty()).map(|(task, _)| *task).collect()
    }

    pub(super) fn choice(&self, task: TaskId) -> Option<Choice> {
        self.choices.get(&task).copied()
    }

    pub(super) fn memory(&self, owner: Owner) -> Entries {
        self.memories.get(&owner).cloned().unwrap_or_default()
    }

    /// Everybody who remembers something.
    pub(super) fn owners(&self) -> impl Iterator<Item = Owner> {
        self.memories.keys().copied()
    }

    /// The step that a checkpoint holds; none if it is not there.
    pub(super) fn step_of(&self, checkpoint: CheckpointId) -> Option<u64> {
        step_in(&self.checkpoints.get(&checkpoint)?.content)
    }

    /// The version that a task has.
    pub(super) fn version(&self, task: TaskId) -> u32 {
        self.versions.get(&task).and_then(|rows| rows.last()).map_or(1, |row| row.version)
    }

    /// What is read back of a task.
    pub(super) fn of_task(&self, task: TaskId) -> SavedTask {
        let row = |id: &CheckpointId| self.checkpoints.get(id);
        let kept = self.kept(task);
        let kept = if self.reads_old { &kept[..kept.len().saturating_sub(1)] } else { kept };
        let kept = kept.iter().filter_map(row);
        let kept = kept.map(|row| KeptCheckpoint { id: row.id, fence: row.fence, number: row.number });
        SavedTask {
            kept: kept.collect(),
            choice: self.choice(task),
            memory: memory_of(&self.memory(Owner::Task(task))),
        }
    }

    /// What is read back of a run.
    pub(super) fn of_run(&self, run: RunId) -> Memory {
        memory_of(&self.memory(Owner::Run(run)))
    }

    /// Loses the newest checkpoint, as no database may.
    pub(super) fn lose(&mut self) {
        let Some((id, row)) = self.checkpoints.pop_last() else { return };
        if let Some(kept) = self.kept.get_mut(&row.task) {
            kept.retain(|other| *other != id);
        }
    }

    fn write_checkpoint(&mut self, row: CheckpointRow) -> Result<(), String> {
        let (id, task) = (row.id, row.task);
        if id != self.last.next() {
            return Err(format!("checkpoint {id} follows {}", self.last));
        }
        // Whatever saves here saves a number.
        if step_in(&row.content).is_none() {
            return Err(format!("{row:?} holds no step"));
        }
        self.last = id;
        self.checkpoints.insert(id, row);
        self.kept.entry(task).or_default().push(id);
        Ok(())
    }

    fn remove_checkpoint(&mut self, id: CheckpointId) -> Result<(), String> {
        let Some(row) = self.checkpoints.remove(&id) else {
            return Err(format!("checkpoint {id} goes, and was not there"));
        };
        if let Some(kept) = self.kept.get_mut(&row.task) {
            kept.retain(|other| *other != id);
        }
        self.removed.insert(id);
        Ok(())
    }

    fn write_choice(&mut self, ChoiceRow { task, choice }: ChoiceRow) -> Result<(), String> {
        match choice {
            Some(Choice::At(id)) if !self.kept(task).contains(&id) => {
                return Err(format!("task {task} is to go on at checkpoint {id}, which is not kept"));
            }
            Some(choice) => drop(self.choices.insert(task, choice)),
            None => drop(self.choices.remove(&task)),
        }
        Ok(())
    }

    fn write_memory(&mut self, MemoryRow { owner, name, entry }: MemoryRow) -> Result<(), String> {
        let memory = self.memories.entry(owner).or_default();
        match entry {
            Some(entry) => drop(memory.insert(name, entry)),
            None if memory.remove(&name).is_none() => {
                return Err(format!("{owner:?} forgets '{name}', which was not there"));
            }
            None => {}
        }
        Ok(())
    }

    fn write_version(&mut self, row: VersionRow) -> Result<(), String> {
        let rows = self.versions.entry(row.task).or_default();
        if rows.len() + 1 != row.version as usize {
            return Err(format!("{row:?} follows {} versions", rows.len()));
        }
        rows.push(row);
        Ok(())
    }
}

/// The bytes of a checkpoint that holds a step.
pub(super) fn content_of(step: u64) -> Content {
    Content::Data(step.to_string().into_bytes().into())
}

fn step_in(content: &Content) -> Option<u64> {
    let Content::Data(data) = content else { return None };
    std::str::from_utf8(data).ok()?.parse().ok()
}

/// Entries as the kernel takes them.
pub(super) fn memory_of(entries: &Entries) -> Memory {
    let mut memory = Memory::default();
    for (name, entry) in entries {
        // Few and small ones: there is room.
        let _fits = memory.set(Arc::clone(name), entry.clone());
    }
    memory
}

impl Store {
    /// Writes rows; `is_live` says of whom there may be any.
    pub(super) fn write_saved(
        &mut self,
        saved: SavedWrites,
        is_live: impl Fn(Owner) -> bool,
    ) -> Result<(), String> {
        let tasks = saved.checkpoints.iter().map(|row| row.task);
        let tasks = tasks.chain(saved.choices.iter().map(|row| row.task));
        let tasks = tasks.chain(saved.versions.iter().map(|row| row.task)).map(Owner::Task);
        let mut owners = tasks.chain(saved.memory.iter().map(|row| row.owner));
        if let Some(owner) = owners.find(|owner| !is_live(*owner)) {
            return Err(format!("{owner:?} has ended, and then {saved:?}"));
        }
        for row in saved.checkpoints {
            self.saved.write_checkpoint(row)?;
        }
        for id in saved.removed {
            self.saved.remove_checkpoint(id)?;
        }
        for row in saved.choices {
            self.saved.write_choice(row)?;
        }
        for row in saved.memory {
            self.saved.write_memory(row)?;
        }
        for row in saved.versions {
            if self.prepared(&row.spec).is_none() {
                return Err(format!("{row:?} names a specification that is not there"));
            }
            self.saved.write_version(row)?;
        }
        Ok(())
    }

    /// A task's version and specification against the rows of its versions.
    pub(super) fn check_version(&self, id: TaskId) -> Result<(), String> {
        let Some(row) = self.rows.get(&id) else { return Ok(()) };
        let last = self.saved.versions.get(&id).and_then(|rows| rows.last());
        let version = last.map_or(1, |last| last.version);
        if row.state.version != version || last.is_some_and(|last| last.version < 2) {
            return Err(format!(
                "task {id} has version {}, its versions end with {last:?}",
                row.state.version
            ));
        }
        let title = self.saved.titles.get(&id);
        match last {
            Some(last) if title != Some(&last.title) => {
                Err(format!("task {id} is called {title:?}, its version {last:?}"))
            }
            _ => Ok(()),
        }
    }
}

//! What a database would hold after every batch so far, and a new master that starts from it.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::batch::{
    CheckpointRow, ChoiceRow, LiveRelation, MemoryRow, NodeRename, OutcomeChange, OutdatedRow, RoundRow,
    RunRow, RunVersionRow, SavedWrites, SettledNode, TaskRow, VersionRow,
};
use crate::checkpoint::{Choice, KeptCheckpoint};
use crate::ids::{CheckpointId, RunId, SpecHash};
use crate::memory::{Memory, Owner};

#[derive(Default)]
pub(super) struct Rows {
    pub(super) tasks: BTreeMap<TaskId, (TaskRow, Outcome)>,
    runs: BTreeMap<RunId, RunRow>,
    definitions: BTreeMap<SpecHash, Arc<str>>,
    relations: Vec<crate::batch::RelationRow>,
    rounds: BTreeMap<TaskId, Option<u32>>,
    pub(super) outdated: BTreeSet<TaskId>,
    pub(super) run_versions: Vec<RunVersionRow>,
    pub(super) checkpoints: BTreeMap<CheckpointId, CheckpointRow>,
    pub(super) choices: BTreeMap<TaskId, Choice>,
    memory: BTreeMap<Owner, Memory>,
    pub(super) versions: Vec<VersionRow>,
    pub(super) titles: BTreeMap<TaskId, Box<str>>,
}

impl Rows {
    pub(super) fn of(batches: &[Batch]) -> Self {
        let mut rows = Self::default();
        for batch in batches {
            rows.definitions.extend(batch.definitions.iter().map(|row| (row.hash, Arc::clone(&row.body))));
            rows.relations.retain(|row| !batch.parted.contains(&row.key()));
            rows.relations.extend(&batch.relations);
            rows.rounds.extend(batch.rounds.iter().map(|row| (row.task, row.round)));
            rows.add_saved(&batch.saved);
            for write in &batch.runs {
                if let Some(birth) = &write.birth {
                    rows.runs.insert(write.id, RunRow::new(write.id, (**birth).clone(), write.state.clone()));
                }
                let row = rows.runs.get_mut(&write.id).expect("born first");
                row.take(write.state.clone(), write.change.as_deref().cloned());
            }
            for write in &batch.tasks {
                let (row, outcome) = rows.tasks.entry(write.id).or_insert_with(|| {
                    let birth = write.birth.as_ref().expect("born first");
                    let (spec, created_at, run) = (birth.spec, birth.created_at, birth.run.clone());
                    let state = write.state.clone();
                    (TaskRow { id: write.id, spec, created_at, run, state }, Outcome::default())
                });
                row.state = write.state.clone();
                if let Some(title) = &write.title {
                    rows.titles.insert(write.id, title.clone());
                }
                if let Some(change) = write.spec {
                    assert_eq!(row.spec, change.old, "task {}", write.id);
                    row.spec = change.new;
                }
                if let OutcomeChange::Set(set) = &write.outcome {
                    *outcome = (**set).clone();
                }
            }
            for NodeRename { task, node } in &batch.renames {
                let (row, _) = rows.tasks.get_mut(task).expect("it has a row");
                row.run.as_mut().expect("a node").node = Arc::clone(node);
            }
            for OutdatedRow { task, outdated } in &batch.outdated {
                if *outdated {
                    rows.outdated.insert(*task)
                } else {
                    rows.outdated.remove(task)
                };
            }
            rows.run_versions.extend(batch.run_versions.iter().cloned());
        }
        rows
    }

    fn add_saved(&mut self, saved: &SavedWrites) {
        self.checkpoints.extend(saved.checkpoints.iter().map(|row| (row.id, row.clone())));
        for id in &saved.removed {
            assert!(self.checkpoints.remove(id).is_some(), "checkpoint {id} was removed and not there");
        }
        for ChoiceRow { task, choice } in &saved.choices {
            match choice {
                Some(choice) => drop(self.choices.insert(*task, *choice)),
                None => drop(self.choices.remove(task)),
            }
        }
        for MemoryRow { owner, name, entry } in &saved.memory {
            let memory = self.memory.entry(*owner).or_default();
            match entry {
                Some(entry) => memory.set(Arc::clone(name), entry.clone()).expect("room"),
                None => assert!(memory.remove(name), "{name} was forgotten and not there"),
            }
        }
        self.versions.extend(saved.versions.iter().cloned());
    }

    pub(super) fn saved_task(&self, task: TaskId) -> SavedTask {
        let own = self.checkpoints.values().filter(|row| row.task == task);
        let kept = |row: &CheckpointRow| KeptCheckpoint { id: row.id, fence: row.fence, number: row.number };
        SavedTask {
            kept: own.map(kept).collect(),
            choice: self.choices.get(&task).copied(),
            memory: self.memory_of(Owner::Task(task)),
        }
    }

    pub(super) fn memory_of(&self, owner: Owner) -> Memory {
        self.memory.get(&owner).cloned().unwrap_or_default()
    }

    /// The answer to [`Effect::Load`].
    pub(super) fn loaded_task(&self, task: TaskId, batches: &[Batch]) -> LoadedTask {
        let row = self.tasks[&task].0.clone();
        let mut specs = batches.iter().flat_map(|batch| &batch.specs);
        let body = specs.find(|spec| spec.hash == row.spec).expect("its specification").body.clone();
        let spec = PreparedSpec::read(row.spec, body).expect("own text");
        let after = self.relations.iter().filter(|row| row.predecessor == task && row.relation.orders());
        let successors = after.copied().collect();
        LoadedTask { row, spec: Arc::new(spec), successors, saved: self.saved_task(task) }
    }

    /// Statuses of the tasks of a run by the names of their nodes.
    pub(super) fn nodes(&self) -> BTreeMap<String, Status> {
        let named =
            |(row, _): &(TaskRow, Outcome)| Some((row.run.as_ref()?.node.to_string(), row.state.status));
        self.tasks.values().filter_map(named).collect()
    }

    pub(super) fn run_status(&self, id: u64) -> Option<crate::run::RunStatus> {
        self.runs.get(&RunId(id)).map(|row| row.state.status)
    }

    fn saved_runs(&self) -> Vec<SavedRun> {
        let live = self.runs.values().filter(|row| !row.state.status.is_settled());
        live.map(|row| self.saved(row)).collect()
    }

    /// The answer to [`Effect::LoadRun`].
    pub(super) fn loaded(&self, run: RunId, batches: &[Batch]) -> LoadedRun {
        let saved = self.saved(&self.runs[&run]);
        let nodes = saved.settled.iter().filter(|node| !node.node.node.contains('['));
        let tasks = nodes.map(|node| self.loaded_task(node.task, batches)).collect();
        LoadedRun { tasks, saved, memory: self.memory_of(Owner::Run(run)) }
    }

    fn saved(&self, row: &RunRow) -> SavedRun {
        let body = &self.definitions[&row.birth.definition];
        let settled = self.tasks.values().filter_map(|(task, outcome)| {
            let node = task.run.clone().filter(|node| node.run == row.id)?;
            let status = task.state.status;
            let outcome = outcome.clone();
            status.is_settled().then_some(SettledNode { task: task.id, node, status, outcome })
        });
        SavedRun {
            row: row.clone(),
            definition: Arc::new(agentflow_workflow::Definition::from_json(body).expect("own text")),
            outdated: self
                .outdated
                .iter()
                .copied()
                .filter(|task| row.numbers.node_of(*task).is_some())
                .collect(),
            settled: settled.collect(),
            rounds: self
                .rounds
                .iter()
                .filter(|(task, _)| row.numbers.node_of(**task).is_some())
                .map(|(task, round)| RoundRow { task: *task, round: *round })
                .collect(),
        }
    }

    fn live_relations(&self) -> Vec<LiveRelation> {
        let is_blocked = |task: &TaskId| self.tasks[task].0.state.status == Status::Blocked;
        let live = self.relations.iter().filter(|row| is_blocked(&row.successor) && row.relation.orders());
        let live = live.map(|row| {
            let (task, outcome) = &self.tasks[&row.predecessor];
            let status = task.state.status;
            let ended = status.is_settled().then(|| (status, outcome.whole_outputs()));
            LiveRelation { row: *row, ended }
        });
        live.collect()
    }
}

impl Bench {
    /// A new master reads what this one wrote.
    pub(super) fn restart(&mut self) {
        let rows = Rows::of(&self.batches);
        let live = rows.tasks.values().filter(|(row, _)| !row.state.status.is_settled());
        let live = live.map(|(row, _)| row.clone()).collect();
        let specs = self.batches.iter().flat_map(|batch| batch.specs.clone()).collect();
        let workers = self.batches.iter().flat_map(|batch| batch.workers.clone()).collect();
        let is_live = |id: &TaskId| !rows.tasks[id].0.state.status.is_settled();
        let live_tasks = rows.tasks.keys().copied().filter(is_live);
        let saved = live_tasks.map(|id| (id, rows.saved_task(id))).filter(|(_, saved)| !saved.is_empty());
        let live_runs = rows.runs.values().filter(|row| !row.state.status.is_settled());
        let memories = live_runs.map(|row| (row.id, rows.memory_of(Owner::Run(row.id)))).collect();
        let plan = RecoveryPlan::new(live, specs, workers)
            .expect("own rows")
            .with_saved(saved.collect(), memories)
            .with_ties(rows.saved_runs(), rows.live_relations());
        let counters = self.batches.last().map(|batch| batch.counters).unwrap_or_default();
        let epoch = self.kernel.epoch().next();
        let (kernel, output) =
            Kernel::recover(Settings::default(), epoch, counters, plan, self.now(), maker());
        assert_eq!(output.batch, None, "a master that takes over changes nothing by itself");
        kernel.check().expect("invariants");
        self.kernel = kernel;
    }
}

//! What a database would hold after every batch so far, and a new master that starts from it.

use std::collections::BTreeMap;

use super::*;
use crate::batch::{LiveRelation, OutcomeChange, RoundRow, RunRow, SettledNode, TaskRow};
use crate::ids::{RunId, SpecHash};

#[derive(Default)]
pub(super) struct Rows {
    pub(super) tasks: BTreeMap<TaskId, (TaskRow, Outcome)>,
    runs: BTreeMap<RunId, RunRow>,
    definitions: BTreeMap<SpecHash, Arc<str>>,
    relations: Vec<crate::batch::RelationRow>,
    rounds: BTreeMap<TaskId, Option<u32>>,
}

impl Rows {
    pub(super) fn of(batches: &[Batch]) -> Self {
        let mut rows = Self::default();
        for batch in batches {
            rows.definitions.extend(batch.definitions.iter().map(|row| (row.hash, Arc::clone(&row.body))));
            rows.relations.retain(|row| !batch.parted.contains(&row.key()));
            rows.relations.extend(&batch.relations);
            rows.rounds.extend(batch.rounds.iter().map(|row| (row.task, row.round)));
            for write in &batch.runs {
                if let Some(birth) = &write.birth {
                    let row = RunRow { id: write.id, birth: (**birth).clone(), state: write.state.clone() };
                    rows.runs.insert(write.id, row);
                }
                let row = rows.runs.get_mut(&write.id).expect("born first");
                row.state = write.state.clone();
                if let Some(change) = &write.change {
                    row.birth.definition = change.definition;
                    row.birth.inputs = change.inputs.clone();
                }
            }
            for write in &batch.tasks {
                let (row, outcome) = rows.tasks.entry(write.id).or_insert_with(|| {
                    let birth = write.birth.as_ref().expect("born first");
                    let (spec, created_at, run) = (birth.spec, birth.created_at, birth.run.clone());
                    let state = write.state.clone();
                    (TaskRow { id: write.id, spec, created_at, run, state }, Outcome::default())
                });
                row.state = write.state.clone();
                if let Some(change) = write.spec {
                    assert_eq!(row.spec, change.old, "task {}", write.id);
                    row.spec = change.new;
                }
                if let OutcomeChange::Set(set) = &write.outcome {
                    *outcome = (**set).clone();
                }
            }
        }
        rows
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
        let specs: BTreeMap<SpecHash, Arc<str>> = batches
            .iter()
            .flat_map(|batch| &batch.specs)
            .map(|row| (row.hash, Arc::clone(&row.body)))
            .collect();
        let tasks = saved.settled.iter().filter(|node| !node.node.node.contains('[')).map(|node| {
            let row = self.tasks[&node.task].0.clone();
            let spec = PreparedSpec::read(row.spec, Arc::clone(&specs[&row.spec])).expect("own text");
            LoadedTask { row, spec: Arc::new(spec), successors: vec![] }
        });
        LoadedRun { tasks: tasks.collect(), saved }
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
            settled: settled.collect(),
            rounds: self
                .rounds
                .range(row.birth.first_task..TaskId(row.birth.first_task.0 + u64::from(row.birth.nodes)))
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
        let plan = RecoveryPlan::new(live, specs, workers)
            .expect("own rows")
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

//! What ties tasks together, as the database keeps it: runs, their workflows, and relations.
//!
//! Invariants, checked with every row: a run is born once and before it changes; its workflow is there
//! and has as many nodes as the row says; what relates two tasks names tasks that are there.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use agentflow_core::batch::{
    DefinitionRow, LiveRelation, OutdatedRow, RelationKey, RelationRow, RoundRow, RunRow, RunVersionRow,
    RunWrite, SettledNode,
};
use agentflow_core::ids::{RunId, SpecHash, TaskId};
use agentflow_core::kernel::SavedRun;
use agentflow_core::relation::Relation;
use agentflow_core::run::RunStatus;
use agentflow_core::status::Status;
use agentflow_workflow::Definition;

use super::store::Row;

/// The rows.
#[derive(Debug, Default)]
pub(super) struct Ties {
    pub(super) runs: BTreeMap<RunId, RunRow>,
    pub(super) relations: BTreeMap<(TaskId, TaskId, Relation), RelationRow>,
    definitions: BTreeMap<SpecHash, Arc<Definition>>,
    /// The tasks of each run.
    parts: BTreeMap<RunId, Vec<TaskId>>,
    /// How often loops have gone round.
    rounds: BTreeMap<TaskId, u32>,
    /// Tasks of which a worker has an attempt of an older version of their run.
    pub(super) outdated: BTreeSet<TaskId>,
    pub(super) versions: Vec<RunVersionRow>,
}

impl Ties {
    /// Keeps a workflow's text, once.
    pub(super) fn write_definition(&mut self, row: DefinitionRow) -> Result<(), String> {
        if let Entry::Vacant(place) = self.definitions.entry(row.hash) {
            let read = Definition::from_json(&row.body).map_err(|error| error.to_string())?;
            place.insert(Arc::new(read));
        }
        Ok(())
    }

    /// Writes a run. True when it is new.
    pub(super) fn write_run(&mut self, write: RunWrite) -> Result<bool, String> {
        let RunWrite { id, birth, change, state } = write;
        let is_upgrade = change.as_ref().is_some_and(|change| change.layout.is_some());
        if change.is_some() && !is_upgrade {
            return Err(format!("run {id} got other values; nobody asked for that"));
        }
        match (birth, self.runs.get_mut(&id)) {
            (Some(birth), None) => {
                let Some(definition) = self.definitions.get(&birth.definition) else {
                    return Err(format!("run {id} was written before its workflow"));
                };
                if definition.nodes.len() != birth.nodes as usize {
                    return Err(format!("run {id} has {} nodes: {birth:?}", definition.nodes.len()));
                }
                self.runs.insert(id, RunRow::new(id, *birth, state));
                Ok(true)
            }
            (None, Some(row)) => {
                if row.state.status.is_settled() && !is_upgrade {
                    return Err(format!("run {id} has ended, and then {state:?}"));
                }
                if state.version != row.state.version + u32::from(is_upgrade) {
                    return Err(format!("run {id} had version {}, and then {state:?}", row.state.version));
                }
                row.take(state, change.map(|change| *change));
                match self.definitions.get(&row.birth.definition) {
                    Some(definition) if definition.nodes.len() == row.numbers.len() as usize => Ok(false),
                    other => Err(format!("run {id}: {other:?} for {:?}", row.numbers)),
                }
            }
            (Some(_), Some(_)) => Err(format!("run {id} was born twice")),
            (None, None) => Err(format!("run {id} changes without having been born")),
        }
    }

    /// Keeps a relation. The same one again is kept as it was.
    pub(super) fn write_relation(
        &mut self,
        row: RelationRow,
        rows: &BTreeMap<TaskId, Row>,
    ) -> Result<(), String> {
        if !rows.contains_key(&row.predecessor) || !rows.contains_key(&row.successor) {
            return Err(format!("{row:?} relates tasks that are not there"));
        }
        self.relations.entry((row.predecessor, row.successor, row.relation)).or_insert(row);
        Ok(())
    }

    /// Keeps the round of a loop.
    pub(super) fn write_round(&mut self, RoundRow { task, round }: RoundRow) {
        match round {
            Some(round) => drop(self.rounds.insert(task, round)),
            None => drop(self.rounds.remove(&task)),
        }
    }

    /// Keeps whether the attempt of a task is of an older version of its run.
    pub(super) fn write_outdated(
        &mut self,
        OutdatedRow { task, outdated }: OutdatedRow,
    ) -> Result<(), String> {
        let is_news = if outdated { self.outdated.insert(task) } else { self.outdated.remove(&task) };
        // It may be outdated twice, by two versions.
        if is_news || outdated { Ok(()) } else { Err(format!("task {task} was not outdated")) }
    }

    /// Takes a relation away that another has taken the place of.
    pub(super) fn part(&mut self, key: &RelationKey) -> Result<(), String> {
        let gone = self.relations.remove(&(key.predecessor, key.successor, key.relation));
        gone.map(drop).ok_or_else(|| format!("{key:?} goes, and was not there"))
    }

    /// Whether another task has taken the place of that one.
    pub(super) fn is_superseded(&self, task: TaskId) -> bool {
        self.relations.keys().any(|(before, _, relation)| *before == task && *relation == Relation::Upgrade)
    }

    /// The relations of a task to live ones that come after it.
    pub(super) fn live_after(&self, task: TaskId, rows: &BTreeMap<TaskId, Row>) -> Vec<RelationRow> {
        let is_live =
            |row: &&RelationRow| rows.get(&row.successor).is_some_and(|row| !row.state.status.is_settled());
        let after = self.relations.values().filter(|row| row.predecessor == task && row.relation.orders());
        after.filter(is_live).copied().collect()
    }

    /// Notes that a task is a part of a run.
    pub(super) fn add_part(&mut self, run: RunId, task: TaskId) {
        self.parts.entry(run).or_default().push(task);
    }

    /// The tasks of a run, in the order in which they were made.
    pub(super) fn parts(&self, run: RunId) -> &[TaskId] {
        self.parts.get(&run).map_or(&[], Vec::as_slice)
    }

    /// Runs that have not ended.
    pub(super) fn live_runs(&self) -> impl Iterator<Item = &RunRow> {
        self.runs.values().filter(|row| !row.state.status.is_settled())
    }

    /// Runs of that status.
    pub(super) fn runs_that_are(&self, status: RunStatus) -> Vec<RunId> {
        self.live_runs().filter(|row| row.state.status == status).map(|row| row.id).collect()
    }

    /// The workflow of a run, by its row.
    pub(super) fn definition(&self, row: &RunRow) -> Option<&Arc<Definition>> {
        self.definitions.get(&row.birth.definition)
    }

    /// The run that is that node of another.
    pub(super) fn child_of(&self, task: TaskId) -> Option<&RunRow> {
        self.runs.values().rfind(|row| row.birth.parent == Some(task))
    }

    /// A run with its tasks that have ended.
    pub(super) fn saved_run(&self, row: &RunRow, rows: &BTreeMap<TaskId, Row>) -> Option<SavedRun> {
        let settled = self.parts(row.id).iter().filter_map(|task| {
            let settled = rows.get(task).filter(|row| row.state.status.is_settled())?;
            let (node, outcome) = (settled.run.clone()?, settled.outcome.clone());
            Some(SettledNode { task: *task, node, status: settled.state.status, outcome })
        });
        let is_own = |task: TaskId| row.numbers.node_of(task).is_some();
        let rounds = self.rounds.iter().filter(|(task, _)| is_own(**task));
        Some(SavedRun {
            row: row.clone(),
            definition: Arc::clone(self.definition(row)?),
            settled: settled.collect(),
            rounds: rounds.map(|(task, round)| RoundRow { task: *task, round: Some(*round) }).collect(),
            outdated: self.outdated.iter().copied().filter(|task| is_own(*task)).collect(),
        })
    }

    /// What a new master reads of live runs.
    pub(super) fn saved_runs(&self, rows: &BTreeMap<TaskId, Row>) -> Vec<SavedRun> {
        self.live_runs().filter_map(|row| self.saved_run(row, rows)).map(|run| read_back(run, &[])).collect()
    }

    /// What a new master reads of relations: those for which blocked tasks wait or waited, by
    /// successor.
    pub(super) fn live_relations(&self, rows: &BTreeMap<TaskId, Row>) -> Vec<LiveRelation> {
        let live = |row: &RelationRow| {
            rows.get(&row.successor).filter(|row| row.state.status == Status::Blocked)?;
            let before = rows.get(&row.predecessor)?;
            let status = before.state.status;
            let outputs = (row.relation == Relation::Context).then(|| before.outcome.whole_outputs());
            let ended = status.is_settled().then(|| (status, outputs.flatten()));
            Some(LiveRelation { row: *row, ended })
        };
        let mut found: Vec<LiveRelation> =
            self.relations.values().filter(|row| row.relation.orders()).filter_map(live).collect();
        found.sort_by_key(|live| (live.row.successor, live.row.predecessor, live.row.relation));
        found
    }
}

/// A run with those large values only that somebody may read.
pub(super) fn read_back(mut saved: SavedRun, also: &[Box<str>]) -> SavedRun {
    let mut texts = BTreeMap::new();
    for left in saved.settled.iter_mut().filter_map(|node| node.outcome.left.as_deref_mut()) {
        if let (Some(blob), Some(text)) = (left.outputs, left.outputs_text.take()) {
            texts.insert(blob.sha256, text);
        }
    }
    for left in saved.unread(also) {
        left.outputs_text = left.outputs.and_then(|blob| texts.get(&blob.sha256).cloned());
    }
    saved
}

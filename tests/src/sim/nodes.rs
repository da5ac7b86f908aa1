//! What runs must do while they go on, worked out from the workflows as clients sent them and from
//! the events alone.
//!
//! Invariants: no node is made before everything before it has ended, and none begins that a failure
//! keeps from running; a paused run starts nothing; after a failure with `fail_fast`, or an
//! acknowledged cancellation, nothing begins; no limit on what is at work is passed; a run is created,
//! started and ended, in this order and once; every task of a run that has ended has ended.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use agentflow_core::batch::RunRow;
use agentflow_core::event::Happening;
use agentflow_core::ids::{RunId, SpecHash, TaskId};
use agentflow_core::run::{Numbers, RunStatus};
use agentflow_core::status::Status;
use agentflow_workflow::Definition;

use super::oracle::{Verdict, extra};
use super::store::{Row, Store};
use super::upgraded::{Asked, Earlier};
use super::workflows::Sent;

/// A run as it ought to be, and as its events tell it.
#[derive(Clone, Debug)]
pub(super) struct View {
    pub(super) id: RunId,
    /// As the client sent it, or as the node of the parent says.
    pub(super) definition: Arc<Definition>,
    /// The tasks of its nodes.
    pub(super) numbers: Numbers,
    /// What holds of tasks that were there before its workflow was replaced.
    pub(super) earlier: Earlier,
    status: RunStatus,
    has_started: bool,
    /// Whether a node or an item has failed, by an earlier commit's word.
    pub(super) has_failed: bool,
}

impl View {
    /// The task that a node is.
    pub(super) fn task_of(&self, node: u32) -> TaskId {
        self.numbers.task_of(node)
    }

    /// The node that a task is; `None` for an item.
    pub(super) fn node_of(&self, task: TaskId) -> Option<u32> {
        self.numbers.node_of(task)
    }

    /// The same run with another workflow.
    pub(super) fn with(&self, definition: &Arc<Definition>, numbers: &Numbers) -> Self {
        Self { definition: Arc::clone(definition), numbers: numbers.clone(), ..self.clone() }
    }

    /// Every node.
    pub(super) fn nodes(&self) -> std::ops::Range<u32> {
        0..u32::try_from(self.definition.nodes.len()).unwrap_or(u32::MAX)
    }
}

/// All runs, and what clients want of them.
#[derive(Debug, Default)]
pub(super) struct Runs {
    /// What was sent, by the name that it has.
    pub(super) sent: BTreeMap<Box<str>, Arc<Definition>>,
    /// Runs that somebody asked to cancel.
    pub(super) cancels: BTreeSet<RunId>,
    /// Those of which that was acknowledged.
    pub(super) cancelled: BTreeSet<RunId>,
    pub(super) views: BTreeMap<RunId, View>,
    /// The other workflow that somebody wants for a run.
    pub(super) upgrades: BTreeMap<(RunId, SpecHash), Asked>,
    /// What each run was made from last, by its name.
    pub(super) files: BTreeMap<Box<str>, Sent>,
    /// Runs that were upgraded after somebody had asked to cancel them.
    pub(super) revived: BTreeSet<RunId>,
    /// Tasks that may only be cancelled, and why.
    suspects: BTreeMap<TaskId, String>,
}

impl Store {
    /// Takes a new run in.
    pub(super) fn run_is_born(&mut self, id: RunId) -> Result<(), String> {
        let Some(row) = self.ties.runs.get(&id) else { return Err(format!("run {id} has no row")) };
        let definition = match row.birth.parent {
            None => self.runs.sent.get(&row.birth.name).cloned(),
            Some(parent) => Some(Arc::new(self.child_definition(parent)?)),
        };
        let Some(definition) = definition else { return Err(format!("nobody asked for run {id}")) };
        if row.birth.parent.is_some() && self.ties.definition(row) != Some(&definition) {
            return Err(format!("run {id} is not what its parent's node says: {definition:?}"));
        }
        let (numbers, earlier, status) = (row.numbers.clone(), Earlier::default(), RunStatus::Pending);
        let view = View { id, definition, numbers, earlier, status, has_started: false, has_failed: false };
        self.runs.views.insert(id, view);
        Ok(())
    }

    /// An event of a run: each has its turn.
    pub(super) fn check_run_event(&mut self, id: RunId, happening: &Happening) -> Result<(), String> {
        let Some(view) = self.runs.views.get_mut(&id) else {
            return Err(format!("run {id} was never created: {happening:?}"));
        };
        let (before, is_over) = (view.status, view.status.is_settled());
        let fits = match happening {
            Happening::RunCreated { .. } => before == RunStatus::Pending && !view.has_started,
            Happening::RunStarted {} => {
                view.status = RunStatus::Running;
                !is_over && !std::mem::replace(&mut view.has_started, true)
            }
            Happening::RunPaused {} => {
                view.status = RunStatus::Paused;
                !is_over && before != RunStatus::Paused
            }
            Happening::RunResumed {} => {
                view.status = RunStatus::Running;
                before == RunStatus::Paused
            }
            Happening::RunUpgraded { version, .. } => {
                if is_over {
                    view.status = RunStatus::Running;
                }
                view.earlier.is_version(*version)
            }
            Happening::RunCompleted {} => {
                view.status = RunStatus::Completed;
                !is_over && (view.has_started || view.definition.nodes.is_empty())
            }
            Happening::RunFailed { .. } => {
                view.status = RunStatus::Failed;
                !is_over && view.has_started
            }
            Happening::RunCancelled {} => {
                view.status = RunStatus::Cancelled;
                !is_over
            }
            _ => false,
        };
        if fits { Ok(()) } else { Err(format!("run {id}: {happening:?} does not follow from {before}")) }
    }

    /// An event of a task of a run.
    pub(super) fn check_part(&mut self, id: TaskId, happening: &Happening) -> Result<(), String> {
        let Some(row) = self.rows.get(&id) else { return Err(format!("task {id} has no row")) };
        let Some(place) = &row.run else { return Ok(()) };
        let Some(view) = self.runs.views.get(&place.run) else {
            return Err(format!("task {id} is a part of run {}, which is not there", place.run));
        };
        let what = format!("task {id}, {} of run {}", place.node, view.id);
        if view.earlier.removed.contains(&id) {
            let begins = matches!(happening, Happening::TaskAssigned { .. } | Happening::TaskReopened { .. });
            return if begins { Err(format!("{what}, begins, and is gone")) } else { Ok(()) };
        }
        if view.status.is_settled() {
            return Err(format!("{what}: {happening:?} after the run's end"));
        }
        match happening {
            Happening::TaskCreated { .. } => {
                if let Some(node) = view.node_of(id)
                    && *view.definition.nodes[node as usize].name != *place.node
                {
                    return Err(format!("{what} has the number of another node"));
                }
                if let Some(why) = self.why_not(view, id, row) {
                    self.runs.suspects.insert(id, format!("{what}, began {why}"));
                }
                return Ok(());
            }
            Happening::TaskCancelled { .. } => drop(self.runs.suspects.remove(&id)),
            Happening::TaskRepeating { .. } => {
                let rounds = self.history.get(id).map_or(0, |fold| fold.rounds);
                let repeat = view.node_of(id).and_then(|node| extra(view, node)?.repeat.as_ref());
                if repeat.is_none_or(|repeat| rounds >= repeat.max) {
                    return Err(format!("{what}, goes round once more after {rounds} times"));
                }
            }
            Happening::TaskReopened { .. } if !view.earlier.runs_again(id) => {
                return Err(format!("{what}, was opened again"));
            }
            Happening::TaskReopened { .. } => return Ok(()),
            Happening::TaskAssigned { .. } if view.status == RunStatus::Paused => {
                return Err(format!("{what}, was assigned while the run is paused"));
            }
            Happening::TaskAssigned { .. } | Happening::TaskCompleted { .. } => {
                if let Some(node) = view.node_of(id)
                    && !self.is_of_older_version(view, id)
                {
                    if self.verdict(view, node) != Verdict::Begin {
                        return Err(format!("{what}, began, and was to be skipped"));
                    }
                    if let Some(before) = self.open_before(view, node) {
                        return Err(format!("{what}, began before '{before}' had ended"));
                    }
                }
            }
            _ => {}
        }
        match self.runs.suspects.remove(&id) {
            Some(suspect) => Err(suspect),
            None => Ok(()),
        }
    }

    /// Why a task of a run may not begin now.
    fn why_not(&self, view: &View, id: TaskId, row: &Row) -> Option<String> {
        if view.status == RunStatus::Paused {
            return Some("while it is paused".to_owned());
        }
        if view.has_failed && view.definition.fail_fast {
            return Some("after a failure that was to end it".to_owned());
        }
        if self.runs.cancelled.contains(&view.id) {
            return Some("after it was cancelled".to_owned());
        }
        if let Some(node) = view.node_of(id) {
            return self.open_before(view, node).map(|name| format!("before '{name}' had ended"));
        }
        let (name, _) = row.run.as_ref()?.node.rsplit_once('[')?;
        let node = view.definition.find(name)?;
        let is_open = self.history.get(view.task_of(node)).is_some_and(|fold| fold.is_open());
        (!is_open).then(|| format!("without '{name}'"))
    }

    /// Something before a node that has not ended.
    fn open_before<'a>(&self, view: &'a View, node: u32) -> Option<&'a str> {
        let before = &view.definition.nodes[node as usize].after;
        let open = before.iter().find(|edge| self.end_of(view, edge.node).is_none())?;
        Some(&view.definition.nodes[open.node as usize].name)
    }

    /// How a node has ended, by the events.
    pub(super) fn end_of(&self, view: &View, node: u32) -> Option<Status> {
        let fold = self.history.get(view.task_of(node))?;
        fold.status.is_settled().then_some(fold.status)
    }

    /// After a commit: the runs that it touched.
    pub(super) fn check_runs(
        &mut self,
        runs: &BTreeSet<RunId>,
        written: &BTreeSet<TaskId>,
    ) -> Result<(), String> {
        let of_task = |id: &TaskId| Some(self.rows.get(id)?.run.as_ref()?.run);
        let touched: BTreeSet<RunId> =
            written.iter().filter_map(of_task).chain(runs.iter().copied()).collect();
        for id in touched {
            let Some(view) = self.runs.views.get(&id) else { return Err(format!("run {id} is not there")) };
            let Some(row) = self.ties.runs.get(&id) else { return Err(format!("run {id} has no row")) };
            self.check_run_row(view, row)?;
            self.check_limits(view)?;
            if row.state.status.is_settled() && runs.contains(&id) {
                self.check_outcome(view, row)?;
            }
            let has_failed =
                written.iter().filter(|task| !view.earlier.removed.contains(*task)).any(|task| {
                    let part = self.rows.get(task).filter(|row| row.state.status == Status::Failed);
                    part.and_then(|row| row.run.as_ref()).is_some_and(|place| place.run == id)
                });
            if let Some(view) = self.runs.views.get_mut(&id) {
                view.has_failed |= has_failed;
            }
        }
        match self.runs.suspects.first_key_value() {
            Some((_, suspect)) => Err(suspect.clone()),
            None => Ok(()),
        }
    }

    fn check_run_row(&self, view: &View, row: &RunRow) -> Result<(), String> {
        let status = row.state.status;
        let has_error = row.state.error.is_some() || status != RunStatus::Failed;
        let has_end = row.state.settled_at.is_some() == status.is_settled();
        if status == view.status && has_end && has_error {
            return Ok(());
        }
        Err(format!("run {}: events say {}, the row says {:?}", view.id, view.status, row.state))
    }

    /// How many are at work.
    fn check_limits(&self, view: &View) -> Result<(), String> {
        let mut active = 0u32;
        let mut items: BTreeMap<&str, u32> = BTreeMap::new();
        for id in self.ties.parts(view.id).iter().filter(|id| !view.earlier.removed.contains(*id)) {
            let Some(row) = self.rows.get(id) else { continue };
            let state = &row.state;
            if state.status.is_settled() || state.status == Status::Blocked || state.waits.is_some() {
                continue;
            }
            active += 1;
            let item = row.run.as_ref().filter(|_| view.node_of(*id).is_none());
            if let Some((name, _)) = item.and_then(|place| place.node.rsplit_once('[')) {
                *items.entry(name).or_default() += 1;
            }
        }
        if view.definition.max_parallel.is_some_and(|limit| active > limit) {
            return Err(format!("{active} tasks of run {} are at work: {:?}", view.id, view.definition));
        }
        for (name, active) in items {
            let node = view.definition.find(name).and_then(|node| view.definition.nodes.get(node as usize));
            let limit = node.and_then(|node| node.extra.as_ref()?.max_parallel);
            if limit.is_some_and(|limit| active > limit) {
                return Err(format!("{active} items of '{name}' of run {} are at work", view.id));
            }
        }
        Ok(())
    }
}

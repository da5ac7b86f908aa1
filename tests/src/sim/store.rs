//! The database in memory: what is durable, and what is on its way there.
//!
//! Batches are taken in the order of their decisions. While one transaction runs, what arrives is
//! gathered for the next. A crash loses what is gathered; the running transaction is lost or not.
//!
//! Invariants, checked with every commit: decisions come without a gap; a birth is of a new task
//! and a change of a known one; a changed specification is named with the one that it replaces; the
//! counters of a batch are those of the rows after it; an attempt's row changes only from `lost` to
//! what really became of it. What holds of runs and relations is checked in `ties.rs`, `order.rs`
//! and `oracle.rs`, what holds of checkpoints, memories and versions in `saved.rs` and `promises.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use agentflow_core::batch::{
    AttemptEnd, AttemptRow, Batch, Counters, KeyHash, KeyRow, NodeRename, Outcome, OutcomeChange, RunNode,
    SpecRow, TaskBirth, TaskRow, TaskState, TaskWrite, Waits, WorkerRow,
};
use agentflow_core::blob::BlobHash;
use agentflow_core::event::{Event, Happening, Subject};
use agentflow_core::ids::{Attempt, BootId, DecisionNumber, Seq, SpecHash, TaskId};
use agentflow_core::kernel::{LoadedTask, PreparedSpec, RecoveryError, RecoveryPlan};
use agentflow_core::memory::Owner;
use agentflow_core::status::Status;
use agentflow_core::time::Wall;

use super::asked::Cause;
use super::fold::History;
use super::locks::LockRows;
use super::nodes::Runs;
use super::order::Order;
use super::promises::{Promises, Written};
use super::saved::SavedRows;
use super::ties::Ties;

/// A task's whole row.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) spec: SpecHash,
    pub(super) title: Box<str>,
    pub(super) created_at: Wall,
    pub(super) run: Option<RunNode>,
    pub(super) state: TaskState,
    pub(super) outcome: Outcome,
}

/// How each new task of a batch stood when it was made.
type Births = BTreeMap<TaskId, (Status, Option<Waits>)>;

/// The database and the way into it.
#[derive(Debug, Default)]
pub(super) struct Store {
    pub(super) rows: BTreeMap<TaskId, Row>,
    pub(super) keys: BTreeMap<KeyHash, KeyRow>,
    pub(super) workers: BTreeMap<Arc<str>, WorkerRow>,
    pub(super) attempts: BTreeMap<(TaskId, Attempt), AttemptRow>,
    /// What the events say; must agree with the rows.
    pub(super) history: History,
    pub(super) ties: Ties,
    /// In which order related tasks must go.
    pub(super) order: Order,
    /// What runs must do.
    pub(super) runs: Runs,
    pub(super) saved: SavedRows,
    pub(super) locks: LockRows,
    /// Where attempts begin, and what they run.
    pub(super) promises: Promises,
    /// Every text that was kept by its hash.
    pub(super) blobs: BTreeMap<BlobHash, Arc<str>>,
    specs: BTreeMap<SpecHash, Arc<PreparedSpec>>,
    counters: Counters,
    head: Seq,
    by_status: BTreeMap<Status, u64>,
    durable: DecisionNumber,
    /// Lives of workers that are to get no new work, as was acknowledged.
    drained: BTreeMap<Arc<str>, BootId>,
    gathered: Vec<(Batch, Cause)>,
    running: Vec<(Batch, Cause)>,
}

impl Store {
    /// Takes a batch with what led to it. True when a transaction is to be started.
    pub(super) fn gather(&mut self, batch: Batch, cause: Cause) -> bool {
        self.gathered.push((batch, cause));
        self.running.is_empty()
    }

    /// The latest decision that is durable.
    pub(super) fn durable(&self) -> DecisionNumber {
        self.durable
    }

    /// The latest decision there is.
    pub(super) fn decided(&self) -> DecisionNumber {
        let latest = self.gathered.last().or(self.running.last());
        latest.map_or(self.durable, |(batch, _)| batch.decision)
    }

    /// Starts a transaction with what is gathered. False when there is nothing.
    pub(super) fn begin(&mut self) -> bool {
        if self.running.is_empty() {
            self.running = std::mem::take(&mut self.gathered);
        }
        !self.running.is_empty()
    }

    /// Whether everything that was decided is durable.
    pub(super) fn is_idle(&self) -> bool {
        self.gathered.is_empty() && self.running.is_empty()
    }

    /// How many batches the running transaction has.
    pub(super) fn running(&self) -> usize {
        self.running.len()
    }

    /// Ends the running transaction well; says up to where everything is durable. `forget` leaves
    /// one of its batches out, which no store may do.
    pub(super) fn commit(&mut self, forget: Option<usize>) -> Result<DecisionNumber, String> {
        for (position, (batch, cause)) in std::mem::take(&mut self.running).into_iter().enumerate() {
            if batch.decision != self.durable.next() {
                return Err(format!("{:?} was to follow {:?}", batch.decision, self.durable));
            }
            self.durable = batch.decision;
            if forget != Some(position) {
                self.write(batch, &cause)?;
            }
            self.answer_idle();
        }
        Ok(self.durable)
    }

    /// The master is gone; a new one will number its decisions from 1.
    pub(super) fn crash(&mut self, running_succeeds: bool) -> Result<(), String> {
        if running_succeeds {
            self.commit(None)?;
        }
        self.running.clear();
        self.gathered.clear();
        self.durable = DecisionNumber(0);
        self.promises.crash();
        Ok(())
    }

    fn write(&mut self, mut batch: Batch, cause: &Cause) -> Result<(), String> {
        let whole = Written::of(&mut batch, self);
        self.locks.write(&batch)?;
        for write in &batch.runs {
            if let Some(change) = &write.change
                && let Some(layout) = &change.layout
            {
                self.upgrade_view(write.id, write.state.version, change, layout)?;
            }
        }
        let ended: BTreeSet<Owner> =
            whole.owners.iter().copied().filter(|owner| !self.is_live(*owner)).collect();
        let made = batch.blobs.iter().map(|blob| (blob.sha256, Arc::clone(&blob.text)));
        self.blobs.extend(made);
        for SpecRow { hash, body, .. } in batch.specs {
            let prepared = PreparedSpec::read(hash, body).map_err(|error| error.to_string())?;
            self.specs.entry(hash).or_insert_with(|| Arc::new(prepared));
        }
        for row in batch.definitions {
            self.ties.write_definition(row)?;
        }
        let written: BTreeSet<TaskId> = batch.tasks.iter().map(|write| write.id).collect();
        let mut births = Births::new();
        for write in batch.tasks {
            self.write_task(write, &mut births)?;
        }
        for row in batch.attempts {
            self.write_attempt(row)?;
        }
        for row in batch.workers {
            self.workers.insert(Arc::clone(&row.name), row);
        }
        for row in batch.keys {
            if let Some(old) = self.keys.insert(row.key, row.clone()) {
                return Err(format!("idempotency key {:?} made {} and {}", row.key, old.first, row.first));
            }
        }
        for row in batch.rounds {
            self.ties.write_round(row);
        }
        for row in batch.outdated {
            self.ties.write_outdated(row)?;
        }
        self.ties.versions.extend(batch.run_versions);
        for NodeRename { task, node } in batch.renames {
            match self.rows.get_mut(&task).and_then(|row| row.run.as_mut()) {
                Some(place) => place.node = node,
                None => return Err(format!("task {task} is called {node}, and is not there")),
            }
        }
        let mut runs = BTreeSet::new();
        for write in batch.runs {
            let run = write.id;
            runs.insert(run);
            if self.ties.write_run(write)? {
                self.run_is_born(run)?;
            }
        }
        let relations: Vec<_> =
            batch.relations.iter().map(|row| (row.predecessor, row.successor, row.relation)).collect();
        for key in &batch.parted {
            self.ties.part(key)?;
        }
        for row in batch.relations {
            self.ties.write_relation(row, &self.rows)?;
            self.is_related(&row);
        }
        for event in &whole.events {
            self.write_event(event, &births)?;
        }
        self.write_saved(batch.saved, |owner| match owner {
            Owner::Task(task) => !ended.contains(&owner) || whole.reopens(task),
            Owner::Run(_) => !ended.contains(&owner),
        })?;
        self.keep_promises(&whole, cause)?;
        self.check_locks()?;
        let before = std::mem::replace(&mut self.counters, batch.counters);
        self.check_counters(&before)?;
        for id in &written {
            self.check_task(*id)?;
        }
        self.check_relations(&relations)?;
        self.check_runs(&runs, &written)
    }

    fn write_event(&mut self, event: &Event, births: &Births) -> Result<(), String> {
        self.head = self.head.next();
        if let Happening::TaskAssigned { worker, .. } = &event.happening
            && let Some(boot) = self.drained.get(worker)
            && self.workers.get(worker).is_some_and(|row| row.boot == *boot)
        {
            return Err(format!("worker {worker} was drained, and yet: {event:?}"));
        }
        let birth = match event.subject {
            Subject::Task(id) => births.get(&id).copied(),
            _ => None,
        };
        self.history.take(self.head, event, birth)?;
        if let (Subject::Task(id), Happening::TaskReopened { .. }) = (&event.subject, &event.happening)
            && self.rows.get(id).is_some_and(|row| row.run.is_some())
        {
            self.history.rewind(*id);
        }
        self.check_order(event)
    }

    /// Notes that a worker was said to get no new work in this life, unless it is in another one
    /// already. False if it has no row.
    pub(super) fn drained(&mut self, worker: &Arc<str>) -> bool {
        let Some(row) = self.workers.get(worker) else { return false };
        if row.draining {
            self.drained.insert(Arc::clone(worker), row.boot);
        }
        true
    }

    fn write_task(&mut self, write: TaskWrite, births: &mut Births) -> Result<(), String> {
        let TaskWrite { id, birth, spec, title, state, outcome } = write;
        if let Some(title) = title {
            self.saved.titles.insert(id, title);
        }
        if let Some(change) = spec
            && !self.specs.contains_key(&change.new)
        {
            return Err(format!("task {id} names a specification that is not there"));
        }
        if let OutcomeChange::Set(outcome) = &outcome
            && let Some(left) = &outcome.left
            && let (Some(blob), Some(text)) = (left.outputs, &left.outputs_text)
        {
            // Its worker brought it before.
            self.blobs.insert(blob.sha256, Arc::clone(text));
        }
        *self.by_status.entry(state.status).or_default() += 1;
        match (birth, self.rows.get_mut(&id)) {
            (Some(birth), None) => {
                let TaskBirth { spec, title, created_at, run } = *birth;
                if !self.specs.contains_key(&spec) {
                    return Err(format!("task {id} was written before its specification"));
                }
                if let Some(node) = &run {
                    self.ties.add_part(node.run, id);
                }
                births.insert(id, (state.status, state.waits));
                let outcome = match outcome {
                    OutcomeChange::Set(outcome) => *outcome,
                    OutcomeChange::Keep => Outcome::default(),
                };
                self.rows.insert(id, Row { spec, title, created_at, run, state, outcome });
            }
            (None, Some(row)) => {
                if let Some(count) = self.by_status.get_mut(&row.state.status) {
                    *count -= 1;
                }
                row.state = state;
                if let Some(change) = spec {
                    if change.old != row.spec {
                        return Err(format!("task {id} has {:?}; replaced was {:?}", row.spec, change.old));
                    }
                    row.spec = change.new;
                }
                if let OutcomeChange::Set(outcome) = outcome {
                    row.outcome = *outcome;
                }
            }
            (Some(_), Some(_)) => return Err(format!("task {id} was born twice")),
            (None, None) => return Err(format!("task {id} changes without having been born")),
        }
        Ok(())
    }

    fn write_attempt(&mut self, row: AttemptRow) -> Result<(), String> {
        let (task, attempt) = (row.task, row.attempt);
        super::invariants::check_result(task, attempt, row.fence, Some(&row.worker), &row.outcome)?;
        if let Some(old) = self.attempts.get(&(task, attempt))
            && (old.end != AttemptEnd::Lost || old.fence != row.fence || old.worker != row.worker)
        {
            return Err(format!("attempt {attempt} of task {task} ended twice: {old:?}, then {row:?}"));
        }
        self.attempts.insert((task, attempt), row);
        Ok(())
    }

    /// The counters that came with a batch against the rows as they are after it.
    fn check_counters(&self, before: &Counters) -> Result<(), String> {
        let mut settled = self.counters.settled;
        for status in [Status::Completed, Status::Failed, Status::Cancelled, Status::Skipped] {
            let counted = settled.of(status).copied().unwrap_or_default();
            if counted != self.count(status) {
                return Err(format!("{counted} tasks counted as {status}, {} rows", self.count(status)));
            }
        }
        let last = self.rows.last_key_value().map(|(id, _)| *id).unwrap_or_default();
        // Numbers of a run's nodes and items are given away before their rows are written.
        let (counted, before) = (self.counters.last_task, before.last_task);
        let is_exact = self.ties.runs.is_empty();
        if counted < last || counted < before || (is_exact && counted != last) {
            return Err(format!("the last task is {last}, counted {counted}, before that {before}"));
        }
        let last = self.ties.runs.last_key_value().map(|(id, _)| *id).unwrap_or_default();
        if self.counters.last_run != last {
            return Err(format!("the last run is {last}, counted {}", self.counters.last_run));
        }
        if self.counters.last_checkpoint != self.saved.last {
            let (last, counted) = (self.saved.last, self.counters.last_checkpoint);
            return Err(format!("the last checkpoint is {last}, counted {counted}"));
        }
        Ok(())
    }

    /// A task's row against what the events say of it and against its attempts' rows.
    fn check_task(&self, id: TaskId) -> Result<(), String> {
        let Some(row) = self.rows.get(&id) else { return Err(format!("task {id} has no row")) };
        self.history.check(id, &row.state)?;
        let Row { state, outcome, .. } = row;
        let most = self.spec_of(row).map_or(0, |spec| spec.spec.retry.max);
        // Another version may allow fewer.
        let versions = row.run.as_ref().and_then(|place| self.ties.runs.get(&place.run));
        let versions = versions.map_or(1, |run| run.state.version).max(state.version);
        if state.failures > most && versions == 1 {
            return Err(format!("task {id} was retried {} times, allowed are {most}", state.failures));
        }
        if !state.status.is_settled() {
            return Ok(());
        }
        // A task that was settled by nobody's report keeps what its latest report said.
        let is_reported = state.status == Status::Completed && state.worker.is_some();
        if is_reported {
            let worker = state.worker.as_ref();
            super::invariants::check_result(id, state.attempt, state.fence, worker, outcome)?;
        }
        if let Some(attempt) = self.attempts.get(&(id, state.attempt))
            && is_reported
            && attempt.end != AttemptEnd::Completed
        {
            return Err(format!(
                "task {id} is completed, but its attempt {} is kept as {attempt:?}",
                state.attempt
            ));
        }
        Ok(())
    }

    /// Rows of a status.
    pub(super) fn count(&self, status: Status) -> u64 {
        self.by_status.get(&status).copied().unwrap_or_default()
    }

    /// A task's specification.
    pub(super) fn spec_of(&self, row: &Row) -> Option<&Arc<PreparedSpec>> {
        self.specs.get(&row.spec)
    }

    pub(super) fn prepared(&self, hash: &SpecHash) -> Option<&Arc<PreparedSpec>> {
        self.specs.get(hash)
    }

    /// Tasks that are not settled.
    pub(super) fn live(&self) -> impl Iterator<Item = (TaskId, &Row)> {
        self.rows.iter().filter(|(_, row)| !row.state.status.is_settled()).map(|(id, row)| (*id, row))
    }

    /// Live tasks that wait for that.
    pub(super) fn tasks_that_wait(&self, waits: Waits) -> Vec<TaskId> {
        self.live().filter(|(_, row)| row.state.waits == Some(waits)).map(|(id, _)| id).collect()
    }

    /// Answers [`agentflow_core::kernel::Effect::Load`].
    pub(super) fn load(&self, asked: &[TaskId]) -> Vec<LoadedTask> {
        let load = |id: &TaskId| {
            let row = self.rows.get(id)?;
            let spec = Arc::clone(self.spec_of(row)?);
            let successors = self.ties.live_after(*id, &self.rows);
            Some(LoadedTask { row: task_row(*id, row), spec, successors, saved: self.saved.of_task(*id) })
        };
        asked.iter().filter_map(load).collect()
    }

    /// What a new master reads: live rows, their specifications, workers, runs, relations, counters.
    pub(super) fn scan(&self) -> Scan {
        let tasks: Vec<TaskRow> = self.live().map(|(id, row)| task_row(id, row)).collect();
        let mut specs = BTreeMap::new();
        for task in &tasks {
            if let Some(spec) = self.specs.get(&task.spec) {
                specs.insert(spec.hash, spec.row());
            }
        }
        let specs = specs.into_values().collect();
        Scan { tasks, specs, workers: self.workers.values().cloned().collect(), counters: self.counters }
    }

    /// The plan that a new master makes of that.
    pub(super) fn plan(&self, scan: Scan) -> Result<RecoveryPlan, RecoveryError> {
        let plan = RecoveryPlan::new(scan.tasks, scan.specs, scan.workers)?;
        let tasks = self.live().map(|(id, _)| (id, self.saved.of_task(id)));
        let tasks = tasks.filter(|(_, saved)| !saved.is_empty()).collect();
        let memories = self.ties.live_runs().map(|run| (run.id, self.saved.of_run(run.id))).collect();
        let plan = plan.with_saved(tasks, memories);
        let plan = self.with_locks(plan);
        Ok(plan.with_ties(self.ties.saved_runs(&self.rows), self.ties.live_relations(&self.rows)))
    }
}

/// Rows as a new master reads them first.
#[derive(Debug)]
pub(super) struct Scan {
    pub(super) tasks: Vec<TaskRow>,
    specs: Vec<SpecRow>,
    workers: Vec<WorkerRow>,
    pub(super) counters: Counters,
}

fn task_row(id: TaskId, row: &Row) -> TaskRow {
    let (spec, created_at, run) = (row.spec, row.created_at, row.run.clone());
    TaskRow { id, spec, created_at, run, state: row.state.clone() }
}

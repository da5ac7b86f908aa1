//! What must hold whatever happens, beside what the store and the fold check with every commit.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use agentflow_core::attempt::{AttemptKey, ReportBody};
use agentflow_core::batch::{Batch, KeyHash, Outcome, TaskRow};
use agentflow_core::ids::{Attempt, CheckpointId, Fence, LockNumber, RunId, SessionEpoch, TaskId};
use agentflow_core::kernel::Assigned;
use agentflow_core::status::Status;

use super::store::Row;
use super::worker::Worker;
use super::world::World;

/// What was promised to clients, and what workers were given.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// Tasks whose submission was acknowledged.
    acknowledged: BTreeSet<TaskId>,
    /// Runs whose start was acknowledged.
    runs: BTreeSet<RunId>,
    /// What each idempotency key was acknowledged to have made.
    keys: BTreeMap<KeyHash, (KeyHash, TaskId, u32)>,
    /// Assignments that reached a worker.
    received: BTreeSet<(TaskId, Fence)>,
    /// The latest assignment of each task as decided, durable or not.
    latest: BTreeMap<TaskId, (Attempt, Fence)>,
}

impl Ledger {
    /// Notes what a batch says of assignments.
    pub(super) fn decided(&mut self, batch: &Batch) {
        for write in &batch.tasks {
            self.latest.insert(write.id, (write.state.attempt, write.state.fence));
        }
    }

    /// A new master goes on from the rows.
    pub(super) fn recovered(&mut self, tasks: &[TaskRow]) {
        self.latest = tasks.iter().map(|row| (row.id, (row.state.attempt, row.state.fence))).collect();
    }

    /// The latest assignment of a task as decided.
    pub(super) fn latest(&self, task: TaskId) -> Option<(Attempt, Fence)> {
        self.latest.get(&task).copied()
    }

    /// Notes an assignment that reached a worker: each reaches one worker, once.
    pub(super) fn received(&mut self, worker: &str, key: AttemptKey) -> Result<(), String> {
        if self.received.insert((key.task, key.fence)) {
            Ok(())
        } else {
            Err(format!("{worker} was given {key:?}, which was given before"))
        }
    }

    /// Notes that the start of a run was acknowledged.
    pub(super) fn acknowledge_run(&mut self, run: RunId, key: Option<KeyHash>) -> Result<(), String> {
        self.runs.insert(run);
        let Some(key) = key else { return Ok(()) };
        let made = (key, TaskId(run.0), 1);
        match self.keys.insert(key, made) {
            Some(before) if before != made => {
                Err(format!("key {key:?} was answered with {before:?} and with {made:?}"))
            }
            _ => Ok(()),
        }
    }

    /// Notes that a client's checkpoint was acknowledged.
    pub(super) fn acknowledge_save(&mut self, key: KeyHash, id: CheckpointId) -> Result<(), String> {
        let made = (key, TaskId(id.0), 1);
        match self.keys.insert(key, made) {
            Some(before) if before != made => {
                Err(format!("key {key:?} was answered with {before:?} and with {made:?}"))
            }
            _ => Ok(()),
        }
    }

    /// Notes that a client's lock was acknowledged.
    pub(super) fn acknowledge_lock(&mut self, key: KeyHash, number: LockNumber) -> Result<(), String> {
        self.acknowledge_save(key, CheckpointId(number.0))
    }

    /// Notes that a submission was acknowledged.
    pub(super) fn acknowledge(
        &mut self,
        first: TaskId,
        count: u32,
        key: Option<(KeyHash, KeyHash)>,
    ) -> Result<(), String> {
        self.acknowledged.extend((first.0..first.0 + u64::from(count)).map(TaskId));
        let Some((key, body)) = key else { return Ok(()) };
        let made = (body, first, count);
        match self.keys.insert(key, made) {
            Some(before) if before != made => {
                Err(format!("key {key:?} was answered with {before:?} and with {made:?}"))
            }
            _ => Ok(()),
        }
    }
}

/// The text that a worker gives as the result of an attempt: it names the assignment, so that a
/// result that ends up elsewhere is seen.
pub(super) fn result_of(worker: &str, key: AttemptKey) -> Box<str> {
    format!("{}/{}/{}/{worker}", key.task, key.attempt, key.fence).into()
}

/// A recorded result must be of the assignment that it is recorded for. An attempt that nobody
/// reported on has none.
pub(super) fn check_result(
    task: TaskId,
    attempt: Attempt,
    fence: Fence,
    worker: Option<&Arc<str>>,
    outcome: &Outcome,
) -> Result<(), String> {
    let Some(result) = &outcome.result else { return Ok(()) };
    let worker = worker.map_or("nobody", |name| name);
    let expected = result_of(worker, AttemptKey { task, attempt, fence });
    if *result == expected {
        Ok(())
    } else {
        Err(format!("the result of {result} was taken for that of {expected}"))
    }
}

impl World {
    /// An assignment may leave only when it is durable, and only to the worker that it names.
    pub(super) fn check_assignment(&self, session: SessionEpoch, task: &Assigned) -> Result<(), String> {
        let key = task.key;
        let Some((worker, attempt)) = self.store.history.given(key.task, key.fence) else {
            return Err(format!("{key:?} left before its decision was durable"));
        };
        let addressee = self.network.worker_of(session).map(|index| &self.workers[index].name);
        if *attempt != key.attempt || addressee.is_some_and(|name| name != worker) {
            return Err(format!("{key:?} went to {addressee:?}; decided was attempt {attempt} for {worker}"));
        }
        let Some(row) = self.store.rows.get(&key.task) else { return Ok(()) };
        let begin = self.store.promises.begins.get(&(key.task, key.fence));
        let fits = begin.is_some_and(|begin| {
            (begin.checkpoint, begin.spec, begin.remembers) == (task.checkpoint, task.spec, task.remembers)
        });
        if fits && row.run.as_ref().map(|place| place.run) == task.run {
            return Ok(());
        }
        Err(format!("{task:?} left; the attempt was to begin as {begin:?}, the row says {row:?}"))
    }

    /// An acknowledged end must be durable: the row is no longer in the worker's hands under that
    /// fence.
    pub(super) fn check_ack(&self, session: SessionEpoch, up_to: u64) -> Result<(), String> {
        let Some(worker) = self.network.worker_of(session).map(|index| &self.workers[index]) else {
            return Ok(());
        };
        if worker.session != Some(session) {
            return Ok(());
        }
        for report in worker.reports.iter().take_while(|report| report.no <= up_to) {
            if matches!(report.body, ReportBody::Started { .. }) {
                continue;
            }
            let key = report.key;
            if let Some(row) = self.store.rows.get(&key.task)
                && row.state.fence == key.fence
                && row.state.attempt == key.attempt
                && !row.state.status.is_settled()
                && row.state.worker.as_ref() == Some(&worker.name)
            {
                return Err(format!("{report:?} was acknowledged, but the row says {:?}", row.state));
            }
        }
        Ok(())
    }

    /// No worker is given more than its credits, by the master's account.
    pub(super) fn check_credits(&self) -> Result<(), String> {
        let Some(kernel) = &self.master.kernel else { return Ok(()) };
        for worker in &self.workers {
            if let Some((held, most)) = kernel.credits(&worker.name)
                && held > most
            {
                return Err(format!("worker {} holds {held} of {most}", worker.name));
            }
        }
        Ok(())
    }

    /// Every task whose submission was acknowledged is there, and every run; and the master knows
    /// those that have not ended.
    pub(super) fn check_acknowledged(&self) -> Result<(), String> {
        if let Some(id) = self.ledger.acknowledged.iter().find(|id| !self.store.rows.contains_key(id)) {
            return Err(format!("task {id} was acknowledged and is lost"));
        }
        if let Some(id) = self.ledger.runs.iter().find(|id| !self.store.ties.runs.contains_key(id)) {
            return Err(format!("run {id} was acknowledged and is lost"));
        }
        self.check_live_runs()
    }

    /// The kernel's live runs are the rows', when all that it decided is durable.
    pub(super) fn check_live_runs(&self) -> Result<(), String> {
        let Some(kernel) = self.master.kernel.as_ref().filter(|_| self.store.is_idle()) else {
            return Ok(());
        };
        for row in self.store.ties.runs.values() {
            let is_live = kernel.why_run(row.id, self.now()).is_ok();
            if is_live == row.state.status.is_settled() {
                return Err(format!("run {} is live: {is_live}; its row says {:?}", row.id, row.state));
            }
        }
        Ok(())
    }

    /// At the end: nothing was made twice, nothing is left undone, nobody is busy.
    pub(super) fn check_end(&self) -> Result<(), String> {
        self.check_acknowledged()?;
        self.check_counts()?;
        self.store.check_all_saved()?;
        let mut names = BTreeMap::new();
        for row in self.store.ties.runs.values().filter(|row| row.birth.parent.is_none()) {
            if let Some(other) = names.insert(&row.birth.name, row.id) {
                return Err(format!(
                    "'{}' was asked for once and began twice: {other}, {}",
                    row.birth.name, row.id
                ));
            }
        }
        let mut titles = BTreeMap::new();
        for (id, row) in self.store.rows.iter().filter(|(_, row)| row.run.is_none()) {
            if let Some(other) = titles.insert(&row.title, id) {
                return Err(format!("'{}' was submitted once and made twice: {other}, {id}", row.title));
            }
        }
        if let Some(stuck) = self.unfinished() {
            return Err(stuck);
        }
        let Some(kernel) = &self.master.kernel else { return Err("the master is down".to_owned()) };
        for worker in &self.workers {
            if let Some((held, _)) = kernel.credits(&worker.name)
                && held > 0
            {
                return Err(format!("worker {} still holds {held} tasks at the end", worker.name));
            }
        }
        Ok(())
    }

    /// What still keeps the world busy, once faults have stopped.
    pub(super) fn unfinished(&self) -> Option<String> {
        for (id, row) in self.store.live() {
            let Some(spec) = self.store.spec_of(row) else { return Some(format!("task {id} has no spec")) };
            let can_end = self.can_run(row) || spec.spec.queue_timeout_ms.is_some();
            // Clients have let go on whatever they kept, and what nobody can run is waited for by nobody.
            let waits = row.state.status == Status::Blocked || row.state.waits.is_some() || row.run.is_some();
            let must_settle = can_end || waits || self.store.is_waited_for(id);
            if must_settle || row.state.worker.is_some() {
                let why = self.master.kernel.as_ref().and_then(|kernel| kernel.why(id, self.now()).ok());
                return Some(format!("task {id} does not settle: {:?}; why: {why:?}", row.state));
            }
        }
        if let Some(run) = self.store.ties.live_runs().next() {
            let why = self.master.kernel.as_ref().and_then(|kernel| kernel.why_run(run.id, self.now()).ok());
            return Some(format!("run {} does not end: {:?}; why: {why:?}", run.id, run.state));
        }
        for worker in &self.workers {
            if let Some(busy) = worker.busy_with() {
                return Some(format!("worker {} does not come to rest: {busy}", worker.name));
            }
        }
        if !self.store.is_idle() || self.master.kernel.is_none() {
            return Some("the master does not come to rest".to_owned());
        }
        None
    }

    /// Whether some worker that is not gone for good can run a task.
    pub(super) fn can_run(&self, row: &Row) -> bool {
        let spec = self.store.spec_of(row);
        spec.is_some_and(|spec| self.workers.iter().any(|w| w.suits(&row.state.group, &spec.spec)))
    }

    /// In quiet times nothing waits for long at a busy worker while another one could begin it.
    /// True when nothing does.
    pub(super) fn check_balance(&mut self) -> Result<bool, String> {
        let Some((task, fence, idle)) = self.waits_needlessly() else {
            self.waits_since = None;
            return Ok(true);
        };
        match self.waits_since {
            Some((other, other_fence, since)) if (other, other_fence) == (task, fence) => {
                if self.now_us > since + 2_000_000 {
                    return Err(format!("task {task} waits at a busy worker while {idle} is idle"));
                }
            }
            _ => self.waits_since = Some((task, fence, self.now_us)),
        }
        Ok(false)
    }

    fn waits_needlessly(&self) -> Option<(TaskId, Fence, Arc<str>)> {
        self.store.live().find_map(|(id, row)| {
            let holder = row.state.worker.as_ref()?;
            let spec = self.store.prepared(self.store.promises.in_hand.get(&id)?)?;
            let waits = self.workers.iter().any(|worker| worker.name == *holder && worker.is_waiting(id));
            let could_begin =
                |worker: &&Worker| worker.is_idle() && worker.suits(&row.state.group, &spec.spec);
            let idle = self.workers.iter().find(could_begin).filter(|_| waits)?;
            Some((id, row.state.fence, Arc::clone(&idle.name)))
        })
    }
}

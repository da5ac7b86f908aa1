//! The kernel: the whole population's state, and the one function through which anything happens
//! to it.
//!
//! ```text
//!   Input ──► step(now) ──► Output { batch, effects, wake_at }
//!                │                    │        │
//!                │                    │        └─ of decisions that are durable
//!                │                    └─ to the store; comes back as Input::Committed
//!                └─ one happening, one decision: a completion that frees a slot and hands the
//!                   next task to it is one step
//! ```
//!
//! Sans-I/O: it owns no clock, no socket and no database. Memory moves at once; effects are parked
//! under the number of the decision that caused them, or that they saw, and come out when the
//! store has made it durable.
//!
//! Invariants, checked by [`Kernel::check`]: a task is in its class's queue exactly when it is
//! ready; it is in a worker's hands exactly when it is assigned; counts agree with states; no
//! worker holds more than its credits; no ready task waits while a suitable worker has a free
//! slot.

mod apply;
mod check;
pub(crate) mod classes;
mod keys;
mod locks;
mod parked;
mod place;
mod prepared;
mod recovery;
mod relations;
mod reports;
mod requests;
mod rows;
mod runs;
mod saved;
mod schedules;
mod sessions;
mod specs;
mod submit;
mod table;
#[cfg(test)]
mod tests;
mod timers;
mod versions;
pub(crate) mod why;
pub(crate) mod words;
mod workers;

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

pub use classes::Requirement;
pub use keys::KeyInfo;
pub use locks::LockSecret;
pub use recovery::{RecoveryError, RecoveryPlan};
pub use schedules::{SavedSchedule, Scheduled};
pub use words::{
    Again, Answer, Assigned, Effect, Fork, Input, LoadedRun, LoadedTask, LockFilter, LockRequest, MakeTask,
    NewRun, NewTask, NewVersion, NodeWhy, Output, Predecessor, PreparedRun, PreparedSpec, Reply, Request,
    RestoreRequest, RunAction, RunWhy, SaveRequest, SavedRun, Stats, SubmitKey, Unlock, UpgradeRun,
    WaitingLock, WorkerInfo,
};

use crate::batch::{Batch, Counters};
use crate::event::{Event, Happening, Subject};
use crate::ids::{Epoch, RunId, SpaceId, TaskId};
use crate::limits;
use crate::lock::PathLock;
use crate::task::WorkerIndex;
use crate::time::Now;

/// What can be set.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Settings {
    /// How long a worker is trusted after its last sign of life.
    pub lease_ms: u64,
    /// How much longer the master waits than that.
    pub lease_margin_ms: u64,
    /// Tasks that may be live at once.
    pub live_tasks: usize,
    /// What makes the ids of locks unguessable.
    pub lock_secret: LockSecret,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            lease_ms: limits::LEASE_MS,
            lease_margin_ms: limits::LEASE_MARGIN_MS,
            live_tasks: limits::LIVE_TASKS,
            lock_secret: LockSecret::default(),
        }
    }
}

/// The population and its rules.
#[derive(Debug)]
pub struct Kernel {
    settings: Settings,
    epoch: Epoch,
    tasks: table::TaskTable,
    specs: specs::SpecTable,
    classes: classes::ClassTable,
    workers: workers::WorkerTable,
    keys: submit::RecentKeys,
    concurrency: keys::Keys,
    locks: locks::Locks,
    timers: timers::Timers,
    parked: parked::Parked,
    counters: Counters,
    live: LiveCounts,
    /// Settled tasks on their way from the database, and who asked for each.
    reopening: requests::Reopening,
    relations: relations::Relations,
    runs: runs::RunTable,
    rerunning: runs::Rerunning,
    saved: saved::Saved,
    versions: versions::Versions,
    schedules: schedules::Schedules,
    maker: Arc<dyn MakeTask>,
    rebalance_set: bool,
}

/// Live tasks by status.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct LiveCounts {
    blocked: u64,
    pending: u64,
    running: u64,
}

/// One step under way: what it wants written and done, and who is to be looked at for placement.
struct Step {
    now: Now,
    batch: Batch,
    effects: Vec<Effect>,
    /// Whether somebody waits for this step's commit.
    urgent: bool,
    /// Workers that may take more.
    hungry: BTreeSet<WorkerIndex>,
    /// Classes whose workers are on that list already.
    woken: BTreeSet<classes::ClassIndex>,
    /// Tasks that have ended in this step, of which somebody may want to know.
    ended: VecDeque<runs::Ended>,
    /// What is locked no more, or waited for no more, and where.
    freed: Vec<(SpaceId, Arc<[PathLock]>)>,
    /// Runs that are to be looked at.
    runs: BTreeSet<RunId>,
    /// Nodes of runs on which this step has decided.
    nodes: u32,
}

impl Step {
    fn new(now: Now) -> Self {
        Self {
            now,
            batch: Batch::default(),
            effects: Vec::new(),
            urgent: false,
            hungry: BTreeSet::new(),
            woken: BTreeSet::new(),
            ended: VecDeque::new(),
            freed: Vec::new(),
            runs: BTreeSet::new(),
            nodes: 0,
        }
    }

    /// A specification that the database may not have, and before it the input that it names.
    fn write_spec(&mut self, prepared: &PreparedSpec) {
        self.batch.blobs.extend(prepared.blobs.iter().cloned());
        self.batch.specs.push(prepared.row());
    }

    fn task_event(&mut self, task: TaskId, happening: Happening) {
        self.batch.events.push(Event { at: self.now.wall, subject: Subject::Task(task), happening });
    }
}

impl Kernel {
    /// An empty population. `maker` makes the tasks of runs.
    #[must_use]
    pub fn new(settings: Settings, epoch: Epoch, maker: Arc<dyn MakeTask>) -> Self {
        Self {
            settings,
            epoch,
            tasks: table::TaskTable::default(),
            specs: specs::SpecTable::default(),
            classes: classes::ClassTable::default(),
            workers: workers::WorkerTable::default(),
            keys: submit::RecentKeys::default(),
            concurrency: keys::Keys::default(),
            locks: locks::Locks::new(settings.lock_secret),
            timers: timers::Timers::default(),
            parked: parked::Parked::default(),
            counters: Counters::default(),
            live: LiveCounts::default(),
            reopening: requests::Reopening::default(),
            relations: relations::Relations::default(),
            runs: runs::RunTable::default(),
            rerunning: runs::Rerunning::default(),
            saved: saved::Saved::default(),
            versions: versions::Versions::default(),
            schedules: schedules::Schedules::default(),
            maker,
            rebalance_set: false,
        }
    }

    /// This term of office.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Tasks that are not settled.
    #[must_use]
    pub fn live_tasks(&self) -> usize {
        self.tasks.len()
    }

    /// Takes one happening in.
    pub fn step(&mut self, input: Input, now: Now) -> Output {
        let mut step = Step::new(now);
        match input {
            Input::Committed(decision) => {
                let effects = self.parked.release(decision);
                return Output { batch: None, effects, wake_at: self.timers.next() };
            }
            Input::Request { reply, request } => self.on_request(&mut step, reply, request),
            Input::Hello { session, hello } => self.on_hello(&mut step, session, &hello),
            Input::Heard { session } => self.on_heard(now, session),
            Input::Reports { session, reports } => self.on_reports(&mut step, session, reports),
            Input::Asks { session, asks } => self.on_asks(&mut step, session, asks),
            Input::Draining { session } => self.on_draining(&mut step, session),
            Input::Goodbye { session } => self.on_goodbye(&mut step, session),
            Input::Disconnected { session } => self.on_disconnected(&mut step, session),
            Input::Loaded { asked, tasks } => self.on_loaded(&mut step, &asked, tasks),
            Input::RunLoaded { run, loaded } => self.on_run_loaded(&mut step, run, loaded),
            Input::Abandoned { reply } => self.on_abandoned(&mut step, reply),
            Input::Pruned(removed) => self.on_pruned(removed),
            Input::Tick => self.on_tick(&mut step),
        }
        self.follow(&mut step);
        self.hand_out(&mut step);
        self.conclude(step)
    }

    /// Hands out locks and tasks. Locks first, so that whoever waited for what has become free is served
    /// before somebody takes it who comes now; and again when a task got the last slot, since those that
    /// could not begin then stand in nobody's way any more.
    fn hand_out(&mut self, step: &mut Step) {
        loop {
            self.serve_waiters(step);
            self.place(step);
            if !self.serve_behind_tasks(step) {
                break;
            }
        }
    }

    /// Numbers the step if it changed anything, and parks its effects.
    fn conclude(&mut self, mut step: Step) -> Output {
        let batch = if step.batch.is_empty() {
            None
        } else {
            step.batch.decision = self.parked.decide();
            step.batch.counters = self.counters;
            step.batch.lazy = !step.urgent;
            Some(step.batch)
        };
        let effects = self.parked.park(step.effects);
        Output { batch, effects, wake_at: self.timers.next() }
    }
}

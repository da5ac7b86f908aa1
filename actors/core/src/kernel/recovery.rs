//! From rows to a living population.
//!
//! All decisions about what was found are made in [`RecoveryPlan::new`], without a database and
//! without a kernel; [`Kernel::recover`] carries them out. Rows are snapshots: no history is
//! replayed.

use std::collections::BTreeMap;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::classes::Requirement;
use super::runs::{LiveNode, SavedRun};
use super::schedules::SavedSchedule;
use super::table::Entry;
use super::words::{MakeTask, Output, PreparedSpec};
use super::workers::Worker;
use super::{Kernel, Settings, Step};
use crate::batch::{
    Counters, KeyLimitRow, LiveRelation, LockRow, LockSpaceRow, SavedTask, SpecRow, TaskRow, Waits, WorkerRow,
};
use crate::ids::{Epoch, RunId, SpecHash, TaskId};
use crate::memory::Memory;
use crate::spec::Payload;
use crate::status::Status;
use crate::task::{Hold, Parts, Phase, Task};
use crate::time::Now;

/// Rows that no version of this program can have written.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RecoveryError {
    /// A task's specification is missing.
    #[error("task {0}: its specification is missing from task_specs")]
    SpecMissing(TaskId),
    /// A specification cannot be read.
    #[error("specification {hash:?}: {reason}")]
    SpecUnreadable {
        /// Which.
        hash: SpecHash,
        /// Why.
        reason: String,
    },
    /// A settled task among the live ones, or a running one without a worker.
    #[error("task {0}: its row contradicts itself")]
    Contradiction(TaskId),
}

/// What a new master does with what it found.
#[derive(Debug, Default)]
pub struct RecoveryPlan {
    specs: FxHashMap<SpecHash, Arc<PreparedSpec>>,
    tasks: Vec<Planned>,
    workers: Vec<WorkerRow>,
    runs: Vec<SavedRun>,
    relations: Vec<LiveRelation>,
    key_limits: Vec<KeyLimitRow>,
    schedules: Vec<SavedSchedule>,
    saved: Vec<(TaskId, SavedTask)>,
    memories: Vec<(RunId, Memory)>,
    lock_spaces: Vec<LockSpaceRow>,
    locks: Vec<LockRow>,
}

#[derive(Debug)]
struct Planned {
    row: TaskRow,
    place: Place,
}

/// Where a task continues.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Place {
    /// It waits for predecessors.
    Blocked,
    /// It waits for `release`.
    Kept,
    /// It waits for an approval.
    Gate,
    /// It consists of parts.
    Open,
    /// It waits, for a worker or for a time.
    Waiting,
    /// A worker has it, as far as we know: it gets a full fresh lease to come back.
    Held,
}

impl RecoveryPlan {
    /// Decides on every row.
    ///
    /// # Errors
    /// When rows are such as no version of this program writes.
    pub fn new(
        tasks: Vec<TaskRow>,
        specs: Vec<SpecRow>,
        workers: Vec<WorkerRow>,
    ) -> Result<Self, RecoveryError> {
        let mut plan = Self { workers, ..Self::default() };
        for SpecRow { hash, body, .. } in specs {
            let prepared = PreparedSpec::read(hash, body)
                .map_err(|error| RecoveryError::SpecUnreadable { hash, reason: error.to_string() })?;
            plan.specs.insert(hash, Arc::new(prepared));
        }
        plan.tasks.reserve(tasks.len());
        for row in tasks {
            if !plan.specs.contains_key(&row.spec) {
                return Err(RecoveryError::SpecMissing(row.id));
            }
            let place = match (row.state.status, &row.state.worker, row.state.waits) {
                (Status::Blocked, None, None | Some(Waits::Room)) => Place::Blocked,
                (Status::Blocked, None, Some(Waits::Release)) => Place::Kept,
                (Status::Pending, None, Some(Waits::Approval)) => Place::Gate,
                (Status::Running, Some(_), Some(Waits::Parts)) => Place::Open,
                (Status::Pending, None, None) => Place::Waiting,
                (Status::Pending | Status::Running, Some(_), None) if row.state.assigned_at.is_some() => {
                    Place::Held
                }
                _ => return Err(RecoveryError::Contradiction(row.id)),
            };
            plan.tasks.push(Planned { row, place });
        }
        Ok(plan)
    }

    /// And what ties the tasks together: the runs that have not ended, and the relations of tasks
    /// that wait.
    #[must_use]
    pub fn with_ties(mut self, runs: Vec<SavedRun>, relations: Vec<LiveRelation>) -> Self {
        self.runs = runs;
        self.relations = relations;
        self
    }

    /// And what is begun again and again.
    #[must_use]
    pub fn with_schedules(mut self, schedules: Vec<SavedSchedule>) -> Self {
        self.schedules = schedules;
        self
    }

    /// And the checkpoints and memories of live tasks, and the memories of live runs.
    #[must_use]
    pub fn with_saved(mut self, saved: Vec<(TaskId, SavedTask)>, memories: Vec<(RunId, Memory)>) -> Self {
        self.saved = saved;
        self.memories = memories;
        self
    }

    /// And the repositories in which something was locked, and the locks that are held.
    #[must_use]
    pub fn with_locks(mut self, spaces: Vec<LockSpaceRow>, held: Vec<LockRow>) -> Self {
        self.lock_spaces = spaces;
        self.locks = held;
        self
    }

    /// And the limits of concurrency keys.
    #[must_use]
    pub fn with_key_limits(mut self, rows: Vec<KeyLimitRow>) -> Self {
        self.key_limits = rows;
        self
    }

    /// Live tasks found.
    #[must_use]
    pub fn tasks(&self) -> usize {
        self.tasks.len()
    }
}

impl Kernel {
    /// Builds the population that the rows describe and lets it go on from `counters`.
    #[must_use]
    pub fn recover(
        settings: Settings,
        epoch: Epoch,
        counters: Counters,
        plan: RecoveryPlan,
        now: Now,
        maker: Arc<dyn MakeTask>,
    ) -> (Self, Output) {
        let mut kernel = Self::new(settings, epoch, maker);
        kernel.counters = counters;
        let mut step = Step::new(now);
        for row in &plan.key_limits {
            kernel.concurrency.configure(row);
        }
        for row in plan.workers {
            kernel.workers.insert(Worker::from_row(row));
        }
        let mut nodes: BTreeMap<RunId, Vec<LiveNode>> = BTreeMap::new();
        for Planned { row, place } in plan.tasks {
            let Some(spec) = plan.specs.get(&row.spec) else { continue };
            if let Some((run, node)) = LiveNode::of(&row) {
                nodes.entry(run).or_default().push(node);
            }
            kernel.restore(&mut step, row, place, spec);
        }
        kernel.restore_saved(plan.saved, plan.memories);
        kernel.restore_locks(&mut step, plan.lock_spaces, plan.locks);
        kernel.restore_relations(plan.relations);
        kernel.restore_runs(&mut step, plan.runs, nodes);
        kernel.restore_schedules(&mut step, plan.schedules);
        kernel.follow(&mut step);
        let output = kernel.conclude(step);
        (kernel, output)
    }

    fn restore(&mut self, step: &mut Step, row: TaskRow, place: Place, prepared: &Arc<PreparedSpec>) {
        let TaskRow { id, state, created_at, .. } = row;
        let now = step.now;
        let phase = match place {
            Place::Blocked | Place::Kept => Phase::Blocked,
            Place::Gate => Phase::Gate,
            Place::Open => Phase::Open(Parts {
                started_at: state.started_at.unwrap_or(created_at),
                cancelling: state.cancelling,
            }),
            // A milestone whose time came while no master was there completes when it is woken:
            // no worker may be given it.
            Place::Waiting if state.ready_at > now.wall || prepared.spec.payload == Payload::Milestone => {
                Phase::Delayed(None)
            }
            Place::Waiting => Phase::Ready(None),
            Place::Held => {
                let name = state.worker.unwrap_or_else(|| "unknown".into());
                let worker = match self.workers.find(&name) {
                    Some(worker) => worker,
                    None => self.workers.insert(Worker::new(name, now.wall)),
                };
                self.renew_lease(now, worker);
                Phase::Assigned(Hold {
                    worker,
                    assigned_at: state.assigned_at.unwrap_or(created_at),
                    started_at: state.started_at,
                    cancelling: state.cancelling,
                    returning: false,
                    has_row: true,
                })
            }
        };
        let task = Task {
            phase,
            created_at,
            ready_at: state.ready_at,
            pending_since: if state.lost > 0 { now.wall } else { state.ready_at },
            fence: state.fence,
            attempt: state.attempt,
            failures: state.failures,
            lost: state.lost,
            priority: state.priority,
        };
        self.count(None, Some(task.status()));
        let class = self.enter_class(step, Requirement::of(&state.group, &prepared.spec));
        let (spec, _) = self.specs.enter(prepared);
        self.versions.enter(id, state.version);
        let hold = task.hold().copied();
        if place == Place::Kept {
            self.relations.hold(id);
        }
        let (is_ready, is_delayed) = (task.is_ready(), matches!(task.phase, Phase::Delayed(_)));
        self.tasks.insert(id, Entry { task, spec, class, parked: false });
        if let Some(hold) = hold {
            let keys = &self.classes.get(class).requirement.keys;
            self.concurrency.take(id, keys, None);
            let worker = &mut self.workers[hold.worker];
            worker.held.insert(id);
            worker.running += u32::from(hold.started_at.is_some());
        } else if is_ready {
            self.enqueue(step, id);
        } else if is_delayed {
            self.set_wake_timer(step, id);
        }
    }
}

//! The kernel's invariants, for tests and the simulation. Costs a pass over everything.

use super::Kernel;
use super::apply::is_waiting;
use super::classes::queue_key;
use crate::memory::Owner;
use crate::task::Phase;

impl Kernel {
    /// Checks that everything the kernel keeps twice agrees, and that nothing waits needlessly.
    ///
    /// # Errors
    /// The first disagreement.
    pub fn check(&self) -> Result<(), String> {
        self.check_at(None)
    }

    /// As [`Kernel::check`], at a moment: only then is it known which rates allow more.
    ///
    /// # Errors
    /// The first disagreement.
    pub fn check_at(&self, now: Option<crate::time::Now>) -> Result<(), String> {
        let mut waiting = std::collections::BTreeMap::new();
        let mut running = std::collections::BTreeMap::new();
        let (mut blocked, mut pending, mut run) = (0, 0, 0);
        for (id, entry) in self.tasks.iter() {
            match entry.task.status() {
                crate::status::Status::Blocked => blocked += 1,
                crate::status::Status::Pending => pending += 1,
                crate::status::Status::Running => run += 1,
                settled => return Err(format!("task {id} is {settled} and still in memory")),
            }
            match &entry.task.phase {
                Phase::Ready(_) if entry.parked => {}
                Phase::Ready(_) => {
                    *waiting.entry(entry.class).or_insert(0u32) += 1;
                    let key = queue_key(entry.task.ready_at, entry.task.priority);
                    if !is_waiting(&self.tasks, entry.class, id, key) {
                        return Err(format!("task {id} is ready but not in its queue"));
                    }
                }
                Phase::Assigned(hold) => {
                    if !self.workers[hold.worker].held.contains(&id) {
                        return Err(format!("task {id} is assigned, but not in its worker's hands"));
                    }
                    *running.entry(hold.worker).or_insert(0u32) += u32::from(hold.started_at.is_some());
                }
                Phase::Blocked if self.is_stuck(id) => {
                    return Err(format!("task {id} is blocked, and nobody will ever unblock it"));
                }
                Phase::Blocked | Phase::Gate | Phase::Open(_) | Phase::Delayed(_) | Phase::Settled(_) => {}
            }
        }
        if (blocked, pending, run) != (self.live.blocked, self.live.pending, self.live.running) {
            return Err(format!("counts {:?} differ from states ({blocked}, {pending}, {run})", self.live));
        }
        for (class, state) in self.classes.iter() {
            if waiting.get(&class).copied().unwrap_or(0) != state.waiting() {
                return Err(format!("class {class:?}: {} in the queue differ from states", state.waiting()));
            }
        }
        self.check_workers(&running, now)?;
        self.check_runs()?;
        if self.specs.len() > self.tasks.len() + self.versions.waiting() {
            return Err("a specification outlived its tasks".to_owned());
        }
        self.check_locks()?;
        self.check_saved()
    }

    fn check_saved(&self) -> Result<(), String> {
        for owner in self.saved.owners() {
            let is_live = match owner {
                Owner::Task(task) => self.tasks.get(task).is_some(),
                Owner::Run(run) => self.has_run(run),
            };
            if !is_live {
                return Err(format!("{owner:?} has ended, and its checkpoints or memory are still held"));
            }
        }
        match self.versions.tasks().find(|task| self.tasks.get(*task).is_none()) {
            Some(task) => Err(format!("task {task} has ended, and its version is still held")),
            None => Ok(()),
        }
    }

    fn is_stuck(&self, id: crate::ids::TaskId) -> bool {
        let waits_in_run = self.runs.place(id).is_some_and(|place| {
            self.runs.get(place.run).is_some_and(|run| {
                let waits = run.graph.status(place.node) == crate::run::NodeStatus::Waiting;
                run.status == crate::run::RunStatus::Paused || (place.item.is_none() && waits)
            })
        });
        !waits_in_run && !self.relations.waits(id)
    }

    fn check_runs(&self) -> Result<(), String> {
        let live = self.tasks.iter().filter(|(id, _)| self.runs.place(*id).is_some()).count();
        if live != self.runs.places() {
            return Err(format!("{} places of runs for {live} live tasks", self.runs.places()));
        }
        if let Some(task) = self.runs.outdated().find(|task| {
            self.runs.place(*task).is_none()
                || self.tasks.get(*task).is_none_or(|entry| entry.task.hold().is_none())
        }) {
            return Err(format!("task {task} has no attempt of an older version of its run"));
        }
        for run in self.runs.iter() {
            if run.numbers.len() != run.nodes() {
                return Err(format!("run {} has other numbers than nodes", run.id));
            }
            if run.graph.outcome().is_some() {
                return Err(format!("every node of run {} has ended, and it has not", run.id));
            }
        }
        Ok(())
    }

    fn check_workers(
        &self,
        running: &std::collections::BTreeMap<crate::task::WorkerIndex, u32>,
        now: Option<crate::time::Now>,
    ) -> Result<(), String> {
        for (index, worker) in self.workers.iter() {
            let name = &worker.name;
            for task in &worker.held {
                let hold = self.tasks.get(*task).and_then(|entry| entry.task.hold());
                if hold.is_none_or(|hold| hold.worker != index) {
                    return Err(format!("worker {name} holds task {task}, which is not assigned to it"));
                }
            }
            if running.get(&index).copied().unwrap_or(0) != worker.running {
                return Err(format!("worker {name}: {} running differ from states", worker.running));
            }
            if worker.session.is_some() && !worker.is_online() {
                return Err(format!("worker {name} has a socket and no lease"));
            }
            if !worker.outbox.is_empty() {
                return Err(format!("worker {name}: assignments were left in its outbox"));
            }
            if worker.has_slot() {
                for class in worker.served.iter().flatten() {
                    let class = self.classes.get(*class);
                    let keys = &class.requirement.keys;
                    let has_keys = match now {
                        Some(now) => self.concurrency.are_free(keys, now.mono),
                        None => keys.is_empty(),
                    };
                    if class.waiting() > 0 && has_keys && class.requirement.resources.fits(&worker.free) {
                        return Err(format!("worker {name} has a free slot while a task waits for it"));
                    }
                }
            }
        }
        Ok(())
    }

    /// Tasks in a worker's hands and the most that it may be given, for tests.
    #[must_use]
    pub fn credits(&self, worker: &str) -> Option<(u32, u32)> {
        let worker = &self.workers[self.workers.find(worker)?];
        Some((worker.held_count(), worker.slots.saturating_add(worker.prefetch)))
    }
}

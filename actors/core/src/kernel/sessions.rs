//! Workers coming, staying and going.

use std::sync::Arc;

use super::apply::key_of;
use super::classes::queue_key;
use super::timers::Timer;
use super::words::Effect;
use super::workers::Worker;
use super::{Kernel, Step};
use crate::attempt::{AttemptKey, Hello};
use crate::batch::OutcomeChange;
use crate::event::{Event, Happening, Subject};
use crate::ids::{BootId, SessionEpoch, TaskId};
use crate::limits;
use crate::rejection::Rejection;
use crate::task::{Command, Hold, WorkerIndex};
use crate::time::Now;

impl Kernel {
    pub(super) fn on_hello(&mut self, step: &mut Step, session: SessionEpoch, hello: &Hello) {
        if let Err(reason) = self.check_hello(hello) {
            step.effects.push(Effect::Refuse { session, reason });
            return;
        }
        let index = self.workers.find(&hello.worker).unwrap_or_else(|| self.register(step, hello));
        // A hello that was overtaken by that of a younger socket speaks of the past, even when
        // that socket is closed again: it may be of a life that is over.
        if self.workers[index].youngest > session {
            step.effects.push(Effect::Close { session });
            return;
        }
        let older = self.workers.close_session(index);
        if let Some(session) = older {
            step.effects.push(Effect::Close { session });
        }
        let is_reborn = self.workers[index].boot != hello.boot;
        self.workers[index].describe(hello, step.now.wall);
        self.workers.open_session(index, session);
        self.renew_lease(step.now, index);
        self.serve_classes(index);
        if older.is_none() || is_reborn {
            self.worker_event(step, index, Happening::WorkerOnline {});
            self.write_worker(step, index);
        }
        let (keep, stop) = self.reconcile(step, index, hello, is_reborn);
        // It hears nothing before its welcome; after that it asks again what it still wants to know.
        step.effects
            .retain(|effect| !matches!(effect, Effect::Answers { session: to, .. } if *to == session));
        self.recount_free(index);
        // What it was told while it was away, or what was lost on the way.
        let cancelling = self.held_of(&keep, |hold| hold.cancelling);
        let returning = self.held_of(&keep, |hold| hold.returning && !hold.cancelling);
        step.effects.push(Effect::Welcome { session, keep, stop });
        if !cancelling.is_empty() {
            step.effects.push(Effect::Cancel { session, keys: cancelling });
        }
        if !returning.is_empty() {
            step.effects.push(Effect::Return { session, keys: returning });
        }
        if self.workers[index].draining && !hello.draining {
            step.effects.push(Effect::Drain { session });
        }
        // Nobody could ask it for what waits there while it was away.
        if self.workers[index].backlog() > 0 {
            self.set_rebalance_timer(step.now.mono);
        }
        step.hungry.insert(index);
        step.urgent = true;
    }

    fn check_hello(&self, hello: &Hello) -> Result<(), String> {
        let name_is_fine = |name: &str| {
            !name.is_empty() && name.len() <= limits::NAME_BYTES && !name.chars().any(char::is_control)
        };
        if !name_is_fine(&hello.worker) {
            return Err(format!(
                "a worker's id has 1 to {} bytes and no control characters",
                limits::NAME_BYTES
            ));
        }
        if hello.slots == 0 || hello.slots > limits::SLOTS {
            return Err(format!("slots: allowed: 1 to {}", limits::SLOTS));
        }
        if hello.prefetch > limits::PREFETCH {
            return Err(format!("prefetch: allowed: 0 to {}", limits::PREFETCH));
        }
        if hello.groups.is_empty() || hello.groups.len() > limits::ENTRIES {
            return Err(format!("groups: allowed: 1 to {}", limits::ENTRIES));
        }
        if !hello.groups.iter().all(|group| name_is_fine(group)) {
            return Err(format!(
                "a group's name has 1 to {} bytes and no control characters",
                limits::NAME_BYTES
            ));
        }
        if hello.labels.len() > limits::ENTRIES || hello.handlers.len() > limits::ENTRIES {
            return Err(format!("labels, handlers: at most {}", limits::ENTRIES));
        }
        let is_text = |text: &str| text.len() <= limits::NAME_BYTES && !text.contains('\0');
        if !hello.labels.iter().all(|(key, value)| is_text(key) && is_text(value)) {
            return Err(format!("labels have at most {} bytes and no NUL", limits::NAME_BYTES));
        }
        if self.workers.len() >= limits::WORKERS && self.workers.find(&hello.worker).is_none() {
            return Err(format!("there are {} workers already", limits::WORKERS));
        }
        Ok(())
    }

    fn register(&mut self, step: &mut Step, hello: &Hello) -> WorkerIndex {
        let mut worker = Worker::new(Arc::clone(&hello.worker), step.now.wall);
        worker.boot = hello.boot;
        let index = self.workers.insert(worker);
        let groups = hello.groups.clone();
        self.worker_event(step, index, Happening::WorkerRegistered { groups, slots: hello.slots });
        index
    }

    /// Compares what a worker says it holds with what it should hold.
    ///
    /// | master \ worker | has it | has it not |
    /// | --- | --- | --- |
    /// | in its hands | keep | lost: the assignment or the worker's memory of it is gone |
    /// | lost, not given on | adopted | |
    /// | given on, settled or unknown | stop | |
    fn reconcile(
        &mut self,
        step: &mut Step,
        index: WorkerIndex,
        hello: &Hello,
        is_reborn: bool,
    ) -> (Vec<AttemptKey>, Vec<AttemptKey>) {
        let (mut keep, mut stop) = (Vec::new(), Vec::new());
        for held in &hello.running {
            let AttemptKey { task, attempt, fence } = held.key;
            let command = Command::Adopt { worker: index, attempt, fence, started: held.started };
            match self.command(step, task, command, OutcomeChange::Keep) {
                Ok(_) => keep.push(held.key),
                Err(_) => stop.push(held.key),
            }
        }
        let missing: Vec<TaskId> = self.workers[index]
            .held
            .iter()
            .copied()
            .filter(|task| {
                let current = self.tasks.get(*task).map(|entry| key_of(*task, &entry.task));
                !current.is_some_and(|key| keep.contains(&key))
            })
            .collect();
        let reason: Arc<str> = if is_reborn {
            "the worker was started anew".into()
        } else {
            "the worker came back without it".into()
        };
        let begun = if is_reborn { self.may_have_begun(index) } else { Vec::new() };
        for task in missing {
            self.lose(step, task, &reason, begun.contains(&task));
        }
        (keep, stop)
    }

    /// Those of the attempts whose hold is such.
    fn held_of(&self, keys: &[AttemptKey], is_such: impl Fn(&Hold) -> bool) -> Vec<AttemptKey> {
        let hold = |task: TaskId| self.tasks.get(task).and_then(|entry| entry.task.hold());
        keys.iter().copied().filter(|key| hold(key.task).is_some_and(&is_such)).collect()
    }

    fn lose(&mut self, step: &mut Step, task: TaskId, reason: &Arc<str>, may_have_begun: bool) {
        let command = Command::Lose { reason: Arc::clone(reason), may_have_begun };
        let lost = self.command(step, task, command, OutcomeChange::Keep);
        debug_assert!(lost.is_ok(), "a worker holds only assigned tasks: {lost:?}");
    }

    fn lose_all(&mut self, step: &mut Step, index: WorkerIndex, reason: &Arc<str>) {
        let begun = self.may_have_begun(index);
        for task in std::mem::take(&mut self.workers[index].held) {
            self.workers[index].held.insert(task);
            self.lose(step, task, reason, begun.contains(&task));
        }
    }

    /// Tasks of a worker that is dead that may have begun without a word: a busy worker tells of
    /// starts a few milliseconds late. It begins them in the order of their ranks, so that these
    /// are the first ones, as many as it has slots. Without this, a task that kills its worker at
    /// once would never be counted.
    fn may_have_begun(&self, index: WorkerIndex) -> Vec<TaskId> {
        let worker = &self.workers[index];
        let mut waiting: Vec<(i64, TaskId)> = Vec::new();
        for task in &worker.held {
            if let Some(entry) = self.tasks.get(*task)
                && entry.task.hold().is_some_and(|hold| hold.started_at.is_none())
            {
                waiting.push((queue_key(entry.task.ready_at, entry.task.priority), *task));
            }
        }
        waiting.sort_unstable();
        let slots = usize::try_from(worker.slots).unwrap_or(usize::MAX);
        waiting.into_iter().take(slots).map(|(_, task)| task).collect()
    }

    /// Works out anew which classes the worker serves.
    fn serve_classes(&mut self, index: WorkerIndex) {
        let groups = self.workers[index].groups.len();
        self.workers[index].served = vec![Vec::new(); groups];
        self.workers[index].turn = 0;
        let classes: Vec<_> = self.classes.iter().map(|(class, _)| class).collect();
        for class in classes {
            self.offer_class(index, class);
        }
    }

    /// Works out anew what the worker has free, since a hello may change what it has in all.
    pub(super) fn recount_free(&mut self, index: WorkerIndex) {
        let mut free = self.workers[index].total.clone();
        let mut overdrawn = false;
        for task in &self.workers[index].held {
            if let Some(entry) = self.tasks.get(*task) {
                let resources = &self.classes.get(entry.class).requirement.resources;
                overdrawn |= !resources.fits(&free);
                free.take(resources);
            }
        }
        self.workers[index].free = free;
        self.workers[index].overdrawn = overdrawn;
    }

    /// Any frame is a sign of life.
    pub(super) fn on_heard(&mut self, now: Now, session: SessionEpoch) {
        if let Some(index) = self.workers.of_session(session) {
            self.renew_lease(now, index);
        }
    }

    pub(super) fn renew_lease(&mut self, now: Now, index: WorkerIndex) {
        let until = now.mono.plus_ms(self.settings.lease_ms);
        let margin_ms = self.settings.lease_margin_ms;
        let worker = &mut self.workers[index];
        worker.lease_until = Some(until);
        if !worker.lease_timer {
            worker.lease_timer = true;
            self.timers.set(until.plus_ms(margin_ms), Timer::Lease(index));
        }
    }

    /// A lease's timer has come: either the lease was renewed since, or the worker is lost.
    pub(super) fn check_lease(&mut self, step: &mut Step, index: WorkerIndex) {
        self.workers[index].lease_timer = false;
        let Some(until) = self.workers[index].lease_until else { return };
        let end = until.plus_ms(self.settings.lease_margin_ms);
        if end > step.now.mono {
            self.workers[index].lease_timer = true;
            self.timers.set(end, Timer::Lease(index));
            return;
        }
        self.take_offline(step, index, "its lease has passed");
    }

    /// Ends a worker's lease: its attempts are lost, its socket is shut.
    fn take_offline(&mut self, step: &mut Step, index: WorkerIndex, reason: &str) {
        let reason: Arc<str> = reason.into();
        if let Some(session) = self.workers.close_session(index) {
            step.effects.push(Effect::Close { session });
        }
        if self.workers[index].lease_until.take().is_some() {
            self.worker_event(step, index, Happening::WorkerOffline { reason: Arc::clone(&reason) });
        }
        self.lose_all(step, index, &reason);
        self.workers[index].changed_at = step.now.wall;
        self.write_worker(step, index);
        step.urgent = true;
    }

    pub(super) fn on_disconnected(&mut self, step: &mut Step, session: SessionEpoch) {
        let Some(index) = self.workers.of_session(session) else { return };
        self.workers.close_session(index);
        self.workers[index].changed_at = step.now.wall;
        self.worker_event(step, index, Happening::WorkerDisconnected {});
    }

    pub(super) fn on_draining(&mut self, step: &mut Step, session: SessionEpoch) {
        if let Some(index) = self.workers.of_session(session) {
            self.start_draining(step, index);
        }
    }

    pub(super) fn start_draining(&mut self, step: &mut Step, index: WorkerIndex) {
        if !self.workers[index].draining {
            self.workers[index].draining = true;
            self.workers[index].changed_at = step.now.wall;
            self.worker_event(step, index, Happening::WorkerDraining {});
            self.write_worker(step, index);
            step.urgent = true;
        }
    }

    pub(super) fn on_goodbye(&mut self, step: &mut Step, session: SessionEpoch) {
        if let Some(index) = self.workers.of_session(session) {
            self.take_offline(step, index, "it said good-bye");
        }
    }

    /// A warden says that every process of a worker's life is dead.
    pub(super) fn on_worker_dead(
        &mut self,
        step: &mut Step,
        name: &Arc<str>,
        boot: BootId,
    ) -> Result<(), Rejection> {
        let index = self.workers.find(name).ok_or_else(|| Rejection::UnknownWorker(Arc::clone(name)))?;
        if self.workers[index].boot == boot && self.workers[index].is_online() {
            self.take_offline(step, index, "its warden says that it is dead");
        }
        Ok(())
    }

    pub(super) fn worker_event(&self, step: &mut Step, index: WorkerIndex, happening: Happening) {
        let subject = Subject::Worker(Arc::clone(&self.workers[index].name));
        step.batch.events.push(Event { at: step.now.wall, subject, happening });
    }

    pub(super) fn write_worker(&self, step: &mut Step, index: WorkerIndex) {
        step.batch.workers.push(self.workers[index].row());
    }
}

//! Which task goes to which worker.
//!
//! Workers pull: after each step, those that may have become able to take something (their hands
//! got freer, or a task that suits them became ready) take tasks one by one, the least loaded
//! first, until nobody can take more. First free slots are filled everywhere, then credits beyond
//! the slots, so that no task waits at a busy worker while another is idle.
//!
//! A worker serves its groups in turn (deficit round-robin with equal weights and a cost of one).
//! Within a group the task with the smallest queue key goes first.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::apply::is_waiting;
use super::classes::ClassIndex;
use super::words::Effect;
use super::{Kernel, Step};
use crate::batch::OutcomeChange;
use crate::ids::TaskId;
use crate::task::{Command, TaskEvent, WorkerIndex};

/// What a worker's free hands are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Room {
    /// A slot: the task begins at once.
    Slot,
    /// A credit beyond the slots: the task waits there.
    Credit,
}

impl Kernel {
    /// Hands out what can be handed out.
    pub(super) fn place(&mut self, step: &mut Step) {
        if step.hungry.is_empty() {
            return;
        }
        let hungry: Vec<WorkerIndex> = std::mem::take(&mut step.hungry).into_iter().collect();
        step.woken.clear();
        self.fill(step, &hungry, Room::Slot);
        self.fill(step, &hungry, Room::Credit);
        for &index in &hungry {
            let worker = &mut self.workers[index];
            let idle = worker.has_slot();
            if let Some(session) = worker.session
                && !worker.outbox.is_empty()
            {
                let tasks = std::mem::take(&mut worker.outbox);
                step.effects.push(Effect::Assign { session, tasks });
            }
            if idle && self.workers.iter().any(|(other, worker)| other != index && worker.backlog() > 0) {
                self.set_rebalance_timer(step.now.mono);
            }
        }
        step.hungry.clear();
    }

    fn fill(&mut self, step: &mut Step, hungry: &[WorkerIndex], room: Room) {
        let has_room = |kernel: &Self, index: WorkerIndex| match room {
            Room::Slot => kernel.workers[index].has_slot(),
            Room::Credit => kernel.workers[index].has_credit(),
        };
        let mut takers: BinaryHeap<Reverse<(u64, WorkerIndex)>> = hungry
            .iter()
            .filter(|index| has_room(self, **index))
            .map(|index| Reverse((self.workers[*index].load(), *index)))
            .collect();
        while let Some(Reverse((_, index))) = takers.pop() {
            let Some(task) = self.next_for(step, index, room) else { continue };
            let event = TaskEvent::Assigned { worker: index, at: step.now.wall };
            self.happen(step, task, &event, OutcomeChange::Keep);
            if has_room(self, index) {
                takers.push(Reverse((self.workers[index].load(), index)));
            }
        }
    }

    /// Takes the task that a worker should have next out of its queue.
    fn next_for(&mut self, step: &mut Step, index: WorkerIndex, room: Room) -> Option<TaskId> {
        let groups = self.workers[index].served.len();
        for offset in 0..groups {
            let group = (self.workers[index].turn + offset) % groups;
            if let Some(class) = self.first_class(step, index, group, room) {
                self.workers[index].turn = (group + 1) % groups;
                return self.classes.pop(class);
            }
        }
        None
    }

    /// Of a group's classes that the worker can run now, the one whose first task is the most
    /// urgent.
    fn first_class(
        &mut self,
        step: &mut Step,
        index: WorkerIndex,
        group: usize,
        room: Room,
    ) -> Option<ClassIndex> {
        let now = step.now.mono;
        let worker = &self.workers[index];
        let mut best: Option<(i64, ClassIndex)> = None;
        let mut waiting = Vec::new();
        let mut locking = Vec::new();
        for &class in &worker.served[group] {
            if self.classes.get(class).waiting() == 0 {
                continue;
            }
            let requirement = &self.classes.get(class).requirement;
            if !requirement.keys.is_empty() {
                // A key is not kept waiting either.
                if room == Room::Credit {
                    continue;
                }
                if !self.concurrency.are_free(&requirement.keys, now) {
                    waiting.push(class);
                    continue;
                }
            }
            let resources = &requirement.resources;
            // What occupies resources is not kept waiting where it would occupy them idly.
            if !resources.is_empty() && (room == Room::Credit || !resources.fits(&worker.free)) {
                continue;
            }
            if requirement.locks {
                // Neither are locks.
                if room == Room::Slot {
                    locking.push(class);
                }
                continue;
            }
            let tasks = &self.tasks;
            let first = self.classes.first(class, |task, key| is_waiting(tasks, class, task, key));
            if let Some((key, _)) = first
                && best.is_none_or(|(least, _)| key < least)
            {
                best = Some((key, class));
            }
        }
        for class in locking {
            if let Some(key) = self.first_with_locks(step, class)
                && best.is_none_or(|(least, _)| key < least)
            {
                best = Some((key, class));
            }
        }
        for class in waiting {
            self.await_keys(now, class);
        }
        best.map(|(_, class)| class)
    }

    /// The first of a class whose locks can be granted now. Those before it are parked until that may be
    /// so for them.
    fn first_with_locks(&mut self, step: &mut Step, class: ClassIndex) -> Option<i64> {
        loop {
            let tasks = &self.tasks;
            let first = self.classes.first(class, |task, key| is_waiting(tasks, class, task, key));
            let (key, task) = first?;
            if self.can_lock_or_park(step, task) {
                return Some(key);
            }
        }
    }

    /// Puts the workers that serve a class on the list of those to look at.
    pub(super) fn wake_workers(&self, step: &mut Step, class: ClassIndex) {
        if !step.woken.insert(class) {
            return;
        }
        for (index, worker) in self.workers.iter() {
            if worker.has_credit() && worker.served.iter().any(|classes| classes.contains(&class)) {
                step.hungry.insert(index);
            }
        }
    }

    /// Tells a worker of a class that is new, or a class of a worker that is.
    pub(super) fn offer_class(&mut self, index: WorkerIndex, class: ClassIndex) {
        let requirement = &self.classes.get(class).requirement;
        let worker = &mut self.workers[index];
        if worker.suits(requirement).is_ok()
            && let Some(group) = worker.groups.iter().position(|group| *group == requirement.group)
            && let Some(served) = worker.served.get_mut(group)
            && !served.contains(&class)
        {
            served.push(class);
        }
    }

    /// Counts one live task of a class less; a class without tasks is forgotten everywhere.
    pub(super) fn leave_class(&mut self, class: ClassIndex) {
        let keys = self.classes.get(class).requirement.keys.clone();
        if self.classes.leave(class) {
            self.concurrency.leave_class(class, &keys);
            for index in self.workers.indices() {
                for served in &mut self.workers[index].served {
                    served.retain(|other| *other != class);
                }
            }
        }
    }

    /// Asks busy workers for tasks that have not begun, where an idle worker could begin them.
    pub(super) fn rebalance(&mut self, step: &mut Step) {
        let idle: Vec<WorkerIndex> =
            self.workers.iter().filter(|(_, worker)| worker.has_slot()).map(|(index, _)| index).collect();
        for index in idle {
            let free = self.workers[index].slots - self.workers[index].held_count();
            for task in self.movable_to(index, free as usize) {
                // A task that has begun meanwhile says so; it stays where it is.
                let asked = self.command(step, task, Command::AskBack, OutcomeChange::Keep);
                debug_assert!(asked.is_ok(), "{asked:?}");
            }
        }
    }

    /// Tasks that wait at other workers and that this one could begin: from the fullest worker,
    /// the latest first.
    fn movable_to(&self, idle: WorkerIndex, limit: usize) -> Vec<TaskId> {
        let mut busy: Vec<_> = self
            .workers
            .iter()
            .filter(|(index, worker)| *index != idle && worker.backlog() > 0 && worker.session.is_some())
            .collect();
        busy.sort_by_key(|(index, worker)| (Reverse(worker.load()), *index));
        let mut movable = Vec::new();
        for (_, worker) in busy {
            let wanted = (worker.backlog() as usize).min(limit - movable.len());
            let candidates = worker.held.iter().rev().copied().filter(|task| self.is_movable(*task, idle));
            movable.extend(candidates.take(wanted));
            if movable.len() >= limit {
                break;
            }
        }
        movable
    }

    fn is_movable(&self, task: TaskId, idle: WorkerIndex) -> bool {
        self.tasks.get(task).is_some_and(|entry| {
            let waits = entry
                .task
                .hold()
                .is_some_and(|hold| hold.started_at.is_none() && !hold.cancelling && !hold.returning);
            waits && self.workers[idle].suits(&self.classes.get(entry.class).requirement).is_ok()
        })
    }
}

//! New tasks.

use std::collections::VecDeque;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::classes::{ClassIndex, Requirement};
use super::table::Entry;
use super::words::{Answer, NewTask, PreparedSpec, Reply, SubmitKey};
use super::{Kernel, Step};
use crate::batch::{KeyHash, KeyRow, OutcomeChange, SpecRow, TaskBirth};
use crate::event::Happening;
use crate::ids::TaskId;
use crate::limits;
use crate::rejection::Rejection;
use crate::spec::Payload;
use crate::status::Status;
use crate::task::{Phase, Task, TaskEvent};
use crate::time::{Mono, Wall};

/// Idempotency keys of the last minute. Older ones are found in the database before the kernel is
/// asked.
#[derive(Debug, Default)]
pub(crate) struct RecentKeys {
    by_key: FxHashMap<KeyHash, Recent>,
    by_age: VecDeque<(Mono, KeyHash)>,
}

#[derive(Clone, Copy, Debug)]
struct Recent {
    body: KeyHash,
    first: TaskId,
    count: u32,
    at: Wall,
}

impl RecentKeys {
    fn expire(&mut self, now: Mono) {
        while let Some((at, key)) = self.by_age.front()
            && at.plus_ms(limits::IDEMPOTENCY_MEMORY_MS) <= now
        {
            self.by_key.remove(key);
            self.by_age.pop_front();
        }
    }
}

impl Kernel {
    pub(super) fn on_submit(
        &mut self,
        step: &mut Step,
        tasks: Vec<NewTask>,
        key: Option<SubmitKey>,
    ) -> Reply {
        if let Some(key) = key {
            self.keys.expire(step.now.mono);
            if let Some(recent) = self.keys.by_key.get(&key.key) {
                if recent.body != key.body {
                    return Err(Rejection::KeyConflict);
                }
                let Recent { first, count, at, .. } = *recent;
                return Ok(Answer::Submitted { first, count, at, replayed: true });
            }
            if self.keys.by_key.len() >= limits::IDEMPOTENCY_MEMORY {
                return Err(Rejection::Limit {
                    what: "idempotency keys a minute",
                    limit: limits::IDEMPOTENCY_MEMORY,
                });
            }
        }
        self.check_room(tasks.len())?;
        let first = self.counters.last_task.next();
        let count = u32::try_from(tasks.len()).unwrap_or(u32::MAX);
        // Neighbours in a submission mostly need the same.
        let mut known: Option<(Arc<PreparedSpec>, Arc<str>, ClassIndex)> = None;
        for new in tasks {
            let class = match &known {
                Some((spec, group, class)) if Arc::ptr_eq(spec, &new.spec) && *group == new.group => {
                    self.classes.join(*class);
                    *class
                }
                _ => self.enter_class(step, Requirement::of(&new.group, &new.spec.spec)),
            };
            // A milestone settles at once and may take its class with it.
            known = (new.spec.spec.payload != Payload::Milestone)
                .then(|| (Arc::clone(&new.spec), Arc::clone(&new.group), class));
            self.create(step, new, class);
        }
        if let Some(key) = key {
            let at = step.now.wall;
            step.batch.keys.push(KeyRow { key: key.key, body: key.body, first, count, at });
            self.keys.by_key.insert(key.key, Recent { body: key.body, first, count, at });
            self.keys.by_age.push_back((step.now.mono, key.key));
        }
        step.urgent = true;
        Ok(Answer::Submitted { first, count, at: step.now.wall, replayed: false })
    }

    fn check_room(&self, more: usize) -> Result<(), Rejection> {
        if self.tasks.len() + more > self.settings.live_tasks {
            return Err(Rejection::Limit {
                what: "tasks that are not settled",
                limit: self.settings.live_tasks,
            });
        }
        if self.classes.len() >= limits::CLASSES {
            return Err(Rejection::Limit { what: "different requirements", limit: limits::CLASSES });
        }
        Ok(())
    }

    fn create(&mut self, step: &mut Step, new: NewTask, class: ClassIndex) {
        let id = self.counters.last_task.next();
        self.counters.last_task = id;
        let (spec, is_new) = self.specs.enter(&new.spec);
        if is_new {
            step.batch.specs.push(SpecRow { hash: new.spec.hash, body: Arc::clone(&new.spec.body) });
        }
        let task = Task::new(step.now.wall, new.not_before, new.priority);
        let (ready, milestone) = (task.is_ready(), new.spec.spec.payload == Payload::Milestone);
        self.count(None, Some(task.status()));
        self.tasks.insert(id, Entry { task, spec, class });
        step.task_event(id, Happening::TaskCreated { group: new.group, priority: new.priority });
        let birth = TaskBirth { spec: new.spec.hash, title: new.title, created_at: step.now.wall };
        self.write(step, id, Some(Box::new(birth)), OutcomeChange::Keep);
        if milestone && ready {
            let event = TaskEvent::Settled { status: Status::Completed, started_at: None, error: None };
            self.enqueue(step, id);
            self.happen(step, id, &event, OutcomeChange::Keep);
        } else if ready {
            self.enqueue(step, id);
        } else {
            self.set_wake_timer(step, id);
        }
    }

    /// Counts one more task of a requirement; tells the workers of a new one.
    pub(super) fn enter_class(&mut self, step: &mut Step, requirement: Requirement) -> ClassIndex {
        let (class, is_new) = self.classes.enter(requirement);
        if is_new {
            // Its position may have been that of a class that left in this very step.
            step.woken.remove(&class);
            for worker in self.workers.indices() {
                self.offer_class(worker, class);
            }
        }
        class
    }

    /// Puts a ready task into its queue and its workers on the list of those to look at. A
    /// milestone needs neither: it settles.
    pub(super) fn enqueue(&mut self, step: &mut Step, id: TaskId) {
        let Some(entry) = self.tasks.get(id) else { return };
        debug_assert!(matches!(entry.task.phase, Phase::Ready(_)));
        let key = super::classes::queue_key(entry.task.ready_at, entry.task.priority);
        let class = entry.class;
        self.classes.push(class, key, id);
        self.set_queue_timer(step, id);
        self.wake_workers(step, class);
    }
}

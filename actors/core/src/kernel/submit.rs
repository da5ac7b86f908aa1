//! New tasks.

use std::collections::VecDeque;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::classes::{ClassIndex, Requirement};
use super::table::Entry;
use super::words::{Answer, NewTask, PreparedSpec, Reply, SubmitKey};
use super::{Kernel, Step};
use crate::batch::{KeyHash, KeyRow, OutcomeChange, RunNode, TaskBirth};
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

/// What a key was used for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Recent {
    body: KeyHash,
    pub(crate) first: TaskId,
    count: u32,
    at: Wall,
}

impl Recent {
    pub(crate) fn at(&self) -> Wall {
        self.at
    }
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

    /// What the key was used for, if it was.
    pub(crate) fn recent(&mut self, now: Mono, key: SubmitKey) -> Result<Option<Recent>, Rejection> {
        self.expire(now);
        match self.by_key.get(&key.key) {
            Some(recent) if recent.body != key.body => Err(Rejection::KeyConflict),
            Some(recent) => Ok(Some(*recent)),
            None if self.by_key.len() >= limits::IDEMPOTENCY_MEMORY => {
                Err(Rejection::Limit { what: "idempotency keys a minute", limit: limits::IDEMPOTENCY_MEMORY })
            }
            None => Ok(None),
        }
    }

    /// Keeps what a key was used for, and has it written.
    pub(crate) fn remember(&mut self, step: &mut Step, key: SubmitKey, first: TaskId, count: u32) {
        let at = step.now.wall;
        step.batch.keys.push(KeyRow { key: key.key, body: key.body, first, count, at });
        self.by_key.insert(key.key, Recent { body: key.body, first, count, at });
        self.by_age.push_back((step.now.mono, key.key));
    }
}

/// Where a new task stands first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Begin {
    /// Ready, now or at its time.
    Ready,
    /// It waits for others.
    Blocked,
    /// It waits for an approval.
    Gate,
}

/// Which task it is.
#[derive(Debug)]
pub(crate) struct Origin {
    pub(crate) id: TaskId,
    pub(crate) run: Option<RunNode>,
}

impl Kernel {
    pub(super) fn on_submit(
        &mut self,
        step: &mut Step,
        tasks: Vec<NewTask>,
        key: Option<SubmitKey>,
    ) -> Reply {
        if let Some(key) = key
            && let Some(recent) = self.keys.recent(step.now.mono, key)?
        {
            let Recent { first, count, at, .. } = recent;
            return Ok(Answer::Submitted { first, count, at, replayed: true });
        }
        self.check_room(tasks.len())?;
        self.check_needs(&tasks)?;
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
            // A task that settles at once may take its class with it.
            let is_plain = new.spec.spec.payload != Payload::Milestone && new.needs.is_empty();
            known = is_plain.then(|| (Arc::clone(&new.spec), Arc::clone(&new.group), class));
            let id = self.counters.last_task.next();
            self.counters.last_task = id;
            self.create_related(step, new, class, id)?;
        }
        if let Some(key) = key {
            self.keys.remember(step, key, first, count);
        }
        step.urgent = true;
        Ok(Answer::Submitted { first, count, at: step.now.wall, replayed: false })
    }

    pub(super) fn check_room(&self, more: usize) -> Result<(), Rejection> {
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

    /// Every predecessor is live or known to have ended, so that nothing fails half-way.
    fn check_needs(&self, tasks: &[NewTask]) -> Result<(), Rejection> {
        let mut related = 0;
        for predecessor in tasks.iter().flat_map(|task| &task.needs) {
            related += 1;
            if self.tasks.get(predecessor.task).is_none() && !self.has_ended(predecessor) {
                let is_known = predecessor.task.0 > 0 && predecessor.task <= self.counters.last_task;
                return Err(match is_known {
                    true => Rejection::JustEnded(predecessor.task),
                    false => Rejection::UnknownTask(predecessor.task),
                });
            }
        }
        if related > 0 && self.relations.len() + 2 * related > limits::RELATED_TASKS {
            return Err(Rejection::Limit { what: "related tasks", limit: limits::RELATED_TASKS });
        }
        Ok(())
    }

    fn create_related(
        &mut self,
        step: &mut Step,
        mut new: NewTask,
        class: ClassIndex,
        id: TaskId,
    ) -> Result<(), Rejection> {
        let (hold, needs) = (new.hold, std::mem::take(&mut new.needs));
        let is_plain = !hold && needs.is_empty();
        let begin = if is_plain { Begin::Ready } else { Begin::Blocked };
        if hold {
            // Before its row is written, so that it says so.
            self.relations.hold(id);
        }
        self.create(step, new, class, Origin { id, run: None }, begin);
        if is_plain { Ok(()) } else { self.enter_relations(step, id, &needs) }
    }

    /// Brings a new task into the population.
    pub(super) fn create(
        &mut self,
        step: &mut Step,
        new: NewTask,
        class: ClassIndex,
        origin: Origin,
        begin: Begin,
    ) {
        let Origin { id, run } = origin;
        let (spec, is_new) = self.specs.enter(&new.spec);
        if is_new {
            step.write_spec(&new.spec);
        }
        let mut task = Task::new(step.now.wall, new.not_before, new.priority);
        match begin {
            Begin::Ready => {}
            Begin::Blocked => task.phase = Phase::Blocked,
            Begin::Gate => task.phase = Phase::Gate,
        }
        let (ready, milestone) = (task.is_ready(), new.spec.spec.payload == Payload::Milestone);
        self.count(None, Some(task.status()));
        self.tasks.insert(id, Entry { task, spec, class, parked: false });
        let happening = Happening::TaskCreated {
            group: new.group,
            priority: new.priority,
            run: run.as_ref().map(|run| run.run),
            node: run.as_ref().map(|run| Arc::clone(&run.node)),
        };
        step.task_event(id, happening);
        let birth = TaskBirth { spec: new.spec.hash, title: new.title, created_at: step.now.wall, run };
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

    /// Counts one more task of what a new task requires.
    pub(super) fn enter_class_of(&mut self, step: &mut Step, new: &NewTask) -> ClassIndex {
        self.enter_class(step, Requirement::of(&new.group, &new.spec.spec))
    }

    /// Counts one more task of a requirement; tells the workers of a new one.
    pub(super) fn enter_class(&mut self, step: &mut Step, requirement: Requirement) -> ClassIndex {
        let (class, is_new) = self.classes.enter(requirement);
        if is_new {
            let keys = self.classes.get(class).requirement.keys.clone();
            self.concurrency.enter_class(class, &keys);
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

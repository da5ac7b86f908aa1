//! Requirement classes: tasks that the same workers can run share one queue, so that what nobody
//! can run blocks nothing else.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::Arc;

use crate::ids::TaskId;
use crate::limits::PRIORITY_POINT_US;
use crate::spec::{Payload, Resources, Sandbox, Spec};
use crate::time::Wall;

/// Position in the table.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct ClassIndex(pub(crate) u32);

/// What a worker must be and have.
#[derive(Clone, PartialEq, Debug)]
pub struct Requirement {
    /// The group that it must serve.
    pub group: Arc<str>,
    /// Labels that it must have.
    pub labels: BTreeMap<String, String>,
    /// What it must have free.
    pub resources: Resources,
    /// The handler that it must have.
    pub handler: Option<String>,
    /// Whether it must have a sandbox.
    pub sandbox: bool,
    /// Concurrency keys: not the worker's affair, but what cannot be had blocks nothing else.
    pub keys: Vec<Arc<str>>,
    /// Whether it locks files: not the worker's affair either.
    pub locks: bool,
}

impl Requirement {
    /// What a task of that group and specification needs.
    #[must_use]
    pub fn of(group: &Arc<str>, spec: &Spec) -> Self {
        Self {
            group: Arc::clone(group),
            labels: spec.labels.clone(),
            resources: spec.resources.clone(),
            handler: match &spec.payload {
                Payload::Handler { name, .. } => Some(name.clone()),
                _ => None,
            },
            sandbox: spec.sandbox == Sandbox::Required,
            keys: spec.concurrency_keys.iter().map(|key| key.as_str().into()).collect(),
            locks: !spec.locks.is_empty(),
        }
    }

    /// A text that differs whenever the requirement does.
    fn key(&self) -> String {
        let Self { group, labels, resources, handler, sandbox, keys, locks } = self;
        format!("{group:?} {labels:?} {resources:?} {handler:?} {sandbox} {keys:?} {locks}")
    }
}

/// The position of a ready task in its queue: earlier keys are served first.
pub(crate) fn queue_key(ready_at: Wall, priority: u8) -> i64 {
    ready_at.0.saturating_sub(i64::from(priority) * PRIORITY_POINT_US)
}

/// A requirement and the tasks that wait for it.
#[derive(Debug)]
pub(crate) struct Class {
    pub(crate) requirement: Requirement,
    /// Live tasks, waiting or not.
    users: u32,
    /// Waiting tasks; entries of tasks that left otherwise than by `pop` stay behind as husks.
    queue: BinaryHeap<Reverse<(i64, TaskId)>>,
    /// Entries that are no husks.
    waiting: u32,
}

impl Class {
    /// Tasks that wait.
    pub(crate) fn waiting(&self) -> u32 {
        self.waiting
    }
}

/// The table. A class leaves with its last live task.
#[derive(Debug, Default)]
pub(crate) struct ClassTable {
    slots: Vec<Option<Class>>,
    free: Vec<u32>,
    by_key: BTreeMap<String, u32>,
    /// Classes by group, in the order of their positions.
    by_group: BTreeMap<Arc<str>, Vec<ClassIndex>>,
}

impl ClassTable {
    /// Counts one more live task of a class. The flag says whether the class is new, so that the
    /// workers must be asked whether they serve it.
    pub(crate) fn enter(&mut self, requirement: Requirement) -> (ClassIndex, bool) {
        let key = requirement.key();
        if let Some(&index) = self.by_key.get(&key) {
            self.join(ClassIndex(index));
            return (ClassIndex(index), false);
        }
        let group = Arc::clone(&requirement.group);
        let class = Class { requirement, users: 1, queue: BinaryHeap::new(), waiting: 0 };
        let index = if let Some(index) = self.free.pop() {
            self.slots[index as usize] = Some(class);
            index
        } else {
            self.slots.push(Some(class));
            u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX)
        };
        self.by_key.insert(key, index);
        self.by_group.entry(group).or_default().push(ClassIndex(index));
        (ClassIndex(index), true)
    }

    /// Counts one more live task of a class that is known to be there.
    pub(crate) fn join(&mut self, index: ClassIndex) {
        self.get_mut(index).users += 1;
    }

    /// Counts one live task less. The answer says whether the class is gone.
    pub(crate) fn leave(&mut self, index: ClassIndex) -> bool {
        let class = self.get_mut(index);
        class.users -= 1;
        if class.users > 0 {
            return false;
        }
        let requirement = class.requirement.clone();
        self.by_key.remove(&requirement.key());
        if let Some(classes) = self.by_group.get_mut(&requirement.group) {
            classes.retain(|other| *other != index);
            if classes.is_empty() {
                self.by_group.remove(&requirement.group);
            }
        }
        self.slots[index.0 as usize] = None;
        self.free.push(index.0);
        true
    }

    /// A class in use.
    pub(crate) fn get(&self, index: ClassIndex) -> &Class {
        match &self.slots[index.0 as usize] {
            Some(class) => class,
            None => unreachable!("a live task's class is kept"),
        }
    }

    fn get_mut(&mut self, index: ClassIndex) -> &mut Class {
        match &mut self.slots[index.0 as usize] {
            Some(class) => class,
            None => unreachable!("a live task's class is kept"),
        }
    }

    /// All classes.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (ClassIndex, &Class)> {
        (0..).zip(&self.slots).filter_map(|(index, slot)| Some((ClassIndex(index), slot.as_ref()?)))
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.by_key.len()
    }

    /// Puts a task into its queue.
    pub(crate) fn push(&mut self, index: ClassIndex, key: i64, task: TaskId) {
        let class = self.get_mut(index);
        class.queue.push(Reverse((key, task)));
        class.waiting += 1;
    }

    /// Notes that a waiting task left its queue. Its entry stays behind; when husks outnumber the
    /// rest, all are swept out with `is_waiting`.
    pub(crate) fn forget(&mut self, index: ClassIndex, is_waiting: impl Fn(TaskId, i64) -> bool) {
        let class = self.get_mut(index);
        class.waiting -= 1;
        if class.queue.len() > 64 && class.queue.len() > 2 * class.waiting as usize {
            class.queue.retain(|Reverse((key, task))| is_waiting(*task, *key));
        }
    }

    /// The first waiting task with its key; drops husks on the way.
    pub(crate) fn first(
        &mut self,
        index: ClassIndex,
        is_waiting: impl Fn(TaskId, i64) -> bool,
    ) -> Option<(i64, TaskId)> {
        let class = self.get_mut(index);
        while let Some(Reverse((key, task))) = class.queue.peek() {
            if is_waiting(*task, *key) {
                return Some((*key, *task));
            }
            class.queue.pop();
        }
        None
    }

    /// Takes the first waiting task, as found by [`Self::first`] just before.
    pub(crate) fn pop(&mut self, index: ClassIndex) -> Option<TaskId> {
        let class = self.get_mut(index);
        let Reverse((_, task)) = class.queue.pop()?;
        class.waiting -= 1;
        Some(task)
    }
}

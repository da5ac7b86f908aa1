//! Workers as the kernel knows them: what they are, what they hold, how long their lease runs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::classes::{ClassIndex, Requirement};
use super::words::{Assigned, WorkerInfo};
use crate::attempt::{Hello, LOCKS_VERSION};
use crate::batch::WorkerRow;
use crate::ids::{BootId, SessionEpoch, TaskId};
use crate::spec::Resources;
use crate::task::WorkerIndex;
use crate::time::{Mono, Wall};

/// A worker, here or away.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) name: Arc<str>,
    pub(crate) boot: BootId,
    pub(crate) groups: Vec<Arc<str>>,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) handlers: BTreeSet<String>,
    pub(crate) sandbox: bool,
    /// Whether it knows what locks are: it stops whoever holds some before its lease ends.
    pub(crate) locks: bool,
    pub(crate) total: Resources,
    pub(crate) free: Resources,
    /// Whether more is occupied than it has, so that what is given back is not free: an attempt that
    /// was given away as an older version counts as what its task is now when the next master finds it.
    pub(crate) overdrawn: bool,
    pub(crate) slots: u32,
    pub(crate) prefetch: u32,
    pub(crate) draining: bool,
    pub(crate) registered_at: Wall,
    pub(crate) changed_at: Wall,
    /// The open socket.
    pub(crate) session: Option<SessionEpoch>,
    /// The latest socket on which it said hello, open or not.
    pub(crate) youngest: SessionEpoch,
    /// When the lease ends; `None` when the worker is offline.
    pub(crate) lease_until: Option<Mono>,
    /// Whether a timer for the lease is set.
    pub(crate) lease_timer: bool,
    /// Tasks in its hands. Ordered, so that simulations repeat.
    pub(crate) held: BTreeSet<TaskId>,
    /// How many of them have begun.
    pub(crate) running: u32,
    /// Classes that it can run, by group, in the order of `groups`.
    pub(crate) served: Vec<Vec<ClassIndex>>,
    /// The group whose turn it is: groups share a worker equally.
    pub(crate) turn: usize,
    /// Assignments of the present step.
    pub(crate) outbox: Vec<Assigned>,
}

impl Worker {
    pub(crate) fn new(name: Arc<str>, now: Wall) -> Self {
        Self {
            name,
            boot: BootId(0),
            groups: Vec::new(),
            labels: BTreeMap::new(),
            handlers: BTreeSet::new(),
            sandbox: false,
            locks: false,
            total: Resources::default(),
            free: Resources::default(),
            overdrawn: false,
            slots: 0,
            prefetch: 0,
            draining: false,
            registered_at: now,
            changed_at: now,
            session: None,
            youngest: SessionEpoch::default(),
            lease_until: None,
            lease_timer: false,
            held: BTreeSet::new(),
            running: 0,
            served: Vec::new(),
            turn: 0,
            outbox: Vec::new(),
        }
    }

    /// A worker as it was last written. What it can do is learned from its next hello.
    pub(crate) fn from_row(row: WorkerRow) -> Self {
        Self {
            boot: row.boot,
            groups: row.groups,
            labels: row.labels,
            slots: row.slots,
            prefetch: row.prefetch,
            draining: row.draining,
            registered_at: row.registered_at,
            ..Self::new(row.name, row.changed_at)
        }
    }

    /// Takes over what a hello says of the worker.
    pub(crate) fn describe(&mut self, hello: &Hello, now: Wall) {
        self.draining = hello.draining || (self.draining && self.boot == hello.boot);
        self.boot = hello.boot;
        self.groups = hello.groups.clone();
        self.labels = hello.labels.clone();
        self.handlers = hello.handlers.iter().cloned().collect();
        self.sandbox = !hello.sandboxes.is_empty();
        self.locks = hello.version >= LOCKS_VERSION;
        self.total = hello.resources.clone();
        self.slots = hello.slots;
        self.prefetch = hello.prefetch;
        self.changed_at = now;
    }

    pub(crate) fn row(&self) -> WorkerRow {
        WorkerRow {
            name: Arc::clone(&self.name),
            boot: self.boot,
            groups: self.groups.clone(),
            labels: self.labels.clone(),
            slots: self.slots,
            prefetch: self.prefetch,
            draining: self.draining,
            registered_at: self.registered_at,
            changed_at: self.changed_at,
        }
    }

    pub(crate) fn info(&self) -> WorkerInfo {
        WorkerInfo {
            name: Arc::clone(&self.name),
            groups: self.groups.clone(),
            labels: self.labels.clone(),
            slots: self.slots,
            running: self.running,
            assigned: self.held_count(),
            online: self.is_online(),
            connected: self.session.is_some(),
            draining: self.draining,
            changed_at: self.changed_at,
        }
    }

    /// Whether it holds a lease.
    pub(crate) fn is_online(&self) -> bool {
        self.lease_until.is_some()
    }

    /// Whether it may be given work now.
    pub(crate) fn takes_work(&self) -> bool {
        self.session.is_some() && self.is_online() && !self.draining
    }

    /// Tasks in its hands.
    pub(crate) fn held_count(&self) -> u32 {
        u32::try_from(self.held.len()).unwrap_or(u32::MAX)
    }

    /// Whether a slot is free.
    pub(crate) fn has_slot(&self) -> bool {
        self.takes_work() && self.held_count() < self.slots
    }

    /// Whether it may be given a task to keep for later.
    pub(crate) fn has_credit(&self) -> bool {
        self.takes_work() && self.held_count() < self.slots.saturating_add(self.prefetch)
    }

    /// Tasks in its hands beyond its slots.
    pub(crate) fn backlog(&self) -> u32 {
        self.held_count().saturating_sub(self.slots)
    }

    /// How full it is, in 1/1024 of its slots.
    pub(crate) fn load(&self) -> u64 {
        u64::from(self.held_count()) * 1_024 / u64::from(self.slots.max(1))
    }

    /// Whether it could ever run such a task. `Err` says what is missing.
    pub(crate) fn suits(&self, requirement: &Requirement) -> Result<(), String> {
        if !self.groups.contains(&requirement.group) {
            return Err(format!("serves not group {}", requirement.group));
        }
        for (key, value) in &requirement.labels {
            match self.labels.get(key) {
                Some(have) if have == value => {}
                Some(have) => return Err(format!("has label {key}={have}, not {key}={value}")),
                None => return Err(format!("lacks label {key}={value}")),
            }
        }
        if let Some(handler) = &requirement.handler
            && !self.handlers.contains(handler)
        {
            return Err(format!("has no handler '{handler}'"));
        }
        if requirement.sandbox && !self.sandbox {
            return Err("has no sandbox".to_owned());
        }
        if requirement.locks && !self.locks {
            return Err("is of a version that knows no locks".to_owned());
        }
        if !requirement.resources.fits(&self.total) {
            return Err("has too few resources in all".to_owned());
        }
        Ok(())
    }
}

/// All workers. They are never removed while the master lives: there are at most
/// [`crate::limits::WORKERS`].
#[derive(Debug, Default)]
pub(crate) struct WorkerTable {
    workers: Vec<Worker>,
    by_name: BTreeMap<Arc<str>, WorkerIndex>,
    by_session: FxHashMap<SessionEpoch, WorkerIndex>,
}

impl WorkerTable {
    pub(crate) fn len(&self) -> usize {
        self.workers.len()
    }

    pub(crate) fn find(&self, name: &str) -> Option<WorkerIndex> {
        self.by_name.get(name).copied()
    }

    /// The worker whose living socket that is.
    pub(crate) fn of_session(&self, session: SessionEpoch) -> Option<WorkerIndex> {
        self.by_session.get(&session).copied()
    }

    pub(crate) fn insert(&mut self, worker: Worker) -> WorkerIndex {
        let index = WorkerIndex(u32::try_from(self.workers.len()).unwrap_or(u32::MAX));
        self.by_name.insert(Arc::clone(&worker.name), index);
        self.workers.push(worker);
        index
    }

    pub(crate) fn open_session(&mut self, index: WorkerIndex, session: SessionEpoch) {
        self.close_session(index);
        self[index].session = Some(session);
        self[index].youngest = session;
        self.by_session.insert(session, index);
    }

    /// Forgets the living socket and says which it was.
    pub(crate) fn close_session(&mut self, index: WorkerIndex) -> Option<SessionEpoch> {
        let session = self[index].session.take()?;
        self.by_session.remove(&session);
        Some(session)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (WorkerIndex, &Worker)> {
        (0..).map(WorkerIndex).zip(&self.workers)
    }

    pub(crate) fn indices(&self) -> impl Iterator<Item = WorkerIndex> + use<> {
        (0..u32::try_from(self.workers.len()).unwrap_or(u32::MAX)).map(WorkerIndex)
    }

    /// By name.
    pub(crate) fn infos(&self) -> Vec<WorkerInfo> {
        self.by_name.values().map(|index| self[*index].info()).collect()
    }
}

impl std::ops::Index<WorkerIndex> for WorkerTable {
    type Output = Worker;

    fn index(&self, index: WorkerIndex) -> &Worker {
        &self.workers[index.0 as usize]
    }
}

impl std::ops::IndexMut<WorkerIndex> for WorkerTable {
    fn index_mut(&mut self, index: WorkerIndex) -> &mut Worker {
        &mut self.workers[index.0 as usize]
    }
}

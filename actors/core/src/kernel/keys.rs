//! Concurrency keys: names that only so many attempts may hold at once, or begin in a time.
//!
//! Who holds a key follows from who is in a worker's hands: a key is taken and given back where a
//! task is, and never counted beside it, so that it cannot leak. Tasks that want the same keys share
//! a requirement class; while a key is not to be had, its classes are passed over, and when it is
//! given back they are looked at in the same step.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::classes::ClassIndex;
use super::timers::Timer;
use super::{Kernel, Step};
use crate::batch::{KeyLimit, KeyLimitRow};
use crate::ids::TaskId;
use crate::limits;
use crate::rejection::Rejection;
use crate::time::{Mono, Now};
use crate::why::Reason;

/// A key that is configured, held or wanted.
#[derive(Debug, Default)]
struct Key {
    limit: Option<KeyLimit>,
    holders: BTreeSet<TaskId>,
    /// Classes of live tasks that want it.
    classes: Vec<ClassIndex>,
    /// When attempts that count against the rate began, the oldest first.
    begun: VecDeque<Mono>,
    /// Whether a timer is set for when the rate allows more.
    timer: bool,
}

impl Key {
    fn most(&self) -> usize {
        self.limit.map_or(1, |limit| limit.limit as usize)
    }

    fn is_unused(&self) -> bool {
        self.limit.is_none() && self.holders.is_empty() && self.classes.is_empty()
    }

    /// When the rate allows another; `None` if it does now.
    fn next_at(&self, now: Mono) -> Option<Mono> {
        let rate = self.limit?.rate?;
        if self.begun.len() < rate.count as usize {
            return None;
        }
        let from = self.begun.len() - rate.count as usize;
        self.begun.get(from).map(|begun| begun.plus_ms(rate.per_ms)).filter(|at| *at > now)
    }
}

/// What keeps a task from having a key.
enum Lack {
    Held,
    Rate(Mono),
}

/// A key as listings show it.
#[derive(Clone, PartialEq, Debug)]
pub struct KeyInfo {
    /// Its name.
    pub name: Arc<str>,
    /// How many may hold it; 1 unless it is configured.
    pub limit: u32,
    /// How many may begin in a time.
    pub rate: Option<crate::batch::Rate>,
    /// Whether somebody has configured it.
    pub configured: bool,
    /// Tasks that hold it, at most a thousand.
    pub holders: Vec<TaskId>,
    /// How many hold it.
    pub held: u32,
    /// Ready tasks that want it.
    pub waiting: u32,
}

/// The keys.
#[derive(Debug, Default)]
pub(crate) struct Keys {
    by_name: BTreeMap<Arc<str>, Key>,
}

impl Keys {
    pub(super) fn configure(&mut self, row: &KeyLimitRow) {
        self.by_name.entry(Arc::clone(&row.name)).or_default().limit = row.limit;
        self.forget_unused(&row.name);
    }

    fn forget_unused(&mut self, name: &str) {
        if self.by_name.get(name).is_some_and(Key::is_unused) {
            self.by_name.remove(name);
        }
    }

    /// A class that wants these keys has come.
    pub(super) fn enter_class(&mut self, class: ClassIndex, names: &[Arc<str>]) {
        for name in names {
            self.by_name.entry(Arc::clone(name)).or_default().classes.push(class);
        }
    }

    /// Its last task has gone.
    pub(super) fn leave_class(&mut self, class: ClassIndex, names: &[Arc<str>]) {
        for name in names {
            if let Some(key) = self.by_name.get_mut(name) {
                key.classes.retain(|other| *other != class);
            }
            self.forget_unused(name);
        }
    }

    fn lack(&self, name: &str, now: Mono) -> Option<Lack> {
        let key = self.by_name.get(name)?;
        if key.holders.len() >= key.most() {
            return Some(Lack::Held);
        }
        key.next_at(now).map(Lack::Rate)
    }

    /// Whether all of them can be had.
    pub(super) fn are_free(&self, names: &[Arc<str>], now: Mono) -> bool {
        names.iter().all(|name| self.lack(name, now).is_none())
    }

    /// A task has them now; `begins` says that it counts against their rates.
    pub(super) fn take(&mut self, task: TaskId, names: &[Arc<str>], begins: Option<Mono>) {
        for name in names {
            let key = self.by_name.entry(Arc::clone(name)).or_default();
            key.holders.insert(task);
            if let (Some(at), Some(rate)) = (begins, key.limit.and_then(|limit| limit.rate)) {
                key.begun.push_back(at);
                while key.begun.len() > rate.count as usize {
                    key.begun.pop_front();
                }
            }
        }
    }

    /// It has them no more. The classes that may go on.
    pub(super) fn give(&mut self, task: TaskId, names: &[Arc<str>]) -> Vec<ClassIndex> {
        let mut woken = Vec::new();
        for name in names {
            if let Some(key) = self.by_name.get_mut(name)
                && key.holders.remove(&task)
            {
                woken.extend(&key.classes);
            }
            self.forget_unused(name);
        }
        woken
    }
}

impl Kernel {
    /// Sets or removes the limits of a key.
    pub(super) fn configure_key(&mut self, step: &mut Step, row: KeyLimitRow) -> Result<(), Rejection> {
        if self.concurrency.by_name.len() >= limits::KEYS && !self.concurrency.by_name.contains_key(&row.name)
        {
            return Err(Rejection::Limit { what: "concurrency keys", limit: limits::KEYS });
        }
        self.concurrency.configure(&row);
        self.wake_key(step, &row.name);
        step.batch.key_limits.push(row);
        step.urgent = true;
        Ok(())
    }

    /// Has the workers look at those who want a key.
    pub(super) fn wake_key(&mut self, step: &mut Step, name: &str) {
        let Some(key) = self.concurrency.by_name.get_mut(name) else { return };
        key.timer = false;
        for class in key.classes.clone() {
            self.wake_workers(step, class);
        }
    }

    /// A class was passed over because of its keys: a rate must be waited for with a timer, a holder
    /// wakes by its end.
    pub(super) fn await_keys(&mut self, now: Mono, class: ClassIndex) {
        for name in self.classes.get(class).requirement.keys.clone() {
            if let Some(Lack::Rate(at)) = self.concurrency.lack(&name, now)
                && let Some(key) = self.concurrency.by_name.get_mut(&name)
                && !key.timer
            {
                key.timer = true;
                self.timers.set(at, Timer::Key(name));
            }
        }
    }

    /// Why a ready task does not get its keys.
    pub(super) fn lacking_keys(&self, names: &[Arc<str>], now: Now) -> Vec<Reason> {
        const HOLDERS: usize = 5;
        let reason = |name: &Arc<str>| {
            let key = self.concurrency.by_name.get(name)?;
            Some(match self.concurrency.lack(name, now.mono)? {
                Lack::Held => {
                    let held_by = key.holders.iter().take(HOLDERS).map(|task| format!("task:{task}"));
                    let what =
                        format!("concurrency key '{name}': {} of {} held", key.holders.len(), key.most());
                    let since = key.holders.first().and_then(|task| self.tasks.get(*task));
                    let since = since.and_then(|entry| entry.task.hold()).map(|hold| hold.assigned_at);
                    let reason = Reason::new("concurrency_key", what, "the end of a task that holds it");
                    Reason { held_by: held_by.collect(), since, ..reason }
                }
                Lack::Rate(at) => {
                    let ms = now.mono.ms_until(at);
                    let what = format!("rate of key '{name}': its turn comes in {ms} ms at the soonest");
                    Reason::new("rate", what, "time")
                }
            })
        };
        names.iter().filter_map(reason).collect()
    }

    /// Every key that is configured, held or wanted, by name.
    pub(super) fn key_infos(&self) -> Vec<KeyInfo> {
        let info = |(name, key): (&Arc<str>, &Key)| KeyInfo {
            name: Arc::clone(name),
            limit: key.limit.map_or(1, |limit| limit.limit),
            rate: key.limit.and_then(|limit| limit.rate),
            configured: key.limit.is_some(),
            holders: key.holders.iter().copied().take(limits::PAGE).collect(),
            held: u32::try_from(key.holders.len()).unwrap_or(u32::MAX),
            waiting: key.classes.iter().map(|class| self.classes.get(*class).waiting()).sum(),
        };
        self.concurrency.by_name.iter().map(info).collect()
    }
}

//! Moments at which the kernel has to look again.
//!
//! Timers are never cancelled: one that comes too late finds nothing to do.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use super::{Kernel, Step};
use crate::batch::OutcomeChange;
use crate::ids::{LockNumber, RunId, TaskId};
use crate::limits;
use crate::task::{Command, Phase, WorkerIndex};
use crate::time::Mono;

/// What to look at.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Timer {
    /// A delayed task may be due.
    Wake(TaskId),
    /// A task may have waited too long.
    QueueTimeout(TaskId),
    /// A lease may have passed.
    Lease(WorkerIndex),
    /// A run has more to decide on than fitted into one step.
    Run(RunId),
    /// A key's rate may allow another attempt.
    Key(Arc<str>),
    /// A lock may end, or somebody may have waited long enough for one.
    Lock(LockNumber),
    /// A schedule's time may have come.
    Schedule(Arc<str>),
    /// Idle workers may take over what waits at busy ones.
    Rebalance,
}

/// The timers that are set.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    heap: BinaryHeap<Reverse<(Mono, Timer)>>,
}

impl Timers {
    pub(crate) fn set(&mut self, at: Mono, timer: Timer) {
        self.heap.push(Reverse((at, timer)));
    }

    pub(crate) fn next(&self) -> Option<Mono> {
        self.heap.peek().map(|Reverse((at, _))| *at)
    }

    fn pop_due(&mut self, now: Mono) -> Option<Timer> {
        let Reverse((at, _)) = self.heap.peek()?;
        if *at > now {
            return None;
        }
        self.heap.pop().map(|Reverse((_, timer))| timer)
    }
}

/// Timers served in one step; the rest follows in the next.
const TIMERS_PER_STEP: usize = 10_000;

impl Kernel {
    pub(super) fn on_tick(&mut self, step: &mut Step) {
        for _ in 0..TIMERS_PER_STEP {
            let Some(timer) = self.timers.pop_due(step.now.mono) else { break };
            match timer {
                Timer::Wake(task) => self.wake(step, task),
                Timer::QueueTimeout(task) => self.expire_queue(step, task),
                Timer::Lease(worker) => self.check_lease(step, worker),
                Timer::Key(name) => self.wake_key(step, &name),
                Timer::Lock(number) => self.check_lock_time(step, number),
                Timer::Schedule(name) => self.check_schedule(step, &name),
                Timer::Run(run) => drop(step.runs.insert(run)),
                Timer::Rebalance => {
                    self.rebalance_set = false;
                    self.rebalance(step);
                }
            }
        }
    }

    fn wake(&mut self, step: &mut Step, id: TaskId) {
        let woken = self.command(step, id, Command::Wake, OutcomeChange::Keep);
        if let Ok(None) = woken {
            self.set_wake_timer(step, id);
        }
    }

    /// Sets the timer of a task that is still delayed. The wall clock may have been set back, so
    /// that an earlier timer came too early.
    pub(super) fn set_wake_timer(&mut self, step: &Step, id: TaskId) {
        if let Some(entry) = self.tasks.get(id)
            && matches!(entry.task.phase, Phase::Delayed(_))
        {
            let at = step.now.mono_at(entry.task.ready_at).max(step.now.mono.plus_ms(1));
            self.timers.set(at, Timer::Wake(id));
        }
    }

    fn expire_queue(&mut self, step: &mut Step, id: TaskId) {
        let Some(entry) = self.tasks.get(id) else { return };
        let Some(queue_timeout_ms) = self.specs.get(entry.spec).spec.queue_timeout_ms else { return };
        let command = Command::ExpireQueue { queue_timeout_ms };
        if let Ok(None) = self.command(step, id, command, OutcomeChange::Keep) {
            self.set_queue_timer(step, id);
        }
    }

    /// Sets the timer of a ready task that may not wait for ever.
    pub(super) fn set_queue_timer(&mut self, step: &Step, id: TaskId) {
        if let Some(entry) = self.tasks.get(id)
            && entry.task.is_ready()
            && let Some(queue_timeout_ms) = self.specs.get(entry.spec).spec.queue_timeout_ms
        {
            let due = step.now.mono_at(entry.task.pending_since.plus_ms(queue_timeout_ms));
            self.timers.set(due.max(step.now.mono.plus_ms(1)), Timer::QueueTimeout(id));
        }
    }

    /// Sets the rebalancing timer unless it is set.
    pub(super) fn set_rebalance_timer(&mut self, now: Mono) {
        if !self.rebalance_set {
            self.rebalance_set = true;
            self.timers.set(now.plus_ms(limits::REBALANCE_MS), Timer::Rebalance);
        }
    }
}

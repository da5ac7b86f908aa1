//! Applies what was decided. Total: an event that does not fit the phase leaves it as it is, which
//! cannot happen to events that `decide` made from it.

use super::{Hold, Orphan, Parts, Phase, Task, TaskEvent};
use crate::ids::Attempt;
use crate::time::Wall;

impl Task {
    /// Applies an event.
    pub fn evolve(&mut self, event: &TaskEvent) {
        match event {
            TaskEvent::Assigned { worker, at } => {
                self.attempt = self.attempt.next();
                self.fence = self.fence.next();
                self.phase = Phase::Assigned(Hold {
                    worker: *worker,
                    assigned_at: *at,
                    started_at: None,
                    cancelling: false,
                    returning: false,
                    has_row: false,
                });
            }
            TaskEvent::Started { at } => {
                if let Phase::Assigned(hold) = &mut self.phase {
                    hold.started_at = Some(*at);
                    hold.returning = false;
                }
            }
            TaskEvent::AskedBack => {
                if let Phase::Assigned(hold) = &mut self.phase {
                    hold.returning = true;
                }
            }
            TaskEvent::Returned => {
                // The attempt never was: the next one has its number, but a fence of its own. A
                // number under which something may be written already is not used again.
                if self.hold().is_some_and(|hold| !hold.has_row) {
                    self.attempt = Attempt(self.attempt.0.saturating_sub(1));
                }
                self.phase = Phase::Ready(None);
            }
            TaskEvent::Lost { counted, at, .. } => {
                self.pending_since = *at;
                self.lost += u32::from(*counted);
                let orphan =
                    self.hold().map(|hold| Box::new(Orphan { hold: Hold { has_row: true, ..*hold } }));
                self.phase = Phase::Ready(orphan);
            }
            TaskEvent::Superseded { at, .. } => match &mut self.phase {
                Phase::Ready(orphan) | Phase::Delayed(orphan) => *orphan = None,
                _ => {
                    self.pending_since = *at;
                    self.phase = Phase::Ready(None);
                }
            },
            TaskEvent::Adopted { worker, at, started } => {
                let before = self.orphan().map(|orphan| orphan.hold);
                let started_at = before.and_then(|hold| hold.started_at).or(started.then_some(*at));
                self.phase = Phase::Assigned(Hold {
                    worker: *worker,
                    assigned_at: before.map_or(*at, |hold| hold.assigned_at),
                    started_at,
                    cancelling: false,
                    returning: false,
                    has_row: true,
                });
            }
            TaskEvent::Cancelling => match &mut self.phase {
                Phase::Assigned(hold) => hold.cancelling = true,
                Phase::Open(parts) => parts.cancelling = true,
                _ => {}
            },
            TaskEvent::Retrying { delay_ms, ready_at, .. } => {
                self.failures += 1;
                self.ready_at = *ready_at;
                self.pending_since = *ready_at;
                self.phase = if *delay_ms == 0 { Phase::Ready(None) } else { Phase::Delayed(None) };
            }
            TaskEvent::Settled { status, .. } => self.phase = Phase::Settled(*status),
            TaskEvent::Reopened { at } => {
                self.failures = 0;
                self.lost = 0;
                self.ready_at = *at;
                self.pending_since = *at;
                self.phase = Phase::Ready(None);
            }
            TaskEvent::Rewound => {
                self.failures = 0;
                self.lost = 0;
                self.phase = Phase::Blocked;
            }
            TaskEvent::Woken => {
                if let Phase::Delayed(orphan) = &mut self.phase {
                    self.phase = Phase::Ready(orphan.take());
                }
            }
            TaskEvent::Prioritised { priority } => self.priority = *priority,
            TaskEvent::Blocked => self.phase = Phase::Blocked,
            TaskEvent::Asked => self.phase = Phase::Gate,
            TaskEvent::Approved => self.phase = Phase::Blocked,
            TaskEvent::Unblocked { at } => self.become_ready(*at),
            TaskEvent::Opened { at } => {
                self.attempt = self.attempt.next();
                self.fence = self.fence.next();
                self.phase = Phase::Open(Parts { started_at: *at, cancelling: false });
            }
            TaskEvent::Repeated { at } => {
                // At once, even if the clock was set back meanwhile.
                self.failures = 0;
                self.ready_at = *at;
                self.pending_since = *at;
                self.phase = Phase::Ready(None);
            }
        }
    }

    /// From now on, or from a later time that was asked for.
    fn become_ready(&mut self, at: Wall) {
        let is_later = self.ready_at > at;
        self.ready_at = self.ready_at.max(at);
        self.pending_since = self.ready_at;
        self.phase = if is_later { Phase::Delayed(None) } else { Phase::Ready(None) };
    }
}

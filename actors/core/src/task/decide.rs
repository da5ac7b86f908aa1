//! What a command leads to. Pure; one exhaustive match on the phase for each command.

use std::sync::Arc;

use super::{Command, Hold, Phase, Policy, Task, TaskEvent};
use crate::attempt::End;
use crate::ids::{Attempt, Fence};
use crate::rejection::Rejection;
use crate::spec::{RetryOn, RetryPolicy};
use crate::status::Status;
use crate::time::Wall;

impl Task {
    /// Decides. `Ok(None)` means that what is asked is already so.
    ///
    /// # Errors
    /// [`Rejection::Stale`] for a report that is not of the current assignment,
    /// [`Rejection::Illegal`] where the phase forbids the command.
    pub fn decide(
        &self,
        command: Command,
        policy: Policy<'_>,
        now: Wall,
    ) -> Result<Option<TaskEvent>, Rejection> {
        match command {
            Command::Assign { worker } => self.assign(worker, now).map(Some),
            Command::Start { attempt, fence, at } => self.start(attempt, fence, at),
            Command::Finish { attempt, fence, end, started_at, error } => {
                let hold = self.held(attempt, fence).ok_or(Rejection::Stale)?;
                Ok(Some(self.finish(hold, end, started_at, error, policy, now)))
            }
            Command::AskBack => match &self.phase {
                Phase::Assigned(hold) if hold.started_at.is_some() => {
                    Err(self.illegal("asking back", "not begun"))
                }
                Phase::Assigned(hold) if hold.returning || hold.cancelling => Ok(None),
                Phase::Assigned(_) => Ok(Some(TaskEvent::AskedBack)),
                Phase::Blocked | Phase::Delayed(_) | Phase::Ready(_) | Phase::Settled(_) => {
                    Err(self.illegal("asking back", "an assignment"))
                }
            },
            Command::Return { attempt, fence } => match &self.phase {
                Phase::Assigned(hold) if self.is_current(attempt, fence) => {
                    if hold.cancelling {
                        return Ok(Some(settled(Status::Cancelled, None)));
                    }
                    Ok(Some(TaskEvent::Returned))
                }
                Phase::Assigned(_)
                | Phase::Blocked
                | Phase::Delayed(_)
                | Phase::Ready(_)
                | Phase::Settled(_) => Err(Rejection::Stale),
            },
            Command::Lose { reason, may_have_begun } => match &self.phase {
                Phase::Assigned(hold) => {
                    let counted = may_have_begun || hold.started_at.is_some();
                    Ok(Some(self.lose(hold, reason, counted, policy.retry, now)))
                }
                Phase::Blocked | Phase::Delayed(_) | Phase::Ready(_) | Phase::Settled(_) => {
                    Err(self.illegal("losing", "an assignment"))
                }
            },
            Command::Adopt { worker, attempt, fence, started } => match &self.phase {
                Phase::Assigned(hold) if self.is_current(attempt, fence) && hold.worker == worker => Ok(None),
                Phase::Ready(Some(orphan)) | Phase::Delayed(Some(orphan))
                    if self.is_current(attempt, fence) && orphan.hold.worker == worker =>
                {
                    Ok(Some(TaskEvent::Adopted { worker, at: now, started }))
                }
                Phase::Assigned(_)
                | Phase::Ready(_)
                | Phase::Delayed(_)
                | Phase::Blocked
                | Phase::Settled(_) => Err(Rejection::Stale),
            },
            Command::Cancel => match &self.phase {
                Phase::Assigned(hold) if hold.cancelling => Ok(None),
                Phase::Assigned(_) => Ok(Some(TaskEvent::Cancelling)),
                Phase::Blocked | Phase::Delayed(_) | Phase::Ready(_) => {
                    Ok(Some(settled(Status::Cancelled, None)))
                }
                Phase::Settled(_) => Err(self.illegal("cancel", "blocked, pending or running")),
            },
            Command::Retry => match &self.phase {
                Phase::Settled(_) => Ok(Some(TaskEvent::Reopened { at: now })),
                Phase::Blocked | Phase::Delayed(_) | Phase::Ready(_) | Phase::Assigned(_) => {
                    Err(self.illegal("retry", "completed, failed, cancelled or skipped"))
                }
            },
            Command::Wake => match &self.phase {
                Phase::Delayed(_) if now >= self.ready_at => Ok(Some(TaskEvent::Woken)),
                Phase::Delayed(_)
                | Phase::Blocked
                | Phase::Ready(_)
                | Phase::Assigned(_)
                | Phase::Settled(_) => Ok(None),
            },
            Command::ExpireQueue { queue_timeout_ms } => match &self.phase {
                Phase::Ready(_) if now >= self.pending_since.plus_ms(queue_timeout_ms) => {
                    let error = format!("no worker took it within queue_timeout_ms ({queue_timeout_ms} ms)");
                    Ok(Some(settled(Status::Failed, Some(error.into()))))
                }
                Phase::Ready(_)
                | Phase::Delayed(_)
                | Phase::Blocked
                | Phase::Assigned(_)
                | Phase::Settled(_) => Ok(None),
            },
            Command::Prioritise { priority } => match &self.phase {
                Phase::Blocked | Phase::Delayed(_) | Phase::Ready(_) if priority == self.priority => Ok(None),
                Phase::Blocked | Phase::Delayed(_) | Phase::Ready(_) => {
                    Ok(Some(TaskEvent::Prioritised { priority }))
                }
                Phase::Assigned(_) | Phase::Settled(_) => {
                    Err(self.illegal("a change", "blocked or pending, and not yet handed to a worker"))
                }
            },
        }
    }

    /// Whether a report speaks of the latest assignment. This is the fence check.
    fn is_current(&self, attempt: Attempt, fence: Fence) -> bool {
        self.attempt == attempt && self.fence == fence
    }

    /// The hold that a report of that assignment speaks of: the present one, or one that was lost
    /// and not yet replaced.
    fn held(&self, attempt: Attempt, fence: Fence) -> Option<&Hold> {
        if !self.is_current(attempt, fence) {
            return None;
        }
        self.hold().or_else(|| self.orphan().map(|orphan| &orphan.hold))
    }

    fn illegal(&self, action: &'static str, needs: &'static str) -> Rejection {
        Rejection::Illegal { status: self.status(), action, needs }
    }

    fn assign(&self, worker: super::WorkerIndex, now: Wall) -> Result<TaskEvent, Rejection> {
        match &self.phase {
            Phase::Ready(_) => Ok(TaskEvent::Assigned { worker, at: now }),
            Phase::Blocked | Phase::Delayed(_) | Phase::Assigned(_) | Phase::Settled(_) => {
                Err(self.illegal("an assignment", "ready"))
            }
        }
    }

    fn start(&self, attempt: Attempt, fence: Fence, at: Wall) -> Result<Option<TaskEvent>, Rejection> {
        match &self.phase {
            Phase::Assigned(hold) if self.is_current(attempt, fence) => {
                Ok(hold.started_at.is_none().then_some(TaskEvent::Started { at }))
            }
            Phase::Assigned(_) | Phase::Blocked | Phase::Delayed(_) | Phase::Ready(_) | Phase::Settled(_) => {
                Err(Rejection::Stale)
            }
        }
    }

    fn finish(
        &self,
        hold: &Hold,
        end: End,
        started_at: Wall,
        error: Option<Arc<str>>,
        policy: Policy<'_>,
        now: Wall,
    ) -> TaskEvent {
        let done = |status, error| TaskEvent::Settled { status, started_at: Some(started_at), error };
        match end {
            End::Completed => done(Status::Completed, None),
            // Whatever else became of an attempt that was told to stop, it has stopped.
            End::Failed(_) | End::Cancelled | End::Interrupted if hold.cancelling => {
                done(Status::Cancelled, None)
            }
            End::Failed(class) => {
                let error = error.unwrap_or_else(|| "the worker gave no reason".into());
                if !self.may_retry(class, policy.retry) {
                    return done(Status::Failed, Some(error));
                }
                let delay_ms = self.backoff_ms(policy);
                TaskEvent::Retrying { delay_ms, ready_at: now.plus_ms(delay_ms), error }
            }
            // Not the task's doing: as if the worker had gone.
            End::Cancelled | End::Interrupted => TaskEvent::Lost {
                counted: false,
                reason: "the worker stopped it and gave it back".into(),
                at: now,
            },
        }
    }

    fn may_retry(&self, class: RetryOn, retry: &RetryPolicy) -> bool {
        self.failures < retry.max && (retry.on.is_empty() || retry.on.contains(&class))
    }

    /// The wait before the next try: `backoff × factor^failures`, shortened by up to `jitter` of
    /// itself.
    fn backoff_ms(&self, policy: Policy<'_>) -> u64 {
        let retry = policy.retry;
        let exponent = i32::try_from(self.failures).unwrap_or(i32::MAX);
        let full =
            (retry.backoff_ms as f64 * retry.factor.powi(exponent)).min(crate::limits::TIMEOUT_MS as f64);
        let random = fraction(policy.seed ^ u64::from(self.attempt.0).rotate_left(32));
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and 30 days")]
        let ms = (full * (1.0 - retry.jitter * random)) as u64;
        ms
    }

    fn lose(
        &self,
        hold: &Hold,
        reason: Arc<str>,
        counted: bool,
        retry: &RetryPolicy,
        now: Wall,
    ) -> TaskEvent {
        if hold.cancelling {
            return settled(Status::Cancelled, None);
        }
        if counted && self.lost >= retry.max_lost {
            let error =
                format!("lost with its worker {} times (retry.max_lost); last: {reason}", self.lost + 1);
            return settled(Status::Failed, Some(error.into()));
        }
        TaskEvent::Lost { counted, reason, at: now }
    }
}

fn settled(status: Status, error: Option<Arc<str>>) -> TaskEvent {
    TaskEvent::Settled { status, started_at: None, error }
}

/// A number in 0..1 that looks random: the finaliser of splitmix64.
fn fraction(seed: u64) -> f64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
}

//! What a command leads to. Pure; one match on the phase for each command. The table of every
//! phase against every command is in the tests.

use std::sync::Arc;

use super::{Command, Hold, Parts, Phase, Policy, Task, TaskEvent};
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
            Command::Finish { attempt, fence, end, started_at, error, again } => {
                let hold = self.held(attempt, fence).ok_or(Rejection::Stale)?;
                if again && end == End::Completed && !hold.cancelling {
                    return Ok(Some(TaskEvent::Repeated { at: now }));
                }
                Ok(Some(self.finish(hold, end, started_at, error, policy, now)))
            }
            Command::AskBack => self.ask_back(),
            Command::Return { attempt, fence } => match &self.phase {
                Phase::Assigned(hold) if self.is_current(attempt, fence) => {
                    if hold.cancelling {
                        return Ok(Some(settled(Status::Cancelled, None)));
                    }
                    Ok(Some(TaskEvent::Returned))
                }
                _ => Err(Rejection::Stale),
            },
            Command::Lose { reason, may_have_begun } => match &self.phase {
                Phase::Assigned(hold) => {
                    let counted = may_have_begun || hold.started_at.is_some();
                    Ok(Some(self.lose(hold, reason, counted, policy.retry, now)))
                }
                _ => Err(self.illegal("losing", "an assignment")),
            },
            Command::Supersede { reason } => self.supersede(reason, now),
            Command::Adopt { worker, attempt, fence, started } => {
                self.adopt(worker, attempt, fence, started, now)
            }
            Command::Cancel => self.cancel(),
            Command::Retry => match &self.phase {
                Phase::Settled(_) => Ok(Some(TaskEvent::Reopened { at: now })),
                _ => Err(self.illegal("retry", "completed, failed, cancelled or skipped")),
            },
            Command::Rewind => match &self.phase {
                Phase::Settled(_) => Ok(Some(TaskEvent::Rewound)),
                _ => Err(self.illegal("running it again", "completed, failed, cancelled or skipped")),
            },
            Command::Wake => {
                let is_due = matches!(self.phase, Phase::Delayed(_)) && now >= self.ready_at;
                Ok(is_due.then_some(TaskEvent::Woken))
            }
            Command::ExpireQueue { queue_timeout_ms } => Ok(self.expire(queue_timeout_ms, now)),
            Command::Prioritise { priority } => match &self.phase {
                Phase::Blocked | Phase::Gate | Phase::Delayed(_) | Phase::Ready(_) => {
                    Ok((priority != self.priority).then_some(TaskEvent::Prioritised { priority }))
                }
                Phase::Open(_) | Phase::Assigned(_) | Phase::Settled(_) => {
                    Err(self.illegal("a change", "blocked or pending, and not yet handed to a worker"))
                }
            },
            Command::Block => match &self.phase {
                Phase::Blocked => Ok(None),
                Phase::Gate | Phase::Delayed(_) | Phase::Ready(_) => Ok(Some(TaskEvent::Blocked)),
                Phase::Open(_) | Phase::Assigned(_) | Phase::Settled(_) => {
                    Err(self.illegal("waiting for another", "not begun and not handed to a worker"))
                }
            },
            Command::Unblock => match &self.phase {
                Phase::Blocked => Ok(Some(TaskEvent::Unblocked { at: now })),
                _ => Ok(None),
            },
            Command::Skip { cause } => match &self.phase {
                Phase::Blocked | Phase::Gate | Phase::Delayed(_) | Phase::Ready(_) => {
                    Ok(Some(settled(Status::Skipped, Some(cause))))
                }
                Phase::Open(_) | Phase::Assigned(_) | Phase::Settled(_) => {
                    Err(self.illegal("skipping", "not begun"))
                }
            },
            Command::Ask => match &self.phase {
                Phase::Blocked => Ok(Some(TaskEvent::Asked)),
                _ => Err(self.illegal("asking for an approval", "blocked")),
            },
            Command::Approve => match &self.phase {
                Phase::Gate => Ok(Some(TaskEvent::Approved)),
                _ => Err(self.illegal("approve", "waiting for an approval")),
            },
            Command::Reject { reason } => match &self.phase {
                Phase::Gate => Ok(Some(settled(Status::Failed, Some(reason)))),
                _ => Err(self.illegal("reject", "waiting for an approval")),
            },
            Command::Open => match &self.phase {
                Phase::Ready(_) | Phase::Blocked => Ok(Some(TaskEvent::Opened { at: now })),
                _ => Err(self.illegal("beginning its parts", "ready")),
            },
            Command::Conclude { error } => match &self.phase {
                Phase::Open(parts) => Ok(Some(conclude(parts, error))),
                _ => Err(self.illegal("ending its parts", "open")),
            },
        }
    }

    fn ask_back(&self) -> Result<Option<TaskEvent>, Rejection> {
        match &self.phase {
            Phase::Assigned(hold) if hold.started_at.is_some() => {
                Err(self.illegal("asking back", "not begun"))
            }
            Phase::Assigned(hold) if hold.returning || hold.cancelling => Ok(None),
            Phase::Assigned(_) => Ok(Some(TaskEvent::AskedBack)),
            _ => Err(self.illegal("asking back", "an assignment")),
        }
    }

    fn supersede(&self, reason: Arc<str>, now: Wall) -> Result<Option<TaskEvent>, Rejection> {
        match &self.phase {
            Phase::Assigned(hold) if hold.cancelling => {
                Err(self.illegal("a new attempt", "not being cancelled"))
            }
            Phase::Assigned(_) | Phase::Ready(Some(_)) | Phase::Delayed(Some(_)) => {
                Ok(Some(TaskEvent::Superseded { reason, at: now }))
            }
            Phase::Blocked | Phase::Gate | Phase::Delayed(None) | Phase::Ready(None) => Ok(None),
            Phase::Open(_) | Phase::Settled(_) => Err(self.illegal("a new attempt", "work of its own")),
        }
    }

    fn adopt(
        &self,
        worker: super::WorkerIndex,
        attempt: Attempt,
        fence: Fence,
        started: bool,
        now: Wall,
    ) -> Result<Option<TaskEvent>, Rejection> {
        match &self.phase {
            Phase::Assigned(hold) if self.is_current(attempt, fence) && hold.worker == worker => Ok(None),
            Phase::Ready(Some(orphan)) | Phase::Delayed(Some(orphan))
                if self.is_current(attempt, fence) && orphan.hold.worker == worker =>
            {
                Ok(Some(TaskEvent::Adopted { worker, at: now, started }))
            }
            _ => Err(Rejection::Stale),
        }
    }

    fn cancel(&self) -> Result<Option<TaskEvent>, Rejection> {
        match &self.phase {
            Phase::Assigned(Hold { cancelling: true, .. }) | Phase::Open(Parts { cancelling: true, .. }) => {
                Ok(None)
            }
            Phase::Assigned(_) | Phase::Open(_) => Ok(Some(TaskEvent::Cancelling)),
            Phase::Blocked | Phase::Gate | Phase::Delayed(_) | Phase::Ready(_) => {
                Ok(Some(settled(Status::Cancelled, None)))
            }
            Phase::Settled(_) => Err(self.illegal("cancel", "blocked, pending or running")),
        }
    }

    fn expire(&self, queue_timeout_ms: u64, now: Wall) -> Option<TaskEvent> {
        let is_over = self.is_ready() && now >= self.pending_since.plus_ms(queue_timeout_ms);
        is_over.then(|| {
            let error = format!("no worker took it within queue_timeout_ms ({queue_timeout_ms} ms)");
            settled(Status::Failed, Some(error.into()))
        })
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
            _ => Err(self.illegal("an assignment", "ready")),
        }
    }

    fn start(&self, attempt: Attempt, fence: Fence, at: Wall) -> Result<Option<TaskEvent>, Rejection> {
        match &self.phase {
            Phase::Assigned(hold) if self.is_current(attempt, fence) => {
                Ok(hold.started_at.is_none().then_some(TaskEvent::Started { at }))
            }
            _ => Err(Rejection::Stale),
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

/// The end of a task that consists of others.
fn conclude(parts: &Parts, error: Option<Arc<str>>) -> TaskEvent {
    let status = match &error {
        _ if parts.cancelling => Status::Cancelled,
        Some(_) => Status::Failed,
        None => Status::Completed,
    };
    TaskEvent::Settled { status, started_at: Some(parts.started_at), error }
}

/// A number in 0..1 that looks random: the finaliser of splitmix64.
fn fraction(seed: u64) -> f64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
}

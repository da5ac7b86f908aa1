//! How a worker goes: nothing new, finish what runs, stop what does not finish, tell, good-bye.
//!
//! ```text
//! No -- drain --> Draining -- time or "now" --> Stopping --> Closing --> gone
//!                     \-- nothing left ------------------------/
//! ```
//!
//! Every step has a deadline; what the master has not acknowledged by the last one stays in the
//! spool for the successor.

use agentflow_core::time::Mono;
use agentflow_protocol::worker::FromWorker;

use super::{Daemon, Phase};
use crate::clock::boottime;
use crate::control::Stop;
use crate::error::Error;
use crate::outbox::Closing;

/// Longest time between TERM and KILL when the worker leaves.
const GRACE_MS: u64 = 5_000;

/// How long killed processes may take to go: some wait for a dead disk.
const KILLED_MS: u64 = 10_000;

/// How long the last acknowledgements may take.
const LAST_ACKNOWLEDGEMENTS_MS: u64 = 5_000;

/// How long the good-bye may take.
const CLOSING_MS: u64 = 1_000;

/// See the module.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Leaving {
    No,
    /// What runs may finish until then.
    Draining {
        until: Mono,
    },
    /// What runs was told to end, and is killed then. Once all is over, the acknowledgements are
    /// waited for until `give_up`.
    Stopping {
        kill_at: Mono,
        give_up: Option<Mono>,
    },
    /// The good-bye is on its way.
    Closing {
        until: Mono,
    },
}

impl Leaving {
    pub(super) fn has_begun(self) -> bool {
        self != Self::No
    }
}

impl Daemon {
    /// Takes nothing new, gives back what has not begun, and leaves when the rest is done.
    pub(super) fn begin_drain(&mut self) {
        if self.leaving.has_begun() {
            return;
        }
        let now = boottime();
        self.leaving = Leaving::Draining { until: now.plus_ms(self.config.drain_timeout_ms) };
        if self.welcomed {
            self.outbox.send(&FromWorker::Draining {});
        }
        for job in self.slots.take_back(|_| true) {
            if self.held(job.key).is_some() {
                self.give_back(job.key);
            }
        }
        log::info!("draining; {} attempts are still here", self.attempts.len());
        self.go_on_leaving(now);
    }

    /// Ends what still runs, and leaves.
    pub(super) fn begin_stop(&mut self, now: Mono) {
        self.begin_drain();
        if !matches!(self.leaving, Leaving::Draining { .. }) {
            return;
        }
        let mut grace = 0;
        for attempt in self.attempts.values() {
            if !matches!(attempt.phase, Phase::Flushing { .. }) {
                attempt.control.stop(Stop::Interrupt);
                grace = grace.max(u64::from(attempt.spec.cancel_grace_ms));
            }
        }
        self.leaving = Leaving::Stopping { kill_at: now.plus_ms(grace.min(GRACE_MS)), give_up: None };
        self.go_on_leaving(now);
    }

    /// Takes the next step if it is time.
    pub(super) fn go_on_leaving(&mut self, now: Mono) {
        let nothing_owed = self.attempts.is_empty() && self.outbox.reports(|window| window.is_empty());
        match self.leaving {
            Leaving::No => {}
            Leaving::Draining { .. } | Leaving::Stopping { .. } if nothing_owed => self.say_goodbye(now),
            Leaving::Draining { until } if now >= until => self.begin_stop(now),
            Leaving::Draining { .. } => {}
            Leaving::Stopping { kill_at, give_up: None } => {
                let over = |phase: &Phase| matches!(phase, Phase::Flushing { .. });
                if self.attempts.values().all(|attempt| over(&attempt.phase)) {
                    let give_up = Some(now.plus_ms(LAST_ACKNOWLEDGEMENTS_MS));
                    self.leaving = Leaving::Stopping { kill_at, give_up };
                } else if now >= kill_at.plus_ms(KILLED_MS) {
                    log::error!("some processes do not die even when killed; they are left behind");
                    self.leaving = Leaving::Stopping { kill_at, give_up: Some(now) };
                } else if now >= kill_at {
                    self.attempts.values().for_each(|attempt| attempt.control.kill());
                }
            }
            Leaving::Stopping { give_up: Some(give_up), .. } if now >= give_up => {
                log::warn!("leaving without all acknowledgements; a successor sends the rest");
                self.spool_until(now);
                self.say_goodbye(now);
            }
            Leaving::Stopping { .. } => {}
            Leaving::Closing { until } if now >= until => self.leave(Ok(())),
            Leaving::Closing { .. } => {}
        }
    }

    fn say_goodbye(&mut self, now: Mono) {
        if self.welcomed {
            self.outbox.send(&FromWorker::Goodbye {});
            if let Some(warden) = &self.warden {
                warden.groups().goodbye();
            }
        }
        self.outbox.close(Closing::Finished);
        self.leaving = Leaving::Closing { until: now.plus_ms(CLOSING_MS) };
    }

    /// The end.
    pub(super) fn leave(&mut self, result: Result<(), Error>) {
        for attempt in self.attempts.values() {
            attempt.control.stop(Stop::Drop);
        }
        self.outbox.asks(|asks| asks.give_up("the worker leaves"));
        self.spool.sync();
        if let Some(done) = self.done.take() {
            // Nobody may wait any more.
            let _unheard = done.send((result, self.warden.take()));
        }
    }
}

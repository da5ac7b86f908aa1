//! When a running attempt must be stopped by its own rules: `timeout_ms` and `idle_timeout_ms`,
//! then KILL after the grace. Reads no clock.

use std::time::{Duration, Instant};

use agentflow_core::spec::Spec;
use rustix::process::Signal;

/// See the module.
#[derive(Debug)]
pub(super) struct Deadlines {
    total: Option<(Duration, Instant)>,
    idle: Option<(Duration, Instant)>,
    grace: Duration,
    kill_at: Option<Instant>,
    error: Option<String>,
}

impl Deadlines {
    pub(super) fn new(spec: &Spec, now: Instant) -> Self {
        let from = |ms: Option<u64>| {
            let wait = Duration::from_millis(ms?);
            Some((wait, now.checked_add(wait)?))
        };
        Self {
            total: from(spec.timeout_ms),
            idle: from(spec.idle_timeout_ms),
            grace: Duration::from_millis(spec.cancel_grace_ms.into()),
            kill_at: None,
            error: None,
        }
    }

    /// The process has written something.
    pub(super) fn active(&mut self, now: Instant) {
        if let Some((wait, until)) = &mut self.idle {
            *until = now + *wait;
        }
    }

    /// How long nothing needs to be done; `None` is forever.
    pub(super) fn wait(&self, now: Instant) -> Option<Duration> {
        let next = match self.error {
            Some(_) => self.kill_at,
            None => self.total.iter().chain(&self.idle).map(|(_, until)| *until).min(),
        };
        next.map(|at| at.saturating_duration_since(now))
    }

    /// The signal to send now, if any.
    pub(super) fn due(&mut self, now: Instant) -> Option<Signal> {
        if self.error.is_some() {
            let due = self.kill_at.is_some_and(|at| now >= at);
            return due.then(|| {
                self.kill_at = None;
                Signal::KILL
            });
        }
        let passed = |limit: &Option<(Duration, Instant)>| limit.filter(|(_, until)| now >= *until);
        let error = match (passed(&self.total), passed(&self.idle)) {
            (Some((wait, _)), _) => format!("stopped after timeout_ms {}", wait.as_millis()),
            (None, Some((wait, _))) => {
                format!("stopped: no output for idle_timeout_ms {}", wait.as_millis())
            }
            (None, None) => return None,
        };
        self.error = Some(error);
        self.kill_at = Some(now + self.grace);
        Some(Signal::TERM)
    }

    /// Why it was stopped, if it was.
    pub(super) fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use agentflow_core::spec::Payload;

    #[test]
    fn term_comes_at_the_deadline_and_kill_after_the_grace() {
        let mut spec = Spec::new(Payload::Noop);
        spec.timeout_ms = Some(1_000);
        spec.idle_timeout_ms = Some(400);
        spec.cancel_grace_ms = 50;
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut deadlines = Deadlines::new(&spec, start);
        assert_eq!(deadlines.due(at(399)), None);
        deadlines.active(at(300));
        assert_eq!(deadlines.wait(at(399)), Some(Duration::from_millis(301)));
        deadlines.active(at(690));
        assert_eq!(deadlines.due(at(1_000)), Some(Signal::TERM));
        assert_eq!(deadlines.error(), Some("stopped after timeout_ms 1000"));
        assert_eq!(deadlines.wait(at(1_000)), Some(Duration::from_millis(50)));
        assert_eq!(deadlines.due(at(1_049)), None);
        assert_eq!(deadlines.due(at(1_050)), Some(Signal::KILL));
        assert_eq!(deadlines.due(at(2_000)), None);
        assert_eq!(deadlines.wait(at(2_000)), None);
    }
}

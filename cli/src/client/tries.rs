//! Which failures are tried again, and for how long.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use agentflow_protocol::Problem;

use super::random::random_share;
use super::{Again, Client, PATIENCE};
use crate::error::Error;

/// Waits between tries: from the first to the last of these, doubling.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// The tries of one request.
pub(super) struct Tries<'a> {
    client: &'a Client,
    since: Option<Instant>,
    pause: Duration,
    /// Masters tried since the last pause.
    round: usize,
}

impl<'a> Tries<'a> {
    pub(super) fn new(client: &'a Client) -> Self {
        Self { client, since: None, pause: BACKOFF.0, round: 0 }
    }

    /// After a failure on the way: waits for the next try, or says that there is none.
    pub(super) fn again(&mut self, error: &ureq::Error, again: Again) -> Result<(), Error> {
        let at = self.client.address();
        let Some(reached) = transport(error) else {
            return Err(Error::Answer { at, cause: error.to_string() });
        };
        if reached == Reached::Perhaps {
            // Somebody was there and went away.
            self.client.met.store(true, Ordering::Relaxed);
        }
        if reached == Reached::Perhaps && again == Again::Never {
            return Err(Error::Broken { at, cause: error.to_string() });
        }
        // The other masters are asked before any pause.
        let masters = self.client.masters.lock().map_or(1, |masters| masters.len());
        self.round += 1;
        self.client.current.fetch_add(1, Ordering::Relaxed);
        if self.round < masters {
            return Ok(());
        }
        self.round = 0;
        let met = self.client.met.load(Ordering::Relaxed);
        let patience = self.client.patience.unwrap_or(if met { PATIENCE } else { Duration::ZERO });
        if self.pause_within(patience, "no answer", None) {
            return Ok(());
        }
        let cause = (!is_refused(error)).then(|| error.to_string());
        let known = self.client.masters.lock().map(|masters| masters.join(", ")).unwrap_or(at);
        Err(Error::NoMaster { at: known, cause })
    }

    /// After 429 or 503, which say that nothing has been done.
    pub(super) fn not_now(&mut self, problem: Problem, retry_after: Option<Duration>) -> Result<(), Error> {
        let patience = self.client.patience.unwrap_or(PATIENCE);
        if self.pause_within(patience, &problem.detail, retry_after) {
            return Ok(());
        }
        Err(Error::Problem(Box::new(problem)))
    }

    /// Sleeps and answers whether there is time for another try.
    fn pause_within(&mut self, patience: Duration, why: &str, at_least: Option<Duration>) -> bool {
        let since = *self.since.get_or_insert_with(Instant::now);
        let left = patience.saturating_sub(since.elapsed());
        if left.is_zero() {
            return false;
        }
        self.client.away(why, left);
        let pause = self.pause.max(at_least.unwrap_or_default()).min(left);
        std::thread::sleep(pause.mul_f64(0.75 + 0.25 * random_share()));
        self.pause = (self.pause * 2).min(BACKOFF.1);
        true
    }
}

/// How far a failed request came.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reached {
    /// No connection: the master has not seen it.
    No,
    /// It may have arrived.
    Perhaps,
}

/// What a transport error means; `None` where trying again cannot help.
fn transport(error: &ureq::Error) -> Option<Reached> {
    match error {
        ureq::Error::ConnectionFailed | ureq::Error::HostNotFound => Some(Reached::No),
        ureq::Error::Timeout(ureq::Timeout::Connect | ureq::Timeout::Resolve) => Some(Reached::No),
        ureq::Error::Io(_) if is_refused(error) => Some(Reached::No),
        ureq::Error::Io(_) | ureq::Error::Timeout(_) | ureq::Error::BodyStalled => Some(Reached::Perhaps),
        // The connection was closed in the middle of an answer.
        ureq::Error::Protocol(_) => Some(Reached::Perhaps),
        _ => None,
    }
}

fn is_refused(error: &ureq::Error) -> bool {
    matches!(error, ureq::Error::Io(error) if error.kind() == std::io::ErrorKind::ConnectionRefused)
        || matches!(error, ureq::Error::ConnectionFailed)
}

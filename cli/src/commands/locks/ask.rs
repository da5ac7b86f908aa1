//! Asking the master for a lock, and saying who is in the way.

use std::time::{Duration, Instant};

use agentflow_core::limits;
use agentflow_core::lock::{LockId, PathLock};
use agentflow_protocol::locks::{HolderView, LockBody, LockView, PathAt, PathBody, RenewBody};
use agentflow_protocol::{Problem, Timestamp};

use super::words;
use crate::client::{Client, random_hex, with_query};
use crate::clock::{after, boottime, now};
use crate::error::Error;
use crate::output::printable;

/// A renewal is late after this.
const RENEWAL: Duration = Duration::from_secs(10);

/// Holders that are looked at more closely.
const HOLDERS: usize = 5;

/// Where all locks are.
pub(super) const LOCKS: &str = "/api/v2/locks";

/// Where a lock is.
pub(super) fn lock_path(id: LockId) -> String {
    format!("{LOCKS}/{id}")
}

/// Paths as they are sent.
pub(super) fn bodies(paths: &[PathLock]) -> Vec<PathBody> {
    let body = |lock: &PathLock| PathAt { path: lock.path.to_string(), mode: Some(lock.mode) };
    paths.iter().map(body).map(PathBody::At).collect()
}

/// A lock, and since when by [`boottime`] it is held for its time at least: since it was asked for.
#[derive(Clone)]
pub(super) struct Granted {
    pub(super) lock: LockView,
    pub(super) since: Duration,
}

impl Granted {
    /// Where it is given back.
    pub(super) fn path(&self) -> String {
        with_query(&lock_path(self.lock.id), &[("fence", self.lock.fence.to_string())])
    }

    /// How long each renewal lasts; nothing where it does not end by itself.
    pub(super) fn ttl(&self) -> Option<Duration> {
        self.lock.ttl_ms.map(Duration::from_millis)
    }

    /// When it ends by this machine's clock, which may be another one than the master's.
    pub(super) fn expires_at(&self) -> Option<Timestamp> {
        let left = (self.since + self.ttl()?).saturating_sub(boottime());
        Some(after(now(), left))
    }

    /// The same lock for its whole time again.
    ///
    /// # Errors
    /// Those of the client; 404 and 409 say that it is lost.
    pub(super) fn renew(&self, client: &Client, limit: Duration) -> Result<Self, Error> {
        let body = RenewBody { fence: self.lock.fence.0, ttl_ms: None };
        let since = boottime();
        let lock = client.post_within(&format!("{}/renew", lock_path(self.lock.id)), &body, limit)?;
        Ok(Self { lock, since })
    }
}

/// Asks for a lock, waiting for it so long.
///
/// # Errors
/// `Busy` when somebody else is in the way.
pub(super) fn ask(client: &Client, body: &LockBody, wait: Duration) -> Result<Granted, Error> {
    let key = random_hex(16)?;
    let begun = Instant::now();
    // Who would wait is told for whom first. The same key never makes two locks.
    match once(client, body, Duration::ZERO, &key) {
        Err(Error::Problem(problem)) if is_locked(&problem) && !wait.is_zero() => {
            eprintln!("waiting: {}", in_the_way(client, &problem).join("; "));
        }
        answer => return answer.map_err(|error| told(client, error, body, wait)),
    }
    let longest = Duration::from_millis(limits::WAIT_MS);
    loop {
        let left = wait.saturating_sub(begun.elapsed());
        let granted = match once(client, body, left.min(longest), &key) {
            Err(Error::Problem(problem)) if is_locked(&problem) && left > longest => continue,
            answer => answer.map_err(|error| told(client, error, body, wait))?,
        };
        // It may have been granted long after it was asked for.
        return if granted.ttl().is_some() { renewed(client, &granted) } else { Ok(granted) };
    }
}

/// Renews a lock, or gives it back: nobody would know of it.
fn renewed(client: &Client, granted: &Granted) -> Result<Granted, Error> {
    granted.renew(client, RENEWAL).inspect_err(|_| {
        let _ = client.impatient().remove(&granted.path());
    })
}

fn once(client: &Client, body: &LockBody, wait: Duration, key: &str) -> Result<Granted, Error> {
    let wait_ms = u64::try_from(wait.as_millis()).ok().filter(|ms| *ms > 0);
    let body = LockBody { wait_ms, ..body.clone() };
    let since = boottime();
    Ok(Granted { lock: client.post_keyed_waiting(LOCKS, &body, key, wait)?, since })
}

/// Whether a problem says that somebody else is in the way.
pub(super) fn is_locked(problem: &Problem) -> bool {
    problem.kind.ends_with(":locked")
}

fn told(client: &Client, error: Error, body: &LockBody, wait: Duration) -> Error {
    match error {
        Error::Problem(problem) if is_locked(&problem) => {
            refused(client, &problem, body.owner.as_deref(), !wait.is_zero())
        }
        other => other,
    }
}

/// Each holder in a line.
fn in_the_way(client: &Client, problem: &Problem) -> Vec<String> {
    let look = |(at, holder): (usize, &HolderView)| {
        // Since when, and why, is known of the lock itself.
        let id = holder.id.filter(|_| at < HOLDERS);
        let lock = id.and_then(|id| client.get::<LockView>(&lock_path(id)).ok());
        words::holder(holder, lock.as_ref())
    };
    problem.holders().iter().enumerate().map(look).collect()
}

/// Who is in the way, and what can be done.
fn refused(client: &Client, problem: &Problem, own: Option<&str>, has_waited: bool) -> Error {
    let mut lines = in_the_way(client, problem);
    if lines.is_empty() {
        return Error::Busy(printable(&problem.detail));
    }
    let ahead = problem.locks.as_ref().and_then(|locks| locks.position).filter(|position| *position > 0);
    lines.extend(ahead.map(|count| format!("{count} wait before")));
    match problem.holders().iter().find_map(|holder| Some((holder.id?, holder.owner.as_str()))) {
        Some((id, owner)) if own == Some(owner) => lines.push(format!(
            "that is a lock of yours, perhaps of another shell: give it back with `agentflow unlock --id {id}`"
        )),
        holder => {
            lines.push(advice(has_waited).to_owned());
            lines.extend(holder.map(|(id, _)| {
                format!("if nobody works there any more: `agentflow lock break {id} --reason TEXT`")
            }));
        }
    }
    Error::Busy(lines.join("\n  "))
}

/// What to do without the lock.
pub(super) fn advice(has_waited: bool) -> &'static str {
    if has_waited {
        "the time to wait is over; work on something else meanwhile"
    } else {
        "wait for it with --wait TIME, or work on something else meanwhile"
    }
}

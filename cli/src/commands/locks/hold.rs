//! `lock … -- program`: the lock is held while the program runs, and the program runs only while the lock
//! is held.
//!
//! ```text
//! asked ─────────── ttl/3: renewed ─ … ──────────┬─ reserve ─┬─ the master may give it to others
//!                                                └─ TERM, KILL
//! ```
//!
//! Time is counted from before each request and goes on while the machine sleeps, so that the program is
//! gone before the lock is, whatever the master's clock says.

use std::sync::mpsc::channel;
use std::time::Duration;

use agentflow_core::lock::LockId;

use super::ask::Granted;
use super::fate::{Fate, ending, keep, watch};
use super::ground::Ground;
use super::program::{Happening, Program, exit_code};
use crate::client::Client;
use crate::clock::boottime;
use crate::descendants;
use crate::error::Error;
use crate::output::printable;

/// Between two looks at the clock: a machine may have slept meanwhile.
const TICK: Duration = Duration::from_secs(1);

/// Longest time for stopping a program before its lock ends.
const RESERVE: Duration = Duration::from_secs(10);

/// The same once the lock is gone.
const HURRY: Duration = Duration::from_secs(2);

/// Runs the program under the lock and gives the lock back.
///
/// # Errors
/// `Busy` when the lock was lost before the program had ended.
pub(super) fn hold(client: Client, ground: &Ground, granted: Granted, argv: &[String]) -> Result<u8, Error> {
    let id = granted.lock.id;
    let path = granted.path();
    let ended = guard(&client, ground, granted, argv);
    ground.forget(id);
    match ended {
        Ok(Ended::Itself(code)) => {
            give_back(&client, id, &path)?;
            Ok(code)
        }
        Ok(Ended::Stopped(why)) => {
            // It is held still if it was only the master that did not answer.
            let _ = client.impatient().remove(&path);
            let what = printable(&argv.join(" "));
            Err(Error::Busy(format!("the lock was lost, and '{what}' was stopped: {why}")))
        }
        Err(error) => {
            descendants::kill();
            let _ = client.impatient().remove(&path);
            Err(error)
        }
    }
}

fn give_back(client: &Client, id: LockId, path: &str) -> Result<(), Error> {
    match client.remove(path) {
        Ok(()) => Ok(()),
        Err(Error::Problem(problem)) if [404, 409].contains(&problem.status) => match ending(client, id) {
            // An earlier try came through, and its answer did not.
            Some(end) if end.is_released => Ok(()),
            end => {
                let why = end.map_or_else(|| printable(&problem.detail), |end| end.why);
                Err(Error::Busy(format!("the lock was lost while the program ran: {why}")))
            }
        },
        Err(error) => {
            eprintln!("agentflow: the lock could not be given back, and ends by its time: {error}");
            Ok(())
        }
    }
}

/// How a program came to its end.
enum Ended {
    Itself(u8),
    Stopped(String),
}

fn guard(client: &Client, ground: &Ground, granted: Granted, argv: &[String]) -> Result<Ended, Error> {
    // Of a task, its own variables say it.
    let owner = granted.lock.task_id.is_none().then_some(&*granted.lock.owner);
    let program = match Program::<Fate>::start(argv, owner)? {
        Ok(program) => program,
        Err(code) => return Ok(Ended::Itself(code)),
    };
    let id = granted.lock.id;
    let (over, is_over) = channel::<()>();
    let (watcher, news) = (client.impatient(), program.sender());
    in_background("lock-events", move || watch(&watcher, id, &news))?;
    let mut lease = Lease { since: granted.since, ttl: granted.ttl() };
    if granted.ttl().is_some() {
        let (keeper, news, limit) = (client.impatient(), program.sender(), lease.reserve());
        in_background("lock-renewal", move || keep(&keeper, granted, limit, &news, &is_over))?;
    }
    let mut away = None;
    let (why, grace) = loop {
        match program.next(lease.left().min(TICK)) {
            Ok(Happening::Ended(status)) => return exit_code(&status).map(Ended::Itself),
            Ok(Happening::News(Fate::Renewed(renewed))) => {
                (lease.since, away) = (renewed.since, None);
                ground.note(&renewed.lock, renewed.expires_at());
            }
            Ok(Happening::News(Fate::Away(why))) => {
                if away.is_none() {
                    eprintln!("agentflow: the lock cannot be renewed, and is tried again: {why}");
                }
                away = Some(why);
            }
            Ok(Happening::News(Fate::Lost(why))) => break (why, HURRY),
            Ok(Happening::Signal(_)) | Err(_) => {}
        }
        if lease.left().is_zero() {
            break (away.unwrap_or_else(|| "it could not be renewed in time".to_owned()), lease.grace());
        }
    };
    drop(over);
    program.stop(grace);
    Ok(Ended::Stopped(why))
}

/// How long a program may run.
struct Lease {
    since: Duration,
    ttl: Option<Duration>,
}

impl Lease {
    /// What is kept for stopping the program.
    fn reserve(&self) -> Duration {
        self.ttl.map_or(RESERVE, |ttl| (ttl / 6).min(RESERVE))
    }

    /// The time until the lock ends.
    fn whole(&self) -> Duration {
        self.ttl.map_or(Duration::MAX, |ttl| (self.since + ttl).saturating_sub(boottime()))
    }

    /// The time until the program must be stopped.
    fn left(&self) -> Duration {
        self.whole().saturating_sub(self.reserve())
    }

    /// The time between asking it to end and killing it, which takes a moment too.
    fn grace(&self) -> Duration {
        self.whole().min(RESERVE).mul_f64(0.75)
    }
}

fn in_background(name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), Error> {
    let begun = std::thread::Builder::new().name(name.to_owned()).spawn(work);
    begun.map(drop).map_err(|error| Error::io("cannot start a thread", error))
}

//! Locks that an attempt takes while it runs.
//!
//! Whoever asks may wait for minutes, on a connection of his own. Where he goes away meanwhile, his
//! question stays the daemon's, which gives back what is granted then.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use actix_rt::task::spawn_blocking;
use actix_rt::time::sleep;
use agentflow_core::lock::LockId;
use agentflow_protocol::Problem;
use agentflow_protocol::inside::Said;
use agentflow_protocol::worker::{AskBody, LockAsk};
use futures_util::future::{Either, select};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::net::UnixStream;
use tokio::sync::oneshot;

use super::{Caller, Door, PATIENCE, Question, leaving};
use crate::locks::Locks;

/// Between two looks at whether somebody still waits.
const LOOK: Duration = Duration::from_millis(500);

impl Door {
    /// Locks files for an attempt, and waits for them as long as it wants to.
    pub(super) async fn lock(
        &self,
        caller: &Caller,
        ask: LockAsk,
        peer: &UnixStream,
    ) -> Result<Said, Problem> {
        self.watch(caller).await?;
        let patience = Duration::from_millis(ask.wait_ms) + PATIENCE;
        let (waits, answer) = oneshot::channel();
        self.daemon.do_send(Question { key: caller.key, body: AskBody::Lock(Box::new(ask)), waits });
        // An answer that is there counts: nothing of the daemon's happens between the two looks.
        let given = match select(answer, pin!(given_up(peer, patience))).await {
            Either::Left((answer, _)) => answer.map_err(|_| leaving())??,
            Either::Right((problem, _)) => return Err(problem),
        };
        let lock = given.lock.ok_or_else(|| Problem::new(502, "master", "the master granted no lock"))?;
        let written = write(&caller.locks).await;
        if written.is_err() || is_gone(peer) {
            // It is not there to use it, or could not say that it has it.
            self.unlock(caller, lock.id).await?;
        }
        written.map(|()| Said { lock: Some(lock), ..Said::default() })
    }

    /// Gives a lock back.
    pub(super) async fn unlock(&self, caller: &Caller, lock: LockId) -> Result<Said, Problem> {
        if caller.place.is_watched() {
            let (control, place) = (Arc::clone(&caller.control), Arc::clone(&caller.place));
            let settled = self.aside(move || place.settle(lock, &|| control.stopped().is_some())).await?;
            settled.map_err(|why| uncertain(&why))?;
        }
        let said = self.ask(caller.key, AskBody::Unlock { lock }).await?;
        write(&caller.locks).await?;
        Ok(said)
    }

    /// Sees from now on what the attempt changes.
    async fn watch(&self, caller: &Caller) -> Result<(), Problem> {
        if caller.place.is_watched() {
            return Ok(());
        }
        let Caller { spec, control, place, locks, .. } = caller.clone();
        let watched = self.aside(move || place.watch(&spec, &locks, &|| control.stopped().is_some()));
        watched.await?.map_err(|why| uncertain(&why))
    }
}

fn uncertain(why: &str) -> Problem {
    Problem::new(409, "files", format!("what the attempt changes cannot be compared with its locks: {why}"))
}

/// Brings the attempt's file up to date.
async fn write(locks: &Arc<Locks>) -> Result<(), Problem> {
    let locks = Arc::clone(locks);
    // Of this machine, and short: it does not wait for those who wait for a master.
    let written = spawn_blocking(move || locks.write()).await;
    let written = written.map_err(|error| Problem::new(500, "internal", error.to_string()))?;
    written.map_err(|error| Problem::new(507, "disk", format!("AGENTFLOW_LOCKS cannot be written: {error}")))
}

/// Comes when nobody waits any more, or no answer came in time.
async fn given_up(peer: &UnixStream, patience: Duration) -> Problem {
    let mut left = patience;
    while !left.is_zero() {
        let time = left.min(LOOK);
        sleep(time).await;
        left -= time;
        if is_gone(peer) {
            return Problem::new(503, "gone", "whoever asked has gone");
        }
    }
    Problem::new(503, "no_master", "the master has not answered; a lock that it grants now is given back")
}

/// Whether the other end is closed. One that has only said its last word still listens.
fn is_gone(peer: &UnixStream) -> bool {
    let mut ends = [PollFd::new(peer, PollFlags::empty())];
    let looked = poll(&mut ends, Some(&Timespec::default()));
    looked.is_ok() && ends[0].revents().contains(PollFlags::HUP)
}

//! The registry of workers' sockets: opens sessions and numbers them.
//!
//! ```text
//!   door ──Connect──► WorkerRegistry ──starts──► WorkerSession ──Hello──► kernel
//! ```
//!
//! Leases are the kernel's; when one passes, the socket is shut from outside by the file
//! descriptor that came with `Connect`.

use std::os::fd::OwnedFd;
use std::rc::Rc;

use actix::{Actor, Addr, Context, Handler, Message, Recipient};
use agentflow_core::ids::SessionEpoch;
use agentflow_core::kernel::Input;
use agentflow_core::limits;
use agentflow_protocol::worker::{Hello, VERSION};
use agentflow_schema::Blobs;

use crate::scheduler::{Conversation, Scheduler};
use crate::session::{Terms, ToDoor, WorkerSession};
use crate::supervise;

/// A worker has said hello on a new socket.
#[derive(Message, Debug)]
#[rtype(result = "Result<Addr<WorkerSession>, Refused>")]
pub struct Connect {
    /// What it said.
    pub hello: Hello,
    /// Where to answer.
    pub door: Recipient<ToDoor>,
    /// The TCP socket, to shut it from outside.
    pub socket: Option<OwnedFd>,
}

/// Why a socket gets no session.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{reason}")]
pub struct Refused {
    /// For people.
    pub reason: String,
    /// Whether trying again later makes sense.
    pub retry: bool,
}

/// The actor.
pub struct WorkerRegistry {
    pub(crate) scheduler: Rc<Scheduler>,
    pub(crate) blobs: Blobs,
    pub(crate) heartbeat_ms: u64,
    pub(crate) lease_ms: u64,
    pub(crate) sessions: u64,
}

impl Actor for WorkerRegistry {
    type Context = Context<Self>;
}

impl Handler<Connect> for WorkerRegistry {
    type Result = Result<Addr<WorkerSession>, Refused>;

    fn handle(&mut self, connect: Connect, _: &mut Context<Self>) -> Self::Result {
        let Connect { hello, door, socket } = connect;
        if self.scheduler.sessions.borrow().len() >= 2 * limits::WORKERS {
            return Err(Refused { reason: "there are too many sockets".to_owned(), retry: true });
        }
        self.sessions += 1;
        let epoch = self.scheduler.epoch();
        // Rises over restarts too: an epoch has room for 2^32 sockets.
        let session = SessionEpoch((epoch.0 << 32) | self.sessions);
        let version = hello.version.min(VERSION);
        let terms = Terms { version, heartbeat_ms: self.heartbeat_ms, lease_ms: self.lease_ms };
        let (scheduler, blobs) = (Rc::clone(&self.scheduler), self.blobs.clone());
        let actor = WorkerSession { scheduler, blobs, session, epoch, terms, door };
        let scheduler = Rc::clone(&self.scheduler);
        let worker = hello.worker.clone();
        let address = supervise::run(Context::new(), actor, move || {
            log::error!(
                "the session of worker {worker} panicked; its socket is closed and it will reconnect"
            );
            if let Some(Conversation { socket: Some(socket), .. }) = scheduler.forget(session)
                && let Err(error) = rustix::net::shutdown(&socket, rustix::net::Shutdown::Both)
            {
                log::debug!("the socket was closed already: {error}");
            }
            scheduler.step(Input::Disconnected { session });
        });
        self.scheduler
            .sessions
            .borrow_mut()
            .insert(session, Conversation { address: address.clone(), socket });
        self.scheduler.step(Input::Hello { session, hello: Box::new(hello) });
        Ok(address)
    }
}

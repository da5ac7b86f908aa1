//! Sockets between workers and the master.
//!
//! Within a socket each direction keeps its order, like TCP; between sockets nothing is promised.
//! The two ends learn of a socket's end at different times, or one of them never. A partition
//! holds everything of a worker back until it heals.

use std::collections::{BTreeMap, BTreeSet};

use agentflow_core::attempt::{AttemptKey, Hello, Report};
use agentflow_core::batch::Batch;
use agentflow_core::checkpoint::{Ask, Given};
use agentflow_core::event::{self, Subject};
use agentflow_core::ids::SessionEpoch;
use agentflow_core::kernel::{Assigned, Input};
use agentflow_core::rejection::Rejection;

use super::world::{Happening, World};

/// What a worker says.
#[derive(Clone, Debug)]
pub(super) enum Upward {
    Hello(Box<Hello>),
    Reports(Vec<Report>),
    Asks(Vec<Ask>),
    Heartbeat,
    Draining,
    Goodbye,
}

/// What the master says.
#[derive(Clone, Debug)]
pub(super) enum Downward {
    Welcome { keep: Vec<AttemptKey>, stop: Vec<AttemptKey> },
    Refuse(String),
    Assign(Vec<Assigned>),
    Ack(u64),
    Answers(Vec<(u64, Result<Given, Rejection>)>),
    Cancel(Vec<AttemptKey>),
    Drop(Vec<AttemptKey>),
    Return(Vec<AttemptKey>),
    Drain,
}

#[derive(Debug)]
struct Socket {
    worker: usize,
    is_open_above: bool,
    is_open_below: bool,
    has_hello: bool,
    /// When the latest frame of each direction arrives.
    last_up: i64,
    last_down: i64,
}

/// All sockets that somebody still has open.
#[derive(Debug, Default)]
pub(super) struct Network {
    sockets: BTreeMap<SessionEpoch, Socket>,
    last: SessionEpoch,
    /// The youngest socket of each worker on which the master heard a hello.
    youngest: BTreeMap<usize, SessionEpoch>,
    /// Sockets that are shut because their worker's lease has passed, or it is dead or leaves.
    given_up: BTreeSet<SessionEpoch>,
    /// Until when a worker is cut off.
    partitions: BTreeMap<usize, i64>,
}

impl Network {
    /// Cuts a worker off.
    pub(super) fn part(&mut self, worker: usize, until: i64) {
        self.partitions.insert(worker, until);
    }

    /// Until when a worker is cut off; in the past when it is not.
    pub(super) fn parted_until(&self, worker: usize) -> i64 {
        self.partitions.get(&worker).copied().unwrap_or_default()
    }

    /// Ends all partitions for what is sent from now on.
    pub(super) fn heal(&mut self) {
        self.partitions.clear();
    }

    /// Sockets that the master has open.
    pub(super) fn open_above(&self) -> Vec<SessionEpoch> {
        self.sockets.iter().filter(|(_, socket)| socket.is_open_above).map(|(session, _)| *session).collect()
    }

    /// Whose socket that is.
    pub(super) fn worker_of(&self, session: SessionEpoch) -> Option<usize> {
        self.sockets.get(&session).map(|socket| socket.worker)
    }

    fn arrival(&self, worker: usize, now: i64, delay: i64, last: i64) -> i64 {
        (now.max(self.parted_until(worker)) + delay).max(last + 1)
    }

    fn forget_closed(&mut self, session: SessionEpoch) {
        if self.sockets.get(&session).is_some_and(|socket| !socket.is_open_above && !socket.is_open_below) {
            self.sockets.remove(&session);
        }
    }
}

impl World {
    /// Time that a frame takes.
    fn frame_delay(&mut self) -> i64 {
        if self.random.chance(30) { self.random.ms(1, 300) } else { self.random.ms(0, 3) }
    }

    /// Opens a socket for a worker.
    pub(super) fn connect(&mut self, worker: usize) -> SessionEpoch {
        let session = self.network.last.next();
        self.network.last = session;
        let socket = Socket {
            worker,
            is_open_above: true,
            is_open_below: true,
            has_hello: false,
            last_up: 0,
            last_down: 0,
        };
        self.network.sockets.insert(session, socket);
        session
    }

    /// Sends a frame to the master.
    pub(super) fn send_up(&mut self, session: SessionEpoch, frame: Upward) {
        let (delay, now) = (self.frame_delay(), self.now_us);
        let Some(socket) = self.network.sockets.get(&session) else { return };
        let at = self.network.arrival(socket.worker, now, delay, socket.last_up);
        if let Some(socket) = self.network.sockets.get_mut(&session) {
            socket.last_up = at;
        }
        self.plan(at, Happening::AtMaster { session, frame });
    }

    /// Sends a frame to a worker.
    pub(super) fn send_down(&mut self, session: SessionEpoch, frame: Downward) {
        let (delay, now) = (self.frame_delay(), self.now_us);
        let Some(socket) = self.network.sockets.get(&session) else { return };
        if !socket.is_open_above {
            return;
        }
        let at = self.network.arrival(socket.worker, now, delay, socket.last_down);
        if let Some(socket) = self.network.sockets.get_mut(&session) {
            socket.last_down = at;
        }
        self.plan(at, Happening::AtWorker { session, frame });
    }

    /// The master's end is shut; the worker learns of it later.
    pub(super) fn close_above(&mut self, session: SessionEpoch) {
        let delay = self.frame_delay();
        let Some(socket) = self.network.sockets.get_mut(&session) else { return };
        socket.is_open_above = false;
        let (worker, last) = (socket.worker, socket.last_down);
        let at = self.network.arrival(worker, self.now_us, delay, last);
        self.plan(at, Happening::ClosedAtWorker { session });
        self.network.forget_closed(session);
    }

    /// The worker's end is shut. The master learns of it later, unless the machine went silently.
    pub(super) fn close_below(&mut self, session: SessionEpoch, silently: bool) {
        let delay = self.frame_delay();
        let Some(socket) = self.network.sockets.get_mut(&session) else { return };
        socket.is_open_below = false;
        let (worker, last) = (socket.worker, socket.last_up);
        if !silently {
            let at = self.network.arrival(worker, self.now_us, delay, last);
            self.plan(at, Happening::ClosedAtMaster { session });
        }
        self.network.forget_closed(session);
    }

    /// The connection breaks: each end learns of it at its own time, and what is under way
    /// arrives only if it is there before.
    pub(super) fn break_socket(&mut self, session: SessionEpoch) {
        let (above, below) = (self.random.ms(0, 200), self.random.ms(0, 200));
        self.plan(self.now_us + above, Happening::ClosedAtMaster { session });
        self.plan(self.now_us + below, Happening::ClosedAtWorker { session });
    }

    pub(super) fn on_closed_at_master(&mut self, session: SessionEpoch) -> Result<(), String> {
        let Some(socket) = self.network.sockets.get_mut(&session) else { return Ok(()) };
        let (was_open, has_hello) = (socket.is_open_above, socket.has_hello);
        socket.is_open_above = false;
        self.network.forget_closed(session);
        if was_open && has_hello { self.step(Input::Disconnected { session }) } else { Ok(()) }
    }

    pub(super) fn on_closed_at_worker(&mut self, session: SessionEpoch) {
        let Some(socket) = self.network.sockets.get_mut(&session) else { return };
        let worker = socket.worker;
        socket.is_open_below = false;
        self.network.forget_closed(session);
        if self.workers[worker].session == Some(session) {
            self.disconnected(worker);
        }
    }

    /// A frame reaches the master: the door turns it into the kernel's words.
    pub(super) fn at_master(&mut self, session: SessionEpoch, frame: Upward) -> Result<(), String> {
        let Some(socket) = self.network.sockets.get_mut(&session) else { return Ok(()) };
        if !socket.is_open_above {
            return Ok(());
        }
        match frame {
            Upward::Hello(hello) => {
                socket.has_hello = true;
                let youngest = self.network.youngest.entry(socket.worker).or_default();
                *youngest = session.max(*youngest);
                self.step(Input::Hello { session, hello })
            }
            Upward::Reports(reports) => self.step(Input::Reports { session, reports }),
            Upward::Asks(asks) => self.step(Input::Asks { session, asks }),
            Upward::Heartbeat => self.step(Input::Heard { session }),
            Upward::Draining => self.step(Input::Draining { session }),
            Upward::Goodbye => self.step(Input::Goodbye { session }),
        }
    }

    /// A frame reaches a worker.
    pub(super) fn at_worker(&mut self, session: SessionEpoch, frame: Downward) -> Result<(), String> {
        let Some(socket) = self.network.sockets.get(&session) else { return Ok(()) };
        let worker = socket.worker;
        if !socket.is_open_below || self.workers[worker].session != Some(session) {
            return Ok(());
        }
        self.worker_hears(worker, frame)
    }

    /// Notes whom a decision takes for gone. Their sockets may be shut much later, when it is durable.
    pub(super) fn note_given_up(&mut self, batch: &Batch) {
        for event in &batch.events {
            if let (Subject::Worker(name), event::Happening::WorkerOffline { .. }) =
                (&event.subject, &event.happening)
                && let Some(worker) = self.workers.iter().position(|worker| worker.name == *name)
                && let Some(session) = self.network.youngest.get(&worker)
            {
                self.network.given_up.insert(*session);
            }
        }
    }

    /// Whether that is the youngest socket of its worker that has said hello, and an older one is
    /// open: then the older one superseded it.
    pub(super) fn is_superseded_by_older(&self, session: SessionEpoch) -> bool {
        let Some(worker) = self.network.worker_of(session) else { return false };
        let is_older = |other: SessionEpoch, socket: &Socket| {
            other < session && socket.worker == worker && socket.has_hello
        };
        self.network.youngest.get(&worker) == Some(&session)
            && !self.network.given_up.contains(&session)
            && self
                .network
                .sockets
                .iter()
                .any(|(other, socket)| is_older(*other, socket) && socket.is_open_above)
    }
}

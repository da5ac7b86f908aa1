//! What is said over a worker's socket, at its edge: frames are read and written here, and every
//! decision is the session's.
//!
//! ```text
//!   worker == Hello ==>        WorkerDoor -- Connect -->  WorkerRegistry
//!   worker == other frames ==> WorkerDoor -- FromDoor --> WorkerSession -- ToDoor --> WorkerDoor == frame ==> worker
//!   worker == log bytes ==>    WorkerDoor -- Append -->   LogStore      -- ToDoor --> WorkerDoor == LogAck ==> worker
//! ```
//!
//! A peer that says no `Hello` within [`HELLO`] is sent away. How much the worker may be sent ahead
//! of its acknowledgements is bounded by the session; how much it sends, by the protocol's windows.

use std::os::fd::OwnedFd;
use std::time::Duration;

use actix::{Addr, Recipient};
use agentflow_actors::{Connect, FromDoor, Gone, Refused, ToDoor, WorkerSession};
use agentflow_protocol::log_frame;
use agentflow_protocol::worker::{FromWorker, Hello, OLDEST_VERSION, ToWorker, VERSION};
use bytes::Bytes;

use crate::door::{Code, Conversation, Wire};
use crate::logs::{Append, CatchUp, LogStore};
use crate::state::Master;
use crate::stopping::Listener;

/// How long a new peer may be silent.
const HELLO: Duration = Duration::from_secs(5);

/// How often an idle socket is pinged, so that what lies between keeps it open.
const PING: Duration = Duration::from_secs(20);

/// Bytes of output after which a door takes nothing more until all of them are written. Workers that
/// keep to their windows rarely reach it; of those that do not, and of a slow disk, it bounds the
/// memory.
const AHEAD_BYTES: usize = 32 << 20;

/// Where the conversation stands.
enum Phase {
    /// Nothing was said yet.
    Silent,
    /// The hello was passed on.
    Connecting,
    /// The session listens.
    Open(Addr<WorkerSession>),
    /// Over.
    Closed,
}

/// One worker's socket.
pub(crate) struct WorkerDoor {
    registry: Addr<agentflow_actors::WorkerRegistry>,
    logs: Addr<LogStore>,
    stopping: Listener,
    peer: String,
    socket: Option<OwnedFd>,
    phase: Phase,
    /// Bytes of output since the log store was last known to have caught up.
    ahead_bytes: usize,
    door: Option<Recipient<ToDoor>>,
}

impl WorkerDoor {
    /// A door for the worker at `peer`, whose connection can be shut down by `socket`.
    pub(crate) fn new(master: &Master, peer: String, socket: Option<OwnedFd>) -> Self {
        Self {
            registry: master.handles.registry.clone(),
            logs: master.logs.clone(),
            stopping: master.stopping.listen(),
            peer,
            socket,
            phase: Phase::Silent,
            ahead_bytes: 0,
            door: None,
        }
    }

    fn refuse(&mut self, reason: String, retry: bool, wire: &mut Wire<'_, Self>) {
        log::warn!("worker at {}: refused: {reason}", self.peer);
        self.write(&ToWorker::Refused { reason: reason.clone(), retry }, wire);
        self.close(if retry { Code::Again } else { Code::Policy }, &reason, wire);
    }

    /// Closes because of what the peer sent; said once in the log.
    fn reject(&mut self, code: Code, reason: &str, wire: &mut Wire<'_, Self>) {
        log::warn!("worker at {}: closing: {reason}", self.peer);
        self.close(code, reason, wire);
    }

    fn close(&mut self, code: Code, reason: &str, wire: &mut Wire<'_, Self>) {
        self.leave();
        wire.close(code, reason);
    }

    fn leave(&mut self) {
        if let Phase::Open(session) = std::mem::replace(&mut self.phase, Phase::Closed) {
            session.do_send(Gone);
        }
    }

    fn write(&self, frame: &ToWorker, wire: &mut Wire<'_, Self>) {
        match serde_json::to_string(frame) {
            Ok(text) => wire.send(text),
            Err(error) => log::error!("a frame for the worker at {} has no text: {error}", self.peer),
        }
    }

    fn hello(&mut self, hello: Hello, wire: &mut Wire<'_, Self>) {
        if hello.version < OLDEST_VERSION {
            let reason = format!(
                "this master speaks protocol versions {OLDEST_VERSION} to {VERSION}, the worker {}; upgrade the worker",
                hello.version
            );
            return self.refuse(reason, false, wire);
        }
        self.phase = Phase::Connecting;
        let connect = Connect { hello, door: wire.recipient(), socket: self.socket.take() };
        self.door = Some(connect.door.clone());
        wire.wait(self.registry.send(connect), |door, answer, wire| match answer {
            Ok(Ok(session)) => door.phase = Phase::Open(session),
            Ok(Err(Refused { reason, retry })) => door.refuse(reason, retry, wire),
            Err(_) => door.refuse("the master is stopping".to_owned(), true, wire),
        });
    }
}

impl Conversation for WorkerDoor {
    type Told = ToDoor;

    fn opened(&mut self, wire: &mut Wire<'_, Self>) {
        wire.after(HELLO, |door, wire| {
            if matches!(door.phase, Phase::Silent) {
                door.reject(Code::Policy, "no hello came within 5 s", wire);
            }
        });
        wire.every(PING, |_, wire| wire.ping());
        let stopping = self.stopping.clone();
        wire.when(async move { stopping.begun().await }, |door, (), wire| {
            door.write(&ToWorker::Restarting {}, wire);
            door.close(Code::Restart, "the master is stopping", wire);
        });
    }

    fn text(&mut self, text: &str, wire: &mut Wire<'_, Self>) {
        let frame = match serde_json::from_str::<FromWorker>(text) {
            Ok(frame) => frame,
            Err(error) => {
                let code = if error.is_data() { Code::Unsupported } else { Code::Invalid };
                return self.reject(code, &format!("not a frame of the protocol: {error}"), wire);
            }
        };
        match (&self.phase, frame) {
            (Phase::Silent, FromWorker::Hello(hello)) => self.hello(hello, wire),
            (Phase::Silent, _) => self.reject(Code::Policy, "the first frame must be a hello", wire),
            (Phase::Open(_), FromWorker::Hello(_)) => {
                self.reject(Code::Policy, "a socket carries one hello", wire);
            }
            (Phase::Open(session), frame) => session.do_send(FromDoor(frame)),
            (Phase::Connecting | Phase::Closed, _) => {}
        }
    }

    fn binary(&mut self, bytes: Bytes, wire: &mut Wire<'_, Self>) {
        let (Phase::Open(_), Some(door)) = (&self.phase, &self.door) else {
            return self.reject(Code::Policy, "the first frame must be a hello", wire);
        };
        match log_frame::decode(&bytes) {
            Ok((header, body)) => {
                let bytes = bytes.slice_ref(body);
                self.ahead_bytes += bytes.len();
                self.logs.do_send(Append { header, bytes, door: door.clone() });
                if self.ahead_bytes > AHEAD_BYTES {
                    self.ahead_bytes = 0;
                    // An error means that the master stops, which this door hears of as well.
                    wire.wait(self.logs.send(CatchUp), |_, _, _| {});
                }
            }
            Err(error) => self.reject(Code::Unsupported, &error.to_string(), wire),
        }
    }

    fn told(&mut self, message: ToDoor, wire: &mut Wire<'_, Self>) {
        match message {
            ToDoor::Frame(frame) => self.write(&frame, wire),
            ToDoor::Close { reason } => {
                log::info!("worker at {}: closing: {reason}", self.peer);
                self.close(Code::Normal, &reason, wire);
            }
        }
    }

    fn closed(&mut self) {
        self.leave();
    }
}

//! AgentFlow's worker: it connects to a master, runs what it is given in its slots, and reports.
//!
//! ```text
//! main thread     actix system: Daemon (truth), Outbox, link (one WebSocket)
//! slot threads    one per running attempt: spawn, read, wait
//!                 door: the Unix socket on which attempts speak
//! spool thread    reports on disk
//! worktrees       a thread that takes away what settled tasks have left
//! warden          a second process: kills what is left when this one dies
//! ```
//!
//! Owns: processes and their output. Must not know: databases, scheduling, other workers.
//!
//! A program that embeds a worker calls [`warden::run_if_asked`] first in its `main`, then
//! [`start`]. Nothing here is global: several workers fit into one process.

mod api;
mod asks;
mod backoff;
mod clock;
pub mod config;
mod control;
mod daemon;
mod data_dir;
mod door;
mod error;
mod executor;
mod groups;
mod guarded;
mod lease;
mod leftovers;
mod link;
mod locks;
mod log_stream;
mod notice;
mod outbox;
mod place;
mod post;
mod slots;
mod spool;
mod strays;
pub mod warden;
mod window;
mod workspace;
mod worktrees;

use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use actix::Addr;
use agentflow_core::ids::BootId;
use tokio::sync::oneshot;

pub use config::{Config, default_prefetch};
pub use error::Error;

use daemon::{Daemon, Order, Parts};
use data_dir::DataDir;
use error::Kind;
use groups::Warden;
use spool::Spool;

/// A worker that runs on its own thread.
#[derive(Debug)]
pub struct Running {
    handle: Handle,
    thread: JoinHandle<Result<(), Error>>,
}

/// Tells a worker to leave; may be cloned and sent to other threads.
#[derive(Clone, Debug)]
pub struct Handle(Addr<Daemon>);

impl Handle {
    /// Take nothing new, give back what has not begun, finish what runs within the drain timeout,
    /// leave.
    pub fn drain(&self) {
        self.0.do_send(Order::Drain);
    }

    /// Stop what runs and leave; bounded by about ten seconds.
    pub fn stop(&self) {
        self.0.do_send(Order::Stop);
    }
}

impl Running {
    /// See [`Handle::drain`].
    pub fn drain(&self) {
        self.handle.drain();
    }

    /// See [`Handle::stop`].
    pub fn stop(&self) {
        self.handle.stop();
    }

    /// For other threads.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Whether it has left.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits until it has left.
    ///
    /// # Errors
    /// When the master refuses the worker for good ([`Error::is_refused`]).
    pub fn wait(self) -> Result<(), Error> {
        self.thread.join().unwrap_or_else(|_| Err(Kind::Panicked.into()))
    }
}

/// Starts a worker. When this returns, the data directory is its own, nothing of a predecessor
/// runs any more, and it has begun to look for a master.
///
/// # Errors
/// When the configuration is out of bounds ([`Error::is_config`]), another worker uses the data
/// directory ([`Error::is_locked`]), or the directory, the warden or the thread cannot be had.
pub fn start(config: Config) -> Result<Running, Error> {
    config.check()?;
    if let Some(path) = &config.token_file {
        notice::read_token(path).map_err(Kind::Config)?;
    }
    let data_dir = DataDir::open(&config.data_dir)?;
    let killed = leftovers::kill_all(&data_dir.key()).map_err(Kind::Leftovers)?;
    if killed > 0 {
        log::warn!("{killed} processes of an earlier worker were still alive; they are dead now");
    }
    data_dir.clean()?;
    raise_open_files(config.slots);
    let (spool, inherited) = Spool::open(&data_dir.path)?;
    let boot = new_boot().map_err(|error| Kind::Warden(error.into()))?;
    let description = warden::Description {
        masters: config.masters.clone(),
        worker: config.id.clone(),
        boot,
        key_prefix: data_dir.key_of(boot),
        token_file: config.token_file.as_deref().and_then(|path| std::path::absolute(path).ok()),
    };
    let warden_log = data_dir.path.join("warden.log");
    let warden = Warden::start(config.program.as_deref(), description, warden_log).map_err(Kind::Warden)?;
    let listener = door::listen(&data_dir.socket).map_err(error::at(&data_dir.socket))?;
    let (ready, address) = mpsc::channel();
    let thread = thread::Builder::new().name("worker".to_owned()).spawn(move || {
        let (result, warden) = actix_rt::System::new().block_on(async move {
            let (done, end) = oneshot::channel();
            let parts = Parts { config, boot, data_dir, spool, inherited, warden, listener, done };
            // The caller waits for nothing else.
            let _caller = ready.send(Daemon::launch(parts));
            end.await.unwrap_or_else(|_| (Err(Kind::Panicked.into()), None))
        });
        warden.into_iter().for_each(Warden::see_out);
        result
    });
    let thread = thread.map_err(Kind::Thread)?;
    match address.recv() {
        Ok(address) => Ok(Running { handle: Handle(address), thread }),
        Err(_) => Err(Kind::Panicked.into()),
    }
}

/// A running attempt holds two pipes and a descriptor of its process. The limit is raised only when
/// the slots need it, because programs that run here inherit it.
fn raise_open_files(slots: u32) {
    use rustix::process::{Resource, getrlimit, setrlimit};
    const OTHERS: u64 = 256;
    let needed = 4 * u64::from(slots) + OTHERS;
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= needed) {
        return;
    }
    let allowed = limit.maximum.map_or(needed, |maximum| maximum.min(needed));
    limit.current = Some(allowed);
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        log::warn!("{slots} slots need {needed} open files; the limit cannot be raised: {error}");
    } else if allowed < needed {
        log::warn!("{slots} slots need {needed} open files; only {allowed} are allowed");
    }
}

/// A name for this life that no earlier one had. Below 2^53, so that every reader of JSON keeps it.
fn new_boot() -> Result<BootId, getrandom::Error> {
    Ok(BootId((getrandom::u64()? >> 11).max(1)))
}

//! Master and worker inside this process: for `up`, and for a `run` that finds no master.
//!
//! Owns: who may run the master of a state directory, and the order of start and stop: the master
//! first and last, the worker in between. Must not know: what is run; the commands speak to the
//! master over HTTP like any other client.
//!
//! ```text
//! up    master ── worker `local`                      until a signal
//! run   master ── worker `local-N` with a label       until no run uses it
//! run   (joins that master) worker `local-M`          until it is done
//! ```
//!
//! Each masterless run brings its own worker, which alone has the label that the run's tasks ask
//! for. So what was interrupted is never begun by somebody else, and two runs do not wait for one
//! another.

use std::fs::{File, TryLockError};
use std::process::ExitCode;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use agentflow_master as master;
use agentflow_worker as worker;

use crate::args::Up;
use crate::error::{Error, exit};
use crate::interrupt::watch;
use crate::output::Output;
use crate::restart;
use crate::state::{LiveMaster, MasterLock, Owner, RunRecord, StateDir, try_lock};

/// Masterless runs at once on one machine and account; each holds a worker.
const LOCAL_WORKERS: u32 = 256;

/// How often it is looked whether the worker still runs.
const LOOK: Duration = Duration::from_millis(50);

/// A worker in this process that starts this program again as its warden ends here.
pub(crate) fn warden_if_asked() -> Option<ExitCode> {
    worker::warden::run_if_asked()
}

/// A worker of this process, and its master if that is here too.
pub(crate) struct Local {
    url: String,
    worker: worker::Running,
    /// Keeps the worker's name; dropped after the worker has left.
    _name: File,
    /// Shared while this run needs the master.
    users: File,
    master: Option<(master::Running, MasterLock)>,
}

/// Starts what a masterless run needs, or joins the master that another one has started. Also
/// answers with the number of the worker, for the run's record.
pub(crate) fn open(
    state: &StateDir,
    record: &RunRecord,
    label: &str,
    slots: Option<u32>,
) -> Result<(Local, u32), Error> {
    let users = state.file("users.lock")?;
    // A master that is being stopped holds it alone until it is gone.
    users.lock_shared().map_err(|error| Error::io("cannot lock users.lock", error))?;
    let (url, master) = loop {
        if let Some(mut lock) = state.lock_master()? {
            let listen = "127.0.0.1:0".to_owned();
            let running = start_master(state, None, master::Config { listen, ..Default::default() })?;
            let url = format!("http://{}", running.address());
            lock.announce(&LiveMaster { url: url.clone(), owner: Owner::Run, pid: std::process::id() })?;
            break (url, Some((running, lock)));
        }
        if let Some(live) = state.live_master()? {
            break (live.url, None);
        }
    };
    let (number, name) = worker_name(state, record.worker)?;
    let id = format!("local-{number}");
    let mut config = worker_config(state, &url, &id, slots);
    config.groups = record.groups();
    config.labels.insert(label.to_owned(), record.id.clone());
    let worker = worker::start(config).map_err(|error| worker_failed(&error))?;
    Ok((Local { url, worker, _name: name, users, master }, number))
}

impl Local {
    /// Where its master is.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// After the work: ends the worker, and the master once no other run needs it.
    pub(crate) fn close(self) -> Result<(), Error> {
        self.worker.drain();
        let left = self.worker.wait().map_err(|error| worker_failed(&error));
        let Some((master, lock)) = self.master else { return left };
        self.users.unlock().map_err(|error| Error::io("cannot unlock users.lock", error))?;
        match self.users.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                eprintln!("done; other runs use this master: it ends after them (Ctrl-C ends it now)");
                self.users.lock().map_err(|error| Error::io("cannot lock users.lock", error))?;
            }
            Err(TryLockError::Error(error)) => return Err(Error::io("cannot lock users.lock", error)),
        }
        let ended = end_master(master);
        drop(lock);
        left.and(ended)
    }

    /// In the middle of the work: stops what runs and ends at once. It can be resumed.
    pub(crate) fn abandon(self) -> Result<(), Error> {
        self.worker.stop();
        let left = self.worker.wait().map_err(|error| worker_failed(&error));
        let ended = self.master.map_or(Ok(()), |(master, _lock)| end_master(master));
        left.and(ended)
    }
}

/// The first free name, beginning with the one that this run had before.
fn worker_name(state: &StateDir, before: Option<u32>) -> Result<(u32, File), Error> {
    for number in before.into_iter().chain(1..=LOCAL_WORKERS) {
        let file = state.file(&format!("worker-{number}.lock"))?;
        if try_lock(&file)? {
            return Ok((number, file));
        }
    }
    Err(Error::Busy(format!("{LOCAL_WORKERS} runs are in progress here; wait for one of them to end")))
}

/// `config` says where to listen and what else is not usual.
fn start_master(
    state: &StateDir,
    database: Option<&str>,
    config: master::Config,
) -> Result<master::Running, Error> {
    let root = state.root();
    let config = master::Config {
        database: database
            .map_or_else(|| root.join("agentflow.db").to_string_lossy().into_owned(), str::to_owned),
        data_dir: root.join("data"),
        ..config
    };
    master::start(config).map_err(|error| master_failed(&error))
}

fn worker_config(state: &StateDir, url: &str, id: &str, slots: Option<u32>) -> worker::Config {
    let mut config = worker::Config::new(url, id, state.root().join(format!("worker-{id}")));
    if let Some(slots) = slots {
        config.slots = slots;
        config.prefetch = worker::default_prefetch(slots);
    }
    config
}

fn end_master(master: master::Running) -> Result<(), Error> {
    master.stop();
    master.wait().map_err(|error| master_failed(&error))
}

fn master_failed(error: &master::Error) -> Error {
    if error.is_configuration() {
        return Error::Usage(error.to_string());
    }
    if error.is_locked() || error.is_listen() {
        return Error::Busy(error.to_string());
    }
    embedded("the master", error)
}

fn worker_failed(error: &worker::Error) -> Error {
    if error.is_config() {
        return Error::Usage(error.to_string());
    }
    if error.is_locked() {
        return Error::Busy(error.to_string());
    }
    embedded("the worker", error)
}

/// The whole chain of causes on one line.
fn embedded(what: &str, error: &dyn std::error::Error) -> Error {
    let mut text = format!("{what}: {error}");
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    Error::Embedded(text)
}

/// What ends `up`.
enum Ending {
    Signal,
    /// The master has ended, of itself or because it was told to.
    Master(Result<(), master::Error>),
}

/// Master and worker until a signal. When the store has failed, all of it again.
pub(crate) fn up(up: &Up, output: Output) -> Result<u8, Error> {
    let begun = std::time::Instant::now();
    let code = live(up, output)?;
    Ok(if code == exit::STORE_FAILED { restart::again(begun.elapsed()) } else { code })
}

/// Master and worker until a signal: then the worker finishes what it runs, and the master ends.
fn live(up: &Up, output: Output) -> Result<u8, Error> {
    let state = match &up.data_dir {
        Some(dir) => {
            StateDir::at(std::path::absolute(dir).map_err(|error| Error::io("the data directory", error))?)?
        }
        None => StateDir::open()?,
    };
    let Some(mut lock) = state.lock_master()? else { return Err(busy(&state)?) };
    let (sender, endings) = mpsc::channel();
    let signals = sender.clone();
    watch(move |count| {
        if count > 2 || signals.send(Ending::Signal).is_err() {
            std::process::exit(i32::from(exit::INTERRUPTED));
        }
    })?;
    let config = master::Config {
        listen: up.listen.clone(),
        token_file: up.token_file.clone(),
        lfs_upstream: up.lfs_upstream.clone(),
        ..master::Config::default()
    };
    let master = start_master(&state, up.database.as_deref(), config)?;
    let address = master.address();
    let stopper = master.stopper();
    let url = format!("http://{}", reachable(address));
    lock.announce(&LiveMaster { url: url.clone(), owner: Owner::Up, pid: std::process::id() })?;
    let mut config = worker_config(&state, &url, &up.id, up.slots);
    if !up.groups.is_empty() {
        config.groups.clone_from(&up.groups);
    }
    config.labels.extend(up.labels.iter().cloned());
    config.token_file.clone_from(&up.token_file);
    let worker = worker::start(config).map_err(|error| worker_failed(&error))?;
    std::thread::Builder::new()
        .name("master-end".to_owned())
        .spawn(move || sender.send(Ending::Master(master.wait())))
        .map_err(|error| Error::io("cannot start a thread", error))?;
    output.line(format_args!("listening on http://{address}"))?;
    eprintln!("state in {}; Ctrl-C ends it after what runs", state.root().display());

    let mut ended = None;
    match next(&endings, &worker) {
        Some(Ending::Signal) => {
            eprintln!("ending after what runs now; Ctrl-C again stops that too");
            worker.drain();
            // The worker leaves, or its master does, or somebody is in a hurry.
            if let Some(ending) = next(&endings, &worker) {
                worker.stop();
                ended = master_end(ending);
            }
        }
        Some(ending) => {
            worker.stop();
            ended = master_end(ending);
        }
        None => {}
    }
    let left = worker.wait().map_err(|error| worker_failed(&error));
    stopper.stop();
    while ended.is_none() {
        // The sender lives in the thread that waits for the master: this ends with it.
        ended = master_end(endings.recv().unwrap_or(Ending::Master(Ok(()))));
    }
    drop(lock);
    match ended {
        Some(Err(error)) if error.is_store_failure() => {
            eprintln!("agentflow: {}", embedded("the master", &error));
            Ok(exit::STORE_FAILED)
        }
        Some(Err(error)) => Err(master_failed(&error)),
        _ => left.map(|()| exit::DONE),
    }
}

fn master_end(ending: Ending) -> Option<Result<(), master::Error>> {
    match ending {
        Ending::Master(result) => Some(result),
        Ending::Signal => None,
    }
}

/// Waits for what ends `up`; `None` when the worker has left of itself.
fn next(endings: &mpsc::Receiver<Ending>, worker: &worker::Running) -> Option<Ending> {
    loop {
        match endings.recv_timeout(LOOK) {
            Ok(ending) => return Some(ending),
            Err(RecvTimeoutError::Timeout) if !worker.is_finished() => {}
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return None,
        }
    }
}

/// Where a client on this machine reaches a master that listens there.
fn reachable(address: std::net::SocketAddr) -> std::net::SocketAddr {
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => SocketAddr::new(Ipv4Addr::LOCALHOST.into(), address.port()),
        IpAddr::V6(ip) if ip.is_unspecified() => SocketAddr::new(Ipv6Addr::LOCALHOST.into(), address.port()),
        _ => address,
    }
}

fn busy(state: &StateDir) -> Result<Error, Error> {
    let there = match state.live_master()? {
        Some(live) => format!("a master runs here already, at {} (process {})", live.url, live.pid),
        None => "another master was just ending here; try again".to_owned(),
    };
    Ok(Error::Busy(format!("{there}; for a second one give another --data-dir and --listen")))
}

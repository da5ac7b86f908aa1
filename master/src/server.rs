//! Start-up and shutdown: what is made in which order, and unmade in which.
//!
//! ```text
//!   start: configuration, data directory, lock file, address, log store, master system, HTTP
//!   stop:  refuse writes and workers, doors and long polls end, master system, HTTP, log store, lock file
//! ```
//!
//! A master runs on threads of its own, so that a command or a test can hold one beside its own work.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use actix_rt::{Arbiter, System};
use actix_web::dev::ServerHandle;
use actix_web::middleware::from_fn;
use actix_web::{App, HttpServer, web};
use agentflow_actors::{MasterSystem, Settings};
use agentflow_schema::Target;
use futures_util::future::{Either, select};
use tokio::sync::Notify;

use crate::config::Config;
use crate::door::Socket;
use crate::error::{Error, chain};
use crate::http;
use crate::http::token::Token;
use crate::lock_file::LockFile;
use crate::logs::{CatchUp, LogStore, Watchers};
use crate::metrics::Metrics;
use crate::state::Master;
use crate::stopping::Stopping;

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 2_048;

/// Threads per HTTP thread that may wait for the database or a file. Four reading connections serve
/// them all; the others read logs.
const BLOCKING_THREADS: usize = 8;

/// How long an idle connection is kept for its client's next request.
const KEEP_ALIVE: Duration = Duration::from_secs(75);

/// How long sockets, long polls and streams may take to end. Those that take longer do not read.
const DOORS: Duration = Duration::from_millis(700);

/// How long what was decided may take to be written. Only a disk that is full or broken takes longer.
const FLUSH: Duration = Duration::from_secs(10);

/// How long answers that are on their way may take.
const ANSWERS: Duration = Duration::from_millis(500);

/// A master at work. Dropping it begins to stop it.
#[derive(Debug)]
pub struct Running {
    address: SocketAddr,
    stopper: Stopper,
    thread: Option<JoinHandle<Result<(), Error>>>,
}

/// Stops a [`Running`] master, from anywhere.
#[derive(Clone, Debug)]
pub struct Stopper(Arc<Notify>);

impl Stopper {
    /// Begins to stop in good order; [`Running::wait`] ends when that is done.
    pub fn stop(&self) {
        self.0.notify_one();
    }
}

impl Running {
    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where clients and workers reach it.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// A handle that stops it.
    #[must_use]
    pub fn stopper(&self) -> Stopper {
        self.stopper.clone()
    }

    /// Begins to stop in good order.
    pub fn stop(&self) {
        self.stopper.stop();
    }

    /// Waits until it has ended.
    ///
    /// # Errors
    /// [`Error::is_store_failure`] when the store failed: memory is ahead of the disk, and a restart
    /// recovers.
    pub fn wait(mut self) -> Result<(), Error> {
        let Some(thread) = self.thread.take() else { return Ok(()) };
        thread.join().unwrap_or(Err(Error::Panicked))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stopper.stop();
    }
}

/// Starts a master. Returns when it can take work.
///
/// # Errors
/// Everything that keeps it from starting; the text says what to do.
pub fn start(config: Config) -> Result<Running, Error> {
    config.check()?;
    let stopper = Stopper(Arc::default());
    let (sender, receiver) = mpsc::channel();
    let stop = Arc::clone(&stopper.0);
    let thread = std::thread::Builder::new().name("agentflow-master".to_owned()).spawn(move || {
        let runner = System::new();
        let ended = runner.block_on(serve(config, sender, stop));
        System::current().stop();
        runner.run()?;
        ended
    })?;
    match receiver.recv() {
        Ok(address) => Ok(Running { address, stopper, thread: Some(thread) }),
        // It ended before it was ready, and says why.
        Err(_) => Err(match thread.join() {
            Ok(Err(error)) => error,
            Ok(Ok(())) | Err(_) => Error::Panicked,
        }),
    }
}

async fn serve(config: Config, ready: mpsc::Sender<SocketAddr>, stop: Arc<Notify>) -> Result<(), Error> {
    let serving = Serving::start(&config)?;
    // Whoever started the master may have gone; then dropping `Running` has asked to stop.
    let _ = ready.send(serving.address);
    let fatal = serving.master.handles.fatal.clone();
    let asked = std::pin::pin!(stop.notified());
    let failed = std::pin::pin!(fatal.wait());
    match select(asked, failed).await {
        Either::Left(_) => serving.stop().await,
        Either::Right(_) => serving.abandon().await,
    }
    match fatal.reason() {
        None => Ok(()),
        Some(_) => Err(Error::StoreFailed),
    }
}

/// Everything that was started, in the order in which it is unmade.
struct Serving {
    address: SocketAddr,
    master: web::Data<Master>,
    system: MasterSystem,
    server: ServerHandle,
    log_arbiter: Arbiter,
    lock: LockFile,
}

impl Serving {
    fn start(config: &Config) -> Result<Self, Error> {
        let target: Target = config.database.parse().map_err(Error::Configuration)?;
        let wanted = config.address()?;
        let token = config.token(wanted)?.map(|token| Token::new(&token));
        let logs_dir = prepare(&config.data_dir)?;
        let mut lock = LockFile::take(&target, &config.data_dir)?;
        let listener = listen(wanted, &config.listen)?;
        let address = listener.local_addr()?;

        let watchers = Watchers::default();
        let log_arbiter = Arbiter::new();
        let logs = LogStore::start_on(&log_arbiter, logs_dir.clone(), watchers.clone());
        let settings = Settings {
            target: target.clone(),
            durability: config.durability.into(),
            data_dir: config.data_dir.clone(),
            lease_ms: config.lease_ms,
            heartbeat_ms: config.heartbeat_ms,
            retention_days: config.retention_days,
            pruned_logs: Some(logs.clone().recipient()),
        };
        let system = MasterSystem::start(settings).map_err(|error| {
            Error::Database(format!("the database '{target}' cannot be used: {}", chain(&error)))
        })?;
        let master = web::Data::new(Master {
            handles: system.handles(),
            logs,
            logs_dir,
            watchers,
            stopping: Stopping::new(),
            token,
            lfs_upstream: config.lfs_upstream.clone(),
            metrics: Metrics::new(),
            bulk_actions: AtomicUsize::new(0),
        });
        let server = serve_http(config, listener, &master)?;
        lock.announce(&format!("http://{address}"))?;
        Ok(Self { address, master, system, server, log_arbiter, lock })
    }

    /// Ends in good order: nothing that was acknowledged is lost, and nobody waits in vain.
    async fn stop(self) {
        log::info!("stopping");
        self.master.stopping.begin();
        if !self.master.stopping.all_gone(DOORS).await {
            log::warn!("some peers do not read; their connections are cut");
        }
        if actix_rt::time::timeout(FLUSH, self.system.stop()).await.is_err() {
            log::error!(
                "the store could not write within {} s; what it had was never acknowledged",
                FLUSH.as_secs()
            );
        }
        end_http(&self.server, &self.master.metrics.connections).await;
        if actix_rt::time::timeout(ANSWERS, self.master.logs.send(CatchUp)).await.is_err() {
            log::warn!("some output was not written; workers still have it");
        }
        self.log_arbiter.stop();
        drop(self.lock);
        log::info!("stopped");
    }

    /// Ends at once: what memory says can no longer be trusted.
    async fn abandon(self) {
        self.master.stopping.begin();
        self.server.stop(false).await;
        self.log_arbiter.stop();
        drop(self.lock);
    }
}

/// Makes the data directory and sees that it can be written to.
fn prepare(data_dir: &Path) -> Result<std::path::PathBuf, Error> {
    let failed = |source| Error::DataDir { path: data_dir.to_owned(), source };
    let logs = data_dir.join("logs");
    std::fs::create_dir_all(&logs).map_err(failed)?;
    let probe = data_dir.join(".agentflow-probe");
    std::fs::write(&probe, b"").and_then(|()| std::fs::remove_file(&probe)).map_err(failed)?;
    Ok(logs)
}

fn listen(address: SocketAddr, configured: &str) -> Result<TcpListener, Error> {
    let bind = || {
        let socket = match address {
            SocketAddr::V4(_) => actix_rt::net::TcpSocket::new_v4()?,
            SocketAddr::V6(_) => actix_rt::net::TcpSocket::new_v6()?,
        };
        // Connections of a master that ended a moment ago must not keep the next one out.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)?.into_std()
    };
    bind().map_err(|source| {
        let hint = match source.kind() {
            ErrorKind::AddrInUse => {
                "; another program listens there: stop it or choose another port with --listen"
            }
            ErrorKind::AddrNotAvailable => "; this machine has no such address",
            ErrorKind::PermissionDenied => "; ports below 1024 need privileges",
            _ => "",
        };
        Error::Listen { address: configured.to_owned(), source, hint }
    })
}

fn serve_http(
    config: &Config,
    listener: TcpListener,
    master: &web::Data<Master>,
) -> Result<ServerHandle, Error> {
    let open = Arc::clone(&master.metrics.connections);
    let master = master.clone();
    let server = HttpServer::new(move || {
        App::new().app_data(master.clone()).wrap(from_fn(http::around)).configure(http::configure)
    })
    .workers(config.http_threads)
    .worker_max_blocking_threads(BLOCKING_THREADS)
    .keep_alive(KEEP_ALIVE)
    .tcp_nodelay(true)
    // A client that goes away while it waits loses its place.
    .h1_allow_half_closed(false)
    .on_connect(move |connection, extensions| Socket::accepted(&open, connection, extensions))
    .disable_signals()
    .shutdown_timeout(1)
    .listen(listener)?
    .run();
    let handle = server.handle();
    actix_rt::spawn(async move {
        if let Err(error) = server.await {
            log::error!("HTTP ended: {error}");
        }
    });
    Ok(handle)
}

/// Lets answers that are on their way arrive. The server itself looks only once a second whether
/// its connections have ended.
async fn end_http(server: &ServerHandle, open: &AtomicUsize) {
    let stopped = std::pin::pin!(server.stop(true));
    let idle = std::pin::pin!(async {
        while open.load(Ordering::Relaxed) > 0 {
            actix_rt::time::sleep(Duration::from_millis(5)).await;
        }
    });
    // Whatever is still open after this is cut with the process or the system.
    let _ = actix_rt::time::timeout(ANSWERS, select(stopped, idle)).await;
}

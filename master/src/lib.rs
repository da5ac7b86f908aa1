//! AgentFlow's master: configuration, start-up, HTTP, and the sockets of workers and dashboards.
//!
//! Owns: the process around the actors of `agentflow_actors`, the REST API, and the files to which
//! attempts' output goes. Must not: decide anything about tasks, or write SQL.
//!
//! ```text
//!   clients ==HTTP==> http/…  --Ask-->  Dispatcher    (agentflow_actors)
//!                             --read->  Readers       (agentflow_schema), on threads that may wait
//!   workers ==WS====> WorkerDoor -----> WorkerSession (agentflow_actors)
//!                             --logs->  LogStore, an arbiter of its own
//! ```
//!
//! ```no_run
//! let master = agentflow_master::start(agentflow_master::Config::default())?;
//! println!("listening on {}", master.url());
//! master.wait()?;
//! # Ok::<(), agentflow_master::Error>(())
//! ```

mod config;
mod door;
mod error;
mod http;
mod lock_file;
mod logs;
mod metrics;
mod server;
mod state;
mod stopping;
mod worker_door;

pub use config::{Arguments, Config, DurabilityClass, TOKEN_CHARS};
pub use error::Error;
pub use server::{Running, Stopper, start};

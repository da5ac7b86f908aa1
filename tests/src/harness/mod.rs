//! Starts, watches and kills the real programs.
//!
//! Owns: where the programs are and that they are built, their processes and files, a client for the
//! API, and the one way to wait. Must not know: how any of the programs works inside.
//!
//! Invariants: what a test started is dead when its handle is dropped, and its files are gone when
//! its [`Scene`] is; ports are outside the range from which the system picks ports for outgoing
//! connections, so that a master can be started again on the port that it had.

mod binaries;
mod client;
mod port;
mod process;
mod random;
mod scene;
mod wait;

pub use binaries::{Binaries, binaries, profile};
pub use client::{Answer, Client, Lost};
pub use port::free_port;
pub use process::{
    Process, children, cpu_time, is_alive, pids_with_environment, resident_children, written_bytes,
};
pub use random::Random;
pub use scene::{Scene, WorkerOptions};
pub use wait::{pause, wait_for, wait_until};

/// Whatever goes wrong: all that a test does with it is to show it.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

//! The simulation: the kernel that ships, in a world made of one seed.
//!
//! ```text
//!   clients ──► door ──► Kernel::step ──► batches ──► store (in memory)
//!                          ▲    │                        │
//!                          │    └──── effects ◄──────────┘ committed
//!   workers ◄── sockets ───┘
//! ```
//!
//! Everything around the kernel is played: the clock, the database, the network, workers and
//! clients. Sockets break, workers and masters die, commits are slow, clocks jump, answers get
//! lost. After every step the invariants are checked; at the end faults stop, and everything that
//! can run must settle.
//!
//! It must not know the kernel's inside: it sees what the shell sees, and `Kernel::check`.

mod client;
mod faults;
mod fold;
mod invariants;
mod master;
mod network;
mod random;
mod run;
mod store;
mod work;
mod worker;
mod world;

pub use run::{Failure, Summary, run};
pub use world::Sabotage;

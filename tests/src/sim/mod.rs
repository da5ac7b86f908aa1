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
//! lost. After every step the invariants are checked; at the end faults stop, clients let go of what
//! they keep, and everything that can run must settle, and every run end.
//!
//! What a run must do is worked out apart from the kernel: from the workflow as the client sent it
//! (`nodes.rs` while it goes on, `oracle.rs` and `values.rs` when it has ended). Where an attempt
//! must begin and what its task must remember is worked out from what was asked (`asked.rs`,
//! `promises.rs`). `crashes.rs` and `counting.rs` are small worlds of their own.
//!
//! It must not know the kernel's inside: it sees what the shell sees, and `Kernel::check`.

mod answers;
mod asked;
mod asks;
mod changes;
mod counting;

mod client;
mod crashes;
mod edits;
mod faults;
mod fifty;
mod fold;
mod invariants;
mod locks;
mod master;
mod network;
mod nodes;
mod oracle;
mod order;
mod promises;
mod random;
mod requests;
mod run;
mod saved;
mod store;
mod ties;
mod upgraded;
mod upgrades;
mod values;
mod work;
mod worker;
mod workflows;
mod world;

pub use counting::{Counted, count_to};
pub use crashes::{Ending, Moment, run_of_fifty};
pub use run::{Failure, Summary, run};
pub use upgrades::{Replacement, old_path, run_of_the_other, upgraded_run_of_fifty};
pub use world::Sabotage;

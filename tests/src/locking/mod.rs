//! The test of locks: real clients lock, renew, give back, break and look, while they and the master are
//! killed; what each of them was told must be explained by one sequence of decisions of one lock service.
//!
//! ```text
//! storm ---- kill -9 ----> client processes ---- HTTP ----> master <---- kill -9 ---- storm
//!                               |
//!                               v
//!                    what was asked, and answered, and when
//!                               |
//!                               v
//!             check: is there an order? ----> model: one lock service, without clients or time
//! ```
//!
//! Owns: the clients, what they write down, the model, the search for an order (linearizability, after
//! Wing and Gong), the storm. Must not know: how the kernel decides; the model has its own table of which
//! paths have files in common.
//!
//! Invariants: a client writes down what it asks before it does, and what it was told before it asks
//! again, so that of a killed one at most the last is unknown; when the storm is over and every lock has
//! had its time, none is left.

mod check;
mod client;
mod history;
mod model;
mod paths;
mod storm;

pub use client::{Orders, be_a_client};
pub use storm::{Plan, Report, run};

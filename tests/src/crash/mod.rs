//! The crash test: real programs are killed while tasks flow, and a ledger kept by the clients is
//! compared with what the master says at the end.
//!
//! ```text
//! submitters ---- tasks ----> master <----> two workers ----> processes
//!     |                         ^               ^                 |
//!     v                         |   kill -9     |                 v
//!   ledger                      +---- storm ----+         one line per execution
//!     |                                                           |
//!     +----------------------> audit <----------------------------+
//! ```
//!
//! Owns: the storm, the ledger, the comparison. Invariant: chance comes from the seed only; what the
//! machine does with it is as it is.

mod audit;
mod ledger;
mod storm;

pub use audit::Report;
pub use storm::{Plan, run};

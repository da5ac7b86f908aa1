//! The pure heart of AgentFlow.
//!
//! Owns: identities, limits, the states of every entity and the decisions over them, the queues,
//! the matching of tasks to workers, and the [`Kernel`](kernel::Kernel) that ties them together.
//!
//! Must not know: actix, diesel, tokio, any clock, randomness or I/O. Time arrives as
//! [`time::Now`] and leaves as a moment at which to be woken; everything else arrives as a
//! [`kernel::Input`] and leaves as a [`batch::Batch`] to be written and as
//! [`kernel::Effect`]s to be carried out once it is.

pub mod attempt;
pub mod batch;
pub mod blob;
pub mod checkpoint;
pub mod event;
pub mod ids;
pub mod kernel;
pub mod limits;
pub mod lock;
pub mod memory;
pub mod rejection;
pub mod relation;
pub mod run;
pub mod spec;
pub mod status;
pub mod task;
pub mod time;
pub mod why;

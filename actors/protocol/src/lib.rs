//! The words on the wire.
//!
//! Owns: the frames between master and worker, the bodies of the REST API, the published form of
//! events, and the form of errors. Knows the core's vocabulary and nothing of sockets.
//!
//! `docs/PROTOCOL.md` describes the same for people; a test keeps the two together.

pub mod api;
pub mod blobs;
pub mod input;
pub mod inside;
pub mod keys;
pub mod lfs;
pub mod locks;
pub mod log_frame;
pub mod percent;
pub mod problem;
pub mod run_upgrade;
pub mod runs;
pub mod saved;
pub mod schedule;
pub mod submit;
pub mod timestamp;
pub mod upgrade;
pub mod worker;
pub mod workflow;

pub use problem::Problem;
pub use timestamp::Timestamp;

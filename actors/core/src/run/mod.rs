//! Runs of workflows: what follows from the definition and from how its nodes ended.
//!
//! Pure; knows nothing of tasks' rows, workers or the database. The kernel draws the consequences in
//! `kernel/runs.rs`.

mod graph;
pub mod mapping;
mod numbers;
mod status;
#[cfg(test)]
mod tests;

pub use graph::{Graph, NodeStatus, Step};
pub use numbers::{Numbers, Range};
pub use status::RunStatus;

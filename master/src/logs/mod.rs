//! What attempts print: one file per attempt in the data directory.
//!
//! Owns: the files, their names, and who is told that one has grown. Log bytes are a durability
//! class of their own: written before they are acknowledged, but not synced.
//!
//! ```text
//!   WorkerDoor -- Append --> LogStore == write ==> data_dir/logs/TASK÷1000/TASK.ATTEMPT.log
//!   WorkerDoor <- LogAck --- LogStore -- wrote --> Watchers ==> whoever follows
//!   Janitor -- PrunedLogs -> LogStore == delete
//! ```
//!
//! Invariants:
//! - Every frame is acknowledged, also one that was there already and one that the disk refused: a
//!   worker never waits for a disk that is broken.
//! - A file is never longer than [`file::LIMIT`] and a line that says so.

mod file;
mod read;
mod store;
mod watch;

use std::path::{Path, PathBuf};

use agentflow_core::ids::{Attempt, TaskId};

pub(crate) use read::{LogReader, STEP_BYTES};
pub(crate) use store::{Append, CatchUp, LogStore};
pub(crate) use watch::{Watcher, Watchers};

/// Where an attempt's output is.
fn log_path(logs: &Path, task: TaskId, attempt: Attempt) -> PathBuf {
    logs.join((task.0 / 1_000).to_string()).join(format!("{task}.{attempt}.log"))
}

/// Where it is written what was cut out of an attempt's output.
fn gaps_path(logs: &Path, task: TaskId, attempt: Attempt) -> PathBuf {
    log_path(logs, task, attempt).with_extension("gaps")
}

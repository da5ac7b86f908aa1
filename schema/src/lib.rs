//! AgentFlow's database: tables, connections, migrations, the write path and the reads, on SQLite
//! and PostgreSQL.
//!
//! Owns: every line of SQL; the numbering of events; the shape of what is stored.
//!
//! Must not know: actors, HTTP, any clock (time arrives as an argument). Everything here blocks,
//! so callers keep it off their event loops.
//!
//! ```text
//! Batch, Batch, … -> Gathered -> Writer::commit -> one transaction -> Committed
//! GET …           -> Readers  -> short read-only statements on a small pool
//! timer           -> Checkpointer, Writer::prune
//! ```
//!
//! Invariants:
//! - There is one [`Writer`] in office. Each of its transactions begins by proving that its epoch is
//!   still the newest, and otherwise changes nothing ([`Error::is_fenced`]).
//! - Events are numbered from 1 without a hole, in the order of decisions.
//! - Rows are snapshots and events are history; both are written in the same transaction.

mod blobs;
mod checkpoint;
mod columns;
mod connection;
mod error;
mod events;
mod filter;
mod gathered;
mod hot;
mod left;
mod locks;
mod migrations;
mod prune;
mod readers;
mod recover;
mod relations;
mod runs;
mod saved;
mod tables;
mod target;
#[cfg(feature = "testing")]
pub mod testing;
mod writer;

pub use blobs::{BlobReader, Blobs, PutError};
pub use checkpoint::{Checkpointed, Checkpointer};
pub use error::Error;
pub use events::StoredEvent;
pub use filter::{Cursor, TaskFilter};
pub use gathered::Gathered;
pub use left::{ArtifactRecord, Whose};
pub use prune::{Pruned, RemovedLog};
pub use readers::{
    Head, NodeRecord, Readers, RunCursor, RunFilter, RunRecord, RunSummary, RunVersionRecord, TaskRecord,
    TaskSummary,
};
pub use recover::Recovered;
pub use saved::{CheckpointRecord, VersionRecord};
pub use target::{Durability, Options, Target};
pub use writer::{Committed, Office, Writer};

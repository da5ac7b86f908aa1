//! The janitor: moves SQLite's log into its file and has old rows removed.
//!
//! It has an arbiter of its own, because a checkpoint waits for the disk.

use std::time::Duration;

use actix::{Actor, Addr, AsyncContext, Context};
use agentflow_core::limits::UNNAMED_BLOB_HOURS;
use agentflow_core::time::Wall;
use agentflow_schema::{Blobs, Checkpointer, Readers};

use crate::clock;
use crate::store::{Prune, Store};

/// Between two checkpoints. At 20,000 tasks a second the log grows by about 40 MB meanwhile.
const CHECKPOINT: Duration = Duration::from_secs(1);

/// Between two rounds of retention.
const RETENTION: Duration = Duration::from_secs(300);

/// Between two turns of sweeping blobs. A round takes 256 of them: an hour and a half.
const SWEEP: Duration = Duration::from_secs(20);

const HOUR_US: i64 = 3_600 * 1_000_000;

const DAY_US: i64 = 24 * 3_600 * 1_000_000;

/// The actor.
pub(crate) struct Janitor {
    pub(crate) checkpointer: Checkpointer,
    pub(crate) store: Addr<Store>,
    pub(crate) readers: Readers,
    pub(crate) blobs: Blobs,
    pub(crate) retention_days: u64,
}

impl Janitor {
    fn checkpoint(&mut self) {
        if let Err(error) = self.checkpointer.run() {
            // The store meets the same disk and says what follows from it.
            log::warn!("the write-ahead log was not moved into the database: {error}");
        }
    }

    fn retain(&self) {
        let days = i64::try_from(self.retention_days).unwrap_or(i64::MAX);
        let before = Wall(clock::wall().0.saturating_sub(days.saturating_mul(DAY_US)));
        self.store.do_send(Prune { before });
    }
}

impl Janitor {
    /// Removes bytes that nobody names any more.
    fn sweep(&self) {
        let age = HOUR_US * UNNAMED_BLOB_HOURS.cast_signed();
        let before = Wall(clock::wall().0.saturating_sub(age));
        match self.blobs.sweep(before, &mut |sha256| self.readers.names_blob(sha256)) {
            Ok(0) => {}
            Ok(removed) => log::debug!("{removed} blobs that nobody named are gone"),
            Err(error) => log::warn!("blobs that nobody names stay for now: {error}"),
        }
    }
}

impl Actor for Janitor {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Context<Self>) {
        context.run_interval(CHECKPOINT, |janitor, _| janitor.checkpoint());
        context.run_interval(RETENTION, |janitor, _| janitor.retain());
        context.run_interval(SWEEP, |janitor, _| janitor.sweep());
    }
}

//! The janitor: moves SQLite's log into its file and has old rows removed.
//!
//! It has an arbiter of its own, because a checkpoint waits for the disk.

use std::time::Duration;

use actix::{Actor, Addr, AsyncContext, Context};
use agentflow_core::time::Wall;
use agentflow_schema::Checkpointer;

use crate::clock;
use crate::store::{Prune, Store};

/// Between two checkpoints. At 20,000 tasks a second the log grows by about 40 MB meanwhile.
const CHECKPOINT: Duration = Duration::from_secs(1);

/// Between two rounds of retention.
const RETENTION: Duration = Duration::from_secs(300);

const DAY_US: i64 = 24 * 3_600 * 1_000_000;

/// The actor.
pub(crate) struct Janitor {
    pub(crate) checkpointer: Checkpointer,
    pub(crate) store: Addr<Store>,
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

impl Actor for Janitor {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Context<Self>) {
        context.run_interval(CHECKPOINT, |janitor, _| janitor.checkpoint());
        context.run_interval(RETENTION, |janitor, _| janitor.retain());
    }
}

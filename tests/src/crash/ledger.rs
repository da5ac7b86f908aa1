//! What the clients know: what they sent, and what was acknowledged.

use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::Value;

/// One submission of one or more tasks, all with the same title.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// Found again in the titles of its tasks; no other submission has it.
    pub(super) title: String,
    /// As it was sent, for sending it again.
    pub(super) body: Value,
    /// With a key it may be sent again.
    pub(super) key: Option<String>,
    /// Tasks in it.
    pub(super) count: usize,
    /// Whether its tasks leave a line where they are executed.
    pub(super) leaves_lines: bool,
    /// What became of it.
    pub(super) fate: Fate,
}

/// What a client knows about a submission.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Fate {
    /// These tasks were made.
    Acknowledged(Vec<u64>),
    /// The master said that nothing was made.
    Refused,
    /// The answer was lost: all was made or nothing.
    Unknown,
}

/// All submissions of all clients.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    entries: Mutex<Vec<Entry>>,
}

impl Ledger {
    /// Notes a submission whose fate is decided.
    pub(super) fn note(&self, entry: Entry) {
        self.entries().push(entry);
    }

    /// Everything so far.
    pub(super) fn entries(&self) -> MutexGuard<'_, Vec<Entry>> {
        // Only whole entries are ever pushed.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

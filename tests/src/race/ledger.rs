//! What the contenders know: what they were granted, what they tried, and what they were told.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::plan::{Kind, Layer, Who};

/// A lock that somebody had.
#[derive(Clone, Debug)]
pub(super) struct Grant {
    /// Who.
    pub(super) who: Who,
    /// A task, or the person: whoever counts as one for the locks.
    pub(super) owner: String,
    /// Its number.
    pub(super) fence: u64,
    /// What was asked for.
    pub(super) places: Vec<String>,
}

/// A line that was to come to `main`.
#[derive(Clone, Debug)]
pub(super) struct Edit {
    /// The line, which no other edit has.
    pub(super) name: String,
    /// Where it is.
    pub(super) file: String,
    /// Under which lock.
    pub(super) fence: u64,
    /// Whether the push of it was acknowledged.
    pub(super) is_acknowledged: bool,
}

/// Something that was not to come to `main`.
#[derive(Clone, Debug)]
pub(super) struct Stray {
    /// The line, which no other stray has.
    pub(super) name: String,
    /// Who.
    pub(super) who: Who,
    /// How.
    pub(super) kind: Kind,
    /// Where.
    pub(super) file: String,
    /// By whom it was stopped, if it was.
    pub(super) stopped: Option<Layer>,
    /// What was said.
    pub(super) said: String,
}

/// How a task ended.
#[derive(Clone, Debug)]
pub(super) struct End {
    /// Which.
    pub(super) task: u64,
    /// The file that it left changed.
    pub(super) left: Option<String>,
    /// As the master calls it.
    pub(super) status: String,
    /// What the master says.
    pub(super) error: String,
}

/// Everything.
#[derive(Clone, Debug, Default)]
pub(super) struct Record {
    pub(super) grants: Vec<Grant>,
    pub(super) edits: Vec<Edit>,
    pub(super) strays: Vec<Stray>,
    pub(super) ends: Vec<End>,
    /// What should have worked and did not.
    pub(super) surprises: Vec<String>,
    /// How often somebody who pushed found that `main` had moved.
    pub(super) moved: u64,
}

/// What all contenders write into.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    record: Mutex<Record>,
}

impl Ledger {
    /// Notes something.
    pub(super) fn note(&self, change: impl FnOnce(&mut Record)) {
        change(&mut self.lock());
    }

    /// All that is noted.
    pub(super) fn record(&self) -> Record {
        self.lock().clone()
    }

    /// A place that somebody had whose locks are not that contender's, and under which fence.
    pub(super) fn of_another(&self, who: Who) -> Option<(String, u64)> {
        let record = self.lock();
        // Of an agent each task is somebody else.
        let grant = record.grants.iter().rev().find(|grant| who.is_agent() || grant.who != who)?;
        Some((grant.places.first()?.clone(), grant.fence))
    }

    fn lock(&self) -> MutexGuard<'_, Record> {
        // Only whole entries are ever pushed.
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Record {
    /// The layers that have stopped something.
    pub(super) fn stopped_by(&self) -> BTreeSet<Layer> {
        self.strays.iter().filter_map(|stray| stray.stopped).collect()
    }
}

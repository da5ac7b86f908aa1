//! Several decisions, gathered into what one transaction writes.
//!
//! Invariants: the batches arrive in the order of their decisions; of each task, attempt, log and
//! worker only the last row is kept; events keep their order and are never merged. Nothing here is
//! changed by a commit, so that a failed one can be tried again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use agentflow_core::batch::{
    AttemptRow, Batch, Counters, KeyRow, LogRow, Outcome, OutcomeChange, TaskBirth, TaskState, TaskWrite,
    WorkerRow,
};
use agentflow_core::event::{Event, Subject};
use agentflow_core::ids::{Attempt, DecisionNumber, SpecHash, TaskId};

use crate::error::{Error, Kind};

/// Events in one segment: about 28 KB of text, which one question about one task has to read.
pub(crate) const SEGMENT_EVENTS: usize = 256;

/// What is to be written of one task.
#[derive(Default)]
pub(crate) struct TaskEntry {
    pub(crate) birth: Option<Box<TaskBirth>>,
    /// Absent when the task is only spoken of by events.
    pub(crate) state: Option<TaskState>,
    pub(crate) outcome: OutcomeChange,
    /// Which segments of this commit speak of it, rising.
    pub(crate) segments: Vec<u32>,
}

/// Part of the events' text, between brackets one JSON array.
pub(crate) struct Chunk {
    pub(crate) start: usize,
    pub(crate) end: usize,
    pub(crate) events: usize,
    pub(crate) last_at: i64,
}

/// Decisions on their way into one transaction. Fill it with [`push`](Gathered::push), hand it to
/// [`Writer::commit`](crate::Writer::commit), and start a new one.
#[derive(Default)]
pub struct Gathered {
    decisions: Option<(DecisionNumber, DecisionNumber)>,
    pub(crate) specs: BTreeMap<SpecHash, Arc<str>>,
    /// How many new tasks name each specification.
    pub(crate) uses: BTreeMap<SpecHash, u32>,
    pub(crate) tasks: BTreeMap<TaskId, TaskEntry>,
    pub(crate) attempts: BTreeMap<(TaskId, Attempt), AttemptRow>,
    pub(crate) logs: BTreeMap<(TaskId, Attempt), LogRow>,
    pub(crate) workers: BTreeMap<Arc<str>, WorkerRow>,
    pub(crate) keys: Vec<KeyRow>,
    /// The events as JSON, with commas between.
    pub(crate) text: String,
    pub(crate) chunks: Vec<Chunk>,
    pub(crate) subjects: BTreeSet<(String, u32)>,
    pub(crate) counters: Counters,
    events: usize,
    bytes: usize,
    hurried: bool,
}

impl Gathered {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one decision. Its number must be larger than those before.
    ///
    /// # Errors
    /// If an event cannot be written as JSON, or the number is not larger; both are mistakes in this
    /// program, and what has been gathered must not be committed.
    pub fn push(&mut self, batch: Batch) -> Result<(), Error> {
        let first = match self.decisions {
            Some((first, last)) if batch.decision > last => first,
            None => batch.decision,
            Some((_, last)) => {
                return Err(Error::new(
                    Kind::Conflict,
                    format!("decision {} was gathered after decision {last}", batch.decision),
                ));
            }
        };
        self.decisions = Some((first, batch.decision));
        self.counters = batch.counters;
        self.hurried |= !batch.lazy;
        for spec in batch.specs {
            self.bytes += spec.body.len();
            self.specs.entry(spec.hash).or_insert(spec.body);
        }
        for task in batch.tasks {
            self.push_task(task);
        }
        for mut row in batch.attempts {
            remove_nul(&mut row.outcome);
            self.bytes += 100 + row.outcome.result.as_ref().map_or(0, |text| text.len());
            self.attempts.insert((row.task, row.attempt), row);
        }
        for row in batch.logs {
            self.bytes += 20;
            self.logs.insert((row.task, row.attempt), row);
        }
        for row in batch.workers {
            self.bytes += 200;
            self.workers.insert(row.name.clone(), row);
        }
        self.bytes += 60 * batch.keys.len();
        self.keys.extend(batch.keys);
        for event in &batch.events {
            self.push_event(event)?;
        }
        Ok(())
    }

    fn push_task(&mut self, task: TaskWrite) {
        let entry = self.tasks.entry(task.id).or_default();
        self.bytes += 120;
        if let Some(birth) = task.birth {
            self.bytes += birth.title.len();
            *self.uses.entry(birth.spec).or_default() += 1;
            entry.birth = Some(birth);
        }
        entry.state = Some(task.state);
        if let OutcomeChange::Set(mut outcome) = task.outcome {
            remove_nul(&mut outcome);
            self.bytes += outcome.result.as_ref().map_or(0, |text| text.len())
                + outcome.outputs.as_ref().map_or(0, |text| text.len())
                + outcome.error.as_ref().map_or(0, |text| text.len());
            entry.outcome = OutcomeChange::Set(outcome);
        }
    }

    fn push_event(&mut self, event: &Event) -> Result<(), Error> {
        if self.chunks.last().is_none_or(|chunk| chunk.events == SEGMENT_EVENTS) {
            if !self.text.is_empty() {
                self.text.push(',');
            }
            let start = self.text.len();
            self.chunks.push(Chunk { start, end: start, events: 0, last_at: 0 });
        } else {
            self.text.push(',');
        }
        let before = self.text.len();
        let json = serde_json::to_string(event)
            .map_err(|error| Error::with_source(Kind::Other, "an event cannot be written as JSON", error))?;
        self.text.push_str(&json);
        self.events += 1;
        self.bytes += self.text.len() - before;
        let index = u32::try_from(self.chunks.len() - 1).unwrap_or(u32::MAX);
        if let Some(chunk) = self.chunks.last_mut() {
            chunk.end = self.text.len();
            chunk.events += 1;
            chunk.last_at = event.at.0;
        }
        match &event.subject {
            Subject::Task(id) => {
                let segments = &mut self.tasks.entry(*id).or_default().segments;
                if segments.last() != Some(&index) {
                    segments.push(index);
                }
            }
            other @ Subject::Worker(_) => {
                self.subjects.insert((other.to_string(), index));
            }
        }
        Ok(())
    }

    /// Rows to be written, events included; for [`COMMIT_ROWS`](agentflow_core::limits::COMMIT_ROWS).
    #[must_use]
    pub fn rows(&self) -> usize {
        self.specs.len()
            + self.tasks.len()
            + self.attempts.len()
            + self.logs.len()
            + self.workers.len()
            + self.keys.len()
            + self.events
    }

    /// About how many bytes these are; for [`COMMIT_BYTES`](agentflow_core::limits::COMMIT_BYTES).
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many events there are.
    #[must_use]
    pub fn events(&self) -> usize {
        self.events
    }

    /// Whether no decision has been gathered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.decisions.is_none()
    }

    /// The first and the last decision.
    #[must_use]
    pub fn decisions(&self) -> Option<(DecisionNumber, DecisionNumber)> {
        self.decisions
    }

    /// Whether nobody waits for any of them.
    #[must_use]
    pub fn is_lazy(&self) -> bool {
        !self.hurried
    }
}

/// PostgreSQL keeps no NUL in text, and what a process prints may hold one: it becomes U+FFFD, on
/// SQLite too.
fn remove_nul(outcome: &mut Outcome) {
    let cleaned = |text: &str| text.contains('\0').then(|| text.replace('\0', "\u{FFFD}"));
    if let Some(text) = outcome.result.as_deref().and_then(cleaned) {
        outcome.result = Some(text.into());
    }
    if let Some(text) = outcome.outputs.as_deref().and_then(cleaned) {
        outcome.outputs = Some(text.into());
    }
    if let Some(text) = outcome.error.as_deref().and_then(cleaned) {
        outcome.error = Some(text.into());
    }
}

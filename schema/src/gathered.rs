//! Several decisions, gathered into what one transaction writes.
//!
//! Invariants: the batches arrive in the order of their decisions; of each task, run, attempt, log,
//! worker and lock only the last row is kept, and of each relation the first; events keep their order and
//! are never merged. Nothing here is changed by a commit, so that a failed one can be tried again.

mod locks;
mod saved;

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use agentflow_core::batch::{
    AttemptRow, Batch, Counters, KeyLimit, KeyRow, LogRow, NodeRename, Outcome, OutcomeChange, RelationKey,
    RelationRow, RunBirth, RunChange, RunState, RunVersionRow, RunWrite, ScheduleRow, SpecChange, SpecRow,
    TaskBirth, TaskState, TaskWrite, WorkerRow,
};
use agentflow_core::blob::{BlobHash, Left, NewBlob};
use agentflow_core::event::{Event, Happening, Subject};
use agentflow_core::ids::{Attempt, DecisionNumber, RunId, SpecHash, TaskId};

use crate::error::{Error, Kind};

pub(crate) use locks::Place;

/// Events in one segment: about 28 KB of text, which one question about one task has to read.
pub(crate) const SEGMENT_EVENTS: usize = 256;

/// What is to be written of one task.
#[derive(Default)]
pub(crate) struct TaskEntry {
    pub(crate) birth: Option<Box<TaskBirth>>,
    /// Another specification than the one that its row names.
    pub(crate) spec: Option<SpecHash>,
    /// Another title than the one in its row: it has another version.
    pub(crate) title: Option<Box<str>>,
    /// Absent when the task is only spoken of by events.
    pub(crate) state: Option<TaskState>,
    pub(crate) outcome: OutcomeChange,
    /// Which segments of this commit speak of it, rising.
    pub(crate) segments: Vec<u32>,
}

/// What is to be written of one run.
pub(crate) struct RunEntry {
    pub(crate) birth: Option<Box<RunBirth>>,
    pub(crate) change: Option<Box<RunChange>>,
    pub(crate) state: RunState,
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
    pub(crate) blobs: BTreeMap<BlobHash, Arc<NewBlob>>,
    pub(crate) specs: BTreeMap<SpecHash, SpecRow>,
    /// How many tasks more, or fewer, name each specification.
    pub(crate) uses: BTreeMap<SpecHash, i64>,
    /// Specifications that a task no longer names.
    pub(crate) released: BTreeSet<SpecHash>,
    pub(crate) definitions: BTreeMap<SpecHash, Arc<str>>,
    pub(crate) runs: BTreeMap<RunId, RunEntry>,
    pub(crate) tasks: BTreeMap<TaskId, TaskEntry>,
    pub(crate) run_versions: BTreeMap<(RunId, u32), RunVersionRow>,
    /// Other names of tasks in their runs; those of new tasks are in their births.
    pub(crate) renames: BTreeMap<TaskId, Arc<str>>,
    /// Whether the attempts of nodes are of older versions of their runs.
    pub(crate) outdated: BTreeMap<TaskId, bool>,
    pub(crate) relations: BTreeMap<RelationKey, RelationRow>,
    /// Relations that go, before those above come.
    pub(crate) parted: BTreeSet<RelationKey>,
    pub(crate) attempts: BTreeMap<(TaskId, Attempt), AttemptRow>,
    /// What attempts left by its hash.
    pub(crate) left: BTreeMap<(TaskId, Attempt), Box<Left>>,
    /// Rounds of loops; none once they are over.
    pub(crate) rounds: BTreeMap<TaskId, Option<u32>>,
    pub(crate) saved: saved::Saved,
    pub(crate) locks: locks::Locks,
    pub(crate) logs: BTreeMap<(TaskId, Attempt), LogRow>,
    pub(crate) workers: BTreeMap<Arc<str>, WorkerRow>,
    pub(crate) keys: Vec<KeyRow>,
    pub(crate) schedules: BTreeMap<Arc<str>, Option<ScheduleRow>>,
    pub(crate) key_limits: BTreeMap<Arc<str>, Option<KeyLimit>>,
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
        for blob in batch.blobs {
            self.bytes += blob.text.len();
            self.blobs.entry(blob.sha256).or_insert(blob);
        }
        for spec in batch.specs {
            self.bytes += spec.body.len();
            self.specs.entry(spec.hash).or_insert(spec);
        }
        for definition in batch.definitions {
            self.bytes += definition.body.len();
            self.definitions.entry(definition.hash).or_insert(definition.body);
        }
        for run in batch.runs {
            self.push_run(run);
        }
        for task in batch.tasks {
            self.push_task(task);
        }
        for row in batch.run_versions {
            self.bytes += 60 + row.inputs.len() + row.reason.len();
            self.run_versions.insert((row.run, row.version), row);
        }
        for rename in batch.renames {
            self.push_rename(rename);
        }
        for row in batch.outdated {
            self.bytes += 20;
            self.outdated.insert(row.task, row.outdated);
        }
        for key in batch.parted {
            self.bytes += 20;
            self.relations.remove(&key);
            self.parted.insert(key);
        }
        for row in batch.relations {
            self.bytes += 40;
            self.relations.entry(row.key()).or_insert(row);
        }
        for row in batch.rounds {
            self.bytes += 20;
            self.rounds.insert(row.task, row.round);
        }
        for row in &batch.saved.versions {
            *self.uses.entry(row.spec).or_default() += 1;
        }
        self.bytes += self.saved.push(batch.saved);
        let place = Place { before: self.events, count: batch.events.len() };
        self.bytes += self.locks.push(batch.lock_spaces, batch.locks, place);
        for mut row in batch.attempts {
            remove_nul(&mut row.outcome);
            self.push_left(row.task, row.attempt, row.outcome.left.take());
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
        for write in batch.schedules {
            self.bytes += 100 + write.row.as_ref().map_or(0, |row| row.body.len());
            self.schedules.insert(write.name, write.row);
        }
        for row in batch.key_limits {
            self.bytes += 60;
            self.key_limits.insert(row.name, row.limit);
        }
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
        if let Some(SpecChange { old, new }) = task.spec {
            *self.uses.entry(old).or_default() -= 1;
            *self.uses.entry(new).or_default() += 1;
            self.released.insert(old);
            match &mut entry.birth {
                Some(birth) => birth.spec = new,
                None => entry.spec = Some(new),
            }
        }
        if let Some(title) = task.title {
            self.bytes += title.len();
            entry.title = Some(title);
        }
        let attempt = task.state.attempt;
        entry.state = Some(task.state);
        if let OutcomeChange::Set(mut outcome) = task.outcome {
            remove_nul(&mut outcome);
            let left = outcome.left.take();
            self.bytes += outcome.result.as_ref().map_or(0, |text| text.len())
                + outcome.outputs.as_ref().map_or(0, |text| text.len())
                + outcome.error.as_ref().map_or(0, |text| text.len());
            entry.outcome = OutcomeChange::Set(outcome);
            self.push_left(task.id, attempt, left);
        }
    }

    fn push_rename(&mut self, NodeRename { task, node }: NodeRename) {
        self.bytes += 20 + node.len();
        let birth = self.tasks.get_mut(&task).and_then(|entry| entry.birth.as_mut());
        match birth.and_then(|birth| birth.run.as_mut()) {
            Some(place) => place.node = node,
            None => drop(self.renames.insert(task, node)),
        }
    }

    fn push_left(&mut self, task: TaskId, attempt: Attempt, left: Option<Box<Left>>) {
        let Some(left) = left else { return };
        self.bytes += 100 * left.blobs().count();
        self.left.insert((task, attempt), left);
    }

    /// Bytes that have to be kept before the commit names them.
    pub fn blobs(&self) -> impl Iterator<Item = &NewBlob> {
        self.blobs.values().map(|blob| &**blob)
    }

    fn push_run(&mut self, run: RunWrite) {
        self.bytes += 100;
        if let Some(birth) = &run.birth {
            self.bytes += birth.inputs.len();
        }
        if let Some(change) = &run.change {
            let ranges = change.layout.as_ref().map_or(0, |layout| layout.numbers.ranges().len());
            self.bytes += change.inputs.len() + 20 * ranges;
        }
        let mut state = run.state;
        if let Some(text) = state.error.as_deref().and_then(without_nul) {
            state.error = Some(text.into());
        }
        match self.runs.entry(run.id) {
            Entry::Vacant(vacant) => {
                vacant.insert(RunEntry { birth: run.birth, change: run.change, state });
            }
            Entry::Occupied(mut occupied) => {
                let entry = occupied.get_mut();
                entry.birth = entry.birth.take().or(run.birth);
                entry.change = match (entry.change.take(), run.change) {
                    // Other values leave the nodes of an earlier change as they are.
                    (Some(old), Some(mut new)) => {
                        new.layout = new.layout.or(old.layout);
                        Some(new)
                    }
                    (old, new) => new.or(old),
                };
                entry.state = state;
            }
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
        match (&event.subject, &event.happening) {
            (Subject::Task(id), _) => {
                let segments = &mut self.tasks.entry(*id).or_default().segments;
                if segments.last() != Some(&index) {
                    segments.push(index);
                }
            }
            // They come with its row, which says where they are.
            (
                Subject::Lock(_),
                Happening::LockAcquired { .. }
                | Happening::LockReleased { .. }
                | Happening::LockExpired { .. }
                | Happening::LockBroken { .. },
            ) => {}
            (other @ (Subject::Worker(_) | Subject::Run(_) | Subject::Schedule(_) | Subject::Lock(_)), _) => {
                self.subjects.insert((other.to_string(), index));
            }
        }
        Ok(())
    }

    /// Rows to be written, events included; for [`COMMIT_ROWS`](agentflow_core::limits::COMMIT_ROWS).
    #[must_use]
    pub fn rows(&self) -> usize {
        self.specs.len()
            + self.left.len()
            + self.rounds.len()
            + self.saved.rows()
            + self.locks.rows()
            + self.definitions.len()
            + self.runs.len()
            + self.tasks.len()
            + self.run_versions.len()
            + self.renames.len()
            + self.outdated.len()
            + self.relations.len()
            + self.parted.len()
            + self.attempts.len()
            + self.logs.len()
            + self.workers.len()
            + self.keys.len()
            + self.key_limits.len()
            + self.schedules.len()
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
    if let Some(text) = outcome.result.as_deref().and_then(without_nul) {
        outcome.result = Some(text.into());
    }
    if let Some(text) = outcome.outputs.as_deref().and_then(without_nul) {
        outcome.outputs = Some(text.into());
    }
    if let Some(text) = outcome.error.as_deref().and_then(without_nul) {
        outcome.error = Some(text.into());
    }
}

/// The text without NUL, if it has one.
fn without_nul(text: &str) -> Option<String> {
    text.contains('\0').then(|| text.replace('\0', "\u{FFFD}"))
}

//! The store: the one write connection, and natural group commit.
//!
//! ```text
//!   Scheduler ──Persist──► Store ──Committed──► Dispatcher
//!                            └─────Publish────► EventHub
//! ```
//!
//! While a commit runs, batches gather in the mailbox; when it is over they are taken in one turn
//! and written in one transaction. There is no timer, except that a batch for which nobody waits
//! may wait [`LAZY_MS`] for company.
//!
//! On a full disk the batch is kept and tried again; anything else that goes wrong ends the master,
//! because memory is ahead of the disk then.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use actix::{Actor, Addr, AsyncContext, Context, Handler, Message, Recipient};
use agentflow_core::batch::{Batch, RelationRow};
use agentflow_core::event::Event;
use agentflow_core::ids::{Attempt, DecisionNumber, Epoch, RunId, TaskId};
use agentflow_core::kernel::{LoadedRun, LoadedTask, PreparedSpec, SavedRun};
use agentflow_core::limits;
use agentflow_core::time::Wall;
use agentflow_schema::{Blobs, Committed, Gathered, Writer};

use agentflow_workflow::Definition;

use crate::clock;
use crate::hub::{EventHub, Publish, Segment};
use crate::supervise::Fatal;
use crate::values;

/// How long a batch for which nobody waits may wait for company. A task's `started` mostly meets
/// its `finished` within it.
const LAZY_MS: u64 = 20;

/// Pause before a full disk is tried again.
const FULL_RETRY_MS: u64 = 500;

/// Tasks removed in one turn of retention: about 10 ms.
const PRUNE_TASKS: usize = 1_000;

/// How the store is doing, for `/ready`, `/metrics` and those who refuse writes.
#[derive(Debug, Default)]
pub struct StoreHealth {
    full: AtomicBool,
    commits: AtomicU64,
    rows: AtomicU64,
    events: AtomicU64,
    commit_us: AtomicU64,
}

impl StoreHealth {
    /// Whether the disk is full (or another program holds the database): new commands are refused,
    /// reads go on.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.full.load(Ordering::Relaxed)
    }

    /// Transactions so far.
    #[must_use]
    pub fn commits(&self) -> u64 {
        self.commits.load(Ordering::Relaxed)
    }

    /// Rows and events written so far.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.rows.load(Ordering::Relaxed)
    }

    /// Events written so far.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.events.load(Ordering::Relaxed)
    }

    /// Microseconds spent in transactions so far.
    #[must_use]
    pub fn commit_us(&self) -> u64 {
        self.commit_us.load(Ordering::Relaxed)
    }
}

/// To be made durable after everything before it.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Persist(pub(crate) Batch);

/// To be read after everything before it is durable.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Load(pub(crate) Vec<TaskId>);

/// A run to be read with its ended tasks, after everything before it is durable.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct LoadRun {
    pub(crate) run: RunId,
    /// With the files that its tasks left.
    pub(crate) files: bool,
    /// Nodes whose large values are read too.
    pub(crate) also: Vec<Box<str>>,
}

/// One turn of retention; the store goes on by itself while there is more.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Prune {
    pub(crate) before: Wall,
}

/// Attempts whose rows are gone; their output can go too.
#[derive(Message, Debug)]
#[rtype(result = "()")]
pub struct PrunedLogs(pub Vec<(TaskId, Attempt)>);

/// Write what there is; the answer says that it is done.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Finish;

#[derive(Message)]
#[rtype(result = "()")]
struct Flush;

/// To the scheduling arbiter: what has become durable or was read.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) enum FromStore {
    /// Everything up to here.
    Committed { decision: DecisionNumber, rows: usize, segment: Option<Arc<Segment>> },
    /// Settled tasks that were asked for.
    Loaded { asked: Vec<TaskId>, tasks: Vec<LoadedTask> },
    /// A run that was asked for.
    RunLoaded { run: RunId, loaded: Option<Box<LoadedRun>> },
    /// Settled tasks that were removed.
    Pruned(agentflow_core::batch::SettledCounts),
}

/// The actor.
pub(crate) struct Store {
    pub(crate) writer: Writer,
    pub(crate) blobs: Blobs,
    pub(crate) epoch: Epoch,
    pub(crate) schedule: Recipient<FromStore>,
    pub(crate) hub: Addr<EventHub>,
    pub(crate) pruned_logs: Option<Recipient<PrunedLogs>>,
    pub(crate) health: Arc<StoreHealth>,
    pub(crate) fatal: Fatal,
    pub(crate) gathered: Gathered,
    pub(crate) events: Vec<Event>,
    /// Rows that were decided; fewer are written where one row replaces another.
    pub(crate) decided_rows: usize,
    /// Whether a flush is in the mailbox.
    pub(crate) flushing: bool,
    /// Whether a flush will come for those who are in no hurry.
    pub(crate) lingering: bool,
    /// Whether a full disk will be tried again.
    pub(crate) retrying: bool,
}

impl Actor for Store {
    type Context = Context<Self>;
}

impl Store {
    /// Sees to it that what is gathered gets written.
    fn arm(&mut self, context: &mut Context<Self>) {
        // A full disk is tried again by its own timer.
        if self.gathered.is_empty() || self.flushing || self.health.is_full() {
            return;
        }
        if !self.gathered.is_lazy() {
            self.flushing = true;
            // Handled after everything that is in the mailbox by now.
            context.notify(Flush);
        } else if !self.lingering {
            self.lingering = true;
            context.run_later(Duration::from_millis(LAZY_MS), |store, context| {
                store.lingering = false;
                store.flush(context);
            });
        }
    }

    fn flush(&mut self, context: &mut Context<Self>) {
        if self.gathered.is_empty() || self.fatal.reason().is_some() {
            return;
        }
        let begun = Instant::now();
        match self.write() {
            Ok(committed) => {
                let rows = self.gathered.rows();
                let events = std::mem::take(&mut self.events);
                let decided_rows = std::mem::take(&mut self.decided_rows);
                self.gathered = Gathered::new();
                self.health.full.store(false, Ordering::Relaxed);
                self.health.commits.fetch_add(1, Ordering::Relaxed);
                self.health.rows.fetch_add(rows as u64, Ordering::Relaxed);
                self.health.events.fetch_add(events.len() as u64, Ordering::Relaxed);
                let us = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
                self.health.commit_us.fetch_add(us, Ordering::Relaxed);
                let segment = (!events.is_empty())
                    .then(|| Arc::new(Segment { first_seq: committed.first_seq, events }));
                if let Some(segment) = &segment {
                    self.hub.do_send(Publish(Arc::clone(segment)));
                }
                self.schedule.do_send(FromStore::Committed {
                    decision: committed.decision,
                    rows: decided_rows,
                    segment,
                });
            }
            // Nothing was written, and the same can be tried again.
            Err(error) if error.is_full() || error.is_busy() => {
                if !self.health.full.swap(true, Ordering::Relaxed) {
                    log::error!(
                        "the database takes no writes; new commands are refused until it does: {error}"
                    );
                }
                if !self.retrying {
                    self.retrying = true;
                    context.run_later(Duration::from_millis(FULL_RETRY_MS), |store, context| {
                        store.retrying = false;
                        store.flush(context);
                    });
                }
            }
            Err(error) => self.fatal.declare(format!("the store failed: {error}")),
        }
    }
}

impl Store {
    /// Bytes first, so that no row names what is not there.
    fn write(&mut self) -> Result<Committed, agentflow_schema::Error> {
        for blob in self.gathered.blobs() {
            self.blobs.put_text(blob, clock::wall())?;
        }
        self.writer.commit(self.epoch, &self.gathered)
    }

    fn load_tasks(&mut self, asked: &[TaskId]) -> Result<Vec<LoadedTask>, agentflow_schema::Error> {
        let rows = self.writer.load_tasks(asked)?;
        let mut successors: BTreeMap<TaskId, Vec<RelationRow>> = BTreeMap::new();
        for row in self.writer.load_live_successors(asked)? {
            successors.entry(row.predecessor).or_default().push(row);
        }
        let mut saved = self.writer.load_saved(asked)?;
        let mut tasks = Vec::with_capacity(rows.len());
        for (row, body) in rows {
            match PreparedSpec::read(row.spec, body) {
                Ok(spec) => {
                    let successors = successors.remove(&row.id).unwrap_or_default();
                    let saved = saved.remove(&row.id).unwrap_or_default();
                    tasks.push(LoadedTask { row, spec: Arc::new(spec), successors, saved });
                }
                Err(error) => log::error!("task {}: its specification is unreadable: {error}", row.id),
            }
        }
        Ok(tasks)
    }

    /// A run with those of its tasks that have ended, items left out. `None` if there is none, or if
    /// its workflow cannot be read, which is logged.
    fn load_run(
        &mut self,
        run: RunId,
        files: bool,
        also: &[Box<str>],
    ) -> Result<Option<LoadedRun>, agentflow_schema::Error> {
        let loaded = self.writer.load_runs(&[run])?.pop();
        let Some((row, definition, mut settled)) = loaded else { return Ok(None) };
        if files {
            self.writer.add_files(run, &mut settled)?;
        }
        let definition = match Definition::from_json(&definition.body) {
            Ok(definition) => Arc::new(definition),
            Err(error) => {
                log::error!("run {run}: its workflow is unreadable: {error}");
                return Ok(None);
            }
        };
        let nodes: Vec<TaskId> = settled
            .iter()
            .map(|node| node.task)
            .filter(|task| row.numbers.node_of(*task).is_some())
            .collect();
        let tasks = self.load_tasks(&nodes)?;
        let mut saved = SavedRun { row, definition, settled, rounds: Vec::new(), outdated: Vec::new() };
        if saved.has_large_values() {
            let mut budget = limits::HELD_BYTES;
            for left in saved.unread(also) {
                values::read(&self.blobs, left, &mut budget)?;
            }
        }
        let memory = self.writer.load_run_memory(run)?;
        Ok(Some(LoadedRun { saved, tasks, memory }))
    }
}

impl Handler<Persist> for Store {
    type Result = ();

    fn handle(&mut self, Persist(batch): Persist, context: &mut Context<Self>) {
        self.events.extend(batch.events.iter().cloned());
        self.decided_rows += batch.rows();
        if let Err(error) = self.gathered.push(batch) {
            self.fatal.declare(format!("a decision cannot be written: {error}"));
            return;
        }
        let is_much =
            self.gathered.rows() >= limits::COMMIT_ROWS || self.gathered.bytes() >= limits::COMMIT_BYTES;
        if is_much && !self.health.is_full() {
            self.flush(context);
        } else {
            self.arm(context);
        }
    }
}

impl Handler<Flush> for Store {
    type Result = ();

    fn handle(&mut self, _: Flush, context: &mut Context<Self>) {
        self.flushing = false;
        self.flush(context);
    }
}

impl Handler<Load> for Store {
    type Result = ();

    fn handle(&mut self, Load(asked): Load, context: &mut Context<Self>) {
        self.flush(context);
        match self.load_tasks(&asked) {
            Ok(tasks) => self.schedule.do_send(FromStore::Loaded { asked, tasks }),
            Err(error) => self.fatal.declare(format!("the store cannot read: {error}")),
        }
    }
}

impl Handler<LoadRun> for Store {
    type Result = ();

    fn handle(&mut self, LoadRun { run, files, also }: LoadRun, context: &mut Context<Self>) {
        self.flush(context);
        match self.load_run(run, files, &also) {
            Ok(loaded) => self.schedule.do_send(FromStore::RunLoaded { run, loaded: loaded.map(Box::new) }),
            Err(error) => self.fatal.declare(format!("the store cannot read: {error}")),
        }
    }
}

impl Handler<Prune> for Store {
    type Result = ();

    fn handle(&mut self, prune: Prune, context: &mut Context<Self>) {
        self.flush(context);
        if self.health.is_full() {
            return;
        }
        match self.writer.prune(self.epoch, clock::wall(), prune.before, PRUNE_TASKS) {
            Ok(pruned) => {
                self.schedule.do_send(FromStore::Pruned(pruned.settled));
                if let Some(logs) = &self.pruned_logs
                    && !pruned.logs.is_empty()
                {
                    let removed = pruned.logs.iter().map(|log| (log.task, log.attempt)).collect();
                    logs.do_send(PrunedLogs(removed));
                }
                if pruned.more {
                    // Between two turns, commits have their way.
                    context.notify(prune);
                }
            }
            Err(error) if error.is_full() || error.is_busy() => log::warn!("retention waits: {error}"),
            Err(error) => self.fatal.declare(format!("retention failed: {error}")),
        }
    }
}

impl Handler<Finish> for Store {
    type Result = ();

    fn handle(&mut self, _: Finish, context: &mut Context<Self>) {
        self.flush(context);
    }
}

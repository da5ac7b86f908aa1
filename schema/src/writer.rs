//! The one write connection.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use agentflow_core::batch::{
    Counters, DefinitionRow, RelationRow, RunRow, SavedTask, SettledCounts, SettledNode, TaskRow,
};
use agentflow_core::ids::{CheckpointId, DecisionNumber, Epoch, LockNumber, RunId, Seq, TaskId};
use agentflow_core::memory::{Memory, Owner};
use agentflow_core::time::Wall;
use diesel::connection::SimpleConnection;
use diesel::prelude::*;

use crate::columns::{Names, TaskColumns, big, unsigned};
use crate::connection::{AnyConnection, open_writer};
use crate::error::{Error, Kind};
use crate::gathered::Gathered;
use crate::hot::plan::{Lead, write_rows};
use crate::left::{self, Which};
use crate::prune::{self, Pruned};
use crate::recover::{self, Recovered};
use crate::relations;
use crate::runs;
use crate::saved;
use crate::tables::{leadership, tasks};
use crate::target::{Options, Target};

/// Tasks asked for by one statement.
const TASKS_PER_READ: usize = 500;

/// What a master gets when it takes office.
#[derive(Clone, PartialEq, Debug)]
pub struct Office {
    /// Larger than that of every master before.
    pub epoch: Epoch,
    /// Names this log of events.
    pub log_id: String,
    /// The last event; 0 if there is none.
    pub head_seq: Seq,
    /// Where the numbers go on.
    pub counters: Counters,
}

/// What a commit did.
#[derive(Clone, PartialEq, Debug)]
pub struct Committed {
    /// The last decision that is durable by now.
    pub decision: DecisionNumber,
    /// The number of the first event, if there is one.
    pub first_seq: Seq,
    /// The number of the last event in the log.
    pub head_seq: Seq,
    /// The events as one JSON array, in order from `first_seq`, as they are kept.
    pub segment: Option<Arc<str>>,
}

/// The one connection that writes. Everything it does blocks.
pub struct Writer {
    pub(crate) connection: AnyConnection,
    pub(crate) head: Seq,
    pub(crate) retention: prune::Progress,
}

impl Writer {
    /// Opens the database, checks that it is whole and ours, and brings its tables up to date.
    ///
    /// # Errors
    /// [`Error::is_unreachable`], [`Error::is_read_only`], [`Error::is_corrupt`],
    /// [`Error::is_foreign`], [`Error::is_newer`], [`Error::is_full`].
    pub fn open(target: &Target, options: &Options) -> Result<Self, Error> {
        let connection = open_writer(target, options)?;
        Ok(Self { connection, head: Seq(0), retention: prune::Progress::default() })
    }

    /// Raises the epoch, so that no earlier master can write any more.
    ///
    /// # Errors
    /// Those of the database.
    pub fn take_office(&mut self, now: Wall) -> Result<Office, Error> {
        let office = transaction(&mut self.connection, |connection| {
            diesel::update(leadership::table.find(1))
                .set((leadership::epoch.eq(leadership::epoch + 1), leadership::taken_at.eq(now.0)))
                .execute(connection)?;
            read_office(connection)
        })?;
        self.head = office.head_seq;
        Ok(office)
    }

    /// Reads what the next master starts from; about a second per million tasks.
    ///
    /// # Errors
    /// Those of the database; [`Error::is_corrupt`] for rows that cannot be.
    pub fn recover(&mut self) -> Result<Recovered, Error> {
        recover::recover(&mut self.connection)
    }

    /// Writes everything gathered, in one transaction, and numbers its events on from the last.
    ///
    /// # Errors
    /// [`Error::is_fenced`] if another master has taken office since. [`Error::is_full`] if the disk
    /// is full: nothing was written, and the same may be tried again. After any other error nothing
    /// was written either, except that [`Error::is_unreachable`] leaves it open.
    pub fn commit(&mut self, epoch: Epoch, gathered: &Gathered) -> Result<Committed, Error> {
        let head = self.head;
        let Some((_, decision)) = gathered.decisions() else {
            return Err(Error::new(Kind::Other, "nothing was gathered"));
        };
        let new_head = Seq(head.0 + gathered.events() as u64);
        let lead = Lead::new(epoch, head, new_head, decision, &gathered.counters);
        transaction(&mut self.connection, |connection| {
            let in_office = match connection {
                AnyConnection::Sqlite(sqlite) => lead.execute(sqlite)?,
                AnyConnection::Postgres(postgres) => lead.execute(postgres)?,
            };
            if in_office != 1 {
                return Err(Error::new(Kind::Fenced, format!("epoch {epoch} is no longer in office")));
            }
            match connection {
                AnyConnection::Sqlite(sqlite) => write_rows(sqlite, gathered, head),
                AnyConnection::Postgres(postgres) => write_rows(postgres, gathered, head),
            }
        })?;
        self.head = new_head;
        let segment = (gathered.events() > 0).then(|| format!("[{}]", gathered.text).into());
        Ok(Committed { decision, first_seq: head.next(), head_seq: new_head, segment })
    }

    /// Reads tasks back, settled ones included, with their specifications' texts, by id. Tasks that
    /// do not exist are left out. Until the second round of retention from now, these tasks are not
    /// removed: whoever asks is about to change them.
    ///
    /// # Errors
    /// Those of the database.
    pub fn load_tasks(&mut self, ids: &[TaskId]) -> Result<Vec<(TaskRow, Arc<str>)>, Error> {
        let mut names = Names::default();
        let mut rows = Vec::with_capacity(ids.len());
        let ids: BTreeSet<i64> = ids.iter().map(|id| big(id.0)).collect();
        let ids: Vec<i64> = ids.into_iter().collect();
        for wanted in ids.chunks(TASKS_PER_READ) {
            let found: Vec<TaskColumns> = tasks::table
                .filter(tasks::id.eq_any(wanted.to_vec()))
                .order(tasks::id)
                .select(TaskColumns::as_select())
                .load(&mut self.connection)?;
            for columns in found {
                rows.push(columns.row(&mut names)?);
            }
        }
        let hashes: BTreeSet<_> = rows.iter().map(|row| row.spec).collect();
        let hashes: Vec<_> = hashes.into_iter().collect();
        let bodies: BTreeMap<_, _> = recover::specs(&mut self.connection, &hashes)?
            .into_iter()
            .map(|spec| (spec.hash, spec.body))
            .collect();
        self.retention.spare(rows.iter().map(|row| row.id));
        Ok(rows
            .into_iter()
            .filter_map(|row| bodies.get(&row.spec).cloned().map(|body| (row, body)))
            .collect())
    }

    /// The relations of tasks to live ones that come after them.
    ///
    /// # Errors
    /// Those of the database.
    pub fn load_live_successors(&mut self, ids: &[TaskId]) -> Result<Vec<RelationRow>, Error> {
        relations::live_after(&mut self.connection, ids)
    }

    /// The checkpoints and memories of tasks; those that have none are left out.
    ///
    /// # Errors
    /// Those of the database; [`Error::is_corrupt`] for rows that cannot be.
    pub fn load_saved(&mut self, ids: &[TaskId]) -> Result<BTreeMap<TaskId, SavedTask>, Error> {
        saved::of_tasks(&mut self.connection, ids)
    }

    /// What a run remembers.
    ///
    /// # Errors
    /// As with [`load_saved`](Writer::load_saved).
    pub fn load_run_memory(&mut self, run: RunId) -> Result<Memory, Error> {
        saved::memory(&mut self.connection, Owner::Run(run))
    }

    /// Reads runs back, ended ones included, with their workflows and what their settled nodes left,
    /// by id. Runs that do not exist are left out, and so are those that retention has begun to
    /// remove. As with [`load_tasks`](Writer::load_tasks), nothing of them is removed until the
    /// second round from now.
    ///
    /// # Errors
    /// Those of the database; [`Error::is_corrupt`] for rows that cannot be.
    pub fn load_runs(
        &mut self,
        ids: &[RunId],
    ) -> Result<Vec<(RunRow, DefinitionRow, Vec<SettledNode>)>, Error> {
        let mut rows = runs::by_ids(&mut self.connection, ids)?;
        rows.retain(|row| !self.retention.is_removing(row));
        self.retention.spare_runs(rows.iter().map(|row| row.id));
        let bodies = runs::definitions_of(&mut self.connection, &rows)?;
        let bodies: BTreeMap<_, _> = bodies.into_iter().map(|row| (row.hash, row)).collect();
        let mut names = Names::default();
        let mut loaded = Vec::with_capacity(rows.len());
        for row in rows {
            let Some(definition) = bodies.get(&row.birth.definition).cloned() else { continue };
            let nodes = runs::settled_nodes(&mut self.connection, row.id, &mut names)?;
            loaded.push((row, definition, nodes));
        }
        Ok(loaded)
    }

    /// Adds the files that the settled nodes of a run left with their latest attempts.
    ///
    /// # Errors
    /// Those of the database; [`Error::is_corrupt`] for rows that cannot be.
    pub fn add_files(&mut self, run: RunId, nodes: &mut [SettledNode]) -> Result<(), Error> {
        left::add_to(&mut self.connection, run, nodes, Which::Files)
    }

    /// One short turn of retention: removes at most about `limit` tasks that settled before `before`
    /// (with their attempts, logs, relations and specifications that no task names any more), runs
    /// that ended before it and whose tasks are gone, locks that ended before it, segments of events
    /// from before it, and old idempotency keys. Call again while [`Pruned::more`].
    ///
    /// The tasks of a run stay until the run can go, and what a blocked task comes after stays until
    /// it is no longer blocked.
    ///
    /// The kernel must take [`Pruned::settled`] away from its counters: each batch writes them whole,
    /// and so undoes the subtraction that is made here for the case that no batch follows.
    ///
    /// # Errors
    /// [`Error::is_fenced`] and those of the database.
    pub fn prune(&mut self, epoch: Epoch, now: Wall, before: Wall, limit: usize) -> Result<Pruned, Error> {
        // Kept only if the transaction is.
        let mut progress = self.retention.clone();
        let pruned = transaction(&mut self.connection, |connection| {
            let in_office = diesel::update(
                leadership::table.filter(leadership::id.eq(1)).filter(leadership::epoch.eq(big(epoch.0))),
            )
            .set(leadership::epoch.eq(big(epoch.0)))
            .execute(connection)?;
            if in_office != 1 {
                return Err(Error::new(Kind::Fenced, format!("epoch {epoch} is no longer in office")));
            }
            prune::turn(connection, &mut progress, now, before, limit)
        })?;
        self.retention = progress;
        Ok(pruned)
    }
}

/// Runs `work` in a transaction that holds the write lock from its beginning.
///
/// On SQLite this is written out: after a full disk SQLite may have rolled back by itself, and
/// diesel's bookkeeping takes the failing `ROLLBACK` for a broken connection.
pub(crate) fn transaction<T>(
    connection: &mut AnyConnection,
    work: impl FnOnce(&mut AnyConnection) -> Result<T, Error>,
) -> Result<T, Error> {
    if let AnyConnection::Postgres(_) = connection {
        return connection.transaction(work);
    }
    connection.batch_execute("BEGIN IMMEDIATE")?;
    let done = work(connection).and_then(|value| {
        connection.batch_execute("COMMIT")?;
        Ok(value)
    });
    if done.is_err()
        && let Err(error) = connection.batch_execute("ROLLBACK")
    {
        log::debug!("the transaction was rolled back already: {error}");
    }
    done
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = leadership)]
struct OfficeColumns {
    epoch: i64,
    log_id: String,
    head_seq: i64,
    last_task: i64,
    last_run: i64,
    last_checkpoint: i64,
    last_lock: i64,
    settled_completed: i64,
    settled_failed: i64,
    settled_cancelled: i64,
    settled_skipped: i64,
}

fn read_office(connection: &mut AnyConnection) -> Result<Office, Error> {
    let row: OfficeColumns =
        leadership::table.find(1).select(OfficeColumns::as_select()).first(connection)?;
    Ok(Office {
        epoch: Epoch(unsigned(row.epoch)?),
        log_id: row.log_id,
        head_seq: Seq(unsigned(row.head_seq)?),
        counters: Counters {
            last_task: TaskId(unsigned(row.last_task)?),
            last_run: RunId(unsigned(row.last_run)?),
            last_checkpoint: CheckpointId(unsigned(row.last_checkpoint)?),
            last_lock: LockNumber(unsigned(row.last_lock)?),
            settled: SettledCounts {
                completed: unsigned(row.settled_completed)?,
                failed: unsigned(row.settled_failed)?,
                cancelled: unsigned(row.settled_cancelled)?,
                skipped: unsigned(row.settled_skipped)?,
            },
        },
    })
}

//! Reads, on a small pool of connections that cannot write.
//!
//! Each read is a few short statements: a long one would keep SQLite's log from being checkpointed.
//! What is read is committed, and may be newer than the caller's last look.

mod locks;
mod pages;
mod relations;
mod runs;
mod saved;
mod versions;

use std::time::Duration;

use agentflow_core::batch::{
    AttemptEnd, AttemptRow, KeyHash, KeyRow, LogRow, Outcome, RunNode, TaskState, WorkerRow,
};
use agentflow_core::blob::BlobHash;
use agentflow_core::event::Subject;
use agentflow_core::ids::{Attempt, Fence, Seq, SpecHash, TaskId};
use agentflow_core::limits;
use agentflow_core::time::Wall;
use diesel::prelude::*;
use diesel::r2d2::{ManageConnection, Pool, PooledConnection, R2D2Connection};

use crate::columns::{Names, OutcomeColumns, TaskColumns, big, hash, unsigned, unsigned_small};
use crate::connection::{AnyConnection, open_reader};
use crate::error::{Error, Kind};
use crate::events::{self, StoredEvent};
use crate::filter::{Cursor, TaskFilter, Walk};
use crate::left;
use crate::recover::{self, WorkerColumns};
use crate::tables::{
    attempts, event_segments, idempotency_keys, leadership, task_logs, task_specs, tasks, workers,
};
use crate::target::Target;

pub use self::runs::{NodeRecord, RunCursor, RunFilter, RunRecord, RunSummary};
pub use self::versions::RunVersionRecord;

/// Connections. Reads are short; more would only contend for the same two cores.
const CONNECTIONS: u32 = 4;

/// How long a read waits for a connection.
const CHECKOUT: Duration = Duration::from_secs(10);

/// Attempts and logs of one task that are listed; retries and losses together stay well below.
const ATTEMPTS_PER_TASK: i64 = 10_000;

/// Everything about one task.
#[derive(Clone, PartialEq, Debug)]
pub struct TaskRecord {
    /// Which.
    pub id: TaskId,
    /// One line for people.
    pub title: String,
    /// When it was accepted.
    pub created_at: Wall,
    /// Its specification.
    pub spec: SpecHash,
    /// Its specification's canonical JSON.
    pub spec_body: String,
    /// The run that it is a part of.
    pub run: Option<RunNode>,
    /// As it is now.
    pub state: TaskState,
    /// How its latest attempt ended.
    pub outcome: Outcome,
}

/// One task in a listing: no payload, no result, no outputs.
#[derive(Clone, PartialEq, Debug)]
pub struct TaskSummary {
    /// Which.
    pub id: TaskId,
    /// One line for people.
    pub title: String,
    /// When it was accepted.
    pub created_at: Wall,
    /// The run that it is a part of.
    pub run: Option<RunNode>,
    /// As it is now.
    pub state: TaskState,
    /// The exit code of its latest attempt.
    pub exit_code: Option<i32>,
    /// Why its latest attempt failed.
    pub error: Option<String>,
}

/// Where the log of events begins and ends.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Head {
    /// The last event; 0 if there has been none.
    pub head_seq: Seq,
    /// The oldest event that is kept; one more than `head_seq` if none is.
    pub oldest_seq: Seq,
    /// Names the log; a cursor from another one means nothing here.
    pub log_id: String,
}

/// Opens and tests pooled connections.
struct Manager(Target);

impl ManageConnection for Manager {
    type Connection = AnyConnection;
    type Error = Error;

    fn connect(&self) -> Result<AnyConnection, Error> {
        open_reader(&self.0)
    }

    fn is_valid(&self, connection: &mut AnyConnection) -> Result<(), Error> {
        match connection {
            // A file does not go away by itself, and a question costs as much as a read.
            AnyConnection::Sqlite(_) => Ok(()),
            AnyConnection::Postgres(postgres) => Ok(postgres.ping()?),
        }
    }

    fn has_broken(&self, connection: &mut AnyConnection) -> bool {
        std::thread::panicking() || connection.is_broken()
    }
}

/// The read side. Clones share the pool. Everything it does blocks.
#[derive(Clone)]
pub struct Readers {
    pool: Pool<Manager>,
}

impl Readers {
    /// Opens the pool. The [`Writer`](crate::Writer) must have been opened before.
    ///
    /// # Errors
    /// If the database cannot be opened.
    pub fn open(target: &Target) -> Result<Self, Error> {
        // The pool would try for ten seconds before it says what is wrong.
        drop(open_reader(target)?);
        let pool = Pool::builder()
            .max_size(CONNECTIONS)
            .min_idle(Some(1))
            .connection_timeout(CHECKOUT)
            .build(Manager(target.clone()))
            .map_err(no_connection)?;
        Ok(Self { pool })
    }

    fn connection(&self) -> Result<PooledConnection<Manager>, Error> {
        self.pool.get().map_err(no_connection)
    }

    /// Whether the database answers.
    ///
    /// # Errors
    /// If it does not.
    pub fn ping(&self) -> Result<(), Error> {
        Ok(self.connection()?.ping()?)
    }

    /// One task.
    ///
    /// # Errors
    /// Those of the database.
    pub fn task(&self, id: TaskId) -> Result<Option<TaskRecord>, Error> {
        let connection = &mut *self.connection()?;
        let row: Option<(TaskColumns, String, OutcomeColumns, String)> = tasks::table
            .inner_join(task_specs::table.on(task_specs::hash.eq(tasks::spec)))
            .filter(tasks::id.eq(big(id.0)))
            .select((TaskColumns::as_select(), tasks::title, OutcomeColumns::as_select(), task_specs::body))
            .first(connection)
            .optional()?;
        row.map(|(columns, title, outcome, spec_body)| {
            let row = columns.row(&mut Names::default())?;
            let mut outcome = Outcome::from(outcome);
            if row.state.attempt.0 > 0 || row.state.status.is_settled() {
                outcome.left = left::of(connection, id, row.state.attempt)?;
            }
            Ok(TaskRecord {
                id: row.id,
                title,
                created_at: row.created_at,
                spec: row.spec,
                spec_body,
                run: row.run,
                state: row.state,
                outcome,
            })
        })
        .transpose()
    }

    /// One page of tasks, the oldest first, and where the next one begins. `limit` is cut to
    /// [`limits::PAGE`]. A page may be short without being the last: only a missing cursor says so.
    ///
    /// # Errors
    /// Those of the database.
    pub fn tasks(
        &self,
        filter: &TaskFilter,
        cursor: Option<Cursor>,
        limit: usize,
    ) -> Result<(Vec<TaskSummary>, Option<Cursor>), Error> {
        let connection = &mut *self.connection()?;
        let after = cursor.map_or(TaskId(0), |cursor| cursor.0);
        let (ids, next) = Walk::new(filter, after).page(connection, limit.clamp(1, limits::PAGE))?;
        let rows: Vec<(TaskColumns, String, Option<i32>, Option<String>)> = tasks::table
            .filter(tasks::id.eq_any(ids))
            .order(tasks::id)
            .select((TaskColumns::as_select(), tasks::title, tasks::exit_code, tasks::error))
            .load(connection)?;
        let mut names = Names::default();
        let mut page = Vec::with_capacity(rows.len());
        for (columns, title, exit_code, error) in rows {
            let row = columns.row(&mut names)?;
            if filter.matches(&row.state) {
                let (id, created_at, run, state) = (row.id, row.created_at, row.run, row.state);
                page.push(TaskSummary { id, title, created_at, run, state, exit_code, error });
            }
        }
        Ok((page, next.map(Cursor)))
    }

    /// The ids of tasks after `after`, rising, at most `limit`, and after which to go on; as with
    /// [`tasks`](Readers::tasks), only its absence means the end.
    ///
    /// # Errors
    /// Those of the database.
    pub fn task_ids(
        &self,
        filter: &TaskFilter,
        after: TaskId,
        limit: usize,
    ) -> Result<(Vec<TaskId>, Option<TaskId>), Error> {
        let (ids, next) = Walk::new(filter, after)
            .page(&mut *self.connection()?, limit.clamp(1, limits::TASKS_PER_SUBMISSION))?;
        let ids = ids.into_iter().map(|id| unsigned(id).map(TaskId)).collect::<Result<_, _>>()?;
        Ok((ids, next))
    }

    /// How many tasks there are of a kind. This walks over them all, in short steps: about 0.3 s per
    /// million. Totals by status are counted by the kernel.
    ///
    /// # Errors
    /// Those of the database.
    pub fn count(&self, filter: &TaskFilter) -> Result<u64, Error> {
        Walk::new(filter, TaskId(0)).count(&mut *self.connection()?)
    }

    /// The ended attempts of a task that have a row, the first one first.
    ///
    /// # Errors
    /// Those of the database.
    pub fn attempts(&self, task: TaskId) -> Result<Vec<AttemptRow>, Error> {
        let rows: Vec<AttemptColumns> = attempts::table
            .filter(attempts::task.eq(big(task.0)))
            .order(attempts::attempt)
            .limit(ATTEMPTS_PER_TASK)
            .select(AttemptColumns::as_select())
            .load(&mut *self.connection()?)?;
        rows.into_iter().map(AttemptRow::try_from).collect()
    }

    /// The files of a task (and of its items, if it is a `foreach`) or of a run, by number after
    /// `after`, at most [`limits::PAGE`], and after which to go on; only its absence means the end.
    ///
    /// # Errors
    /// Those of the database.
    pub fn artifacts(
        &self,
        whose: &left::Whose,
        after: u64,
        limit: usize,
    ) -> Result<(Vec<left::ArtifactRecord>, Option<u64>), Error> {
        left::artifacts(&mut *self.connection()?, whose, after, limit.clamp(1, limits::PAGE))
    }

    /// One file.
    ///
    /// # Errors
    /// Those of the database.
    pub fn artifact(&self, id: u64) -> Result<Option<left::ArtifactRecord>, Error> {
        left::artifact(&mut *self.connection()?, id)
    }

    /// Whether anything names a blob.
    ///
    /// # Errors
    /// Those of the database.
    pub fn names_blob(&self, hash: &BlobHash) -> Result<bool, Error> {
        left::is_named(&mut *self.connection()?, hash)
    }

    /// Which attempts of a task have written something.
    ///
    /// # Errors
    /// Those of the database.
    pub fn log_index(&self, task: TaskId) -> Result<Vec<LogRow>, Error> {
        let rows: Vec<(i32, i64, i64)> = task_logs::table
            .filter(task_logs::task.eq(big(task.0)))
            .order(task_logs::attempt)
            .limit(ATTEMPTS_PER_TASK)
            .select((task_logs::attempt, task_logs::bytes, task_logs::cut))
            .load(&mut *self.connection()?)?;
        rows.into_iter()
            .map(|(attempt, bytes, cut)| {
                let attempt = Attempt(unsigned_small(attempt)?);
                Ok(LogRow { task, attempt, bytes: unsigned(bytes)?, cut: unsigned(cut)? })
            })
            .collect()
    }

    /// Every worker ever seen, by name.
    ///
    /// # Errors
    /// Those of the database.
    pub fn workers(&self) -> Result<Vec<WorkerRow>, Error> {
        recover::all_workers(&mut *self.connection()?)
    }

    /// One worker.
    ///
    /// # Errors
    /// Those of the database.
    pub fn worker(&self, name: &str) -> Result<Option<WorkerRow>, Error> {
        let row: Option<WorkerColumns> = workers::table
            .find(name)
            .select(WorkerColumns::as_select())
            .first(&mut *self.connection()?)
            .optional()?;
        row.map(WorkerRow::try_from).transpose()
    }

    /// Events after `after`, in order, at most `limit` and at most [`limits::PAGE`].
    ///
    /// # Errors
    /// Those of the database.
    pub fn events(&self, after: Seq, limit: usize) -> Result<Vec<StoredEvent>, Error> {
        events::all(&mut *self.connection()?, after, limit.min(limits::PAGE))
    }

    /// The history of one subject after `after`, in order, at most `limit` and at most
    /// [`limits::PAGE`].
    ///
    /// # Errors
    /// Those of the database.
    pub fn events_of(&self, subject: &Subject, after: Seq, limit: usize) -> Result<Vec<StoredEvent>, Error> {
        events::of(&mut *self.connection()?, subject, after, limit.min(limits::PAGE))
    }

    /// Where the log begins and ends.
    ///
    /// # Errors
    /// Those of the database.
    pub fn head(&self) -> Result<Head, Error> {
        let connection = &mut *self.connection()?;
        // The oldest first: between two statements the log may only grow at its end.
        let oldest: Option<i64> =
            event_segments::table.select(diesel::dsl::min(event_segments::first_seq)).first(connection)?;
        let (head, log_id): (i64, String) =
            leadership::table.find(1).select((leadership::head_seq, leadership::log_id)).first(connection)?;
        let head_seq = Seq(unsigned(head)?);
        let oldest_seq = oldest.map(unsigned).transpose()?.map_or(head_seq.next(), Seq);
        Ok(Head { head_seq, oldest_seq, log_id })
    }

    /// What an idempotency key was used for.
    ///
    /// # Errors
    /// Those of the database.
    pub fn key(&self, key: &KeyHash) -> Result<Option<KeyRow>, Error> {
        let row: Option<(Vec<u8>, i64, i32, i64)> = idempotency_keys::table
            .find(key.0.to_vec())
            .select((
                idempotency_keys::body,
                idempotency_keys::first_task,
                idempotency_keys::task_count,
                idempotency_keys::at,
            ))
            .first(&mut *self.connection()?)
            .optional()?;
        row.map(|(body, first, count, at)| {
            Ok(KeyRow {
                key: *key,
                body: KeyHash(hash(&body)?),
                first: TaskId(unsigned(first)?),
                count: unsigned_small(count)?,
                at: Wall(at),
            })
        })
        .transpose()
    }
}

fn no_connection(error: diesel::r2d2::PoolError) -> Error {
    Error::with_source(Kind::Unreachable, "no connection for reading", error)
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = attempts)]
struct AttemptColumns {
    task: i64,
    attempt: i32,
    fence: i64,
    worker: String,
    assigned_at: i64,
    started_at: Option<i64>,
    ended_at: i64,
    ending: i32,
    exit_code: Option<i32>,
    signal: Option<i32>,
    error: Option<String>,
    result: Option<String>,
    outputs: Option<String>,
}

impl TryFrom<AttemptColumns> for AttemptRow {
    type Error = Error;

    fn try_from(columns: AttemptColumns) -> Result<Self, Error> {
        let end = u8::try_from(columns.ending)
            .ok()
            .and_then(AttemptEnd::from_number)
            .ok_or_else(|| Error::corrupt(format!("{} is no end of an attempt", columns.ending)))?;
        Ok(Self {
            task: TaskId(unsigned(columns.task)?),
            attempt: Attempt(unsigned_small(columns.attempt)?),
            fence: Fence(unsigned(columns.fence)?),
            worker: columns.worker.into(),
            assigned_at: Wall(columns.assigned_at),
            started_at: columns.started_at.map(Wall),
            ended_at: Wall(columns.ended_at),
            end,
            outcome: Outcome {
                exit_code: columns.exit_code,
                signal: columns.signal,
                result: columns.result.map(Into::into),
                outputs: columns.outputs.map(Into::into),
                error: columns.error.map(Into::into),
                left: None,
            },
        })
    }
}

//! Retention, in turns short enough that no commit waits long behind one.
//!
//! Tasks are found by walking the primary key, because an index on `settled_at` would be written for
//! every task. A round walks from the lowest number to the first task that was created too recently
//! to be removed; the place between two turns is kept in memory. When it has come to the end, runs
//! and locks are walked in the same way.

mod locks;
mod runs;
mod spared;
mod tasks;

use agentflow_core::batch::{RunRow, SettledCounts};
use agentflow_core::ids::{Attempt, RunId, TaskId};
use agentflow_core::limits::IDEMPOTENCY_DAYS;
use agentflow_core::time::Wall;
use diesel::prelude::*;

use self::spared::Spared;
use crate::columns::big;
use crate::connection::AnyConnection;
use crate::error::Error;
use crate::tables::{self, event_segments, event_subjects, idempotency_keys, leadership};

/// Segments removed in one turn: about 2 MB.
const SEGMENTS_PER_TURN: i64 = 64;

/// Keys looked at in one turn, each with a question about its tasks.
const KEYS_PER_TURN: i64 = 500;

/// Ids in one `IN` list.
const IDS_PER_STATEMENT: usize = 500;

const DAY_US: i64 = 24 * 3_600 * 1_000_000;

/// The output of a removed attempt: its file can go too.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RemovedLog {
    /// Whose.
    pub task: TaskId,
    /// Which try.
    pub attempt: Attempt,
}

/// What one turn of retention removed.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Pruned {
    /// Tasks by status; the kernel takes these away from its counters.
    pub settled: SettledCounts,
    /// Output whose files can be deleted.
    pub logs: Vec<RemovedLog>,
    /// Specifications that no task named any more.
    pub specs: usize,
    /// Runs.
    pub runs: usize,
    /// Workflows that no run and no version of one named any more.
    pub definitions: usize,
    /// Locks.
    pub locks: usize,
    /// Segments of events.
    pub segments: usize,
    /// Idempotency keys.
    pub keys: usize,
    /// Whether the round goes on.
    pub more: bool,
}

/// How far the current round has come.
#[derive(Clone)]
pub(crate) struct Progress {
    /// The last task looked at; `None` when all have been.
    tasks: Option<i64>,
    /// The last run looked at; `None` when all have been.
    runs: Option<i64>,
    /// The last lock looked at; `None` when all have been.
    locks: Option<i64>,
    /// The age of the last key looked at.
    keys: Option<i64>,
    spared_tasks: Spared<TaskId>,
    spared_runs: Spared<RunId>,
    /// The latest moment up to which what settled was removed.
    before: Wall,
}

impl Default for Progress {
    fn default() -> Self {
        Self {
            tasks: Some(0),
            runs: Some(0),
            locks: Some(0),
            keys: Some(i64::MIN),
            spared_tasks: Spared::default(),
            spared_runs: Spared::default(),
            before: Wall(i64::MIN),
        }
    }
}

impl Progress {
    /// Keeps tasks from being removed in this round and the next one.
    pub(crate) fn spare(&mut self, ids: impl IntoIterator<Item = TaskId>) {
        self.spared_tasks.add(ids);
    }

    /// The same for runs and their tasks.
    pub(crate) fn spare_runs(&mut self, ids: impl IntoIterator<Item = RunId>) {
        self.spared_runs.add(ids);
    }

    /// Whether some of a run's tasks may be gone: a large one is removed in several turns.
    pub(crate) fn is_removing(&self, run: &RunRow) -> bool {
        run.state.settled_at.is_some_and(|at| at < self.before) && !self.spared_runs.has(run.id)
    }

    fn next_round(&mut self) {
        self.tasks = Some(0);
        self.runs = Some(0);
        self.locks = Some(0);
        self.keys = Some(i64::MIN);
        self.spared_tasks.next_round();
        self.spared_runs.next_round();
    }
}

/// One turn, inside a transaction. `progress` may be kept only if that is committed.
pub(crate) fn turn(
    connection: &mut AnyConnection,
    progress: &mut Progress,
    now: Wall,
    before: Wall,
    limit: usize,
) -> Result<Pruned, Error> {
    let mut pruned = Pruned::default();
    progress.before = progress.before.max(before);
    tasks::prune(connection, progress, before, limit.max(1), &mut pruned)?;
    if progress.tasks.is_none() {
        runs::prune(connection, progress, before, &mut pruned)?;
        locks::prune(connection, progress, before, &mut pruned)?;
    }
    let segments_left = prune_segments(connection, before, &mut pruned)?;
    prune_keys(connection, progress, now, &mut pruned)?;
    subtract(connection, pruned.settled)?;
    let walks = [progress.tasks, progress.runs, progress.locks, progress.keys];
    pruned.more = walks.iter().any(Option::is_some) || segments_left;
    if !pruned.more {
        progress.next_round();
    }
    Ok(pruned)
}

/// Keeps the counters right should this master end before the kernel's next batch writes its own.
fn subtract(connection: &mut AnyConnection, removed: SettledCounts) -> Result<(), Error> {
    if removed == SettledCounts::default() {
        return Ok(());
    }
    let columns = (
        leadership::settled_completed,
        leadership::settled_failed,
        leadership::settled_cancelled,
        leadership::settled_skipped,
    );
    let row = leadership::table.find(1);
    let (completed, failed, cancelled, skipped): (i64, i64, i64, i64) =
        row.select(columns).first(connection)?;
    let less = |count: i64, removed: u64| count.saturating_sub(big(removed)).max(0);
    diesel::update(row)
        .set((
            leadership::settled_completed.eq(less(completed, removed.completed)),
            leadership::settled_failed.eq(less(failed, removed.failed)),
            leadership::settled_cancelled.eq(less(cancelled, removed.cancelled)),
            leadership::settled_skipped.eq(less(skipped, removed.skipped)),
        ))
        .execute(connection)?;
    Ok(())
}

/// Says whether there are more.
fn prune_segments(connection: &mut AnyConnection, before: Wall, pruned: &mut Pruned) -> Result<bool, Error> {
    let oldest: Vec<(i64, i64)> = event_segments::table
        .order(event_segments::first_seq)
        .limit(SEGMENTS_PER_TURN)
        .select((event_segments::first_seq, event_segments::at))
        .load(connection)?;
    let old = oldest.iter().take_while(|(_, at)| *at < before.0).count();
    let Some((last, _)) = old.checked_sub(1).and_then(|at| oldest.get(at)) else { return Ok(false) };
    diesel::delete(event_subjects::table.filter(event_subjects::first_seq.le(*last))).execute(connection)?;
    pruned.segments += diesel::delete(event_segments::table.filter(event_segments::first_seq.le(*last)))
        .execute(connection)?;
    Ok(oldest.len() == old && i64::try_from(old).is_ok_and(|old| old == SEGMENTS_PER_TURN))
}

/// A key goes when it is a week old and each of its tasks is settled or gone.
fn prune_keys(
    connection: &mut AnyConnection,
    progress: &mut Progress,
    now: Wall,
    pruned: &mut Pruned,
) -> Result<(), Error> {
    let Some(after) = progress.keys else { return Ok(()) };
    let before = now.0.saturating_sub(DAY_US * i64::try_from(IDEMPOTENCY_DAYS).unwrap_or(i64::MAX));
    let rows: Vec<(Vec<u8>, i64, i32, i64)> = idempotency_keys::table
        .filter(idempotency_keys::at.lt(before))
        .filter(idempotency_keys::at.gt(after))
        .order(idempotency_keys::at)
        .limit(KEYS_PER_TURN)
        .select((
            idempotency_keys::hash,
            idempotency_keys::first_task,
            idempotency_keys::task_count,
            idempotency_keys::at,
        ))
        .load(connection)?;
    progress.keys =
        rows.last().filter(|_| i64::try_from(rows.len()).is_ok_and(|n| n == KEYS_PER_TURN)).map(|row| row.3);
    let mut removed = Vec::new();
    for (hash, first, count, _) in rows {
        let unsettled: Option<i64> = tables::tasks::table
            .filter(tables::tasks::id.ge(first))
            .filter(tables::tasks::id.lt(first.saturating_add(i64::from(count))))
            .filter(diesel::dsl::sql::<diesel::sql_types::Bool>("status < 3"))
            .select(tables::tasks::id)
            .first(connection)
            .optional()?;
        if unsettled.is_none() {
            removed.push(hash);
        }
    }
    for hashes in removed.chunks(IDS_PER_STATEMENT) {
        pruned.keys +=
            diesel::delete(idempotency_keys::table.filter(idempotency_keys::hash.eq_any(hashes.to_vec())))
                .execute(connection)?;
    }
    Ok(())
}

//! Retention, in turns short enough that no commit waits long behind one.
//!
//! Tasks are found by walking the primary key, because an index on `settled_at` would be written for
//! every task. A round walks from the lowest number to the first task that was created too recently
//! to be removed; the place between two turns is kept in memory.

use std::collections::{BTreeMap, HashSet};

use agentflow_core::batch::SettledCounts;
use agentflow_core::ids::{Attempt, TaskId};
use agentflow_core::limits::IDEMPOTENCY_DAYS;
use agentflow_core::time::Wall;
use diesel::prelude::*;

use crate::columns::{big, status, unsigned, unsigned_small};
use crate::connection::AnyConnection;
use crate::error::Error;
use crate::tables::{
    attempts, event_segments, event_subjects, idempotency_keys, leadership, task_logs, task_specs, tasks,
};

/// Rows looked at for each that may be removed, so that a stretch of live tasks costs no long turn.
const SCAN_FACTOR: usize = 4;

/// Segments removed in one turn: about 2 MB.
const SEGMENTS_PER_TURN: i64 = 64;

/// Keys looked at in one turn, each with a question about its tasks.
const KEYS_PER_TURN: i64 = 500;

/// Ids in one `IN` list.
const IDS_PER_STATEMENT: usize = 500;

/// Tasks spared because somebody is about to change them. Past it, tasks are not removed at all until
/// the round is over: 16 MB.
const SPARED: usize = 1_000_000;

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
    /// The age of the last key looked at.
    keys: Option<i64>,
    spared: HashSet<TaskId>,
    spared_before: HashSet<TaskId>,
    spares_all: bool,
}

impl Default for Progress {
    fn default() -> Self {
        Self {
            tasks: Some(0),
            keys: Some(i64::MIN),
            spared: HashSet::new(),
            spared_before: HashSet::new(),
            spares_all: false,
        }
    }
}

impl Progress {
    /// Keeps tasks from being removed in this round and the next one.
    pub(crate) fn spare(&mut self, ids: impl IntoIterator<Item = TaskId>) {
        self.spared.extend(ids);
        if self.spared.len() > SPARED {
            self.spared.clear();
            self.spares_all = true;
        }
    }

    fn spares(&self, id: TaskId) -> bool {
        self.spares_all || self.spared.contains(&id) || self.spared_before.contains(&id)
    }

    fn next_round(&mut self) {
        self.tasks = Some(0);
        self.keys = Some(i64::MIN);
        self.spared_before = std::mem::take(&mut self.spared);
        self.spares_all = false;
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
    prune_tasks(connection, progress, before, limit.max(1), &mut pruned)?;
    let segments_left = prune_segments(connection, before, &mut pruned)?;
    prune_keys(connection, progress, now, &mut pruned)?;
    subtract(connection, pruned.settled)?;
    pruned.more = progress.tasks.is_some() || progress.keys.is_some() || segments_left;
    if !pruned.more {
        progress.next_round();
    }
    Ok(pruned)
}

/// Id, status, `settled_at`, `created_at`, specification.
type Candidate = (i64, i32, Option<i64>, i64, Vec<u8>);

fn prune_tasks(
    connection: &mut AnyConnection,
    progress: &mut Progress,
    before: Wall,
    limit: usize,
    pruned: &mut Pruned,
) -> Result<(), Error> {
    let Some(after) = progress.tasks else { return Ok(()) };
    let scan = limit.saturating_mul(SCAN_FACTOR);
    let rows: Vec<Candidate> = tasks::table
        .filter(tasks::id.gt(after))
        .order(tasks::id)
        .limit(i64::try_from(scan).unwrap_or(i64::MAX))
        .select((tasks::id, tasks::status, tasks::settled_at, tasks::created_at, tasks::spec))
        .load(connection)?;
    let mut over = rows.len() < scan;
    let mut removed = Vec::new();
    let mut uses: BTreeMap<Vec<u8>, i64> = BTreeMap::new();
    for (id, number, settled_at, created_at, spec) in rows {
        if created_at >= before.0 {
            over = true;
            break;
        }
        if removed.len() == limit {
            over = false;
            break;
        }
        progress.tasks = Some(id);
        if settled_at.is_none_or(|at| at >= before.0) || progress.spares(TaskId(unsigned(id)?)) {
            continue;
        }
        if let Some(count) = pruned.settled.of(status(number)?) {
            *count += 1;
            removed.push(id);
            *uses.entry(spec).or_default() += 1;
        }
    }
    if over {
        progress.tasks = None;
    }
    for ids in removed.chunks(IDS_PER_STATEMENT) {
        let logs: Vec<(i64, i32)> = task_logs::table
            .filter(task_logs::task.eq_any(ids.to_vec()))
            .select((task_logs::task, task_logs::attempt))
            .load(connection)?;
        for (task, attempt) in logs {
            pruned.logs.push(RemovedLog {
                task: TaskId(unsigned(task)?),
                attempt: Attempt(unsigned_small(attempt)?),
            });
        }
        diesel::delete(task_logs::table.filter(task_logs::task.eq_any(ids.to_vec()))).execute(connection)?;
        diesel::delete(attempts::table.filter(attempts::task.eq_any(ids.to_vec()))).execute(connection)?;
        diesel::delete(tasks::table.filter(tasks::id.eq_any(ids.to_vec()))).execute(connection)?;
    }
    for (hash, uses) in uses {
        let spec = task_specs::table.find(hash);
        diesel::update(spec.clone()).set(task_specs::uses.eq(task_specs::uses - uses)).execute(connection)?;
        pruned.specs += diesel::delete(spec.filter(task_specs::uses.eq(0))).execute(connection)?;
    }
    Ok(())
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
        let unsettled: Option<i64> = tasks::table
            .filter(tasks::id.ge(first))
            .filter(tasks::id.lt(first.saturating_add(i64::from(count))))
            .filter(diesel::dsl::sql::<diesel::sql_types::Bool>("status < 3"))
            .select(tasks::id)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_is_spared_for_two_rounds() {
        let mut progress = Progress::default();
        progress.spare([TaskId(1)]);
        assert!(progress.spares(TaskId(1)));
        progress.next_round();
        assert!(progress.spares(TaskId(1)));
        progress.next_round();
        assert!(!progress.spares(TaskId(1)));
        progress.spare((1..=2_000_000).map(TaskId));
        assert!(progress.spares(TaskId(9_000_000)));
    }
}

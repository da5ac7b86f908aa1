//! Retention of tasks, with everything that is theirs.

use std::collections::{BTreeMap, HashSet};

use agentflow_core::ids::{Attempt, TaskId};
use agentflow_core::relation::Relation;
use agentflow_core::status::Status;
use agentflow_core::time::Wall;
use diesel::prelude::*;

use super::{IDS_PER_STATEMENT, Progress, Pruned, RemovedLog, runs};
use crate::columns::{status, unsigned, unsigned_small};
use crate::connection::AnyConnection;
use crate::error::Error;
use crate::tables::{attempts, task_logs, task_relationships, task_specs, task_versions, tasks};

/// Rows looked at for each that may be removed, so that a stretch of live tasks costs no long turn.
const SCAN_FACTOR: usize = 4;

/// Relations removed in one turn: about 20 ms. A single task may have more.
const RELATIONS_PER_TURN: usize = 10_000;

#[derive(Queryable, Selectable)]
#[diesel(table_name = tasks)]
struct Candidate {
    id: i64,
    status: i32,
    settled_at: Option<i64>,
    created_at: i64,
    spec: Vec<u8>,
    run: Option<i64>,
}

pub(super) fn prune(
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
        .select(Candidate::as_select())
        .load(connection)?;
    let runs_kept = runs::kept(connection, progress, rows.iter().filter_map(|row| row.run), before)?;
    let may_go = |row: &Candidate| {
        row.settled_at.is_some_and(|at| at < before.0)
            && row.run.is_none_or(|run| !runs_kept.contains(&run))
            && !progress.spared_tasks.has(TaskId(row.id.unsigned_abs()))
    };
    let over = rows.len() < scan;
    let (mut chosen, place) = choose(rows, (after, over), before, limit, may_go);
    let awaited = awaited(connection, &chosen)?;
    chosen.retain(|row| !awaited.contains(&row.id));
    let ids: Vec<i64> = chosen.iter().map(|row| row.id).collect();
    // Otherwise the next turn begins where this one did, and removes more of them.
    if remove_relations(connection, &ids)? {
        progress.tasks = place;
        // Before the rows go that name them.
        let versions = versions(connection, &ids)?;
        remove(connection, &ids, pruned)?;
        count(connection, chosen, versions, pruned)?;
    }
    Ok(())
}

/// The first `limit` of the rows that may go, and where the next turn begins. The place is where this
/// turn began, and whether the rows are the last ones.
fn choose(
    rows: Vec<Candidate>,
    (mut place, mut over): (i64, bool),
    before: Wall,
    limit: usize,
    may_go: impl Fn(&Candidate) -> bool,
) -> (Vec<Candidate>, Option<i64>) {
    let mut chosen = Vec::new();
    for row in rows {
        if row.created_at >= before.0 {
            over = true;
            break;
        }
        if chosen.len() == limit {
            over = false;
            break;
        }
        place = row.id;
        if may_go(&row) {
            chosen.push(row);
        }
    }
    (chosen, (!over).then_some(place))
}

/// Those that a blocked task comes after: its input may have to name their outputs.
fn awaited(connection: &mut AnyConnection, chosen: &[Candidate]) -> Result<HashSet<i64>, Error> {
    let ordering: Vec<i32> =
        Relation::ALL.into_iter().filter(|one| one.orders()).map(|one| one as i32).collect();
    let mut awaited = HashSet::new();
    for some in chosen.chunks(IDS_PER_STATEMENT) {
        let ids: Vec<i64> = some.iter().map(|row| row.id).collect();
        let found: Vec<i64> = task_relationships::table
            .inner_join(tasks::table.on(tasks::id.eq(task_relationships::successor)))
            .filter(task_relationships::predecessor.eq_any(ids))
            .filter(task_relationships::relation.eq_any(ordering.clone()))
            .filter(tasks::status.eq(i32::from(Status::Blocked.number())))
            .select(task_relationships::predecessor)
            .distinct()
            .load(connection)?;
        awaited.extend(found);
    }
    Ok(awaited)
}

/// Says whether none are left.
fn remove_relations(connection: &mut AnyConnection, ids: &[i64]) -> Result<bool, Error> {
    let mut left = RELATIONS_PER_TURN;
    for some in ids.chunks(IDS_PER_STATEMENT) {
        let list = some.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        for end in ["predecessor", "successor"] {
            // Neither database limits a DELETE.
            let removed = diesel::sql_query(format!(
                "DELETE FROM task_relationships WHERE (predecessor, successor, relation) IN \
                 (SELECT predecessor, successor, relation FROM task_relationships \
                 WHERE {end} IN ({list}) LIMIT {left})"
            ))
            .execute(connection)?;
            left = left.saturating_sub(removed);
            if left == 0 {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

/// Removes tasks and what refers to them.
fn remove(connection: &mut AnyConnection, ids: &[i64], pruned: &mut Pruned) -> Result<(), Error> {
    for ids in ids.chunks(IDS_PER_STATEMENT) {
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
    Ok(())
}

/// How often the versions of tasks name each specification.
fn versions(connection: &mut AnyConnection, ids: &[i64]) -> Result<BTreeMap<Vec<u8>, i64>, Error> {
    let mut uses = BTreeMap::new();
    for ids in ids.chunks(IDS_PER_STATEMENT) {
        let specs: Vec<Vec<u8>> = task_versions::table
            .filter(task_versions::task.eq_any(ids.to_vec()))
            .select(task_versions::spec)
            .load(connection)?;
        for spec in specs {
            *uses.entry(spec).or_default() += 1;
        }
    }
    Ok(uses)
}

/// Counts the removed tasks, and takes away the specifications that none names any more.
fn count(
    connection: &mut AnyConnection,
    removed: Vec<Candidate>,
    mut uses: BTreeMap<Vec<u8>, i64>,
    pruned: &mut Pruned,
) -> Result<(), Error> {
    for row in removed {
        if let Some(count) = pruned.settled.of(status(row.status)?) {
            *count += 1;
        }
        *uses.entry(row.spec).or_default() += 1;
    }
    for (hash, uses) in uses {
        let spec = task_specs::table.find(hash);
        diesel::update(spec.clone()).set(task_specs::uses.eq(task_specs::uses - uses)).execute(connection)?;
        pruned.specs += diesel::delete(spec.filter(task_specs::uses.eq(0))).execute(connection)?;
    }
    Ok(())
}

//! Retention of runs: a run goes once it is old and none of its tasks is left, and a workflow with
//! the last run that names it, in one of its versions or now.

use std::collections::{BTreeSet, HashSet};

use agentflow_core::ids::RunId;
use agentflow_core::time::Wall;
use diesel::dsl::{exists, not};
use diesel::prelude::*;

use super::{IDS_PER_STATEMENT, Progress, Pruned};
use crate::connection::AnyConnection;
use crate::error::Error;
use crate::tables::{run_definitions, run_versions, runs, tasks};

/// Runs looked at in one turn, each with a question about its tasks.
const RUNS_PER_TURN: usize = IDS_PER_STATEMENT;

/// Those of the runs whose tasks must stay: they have not ended, or too recently, or somebody is about
/// to run them again. A run is removed as a whole, so that what is left of one is never run again.
pub(super) fn kept(
    connection: &mut AnyConnection,
    progress: &Progress,
    ids: impl Iterator<Item = i64>,
    before: Wall,
) -> Result<HashSet<i64>, Error> {
    let ids: BTreeSet<i64> = ids.collect();
    let ids: Vec<i64> = ids.into_iter().collect();
    let mut kept = HashSet::new();
    for wanted in ids.chunks(IDS_PER_STATEMENT) {
        let found: Vec<(i64, Option<i64>)> = runs::table
            .filter(runs::id.eq_any(wanted.to_vec()))
            .select((runs::id, runs::settled_at))
            .load(connection)?;
        let stays = |(id, settled_at)| stays(progress, id, settled_at, before).then_some(id);
        kept.extend(found.into_iter().filter_map(stays));
    }
    Ok(kept)
}

fn stays(progress: &Progress, id: i64, settled_at: Option<i64>, before: Wall) -> bool {
    settled_at.is_none_or(|at| at >= before.0) || progress.spared_runs.has(RunId(id.unsigned_abs()))
}

/// One turn, once the round is through with the tasks.
pub(super) fn prune(
    connection: &mut AnyConnection,
    progress: &mut Progress,
    before: Wall,
    pruned: &mut Pruned,
) -> Result<(), Error> {
    let Some(after) = progress.runs else { return Ok(()) };
    let rows: Vec<(i64, Option<i64>, i64)> = runs::table
        .filter(runs::id.gt(after))
        .order(runs::id)
        .limit(RUNS_PER_TURN as i64)
        .select((runs::id, runs::settled_at, runs::created_at))
        .load(connection)?;
    let recent = rows.iter().position(|(_, _, created_at)| *created_at >= before.0);
    let over = rows.len() < RUNS_PER_TURN || recent.is_some();
    progress.runs = rows.last().filter(|_| !over).map(|row| row.0);
    let old = rows.into_iter().take(recent.unwrap_or(RUNS_PER_TURN));
    let old: Vec<i64> = old.filter(|row| !stays(progress, row.0, row.1, before)).map(|row| row.0).collect();
    if !old.is_empty() {
        remove(connection, old, pruned)?;
    }
    Ok(())
}

/// Removes those of the runs that have no tasks left.
fn remove(connection: &mut AnyConnection, old: Vec<i64>, pruned: &mut Pruned) -> Result<(), Error> {
    let has_tasks = exists(tasks::table.filter(tasks::run.eq(runs::id.nullable())));
    let empty: Vec<(i64, Vec<u8>)> = runs::table
        .filter(runs::id.eq_any(old))
        .filter(not(has_tasks))
        .select((runs::id, runs::definition))
        .load(connection)?;
    let (ids, mut definitions): (Vec<i64>, BTreeSet<Vec<u8>>) = empty.into_iter().unzip();
    if ids.is_empty() {
        return Ok(());
    }
    // Before the rows go that name them.
    let of_versions: Vec<Vec<u8>> = run_versions::table
        .filter(run_versions::run.eq_any(ids.clone()))
        .select(run_versions::definition)
        .distinct()
        .load(connection)?;
    definitions.extend(of_versions);
    pruned.runs += diesel::delete(runs::table.filter(runs::id.eq_any(ids))).execute(connection)?;
    let definitions: Vec<Vec<u8>> = definitions.into_iter().collect();
    for wanted in definitions.chunks(IDS_PER_STATEMENT) {
        let has_runs = exists(runs::table.filter(runs::definition.eq(run_definitions::hash)));
        let has_versions =
            exists(run_versions::table.filter(run_versions::definition.eq(run_definitions::hash)));
        let unused = run_definitions::table
            .filter(run_definitions::hash.eq_any(wanted.to_vec()))
            .filter(not(has_runs))
            .filter(not(has_versions));
        pruned.definitions += diesel::delete(unused).execute(connection)?;
    }
    Ok(())
}

//! The rows of relations between tasks, found by their successors, and what recovery needs of them.

use std::collections::{BTreeMap, BTreeSet};

use agentflow_core::batch::{LiveRelation, RelationRow};
use agentflow_core::blob::Outputs;
use agentflow_core::ids::TaskId;
use agentflow_core::relation::Relation;
use agentflow_core::status::Status;
use agentflow_core::time::Wall;
use diesel::prelude::*;

use crate::columns::{big, status, unsigned};
use crate::connection::AnyConnection;
use crate::error::Error;
use crate::left;
use crate::tables::{task_relationships, tasks};

/// Ids in one `IN` list.
const IDS_PER_READ: usize = 500;

/// Relations read by one statement; each may bring 64 KiB of outputs.
const RELATIONS_PER_READ: usize = 2_000;

/// A whole row.
#[derive(Queryable, Selectable)]
#[diesel(table_name = task_relationships)]
pub(crate) struct RelationColumns {
    predecessor: i64,
    successor: i64,
    relation: i32,
    created_at: i64,
}

impl TryFrom<RelationColumns> for RelationRow {
    type Error = Error;

    fn try_from(columns: RelationColumns) -> Result<Self, Error> {
        let relation = u8::try_from(columns.relation)
            .ok()
            .and_then(Relation::from_number)
            .ok_or_else(|| Error::corrupt(format!("{} is no relation", columns.relation)))?;
        Ok(Self {
            predecessor: TaskId(unsigned(columns.predecessor)?),
            successor: TaskId(unsigned(columns.successor)?),
            relation,
            created_at: Wall(columns.created_at),
        })
    }
}

impl RelationColumns {
    fn place(&self) -> (i64, i64, i32) {
        (self.successor, self.predecessor, self.relation)
    }
}

/// Hands every relation to one of `successors` (rising, each once) to `each`, in pages, ordered by
/// successor, predecessor and relation.
pub(crate) fn to_successors(
    connection: &mut AnyConnection,
    successors: &[i64],
    mut each: impl FnMut(&mut AnyConnection, Vec<RelationRow>) -> Result<(), Error>,
) -> Result<(), Error> {
    for wanted in successors.chunks(IDS_PER_READ) {
        let mut wanted = wanted.to_vec();
        while !wanted.is_empty() {
            let page: Vec<RelationColumns> = task_relationships::table
                .filter(task_relationships::successor.eq_any(wanted.clone()))
                .order((
                    task_relationships::successor,
                    task_relationships::predecessor,
                    task_relationships::relation,
                ))
                .limit(RELATIONS_PER_READ as i64)
                .select(RelationColumns::as_select())
                .load(connection)?;
            let cut = page.get(RELATIONS_PER_READ - 1).map(RelationColumns::place);
            each(connection, rows(page)?)?;
            let Some(place) = cut else { break };
            rest_of_successor(connection, place, &mut each)?;
            wanted.retain(|id| *id > place.0);
        }
    }
    Ok(())
}

/// The relations of one successor from a place on. By itself, because an index can begin at that
/// place only where the successor is given: a task may come after a hundred thousand.
fn rest_of_successor(
    connection: &mut AnyConnection,
    mut place: (i64, i64, i32),
    each: &mut impl FnMut(&mut AnyConnection, Vec<RelationRow>) -> Result<(), Error>,
) -> Result<(), Error> {
    loop {
        let further =
            task_relationships::predecessor.gt(place.1).or(task_relationships::relation.gt(place.2));
        let page: Vec<RelationColumns> = task_relationships::table
            .filter(task_relationships::successor.eq(place.0))
            .filter(task_relationships::predecessor.ge(place.1))
            .filter(further)
            .order((task_relationships::predecessor, task_relationships::relation))
            .limit(RELATIONS_PER_READ as i64)
            .select(RelationColumns::as_select())
            .load(connection)?;
        let cut = page.get(RELATIONS_PER_READ - 1).map(RelationColumns::place);
        each(connection, rows(page)?)?;
        let Some(next) = cut else { return Ok(()) };
        place = next;
    }
}

fn rows(page: Vec<RelationColumns>) -> Result<Vec<RelationRow>, Error> {
    page.into_iter().map(RelationRow::try_from).collect()
}

/// The relations for which these blocked tasks (rising, each once) wait or waited.
pub(crate) fn live(connection: &mut AnyConnection, blocked: &[i64]) -> Result<Vec<LiveRelation>, Error> {
    let mut found = Vec::new();
    to_successors(connection, blocked, |connection, mut page| {
        page.retain(|row| row.relation.orders());
        let ended = ended(connection, &page)?;
        let outputs = outputs(connection, &page, &ended)?;
        found.extend(page.into_iter().map(|row| {
            let context = row.relation == Relation::Context;
            let left = || outputs.get(&row.predecessor).filter(|_| context).cloned();
            LiveRelation { row, ended: ended.get(&row.predecessor).map(|status| (*status, left())) }
        }));
        Ok(())
    })?;
    Ok(found)
}

/// The relations of these tasks to live ones that come after them.
pub(crate) fn live_after(connection: &mut AnyConnection, ids: &[TaskId]) -> Result<Vec<RelationRow>, Error> {
    let mut found = Vec::new();
    for wanted in ids.chunks(IDS_PER_READ) {
        let wanted: Vec<i64> = wanted.iter().map(|id| big(id.0)).collect();
        let page: Vec<RelationColumns> = task_relationships::table
            .inner_join(tasks::table.on(tasks::id.eq(task_relationships::successor)))
            .filter(task_relationships::predecessor.eq_any(wanted))
            .filter(tasks::status.lt(3))
            .select(RelationColumns::as_select())
            .load(connection)?;
        found.extend(rows(page)?);
    }
    found.retain(|row| row.relation.orders());
    Ok(found)
}

/// How those of the predecessors ended that have.
fn ended(connection: &mut AnyConnection, page: &[RelationRow]) -> Result<BTreeMap<TaskId, Status>, Error> {
    let ids: BTreeSet<i64> = page.iter().map(|row| big(row.predecessor.0)).collect();
    let ids: Vec<i64> = ids.into_iter().collect();
    let mut ended = BTreeMap::new();
    for wanted in ids.chunks(IDS_PER_READ) {
        let rows: Vec<(i64, i32)> = tasks::table
            .filter(tasks::id.eq_any(wanted.to_vec()))
            .filter(tasks::status.ge(3))
            .select((tasks::id, tasks::status))
            .load(connection)?;
        for (id, number) in rows {
            ended.insert(TaskId(unsigned(id)?), status(number)?);
        }
    }
    Ok(ended)
}

/// The outputs of those that ended and are somebody's context.
fn outputs(
    connection: &mut AnyConnection,
    page: &[RelationRow],
    ended: &BTreeMap<TaskId, Status>,
) -> Result<BTreeMap<TaskId, Outputs>, Error> {
    let ids: BTreeSet<i64> = page
        .iter()
        .filter(|row| row.relation == Relation::Context && ended.contains_key(&row.predecessor))
        .map(|row| big(row.predecessor.0))
        .collect();
    let ids: Vec<i64> = ids.into_iter().collect();
    let mut outputs = left::outputs_of(connection, &ids)?;
    for wanted in ids.chunks(IDS_PER_READ) {
        let rows: Vec<(i64, Option<String>)> = tasks::table
            .filter(tasks::id.eq_any(wanted.to_vec()))
            .select((tasks::id, tasks::outputs))
            .load(connection)?;
        for (id, text) in rows {
            if let Some(text) = text {
                outputs.insert(TaskId(unsigned(id)?), Outputs::Text(text.into()));
            }
        }
    }
    Ok(outputs)
}

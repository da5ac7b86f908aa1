//! From what was gathered to the rows of one transaction.

use agentflow_core::batch::{Counters, Outcome, OutcomeChange, TaskState};
use agentflow_core::ids::{DecisionNumber, Epoch, Seq};
use diesel::backend::Backend;
use diesel::prelude::*;
use diesel::query_builder::{AstPass, QueryFragment, QueryId};
use diesel::serialize::ToSql;
use diesel::sql_types::BigInt;

use super::Write;
use super::rows::{
    AttemptUpsert, KeyInsert, LogUpsert, SegmentInsert, SpecInsert, SpecUse, SubjectInsert, TaskInsert,
    TaskMention, TaskOutcomeUpdate, TaskUpdate, WorkerUpsert,
};
use crate::columns::{big, small};
use crate::error::{Error, Kind};
use crate::events::push_base36;
use crate::gathered::{Gathered, SEGMENT_EVENTS, TaskEntry};

/// The first statement of every transaction: proves that this master is still in office and that the
/// log ends where it thinks, and writes the numbers that go on.
#[derive(QueryId)]
pub(crate) struct Lead {
    epoch: i64,
    expected_head: i64,
    head_seq: i64,
    last_batch: i64,
    last_task: i64,
    settled: [i64; 4],
}

impl Lead {
    pub(crate) fn new(
        epoch: Epoch,
        expected_head: Seq,
        head: Seq,
        decision: DecisionNumber,
        counters: &Counters,
    ) -> Self {
        let settled = counters.settled;
        Self {
            epoch: big(epoch.0),
            expected_head: big(expected_head.0),
            head_seq: big(head.0),
            last_batch: big(decision.0),
            last_task: big(counters.last_task.0),
            settled: [settled.completed, settled.failed, settled.cancelled, settled.skipped].map(big),
        }
    }
}

impl<DB: Backend> QueryFragment<DB> for Lead
where
    i64: ToSql<BigInt, DB>,
{
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, DB>) -> QueryResult<()> {
        let columns = [
            ("UPDATE leadership SET head_seq = ", &self.head_seq),
            (", last_batch = ", &self.last_batch),
            (", last_task = ", &self.last_task),
            (", settled_completed = ", &self.settled[0]),
            (", settled_failed = ", &self.settled[1]),
            (", settled_cancelled = ", &self.settled[2]),
            (", settled_skipped = ", &self.settled[3]),
            (" WHERE id = 1 AND epoch = ", &self.epoch),
            (" AND head_seq = ", &self.expected_head),
        ];
        for (text, value) in columns {
            out.push_sql(text);
            out.push_bind_param::<BigInt, i64>(value)?;
        }
        Ok(())
    }
}

impl<C> RunQueryDsl<C> for Lead {}

/// The number of the first event in a segment of this commit.
fn first_of(head: Seq, segment: u32) -> i64 {
    big(head.0 + 1) + i64::from(segment) * SEGMENT_EVENTS as i64
}

/// The list of segments that a task's row gets appended.
fn mentions(head: Seq, entry: &TaskEntry) -> String {
    let mut text = String::with_capacity(8 * entry.segments.len());
    for segment in &entry.segments {
        text.push(',');
        push_base36(&mut text, first_of(head, *segment).unsigned_abs());
    }
    text
}

/// Writes everything but the leadership, tables in the order of their references.
pub(crate) fn write_rows(connection: &mut impl Write, gathered: &Gathered, head: Seq) -> Result<(), Error> {
    write_specs(connection, gathered)?;
    write_tasks(connection, gathered, head)?;
    connection.write(
        gathered
            .attempts
            .values()
            .map(|row| AttemptUpsert {
                task: big(row.task.0),
                attempt: small(row.attempt.0),
                fence: big(row.fence.0),
                worker: &row.worker,
                assigned_at: row.assigned_at.0,
                started_at: row.started_at.map(|at| at.0),
                ended_at: row.ended_at.0,
                ending: row.end as i32,
                exit_code: row.outcome.exit_code,
                signal: row.outcome.signal,
                error: row.outcome.error.as_deref(),
                result: row.outcome.result.as_deref(),
                outputs: row.outcome.outputs.as_deref(),
            })
            .collect(),
    )?;
    connection.write(
        gathered
            .logs
            .values()
            .map(|row| LogUpsert {
                task: big(row.task.0),
                attempt: small(row.attempt.0),
                bytes: big(row.bytes),
                // A worker counts both; the second is a part of the first.
                cut: big(row.cut.min(row.bytes)),
            })
            .collect(),
    )?;
    write_workers(connection, gathered)?;
    connection.write(
        gathered
            .keys
            .iter()
            .map(|row| KeyInsert {
                hash: &row.key.0,
                body: &row.body.0,
                first_task: big(row.first.0),
                task_count: small(row.count),
                at: row.at.0,
            })
            .collect(),
    )?;
    write_events(connection, gathered, head)
}

fn write_specs(connection: &mut impl Write, gathered: &Gathered) -> Result<(), Error> {
    let uses = |hash| gathered.uses.get(hash).copied().map_or(0, i64::from);
    connection.write(
        gathered
            .specs
            .iter()
            .map(|(hash, body)| SpecInsert { hash: &hash.0, body, uses: uses(hash) })
            .collect(),
    )?;
    connection.write(
        gathered
            .uses
            .iter()
            .filter(|(hash, _)| !gathered.specs.contains_key(hash))
            .map(|(hash, uses)| SpecUse { hash: &hash.0, uses: i64::from(*uses) })
            .collect(),
    )
}

fn write_tasks(connection: &mut impl Write, gathered: &Gathered, head: Seq) -> Result<(), Error> {
    let (mut births, mut states, mut outcomes, mut mentioned) = (vec![], vec![], vec![], vec![]);
    for (id, entry) in &gathered.tasks {
        let id = big(id.0);
        let segments = mentions(head, entry);
        let Some(state) = &entry.state else {
            mentioned.push(TaskMention { segments, id });
            continue;
        };
        match (&entry.birth, &entry.outcome) {
            (Some(birth), outcome) => {
                let outcome = match outcome {
                    OutcomeChange::Set(outcome) => Some(&**outcome),
                    OutcomeChange::Keep => None,
                };
                births.push(TaskInsert {
                    id,
                    status: i32::from(state.status.number()),
                    priority: i32::from(state.priority),
                    attempt: small(state.attempt.0),
                    fence: big(state.fence.0),
                    failures: small(state.failures),
                    lost: small(state.lost),
                    cancelling: i32::from(state.cancelling),
                    created_at: birth.created_at.0,
                    ready_at: state.ready_at.0,
                    assigned_at: state.assigned_at.map(|at| at.0),
                    started_at: state.started_at.map(|at| at.0),
                    settled_at: state.settled_at.map(|at| at.0),
                    group_name: &state.group,
                    worker: state.worker.as_deref(),
                    spec: &birth.spec.0,
                    title: &birth.title,
                    segments,
                    exit_code: outcome.and_then(|outcome| outcome.exit_code),
                    signal: outcome.and_then(|outcome| outcome.signal),
                    error: outcome.and_then(|outcome| outcome.error.as_deref()),
                    result: outcome.and_then(|outcome| outcome.result.as_deref()),
                    outputs: outcome.and_then(|outcome| outcome.outputs.as_deref()),
                });
            }
            (None, OutcomeChange::Keep) => states.push(update(id, state, segments)),
            (None, OutcomeChange::Set(outcome)) => {
                outcomes.push(update_with_outcome(id, state, outcome, segments));
            }
        }
    }
    connection.write(births)?;
    connection.write(states)?;
    connection.write(outcomes)?;
    connection.write(mentioned)
}

fn update(id: i64, state: &TaskState, segments: String) -> TaskUpdate<'_> {
    TaskUpdate {
        segments,
        status: i32::from(state.status.number()),
        priority: i32::from(state.priority),
        attempt: small(state.attempt.0),
        fence: big(state.fence.0),
        failures: small(state.failures),
        lost: small(state.lost),
        cancelling: i32::from(state.cancelling),
        ready_at: state.ready_at.0,
        assigned_at: state.assigned_at.map(|at| at.0),
        started_at: state.started_at.map(|at| at.0),
        settled_at: state.settled_at.map(|at| at.0),
        group_name: &state.group,
        worker: state.worker.as_deref(),
        id,
    }
}

fn update_with_outcome<'a>(
    id: i64,
    state: &'a TaskState,
    outcome: &'a Outcome,
    segments: String,
) -> TaskOutcomeUpdate<'a> {
    TaskOutcomeUpdate {
        segments,
        status: i32::from(state.status.number()),
        priority: i32::from(state.priority),
        attempt: small(state.attempt.0),
        fence: big(state.fence.0),
        failures: small(state.failures),
        lost: small(state.lost),
        cancelling: i32::from(state.cancelling),
        ready_at: state.ready_at.0,
        assigned_at: state.assigned_at.map(|at| at.0),
        started_at: state.started_at.map(|at| at.0),
        settled_at: state.settled_at.map(|at| at.0),
        group_name: &state.group,
        worker: state.worker.as_deref(),
        exit_code: outcome.exit_code,
        signal: outcome.signal,
        error: outcome.error.as_deref(),
        result: outcome.result.as_deref(),
        outputs: outcome.outputs.as_deref(),
        id,
    }
}

fn write_workers(connection: &mut impl Write, gathered: &Gathered) -> Result<(), Error> {
    let failed = |error| Error::with_source(Kind::Other, "a worker cannot be written as JSON", error);
    let mut rows = Vec::with_capacity(gathered.workers.len());
    for row in gathered.workers.values() {
        rows.push(WorkerUpsert {
            name: &row.name,
            boot: row.boot.0.cast_signed(),
            group_names: serde_json::to_string(&row.groups).map_err(failed)?,
            labels: serde_json::to_string(&row.labels).map_err(failed)?,
            slots: small(row.slots),
            prefetch: small(row.prefetch),
            draining: i32::from(row.draining),
            registered_at: row.registered_at.0,
            changed_at: row.changed_at.0,
        });
    }
    connection.write(rows)
}

fn write_events(connection: &mut impl Write, gathered: &Gathered, head: Seq) -> Result<(), Error> {
    let mut first_seq = big(head.0 + 1);
    let mut rows = Vec::with_capacity(gathered.chunks.len());
    for chunk in &gathered.chunks {
        let next = first_seq + chunk.events as i64;
        let body = format!("[{}]", &gathered.text[chunk.start..chunk.end]);
        rows.push(SegmentInsert { first_seq, last_seq: next - 1, at: chunk.last_at, body });
        first_seq = next;
    }
    connection.write(rows)?;
    connection.write(
        gathered
            .subjects
            .iter()
            .map(|(subject, segment)| SubjectInsert { subject, first_seq: first_of(head, *segment) })
            .collect(),
    )
}

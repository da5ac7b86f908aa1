//! From what was gathered to the rows of one transaction.

use agentflow_core::batch::{Counters, Outcome, OutcomeChange, TaskState};
use agentflow_core::blob::BlobRef;
use agentflow_core::ids::{DecisionNumber, Epoch, Seq};
use diesel::backend::Backend;
use diesel::prelude::*;
use diesel::query_builder::{AstPass, QueryFragment, QueryId};
use diesel::serialize::ToSql;
use diesel::sql_types::BigInt;

use super::Write;
use super::rows::{
    AttemptUpsert, KeyInsert, KeyLimitRemove, KeyLimitUpsert, LogUpsert, RelationInsert, RelationRemove,
    ScheduleRemove, ScheduleUpsert, SegmentInsert, SpecBlobInsert, SpecInsert, SpecRemoval, SpecUse,
    SubjectInsert, TaskBlobUpsert, TaskInsert, TaskMention, TaskOutcomeUpdate, TaskSpecUpdate, TaskUpdate,
    TaskVersionUpdate, WorkerUpsert,
};
use crate::columns::{Role, big, small};
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
    last_run: i64,
    last_checkpoint: i64,
    last_lock: i64,
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
            last_run: big(counters.last_run.0),
            last_checkpoint: big(counters.last_checkpoint.0),
            last_lock: big(counters.last_lock.0),
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
            (", last_run = ", &self.last_run),
            (", last_checkpoint = ", &self.last_checkpoint),
            (", last_lock = ", &self.last_lock),
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
    super::runs::write(connection, gathered)?;
    write_specs(connection, gathered)?;
    write_tasks(connection, gathered, head)?;
    // Only now does no task name it.
    connection.write(gathered.released.iter().map(|hash| SpecRemoval { hash: &hash.0 }).collect())?;
    super::saved::write(connection, gathered)?;
    write_relations(connection, gathered)?;
    super::runs::write_nodes(connection, gathered)?;
    write_blobs(connection, gathered)?;
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
    write_key_limits(connection, gathered)?;
    write_schedules(connection, gathered)?;
    super::locks::write(connection, gathered, head)?;
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

fn write_key_limits(connection: &mut impl Write, gathered: &Gathered) -> Result<(), Error> {
    let (mut kept, mut removed) = (vec![], vec![]);
    for (name, limit) in &gathered.key_limits {
        match limit {
            Some(limit) => kept.push(KeyLimitUpsert {
                name,
                max_holders: small(limit.limit),
                rate_count: limit.rate.map(|rate| small(rate.count)),
                rate_per_ms: limit.rate.map(|rate| big(rate.per_ms)),
            }),
            None => removed.push(KeyLimitRemove { name }),
        }
    }
    connection.write(kept)?;
    connection.write(removed)
}

fn write_schedules(connection: &mut impl Write, gathered: &Gathered) -> Result<(), Error> {
    let (mut kept, mut removed) = (vec![], vec![]);
    for (name, row) in &gathered.schedules {
        match row {
            Some(row) => kept.push(ScheduleUpsert {
                name,
                cron: &row.cron,
                zone: &row.zone,
                catch_up: row.catch_up as i32,
                paused: i32::from(row.paused),
                next_at: row.next_at.map(|at| at.0),
                last_at: row.last_at.map(|at| at.0),
                fired: big(row.fired),
                created_at: row.created_at.0,
                body: &row.body,
            }),
            None => removed.push(ScheduleRemove { name }),
        }
    }
    connection.write(kept)?;
    connection.write(removed)
}

fn write_specs(connection: &mut impl Write, gathered: &Gathered) -> Result<(), Error> {
    let uses = |hash| gathered.uses.get(hash).copied().unwrap_or(0);
    connection.write(
        gathered
            .specs
            .iter()
            // Fewer uses are no number for a new row, even for one that turns out to be there.
            .map(|(hash, spec)| SpecInsert { hash: &hash.0, body: &spec.body, uses: uses(hash).max(0) })
            .collect(),
    )?;
    let named =
        gathered.specs.iter().flat_map(|(hash, spec)| spec.blobs.iter().map(move |blob| (hash, blob)));
    connection
        .write(named.map(|(hash, blob)| SpecBlobInsert { spec: &hash.0, sha256: &blob.0 }).collect())?;
    connection.write(
        gathered
            .uses
            .iter()
            .filter(|(hash, uses)| **uses < 0 || !gathered.specs.contains_key(hash))
            .map(|(hash, uses)| SpecUse { hash: &hash.0, uses: *uses })
            .collect(),
    )
}

/// What attempts left by its hash.
fn write_blobs(connection: &mut impl Write, gathered: &Gathered) -> Result<(), Error> {
    let mut rows = vec![];
    for ((task, attempt), left) in &gathered.left {
        let mut add = |role: Role, path, blob: &'_ BlobRef, executable| {
            rows.push((big(task.0), small(attempt.0), role as i32, path, *blob, i32::from(executable)));
        };
        left.result.iter().for_each(|blob| add(Role::Result, "", blob, false));
        left.outputs.iter().for_each(|blob| add(Role::Outputs, "", blob, false));
        left.artifacts.iter().for_each(|file| add(Role::Artifact, &file.path, &file.blob, file.executable));
    }
    let rows = rows.iter().map(|(task, attempt, role, path, blob, executable)| TaskBlobUpsert {
        task: *task,
        attempt: *attempt,
        role: *role,
        path,
        sha256: &blob.sha256.0,
        bytes: big(blob.bytes),
        executable: *executable,
    });
    connection.write(rows.collect())
}

fn write_relations(connection: &mut impl Write, gathered: &Gathered) -> Result<(), Error> {
    let gone = gathered.parted.iter().map(|key| RelationRemove {
        predecessor: big(key.predecessor.0),
        successor: big(key.successor.0),
        relation: key.relation as i32,
    });
    connection.write(gone.collect())?;
    connection.write(
        gathered
            .relations
            .values()
            .map(|row| RelationInsert {
                predecessor: big(row.predecessor.0),
                successor: big(row.successor.0),
                relation: row.relation as i32,
                created_at: row.created_at.0,
            })
            .collect(),
    )
}

fn write_tasks(connection: &mut impl Write, gathered: &Gathered, head: Seq) -> Result<(), Error> {
    let (mut births, mut states, mut outcomes, mut mentioned) = (vec![], vec![], vec![], vec![]);
    let (mut specs, mut versions) = (vec![], vec![]);
    for (id, entry) in &gathered.tasks {
        let id = big(id.0);
        let segments = mentions(head, entry);
        let Some(state) = &entry.state else {
            mentioned.push(TaskMention { segments, id });
            continue;
        };
        if let Some(spec) = &entry.spec {
            specs.push(TaskSpecUpdate { spec: &spec.0, id });
        }
        if let Some(title) = &entry.title {
            versions.push(TaskVersionUpdate { version: small(state.version), title, id });
        }
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
                    run: birth.run.as_ref().map(|place| big(place.run.0)),
                    node: birth.run.as_ref().map(|place| &*place.node),
                    waits: waits(state),
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
    connection.write(specs)?;
    connection.write(versions)?;
    connection.write(mentioned)
}

fn waits(state: &TaskState) -> i32 {
    state.waits.map_or(0, |waits| waits as i32)
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
        waits: waits(state),
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
        waits: waits(state),
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

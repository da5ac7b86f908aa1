//! From what the core and the database say to what clients read.

use agentflow_core::batch::{AttemptEnd, AttemptRow, RunNode, TaskState, Waits};
use agentflow_core::event::Event;
use agentflow_core::ids::{Seq, TaskId};
use agentflow_core::kernel::WorkerInfo;
use agentflow_core::spec::Spec;
use agentflow_core::status::Status;
use agentflow_core::time::Wall;
use agentflow_core::why::{Reason, Why};
use agentflow_protocol::Timestamp;
use agentflow_protocol::api::{AttemptView, EventView, ReasonView, TaskView, WhyView, WorkerView};
use agentflow_protocol::submit::Checked;
use agentflow_schema::{TaskRecord, TaskSummary};
use serde_json::{Map, Value};

use super::large::Elsewhere;

/// A task as it stands in the database, and what of it is kept elsewhere.
pub(crate) fn task(record: TaskRecord) -> (TaskView, Elsewhere) {
    let mut spec: Map<String, Value> = match serde_json::from_str(&record.spec_body) {
        Ok(spec) => spec,
        Err(error) => {
            log::error!("the specification of task {} cannot be read: {error}", record.id);
            Map::new()
        }
    };
    let mut view = stand(record.id, record.title, record.created_at, &record.state);
    let outcome = record.outcome;
    view.exit_code = outcome.exit_code;
    view.signal = outcome.signal;
    view.result = outcome.result.map(String::from);
    view.outputs = outcome.outputs.and_then(|text| serde_json::from_str(&text).ok());
    view.error = outcome.error.map(|error| error.as_ref().to_owned());
    let parts = spec.remove("input_parts").map(serde_json::from_value).and_then(Result::ok);
    let elsewhere = Elsewhere { left: outcome.left, input: parts.unwrap_or_default() };
    view.spec = spec;
    (view.run_id, view.node) = in_run(record.run);
    (view, elsewhere)
}

fn in_run(node: Option<RunNode>) -> (Option<u64>, Option<String>) {
    node.map(|node| (node.run.0, node.node.as_ref().to_owned())).unzip()
}

/// What a task waits for beside workers and time.
pub(crate) fn waits(waits: Waits) -> &'static str {
    match waits {
        Waits::Release => "release",
        Waits::Approval => "approval",
        Waits::Parts => "parts",
        Waits::Room => "room",
    }
}

/// A task in a listing.
pub(crate) fn summary(summary: TaskSummary) -> TaskView {
    let mut view = stand(summary.id, summary.title, summary.created_at, &summary.state);
    view.exit_code = summary.exit_code;
    view.error = summary.error;
    (view.run_id, view.node) = in_run(summary.run);
    view
}

pub(crate) fn stand(id: TaskId, title: String, created_at: Wall, state: &TaskState) -> TaskView {
    TaskView {
        id: id.0,
        title,
        status: state.status,
        group: state.group.as_ref().to_owned(),
        priority: state.priority,
        attempt: state.attempt.0,
        version: state.version,
        fence: state.fence.0,
        worker: state.worker.as_deref().map(str::to_owned),
        run_id: None,
        node: None,
        waits: state.waits.map(|what| waits(what).to_owned()),
        cancelling: state.cancelling,
        created_at: created_at.into(),
        ready_at: Some(state.ready_at.into()),
        assigned_at: state.assigned_at.map(Timestamp),
        started_at: state.started_at.map(Timestamp),
        finished_at: state.settled_at.map(Timestamp),
        exit_code: None,
        signal: None,
        result: None,
        outputs: None,
        error: None,
        progress: None,
        spec: Map::new(),
    }
}

/// A task that was just made: what its row says, without reading it.
pub(crate) fn new_task(id: TaskId, at: Wall, checked: &Checked) -> TaskView {
    TaskView {
        id: id.0,
        title: checked.title.clone(),
        status: if checked.hold { Status::Blocked } else { Status::Pending },
        group: checked.group.clone(),
        priority: checked.priority,
        attempt: 0,
        version: 1,
        fence: 0,
        worker: None,
        run_id: None,
        node: None,
        waits: checked.hold.then(|| waits(Waits::Release).to_owned()),
        cancelling: false,
        created_at: at.into(),
        ready_at: Some(checked.not_before.map_or(at, |time| time.max(at)).into()),
        assigned_at: None,
        started_at: None,
        finished_at: None,
        exit_code: None,
        signal: None,
        result: None,
        outputs: None,
        error: None,
        progress: None,
        spec: spec(&checked.spec),
    }
}

fn spec(spec: &Spec) -> Map<String, Value> {
    match serde_json::to_value(spec) {
        Ok(Value::Object(map)) => map,
        _ => Map::new(),
    }
}

/// An ended attempt.
pub(crate) fn attempt(row: AttemptRow) -> AttemptView {
    let status = match row.end {
        AttemptEnd::Completed => "completed",
        AttemptEnd::Failed => "failed",
        AttemptEnd::Cancelled => "cancelled",
        AttemptEnd::Lost => "lost",
    };
    AttemptView {
        attempt: row.attempt.0,
        fence: row.fence.0,
        status: status.to_owned(),
        worker: row.worker.as_ref().to_owned(),
        assigned_at: row.assigned_at.into(),
        started_at: row.started_at.map(Timestamp),
        finished_at: Some(row.ended_at.into()),
        exit_code: row.outcome.exit_code,
        signal: row.outcome.signal,
        error: row.outcome.error.map(|error| error.as_ref().to_owned()),
    }
}

/// The latest attempt as the task's own row tells it: one that has not ended, or a first one that
/// succeeded and so has no row of its own.
pub(crate) fn latest_attempt(record: &TaskRecord) -> Option<AttemptView> {
    let state = &record.state;
    let status = match state.status {
        Status::Completed => "completed",
        Status::Failed => "failed",
        Status::Cancelled => "cancelled",
        Status::Running => "running",
        Status::Pending => "assigned",
        Status::Blocked | Status::Skipped => return None,
    };
    Some(AttemptView {
        attempt: state.attempt.0,
        fence: state.fence.0,
        status: status.to_owned(),
        worker: state.worker.as_deref()?.to_owned(),
        assigned_at: state.assigned_at?.into(),
        started_at: state.started_at.map(Timestamp),
        finished_at: state.settled_at.map(Timestamp),
        exit_code: record.outcome.exit_code,
        signal: record.outcome.signal,
        error: record.outcome.error.as_deref().map(str::to_owned),
    })
}

/// A worker.
pub(crate) fn worker(info: WorkerInfo) -> WorkerView {
    let status = match (info.online, info.draining) {
        (false, _) => "offline",
        (true, true) => "draining",
        (true, false) => "online",
    };
    let groups: Vec<String> = info.groups.iter().map(|group| group.as_ref().to_owned()).collect();
    WorkerView {
        id: info.name.as_ref().to_owned(),
        group: groups.first().cloned().unwrap_or_default(),
        groups,
        status: status.to_owned(),
        connected: info.connected,
        labels: info.labels,
        slots: info.slots,
        running: info.running,
        assigned: info.assigned,
        changed_at: info.changed_at.into(),
    }
}

/// Why a task is not running.
pub(crate) fn why(why: Why) -> WhyView {
    WhyView {
        task_id: why.task.0,
        status: why.status,
        reasons: why.reasons.into_iter().map(reason).collect(),
    }
}

/// One reason.
pub(crate) fn reason(reason: Reason) -> ReasonView {
    ReasonView {
        code: reason.code.to_owned(),
        detail: reason.detail,
        held_by: reason.held_by,
        since: reason.since.map(Timestamp),
        frees: reason.frees,
    }
}

/// An event.
pub(crate) fn event(seq: Seq, event: &Event) -> EventView {
    EventView { seq, at: event.at.into(), subject: event.subject.clone(), happening: event.happening.clone() }
}

//! Bodies of the REST API, other than those that create tasks (see [`crate::submit`]).

use std::collections::BTreeMap;

use agentflow_core::event::{Happening, Subject};
use agentflow_core::ids::Seq;
use agentflow_core::status::Status;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Timestamp;

/// A task. Listings leave out the payload, the result and the outputs.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct TaskView {
    /// From 1.
    pub id: u64,
    /// One line.
    pub title: String,
    /// `blocked`, `pending`, `running`, `completed`, `failed`, `cancelled`, `skipped`.
    #[schema(value_type = String)]
    pub status: Status,
    /// Which workers may take it.
    pub group: String,
    /// 0 to 100.
    pub priority: u8,
    /// The latest try, from 1; 0 before the first.
    pub attempt: u32,
    /// Rises with each upgrade.
    pub version: u32,
    /// The latest assignment's number.
    pub fence: u64,
    /// The worker that holds or held it; `(master)` for a task that consists of others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<String>,
    /// The run that it is a part of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_id: Option<u64>,
    /// Its place in the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// What it waits for beside workers and time: `release` or `approval`; `parts` while it consists
    /// of others that have not ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits: Option<String>,
    /// Whether a running attempt has been told to stop.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cancelling: bool,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// Since when it is ready, or when it will be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_at: Option<Timestamp>,
    /// When the latest attempt was given to a worker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assigned_at: Option<Timestamp>,
    /// When the latest attempt began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// When it settled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Timestamp>,
    /// The exit code of the latest ended attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// The signal that ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// The tail of its output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<String>,
    /// What it wrote into `AGENTFLOW_OUTPUT`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub outputs: Option<serde_json::Value>,
    /// Why it failed, or why its latest attempt did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// How far a running attempt is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
    /// The specification: `kind`, its payload, and every condition that is not the default.
    #[serde(flatten)]
    #[schema(value_type = Object)]
    pub spec: serde_json::Map<String, serde_json::Value>,
}

/// How far a running attempt is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Progress {
    /// 0 to 100.
    pub percent: f32,
    /// For people.
    pub message: String,
}

/// A page of tasks.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct TaskPage {
    /// At most 1,000.
    pub tasks: Vec<TaskView>,
    /// For the next page; absent on the last.
    #[serde(default)]
    pub next_cursor: Option<String>,
}

/// The answer to a batch.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Ids {
    /// In the order of the tasks sent.
    pub ids: Vec<u64>,
}

/// One try of a task.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct AttemptView {
    /// From 1.
    pub attempt: u32,
    /// Its assignment's number.
    pub fence: u64,
    /// `assigned`, `running`, `completed`, `failed`, `cancelled`, `lost`.
    pub status: String,
    /// Where.
    pub worker: String,
    /// When it was given away.
    pub assigned_at: Timestamp,
    /// When it began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Timestamp>,
    /// Its process's exit code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// The signal that ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// The answer to `GET /tasks/{id}/attempts`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Attempts {
    /// Oldest first.
    pub attempts: Vec<AttemptView>,
}

/// A worker.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct WorkerView {
    /// Its id.
    pub id: String,
    /// The first of its groups.
    pub group: String,
    /// All of them.
    pub groups: Vec<String>,
    /// `online`, `offline` or `draining`.
    pub status: String,
    /// Whether its socket is open; an online worker may be away for less than its lease.
    pub connected: bool,
    /// What it is.
    pub labels: BTreeMap<String, String>,
    /// Attempts at once.
    pub slots: u32,
    /// Attempts that have begun there.
    pub running: u32,
    /// Attempts that are there, begun or not.
    pub assigned: u32,
    /// When it was last connected or lost.
    pub changed_at: Timestamp,
}

/// The answer to `GET /workers`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Workers {
    /// By id.
    pub workers: Vec<WorkerView>,
}

/// Sent by a worker's warden: every process of that life is dead.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct WorkerDead {
    /// The life.
    pub boot: u64,
}

/// One line of the event log.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct EventView {
    /// From 1, without holes.
    #[schema(value_type = u64)]
    pub seq: Seq,
    /// When.
    pub at: Timestamp,
    /// `task:5`, `worker:w1`.
    #[schema(value_type = String)]
    pub subject: Subject,
    /// `type` and `data`.
    #[serde(flatten)]
    #[schema(value_type = Object)]
    pub happening: Happening,
}

/// A page of events.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Events {
    /// In order.
    pub events: Vec<EventView>,
    /// The newest `seq` there is.
    pub head: u64,
    /// Names the log; a restore changes it, and cursors of another log get 410.
    pub log_id: String,
}

/// Tasks by status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TaskCounts {
    /// Wait for predecessors.
    pub blocked: u64,
    /// Ready.
    pub pending: u64,
    /// Have begun.
    pub running: u64,
    /// Done, well.
    pub completed: u64,
    /// Done, badly.
    pub failed: u64,
    /// Stopped.
    pub cancelled: u64,
    /// Never run.
    pub skipped: u64,
}

/// Workers by status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WorkerCounts {
    /// Hold a lease.
    pub online: u64,
    /// Gone.
    pub offline: u64,
    /// Take no new work.
    pub draining: u64,
    /// Of those that are not offline.
    pub slots: u64,
    /// Of these, taken by attempts that have begun.
    pub slots_used: u64,
}

/// Locks of files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LockCounts {
    /// Held.
    pub held: u64,
    /// Requests and tasks that wait for some.
    pub waiting: u64,
}

/// The answer to `GET /stats`. Counts are kept, never scanned.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Stats {
    /// By status.
    pub tasks: TaskCounts,
    /// By status.
    pub workers: WorkerCounts,
    /// By what becomes of them.
    #[serde(default)]
    pub locks: LockCounts,
    /// Since the master started.
    pub uptime_s: f64,
    /// The master's term of office.
    pub epoch: u64,
    /// The newest event.
    pub head: u64,
}

/// One reason why a task is not running.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ReasonView {
    /// A stable word, such as `no_worker`.
    pub code: String,
    /// What it waits for, for people.
    pub detail: String,
    /// Who holds it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub held_by: Vec<String>,
    /// Since when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// What would free it.
    pub frees: String,
}

/// The answer to `GET /tasks/{id}/why`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct WhyView {
    /// The task.
    pub task_id: u64,
    /// Where it stands.
    #[schema(value_type = String)]
    pub status: Status,
    /// All of them; empty when it runs or is settled.
    pub reasons: Vec<ReasonView>,
}

/// Which tasks a bulk action is for; all conditions must hold.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BulkFilter {
    /// Any of these.
    #[schema(value_type = Vec<String>)]
    pub status: Vec<Status>,
    /// In this group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// On this worker.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub worker: Option<String>,
    /// Requiring this label, `KEY=VALUE`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Of this run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run: Option<u64>,
    /// Exactly these.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ids: Vec<u64>,
}

/// The body of `POST /tasks/bulk`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BulkBody {
    /// Which tasks. Must not be empty.
    pub filter: BulkFilter,
    /// What to do.
    pub action: BulkAction,
    /// For `priority`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<crate::submit::Priority>,
    /// For `group`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
}

/// What a bulk action does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum BulkAction {
    /// Stop them.
    Cancel,
    /// Run settled ones again.
    Retry,
    /// Set the priority of waiting ones.
    Priority,
    /// Move waiting ones.
    Group,
}

/// The answer to a bulk action; the work goes on in turns.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, ToSchema)]
pub struct BulkAnswer {
    /// Tasks that match now.
    pub matched: u64,
}

/// The body of `PATCH /tasks/{id}`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PatchBody {
    /// A new priority.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<crate::submit::Priority>,
    /// A new group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
}

/// The body of actions that take nothing.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Nothing {}

/// The answer to `GET /health`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Health {
    /// `ok`.
    pub status: String,
    /// Of this program.
    pub version: String,
    /// Seconds since the master started.
    pub uptime: f64,
    /// `standalone`.
    pub mode: String,
}

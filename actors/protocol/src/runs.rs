//! Bodies of the REST API about runs, plans and relationships.

use agentflow_core::relation::Relation;
use agentflow_core::run::RunStatus;
use agentflow_core::status::Status;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Timestamp;
use crate::api::ReasonView;
use crate::submit::TaskRef;

/// A run of a workflow. Listings leave out `nodes`, `vars` and `inputs`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct RunView {
    /// From 1.
    pub id: u64,
    /// The workflow's name.
    pub name: String,
    /// `sequential`, `parallel`, `dag`, `pipeline` or `conditional`.
    pub mode: String,
    /// `pending`, `running`, `paused`, `completed`, `failed` or `cancelled`.
    #[schema(value_type = String)]
    pub status: RunStatus,
    /// Raised by each `rerun`; from 1.
    pub revision: u32,
    /// Raised by each `upgrade`; from 1.
    #[serde(default = "first")]
    pub version: u32,
    /// Names the workflow with its `vars`: 32 hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub definition: Option<String>,
    /// How many nodes it has, those of its children and the items of `foreach` not counted.
    pub node_count: u32,
    /// The task of another run that it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<u64>,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Timestamp>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Why it is about to end: `cancel` when somebody asked for it, `fail_fast` when a node failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopping: Option<String>,
    /// In the order of the workflow; the items of a `foreach` follow their node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nodes: Option<Vec<NodeView>>,
    /// As it was given, over the workflow's defaults.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub vars: Option<serde_json::Map<String, serde_json::Value>>,
    /// As it was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub inputs: Option<serde_json::Value>,
}

/// A master of an earlier version does not say it.
fn first() -> u32 {
    1
}

/// A node of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct NodeView {
    /// Unique in the run; `name[3]` for an item of a `foreach`.
    pub name: String,
    /// Its task. A node of which nothing has become yet has none in the database; its number is known.
    pub task_id: u64,
    /// As the task's; `blocked` while nothing has become of it.
    #[schema(value_type = String)]
    pub status: Status,
    /// The names of what it comes after.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub needs: Vec<String>,
    /// The latest try; 0 before the first.
    #[serde(default)]
    pub attempt: u32,
    /// The worker that holds or held it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<String>,
    /// When the latest attempt began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// When it settled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Timestamp>,
    /// The exit code of the latest ended attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// Why it failed or was skipped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// `approval` while it waits for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits: Option<String>,
}

/// A page of runs, the newest first.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct RunPage {
    /// At most 1,000.
    pub runs: Vec<RunView>,
    /// For the next page; absent on the last.
    #[serde(default)]
    pub next_cursor: Option<String>,
}

/// The body of `POST /runs`.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RunBody {
    /// A workflow, or its text in YAML or JSON.
    #[schema(value_type = Object)]
    pub workflow: agentflow_workflow::Tree,
    /// Put over the workflow's `vars`.
    #[serde(default)]
    #[schema(value_type = Object)]
    pub vars: serde_json::Map<String, serde_json::Value>,
    /// What expressions see as `inputs`: any JSON.
    #[serde(default)]
    #[schema(value_type = Object)]
    pub inputs: serde_json::Value,
    /// The same key with the same body makes nothing new.
    #[serde(default)]
    pub idempotency_key: Option<String>,
}

/// Levels of names or of task numbers: each comes after something in the level before it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PlanView<T> {
    /// The levels.
    pub plan: Vec<Vec<T>>,
}

/// The answer to `POST /runs?dry_run=1`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct DryRun {
    /// The workflow's name.
    pub name: String,
    /// Its mode.
    pub mode: String,
    /// Levels of node names.
    pub plan: Vec<Vec<String>>,
    /// How many nodes there are.
    pub node_count: u32,
    /// The hash that the run would pin.
    pub definition: String,
}

/// The answer to `GET /runs/{id}/graph`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct GraphView {
    /// In the order of the workflow.
    pub nodes: Vec<NodeView>,
    /// What comes before what.
    pub edges: Vec<EdgeView>,
    /// Levels of node names.
    pub plan: Vec<Vec<String>>,
    /// The same as a Mermaid flowchart.
    pub mermaid: String,
}

/// One node comes after another.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct EdgeView {
    /// Before.
    pub from: String,
    /// After.
    pub to: String,
    /// How the one before must have ended: `success`, `order` (not failed), `settled`, `failure`.
    pub on: String,
}

/// The body of `POST /runs/{id}/rerun` and `POST /runs/{id}/fork`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RerunBody {
    /// Names of nodes; they and everything after them run again. Those that failed or were cancelled
    /// when absent.
    pub from: Vec<String>,
    /// Put over the run's `vars`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub vars: Option<serde_json::Map<String, serde_json::Value>>,
    /// Instead of the run's `inputs`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub inputs: Option<serde_json::Value>,
}

/// The answer to `POST /runs/{id}/rerun?dry_run=1`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RerunPreview {
    /// What will run again, or be decided on again.
    pub nodes: Vec<String>,
    /// What stays as it ended.
    pub kept: Vec<String>,
    /// What is at work; a rerun of it is refused.
    pub at_work: Vec<String>,
}

/// The answer to `GET /runs/{id}/why`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RunWhyView {
    /// The run.
    pub run_id: u64,
    /// Where it stands.
    #[schema(value_type = String)]
    pub status: RunStatus,
    /// Nodes and items that have not ended, at most 100, each with what it waits for or where it runs:
    /// what has begun before what waits.
    pub nodes: Vec<NodeWhyView>,
    /// How many more there are.
    #[serde(default)]
    pub more: u64,
}

/// What holds up one node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct NodeWhyView {
    /// Its name; an item's is `name[3]`, that of a node of a child `name/node`.
    pub name: String,
    /// Its task.
    pub task_id: u64,
    /// All of them.
    pub reasons: Vec<ReasonView>,
}

/// The body of `POST /relationships`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RelationBody {
    /// Before.
    pub predecessor: TaskRef,
    /// After.
    pub successor: TaskRef,
    /// `dependency` (default), `context`, `sequential`, `parallel` or `upgrade`.
    #[serde(rename = "type", default = "dependency")]
    #[schema(value_type = String)]
    pub relation: Relation,
}

fn dependency() -> Relation {
    Relation::Dependency
}

/// A relationship.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RelationView {
    /// Before.
    pub predecessor: u64,
    /// After.
    pub successor: u64,
    /// Its type.
    #[serde(rename = "type")]
    #[schema(value_type = String)]
    pub relation: Relation,
    /// Since when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_at: Option<Timestamp>,
}

/// The answer to `GET /tasks/{id}/relationships`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Relations {
    /// In which the task comes before or after.
    pub relationships: Vec<RelationView>,
}

/// The body of `POST /tasks/{id}/reject`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RejectBody {
    /// Why, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

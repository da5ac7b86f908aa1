//! Bodies of the REST API about the versions of runs: another workflow, what it would do, and what was
//! before.

use std::collections::BTreeMap;

use agentflow_core::run::mapping::Named;
use agentflow_core::status::Status;
use agentflow_workflow::Tree;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::Timestamp;

/// The body of `POST /runs/{id}/upgrade`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RunUpgradeBody {
    /// The workflow that takes the place of the run's: a workflow, or its text in YAML or JSON.
    #[schema(value_type = Object)]
    pub workflow: Tree,
    /// Put over the workflow's `vars`. Of those that are not given the run's own stay, as far as the
    /// workflow has such.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub vars: Option<Map<String, Value>>,
    /// Instead of the run's `inputs`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub inputs: Option<Value>,
    /// Names of nodes of the new workflow with those of the run that they are; `null` for one that is
    /// none of them. Nodes that are not named here are the run's nodes of the same name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(value_type = Option<Object>)]
    pub map: BTreeMap<String, Option<String>>,
    /// Names of nodes of the new workflow; they and everything after them run again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub restart_from: Vec<String>,
    /// Begin anew what is at work and is to do something else, and stop what is no longer there.
    #[serde(default)]
    pub restart: bool,
    /// Refused if the run has another version by now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_version: Option<u32>,
    /// Why: up to 4,096 bytes without NUL.
    #[serde(default)]
    pub upgrade_reason: String,
    /// By whom: up to 128 bytes without NUL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
}

impl RunUpgradeBody {
    /// The map as the core has it.
    #[must_use]
    pub fn named(&self) -> Named {
        let pair =
            |(new, old): (&String, &Option<String>)| (new.as_str().into(), old.as_deref().map(Into::into));
        self.map.iter().map(pair).collect()
    }

    /// The nodes to restart from as the core has them.
    #[must_use]
    pub fn starts(&self) -> Vec<Box<str>> {
        self.restart_from.iter().map(|name| name.as_str().into()).collect()
    }
}

/// The answer to `POST /runs/{id}/upgrade?dry_run=1`: what would become of each node.
///
/// A `fate` is `new`, `kept` (it stays as it ended), `again`, `waits` (it has not begun), `goes_on`
/// (it is at work, and that is what the new workflow says), `finishes` (it is at work and ends as it
/// began), `restarts`, `removed`, `stopped`, or `refused`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
pub struct RunUpgradePreview {
    /// The version that the run would get.
    pub version: u32,
    /// Every node of the new workflow, in its order.
    pub nodes: Vec<NodeFate>,
    /// Every node of the run that would be no more.
    pub removed: Vec<RemovedNode>,
    /// Names of nodes at work that would be lost. While there are any, the upgrade is refused (409).
    pub refused: Vec<String>,
    /// Names of `vars` that the run would keep though the workflow has another value: it may have been
    /// begun with them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kept_vars: Vec<String>,
}

/// What would become of a node of the new workflow.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
pub struct NodeFate {
    /// Its name.
    pub name: String,
    /// Its task; absent for a new node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_id: Option<u64>,
    /// The name that the node has now, if it is another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub was: Option<String>,
    /// Where the node stands now; absent for a new node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub status: Option<Status>,
    /// What would become of it.
    pub fate: String,
}

/// What would become of a node that the new workflow does not have.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
pub struct RemovedNode {
    /// Its name.
    pub name: String,
    /// Its task.
    pub task_id: u64,
    /// Where it stands now.
    #[schema(value_type = String)]
    pub status: Status,
    /// `removed`, `stopped` or `refused`.
    pub fate: String,
}

/// A version of a run, whole.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
pub struct RunVersionView {
    /// From 1.
    pub version: u32,
    /// Why it was made; empty for the first.
    pub reason: String,
    /// By whom.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// When.
    pub created_at: Timestamp,
    /// Names its workflow with its `vars`: 32 hexadecimal digits.
    pub definition: String,
    /// What expressions saw as `inputs`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub inputs: Option<Value>,
    /// Its workflow as it is kept: `name`, `mode`, `vars`, `templates` (bodies of tasks, equal ones
    /// once) and `nodes`.
    #[schema(value_type = Object)]
    pub workflow: Value,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::problem::read_json;

    #[test]
    fn a_body_needs_a_workflow_and_nothing_else() {
        let body: RunUpgradeBody = read_json(br#"{"workflow": "version: 1"}"#).expect("a body");
        assert!(
            body.vars.is_none() && body.inputs.is_none() && !body.restart && body.upgrade_reason.is_empty()
        );
        assert_eq!(serde_json::to_value(&body).expect("plain data")["workflow"], "version: 1");
        for wrong in [r"{}", r#"{"workflow": "", "colour": 1}"#, r#"{"workflow": "", "map": {"a": 5}}"#] {
            assert_eq!(
                read_json::<RunUpgradeBody>(wrong.as_bytes()).expect_err("wrong").status,
                422,
                "{wrong}"
            );
        }
    }

    #[test]
    fn null_in_a_map_is_none_of_the_old_nodes() {
        let body = br#"{"workflow": "", "map": {"a": "b", "c": null}, "restart_from": ["a"]}"#;
        let body: RunUpgradeBody = read_json(body).expect("a body");
        let named = body.named();
        assert_eq!((&named["a"], &named["c"]), (&Some("b".into()), &None));
        assert_eq!(body.starts(), ["a".into()]);
    }
}

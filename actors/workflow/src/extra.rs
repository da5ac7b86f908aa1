//! What few nodes have: conditions, repetition, approvals, children, the items of a pipeline.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::definition::present;
use crate::{Definition, Expression};

/// What few nodes have.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Extra {
    /// It is skipped unless this is true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub when: Option<Expression>,
    /// It runs once for each item: a list, or a string holding one expression that gives a list.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub foreach: Option<Value>,
    /// What is kept of each item of a `foreach`; its outputs, else its result, when absent.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub collect: Option<Value>,
    /// It runs again until something holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repeat: Option<Repeat>,
    /// Somebody must approve before it goes on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub approval: Option<Approval>,
    /// A whole workflow as this node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub child: Option<Child>,
    /// The item of a pipeline that this node works on.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub item: Option<Value>,
    /// The item's position, from 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub index: Option<u32>,
    /// The node whose output is this one's input.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input_from: Option<u32>,
    /// The nodes whose files it finds in `AGENTFLOW_ARTIFACTS`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub files_from: Vec<u32>,
    /// How many items of its `foreach` may run at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_parallel: Option<u32>,
}

/// Runs a node again until something holds.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Repeat {
    /// Read after each time, with `self` as the node's own status, outputs and result.
    pub until: Expression,
    /// How many times at most.
    pub max: u32,
}

/// Waits for somebody's approval.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Approval {
    /// What they are asked; may hold expressions.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// A whole workflow as one node.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Child {
    /// What it does. Not instantiated: its `vars` are known when it starts.
    pub definition: Box<Definition>,
    /// Put over its defaults: an object (or a string holding one expression that gives an object);
    /// strings may hold expressions of the parent.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub vars: Value,
}

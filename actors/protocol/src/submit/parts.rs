//! Values that have more than one spelling.

use std::collections::BTreeMap;

use agentflow_core::ids::TaskId;
use agentflow_core::limits;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A task by its number, in either spelling.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum TaskRef {
    /// `5`
    Number(u64),
    /// `TASK-00000005`
    Name(String),
}

impl TaskRef {
    /// Its number.
    ///
    /// # Errors
    /// Says what is allowed.
    pub fn id(&self) -> Result<TaskId, String> {
        let id = match self {
            Self::Number(number) => Some(TaskId(*number)),
            Self::Name(name) => name.parse().ok(),
        };
        id.filter(|id| id.0 > 0).ok_or_else(|| "is no task id; write 5 or TASK-00000005".to_owned())
    }
}

/// Tasks whose files are asked for.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum Sources {
    /// Each in a directory of its number.
    Numbered(Vec<TaskRef>),
    /// Each in a directory of that name.
    Named(BTreeMap<String, TaskRef>),
}

/// A priority as a number or a name.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum Priority {
    /// 0 to 100.
    Number(i64),
    /// `low`, `normal`, `high` or `critical`.
    Name(String),
}

impl Priority {
    /// Its number.
    ///
    /// # Errors
    /// Says what is allowed.
    pub fn number(&self) -> Result<u8, String> {
        match self {
            Self::Number(n) => u8::try_from(*n)
                .ok()
                .filter(|n| *n <= limits::PRIORITY)
                .ok_or_else(|| format!("{n} is out of range; allowed: 0 to 100")),
            Self::Name(name) => match name.as_str() {
                "low" => Ok(25),
                "normal" => Ok(50),
                "high" => Ok(75),
                "critical" => Ok(100),
                _ => Err(format!("'{name}' is unknown; allowed: 0 to 100, low, normal, high, critical")),
            },
        }
    }
}

/// Whether a task has a worktree, and which.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum WorktreeBody {
    /// One that begins at the HEAD of the checkout; or none.
    Plain(bool),
    /// One that begins elsewhere.
    At(WorktreeAt),
}

/// Where a worktree begins.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct WorktreeAt {
    /// A branch, tag or commit; the HEAD of the checkout when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base: Option<String>,
}

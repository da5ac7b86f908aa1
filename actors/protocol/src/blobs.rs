//! What is said of blobs and artifacts.

use agentflow_core::blob::BlobHash;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Bytes that are kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BlobView {
    /// 64 hexadecimal digits.
    #[schema(value_type = String)]
    pub sha256: BlobHash,
    /// How many.
    pub bytes: u64,
}

/// A file that a task's latest attempt left.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ArtifactView {
    /// From 1; see `GET /artifacts/{id}`.
    pub id: u64,
    /// Whose.
    pub task_id: u64,
    /// Of which attempt.
    pub attempt: u32,
    /// The task's place in its run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Relative to the task's directory.
    pub path: String,
    /// Of its content.
    #[schema(value_type = String)]
    pub sha256: BlobHash,
    /// Its size.
    pub bytes: u64,
    /// Whether it may be run.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub executable: bool,
}

/// A page of files.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct Artifacts {
    /// At most 1,000.
    pub artifacts: Vec<ArtifactView>,
    /// For the next page; absent on the last.
    #[serde(default)]
    pub next_cursor: Option<String>,
}

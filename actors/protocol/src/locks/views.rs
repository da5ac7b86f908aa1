//! Locks as answers show them.

use std::sync::Arc;

use agentflow_core::batch::{LockLease, LockRow};
use agentflow_core::kernel::WaitingLock;
use agentflow_core::lock::{LockFence, LockId, LockMode, LockUntil, PathLock, Repository};
use agentflow_core::rejection::{Holder, Locked};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::PathAt;
use crate::{Problem, Timestamp};

/// A lock.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct LockView {
    /// Nobody can guess it.
    #[schema(value_type = String)]
    pub id: LockId,
    /// Rises with each lock of its repository.
    #[schema(value_type = u64)]
    pub fence: LockFence,
    /// In which repository.
    #[schema(value_type = String)]
    pub repo: Repository,
    /// What, in the order of the paths.
    #[schema(value_type = Vec<PathAt>)]
    pub paths: Arc<[PathLock]>,
    /// The task that has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_id: Option<u64>,
    /// The attempt with which it ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
    /// Whose: `task:5`, or a name.
    pub owner: String,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// How long a task holds it: `attempt` or `merged`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub until: Option<LockUntil>,
    /// When it was granted.
    pub acquired_at: Timestamp,
    /// When it ends unless it is renewed; null when it ends with its attempt, or only on request.
    pub expires_at: Option<Timestamp>,
    /// How long each renewal lasts.
    pub ttl_ms: Option<u64>,
    /// What its owner may not have meant.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

fn text(text: &str) -> Option<String> {
    Some(text.to_owned()).filter(|text| !text.is_empty())
}

impl LockView {
    /// A lock as it is in its row.
    #[must_use]
    pub fn of(row: &LockRow) -> Self {
        let birth = &row.birth;
        let (ttl_ms, expires_at) = match row.state.lease {
            LockLease::Attempt | LockLease::Forever => (None, None),
            LockLease::Time { ttl_ms, expires_at } => (Some(ttl_ms), Some(expires_at.into())),
        };
        let task = birth.owner.task();
        Self {
            id: birth.id,
            fence: birth.fence,
            repo: row.repo.clone(),
            paths: Arc::clone(&birth.paths),
            task_id: task.map(|task| task.0),
            attempt: birth.attempt.map(|by| by.attempt.0),
            owner: birth.owner.to_string(),
            reason: text(&birth.reason),
            until: task.map(|_| birth.until),
            acquired_at: birth.acquired_at.into(),
            expires_at,
            ttl_ms,
            warnings: Vec::new(),
        }
    }
}

/// What somebody who locks these paths may not have meant.
#[must_use]
pub fn warnings(paths: &[PathLock]) -> Vec<String> {
    let everything = |lock: &&PathLock| lock.path.is_everything();
    let warning = |lock: &PathLock| match lock.mode {
        LockMode::Read => format!("'{}' is everything: nobody else can lock a file to write it", lock.path),
        LockMode::Write => format!("'{}' is everything: nobody else can lock any file", lock.path),
    };
    paths.iter().filter(everything).map(warning).collect()
}

/// What became of one request among many: `lock` or `problem`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum LockResult {
    /// It was granted.
    Lock(LockView),
    /// It was not, and why.
    Problem(Problem),
}

/// The answer to many requests.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct LockResults {
    /// In the order of the requests.
    pub results: Vec<LockResult>,
}

/// The answer to `POST /locks/release`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct Released {
    /// How many were given back.
    pub released: u32,
    /// The others.
    pub refused: Vec<Refused>,
}

/// A lock that was not given back.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Refused {
    /// Which.
    #[schema(value_type = String)]
    pub id: LockId,
    /// Why.
    pub problem: Problem,
}

/// The answer to `DELETE /locks`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct ReleasedAll {
    /// How many were given back.
    pub released: u32,
}

/// Who waits for a lock.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct WaitingView {
    /// In which repository.
    #[schema(value_type = String)]
    pub repo: Repository,
    /// Who: `task:5`, or a name.
    pub owner: String,
    /// For what.
    #[schema(value_type = Vec<PathAt>)]
    pub paths: Arc<[PathLock]>,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Since when.
    pub since: Timestamp,
    /// How urgent, 0 to 100.
    pub priority: u8,
    /// How many stand before him.
    pub position: u32,
    /// Who stands in the way.
    pub holders: Vec<HolderView>,
}

impl From<WaitingLock> for WaitingView {
    fn from(waiting: WaitingLock) -> Self {
        Self {
            repo: waiting.repo,
            owner: waiting.owner.to_string(),
            paths: waiting.paths,
            reason: text(&waiting.reason),
            since: waiting.since.into(),
            priority: waiting.priority,
            position: waiting.position,
            holders: waiting.holders.iter().map(HolderView::of).collect(),
        }
    }
}

/// Locks that are held, and who waits.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct LockPage {
    /// The oldest first.
    pub locks: Vec<LockView>,
    /// In the order of their turns; the first hundred.
    pub waiting: Vec<WaitingView>,
    /// For the next page; absent on the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// Who stands in the way of a lock.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct HolderView {
    /// His lock; absent when he only waits, and came first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub id: Option<LockId>,
    /// Its fence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u64>)]
    pub fence: Option<LockFence>,
    /// Who: `task:5`, or a name.
    pub owner: String,
    /// Where.
    pub path: String,
    /// `read` or `write`.
    #[schema(value_type = String)]
    pub mode: LockMode,
    /// When it ends unless it is renewed; null when it ends with an attempt, or only on request.
    pub expires_at: Option<Timestamp>,
}

impl HolderView {
    fn of(holder: &Holder) -> Self {
        let (id, fence) = holder.lock.unzip();
        Self {
            id,
            fence,
            owner: holder.owner.to_string(),
            path: holder.path.to_string(),
            mode: holder.mode,
            expires_at: holder.expires_at.map(Timestamp),
        }
    }
}

/// A path that no lock covers.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Uncovered {
    /// Which.
    pub path: String,
    /// Why.
    pub reason: String,
}

/// The answer to `POST /locks/verify`; paths that are not covered are a problem.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct Verified {
    /// True.
    pub covered: bool,
}

/// What a problem says of locks.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct LockProblem {
    /// Who stands in the way, the first ten.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub holders: Vec<HolderView>,
    /// How many requests for the same paths are served before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub position: Option<u32>,
    /// The paths that no lock covers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub uncovered: Vec<Uncovered>,
}

impl LockProblem {
    /// Why a lock was not granted.
    #[must_use]
    pub fn of(locked: &Locked) -> Self {
        Self {
            holders: locked.holders.iter().map(HolderView::of).collect(),
            position: Some(locked.position),
            uncovered: Vec::new(),
        }
    }
}

//! The locking API of Git LFS, with which `git lfs lock`, `locks`, `unlock` and its check before a push
//! use these locks. Its words are those of its specification; a reader ignores fields that it does not
//! know.

use agentflow_core::batch::LockRow;
use agentflow_core::lock::{LockId, LockMode};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Timestamp;

/// The media type of every body.
pub const MEDIA_TYPE: &str = "application/vnd.git-lfs+json";

/// Who locks when nobody says who he is.
pub const NOBODY: &str = "lfs";

/// The body of `POST /locks`. The branch is not looked at: a file is locked on all of them.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct LfsLockBody {
    /// A file.
    pub path: String,
}

/// A lock.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct LfsLock {
    /// Its id.
    #[schema(value_type = String)]
    pub id: LockId,
    /// Where.
    pub path: String,
    /// When it was granted.
    pub locked_at: Timestamp,
    /// Whose.
    pub owner: LfsOwner,
}

/// Who has a lock.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct LfsOwner {
    /// His name; `task:5` for a task.
    pub name: String,
}

impl LfsLock {
    /// What a lock is to Git LFS, which knows files that are locked for writing, one to a lock: each of
    /// its paths by itself.
    pub fn of(row: &LockRow) -> impl Iterator<Item = Self> {
        let birth = &row.birth;
        let written = birth.paths.iter().filter(|lock| lock.mode == LockMode::Write);
        written.map(|lock| Self {
            id: birth.id,
            path: lock.path.to_string(),
            locked_at: birth.acquired_at.into(),
            owner: LfsOwner { name: birth.owner.to_string() },
        })
    }
}

/// The answer to `POST /locks` and `POST /locks/{id}/unlock`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct LfsLocked {
    /// The lock; after an unlock, the one that was.
    pub lock: LfsLock,
}

/// The answer to `GET /locks`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct LfsLocks {
    /// The oldest first.
    pub locks: Vec<LfsLock>,
    /// For the next page; absent on the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// The body of `POST /locks/verify`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct LfsVerifyBody {
    /// From the page before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
    /// How many locks to a page, at most 1,000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
}

/// The answer to `POST /locks/verify`. A push that changes one of theirs is stopped by the client.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct LfsVerified {
    /// Of who asks.
    pub ours: Vec<LfsLock>,
    /// Of all others.
    pub theirs: Vec<LfsLock>,
    /// For the next page; absent on the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// The body of `POST /locks/{id}/unlock`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct LfsUnlockBody {
    /// Whether another's lock is broken.
    pub force: bool,
}

/// Why nothing was done.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct LfsProblem {
    /// For people.
    pub message: String,
    /// The lock that is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lock: Option<LfsLock>,
}

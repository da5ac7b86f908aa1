//! Rows of locks: the repositories that have some, and every grant, held or ended.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::ids::{Attempt, Fence, LockNumber, SpaceId};
use crate::lock::{LockFence, LockId, LockOwner, LockUntil, PathLock, Repository};
use crate::time::Wall;

/// A repository in which something was locked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LockSpaceRow {
    /// Its number, from 1.
    pub id: SpaceId,
    /// Which.
    pub repo: Repository,
    /// Whether upper and lower case are the same in its paths.
    pub ignore_case: bool,
    /// The largest fence that was given out.
    pub fence: LockFence,
}

/// The attempt with which a task's lock ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LockedBy {
    /// Which try.
    pub attempt: Attempt,
    /// Its assignment.
    pub fence: Fence,
}

/// The part of a grant that is written once.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LockBirth {
    /// Its name.
    pub id: LockId,
    /// In which repository.
    pub space: SpaceId,
    /// Its number there.
    pub fence: LockFence,
    /// Whose.
    pub owner: LockOwner,
    /// By which attempt, if a task's attempt has it.
    pub attempt: Option<LockedBy>,
    /// How long a task's is held.
    pub until: LockUntil,
    /// What is locked, in the order of the paths.
    pub paths: Arc<[PathLock]>,
    /// Why, for people; may be empty.
    pub reason: Arc<str>,
    /// When.
    pub acquired_at: Wall,
}

/// What keeps a grant from being held for ever.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LockLease {
    /// Its attempt, whose worker renews its own lease.
    Attempt,
    /// It ends unless it is renewed.
    Time {
        /// How long each renewal lasts.
        ttl_ms: u64,
        /// When it ends.
        expires_at: Wall,
    },
    /// Only its owner, or an operator who breaks it.
    Forever,
}

/// How a grant ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum LockEnd {
    /// Its owner gave it back, or its attempt ended.
    Released = 0,
    /// Nobody renewed it.
    Expired = 1,
    /// An operator took it away.
    Broken = 2,
    /// Its attempt was lost with its worker, or was superseded.
    Lost = 3,
}

impl LockEnd {
    /// The end with that number.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        [Self::Released, Self::Expired, Self::Broken, Self::Lost].get(usize::from(number)).copied()
    }
}

/// When and why a grant ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LockEnded {
    /// How.
    pub end: LockEnd,
    /// When.
    pub at: Wall,
    /// Why, for people; may be empty.
    pub reason: Arc<str>,
}

/// The part of a grant that changes; always written whole.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LockState {
    /// What keeps it from being held for ever.
    pub lease: LockLease,
    /// Present when it is held no more.
    pub ended: Option<LockEnded>,
}

/// One grant's row. A later entry of a grant replaces an earlier one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LockWrite {
    /// Which.
    pub number: LockNumber,
    /// Present when the row is new.
    pub birth: Option<Arc<LockBirth>>,
    /// As it is now.
    pub state: LockState,
}

/// A grant as it is read back.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LockRow {
    /// Its number among all grants, from 1.
    pub number: LockNumber,
    /// In which repository.
    pub repo: Repository,
    /// What it was from the beginning.
    pub birth: Arc<LockBirth>,
    /// As it was last written.
    pub state: LockState,
}

//! What clients say of locks, and what they are shown.

use std::sync::Arc;

use super::SubmitKey;
use crate::ids::LockNumber;
use crate::lock::{LockFence, LockId, LockOwner, LockPath, PathLock, Repository};
use crate::rejection::Holder;
use crate::time::Wall;

/// A request for locks. Its form was checked at the door: no two of its paths overlap.
#[derive(Clone, PartialEq, Debug)]
pub struct LockRequest {
    /// In which repository.
    pub repo: Repository,
    /// Whether upper and lower case are the same in its paths.
    pub ignore_case: bool,
    /// What, in the order of the paths.
    pub paths: Arc<[PathLock]>,
    /// For whom.
    pub owner: LockOwner,
    /// For how long; for ever when absent. A lock of a task that has a running attempt ends with that.
    pub ttl_ms: Option<u64>,
    /// Why, for people; may be empty.
    pub reason: Arc<str>,
    /// How urgent: as with tasks.
    pub priority: u8,
    /// By which it is known again.
    pub key: Option<SubmitKey>,
}

/// A lock to be given back.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Unlock {
    /// Which.
    pub lock: LockId,
    /// Its number, if it was given.
    pub fence: Option<LockFence>,
    /// Its owner, if somebody says who he is.
    pub owner: Option<LockOwner>,
}

/// Which locks are listed.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LockFilter {
    /// Of this repository.
    pub repo: Option<Repository>,
    /// That overlap this path.
    pub path: Option<LockPath>,
    /// Of this owner.
    pub owner: Option<LockOwner>,
    /// That one.
    pub lock: Option<LockId>,
    /// After that number.
    pub after: LockNumber,
    /// So many.
    pub limit: usize,
}

/// Who waits for locks, as listings show it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WaitingLock {
    /// In which repository.
    pub repo: Repository,
    /// Who.
    pub owner: LockOwner,
    /// For what.
    pub paths: Arc<[PathLock]>,
    /// Why, for people.
    pub reason: Arc<str>,
    /// Since when.
    pub since: Wall,
    /// How urgent.
    pub priority: u8,
    /// Who stands in the way.
    pub holders: Vec<Holder>,
    /// How many stand before him.
    pub position: u32,
}

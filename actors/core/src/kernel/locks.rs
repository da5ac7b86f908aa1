//! Locks in the kernel: every grant that is held, and everybody who waits for one.
//!
//! ```text
//! client, attempt ──► want ──► obstacles? ──none──► grant ──► row, event, answer
//!                                  └──some──► refused, or a place in the queue
//! a task's turn   ──► want ──► obstacles? ──none──► assigned, with its locks, in the same step
//!                                  └──some──► parked: its worker takes another task
//! release, expiry, loss, a place given up ──► those for whom it stood in the way are looked at again
//! ```
//!
//! Invariants, checked by [`Kernel::check`]: two grants that exclude each other are never held; nobody
//! waits who could be granted what he wants; a lock that ends with an attempt is held exactly as long as
//! a worker has that attempt in its hands; a task is parked only while it has a place in the queue.
//!
//! Order: by the moment of asking and priority, as in the queues of tasks. Who came first is not passed
//! over by whom he excludes, so that readers never starve a writer. A task for which no worker is free
//! keeps its place and stands in nobody's way but that of its like.

mod attempts;
mod check;
mod clients;
mod deadlock;
mod grants;
mod obstacles;
mod queue;
mod restore;
mod views;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rustc_hash::FxHashMap;
use sha2::{Digest, Sha256};

use super::words::SubmitKey;
use crate::attempt::AttemptKey;
use crate::batch::{KeyHash, LockBirth};
use crate::ids::{LockNumber, ReplyTo, SpaceId, TaskId};
use crate::lock::space::LockSpace;
use crate::lock::{LockId, LockOwner, LockUntil, PathLock, Repository};
use crate::time::{Mono, Wall};

/// What makes the ids of locks unguessable: random, and another one in each master.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct LockSecret(pub [u8; 32]);

impl std::fmt::Debug for LockSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LockSecret")
    }
}

impl LockSecret {
    fn id(&self, number: LockNumber) -> LockId {
        let digest = Sha256::new().chain_update(self.0).chain_update(number.0.to_be_bytes()).finalize();
        let mut id = [0; 16];
        id.copy_from_slice(&digest[..16]);
        LockId(id)
    }
}

/// Paths of one repository that are to be one grant.
#[derive(Clone, Debug)]
struct Want {
    space: SpaceId,
    until: LockUntil,
    paths: Arc<[PathLock]>,
}

/// The place of a request: smaller ones are served first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Turn {
    /// When it was made, moved forward by its priority.
    at: i64,
    number: LockNumber,
}

/// What keeps a grant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Lease {
    Attempt,
    Time { ttl_ms: u64, until: Mono, expires_at: Wall },
    Forever,
}

/// A grant that is held.
#[derive(Debug)]
struct Grant {
    birth: Arc<LockBirth>,
    lease: Lease,
    /// The number under which its attempt asked for it.
    no: Option<u64>,
}

impl Grant {
    fn task(&self) -> Option<TaskId> {
        self.birth.owner.task()
    }
}

/// Who is told.
#[derive(Clone, Debug)]
enum Asker {
    /// A client.
    Client { reply: ReplyTo, ttl_ms: Option<u64>, key: Option<SubmitKey>, until: Mono },
    /// A running attempt.
    Attempt { key: AttemptKey, no: u64, until: Mono },
    /// A task in its turn: it is assigned, which tells enough.
    Queued,
}

/// A request that waits.
#[derive(Debug)]
struct Waiter {
    owner: LockOwner,
    wants: Vec<Want>,
    turn: Turn,
    priority: u8,
    since: Wall,
    reason: Arc<str>,
    asker: Asker,
}

/// See the module. All maps are ordered wherever somebody goes through them, so that simulations repeat.
#[derive(Debug, Default)]
pub(crate) struct Locks {
    secret: LockSecret,
    spaces: BTreeMap<SpaceId, LockSpace>,
    by_repo: BTreeMap<Repository, SpaceId>,
    held: BTreeMap<LockNumber, Grant>,
    by_id: FxHashMap<LockId, LockNumber>,
    by_owner: BTreeMap<LockOwner, BTreeSet<LockNumber>>,
    waiting: BTreeMap<LockNumber, Waiter>,
    waiting_of: BTreeMap<LockOwner, BTreeSet<LockNumber>>,
    waiting_by_reply: FxHashMap<ReplyTo, LockNumber>,
    waiting_by_key: FxHashMap<KeyHash, LockNumber>,
    /// Those in whose way nothing stands but a task in its turn: when no worker is free for that any
    /// more, it stands there no more.
    behind_tasks: BTreeSet<LockNumber>,
    /// Paths of all grants.
    paths: usize,
}

impl Locks {
    pub(super) fn new(secret: LockSecret) -> Self {
        Self { secret, ..Self::default() }
    }

    /// Grants.
    pub(super) fn held(&self) -> usize {
        self.held.len()
    }

    /// Places in the queue.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    fn space(&self, id: SpaceId) -> Option<&LockSpace> {
        self.spaces.get(&id)
    }

    /// The place that a task in its turn has in the queue.
    fn queued(&self, task: TaskId) -> Option<LockNumber> {
        let numbers = self.waiting_of.get(&LockOwner::Task(task))?;
        numbers.iter().copied().find(|number| {
            self.waiting.get(number).is_some_and(|waiter| matches!(waiter.asker, Asker::Queued))
        })
    }
}

/// Adds to a set in a map.
fn enter<K: Ord>(map: &mut BTreeMap<K, BTreeSet<LockNumber>>, key: K, number: LockNumber) {
    map.entry(key).or_default().insert(number);
}

/// Takes out of a set in a map; an empty one goes.
fn leave<K: Ord>(map: &mut BTreeMap<K, BTreeSet<LockNumber>>, key: &K, number: LockNumber) {
    if let Some(numbers) = map.get_mut(key) {
        numbers.remove(&number);
        if numbers.is_empty() {
            map.remove(key);
        }
    }
}

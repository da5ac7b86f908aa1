//! The rows of locks, as recovery, verification and whoever asks for one read them back.

use std::collections::BTreeMap;
use std::sync::Arc;

use agentflow_core::batch::{
    LockBirth, LockEnd, LockEnded, LockLease, LockRow, LockSpaceRow, LockState, LockedBy,
};
use agentflow_core::ids::{Attempt, Fence, LockNumber, SpaceId, TaskId};
use agentflow_core::lock::{LockFence, LockId, LockOwner, LockUntil, PathLock, Repository};
use agentflow_core::time::Wall;
use diesel::prelude::*;

use crate::columns::{Names, big, hash, unsigned, unsigned_small};
use crate::connection::AnyConnection;
use crate::error::{Error, Kind};
use crate::tables::{lock_grants, lock_spaces};

/// Grants read by one statement: each may have a mebibyte of paths.
const GRANTS_PER_READ: i64 = 1_000;

/// Numbers in the column `lease`.
const BY_ATTEMPT: i32 = 0;
const BY_TIME: i32 = 1;
const FOR_EVER: i32 = 2;

/// A whole row of a repository.
#[derive(Queryable, Selectable)]
#[diesel(table_name = lock_spaces)]
pub(crate) struct SpaceColumns {
    id: i32,
    ignore_case: i32,
    fence: i64,
    repo: String,
}

impl TryFrom<SpaceColumns> for LockSpaceRow {
    type Error = Error;

    fn try_from(columns: SpaceColumns) -> Result<Self, Error> {
        Ok(Self {
            id: SpaceId(unsigned_small(columns.id)?),
            repo: repository(&columns.repo)?,
            ignore_case: columns.ignore_case != 0,
            fence: LockFence(unsigned(columns.fence)?),
        })
    }
}

/// A whole row of a grant, but for where its events are.
#[derive(Queryable, Selectable)]
#[diesel(table_name = lock_grants)]
pub(crate) struct LockColumns {
    number: i64,
    space: i32,
    fence: i64,
    task: Option<i64>,
    attempt: Option<i32>,
    attempt_fence: Option<i64>,
    until: i32,
    lease: i32,
    ttl_ms: Option<i64>,
    expires_at: Option<i64>,
    acquired_at: i64,
    ending: Option<i32>,
    ended_at: Option<i64>,
    lock_id: Vec<u8>,
    owner: Option<String>,
    reason: String,
    ended_reason: Option<String>,
    paths: String,
}

impl LockColumns {
    /// The row, which is one of that repository.
    pub(crate) fn row(self, repo: Repository, names: &mut Names) -> Result<LockRow, Error> {
        let number = LockNumber(unsigned(self.number)?);
        let damaged = |what| Error::corrupt(format!("lock {number} has {what}"));
        let owner = match (self.task, &self.owner) {
            (Some(task), None) => LockOwner::Task(TaskId(unsigned(task)?)),
            (None, Some(name)) => LockOwner::Named(names.share(name)),
            _ => return Err(damaged("two owners or none")),
        };
        let attempt = match (self.attempt, self.attempt_fence) {
            (None, None) => None,
            (Some(attempt), Some(fence)) => {
                Some(LockedBy { attempt: Attempt(unsigned_small(attempt)?), fence: Fence(unsigned(fence)?) })
            }
            _ => return Err(damaged("half an attempt")),
        };
        let lease = match (self.lease, self.ttl_ms, self.expires_at) {
            (BY_ATTEMPT, None, None) => LockLease::Attempt,
            (BY_TIME, Some(ttl_ms), Some(at)) => {
                LockLease::Time { ttl_ms: unsigned(ttl_ms)?, expires_at: Wall(at) }
            }
            (FOR_EVER, None, None) => LockLease::Forever,
            _ => return Err(damaged("a lease that contradicts itself")),
        };
        let ended = match (self.ending, self.ended_at, &self.ended_reason) {
            (None, None, None) => None,
            (Some(ending), Some(at), Some(reason)) => {
                let end = u8::try_from(ending).ok().and_then(LockEnd::from_number);
                let end = end.ok_or_else(|| damaged("an end that is none"))?;
                Some(LockEnded { end, at: Wall(at), reason: names.share(reason) })
            }
            _ => return Err(damaged("half an end")),
        };
        let paths: Arc<[PathLock]> = serde_json::from_str(&self.paths).map_err(|error| {
            Error::with_source(Kind::Corrupt, format!("the paths of lock {number}"), error)
        })?;
        let birth = LockBirth {
            id: LockId(hash(&self.lock_id)?),
            space: SpaceId(unsigned_small(self.space)?),
            fence: LockFence(unsigned(self.fence)?),
            owner,
            attempt,
            until: until(self.until)?,
            paths,
            reason: names.share(&self.reason),
            acquired_at: Wall(self.acquired_at),
        };
        Ok(LockRow { number, repo, birth: Arc::new(birth), state: LockState { lease, ended } })
    }
}

/// The columns `lease`, `ttl_ms` and `expires_at`.
pub(crate) fn lease_columns(lease: &LockLease) -> (i32, Option<i64>, Option<i64>) {
    match lease {
        LockLease::Attempt => (BY_ATTEMPT, None, None),
        LockLease::Time { ttl_ms, expires_at } => (BY_TIME, Some(big(*ttl_ms)), Some(expires_at.0)),
        LockLease::Forever => (FOR_EVER, None, None),
    }
}

/// The column `until`.
pub(crate) fn until_column(until: LockUntil) -> i32 {
    match until {
        LockUntil::Attempt => 0,
        LockUntil::Merged => 1,
    }
}

fn until(number: i32) -> Result<LockUntil, Error> {
    [LockUntil::Attempt, LockUntil::Merged]
        .into_iter()
        .find(|until| until_column(*until) == number)
        .ok_or_else(|| Error::corrupt(format!("{number} is no moment until which a task holds a lock")))
}

/// The repository that was written so.
pub(crate) fn repository(text: &str) -> Result<Repository, Error> {
    Repository::new(text)
        .map_err(|error| Error::with_source(Kind::Corrupt, format!("the repository '{text}'"), error))
}

/// Every repository in which something was locked, by its number.
pub(crate) fn spaces(connection: &mut AnyConnection) -> Result<Vec<LockSpaceRow>, Error> {
    let rows: Vec<SpaceColumns> =
        lock_spaces::table.order(lock_spaces::id).select(SpaceColumns::as_select()).load(connection)?;
    rows.into_iter().map(LockSpaceRow::try_from).collect()
}

/// Every grant that is held, by its number. The repositories are all there are.
pub(crate) fn held(connection: &mut AnyConnection, spaces: &[LockSpaceRow]) -> Result<Vec<LockRow>, Error> {
    let repos: BTreeMap<i64, &Repository> =
        spaces.iter().map(|row| (i64::from(row.id.0), &row.repo)).collect();
    let mut names = Names::default();
    let mut held = Vec::new();
    let mut after = 0;
    loop {
        let rows: Vec<LockColumns> = lock_grants::table
            .filter(lock_grants::number.gt(after))
            // What the partial index is for.
            .filter(lock_grants::ended_at.is_null())
            .order(lock_grants::number)
            .limit(GRANTS_PER_READ)
            .select(LockColumns::as_select())
            .load(connection)?;
        let Some(last) = rows.last() else { return Ok(held) };
        after = last.number;
        for row in rows {
            let repo = repos.get(&i64::from(row.space)).copied().cloned();
            let repo =
                repo.ok_or_else(|| Error::corrupt(format!("lock {} is of no known repository", row.number)))?;
            held.push(row.row(repo, &mut names)?);
        }
    }
}

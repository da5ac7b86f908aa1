//! Rows of locks, and how they are written.

use agentflow_core::ids::Seq;
use agentflow_core::lock::{LockMode, LockOwner};
use diesel::sql_types::{BigInt, Binary, Integer, Nullable, Text};

use super::{Write, row};
use crate::columns::{big, small};
use crate::error::{Error, Kind};
use crate::gathered::{Gathered, Place};
use crate::locks::{lease_columns, until_column};

row! {
    /// A repository in which something was locked, as it is now.
    SpaceUpsert<'a> in "lock_spaces",
    Verb::Insert { conflict: "ON CONFLICT (id) DO UPDATE SET ignore_case = excluded.ignore_case, \
        fence = excluded.fence" },
    {
        id: i32 => Integer,
        ignore_case: i32 => Integer,
        fence: i64 => BigInt,
        repo: &'a str => Text,
    }
}

row! {
    /// A new grant.
    GrantInsert<'a> in "lock_grants", Verb::Insert { conflict: "" },
    {
        number: i64 => BigInt,
        space: i32 => Integer,
        fence: i64 => BigInt,
        task: Option<i64> => Nullable<BigInt>,
        attempt: Option<i32> => Nullable<Integer>,
        attempt_fence: Option<i64> => Nullable<BigInt>,
        until: i32 => Integer,
        writes: i32 => Integer,
        lease: i32 => Integer,
        ttl_ms: Option<i64> => Nullable<BigInt>,
        expires_at: Option<i64> => Nullable<BigInt>,
        acquired_at: i64 => BigInt,
        acquired_first_seq: i64 => BigInt,
        acquired_last_seq: i64 => BigInt,
        ending: Option<i32> => Nullable<Integer>,
        ended_at: Option<i64> => Nullable<BigInt>,
        ended_first_seq: Option<i64> => Nullable<BigInt>,
        ended_last_seq: Option<i64> => Nullable<BigInt>,
        lock_id: &'a [u8] => Binary,
        owner: Option<&'a str> => Nullable<Text>,
        reason: &'a str => Text,
        ended_reason: Option<&'a str> => Nullable<Text>,
        paths: String => Text,
    }
}

row! {
    /// A grant's new state.
    GrantUpdate<'a> in "lock_grants",
    Verb::Update { sqlite: ("lease = ", ""), postgres: "lease = u.lease" },
    {
        lease: i32 => Integer,
        ttl_ms: Option<i64> => Nullable<BigInt>,
        expires_at: Option<i64> => Nullable<BigInt>,
        ending: Option<i32> => Nullable<Integer>,
        ended_at: Option<i64> => Nullable<BigInt>,
        ended_first_seq: Option<i64> => Nullable<BigInt>,
        ended_last_seq: Option<i64> => Nullable<BigInt>,
        ended_reason: Option<&'a str> => Nullable<Text>,
        number: i64 => BigInt,
    }
}

/// The numbers of the first and of the last event of a decision of this commit; the last comes before
/// the first if there is none.
fn numbers(head: Seq, place: Place) -> (i64, i64) {
    let before = big(head.0 + place.before as u64);
    (before + 1, before + place.count as i64)
}

/// Writes repositories and grants.
pub(super) fn write(connection: &mut impl Write, gathered: &Gathered, head: Seq) -> Result<(), Error> {
    let spaces = gathered.locks.spaces.values().map(|row| SpaceUpsert {
        id: small(row.id.0),
        ignore_case: i32::from(row.ignore_case),
        fence: big(row.fence.0),
        repo: row.repo.as_str(),
    });
    connection.write(spaces.collect())?;
    let failed = |error| Error::with_source(Kind::Other, "paths cannot be written as JSON", error);
    let (mut births, mut states) = (vec![], vec![]);
    for (number, entry) in &gathered.locks.grants {
        let number = big(number.0);
        let (lease, ttl_ms, expires_at) = lease_columns(&entry.state.lease);
        let ended = entry.state.ended.as_ref();
        let ending = ended.map(|ended| ended.end as i32);
        let ended_at = ended.map(|ended| ended.at.0);
        let ended_reason = ended.map(|ended| &*ended.reason);
        let (ended_first_seq, ended_last_seq) = ended.map(|_| numbers(head, entry.place)).unzip();
        let Some((birth, place)) = &entry.birth else {
            states.push(GrantUpdate {
                lease,
                ttl_ms,
                expires_at,
                ending,
                ended_at,
                ended_first_seq,
                ended_last_seq,
                ended_reason,
                number,
            });
            continue;
        };
        let (task, owner) = match &birth.owner {
            LockOwner::Task(task) => (Some(big(task.0)), None),
            LockOwner::Named(name) => (None, Some(&**name)),
        };
        let (acquired_first_seq, acquired_last_seq) = numbers(head, *place);
        births.push(GrantInsert {
            number,
            space: small(birth.space.0),
            fence: big(birth.fence.0),
            task,
            attempt: birth.attempt.map(|by| small(by.attempt.0)),
            attempt_fence: birth.attempt.map(|by| big(by.fence.0)),
            until: until_column(birth.until),
            writes: i32::from(birth.paths.iter().any(|lock| lock.mode == LockMode::Write)),
            lease,
            ttl_ms,
            expires_at,
            acquired_at: birth.acquired_at.0,
            acquired_first_seq,
            acquired_last_seq,
            ending,
            ended_at,
            ended_first_seq,
            ended_last_seq,
            lock_id: &birth.id.0,
            owner,
            reason: &birth.reason,
            ended_reason,
            paths: serde_json::to_string(&birth.paths).map_err(failed)?,
        });
    }
    connection.write(births)?;
    connection.write(states)
}

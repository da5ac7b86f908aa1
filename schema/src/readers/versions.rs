//! Versions of tasks and of runs, page by page: each is a whole text.

use agentflow_core::batch::RunVersionRow;
use agentflow_core::ids::{RunId, SpecHash, TaskId};
use agentflow_core::limits;
use agentflow_core::time::Wall;
use diesel::dsl::sql;
use diesel::prelude::*;
use diesel::sql_types::BigInt;

use super::Readers;
use crate::columns::{big, hash, small, unsigned, unsigned_small};
use crate::error::Error;
use crate::saved::VersionRecord;
use crate::tables::{run_definitions, run_versions, task_specs, task_versions};

/// Texts on a page, in characters, unless one alone has more: a workflow may have 32 MiB.
const PAGE_CHARS: i64 = 8 << 20;

/// A version of a run, whole.
#[derive(Clone, PartialEq, Debug)]
pub struct RunVersionRecord {
    /// As it was written.
    pub row: RunVersionRow,
    /// Its workflow's canonical JSON.
    pub definition_body: String,
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = run_versions)]
struct VersionColumns {
    run: i64,
    version: i32,
    definition: Vec<u8>,
    created_at: i64,
    inputs: String,
    reason: String,
    author: String,
}

impl TryFrom<VersionColumns> for RunVersionRow {
    type Error = Error;

    fn try_from(columns: VersionColumns) -> Result<Self, Error> {
        Ok(Self {
            run: RunId(unsigned(columns.run)?),
            version: unsigned_small(columns.version)?,
            definition: SpecHash(hash(&columns.definition)?),
            inputs: columns.inputs.into(),
            reason: columns.reason.into(),
            author: columns.author.into(),
            created_at: Wall(columns.created_at),
        })
    }
}

/// Where a page ends that begins with the first of these, each with the length of its text; and whether
/// another one follows.
fn end_of_page(sizes: &[(i32, i64)], limit: usize) -> (i32, bool) {
    let mut chars = 0;
    let mut last = 0;
    for (place, (version, length)) in sizes.iter().enumerate() {
        chars += length;
        if place > 0 && (place == limit || chars > PAGE_CHARS) {
            return (last, true);
        }
        last = *version;
    }
    (last, false)
}

/// One more than a page has at most.
fn enough(limit: usize) -> i64 {
    i64::try_from(limit.clamp(1, limits::PAGE) + 1).unwrap_or(i64::MAX)
}

impl Readers {
    /// The versions of a task that was upgraded, the oldest first, from the one after `after`: at most
    /// `limit`, fewer where they are long; and whether there are more. Nothing for any other task.
    ///
    /// # Errors
    /// Those of the database.
    pub fn versions(
        &self,
        task: TaskId,
        after: u32,
        limit: usize,
    ) -> Result<(Vec<VersionRecord>, bool), Error> {
        let connection = &mut *self.connection()?;
        let own = || {
            task_versions::table
                .inner_join(task_specs::table.on(task_specs::hash.eq(task_versions::spec)))
                .filter(task_versions::task.eq(big(task.0)))
                .filter(task_versions::version.gt(small(after)))
                .order(task_versions::version)
        };
        let length = sql::<BigInt>("CAST(length(task_specs.body) AS BIGINT)");
        let sizes: Vec<(i32, i64)> =
            own().limit(enough(limit)).select((task_versions::version, length)).load(connection)?;
        let (last, has_more) = end_of_page(&sizes, limit.clamp(1, limits::PAGE));
        let rows: Vec<(i32, String, String, String, String, i64)> = own()
            .filter(task_versions::version.le(last))
            .select((
                task_versions::version,
                task_versions::title,
                task_specs::body,
                task_versions::reason,
                task_versions::author,
                task_versions::created_at,
            ))
            .load(connection)?;
        let record = |(version, title, spec_body, reason, author, created_at)| {
            let (version, created_at) = (unsigned_small(version)?, Wall(created_at));
            Ok(VersionRecord { version, title, spec_body, reason, author, created_at })
        };
        Ok((rows.into_iter().map(record).collect::<Result<_, Error>>()?, has_more))
    }

    /// The versions of a run, as [`versions`](Readers::versions).
    ///
    /// # Errors
    /// Those of the database.
    pub fn run_versions(
        &self,
        run: RunId,
        after: u32,
        limit: usize,
    ) -> Result<(Vec<RunVersionRecord>, bool), Error> {
        let connection = &mut *self.connection()?;
        let own = || {
            run_versions::table
                .inner_join(run_definitions::table.on(run_definitions::hash.eq(run_versions::definition)))
                .filter(run_versions::run.eq(big(run.0)))
                .filter(run_versions::version.gt(small(after)))
                .order(run_versions::version)
        };
        let length = "CAST(length(run_definitions.body) + length(run_versions.inputs) AS BIGINT)";
        let sizes: Vec<(i32, i64)> = own()
            .limit(enough(limit))
            .select((run_versions::version, sql::<BigInt>(length)))
            .load(connection)?;
        let (last, has_more) = end_of_page(&sizes, limit.clamp(1, limits::PAGE));
        let found: Vec<(VersionColumns, String)> = own()
            .filter(run_versions::version.le(last))
            .select((VersionColumns::as_select(), run_definitions::body))
            .load(connection)?;
        let record = |(columns, definition_body): (VersionColumns, String)| {
            Ok(RunVersionRecord { row: columns.try_into()?, definition_body })
        };
        Ok((found.into_iter().map(record).collect::<Result<_, Error>>()?, has_more))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_ends_with_its_limit_or_before_it_is_too_long() {
        let small = [(1, 10), (2, 10), (3, 10)];
        assert_eq!(end_of_page(&[], 2), (0, false));
        assert_eq!(end_of_page(&small, 2), (2, true));
        assert_eq!(end_of_page(&small, 3), (3, false));
        let large = [(4, PAGE_CHARS + 1), (5, PAGE_CHARS), (6, 1)];
        assert_eq!(end_of_page(&large, 100), (4, true), "one alone may have more");
        assert_eq!(end_of_page(&large[1..], 100), (5, true));
        assert_eq!(end_of_page(&large[2..], 100), (6, false));
    }
}

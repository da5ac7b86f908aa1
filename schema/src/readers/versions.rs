//! Versions of tasks and of runs, page by page: each is a whole text.

use agentflow_core::batch::RunVersionRow;
use agentflow_core::ids::{RunId, SpecHash, TaskId};
use agentflow_core::limits;
use agentflow_core::time::Wall;
use diesel::dsl::sql;
use diesel::prelude::*;
use diesel::sql_types::BigInt;

use super::Readers;
use super::pages::{end_of_page, enough};
use crate::columns::{big, hash, small, unsigned, unsigned_small};
use crate::error::Error;
use crate::saved::VersionRecord;
use crate::tables::{run_definitions, run_versions, task_specs, task_versions};

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

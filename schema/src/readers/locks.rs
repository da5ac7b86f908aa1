//! Reads of locks, held and ended: history is what commits are verified against.

use agentflow_core::batch::{LockRow, LockSpaceRow};
use agentflow_core::ids::{LockNumber, SpaceId};
use agentflow_core::limits;
use agentflow_core::lock::{LockFence, LockId, Repository};
use diesel::dsl::sql;
use diesel::prelude::*;
use diesel::sql_types::BigInt;

use super::Readers;
use super::pages::{end_of_page, enough};
use crate::columns::{Names, big, small};
use crate::error::Error;
use crate::locks::{LockColumns, SpaceColumns, repository};
use crate::tables::{lock_grants, lock_spaces};

impl Readers {
    /// One grant, held or ended.
    ///
    /// # Errors
    /// Those of the database; [`Error::is_corrupt`] for rows that cannot be.
    pub fn lock(&self, number: LockNumber) -> Result<Option<LockRow>, Error> {
        let found = lock_grants::table
            .inner_join(lock_spaces::table.on(lock_spaces::id.eq(lock_grants::space)))
            .filter(lock_grants::number.eq(big(number.0)))
            .select((LockColumns::as_select(), lock_spaces::repo))
            .first(&mut *self.connection()?)
            .optional()?;
        found.map(row).transpose()
    }

    /// The grant of that name, held or ended.
    ///
    /// # Errors
    /// As with [`lock`](Readers::lock).
    pub fn lock_by_id(&self, id: &LockId) -> Result<Option<LockRow>, Error> {
        let found = lock_grants::table
            .inner_join(lock_spaces::table.on(lock_spaces::id.eq(lock_grants::space)))
            .filter(lock_grants::lock_id.eq(id.0.to_vec()))
            .select((LockColumns::as_select(), lock_spaces::repo))
            .first(&mut *self.connection()?)
            .optional()?;
        found.map(row).transpose()
    }

    /// The repository, if something was ever locked in it.
    ///
    /// # Errors
    /// As with [`lock`](Readers::lock).
    pub fn lock_space(&self, repo: &Repository) -> Result<Option<LockSpaceRow>, Error> {
        let columns: Option<SpaceColumns> = lock_spaces::table
            .filter(lock_spaces::repo.eq(repo.as_str()))
            .select(SpaceColumns::as_select())
            .first(&mut *self.connection()?)
            .optional()?;
        columns.map(LockSpaceRow::try_from).transpose()
    }

    /// What was granted for writing in a repository, held or ended, in the order of the fences: from the
    /// fence `from`, and after `after`. At most `limit` and at most [`limits::PAGE`], fewer where the
    /// paths are many: only an empty page is the end.
    ///
    /// # Errors
    /// As with [`lock`](Readers::lock).
    pub fn write_grants(
        &self,
        space: SpaceId,
        from: LockFence,
        after: LockFence,
        limit: usize,
    ) -> Result<Vec<LockRow>, Error> {
        let connection = &mut *self.connection()?;
        let repo: Option<String> =
            lock_spaces::table.find(small(space.0)).select(lock_spaces::repo).first(connection).optional()?;
        let Some(repo) = repo.as_deref().map(repository).transpose()? else { return Ok(vec![]) };
        let wanted = || {
            lock_grants::table
                .filter(lock_grants::space.eq(small(space.0)))
                .filter(lock_grants::fence.ge(big(from.0)))
                .filter(lock_grants::fence.gt(big(after.0)))
                .filter(lock_grants::writes.eq(1))
                .order(lock_grants::fence)
        };
        // Both databases know this without reading the text.
        let length = || sql::<BigInt>("CAST(octet_length(paths) AS BIGINT)");
        loop {
            let sizes: Vec<(i64, i64)> =
                wanted().limit(enough(limit)).select((lock_grants::fence, length())).load(connection)?;
            let (last, _) = end_of_page(&sizes, limit.clamp(1, limits::PAGE));
            let found: Vec<LockColumns> = wanted()
                .filter(lock_grants::fence.le(last))
                .select(LockColumns::as_select())
                .load(connection)?;
            // Between the two, retention may have taken a whole page away, which is not the end.
            if sizes.is_empty() || !found.is_empty() {
                let mut names = Names::default();
                return found.into_iter().map(|columns| columns.row(repo.clone(), &mut names)).collect();
            }
        }
    }
}

fn row((columns, repo): (LockColumns, String)) -> Result<LockRow, Error> {
    columns.row(repository(&repo)?, &mut Names::default())
}

//! Retention of locks: a grant goes once its end is old. One that is held stays, and so do the
//! repositories, which know their largest fence.

use agentflow_core::time::Wall;
use diesel::prelude::*;

use super::{Progress, Pruned};
use crate::connection::AnyConnection;
use crate::error::Error;
use crate::tables::lock_grants;

/// Grants looked at in one turn: about 20 ms if all of them go.
const GRANTS_PER_TURN: usize = 1_000;

/// One turn, once the round is through with the tasks.
pub(super) fn prune(
    connection: &mut AnyConnection,
    progress: &mut Progress,
    before: Wall,
    pruned: &mut Pruned,
) -> Result<(), Error> {
    let Some(after) = progress.locks else { return Ok(()) };
    let rows: Vec<(i64, i64)> = lock_grants::table
        .filter(lock_grants::number.gt(after))
        .order(lock_grants::number)
        .limit(GRANTS_PER_TURN as i64)
        .select((lock_grants::number, lock_grants::acquired_at))
        .load(connection)?;
    let Some((last, _)) = rows.last() else {
        progress.locks = None;
        return Ok(());
    };
    let ended = lock_grants::table
        .filter(lock_grants::number.gt(after))
        .filter(lock_grants::number.le(last))
        .filter(lock_grants::ended_at.lt(before.0));
    pruned.locks += diesel::delete(ended).execute(connection)?;
    // A number is given out when somebody begins to wait: a single grant that is recent says nothing.
    let goes_on = rows.len() == GRANTS_PER_TURN && rows.iter().any(|(_, at)| *at < before.0);
    progress.locks = goes_on.then_some(*last);
    Ok(())
}

//! Moving SQLite's log into its file, on a connection of its own so that the writer does not wait.

use diesel::SqliteConnection;
use diesel::prelude::*;
use diesel::sql_types::Integer;

use crate::connection::open_sqlite;
use crate::error::Error;
use crate::target::Target;

/// Pages of log (of 4 KiB) past which a checkpoint holds the writer up for a moment, because
/// otherwise a writer that never rests would keep the log growing: 256 MB.
const LONG_LOG_PAGES: i32 = 65_536;

/// Checkpoints the write-ahead log. Call [`run`](Checkpointer::run) every second or so, on a thread
/// that may wait for the disk. On PostgreSQL, which does this by itself, it does nothing.
pub struct Checkpointer {
    sqlite: Option<SqliteConnection>,
}

/// What a checkpoint did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Checkpointed {
    /// Pages in the log.
    pub log_pages: u32,
    /// Of these, pages that are in the file by now.
    pub moved_pages: u32,
}

#[derive(QueryableByName)]
struct Report {
    #[diesel(sql_type = Integer)]
    log: i32,
    #[diesel(sql_type = Integer)]
    checkpointed: i32,
}

impl Checkpointer {
    /// Opens its own connection. The [`Writer`](crate::Writer) must have been opened before.
    ///
    /// # Errors
    /// If the file cannot be opened.
    pub fn open(target: &Target) -> Result<Self, Error> {
        let sqlite = match target {
            Target::Sqlite(path) => Some(open_sqlite(path)?),
            Target::Postgres(_) => None,
        };
        Ok(Self { sqlite })
    }

    /// Moves what can be moved without waiting for anybody; if the log has become long, also waits
    /// for the writer and for readers, so that it can begin anew.
    ///
    /// # Errors
    /// If the file cannot be written; [`Error::is_full`] tells a full disk apart.
    pub fn run(&mut self) -> Result<Checkpointed, Error> {
        let Some(sqlite) = &mut self.sqlite else { return Ok(Checkpointed::default()) };
        let mut report = checkpoint(sqlite, "PASSIVE")?;
        if report.log > LONG_LOG_PAGES {
            report = checkpoint(sqlite, "TRUNCATE")?;
        }
        Ok(Checkpointed {
            log_pages: u32::try_from(report.log).unwrap_or(0),
            moved_pages: u32::try_from(report.checkpointed).unwrap_or(0),
        })
    }
}

fn checkpoint(sqlite: &mut SqliteConnection, mode: &str) -> Result<Report, Error> {
    Ok(diesel::sql_query(format!("PRAGMA wal_checkpoint({mode})")).get_result(sqlite)?)
}

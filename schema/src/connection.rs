//! One connection to either database, opened for writing, reading or checkpointing.

use std::path::Path;

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Text};
use diesel::{PgConnection, SqliteConnection};

use crate::error::{Error, Kind};
use crate::migrations;
use crate::target::{Durability, Options, Target};

/// "AfLw", written into the header of SQLite files by the first migration.
const APPLICATION_ID: i64 = 1_097_223_287;

/// How long a statement waits for another connection's lock. Only a checkpoint or another program
/// ever holds it; five seconds are a checkpoint of a gigabyte.
const BUSY_TIMEOUT_MS: u32 = 5_000;

/// Pages of log after which the writer checkpoints by itself: 400 MB, far beyond what a
/// [`Checkpointer`](crate::Checkpointer) that is called regularly lets grow.
const SAFETY_CHECKPOINT_PAGES: u32 = 100_000;

#[derive(diesel::MultiConnection)]
pub(crate) enum AnyConnection {
    Postgres(PgConnection),
    Sqlite(SqliteConnection),
}

/// Opens the database for writing: checks that it is ours and whole, and brings its tables up to date.
pub(crate) fn open_writer(target: &Target, options: &Options) -> Result<AnyConnection, Error> {
    let mut connection = match target {
        Target::Sqlite(path) => {
            let mut sqlite = open_sqlite(path)?;
            refuse_foreign(&mut sqlite)?;
            enter_wal(&mut sqlite)?;
            let synchronous = match options.durability {
                Durability::Full => "FULL",
                Durability::Normal => "NORMAL",
            };
            // The write that is rolled back tells a file that only pretends to be writable: SQLite lets
            // a transaction begin on it.
            sqlite.batch_execute(&format!(
                "PRAGMA synchronous = {synchronous};
                 PRAGMA cache_size = -65536;
                 PRAGMA temp_store = MEMORY;
                 PRAGMA foreign_keys = ON;
                 PRAGMA wal_autocheckpoint = {SAFETY_CHECKPOINT_PAGES};
                 BEGIN IMMEDIATE;
                 PRAGMA user_version = 0;
                 ROLLBACK;"
            ))?;
            AnyConnection::Sqlite(sqlite)
        }
        Target::Postgres(url) => {
            let mut postgres = open_postgres(url)?;
            let synchronous = match options.durability {
                Durability::Full => "on",
                Durability::Normal => "off",
            };
            postgres.batch_execute(&format!("SET synchronous_commit = {synchronous}"))?;
            AnyConnection::Postgres(postgres)
        }
    };
    migrations::bring_up_to_date(&mut connection)?;
    Ok(connection)
}

/// Opens the database for reading; the writer has been there before.
pub(crate) fn open_reader(target: &Target) -> Result<AnyConnection, Error> {
    match target {
        Target::Sqlite(path) => {
            let mut sqlite = open_sqlite(path)?;
            sqlite.batch_execute("PRAGMA query_only = ON; PRAGMA cache_size = -8192;")?;
            Ok(AnyConnection::Sqlite(sqlite))
        }
        Target::Postgres(url) => {
            let mut postgres = open_postgres(url)?;
            postgres.batch_execute("SET default_transaction_read_only = on")?;
            Ok(AnyConnection::Postgres(postgres))
        }
    }
}

/// Opens a file with nothing set but the wait for locks, which must come before anything that locks.
pub(crate) fn open_sqlite(path: &Path) -> Result<SqliteConnection, Error> {
    let Some(name) = path.to_str() else {
        return Err(Error::new(
            Kind::Unreachable,
            format!("the path {} of the database is not UTF-8", path.display()),
        ));
    };
    let mut sqlite = SqliteConnection::establish(name).map_err(|error| {
        Error::from(error).during(format!("the database {} could not be opened", path.display()))
    })?;
    sqlite.batch_execute(&format!("PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}"))?;
    Ok(sqlite)
}

fn open_postgres(url: &str) -> Result<PgConnection, Error> {
    let mut postgres = PgConnection::establish(url).map_err(|error| {
        let shown = Target::Postgres(url.to_owned());
        Error::from(error).during(format!("the database {shown} could not be reached"))
    })?;
    // Errors are told apart by their English text. Only a superuser may ask for it; a server in
    // another language then merely takes a full disk for some other failure.
    if let Err(error) = postgres.batch_execute("SET lc_messages = 'C'") {
        log::debug!("the server keeps its language for messages: {error}");
    }
    Ok(postgres)
}

#[derive(QueryableByName)]
struct Number {
    #[diesel(sql_type = BigInt)]
    number: i64,
}

#[derive(QueryableByName)]
struct Word {
    #[diesel(sql_type = Text)]
    journal_mode: String,
}

/// The first reads of the file: they find what is no database, or another program's.
fn refuse_foreign(sqlite: &mut SqliteConnection) -> Result<(), Error> {
    let number = |sqlite: &mut SqliteConnection, sql: &str| -> Result<i64, Error> {
        Ok(diesel::sql_query(sql).get_result::<Number>(sqlite)?.number)
    };
    let id = number(sqlite, "SELECT application_id AS number FROM pragma_application_id")?;
    let tables = number(
        sqlite,
        "SELECT count(*) AS number FROM sqlite_schema WHERE name NOT LIKE '\\_\\_diesel%' ESCAPE '\\' AND name NOT LIKE 'sqlite%'",
    )?;
    if id != APPLICATION_ID && (id != 0 || tables > 0) {
        return Err(Error::new(Kind::Foreign, "the file is a database of another program"));
    }
    Ok(())
}

fn enter_wal(sqlite: &mut SqliteConnection) -> Result<(), Error> {
    let mode = diesel::sql_query("PRAGMA journal_mode = WAL").get_result::<Word>(sqlite)?.journal_mode;
    if mode != "wal" {
        return Err(Error::new(
            Kind::Other,
            format!("the database stays in journal mode '{mode}'; its file system must allow shared memory"),
        ));
    }
    Ok(())
}

//! Databases that tests make and drop.
//!
//! PostgreSQL is found through `AGENTFLOW_TEST_DATABASE_URL` (a URL of a server in which databases
//! may be made), or else on `127.0.0.1:5432`. Where none answers, tests say so and pass.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use diesel::connection::{InstrumentationEvent, SimpleConnection};
use diesel::prelude::*;
use diesel::sql_types::Text;
use diesel::{PgConnection, SqliteConnection};
use tempfile::TempDir;

use crate::connection::{AnyConnection, open_writer};
use crate::error::Error;
use crate::migrations;
use crate::target::{Options, Target};
use crate::writer::Writer;

/// Names the server for tests.
pub const SERVER_VARIABLE: &str = "AGENTFLOW_TEST_DATABASE_URL";

const DEFAULT_SERVER: &str = "postgres://postgres@127.0.0.1:5432/postgres";

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// An empty database of its own; gone when dropped.
pub struct TestDatabase {
    target: Target,
    home: Home,
}

enum Home {
    Directory(TempDir),
    Server { url: String, name: String },
}

impl TestDatabase {
    /// A SQLite file that does not exist yet, in a directory of its own.
    ///
    /// # Panics
    /// If there can be no temporary directory.
    #[must_use]
    pub fn sqlite() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let target = Target::Sqlite(directory.path().join("test.db"));
        Self { target, home: Home::Directory(directory) }
    }

    /// A PostgreSQL database, or `None` and a line on standard output where there is no server.
    ///
    /// # Panics
    /// If the server that `AGENTFLOW_TEST_DATABASE_URL` names does not answer: who names one wants it
    /// used.
    #[must_use]
    pub fn postgres() -> Option<Self> {
        let named = std::env::var(SERVER_VARIABLE).ok();
        let url = named.clone().unwrap_or_else(|| DEFAULT_SERVER.to_owned());
        let mut server = match PgConnection::establish(&url) {
            Ok(server) => server,
            Err(error) if named.is_some() => panic!("{SERVER_VARIABLE}: {error}"),
            Err(error) => {
                println!("skipped: no PostgreSQL at {DEFAULT_SERVER}: {error}");
                return None;
            }
        };
        let nanoseconds =
            SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.subsec_nanos());
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("agentflow_test_{}_{nanoseconds}_{number}", std::process::id());
        server.batch_execute(&format!("CREATE DATABASE {name}")).expect("a database for this test");
        let target = Target::Postgres(in_database(&url, &name));
        Some(Self { target, home: Home::Server { url, name } })
    }

    /// Where it is.
    #[must_use]
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// The file, on SQLite.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        match &self.target {
            Target::Sqlite(path) => Some(path),
            Target::Postgres(_) => None,
        }
    }

    /// The directory of a SQLite file, for whatever else a test keeps.
    #[must_use]
    pub fn directory(&self) -> Option<PathBuf> {
        match &self.home {
            Home::Directory(directory) => Some(directory.path().to_owned()),
            Home::Server { .. } => None,
        }
    }

    /// Runs statements on a connection of its own, past everything that the [`Writer`] checks.
    ///
    /// # Errors
    /// What the database says.
    ///
    /// # Panics
    /// If there is no connection.
    pub fn execute(&self, sql: &str) -> Result<(), Error> {
        Ok(self.connect().batch_execute(sql)?)
    }

    /// Every text that a query of one column, named `text`, finds.
    ///
    /// # Panics
    /// If the query fails.
    #[must_use]
    pub fn texts(&self, sql: &str) -> Vec<String> {
        let rows: Vec<OneText> =
            diesel::sql_query(sql).load(&mut self.connect()).expect("a query that this test wrote");
        rows.into_iter().map(|row| row.text).collect()
    }

    /// The tables and their columns, in order; without those in which PostgreSQL keeps bytes that
    /// otherwise are in files.
    #[must_use]
    pub fn columns(&self) -> BTreeMap<String, Vec<String>> {
        let sql = match &self.target {
            Target::Sqlite(_) => {
                "SELECT tables.name || '.' || columns.name AS text \
                 FROM sqlite_schema AS tables, pragma_table_info(tables.name) AS columns \
                 WHERE tables.type = 'table' ORDER BY tables.name, columns.cid"
            }
            Target::Postgres(_) => {
                "SELECT table_name || '.' || column_name AS text FROM information_schema.columns \
                 WHERE table_schema = 'public' ORDER BY table_name, ordinal_position"
            }
        };
        let mut tables: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for line in self.texts(sql) {
            if let Some((table, column)) = line.split_once('.')
                && !["__diesel", "sqlite_", "blob"].iter().any(|prefix| table.starts_with(prefix))
            {
                tables.entry(table.to_owned()).or_default().push(column.to_owned());
            }
        }
        tables
    }

    /// Takes every migration back.
    ///
    /// # Errors
    /// What the database says.
    pub fn take_back_migrations(&self) -> Result<(), Error> {
        migrations::take_back(&mut open_writer(&self.target, &Options::default())?)
    }

    /// Takes the newest migrations back, so many of them.
    ///
    /// # Errors
    /// What the database says.
    pub fn take_back_newest_migrations(&self, count: usize) -> Result<(), Error> {
        migrations::take_back_newest(&mut open_writer(&self.target, &Options::default())?, count)
    }

    fn connect(&self) -> AnyConnection {
        match &self.target {
            Target::Sqlite(path) => AnyConnection::Sqlite(
                SqliteConnection::establish(&path.to_string_lossy()).expect("the test's own file"),
            ),
            Target::Postgres(url) => {
                AnyConnection::Postgres(PgConnection::establish(url).expect("the test's own database"))
            }
        }
    }
}

#[derive(QueryableByName)]
struct OneText {
    #[diesel(sql_type = Text)]
    text: String,
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        if let Home::Server { url, name } = &self.home
            && let Ok(mut server) = PgConnection::establish(url)
            && let Err(error) = server.batch_execute(&format!("DROP DATABASE {name} WITH (FORCE)"))
        {
            eprintln!("the test database {name} stays: {error}");
        }
    }
}

/// The same server, another database.
fn in_database(url: &str, name: &str) -> String {
    let (before, parameters) = match url.split_once('?') {
        Some((before, parameters)) => (before, format!("?{parameters}")),
        None => (url, String::new()),
    };
    let start = before.find("://").map_or(0, |at| at + 3);
    let end = before[start..].find('/').map_or(before.len(), |at| start + at);
    format!("{}/{name}{parameters}", &before[..end])
}

/// One row in one durable commit: the unit against which latencies are measured.
pub struct OneRowCommits {
    sqlite: SqliteConnection,
}

impl OneRowCommits {
    /// In a new SQLite file, with write-ahead log and `synchronous=FULL`.
    ///
    /// # Errors
    /// What the database says.
    ///
    /// # Panics
    /// If the file cannot be made.
    pub fn create(file: &Path) -> Result<Self, Error> {
        let mut sqlite =
            SqliteConnection::establish(&file.to_string_lossy()).expect("a file of the benchmark's own");
        sqlite.batch_execute(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; CREATE TABLE one (n INTEGER PRIMARY KEY);",
        )?;
        Ok(Self { sqlite })
    }

    /// One more.
    ///
    /// # Errors
    /// What the database says.
    pub fn commit(&mut self) -> Result<(), Error> {
        Ok(self.sqlite.batch_execute("INSERT INTO one DEFAULT VALUES")?)
    }
}

impl Writer {
    /// Lets a SQLite file grow to that many pages, as a disk would. Nothing on PostgreSQL.
    ///
    /// # Errors
    /// What the database says.
    pub fn limit_pages(&mut self, pages: u32) -> Result<(), Error> {
        if let AnyConnection::Sqlite(sqlite) = &mut self.connection {
            sqlite.batch_execute(&format!("PRAGMA max_page_count = {pages}"))?;
        }
        Ok(())
    }

    /// Counts, from now on, the statements that are prepared to be kept.
    #[must_use]
    pub fn count_prepared(&mut self) -> Arc<AtomicU32> {
        let count = Arc::new(AtomicU32::new(0));
        let seen = Arc::clone(&count);
        self.connection.set_instrumentation(move |event: InstrumentationEvent<'_>| {
            if let InstrumentationEvent::CacheQuery { .. } = event {
                seen.fetch_add(1, Ordering::Relaxed);
            }
        });
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_has_many_databases() {
        assert_eq!(in_database("postgres://me@h:1/postgres?a=b", "x"), "postgres://me@h:1/x?a=b");
        assert_eq!(in_database("postgres://me@h:1", "x"), "postgres://me@h:1/x");
    }
}

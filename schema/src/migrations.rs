//! The tables' history, embedded and applied at start.

use diesel::migration::{Migration, MigrationSource, MigrationVersion};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};

use crate::connection::AnyConnection;
use crate::error::{Error, Kind};

const SQLITE: EmbeddedMigrations = embed_migrations!("../migrations/sqlite");
const POSTGRES: EmbeddedMigrations = embed_migrations!("../migrations/postgres");

/// Applies what is missing. Refuses a database that a newer program has changed.
pub(crate) fn bring_up_to_date(connection: &mut AnyConnection) -> Result<(), Error> {
    match connection {
        AnyConnection::Sqlite(sqlite) => run(sqlite, &SQLITE),
        AnyConnection::Postgres(postgres) => {
            // Two masters may start at once; the second finds nothing left to do.
            diesel::connection::SimpleConnection::batch_execute(
                postgres,
                "SELECT pg_advisory_lock(4707171)",
            )?;
            let done = run(postgres, &POSTGRES);
            let unlocked = diesel::connection::SimpleConnection::batch_execute(
                postgres,
                "SELECT pg_advisory_unlock(4707171)",
            );
            done?;
            Ok(unlocked?)
        }
    }
}

fn run<C>(connection: &mut C, known: &EmbeddedMigrations) -> Result<(), Error>
where
    C: diesel::Connection + MigrationHarness<C::Backend>,
    EmbeddedMigrations: MigrationSource<C::Backend>,
{
    let applied = connection.applied_migrations().map_err(failed)?;
    let migrations: Vec<Box<dyn Migration<C::Backend>>> = known.migrations().map_err(failed)?;
    let versions: Vec<MigrationVersion<'_>> = migrations.iter().map(|one| one.name().version()).collect();
    if let Some(unknown) = applied.iter().find(|version| !versions.contains(version)) {
        return Err(Error::new(
            Kind::Newer,
            format!(
                "the database has migration {unknown}, which this program does not know; run a newer one"
            ),
        ));
    }
    for migration in migrations.iter().filter(|one| !applied.contains(&one.name().version())) {
        log::info!("applying migration {}", migration.name());
        connection.run_migration(migration).map_err(failed)?;
    }
    Ok(())
}

/// Takes every migration back, data included, the newest first.
#[cfg(feature = "testing")]
pub(crate) fn take_back(connection: &mut AnyConnection) -> Result<(), Error> {
    match connection {
        AnyConnection::Sqlite(sqlite) => sqlite.revert_all_migrations(SQLITE).map(drop).map_err(failed),
        AnyConnection::Postgres(postgres) => {
            postgres.revert_all_migrations(POSTGRES).map(drop).map_err(failed)
        }
    }
}

/// Takes the newest migrations back, so many of them, with what only they know.
#[cfg(feature = "testing")]
pub(crate) fn take_back_newest(connection: &mut AnyConnection, count: usize) -> Result<(), Error> {
    for _ in 0..count {
        match connection {
            AnyConnection::Sqlite(sqlite) => sqlite.revert_last_migration(SQLITE).map(drop),
            AnyConnection::Postgres(postgres) => postgres.revert_last_migration(POSTGRES).map(drop),
        }
        .map_err(failed)?;
    }
    Ok(())
}

fn failed(error: Box<dyn std::error::Error + Send + Sync>) -> Error {
    match error.downcast::<diesel::result::Error>() {
        Ok(error) => Error::from(*error),
        Err(error) => Error::with_source(Kind::Other, error.to_string(), error),
    }
    .during("the tables could not be brought up to date")
}

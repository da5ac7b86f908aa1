//! The whole crate against real databases: each test runs on SQLite and on PostgreSQL, in a database
//! of its own.

mod blobs;
mod build;
mod commit;
mod damage;
mod fixtures;
mod locks;
mod migrations;
mod reads;
mod relations;
mod retention;
mod run_retention;
mod run_versions;
mod runs;
mod saved;
mod specs;
mod versions;

/// Makes a test of each function, for each database.
macro_rules! on_both {
    ($($name:ident),* $(,)?) => {
        mod sqlite {
            $(#[test] fn $name() { super::$name(&agentflow_schema::testing::TestDatabase::sqlite()); })*
        }
        mod postgres {
            $(#[test] fn $name() {
                if let Some(database) = agentflow_schema::testing::TestDatabase::postgres() {
                    super::$name(&database);
                }
            })*
        }
    };
}
pub(crate) use on_both;

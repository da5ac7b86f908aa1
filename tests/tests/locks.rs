//! Locks under blows: what real clients were told while they and the master were killed is what one lock
//! service would have told, and no lock is left.

use std::path::Path;

use agentflow_schema::testing::TestDatabase;
use agentflow_tests::harness::{Failure, Random};
use agentflow_tests::locking::{Plan, Report, run};

fn storm(database: TestDatabase, operations: usize, kills: usize) -> Result<(), Failure> {
    let plan = Plan { seed: Random::fresh_seed(), operations, kills };
    let report = run(database, plan, Path::new(env!("CARGO_BIN_EXE_locks")))?;
    println!("{report}");
    let Report { granted, refused, gone, unanswered, master_kills, .. } = report;
    // A storm in which nobody met anybody shows nothing.
    assert!(granted > operations / 10 && refused > operations / 100 && gone > 0, "{report:?}");
    assert!(unanswered > 0 && master_kills > 0, "{report:?}");
    Ok(())
}

#[test]
fn ten_thousand_answers_on_sqlite_have_an_order() -> Result<(), Failure> {
    storm(TestDatabase::sqlite(), 10_000, 100)
}

#[test]
fn answers_on_postgres_have_an_order() -> Result<(), Failure> {
    let Some(database) = TestDatabase::postgres() else { return Ok(()) };
    storm(database, 2_000, 20)
}

//! The benchmark works: every measure gives its figures. What they are is not looked at.

use agentflow_schema::testing::TestDatabase;
use agentflow_tests::bench::{Database, MEASURES, Scale, json, table};
use agentflow_tests::harness::Failure;

fn every_measure(database: Database) -> Result<(), Failure> {
    let mut figures = Vec::new();
    for (name, measure) in MEASURES {
        let made = measure(database, Scale::QUICK).map_err(|error| format!("{name}: {error}"))?;
        assert!(!made.is_empty(), "{name} has no figure");
        assert!(made.iter().all(|figure| figure.figure.is_finite()), "{made:?}");
        figures.extend(made);
    }
    println!("{}", table(&figures));
    serde_json::from_str::<serde_json::Value>(&json(&figures))?;
    Ok(())
}

#[test]
fn every_measure_works_on_sqlite() -> Result<(), Failure> {
    every_measure(Database::Sqlite)
}

#[test]
fn every_measure_works_on_postgres() -> Result<(), Failure> {
    // Says so where there is none.
    let Some(_server) = TestDatabase::postgres() else { return Ok(()) };
    every_measure(Database::Postgres)
}

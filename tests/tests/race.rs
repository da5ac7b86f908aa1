//! Two agents and a person's shell race for the same files through every layer; nothing that strays
//! reaches `main`.

use std::path::Path;
use std::process::Command;

use agentflow_schema::testing::TestDatabase;
use agentflow_tests::harness::{Failure, Random};
use agentflow_tests::race::run;

/// By this variable a race is run again.
const SEED: &str = "RACE_SEED";

#[test]
fn nothing_that_strays_reaches_main() -> Result<(), Failure> {
    if Command::new("git").arg("version").output().is_err() {
        println!("skipped: there is no program 'git'");
        return Ok(());
    }
    let seed = match std::env::var(SEED) {
        Ok(seed) => seed.parse()?,
        Err(_) => Random::fresh_seed(),
    };
    println!("{}", run(TestDatabase::sqlite(), seed, Path::new(env!("CARGO_BIN_EXE_fake-agent")))?);
    Ok(())
}

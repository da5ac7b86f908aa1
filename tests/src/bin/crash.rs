//! The crash test for as long as wanted: `cargo run -p agentflow-tests --bin crash -- --seconds 600`.

use std::process::ExitCode;
use std::time::Duration;

use agentflow_schema::testing::TestDatabase;
use agentflow_tests::crash::{Plan, run};
use agentflow_tests::harness::Random;
use clap::{Parser, ValueEnum};

/// Kills the real programs at random while tasks flow, and compares at the end.
#[derive(Parser)]
#[command(name = "crash")]
struct Flags {
    /// How long blows fall
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Decides what is submitted, who is hit and when [default: another one each time]
    #[arg(long)]
    seed: Option<u64>,
    /// Where the master keeps its state
    #[arg(long, value_enum, default_value_t = Database::Sqlite)]
    database: Database,
}

#[derive(Clone, Copy, ValueEnum)]
enum Database {
    Sqlite,
    Postgres,
}

fn main() -> ExitCode {
    let flags = Flags::parse();
    let database = match flags.database {
        Database::Sqlite => TestDatabase::sqlite(),
        Database::Postgres => match TestDatabase::postgres() {
            Some(database) => database,
            None => return ExitCode::from(2),
        },
    };
    let seed = flags.seed.unwrap_or_else(Random::fresh_seed);
    match run(database, Plan { seed, duration: Duration::from_secs(flags.seconds) }) {
        Ok(report) => {
            println!("nothing lost, nothing twice, nothing stuck: {report}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

//! The test of locks for as long as wanted: `cargo run -p agentflow-tests --bin locks -- --kills 1000`.

use std::path::PathBuf;
use std::process::ExitCode;

use agentflow_schema::testing::TestDatabase;
use agentflow_tests::harness::{Failure, Random};
use agentflow_tests::locking::{Orders, Plan, be_a_client, run};
use clap::{Parser, ValueEnum};

/// Kills clients and the master while they lock, and looks for an order that explains every answer.
#[derive(Parser)]
#[command(name = "locks")]
struct Flags {
    /// Operations, at least
    #[arg(long, default_value_t = 10_000)]
    operations: usize,
    /// Blows, at least
    #[arg(long, default_value_t = 100)]
    kills: usize,
    /// Decides what is asked, who is hit and when [default: another one each time]
    #[arg(long)]
    seed: Option<u64>,
    /// Where the master keeps its state
    #[arg(long, value_enum, default_value_t = Database::Sqlite)]
    database: Database,
    /// Become the client of that number
    #[arg(long, hide = true, requires = "master", requires = "directory")]
    client: Option<u64>,
    #[arg(long, hide = true)]
    master: Option<String>,
    #[arg(long, hide = true)]
    directory: Option<PathBuf>,
    #[arg(long, hide = true, default_value_t = 0)]
    first_repo: usize,
}

#[derive(Clone, Copy, ValueEnum)]
enum Database {
    Sqlite,
    Postgres,
}

fn main() -> ExitCode {
    match obey(Flags::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn obey(flags: Flags) -> Result<ExitCode, Failure> {
    let seed = flags.seed.unwrap_or_else(Random::fresh_seed);
    if let (Some(number), Some(master), Some(directory)) = (flags.client, flags.master, flags.directory) {
        be_a_client(Orders { number, master, directory, seed, first_repo: flags.first_repo })?;
        return Ok(ExitCode::SUCCESS);
    }
    let database = match flags.database {
        Database::Sqlite => TestDatabase::sqlite(),
        Database::Postgres => match TestDatabase::postgres() {
            Some(database) => database,
            None => return Ok(ExitCode::from(2)),
        },
    };
    let plan = Plan { seed, operations: flags.operations, kills: flags.kills };
    let report = run(database, plan, &std::env::current_exe()?)?;
    println!("one order explains every answer, and no lock is left: {report}");
    Ok(ExitCode::SUCCESS)
}

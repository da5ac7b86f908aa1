//! The benchmark: `cargo run --release -p agentflow-tests --bin bench -- [--only NAME] [--json]`.

use std::process::ExitCode;

use agentflow_tests::bench::{Database, Figure, MEASURES, Scale, json, table};
use agentflow_tests::harness::{Failure, profile};
use clap::builder::PossibleValuesParser;
use clap::{Parser, ValueEnum};

/// Measures the real programs; each ratio is taken in one run.
#[derive(Parser)]
#[command(name = "bench")]
struct Flags {
    /// Only this measure; may be repeated
    #[arg(long, value_name = "NAME", value_parser = PossibleValuesParser::new(MEASURES.iter().map(|(name, _)| *name)))]
    only: Vec<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Tiny numbers, to see that everything works
    #[arg(long, hide = true)]
    quick: bool,
    /// Where the master keeps its state
    #[arg(long, value_enum, default_value_t = Place::Sqlite)]
    database: Place,
}

#[derive(Clone, Copy, ValueEnum)]
enum Place {
    Sqlite,
    Postgres,
}

fn main() -> ExitCode {
    let flags = Flags::parse();
    match run(&flags) {
        Ok(figures) => {
            println!("{}", if flags.json { json(&figures) } else { table(&figures) });
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(flags: &Flags) -> Result<Vec<Figure>, Failure> {
    let (database, name) = match flags.database {
        Place::Sqlite => (Database::Sqlite, "sqlite"),
        Place::Postgres => (Database::Postgres, "postgres"),
    };
    let scale = if flags.quick { Scale::QUICK } else { Scale::FULL };
    if profile() != "release" && !flags.quick {
        eprintln!("these programs are not built with --release: the figures say little");
    }
    let mut figures = Vec::new();
    for (measure, make) in MEASURES {
        if !flags.only.is_empty() && !flags.only.iter().any(|only| only == measure) {
            continue;
        }
        eprintln!("measuring {measure}");
        for mut figure in make(database, scale).map_err(|error| format!("{measure}: {error}"))? {
            figure.durability = database.durability();
            figure.command = format!(
                "cargo run --release -p agentflow-tests --bin bench -- --only {measure} --database {name}"
            );
            figures.push(figure);
        }
    }
    Ok(figures)
}

//! `sim`: many stories, or one again.

use std::process::ExitCode;
use std::time::Instant;

use agentflow_tests::sim::{Sabotage, Summary, run};
use clap::{Parser, ValueEnum};

/// Runs the kernel through seeded stories of faults and checks what must always hold.
#[derive(Parser)]
#[command(name = "sim")]
struct Arguments {
    /// How many stories; 100, or one if a seed is given.
    #[arg(long)]
    seeds: Option<u64>,
    /// The first of them.
    #[arg(long)]
    seed: Option<u64>,
    /// Happenings with faults in each; as many as it takes to come to rest follow.
    #[arg(long, default_value_t = 2_000)]
    steps: u64,
    /// A bug put in on purpose, to see it found.
    #[arg(long, value_enum, default_value_t = Bug::None)]
    sabotage: Bug,
    /// Print the report as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Bug {
    None,
    StaleReports,
    EarlyEffects,
    ForgetBatch,
    DropEdge,
    LoseCheckpoint,
    OldCheckpoint,
}

impl From<Bug> for Sabotage {
    fn from(bug: Bug) -> Self {
        match bug {
            Bug::None => Self::None,
            Bug::StaleReports => Self::StaleReports,
            Bug::EarlyEffects => Self::EarlyEffects,
            Bug::ForgetBatch => Self::ForgetBatch,
            Bug::DropEdge => Self::DropEdge,
            Bug::LoseCheckpoint => Self::LoseCheckpoint,
            Bug::OldCheckpoint => Self::OldCheckpoint,
        }
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let first = arguments.seed.unwrap_or(1);
    let count = arguments.seeds.unwrap_or(if arguments.seed.is_some() { 1 } else { 100 });
    let seeds = first..first.saturating_add(count);
    let began = Instant::now();
    let mut total = Summary::default();
    let mut told = 0u64;
    let mut failure = None;
    for seed in seeds {
        match run(seed, arguments.steps, arguments.sabotage.into()) {
            Ok(summary) => {
                told += 1;
                total.happenings += summary.happenings;
                total.kernel_steps += summary.kernel_steps;
                total.tasks += summary.tasks;
                total.answers += summary.answers;
                total.masters += summary.masters;
            }
            Err(found) => {
                failure = Some(found);
                break;
            }
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    let rate = total.happenings as f64 / seconds;
    if arguments.json {
        let report = serde_json::json!({
            "seeds": told,
            "steps": total.happenings,
            "kernel_steps": total.kernel_steps,
            "tasks": total.tasks,
            "answers": total.answers,
            "masters": total.masters,
            "seconds": seconds,
            "steps_per_second": rate,
            "failure": failure.as_ref().map(|failure| serde_json::json!({
                "seed": failure.seed, "what": failure.what, "trace": failure.trace,
            })),
        });
        println!("{report}");
    } else {
        println!(
            "{told} seeds held: {} steps, {} of the kernel, {} tasks, {} answers, {} masters; {seconds:.1} s, {rate:.0} steps/s",
            total.happenings, total.kernel_steps, total.tasks, total.answers, total.masters
        );
    }
    match failure {
        None => ExitCode::SUCCESS,
        Some(failure) => {
            eprintln!("{failure}");
            ExitCode::FAILURE
        }
    }
}

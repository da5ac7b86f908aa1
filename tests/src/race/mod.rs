//! The race: two agents and a person change the same files at the same time, and each of them tries to stray
//! at every layer that is there to keep it from doing so.
//!
//! ```text
//! agent ──► task with locks ──► worktree of its own ──┐  hook of agents, hooks of git, the worker
//! agent ──► task with locks ──► worktree of its own ──┼──► push ──► guard ──► main of the origin
//! person ─► agentflow lock … -- sh ──► his own clone ─┘  hooks of git                  │
//!     │                                                                                │
//!     └──► ledger: what was granted, tried, refused, acknowledged ────► audit ◄────────┘
//! ```
//!
//! Owns: the stage with its repositories and programs, what the contenders do, their ledger, the comparison.
//! Must not know: how the product decides; the audit believes the ledger and git.
//!
//! Invariants: what is decided by chance comes from the seed only, and every contender tries every kind of
//! stray at least once; what the machine makes of it is as it is. Everything that strays is called `STRAY`,
//! everything that may be is called `LEGIT`, and no two of them have the same name. A server has an
//! environment of its own: whoever pushes has no say in it.

mod audit;
mod calls;
mod contenders;
mod history;
mod ledger;
mod plan;
mod report;
mod shell;
mod stage;

use std::path::Path;
use std::time::Duration;

use agentflow_schema::testing::TestDatabase;

use crate::harness::{Failure, pids_with_environment, wait_until};
use contenders::Contender;
use ledger::Ledger;
use plan::{CONTENDERS, rounds};
pub use report::Report;
use stage::Stage;

/// How long what has ended may take to be gone.
const REST: Duration = Duration::from_secs(20);

/// Lets all of them race, and compares. `agent` is the program of the agents.
///
/// # Errors
/// When something that strays has come to `main` or was stopped elsewhere than it should have been, when
/// something that may be was lost, or when anything is left behind.
pub fn run(database: TestDatabase, seed: u64, agent: &Path) -> Result<Report, Failure> {
    println!("race: seed {seed}");
    let stage = Stage::new(database, seed, agent)?;
    let ledger = Ledger::default();
    let failures = std::thread::scope(|scope| {
        let race = |who| {
            let contender = Contender { who, stage: &stage, ledger: &ledger };
            scope.spawn(move || contender.race(rounds(seed, who)))
        };
        let racing = CONTENDERS.map(race);
        racing.map(|one| one.join().unwrap_or_else(|_| Err("a contender panicked".into())))
    });
    let record = ledger.record();
    let found = history::read(&stage.origin)?;
    let mut report = Report::of(&record, &found, audit::compare(&record, &found));
    report.violations.extend(failures.into_iter().filter_map(Result::err).map(|error| error.to_string()));
    report.waits = stage.waits()?;
    if report.waits == 0 {
        report.violations.push("nobody has waited for anybody: that was no race".to_owned());
    }
    if let Err(error) = wait_until("no lock is held", REST, || stage.held().is_ok_and(|held| held.is_empty()))
    {
        report.violations.push(format!("{error}: {:?}", stage.held()?));
    }
    let mark = stage.mark.clone();
    let left = || pids_with_environment(stage::MARK, &mark);
    if let Err(error) = wait_until("no process of the contenders is left", REST, || left().is_empty()) {
        report.violations.push(format!("{error}: {:?}", left()));
    }
    report.violations.extend(stage.close()?);
    report.judge(seed)
}

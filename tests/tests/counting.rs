//! A shell script that counts to 1,000 and saves each step, killed again and again: with its worker,
//! with its master, with both. It finishes, and no step that was acknowledged is repeated.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use agentflow_core::status::Status;
use agentflow_schema::testing::TestDatabase;
use agentflow_tests::harness::{Failure, Process, Random, Scene, WorkerOptions, binaries, wait_until};
use serde_json::json;

const PATIENCE: Duration = Duration::from_secs(60);

/// Steps, and how often something is killed meanwhile.
const STEPS: u64 = 1_000;
const KILLS: u64 = 50;

/// Says in the ledger what it is about to do, does it, and says that it was acknowledged.
const SCRIPT: &str = r#"
n=0
if [ -e "$AGENTFLOW_CHECKPOINT" ]; then n=$(cat "$AGENTFLOW_CHECKPOINT"); fi
while [ "$n" -lt "$STEPS" ]; do
    n=$((n + 1))
    echo "begin $n" >> "$LEDGER"
    printf '%s' "$n" | "$PROGRAM" checkpoint save step --data - > /dev/null || exit 1
    echo "ack $n" >> "$LEDGER"
done
"#;

/// What is killed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Victim {
    Worker,
    Master,
    Both,
}

/// What the script has said.
struct Ledger(PathBuf);

impl Ledger {
    fn text(&self) -> String {
        std::fs::read_to_string(&self.0).unwrap_or_default()
    }

    fn acknowledged(&self) -> u64 {
        self.text().lines().filter(|line| line.starts_with("ack ")).count() as u64
    }

    /// Every step was begun, and none after it was acknowledged. A kill may come between a step's end and
    /// the line that says so: then it is not known here, but must not be repeated often either.
    fn check(&self) {
        let (mut begun, mut done) = (BTreeSet::new(), BTreeSet::new());
        for (number, line) in (1..).zip(self.text().lines()) {
            let (word, step) = line.split_once(' ').unwrap_or_else(|| panic!("line {number}: {line:?}"));
            let step: u64 = step.parse().expect("a step");
            assert!(!done.contains(&step), "line {number}: {line}, and it was acknowledged before");
            if word == "ack" {
                done.insert(step)
            } else {
                begun.insert(step)
            };
        }
        assert_eq!(begun, (1..=STEPS).collect(), "every step was begun");
        let unknown = STEPS - done.len() as u64;
        assert!(unknown <= KILLS, "{unknown} steps were not acknowledged");
    }
}

fn start_worker(scene: &Scene, turn: u64) -> Result<Process, Failure> {
    let options = WorkerOptions { slots: Some(1), prefetch: Some(0), ..WorkerOptions::default() };
    scene.start_worker(if turn.is_multiple_of(2) { "even" } else { "odd" }, &options)
}

fn count(database: TestDatabase, victim: Victim) -> Result<(), Failure> {
    let seed = Random::fresh_seed();
    println!("seed {seed}");
    let mut random = Random::new(seed);
    let scene = Scene::new(database)?;
    let mut master = scene.start_master()?;
    let mut worker = start_worker(&scene, 0)?;
    let ledger = Ledger(scene.path("ledger"));
    let program = &binaries()?.command;
    let task = json!({
        "command": SCRIPT,
        "env": {"STEPS": STEPS.to_string(), "LEDGER": ledger.0, "PROGRAM": program},
        "retry": {"max_lost": 1_000},
    });
    let id = scene.client().submit(&[task])?[0];
    for kill in 0..KILLS {
        let at = (kill * STEPS + random.between(0, STEPS - 1)) / KILLS;
        let what = format!("step {at} of {STEPS}, after {kill} kills");
        wait_until(&what, PATIENCE, || ledger.acknowledged() + kill >= at)
            .map_err(|error| format!("{error}; {:?}; {}", scene.client().task(id), ledger.text()))?;
        if victim != Victim::Master {
            worker.kill();
        }
        if victim != Victim::Worker {
            master.kill();
            master = scene.start_master()?;
        }
        if victim != Victim::Master {
            worker = start_worker(&scene, kill + 1)?;
        }
    }
    let task = scene.client().settled(id, PATIENCE)?;
    assert_eq!(task.status, Status::Completed, "{task:?}");
    ledger.check();
    if victim != Victim::Master {
        // A kill may come between two attempts; most do not.
        assert!(u64::from(task.attempt) > KILLS / 2, "{} attempts", task.attempt);
    }
    Ok(())
}

#[test]
fn a_script_that_loses_its_worker_fifty_times_repeats_nothing() -> Result<(), Failure> {
    count(TestDatabase::sqlite(), Victim::Worker)
}

#[test]
fn a_script_that_loses_its_master_fifty_times_repeats_nothing() -> Result<(), Failure> {
    count(TestDatabase::sqlite(), Victim::Master)
}

#[test]
fn a_script_that_loses_both_fifty_times_repeats_nothing() -> Result<(), Failure> {
    count(TestDatabase::sqlite(), Victim::Both)
}

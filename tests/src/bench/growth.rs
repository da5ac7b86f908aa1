//! What a task costs, submission to recorded outcome, before a short queue and before a long one.
//!
//! The queue is filled without a worker; then tasks are submitted at its end and finished at its head
//! in turn, so that its length stays the same.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::figure::{Figure, median, range};
use super::stage::{Stage, WORKER};
use super::{Database, PATIENCE, Scale};
use crate::harness::{Failure, WorkerOptions, cpu_time};

/// Batches at each length.
const ROUNDS: usize = 5;

const GROUPS: usize = 10;

pub(super) fn one_group(database: Database, scale: Scale) -> Result<Vec<Figure>, Failure> {
    let tasks = vec![json!({ "kind": "noop" }); scale.batch];
    grow(database, scale, &tasks, "cost of a task, long queue", &["default".to_owned()])
}

pub(super) fn mixed(database: Database, scale: Scale) -> Result<Vec<Figure>, Failure> {
    let groups: Vec<String> = (0..GROUPS).map(|group| format!("g{group}")).collect();
    let task = |at: usize| json!({ "kind": "noop", "group": groups[at % GROUPS], "priority": at * 7 % 101 });
    let tasks: Vec<Value> = (0..scale.batch).map(task).collect();
    grow(database, scale, &tasks, "the same, 10 groups and 101 priorities", &groups)
}

fn grow(
    database: Database,
    scale: Scale,
    tasks: &[Value],
    name: &str,
    groups: &[String],
) -> Result<Vec<Figure>, Failure> {
    let short = cost(database, scale.few, tasks, groups)?;
    let long = cost(database, scale.many, tasks, groups)?;
    let (short_us, long_us) = (median(&short.wall_us), median(&long.wall_us));
    let ratio = long_us / short_us;
    Ok(vec![
        Figure::new(name, long_us, "µs")
            .ratio(ratio, "its cost before a short queue")
            .target("≤ 1.3", ratio <= 1.3)
            .note(format!(
                "{} queued: {short_us:.1} µs ({}), processor of the master {:.1} µs; {} queued: {long_us:.1} µs ({}), processor of the master {:.1} µs",
                scale.few,
                range(&short.wall_us),
                median(&short.cpu_us),
                scale.many,
                range(&long.wall_us),
                median(&long.cpu_us),
            )),
    ])
}

struct Cost {
    wall_us: Vec<f64>,
    cpu_us: Vec<f64>,
}

fn cost(database: Database, length: usize, tasks: &[Value], groups: &[String]) -> Result<Cost, Failure> {
    let mut stage = Stage::open(database)?;
    stage.submit_mixed(tasks, length / tasks.len())?;
    let options = WorkerOptions { groups: groups.to_vec(), ..WorkerOptions::default() };
    stage.worker = Some(stage.scene.start_worker(WORKER, &options)?);
    stage.client().wait_online(WORKER, PATIENCE)?;
    let count = tasks.len() as f64;
    let micros = |duration: Duration| duration.as_secs_f64() * 1e6 / count;
    let mut cost = Cost { wall_us: vec![], cpu_us: vec![] };
    // One more than counted: the first one warms up.
    for round in 0..=ROUNDS {
        let (completed, cpu, begun) = (stage.completed()?, cpu_time(stage.master.pid())?, Instant::now());
        stage.submit_mixed(tasks, 1)?;
        stage.wait_completed(completed + tasks.len() as u64)?;
        if round > 0 {
            cost.wall_us.push(micros(begun.elapsed()));
            cost.cpu_us.push(micros(cpu_time(stage.master.pid())?.saturating_sub(cpu)));
        }
    }
    Ok(cost)
}

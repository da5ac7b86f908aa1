//! One task at a time: from sending the submission to the worker's begin.
//!
//! The begin is the worker's own `started_at` of a `noop`, which it takes when it begins the task; the
//! sending is the client's wall clock just before the request's first byte. Both read the same clock of
//! the same machine in microseconds, so that their difference is a duration. Reading the task or its
//! events comes after, and does not count.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use agentflow_protocol::api::TaskView;
use serde_json::json;

use super::figure::{Figure, percentile};
use super::line::{Line, request};
use super::stage::{Stage, time_ms};
use super::{Database, Scale};
use crate::harness::{Failure, WorkerOptions, pause};

/// What must not be in the way of the next task is done by then.
const BREATH: Duration = Duration::from_millis(5);

pub(super) fn measure(database: Database, scale: Scale) -> Result<Vec<Figure>, Failure> {
    let mut stage = Stage::with_worker(database, &WorkerOptions::default())?;
    let mut line = Line::open(stage.scene.port())?;
    let submit = request("POST", "/api/v2/tasks", Some(&json!({ "kind": "noop" })));
    let (mut begins, mut answers, mut units) = (vec![], vec![], vec![]);
    for round in 0..scale.idle_tasks + scale.idle_tasks / 10 {
        pause(BREATH);
        let unit = time_ms(|| Ok(stage.unit.commit()?))?;
        pause(BREATH);
        let (begun, answered) = one_task(&mut line, &submit)?;
        // The first ones warm up.
        if round >= scale.idle_tasks / 10 {
            begins.push(begun);
            answers.push(answered);
            units.push(unit);
        }
    }
    let (p50, p99) = (percentile(&begins, 50.0), percentile(&begins, 99.0));
    let unit = percentile(&units, 50.0);
    let note = format!(
        "one-row FULL commit: p50 {unit:.2} ms, p99 {:.2} ms, taken in turn with the tasks; the submission is answered after p50 {:.2} ms",
        percentile(&units, 99.0),
        percentile(&answers, 50.0),
    );
    Ok(vec![
        Figure::new("an idle task, sent to begun, p50", p50, "ms")
            .ratio(p50 / unit, "one-row FULL commit")
            .target(format!("≤ commit + 1 ms = {:.2} ms", unit + 1.0), p50 <= unit + 1.0)
            .note(note),
        Figure::new("an idle task, sent to begun, p99", p99, "ms")
            .ratio(p99 / percentile(&units, 99.0), "the p99 of one-row FULL commits"),
    ])
}

/// A task from sending it to its begin, and to the answer, in milliseconds.
pub(super) fn one_task(line: &mut Line, submit: &[u8]) -> Result<(f64, f64), Failure> {
    let sent_us = wall_us();
    let task: TaskView = line.ask_json(submit, 201)?;
    let answered_us = wall_us();
    let path = format!("/api/v2/tasks/{}?wait_ms=10000", task.id);
    let task: TaskView = line.ask_json(&request("GET", &path, None), 200)?;
    let begun = task.started_at.ok_or("a settled task that never began")?;
    Ok(((begun.0.0 - sent_us) as f64 / 1e3, (answered_us - sent_us) as f64 / 1e3))
}

fn wall_us() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

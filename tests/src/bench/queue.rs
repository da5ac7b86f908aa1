//! A long queue: what it costs in memory, and how soon work goes on after a restart.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use agentflow_core::event::Happening;
use agentflow_protocol::api::Events;
use serde_json::json;

use super::figure::{Figure, median, range};
use super::stage::{Stage, WORKER};
use super::{Database, PATIENCE, Scale};
use crate::harness::{Failure, WorkerOptions, pause};

/// Lets the allocator and the last commits come to rest.
const SETTLE: Duration = Duration::from_secs(1);

/// Resident bytes of the master per queued task.
pub(super) fn memory(database: Database, scale: Scale) -> Result<Vec<Figure>, Failure> {
    let stage = Stage::open(database)?;
    let task = json!({ "kind": "noop", "group": "nobody" });
    pause(SETTLE);
    let before = stage.master.resident()?;
    let batches = scale.many / scale.batch;
    let load = stage.submit(&task, scale.batch, batches)?;
    pause(SETTLE);
    let after = stage.master.resident()?;
    let count = (batches * scale.batch) as f64;
    let each = after.saturating_sub(before) as f64 / count;
    Ok(vec![
        Figure::new(&format!("{count} queued tasks, memory of each"), each, "bytes")
            .target("≤ 300 bytes", each <= 300.0)
            .note(format!(
                "resident {} MB before, {} MB after, everything that the master holds counted; all have the same specification, which is kept once; accepted at {:.0} tasks/s",
                before >> 20,
                after >> 20,
                count / load.elapsed.as_secs_f64()
            )),
    ])
}

/// From starting a master that was killed to its first assignment.
pub(super) fn restart(database: Database, scale: Scale) -> Result<Vec<Figure>, Failure> {
    let mut stage = Stage::open(database)?;
    stage.submit(&json!({ "kind": "noop" }), scale.batch, scale.restart / scale.batch)?;
    let (mut listens, mut dispatches) = (vec![], vec![]);
    for _ in 0..scale.rounds {
        let head = stage.client().stats()?.head;
        stage.master.kill();
        // It finds no master and tries again, as after any restart.
        let worker = stage.scene.start_worker(WORKER, &WorkerOptions::default())?;
        let (begun, begun_us) = (Instant::now(), wall_us());
        stage.master = stage.scene.start_master()?;
        listens.push(begun.elapsed().as_secs_f64());
        dispatches.push((first_assignment_us(&stage, head)? - begun_us) as f64 / 1e6);
        drop(worker);
    }
    let dispatch = median(&dispatches);
    Ok(vec![
        Figure::new(&format!("first dispatch after a restart with {} queued", scale.restart), dispatch, "s")
            .target("≤ 2 s", dispatch <= 2.0)
            .note(format!(
                "from the start of the process; killed with -9 before; it listens after {:.2} s; the worker finds it with its own back-off; rounds {}",
                median(&listens),
                range(&dispatches)
            )),
    ])
}

/// When the first event of an assignment after `head` was decided.
fn first_assignment_us(stage: &Stage, head: u64) -> Result<i64, Failure> {
    let mut after = head;
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        let path = format!("/api/v2/events?after={after}&limit=1000&wait_ms=1000");
        let page: Events = stage.client().read(&path)?;
        let assigned = |happening: &Happening| matches!(happening, Happening::TaskAssigned { .. });
        if let Some(event) = page.events.iter().find(|event| assigned(&event.happening)) {
            return Ok(event.at.0.0);
        }
        after = page.events.last().map_or(after, |event| event.seq.0);
    }
    Err("nothing was assigned".into())
}

fn wall_us() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

//! Programs that have nothing to do: how soon they are there, and what they hold.

use std::time::{Duration, Instant};

use super::figure::{Figure, median, range};
use super::stage::{Stage, WORKER};
use super::{Database, PATIENCE, Scale};
use crate::harness::{Failure, WorkerOptions, pause, resident_children};

/// Several heartbeats.
const REST: Duration = Duration::from_secs(5);

const MB: f64 = 1_000_000.0;

pub(super) fn measure(database: Database, scale: Scale) -> Result<Vec<Figure>, Failure> {
    let mut stage = Stage::open(database)?;
    let (mut masters, mut workers) = (vec![], vec![]);
    for _ in 0..scale.starts {
        stage.master.kill();
        stage.master = stage.scene.start_master()?;
        masters.push(stage.master.started.elapsed().as_secs_f64() * 1e3);
    }
    for at in 0..scale.starts {
        // Another worker each time, so that none was known before.
        let id = format!("{WORKER}-{at}");
        let begun = Instant::now();
        let worker = stage.scene.start_worker(&id, &WorkerOptions::default())?;
        stage.client().wait_online(&id, PATIENCE)?;
        workers.push(begun.elapsed().as_secs_f64() * 1e3);
        stage.worker = Some(worker);
    }
    pause(if scale.starts > 1 { REST } else { Duration::ZERO });
    let worker = stage.worker.as_ref().ok_or("no worker was started")?;
    let master_mb = stage.master.resident()? as f64 / MB;
    let worker_mb = worker.resident()? as f64 / MB;
    let warden_mb = resident_children(worker.pid()) as f64 / MB;
    let (master_ms, worker_ms) = (median(&masters), median(&workers));
    Ok(vec![
        Figure::new("idle master", master_mb, "MB resident").target("≤ 40 MB", master_mb <= 40.0),
        Figure::new("idle worker", worker_mb, "MB resident").target("≤ 15 MB", worker_mb <= 15.0).note(
            format!("its warden, a process of its own, holds {warden_mb:.1} MB more, most of it shared"),
        ),
        Figure::new("start of the master, until it listens", master_ms, "ms")
            .target("≤ 100 ms", master_ms <= 100.0)
            .note(format!("{} on a database that exists", range(&masters))),
        Figure::new("start of a worker, until it is online", worker_ms, "ms")
            .target("≤ 100 ms", worker_ms <= 100.0)
            .note(format!("{} as the master's list shows it, looked at every 5 ms", range(&workers))),
    ])
}

//! `exec` of `/bin/true`, against spawning and awaiting it with piped output without any AgentFlow.

use std::process::{Command, Stdio};
use std::time::Instant;

use serde_json::json;

use super::figure::{Figure, median, range};
use super::stage::Stage;
use super::{Database, Scale};
use crate::harness::{Failure, WorkerOptions};

const PROGRAM: &str = "/bin/true";

pub(super) fn measure(database: Database, scale: Scale) -> Result<Vec<Figure>, Failure> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let slots = u32::try_from(threads).ok();
    let stage = Stage::with_worker(database, &WorkerOptions { slots, ..WorkerOptions::default() })?;
    let task = json!({ "kind": "exec", "argv": [PROGRAM] });
    stage.submit(&task, scale.spawns / 10, 1)?;
    stage.wait_idle()?;
    let (mut rates, mut raws) = (vec![], vec![raw(threads, scale.spawns)?]);
    for _ in 0..scale.rounds {
        let before = stage.completed()?;
        let begun = Instant::now();
        stage.submit(&task, scale.spawns, 1)?;
        stage.wait_completed(before + scale.spawns as u64)?;
        rates.push(scale.spawns as f64 / begun.elapsed().as_secs_f64());
        raws.push(raw(threads, scale.spawns)?);
    }
    // Each round against the raw rounds around it.
    let ratios: Vec<f64> =
        rates.iter().enumerate().map(|(at, rate)| rate * 2.0 / (raws[at] + raws[at + 1])).collect();
    let ratio = median(&ratios);
    Ok(vec![
        Figure::new("exec of /bin/true", median(&rates), "tasks/s")
            .ratio(ratio, "raw spawn-and-wait, output piped")
            .target("≥ 0.85 of raw", ratio >= 0.85)
            .note(format!(
                "{threads} slots, {threads} raw threads; rounds {}, raw {} per second in turn",
                range(&rates),
                range(&raws)
            )),
    ])
}

/// Processes per second.
fn raw(threads: usize, total: usize) -> Result<f64, Failure> {
    let each = total.div_ceil(threads);
    let begun = Instant::now();
    std::thread::scope(|scope| {
        let spawn = || {
            for _ in 0..each {
                let mut command = Command::new(PROGRAM);
                command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
                command.spawn()?.wait_with_output()?;
            }
            Ok::<_, std::io::Error>(())
        };
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(spawn)).collect();
        threads.into_iter().try_for_each(|thread| {
            thread.join().map_err(|_| Failure::from("a thread panicked"))?.map_err(Failure::from)
        })
    })?;
    Ok((each * threads) as f64 / begun.elapsed().as_secs_f64())
}

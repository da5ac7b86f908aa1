//! From the end of a worker until its task goes on from the checkpoint: each of the three ways in which
//! the master may learn of that end.

use std::time::{Duration, Instant};

use agentflow_core::ids::TaskId;
use agentflow_core::limits::LEASE_MARGIN_MS;
use rustix::process::{Pid, Signal, kill_process};

use super::figure::{Figure, percentile, range};
use super::saves::{Inside, SMALL};
use super::stage::{Stage, WORKER};
use super::{Database, PATIENCE, Scale};
use crate::harness::{Failure, WorkerOptions, children};

/// Short, so that many ends of it can be waited for.
const LEASE: Duration = Duration::from_secs(2);

/// As with the usual lease of ten seconds, a fifth of it.
const HEARTBEAT: Duration = Duration::from_millis(400);

/// How the master learns of it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum News {
    /// The warden has killed what was left, and says so.
    Warden,
    /// Warden and worker are gone; the worker is started again.
    NextBoot,
    /// The worker hangs, and nobody says anything.
    Silence,
}

/// All three.
pub(super) fn measure(database: Database, scale: Scale) -> Result<Vec<Figure>, Failure> {
    let second = |news: News| match news {
        News::Warden => ("kill -9 of a worker → another one has begun from the checkpoint, p50", 1_000.0),
        News::NextBoot => {
            ("kill -9 of a worker and its warden, start of the worker → the same, p50", 1_000.0)
        }
        News::Silence => ("a worker hangs → the same, p50", LEASE.as_secs_f64() * 1e3 + 1_000.0),
    };
    let mut figures = Vec::new();
    for news in [News::Warden, News::NextBoot, News::Silence] {
        let times = (0..scale.starts).map(|_| once(database, news)).collect::<Result<Vec<f64>, _>>()?;
        let ((what, most), p50) = (second(news), percentile(&times, 50.0));
        let lease = match news {
            News::Silence => {
                format!("; a lease of {} ms and a margin of {LEASE_MARGIN_MS} ms", LEASE.as_millis())
            }
            _ => String::new(),
        };
        let figure = Figure::new(what, p50, "ms").target(format!("≤ {most:.0} ms"), p50 <= most);
        figures.push(figure.note(format!("{} ms{lease}", range(&times))));
    }
    Ok(figures)
}

fn once(database: Database, news: News) -> Result<f64, Failure> {
    let options = WorkerOptions { slots: Some(1), ..WorkerOptions::default() };
    let mut stage = Stage::with_lease(database, LEASE, HEARTBEAT, &options)?;
    let place = stage.scene.path("inside");
    std::fs::create_dir(&place)?;
    let task = stage.client().submit(&[Inside::task(&place)])?[0];
    let mut inside = Inside::of(&place, task, 1)?;
    let line = inside.line(SMALL);
    inside.save(&line)?;
    let _other = match news {
        News::NextBoot => None,
        News::Warden | News::Silence => {
            let other = stage.scene.start_worker("other", &options)?;
            stage.client().wait_online("other", PATIENCE)?;
            Some(other)
        }
    };
    let worker = stage.worker.as_mut().ok_or("no worker")?;
    let begin = match news {
        News::Warden => {
            let begin = Instant::now();
            worker.kill();
            begin
        }
        News::NextBoot => {
            // The warden first: it would speak. What the task began is left alone.
            for pid in children(worker.pid()).into_iter().filter(|pid| !is_task(*pid)) {
                let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or("no process id")?;
                kill_process(pid, Signal::KILL)?;
            }
            worker.kill();
            let begin = Instant::now();
            stage.worker = Some(stage.scene.start_worker(WORKER, &options)?);
            begin
        }
        News::Silence => {
            let begin = Instant::now();
            worker.signal(Signal::STOP)?;
            begin
        }
    };
    Inside::of(&place, task, 2)?;
    let took = begin.elapsed().as_secs_f64() * 1e3;
    let view = stage.client().task(task)?;
    if (view.worker.as_deref() == Some(WORKER)) != (news == News::NextBoot) {
        return Err(format!("task {} is at {:?}", TaskId(task), view.worker).into());
    }
    if let (News::Silence, Some(worker)) = (news, &stage.worker) {
        worker.signal(Signal::CONT)?;
    }
    Ok(took)
}

/// Whether a process is one that a task has begun.
fn is_task(pid: u32) -> bool {
    let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    environment.split(|byte| *byte == 0).any(|entry| entry.starts_with(b"AGENTFLOW_TASK_ID="))
}

//! Counts.

use actix_web::{HttpRequest, web};
use agentflow_core::kernel::{self, Answer, Request};
use agentflow_protocol::api::{LockCounts, Stats, TaskCounts, WorkerCounts};

use super::answer::{Answered, Failure, ok};
use super::{read, tasks};
use crate::state::Master;

/// Tasks and workers by status. Counts are kept, never scanned.
#[utoipa::path(get, path = "/api/v2/stats", tag = "service", responses((status = 200, body = Stats)))]
pub(crate) async fn stats(master: web::Data<Master>, request: HttpRequest) -> Answered {
    read::no_query(&request)?;
    let counts = counts(&master).await?;
    let head = master.read(|readers| readers.head()).await?.head_seq;
    let office = &master.handles.office;
    let (tasks, workers) = views(&counts);
    ok(&Stats {
        tasks,
        workers,
        locks: LockCounts { held: counts.locks_held, waiting: counts.locks_waiting },
        uptime_s: office.started.elapsed().as_secs_f64(),
        epoch: office.epoch.0,
        head: head.0,
    })
}

/// What the kernel counts.
pub(crate) async fn counts(master: &Master) -> Result<kernel::Stats, Failure> {
    match master.ask(Request::Stats).await? {
        Answer::Stats(stats) => Ok(*stats),
        other => Err(tasks::unexpected(&other)),
    }
}

/// The same for clients.
pub(crate) fn views(stats: &kernel::Stats) -> (TaskCounts, WorkerCounts) {
    let tasks = TaskCounts {
        blocked: stats.blocked,
        pending: stats.pending,
        running: stats.running,
        completed: stats.settled.completed,
        failed: stats.settled.failed,
        cancelled: stats.settled.cancelled,
        skipped: stats.settled.skipped,
    };
    let workers = WorkerCounts {
        online: stats.online,
        offline: stats.offline,
        draining: stats.draining,
        slots: stats.slots,
        slots_used: stats.slots_used,
    };
    (tasks, workers)
}

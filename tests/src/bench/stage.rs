//! What every measure needs: a master, perhaps a worker, and the unit of latencies.

use std::time::{Duration, Instant};

use agentflow_schema::testing::OneRowCommits;
use serde_json::{Value, json};

use super::figure::median;
use super::line::request;
use super::{Database, PATIENCE, load};
use crate::harness::{Client, Failure, Process, Scene, WorkerOptions, pause, wait_until};

/// How often the counts are looked at while the end is awaited.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Connections that submit batches: one is read while the other is committed.
const BATCH_CONNECTIONS: usize = 2;

/// The name of the worker of every measure.
pub(super) const WORKER: &str = "bench";

/// A running master. Processes are dropped before the scene.
pub(super) struct Stage {
    pub(super) worker: Option<Process>,
    pub(super) master: Process,
    /// The unit of latencies, on the same disk.
    pub(super) unit: OneRowCommits,
    pub(super) scene: Scene,
}

impl Stage {
    /// A master on a new database.
    pub(super) fn open(database: Database) -> Result<Self, Failure> {
        Self::on(Scene::new(database.make()?)?)
    }

    fn on(scene: Scene) -> Result<Self, Failure> {
        let unit = OneRowCommits::create(&scene.path("unit.db"))?;
        let master = scene.start_master()?;
        Ok(Self { worker: None, master, unit, scene })
    }

    /// And a worker.
    pub(super) fn with_worker(database: Database, options: &WorkerOptions) -> Result<Self, Failure> {
        Self::open(database)?.and_worker(options)
    }

    /// The same, and a worker that is not heard for a while is given up sooner.
    pub(super) fn with_lease(
        database: Database,
        lease: Duration,
        heartbeat: Duration,
        options: &WorkerOptions,
    ) -> Result<Self, Failure> {
        Self::on(Scene::new(database.make()?)?.with_lease(lease, heartbeat))?.and_worker(options)
    }

    fn and_worker(self, options: &WorkerOptions) -> Result<Self, Failure> {
        let mut stage = self;
        stage.worker = Some(stage.scene.start_worker(WORKER, options)?);
        stage.client().wait_online(WORKER, PATIENCE)?;
        Ok(stage)
    }

    pub(super) fn client(&self) -> &Client {
        self.scene.client()
    }

    /// Submits that task so often, in batches of a size.
    pub(super) fn submit(&self, task: &Value, batch: usize, batches: usize) -> Result<load::Load, Failure> {
        self.submit_mixed(&vec![task.clone(); batch], batches)
    }

    /// Submits these tasks so often.
    pub(super) fn submit_mixed(&self, tasks: &[Value], batches: usize) -> Result<load::Load, Failure> {
        let request = request("POST", "/api/v2/tasks", Some(&json!({ "tasks": tasks })));
        load::send(self.scene.port(), &request, BATCH_CONNECTIONS, batches)
    }

    /// Tasks whose outcome is recorded.
    pub(super) fn completed(&self) -> Result<u64, Failure> {
        Ok(self.client().stats()?.tasks.completed)
    }

    /// Waits until so many outcomes are recorded.
    pub(super) fn wait_completed(&self, count: u64) -> Result<(), Failure> {
        let begun = Instant::now();
        loop {
            let completed = self.completed()?;
            if completed >= count {
                return Ok(());
            }
            if begun.elapsed() > PATIENCE {
                return Err(format!("{completed} of {count} tasks after {PATIENCE:?}").into());
            }
            pause(LOOK_EVERY);
        }
    }

    /// Waits until the master has nothing to do.
    pub(super) fn wait_idle(&self) -> Result<(), Failure> {
        wait_until("everything is settled", PATIENCE, || {
            self.client().stats().is_ok_and(|stats| stats.tasks.pending + stats.tasks.running == 0)
        })
    }

    /// The p50 of one-row commits, in milliseconds.
    pub(super) fn commit_p50_ms(&mut self, rounds: usize) -> Result<f64, Failure> {
        let times = (0..rounds).map(|_| time_ms(|| Ok(self.unit.commit()?)));
        Ok(median(&times.collect::<Result<Vec<_>, Failure>>()?))
    }
}

/// How long something takes, in milliseconds.
pub(super) fn time_ms(what: impl FnOnce() -> Result<(), Failure>) -> Result<f64, Failure> {
    let begun = Instant::now();
    what()?;
    Ok(begun.elapsed().as_secs_f64() * 1e3)
}

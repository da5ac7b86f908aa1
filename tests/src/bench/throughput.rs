//! Durable `noop` tasks through a worker, from the first submission to the last recorded outcome; and
//! what each of them writes.

use std::time::Instant;

use serde_json::json;

use super::figure::{Figure, median, percentile, range};
use super::line::request;
use super::stage::Stage;
use super::{Database, Scale, load};
use crate::harness::{Failure, WorkerOptions, cpu_time, written_bytes};

/// Rows, and events one by one although many of them are one row.
const ROWS: &str = "agentflow_rows_written_total";
const EVENTS: &str = "agentflow_events_total";
/// As the schema gathers them.
const EVENTS_PER_ROW: f64 = 256.0;
const COMMITS: &str = "agentflow_commits_total";

/// Connections of the load client.
const CONNECTIONS: usize = 64;

/// One-row commits around each round.
const UNITS: usize = 100;

/// A worker as it comes.
pub(super) fn ordinary(database: Database, scale: Scale) -> Result<Vec<Figure>, Failure> {
    batches(database, scale, &WorkerOptions::default(), "noop tasks, submitted in batches")
}

/// A worker that holds many tasks in advance.
pub(super) fn prefetching(database: Database, scale: Scale) -> Result<Vec<Figure>, Failure> {
    let options = WorkerOptions { prefetch: Some(1_024), ..WorkerOptions::default() };
    batches(database, scale, &options, "the same, worker with --prefetch 1024")
}

#[derive(Default)]
struct Rounds {
    rates: Vec<f64>,
    submitted: Vec<f64>,
    units: Vec<f64>,
    bytes: Vec<f64>,
    rows: Vec<f64>,
    events: Vec<f64>,
    commits: Vec<f64>,
    cpu_us: Vec<f64>,
}

fn batches(
    database: Database,
    scale: Scale,
    options: &WorkerOptions,
    name: &str,
) -> Result<Vec<Figure>, Failure> {
    let mut stage = Stage::with_worker(database, options)?;
    let noop = json!({ "kind": "noop" });
    stage.submit(&noop, scale.batch, 1)?;
    stage.wait_idle()?;
    let count = (scale.batch * scale.batches) as f64;
    let mut rounds = Rounds::default();
    for _ in 0..scale.rounds {
        rounds.units.push(stage.commit_p50_ms(UNITS)?);
        let before = (stage.completed()?, usage(&stage)?);
        let begun = Instant::now();
        let load = stage.submit(&noop, scale.batch, scale.batches)?;
        stage.wait_completed(before.0 + count as u64)?;
        rounds.rates.push(count / begun.elapsed().as_secs_f64());
        rounds.submitted.push(count / load.elapsed.as_secs_f64());
        let after = usage(&stage)?;
        rounds.bytes.push((after.bytes - before.1.bytes) / count);
        rounds.rows.push((after.rows - before.1.rows) / count);
        rounds.events.push((after.events - before.1.events) / count);
        rounds.commits.push((after.commits - before.1.commits) / count);
        rounds.cpu_us.push((after.cpu_us - before.1.cpu_us) / count);
    }
    Ok(figures(database, name, &rounds))
}

fn figures(database: Database, name: &str, rounds: &Rounds) -> Vec<Figure> {
    let rate = median(&rounds.rates);
    let goal = match database {
        Database::Sqlite => 20_000.0,
        Database::Postgres => 10_000.0,
    };
    let (bytes, rows) = (median(&rounds.bytes), median(&rounds.rows));
    let note = format!(
        "rounds {}; accepted at {:.0}/s; {:.1} µs of processor per task in master and worker; one commit per {:.0} tasks",
        range(&rounds.rates),
        median(&rounds.submitted),
        median(&rounds.cpu_us),
        1.0 / median(&rounds.commits).max(f64::MIN_POSITIVE),
    );
    let mut figures = vec![
        Figure::new(name, rate, "tasks/s")
            .ratio(rate * median(&rounds.units) / 1e3, "one-row FULL commits/s")
            .target(format!("≥ {goal:.0}/s"), rate >= goal)
            .note(note),
        Figure::new(&format!("{name}: rows per task"), rows, "rows").target("≤ 4", rows <= 4.0).note(
            format!(
                "and {:.1} events; many events are one row, counted with the row of the leadership",
                median(&rounds.events)
            ),
        ),
    ];
    // What PostgreSQL writes is the server's affair.
    if database == Database::Sqlite {
        figures.push(
            Figure::new(&format!("{name}: written per task"), bytes, "bytes")
                .target("≤ 2048", bytes <= 2_048.0)
                .note("write_bytes of /proc/PID/io of the master: whole pages of log and database as they become dirty"),
        );
    }
    figures
}

struct Usage {
    bytes: f64,
    rows: f64,
    events: f64,
    commits: f64,
    cpu_us: f64,
}

fn usage(stage: &Stage) -> Result<Usage, Failure> {
    let mut cpu = cpu_time(stage.master.pid())?;
    if let Some(worker) = &stage.worker {
        cpu += cpu_time(worker.pid())?;
    }
    let (client, events) = (stage.client(), stage.client().metric(EVENTS)?);
    let commits = client.metric(COMMITS)?;
    Ok(Usage {
        bytes: written_bytes(stage.master.pid())? as f64,
        // At most: each commit writes the row of the leadership and one of events, or more if they are many.
        rows: client.metric(ROWS)? - events + 2.0 * commits + events / EVENTS_PER_ROW,
        events,
        commits,
        cpu_us: cpu.as_secs_f64() * 1e6,
    })
}

/// One task per request, from many connections.
pub(super) fn singles(database: Database, scale: Scale) -> Result<Vec<Figure>, Failure> {
    let mut stage = Stage::with_worker(database, &WorkerOptions::default())?;
    let request = request("POST", "/api/v2/tasks", Some(&json!({ "kind": "noop" })));
    load::send(stage.scene.port(), &request, CONNECTIONS, scale.singles / 10)?;
    stage.wait_idle()?;
    let (mut rates, mut accepted, mut units, mut p50, mut p99) = (vec![], vec![], vec![], vec![], vec![]);
    for _ in 0..scale.rounds {
        units.push(stage.commit_p50_ms(UNITS)?);
        let before = stage.completed()?;
        let begun = Instant::now();
        let load = load::send(stage.scene.port(), &request, CONNECTIONS, scale.singles)?;
        stage.wait_completed(before + scale.singles as u64)?;
        rates.push(scale.singles as f64 / begun.elapsed().as_secs_f64());
        accepted.push(scale.singles as f64 / load.elapsed.as_secs_f64());
        p50.push(percentile(&load.latencies_ms, 50.0));
        p99.push(percentile(&load.latencies_ms, 99.0));
    }
    let rate = median(&rates);
    Ok(vec![
        Figure::new("noop tasks, submitted one by one from 64 connections", rate, "tasks/s")
            .ratio(rate * median(&units) / 1e3, "one-row FULL commits/s")
            .target("≥ 8000/s", rate >= 8_000.0)
            .note(format!(
                "rounds {}; accepted at {:.0}/s, each answered after p50 {:.1} ms, p99 {:.1} ms; the client is one thread on the same cores",
                range(&rates),
                median(&accepted),
                median(&p50),
                median(&p99),
            )),
    ])
}

//! Runs of workflows: from sending the file to the answer that the run has ended.

use std::process::{Command, Stdio};
use std::time::Instant;

use agentflow_core::run::RunStatus;
use agentflow_core::status::Status;
use agentflow_protocol::api::TaskPage;
use agentflow_protocol::runs::RunView;
use serde_json::{Map, Value, json};

use super::figure::{Figure, median, percentile, range};
use super::line::{Line, request};
use super::stage::{Stage, time_ms};
use super::{Database, PATIENCE, Scale};
use crate::harness::{Failure, WorkerOptions, cpu_time, wait_until};

/// Steps of a chain.
const STEPS: usize = 40;

/// One-row commits before each round.
const UNITS: usize = 20;

/// A chain of nothing.
pub(super) fn chain(database: Database, scale: Scale) -> Result<Vec<Figure>, Failure> {
    let mut bench = Bench::open(database)?;
    let timed = bench.rounds(scale.runs, &chain_of(&json!({ "kind": "noop" })))?;
    let bound = 30.0 + STEPS as f64 * timed.unit_ms;
    Ok(vec![timed.figure("a chain of 40 noop steps", bound, "30 ms + 40 commits")])
}

/// A chain of short processes.
pub(super) fn chain_exec(database: Database, scale: Scale) -> Result<Vec<Figure>, Failure> {
    let mut bench = Bench::open(database)?;
    let timed = bench.rounds(scale.runs, &chain_of(&json!({ "kind": "exec", "argv": ["/bin/true"] })))?;
    let spawn = raw_spawn_ms(scale.spawns / 10 + 1)?;
    let bound = 30.0 + STEPS as f64 * (timed.unit_ms + spawn);
    let figure = timed.figure("a chain of 40 /bin/true", bound, "30 ms + 40 (commits + raw spawns)");
    Ok(vec![figure.note(format!("{}; raw spawn and wait on one thread {spawn:.2} ms", timed.note()))])
}

/// One, then a thousand, then one.
pub(super) fn fan(database: Database, scale: Scale) -> Result<Vec<Figure>, Failure> {
    let mut tasks = Map::from_iter([("first".to_owned(), json!({ "kind": "noop" }))]);
    let middle: Vec<String> = (0..scale.fan).map(|number| format!("n{number}")).collect();
    for name in &middle {
        tasks.insert(name.clone(), json!({ "kind": "noop", "needs": "first" }));
    }
    tasks.insert("last".to_owned(), json!({ "kind": "noop", "needs": middle }));
    let timed = Bench::open(database)?.rounds(scale.runs, &workflow(tasks))?;
    Ok(vec![timed.figure(&format!("1 to {} to 1, noop", scale.fan), 100.0, "0.1 s")])
}

/// Items over data.
pub(super) fn foreach(database: Database, scale: Scale) -> Result<Vec<Figure>, Failure> {
    let each = json!({ "kind": "noop", "foreach": "${{ inputs }}" });
    let items: Vec<usize> = (0..scale.batch).collect();
    let file = workflow(Map::from_iter([("each".to_owned(), each)]));
    let mut bench = Bench::open(database)?;
    let (mut times, mut cpu) = (vec![], vec![]);
    for round in 0..=scale.rounds {
        let before = cpu_time(bench.stage.master.pid())?;
        let time = bench.run(&json!({ "workflow": file, "inputs": items }))?;
        if round > 0 {
            let used = cpu_time(bench.stage.master.pid())?.saturating_sub(before);
            cpu.push(used.as_secs_f64() * 1e3 / scale.batch as f64);
            times.push(time);
        }
    }
    let each = median(&cpu);
    Ok(vec![
        Figure::new(&format!("foreach of {} noop, the master's CPU per task", scale.batch), each, "ms")
            .target("≤ 0.1 ms of the scheduler", each <= 0.1)
            .note(format!(
                "the whole process: API, scheduler, writer; the run takes {:.0} ms (rounds {})",
                median(&times),
                range(&times)
            )),
    ])
}

/// A large graph, each node after three others.
pub(super) fn graph(database: Database, scale: Scale) -> Result<Vec<Figure>, Failure> {
    let name = |number: usize| format!("n{number}");
    let tasks = (0..scale.graph).map(|number| {
        let needs: Vec<String> = (1..=3).filter_map(|back| number.checked_sub(back * 7)).map(name).collect();
        (name(number), json!({ "kind": "noop", "needs": needs }))
    });
    let mut bench = Bench::open(database)?;
    bench.run(&json!({ "workflow": chain_of(&json!({ "kind": "noop" })) }))?;
    let mut body = json!({ "workflow": workflow(tasks.collect()) });
    let begun = Instant::now();
    let run = bench.begin(&body)?;
    let accepted = begun.elapsed();
    wait_until("a node has begun", PATIENCE, || {
        bench.stage.client().stats().is_ok_and(|stats| stats.tasks.completed > STEPS as u64)
    })?;
    let started = begun.elapsed().as_secs_f64();
    bench.pause(run)?;
    // The allocator keeps what reading the first one took, and reads the second one there.
    let before = bench.stage.master.resident()?;
    body["workflow"]["name"] = json!("second");
    let run = bench.begin(&body)?;
    bench.pause(run)?;
    let resident = bench.stage.master.resident()?.saturating_sub(before) as f64 / scale.graph as f64;
    // Every node is something else, one is new and one is gone.
    let tasks = body["workflow"]["tasks"].as_object_mut().ok_or("no tasks")?;
    tasks.remove(&name(scale.graph - 1));
    tasks.insert("new".to_owned(), json!({ "kind": "noop" }));
    for task in tasks.values_mut() {
        task["priority"] = json!(60);
    }
    let path = format!("/api/v2/runs/{run}/upgrade");
    let begun = Instant::now();
    bench.line.ask_json::<Value>(&request("POST", &path, Some(&body)), 200)?;
    let upgraded = begun.elapsed().as_secs_f64();
    let edges = 3 * scale.graph;
    Ok(vec![
        Figure::new(&format!("{} nodes, {edges} edges: sent to first node ended", scale.graph), started, "s")
            .target("≤ 2 s", started <= 2.0)
            .note(format!("accepted, with every node checked, after {:.2} s", accepted.as_secs_f64())),
        Figure::new("memory of a node", resident, "bytes")
            .target("≤ 400 bytes", resident <= 400.0)
            .note("what the master's resident memory grows by with a second such run beside the first, over its nodes"),
        Figure::new("such a run, paused, gets another workflow: every node changed", upgraded, "s")
            .note("answered with every node; what runs goes on meanwhile"),
    ])
}

/// Concurrency keys and a rate that nobody else wants; and one key that everybody wants.
pub(super) fn keys(database: Database, scale: Scale) -> Result<Vec<Figure>, Failure> {
    let mut bench = Bench::open(database)?;
    for (name, limit) in [
        ("a", json!({ "limit": 1 })),
        ("b", json!({ "limit": 1, "rate": { "count": 100_000, "per_ms": 1000 } })),
    ] {
        let put = request("PUT", &format!("/api/v2/keys/{name}"), Some(&limit));
        bench.line.ask_json::<Value>(&put, 200)?;
    }
    let steps = |keys: Value| {
        let step =
            |number: usize| json!({ "name": format!("s{number}"), "kind": "noop", "concurrency_keys": keys });
        json!({ "version": 1, "mode": "sequential", "tasks": (0..4).map(step).collect::<Vec<_>>() })
    };
    let (plain, keyed) = (steps(json!([])), steps(json!(["a", "b"])));
    let (mut without, mut with) = (vec![], vec![]);
    for _ in 0..scale.runs {
        without.push(bench.run(&json!({ "workflow": plain }))?);
        with.push(bench.run(&json!({ "workflow": keyed }))?);
    }
    let added = median(&with) - median(&without);
    let gaps = bench.gaps_ms(scale.handoffs)?;
    let p99 = percentile(&gaps, 99.0);
    Ok(vec![
        Figure::new("two keys and a rate on 4 steps, added in all", added, "ms")
            .target("≤ 10 ms", added <= 10.0)
            .note(format!("{:.2} ms with, {:.2} ms without, in turn", median(&with), median(&without))),
        Figure::new("a key handed on: end of one task to begin of the next, p99", p99, "ms")
            .target("≤ 5 ms", p99 <= 5.0)
            .note(format!(
                "p50 {:.2} ms; the worker's own times, two commits and two frames between",
                median(&gaps)
            )),
    ])
}

/// Tasks side by side.
pub(super) fn slots(database: Database, scale: Scale) -> Result<Vec<Figure>, Failure> {
    let mut bench = Bench::open(database)?;
    let file = |mode: &str| {
        let task = |number: usize| json!({ "name": format!("t{number}"), "kind": "exec", "argv": ["/bin/sleep", scale.sleep] });
        json!({ "workflow": { "version": 1, "mode": mode, "tasks": (0..4).map(task).collect::<Vec<_>>() } })
    };
    let sequential = bench.run(&file("sequential"))?;
    let parallel = bench.run(&file("parallel"))?;
    let speed_up = sequential / parallel;
    Ok(vec![
        Figure::new(
            &format!("four tasks of {} s on four slots, against sequential", scale.sleep),
            speed_up,
            "×",
        )
        .target("≥ 3.9 ×", speed_up >= 3.9)
        .note(format!("{sequential:.0} ms sequential, {parallel:.0} ms parallel")),
    ])
}

fn workflow(tasks: Map<String, Value>) -> Value {
    json!({ "version": 1, "tasks": tasks })
}

fn chain_of(step: &Value) -> Value {
    let steps = (0..STEPS).map(|number| {
        let mut step = step.clone();
        step["name"] = json!(format!("s{number}"));
        step
    });
    json!({ "version": 1, "mode": "sequential", "tasks": steps.collect::<Vec<_>>() })
}

/// Milliseconds of spawning and awaiting one process after another.
fn raw_spawn_ms(count: usize) -> Result<f64, Failure> {
    let total = time_ms(|| {
        for _ in 0..count {
            let mut command = Command::new("/bin/true");
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
            command.spawn()?.wait_with_output()?;
        }
        Ok(())
    })?;
    Ok(total / count as f64)
}

/// Times of the same run, again and again, and of one-row commits in turn with them.
struct Timed {
    times_ms: Vec<f64>,
    unit_ms: f64,
}

impl Timed {
    fn figure(&self, name: &str, bound_ms: f64, bound: &str) -> Figure {
        let time = median(&self.times_ms);
        Figure::new(name, time, "ms")
            .ratio(time / self.unit_ms, "one-row FULL commit")
            .target(format!("≤ {bound} = {bound_ms:.0} ms"), time <= bound_ms)
            .note(self.note())
    }

    fn note(&self) -> String {
        format!("rounds {}; one-row FULL commit p50 {:.2} ms", range(&self.times_ms), self.unit_ms)
    }
}

/// A master, a worker of four slots, and a connection.
struct Bench {
    line: Line,
    stage: Stage,
}

impl Bench {
    fn open(database: Database) -> Result<Self, Failure> {
        let stage =
            Stage::with_worker(database, &WorkerOptions { slots: Some(4), ..WorkerOptions::default() })?;
        Ok(Self { line: Line::open(stage.scene.port())?, stage })
    }

    fn rounds(&mut self, count: usize, workflow: &Value) -> Result<Timed, Failure> {
        let body = json!({ "workflow": workflow });
        self.run(&body)?;
        let (mut times_ms, mut units) = (vec![], vec![]);
        for _ in 0..count {
            units.push(self.stage.commit_p50_ms(UNITS)?);
            times_ms.push(self.run(&body)?);
        }
        Ok(Timed { times_ms, unit_ms: median(&units) })
    }

    /// The number of a new run.
    fn begin(&mut self, body: &Value) -> Result<u64, Failure> {
        let run: RunView = self.line.ask_json(&request("POST", "/api/v2/runs", Some(body)), 201)?;
        Ok(run.id)
    }

    fn pause(&mut self, run: u64) -> Result<(), Failure> {
        let pause = request("POST", &format!("/api/v2/runs/{run}/pause"), Some(&json!({})));
        self.line.ask_json::<Value>(&pause, 200).map(drop)
    }

    /// Milliseconds from sending a run to the answer that it has completed.
    fn run(&mut self, body: &Value) -> Result<f64, Failure> {
        let post = request("POST", "/api/v2/runs", Some(body));
        let begun = Instant::now();
        let run: RunView = self.line.ask_json(&post, 201)?;
        let path = format!("/api/v2/runs/{}?wait_ms=60000", run.id);
        let run: RunView = self.line.ask_json(&request("GET", &path, None), 200)?;
        let time = begun.elapsed().as_secs_f64() * 1e3;
        match run.status {
            RunStatus::Completed => Ok(time),
            other => Err(format!("run {} is {other}: {:?}", run.id, run.error).into()),
        }
    }

    /// Milliseconds from the end of one task to the begin of the next, where one key lets one at a time
    /// begin.
    fn gaps_ms(&mut self, count: usize) -> Result<Vec<f64>, Failure> {
        let task = json!({ "kind": "noop", "concurrency_keys": ["a"] });
        self.stage.wait_idle()?;
        let before = self.stage.completed()?;
        self.stage.submit(&task, count, 1)?;
        self.stage.wait_completed(before + count as u64)?;
        let page: TaskPage =
            self.stage.client().read(&format!("/api/v2/tasks?status=completed&limit={count}"))?;
        let mut times: Vec<(i64, i64)> = page
            .tasks
            .iter()
            .filter(|task| task.status == Status::Completed)
            .filter_map(|task| Some((task.started_at?.0.0, task.finished_at?.0.0)))
            .collect();
        times.sort_unstable();
        Ok(times.windows(2).map(|pair| (pair[1].0 - pair[0].1) as f64 / 1e3).collect())
    }
}

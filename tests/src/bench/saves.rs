//! Checkpoints from inside tasks, through the worker's socket.
//!
//! The tasks are shells that write down where their socket is and sleep; what is asked there is asked by
//! threads of the benchmark, so that no start of a process is measured.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::figure::{Figure, percentile, range};
use super::latency::one_task;
use super::line::{Line, request};
use super::stage::{Stage, time_ms};
use super::{Database, PATIENCE, Scale};
use crate::harness::{Failure, WorkerOptions, binaries, pause, wait_for};

/// Bytes of a small checkpoint.
pub(super) const SMALL: usize = 1 << 10;

/// What must not be in the way of the next checkpoint is done by then.
const BREATH: Duration = Duration::from_millis(5);

/// What a task is given to find its worker.
pub(super) struct Inside {
    socket: BufReader<UnixStream>,
    key: String,
}

impl Inside {
    /// A task that writes down how it is reached, in a file named for the attempt, and sleeps.
    pub(super) fn task(directory: &Path) -> Value {
        let line = r#"printf '%s\n%s\n' "$AGENTFLOW_SOCKET" "$AGENTFLOW_ATTEMPT_KEY" > "$PLACE/$AGENTFLOW_TASK_ID.new" && mv "$PLACE/$AGENTFLOW_TASK_ID.new" "$PLACE/$AGENTFLOW_TASK_ID.$AGENTFLOW_ATTEMPT"; exec sleep 3600"#;
        json!({ "command": line, "env": { "PLACE": directory } })
    }

    /// The socket of an attempt, once it is there.
    pub(super) fn of(directory: &Path, task: u64, attempt: u32) -> Result<Self, Failure> {
        let path = directory.join(format!("{task}.{attempt}"));
        let text = wait_for(&format!("attempt {attempt} of task {task}"), PATIENCE, || {
            std::fs::read_to_string(&path).ok()
        })?;
        let (socket, key) = text.trim_end().split_once('\n').ok_or("two lines")?;
        Ok(Self { socket: BufReader::new(UnixStream::connect(socket)?), key: key.to_owned() })
    }

    /// The line that saves so many bytes.
    pub(super) fn line(&self, bytes: usize) -> String {
        let data = "x".repeat(bytes.saturating_sub(2));
        format!("{}\n", json!({ "op": "checkpoint", "key": self.key, "name": "step", "data": data }))
    }

    /// Saves, and comes back when that is durable.
    pub(super) fn save(&mut self, line: &str) -> Result<(), Failure> {
        self.socket.get_mut().write_all(line.as_bytes())?;
        let mut answer = String::new();
        self.socket.read_line(&mut answer)?;
        let said: Value = serde_json::from_str(&answer)?;
        if said["ok"] == true { Ok(()) } else { Err(answer.into()) }
    }
}

impl Inside {
    /// The same by the command, which is one more process each time.
    fn commanded(&self, scale: Scale, by_socket: f64) -> Result<Figure, Failure> {
        let mut command = Command::new(&binaries()?.command);
        command.args(["checkpoint", "save", "step", "--data", &"x".repeat(SMALL - 2)]);
        command.env("AGENTFLOW_SOCKET", self.socket.get_ref().peer_addr()?.as_pathname().ok_or("no path")?);
        command.env("AGENTFLOW_ATTEMPT_KEY", &self.key).stdout(Stdio::null());
        let mut times = Vec::new();
        for _ in 0..scale.saves {
            pause(BREATH);
            times.push(time_ms(|| match command.status()?.success() {
                true => Ok(()),
                false => Err("the command failed".into()),
            })?);
        }
        let p50 = percentile(&times, 50.0);
        Ok(Figure::new("the same by `agentflow checkpoint save`, p50", p50, "ms")
            .ratio(p50 / by_socket, "checkpoint through the socket")
            .note(format!("{:.2} ms of it are the start and the end of the process", p50 - by_socket)))
    }
}

/// One task, one checkpoint after the other.
pub(super) fn small(database: Database, scale: Scale) -> Result<Vec<Figure>, Failure> {
    let mut stage = Stage::with_worker(database, &WorkerOptions::default())?;
    let place = stage.scene.path("inside");
    std::fs::create_dir(&place)?;
    let task = stage.client().submit(&[Inside::task(&place)])?[0];
    let mut inside = Inside::of(&place, task, 1)?;
    let line = inside.line(SMALL);
    let (mut saves, mut units) = (vec![], vec![]);
    for _ in 0..scale.saves {
        pause(BREATH);
        units.push(time_ms(|| Ok(stage.unit.commit()?))?);
        pause(BREATH);
        saves.push(time_ms(|| inside.save(&line))?);
    }
    let (p50, unit) = (percentile(&saves, 50.0), percentile(&units, 50.0));
    Ok(vec![
        Figure::new("a checkpoint of 1 KiB through the socket, p50", p50, "ms")
            .ratio(p50 / unit, "one-row FULL commit")
            .target(format!("≤ commit + 1 ms = {:.2} ms", unit + 1.0), p50 <= unit + 1.0)
            .note(format!(
                "one-row FULL commit: p50 {unit:.2} ms, taken in turn; p99 of the checkpoints {:.2} ms",
                percentile(&saves, 99.0)
            )),
        Figure::new("what it costs beside the commit, p50", p50 - unit, "ms")
            .target("< 1 ms", p50 - unit < 1.0),
        inside.commanded(scale, p50)?,
    ])
}

/// Many tasks at once.
pub(super) fn rate(database: Database, scale: Scale) -> Result<Vec<Figure>, Failure> {
    let options = WorkerOptions { slots: Some(scale.savers), ..WorkerOptions::default() };
    let mut stage = Stage::with_worker(database, &options)?;
    let place = stage.scene.path("inside");
    std::fs::create_dir(&place)?;
    let tasks = vec![Inside::task(&place); scale.savers as usize];
    let tasks = stage.client().submit(&tasks)?;
    let mut insides =
        tasks.into_iter().map(|task| Inside::of(&place, task, 1)).collect::<Result<Vec<_>, _>>()?;
    let unit = stage.commit_p50_ms(scale.saves)?;
    let begin = Barrier::new(insides.len() + 1);
    let took = thread::scope(|scope| {
        let savers: Vec<_> = insides
            .iter_mut()
            .map(|inside| {
                let (line, begin) = (inside.line(SMALL), &begin);
                scope.spawn(move || {
                    begin.wait();
                    (0..scale.saves).try_for_each(|_| inside.save(&line)).map_err(|error| error.to_string())
                })
            })
            .collect();
        begin.wait();
        let begun = Instant::now();
        for saver in savers {
            saver.join().map_err(|_| "a thread that saves has died")??;
        }
        Ok::<_, Failure>(begun.elapsed())
    })?;
    let rate = (insides.len() * scale.saves) as f64 / took.as_secs_f64();
    let name = format!("checkpoints of 1 KiB, {} tasks at once", scale.savers);
    Ok(vec![
        Figure::new(&name, rate, "/s")
            .ratio(rate * unit / 1e3, "one-row FULL commits/s")
            .target("≥ 2,000/s", rate >= 2_000.0)
            .note(format!(
                "one-row FULL commit: p50 {unit:.2} ms; each task waits for one before it asks for the next"
            )),
    ])
}

/// What other tasks see of one that saves large checkpoints, one after the other.
pub(super) fn large(database: Database, scale: Scale) -> Result<Vec<Figure>, Failure> {
    let stage = Stage::with_worker(database, &WorkerOptions::default())?;
    let place = stage.scene.path("inside");
    std::fs::create_dir(&place)?;
    let task = stage.client().submit(&[Inside::task(&place)])?[0];
    let mut inside = Inside::of(&place, task, 1)?;
    let text = inside.line(scale.large);
    let mut line = Line::open(stage.scene.port())?;
    let submit = request("POST", "/api/v2/tasks", Some(&json!({ "kind": "noop" })));
    let mut idle = || {
        let times = (0..scale.idle_tasks).map(|_| {
            pause(BREATH);
            Ok(one_task(&mut line, &submit)?.0)
        });
        times.collect::<Result<Vec<f64>, Failure>>()
    };
    let alone = idle()?;
    let is_over = AtomicBool::new(false);
    let (beside, saves) = thread::scope(|scope| {
        let saver = scope.spawn(|| {
            let mut times = Vec::new();
            while !is_over.load(Ordering::Relaxed) {
                times.push(time_ms(|| inside.save(&text)).map_err(|error| error.to_string())?);
            }
            Ok::<_, String>(times)
        });
        let beside = idle();
        is_over.store(true, Ordering::Relaxed);
        let saves = saver.join().map_err(|_| "the thread that saves has died")??;
        Ok::<_, Failure>((beside?, saves))
    })?;
    let at = |percent: f64| (percentile(&alone, percent), percentile(&beside, percent));
    let ((alone_p50, beside_p50), (alone_p99, beside_p99)) = (at(50.0), at(99.0));
    let name = format!("an idle task beside checkpoints of {} KiB: later by, p99", scale.large >> 10);
    Ok(vec![
        Figure::new(&name, beside_p99 - alone_p99, "ms")
            .target("≤ 20 ms", beside_p99 - alone_p99 <= 20.0)
            .note(format!(
                "sent to begun, alone: p50 {alone_p50:.2}, p99 {alone_p99:.2} ms; beside: p50 {beside_p50:.2}, p99 {beside_p99:.2} ms; {} checkpoints meanwhile, each {} ms",
                saves.len(),
                range(&saves),
            )),
    ])
}

//! Clients that submit, and blows that fall meanwhile.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use agentflow_schema::testing::TestDatabase;
use serde_json::{Value, json};

use super::audit::{self, Report, Traces};
use super::ledger::{Entry, Fate, Ledger};
use crate::harness::{
    Answer, Client, Failure, Lost, Process, Random, Scene, WorkerOptions, pause, wait_until,
};

/// Unsettled tasks above which clients wait, so that the end is near when the storm is over.
const BACKLOG: u64 = 300;

/// Places that are locked.
const PLACES: u64 = 8;

/// How long everything may take to come to rest after the last blow.
const REST: Duration = Duration::from_secs(120);

/// How long a client tries to get an answer.
const INSIST: Duration = Duration::from_secs(60);

const LEASE: Duration = Duration::from_secs(3);
const HEARTBEAT: Duration = Duration::from_millis(300);
const WORKERS: [&str; 2] = ["w1", "w2"];
const CLIENTS: u64 = 2;

/// How long, and which chance.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Decides what is submitted, who is hit and when.
    pub seed: u64,
    /// How long blows fall.
    pub duration: Duration,
}

/// What happened during the storm.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) lost_answers: AtomicU64,
    pub(super) sent_again: AtomicU64,
    pub(super) master_kills: AtomicU64,
    pub(super) worker_kills: AtomicU64,
}

/// What clients share.
struct Clients<'a> {
    client: &'a Client,
    ledger: &'a Ledger,
    tally: &'a Tally,
    stop: &'a AtomicBool,
    /// One line per execution.
    lines: &'a Path,
    /// One line per execution that met another one under the same lock.
    together: &'a Path,
    /// In the environment of every process of this storm.
    mark: &'a str,
}

/// Raises the storm, lets it pass, and compares.
///
/// # Errors
/// When anything was lost, recorded twice or got stuck, or a program did not start again.
pub fn run(database: TestDatabase, plan: Plan) -> Result<Report, Failure> {
    println!("crash: seed {} for {:?}", plan.seed, plan.duration);
    let scene = Scene::new(database)?.with_lease(LEASE, HEARTBEAT);
    let (ledger, tally, stop) = (Ledger::default(), Tally::default(), AtomicBool::new(false));
    let together = scene.path("together");
    let (lines, mark) = (scene.path("executions"), format!("{}-{}", plan.seed, std::process::id()));
    let clients = Clients {
        client: scene.client(),
        ledger: &ledger,
        tally: &tally,
        stop: &stop,
        lines: &lines,
        together: &together,
        mark: &mark,
    };
    let mut house = House::open(&scene)?;
    std::thread::scope(|scope| {
        let submitting: Vec<_> = (0..CLIENTS)
            .map(|number| {
                let clients = &clients;
                scope.spawn(move || clients.submit_until_stopped(number, plan.seed))
            })
            .collect();
        let struck = house.strike(&scene, plan, &tally);
        stop.store(true, Ordering::Relaxed);
        for client in submitting {
            client.join().map_err(|_| "a client panicked")??;
        }
        struck
    })?;
    come_to_rest(scene.client(), &ledger)?;
    wait_until("no process of the storm is left", Duration::from_secs(10), || {
        crate::harness::pids_with_environment("CRASH_TEST", &mark).is_empty()
    })?;
    let traces = Traces { lines: &lines, together: &together };
    let report = audit::compare(scene.client(), &ledger.entries(), traces, &tally)?;
    drop(house);
    report.judge(plan.seed)
}

/// Waits until every task is settled.
fn come_to_rest(client: &Client, ledger: &Ledger) -> Result<(), Failure> {
    let rest = wait_until("every task is settled", REST, || {
        client.stats().is_ok_and(|stats| stats.tasks.blocked + stats.tasks.pending + stats.tasks.running == 0)
    });
    if let Err(error) = rest {
        let tasks = client.tasks()?;
        let stuck = tasks.iter().filter(|task| !task.status.is_settled()).take(5);
        let stuck: Vec<String> = stuck
            .map(|task| {
                let why = client.get(&format!("/api/v2/tasks/{}/why", task.id));
                format!("{task:?}: {}", why.map_or_else(|lost| lost.0, |answer| answer.body))
            })
            .collect();
        let sent = ledger.entries().len();
        return Err(format!("stuck after {sent} submissions: {error}; such as {stuck:#?}").into());
    }
    Ok(())
}

/// The programs that run.
struct House {
    // Dropped in this order: workers first.
    workers: Vec<Process>,
    master: Process,
}

impl House {
    fn open(scene: &Scene) -> Result<Self, Failure> {
        let master = scene.start_master()?;
        let workers =
            WORKERS.iter().map(|id| scene.start_worker(id, &options())).collect::<Result<_, _>>()?;
        Ok(Self { workers, master })
    }

    /// Kills and starts again until the time is over. In the end everything runs.
    fn strike(&mut self, scene: &Scene, plan: Plan, tally: &Tally) -> Result<(), Failure> {
        let mut random = Random::new(plan.seed);
        let begun = Instant::now();
        while begun.elapsed() < plan.duration {
            pause(Duration::from_millis(random.between(100, 1_500)));
            let (master, workers) = match random.between(0, 99) {
                0..45 => (true, vec![]),
                45..65 => (false, vec![0]),
                65..85 => (false, vec![1]),
                85..95 => (true, vec![usize::try_from(random.between(0, 1))?]),
                _ => (true, vec![0, 1]),
            };
            if master {
                self.master.kill();
                tally.master_kills.fetch_add(1, Ordering::Relaxed);
            }
            for at in &workers {
                self.workers[*at].kill();
                tally.worker_kills.fetch_add(1, Ordering::Relaxed);
            }
            pause(Duration::from_millis(random.between(0, 400)));
            for at in workers {
                self.workers[at] = scene.start_worker(WORKERS[at], &options())?;
            }
            if master {
                self.master = scene.start_master()?;
            }
        }
        for (id, worker) in WORKERS.iter().zip(&mut self.workers) {
            if let Some(status) = worker.ended()? {
                return Err(format!("worker {id} ended by itself ({status}): {}", worker.last_log()).into());
            }
        }
        Ok(())
    }
}

fn options() -> WorkerOptions {
    WorkerOptions { slots: Some(4), ..WorkerOptions::default() }
}

/// Prints [`MUCH`] bytes.
const PRINT_MUCH: &str = "head -c 80000 /dev/zero | tr '\\0' y";

/// Bytes of a result that is kept by its hash.
pub(super) const MUCH: usize = 80_000;

/// Whether the tasks of a submission print so much.
pub(super) fn prints_much(body: &Value) -> bool {
    let task = body.pointer("/tasks/0").unwrap_or(body);
    task["command"].as_str().is_some_and(|command| command.ends_with(PRINT_MUCH))
}

/// Whether the tasks of a submission lock files.
pub(super) fn locks(body: &Value) -> bool {
    body.pointer("/tasks/0").unwrap_or(body).get("locks").is_some()
}

impl Clients<'_> {
    fn submit_until_stopped(&self, number: u64, seed: u64) -> Result<(), Failure> {
        let mut random = Random::new(seed ^ (number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut sent = 0;
        while !self.stop.load(Ordering::Relaxed) {
            let busy =
                self.client.stats().is_ok_and(|stats| stats.tasks.pending + stats.tasks.running > BACKLOG);
            if busy {
                pause(Duration::from_millis(20));
                continue;
            }
            sent += 1;
            self.submit(self.invent(&mut random, number, sent))?;
        }
        Ok(())
    }

    /// A submission: what, how many, with a key or without.
    fn invent(&self, random: &mut Random, number: u64, sent: u64) -> Entry {
        let title = format!("client {number} submission {sent}");
        let line = "printf '%s %s %s\\n' $AGENTFLOW_TASK_ID $AGENTFLOW_ATTEMPT $AGENTFLOW_FENCE";
        let line = format!("{line} >> '{}'", self.lines.display());
        // Nobody else is there meanwhile: a lock of the system's own says so, which ends with its process.
        let place = random.between(1, PLACES);
        let alone = format!(
            "{line}; flock -n -E 66 '{}.{place}' sleep 0.{:02}; \
             code=$?; if [ $code = 66 ] || [ $code = 127 ]; then \
             echo \"$AGENTFLOW_TASK_ID $AGENTFLOW_ATTEMPT in {place}: $code\" >> '{}'; fi",
            self.lines.display(),
            random.between(0, 40),
            self.together.display()
        );
        let (mut task, leaves_lines) = match random.between(0, 11) {
            0..4 => (json!({ "kind": "noop" }), false),
            4..6 => (json!({ "kind": "shell", "command": line }), true),
            // Too large for a report: its bytes go another way, and must be there in the end.
            6 => (json!({ "kind": "shell", "command": format!("{line}; {PRINT_MUCH}") }), true),
            7..9 => {
                let locks = json!({ "repo": "storm", "paths": [format!("place/{place}")] });
                (json!({ "kind": "shell", "command": alone, "locks": locks }), true)
            }
            _ => {
                // The line first: what is killed while it sleeps was executed.
                let command = format!("{line}; sleep 0.{:02}", random.between(0, 40));
                (json!({ "kind": "exec", "argv": ["/bin/sh", "-c", command] }), true)
            }
        };
        task["title"] = json!(title);
        // A task may lose its worker often here; that is not its failure.
        task["retry"] = json!({ "max_lost": 1_000 });
        if leaves_lines {
            task["env"] = json!({ "CRASH_TEST": self.mark });
        }
        let most = if leaves_lines { 20 } else { 100 };
        let single = random.percent(50);
        let count = if single { 1 } else { usize::try_from(random.between(1, most)).unwrap_or(1) };
        let body = if single { task } else { json!({ "tasks": vec![task; count] }) };
        let key = random.percent(60).then(|| title.replace(' ', "-"));
        Entry { title, body, key, count, leaves_lines, fate: Fate::Unknown }
    }

    /// Sends it, with a key until there is an answer, and notes what is known then.
    fn submit(&self, mut entry: Entry) -> Result<(), Failure> {
        let begun = Instant::now();
        loop {
            entry.fate = fate(self.client.post("/api/v2/tasks", &entry.body, entry.key.as_deref()))?;
            if entry.fate == Fate::Unknown {
                self.tally.lost_answers.fetch_add(1, Ordering::Relaxed);
            }
            let acknowledged = matches!(entry.fate, Fate::Acknowledged(_));
            if acknowledged || entry.key.is_none() {
                self.ledger.note(entry);
                return Ok(());
            }
            if begun.elapsed() > INSIST {
                return Err(format!("no answer to '{}' within {INSIST:?}", entry.title).into());
            }
            self.tally.sent_again.fetch_add(1, Ordering::Relaxed);
            pause(Duration::from_millis(20));
        }
    }
}

/// What an answer, or its absence, tells about a submission.
pub(super) fn fate(answer: Result<Answer, Lost>) -> Result<Fate, Failure> {
    let Ok(answer) = answer else { return Ok(Fate::Unknown) };
    match answer.status {
        201 => {
            let body: Value = serde_json::from_str(&answer.body)?;
            let ids = body.get("ids").cloned().unwrap_or_else(|| json!([body["id"]]));
            Ok(Fate::Acknowledged(serde_json::from_value(ids)?))
        }
        // Stopping, or too much to do.
        429 | 503 => Ok(Fate::Refused),
        status => Err(format!("a submission got {status}: {}", answer.body).into()),
    }
}

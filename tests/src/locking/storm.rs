//! Clients that lock, and blows that fall on them and on the master.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use agentflow_protocol::locks::LockPage;
use agentflow_schema::testing::TestDatabase;

use super::check;
use super::client::{LONGEST, STAY, STOP, repo_name};
use super::history::{self, Operation, Told};
use crate::harness::{Failure, Process, Random, Scene, pause, wait_until};

const CLIENTS: usize = 8;

/// Of a hundred blows, those that hit the master.
const ON_THE_MASTER: u64 = 10;

/// How long everything may take to come to rest after the last blow.
const REST: Duration = Duration::from_secs(60);

/// Violations that are shown.
const SHOWN: usize = 3;

/// How much, and which chance.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Decides what is asked, who is hit and when.
    pub seed: u64,
    /// Operations that are answered, at least.
    pub operations: usize,
    /// Blows, at least.
    pub kills: usize,
}

/// What happened.
#[derive(Debug, Default)]
pub struct Report {
    /// Operations that were answered.
    pub answered: usize,
    /// Operations whose client was killed before.
    pub unanswered: usize,
    /// Locks that were granted.
    pub granted: usize,
    /// Locks that were refused.
    pub refused: usize,
    /// Locks that had run out or were broken, as their owners were told.
    pub gone: usize,
    /// Repositories.
    pub repos: usize,
    /// Times that the master was killed.
    pub master_kills: usize,
    /// Times that a client was killed.
    pub client_kills: usize,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} operations answered and {} not, in {} repositories: {} granted, {} refused, {} gone; killed: master {}, clients {}",
            self.answered,
            self.unanswered,
            self.repos,
            self.granted,
            self.refused,
            self.gone,
            self.master_kills,
            self.client_kills,
        )
    }
}

/// Raises the storm, lets it pass, and looks for an order of all that was told. `program` is one that
/// becomes a client when it is called with `--client`.
///
/// # Errors
/// When there is no such order, a lock is left, or a program did not start again.
pub fn run(database: TestDatabase, plan: Plan, program: &Path) -> Result<Report, Failure> {
    println!("locks: seed {} for {} operations and {} kills", plan.seed, plan.operations, plan.kills);
    let scene = Scene::new(database)?;
    std::fs::create_dir(scene.path("clients"))?;
    let mut house = House {
        clients: Vec::new(),
        master: scene.start_master()?,
        program,
        scene: &scene,
        seed: plan.seed,
        started: 0,
        report: Report::default(),
    };
    for _ in 0..CLIENTS {
        let client = house.start_client()?;
        house.clients.push(client);
    }
    house.strike(plan)?;
    house.come_to_rest()?;
    let operations = history::read(&scene.path("clients"))?;
    house.report.judge(operations, &scene, plan.seed)
}

struct House<'a> {
    // Dropped in this order: clients first.
    clients: Vec<Process>,
    master: Process,
    program: &'a Path,
    scene: &'a Scene,
    seed: u64,
    /// Clients so far.
    started: u64,
    report: Report,
}

impl House<'_> {
    fn start_client(&mut self) -> Result<Process, Failure> {
        let number = self.started;
        self.started += 1;
        let first_repo = self.told()? / (CLIENTS * STAY);
        let mut command = Command::new(self.program);
        command.args(["--client", &number.to_string(), "--seed", &self.seed.to_string()]);
        command.args(["--first-repo", &first_repo.to_string()]);
        command.args(["--master", &format!("http://127.0.0.1:{}", self.scene.port())]);
        command.arg("--directory").arg(self.scene.path("clients")).stdout(Stdio::null());
        Process::start(&format!("client {number}"), &mut command, &self.scene.path("clients.log"))
    }

    /// Operations so far, answered or not.
    fn told(&self) -> Result<usize, Failure> {
        let mut lines = 0;
        for entry in std::fs::read_dir(self.scene.path("clients"))? {
            lines += std::fs::read(entry?.path())?.iter().filter(|byte| **byte == b'\n').count();
        }
        Ok(lines / 2)
    }

    fn strike(&mut self, plan: Plan) -> Result<(), Failure> {
        let mut random = Random::new(plan.seed);
        let kills = |report: &Report| report.master_kills + report.client_kills;
        while self.told()? < plan.operations || kills(&self.report) < plan.kills {
            pause(Duration::from_millis(random.between(10, 150)));
            self.nobody_has_given_up()?;
            if random.percent(ON_THE_MASTER) {
                self.master.kill();
                self.report.master_kills += 1;
                pause(Duration::from_millis(random.between(0, 300)));
                self.master = self.scene.start_master()?;
            } else {
                let at = usize::try_from(random.between(0, CLIENTS as u64 - 1))?;
                self.clients[at].kill();
                self.report.client_kills += 1;
                self.clients[at] = self.start_client()?;
            }
        }
        Ok(())
    }

    fn nobody_has_given_up(&mut self) -> Result<(), Failure> {
        for client in &mut self.clients {
            if let Some(status) = client.ended()? {
                return Err(format!("a client ended by itself ({status}): {}", client.last_log()).into());
            }
        }
        Ok(())
    }

    /// The clients end, and every lock has its time.
    fn come_to_rest(&mut self) -> Result<(), Failure> {
        std::fs::write(self.scene.path(STOP), "")?;
        for client in &mut self.clients {
            let status = client.wait(REST)?;
            if !status.success() {
                return Err(format!("a client ended with {status}: {}", client.last_log()).into());
            }
        }
        let client = self.scene.client();
        let none = wait_until("no lock is left", LONGEST + REST, || {
            client.stats().is_ok_and(|stats| stats.locks.held + stats.locks.waiting == 0)
        });
        none.map_err(|why| {
            let left = client.get("/api/v2/locks").map_or_else(|lost| lost.0, |answer| answer.body);
            format!("{why}: {left}").into()
        })
    }
}

impl Report {
    /// The report, if there is an order of the operations of each repository.
    fn judge(mut self, operations: Vec<Operation>, scene: &Scene, seed: u64) -> Result<Self, Failure> {
        let mut repos: BTreeMap<usize, Vec<Operation>> = BTreeMap::new();
        for operation in operations {
            self.count(&operation);
            if !operation.is_void() {
                repos.entry(operation.repo).or_default().push(operation);
            }
        }
        self.repos = repos.len();
        let mut violations = Vec::new();
        for (repo, operations) in &repos {
            violations.extend(check::explain(operations).map(|why| format!("{}: {why}", repo_name(*repo))));
            let path = format!("/api/v2/locks?repo={}", repo_name(*repo));
            let left: LockPage = scene.client().read(&path)?;
            if !left.locks.is_empty() || !left.waiting.is_empty() {
                violations.push(format!("{}: {left:?} is left", repo_name(*repo)));
            }
        }
        if violations.is_empty() {
            return Ok(self);
        }
        let shown = violations[..violations.len().min(SHOWN)].join("\n  ");
        let again = format!("cargo run -p agentflow-tests --bin locks -- --seed {seed}");
        Err(format!("{self}\n{} violations:\n  {shown}\ntry again: {again}", violations.len()).into())
    }

    fn count(&mut self, operation: &Operation) {
        let Some((_, told)) = &operation.told else {
            self.unanswered += 1;
            return;
        };
        self.answered += 1;
        match told {
            Told::Granted { .. } | Told::Ended => self.granted += 1,
            Told::Refused { .. } | Told::Deadlock => self.refused += 1,
            Told::Gone | Told::DoneOrGone => self.gone += 1,
            Told::Done | Told::Listed { .. } | Told::Verified { .. } => {}
        }
    }
}

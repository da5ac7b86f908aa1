//! What clients ask about runs and relations, and how they leave nothing behind when they go home.

use std::sync::Arc;

use agentflow_core::batch::{KeyHash, Waits};
use agentflow_core::ids::{RunId, TaskId};
use agentflow_core::kernel::{NewRun, Predecessor, PreparedRun, Request, RunAction, SubmitKey};
use agentflow_core::relation::Relation;
use agentflow_core::run::RunStatus;
use agentflow_core::status::Status;
use agentflow_workflow::{Definition, On};

use super::random::Random;
use super::workflows;
use super::world::{Sabotage, World};

/// Runs that have not ended beyond which clients hold back.
const ENOUGH_RUNS: usize = 5;

/// Which kinds of request beside plain tasks a seed has, so that the others get room.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kinds {
    pub(super) runs: bool,
    /// Whether runs get other workflows.
    pub(super) upgrades: bool,
    pub(super) relations: bool,
    /// Whether attempts ask.
    pub(super) asks: bool,
    /// Whether clients save, restore and upgrade.
    pub(super) changes: bool,
    /// Whether files are locked.
    pub(super) locks: bool,
    /// Whether most tasks occupy much of a worker.
    pub(super) heavy: bool,
}

impl Kinds {
    pub(super) fn draw(random: &mut Random) -> Self {
        Self {
            runs: random.chance(650),
            upgrades: random.chance(500),
            relations: random.chance(600),
            asks: random.chance(700),
            changes: random.chance(700),
            locks: random.chance(600),
            heavy: random.chance(200),
        }
    }
}

impl World {
    /// Something about relations, if this seed has them.
    pub(super) fn relation_request(&mut self) -> Option<Request> {
        if !self.kinds.relations {
            return None;
        }
        if self.random.chance(300) {
            let held = self.store.tasks_that_wait(Waits::Release);
            let tasks: Vec<TaskId> =
                self.random.pick(&held).into_iter().chain(self.random.pick(&held)).collect();
            let tasks = if tasks.is_empty() || self.random.chance(100) { self.some_tasks() } else { tasks };
            return Some(Request::Release { tasks });
        }
        let relations = [Relation::Dependency, Relation::Dependency, Relation::Context, Relation::Sequential];
        let relation = match self.random.below(10) {
            0 => Relation::Parallel,
            1 => Relation::Upgrade,
            _ => self.random.pick(&relations).unwrap_or(Relation::Dependency),
        };
        let blocked: Vec<TaskId> = self.plain_that_are(Status::Blocked);
        let one = |world: &mut Self| {
            let some = world.random.pick(&blocked).filter(|_| world.random.chance(800));
            some.or_else(|| world.some_tasks().first().copied()).unwrap_or(TaskId(1))
        };
        let (task, successor) = (one(self), one(self));
        Some(Request::Relate { predecessor: Predecessor { task, ended: None }, successor, relation })
    }

    /// Something about runs, if this seed has them.
    pub(super) fn run_request(&mut self) -> Result<Option<Request>, String> {
        if !self.kinds.runs {
            return Ok(None);
        }
        let live: Vec<RunId> = self.store.ties.live_runs().map(|row| row.id).collect();
        if live.is_empty() || (live.len() < ENOUGH_RUNS && self.random.chance(300)) {
            return self.new_run().map(Some);
        }
        if self.kinds.upgrades
            && self.random.chance(200)
            && let Some(upgrade) = self.run_upgrade()
        {
            return Ok(Some(upgrade));
        }
        let run = self.random.pick(&live).unwrap_or(RunId(1));
        let gates = self.store.tasks_that_wait(Waits::Approval);
        Ok(Some(match (self.random.below(12), self.random.pick(&gates)) {
            (0..=4, Some(task)) => Request::Approve { task },
            (5, Some(task)) => Request::Reject { task, reason: "not today".into() },
            (6, _) => Request::WhyRun { run },
            (7, _) => Request::ControlRun { run, action: RunAction::Cancel },
            (8, _) => Request::Approve { task: self.some_tasks().first().copied().unwrap_or(TaskId(1)) },
            (9, _) => Request::ControlRun { run: RunId(99_999), action: RunAction::Resume },
            (10, _) => {
                let paused = self.store.ties.runs_that_are(RunStatus::Paused);
                let run = self.random.pick(&paused).unwrap_or(run);
                Request::ControlRun { run, action: RunAction::Resume }
            }
            _ => Request::ControlRun { run, action: RunAction::Pause },
        }))
    }

    fn new_run(&mut self) -> Result<Request, String> {
        let number = self.clients.next_submission();
        let name = format!("run {number}");
        let (sent, definition) = workflows::new_run(&mut self.random, &name)?;
        let run = NewRun { inputs: sent.inputs.clone(), prepared: PreparedRun::new(definition) };
        self.store.runs.files.insert(name.as_str().into(), sent);
        self.store.runs.sent.insert(name.into(), Arc::clone(&run.prepared.definition));
        let mut hash = [1; 16];
        hash[..8].copy_from_slice(&number.to_le_bytes());
        let key = self.random.chance(500).then_some(SubmitKey { key: KeyHash(hash), body: KeyHash(hash) });
        Ok(Request::StartRun { run: Box::new(run), key })
    }

    fn plain_that_are(&self, status: Status) -> Vec<TaskId> {
        let is_so = |row: &super::store::Row| row.run.is_none() && row.state.status == status;
        self.store.live().filter(|(_, row)| is_so(row)).map(|(id, _)| id).collect()
    }

    /// The door looks how the predecessors that a request names have ended.
    pub(super) fn looked_up(&self, mut request: Request) -> Request {
        let look = |predecessor: &mut Predecessor| {
            let row = self.store.rows.get(&predecessor.task);
            let ended = row.filter(|row| row.state.status.is_settled());
            predecessor.ended = ended.map(|row| (row.state.status, row.outcome.whole_outputs()));
        };
        match &mut request {
            Request::Submit { tasks, .. } => tasks.iter_mut().flat_map(|task| &mut task.needs).for_each(look),
            Request::Relate { predecessor, .. } => look(predecessor),
            _ => {}
        }
        request
    }

    /// Notes what a request that reaches the kernel may lead to; a sabotaged door changes it.
    pub(super) fn at_kernel(&mut self, request: Request) -> Request {
        match request {
            Request::ControlRun { run, action: RunAction::Cancel } => {
                self.store.runs.cancels.insert(run);
                request
            }
            Request::StartRun { run, key } if self.sabotage == Sabotage::DropEdge => {
                let mut definition = (*run.prepared.definition).clone();
                drop_edge(&mut definition, &mut self.random);
                let prepared = PreparedRun::new(definition);
                Request::StartRun { run: Box::new(NewRun { prepared, ..*run }), key }
            }
            request => request,
        }
    }

    /// Clients that go home leave nothing that would wait for ever: they stop what has no end, release
    /// what is held, approve, resume, and cancel what nobody can run and others wait for.
    pub(super) fn go_home(&mut self) {
        if !self.clients.is_idle() {
            return;
        }
        self.stop_endless();
        self.release_all();
        let held = self.store.tasks_that_wait(Waits::Release);
        if !held.is_empty() {
            self.send(Request::Release { tasks: held });
        }
        for task in self.store.tasks_that_wait(Waits::Approval) {
            self.send(Request::Approve { task });
        }
        for run in self.store.ties.runs_that_are(RunStatus::Paused) {
            self.send(Request::ControlRun { run, action: RunAction::Resume });
        }
        let hopeless = self.hopeless();
        if !hopeless.is_empty() {
            self.send(Request::Cancel { tasks: hopeless });
        }
    }

    /// What others wait for and nobody can run.
    fn hopeless(&self) -> Vec<TaskId> {
        let is_hopeless = |id: TaskId, row: &super::store::Row| {
            let is_ready = row.state.status == Status::Pending && row.state.worker.is_none();
            let is_waited_for = row.run.is_some() || self.store.is_waited_for(id);
            is_ready && row.state.waits.is_none() && is_waited_for && !self.can_run(row)
        };
        self.store.live().filter(|(id, row)| is_hopeless(*id, row)).map(|(id, _)| id).collect()
    }
}

/// Takes one edge out of a workflow that has any.
fn drop_edge(definition: &mut Definition, random: &mut Random) {
    let nodes = definition.nodes.iter().zip(0..).filter(|(node, _)| !node.after.is_empty());
    let nodes: Vec<usize> = nodes.map(|(_, at)| at).collect();
    let Some(at) = random.pick(&nodes) else { return };
    let node = &mut definition.nodes[at];
    let place = random.below(node.after.len());
    let kept =
        node.after.iter().enumerate().filter(|(other, edge)| *other != place || edge.on == On::Failure);
    node.after = kept.map(|(_, edge)| *edge).collect();
}

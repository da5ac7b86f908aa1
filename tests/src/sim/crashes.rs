//! A run of fifty nodes whose master dies once, at any of its commits: whatever the moment, the run
//! ends as if nothing had been.
//!
//! A world of its own, without other faults: one worker that does what it is told, one client that
//! starts the run and approves what waits. Each keeps what it has not been answered and says it again
//! to the next master.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use agentflow_core::attempt::{AttemptKey, End, Finished, Held, Hello, LOCKS_VERSION, Report, ReportBody};
use agentflow_core::batch::{Batch, KeyHash, Outcome, RunNode, Waits};
use agentflow_core::ids::{BootId, Epoch, ReplyTo, SessionEpoch, TaskId};
use agentflow_core::kernel::{
    Answer, Effect, Input, Kernel, NewRun, Output, PreparedRun, Request, Settings, SubmitKey,
};
use agentflow_core::spec::{Payload, Resources, RetryOn, Spec};
use agentflow_core::time::{Mono, Now, Wall};
use agentflow_protocol::workflow::WorkflowTasks;
use agentflow_workflow::{Definition, read_text};
use serde_json::{Map, Value, json};

use super::asked::Cause;
use super::fifty;
use super::store::Store;
use super::upgrades::Other;

/// When the master dies, seen from one commit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Moment {
    /// It has decided, and nothing is durable.
    Decided,
    /// It is durable, and nobody has been told.
    Committed,
    /// Everybody has been told.
    Told,
}

/// How a run ended: how each node did, what it was to do and what it left, by names; those of
/// children behind that of the node that they are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ending {
    /// The run's status.
    pub run: String,
    /// Each node and item.
    pub nodes: BTreeMap<String, String>,
    /// Nodes that an upgrade took away.
    pub gone: BTreeSet<String>,
    /// Commits that it took.
    pub commits: u64,
}

/// Steps after which a run must have ended.
const STEPS: u32 = 5_000;

/// Runs the workflow of fifty nodes; the master dies at that moment of that commit.
///
/// # Errors
/// What was violated on the way.
pub fn run_of_fifty(crash: Option<(u64, Moment)>) -> Result<Ending, String> {
    let definition = definition(&fifty::file())?;
    if definition.nodes.len() != 50 {
        return Err(format!("there are {} nodes", definition.nodes.len()));
    }
    run_of(definition, crash, None)
}

/// What a file says, with its own values.
pub(super) fn definition(file: &str) -> Result<Definition, String> {
    let definition = read_text(file, &WorkflowTasks).map_err(|wrong| wrong.to_string())?;
    definition.instantiate(&Map::new(), &Value::Null).map_err(|wrong| wrong.to_string())
}

/// Runs a workflow, which may be replaced by another one on the way.
pub(super) fn run_of(
    definition: Definition,
    crash: Option<(u64, Moment)>,
    other: Option<Other>,
) -> Result<Ending, String> {
    let mut small = Small::new(definition, crash);
    small.other = other;
    for _ in 0..STEPS {
        if !small.go_on()? {
            return small.ending();
        }
    }
    let waits: Vec<_> = small.store.live().map(|(id, row)| (id, row.run.clone(), row.state.status)).collect();
    Err(format!("the run does not end: {waits:?}"))
}

/// The worker.
#[derive(Debug, Default)]
struct Hands {
    session: Option<SessionEpoch>,
    /// Whether each has begun, and what it is.
    work: BTreeMap<AttemptKey, (bool, Spec)>,
    waiting: VecDeque<AttemptKey>,
    /// Not yet acknowledged.
    reports: VecDeque<Report>,
    last_report: u64,
    /// Flaky ones that have failed once.
    failed: BTreeSet<TaskId>,
}

pub(super) struct Small {
    pub(super) store: Store,
    kernel: Kernel,
    settings: Settings,
    definition: Arc<Definition>,
    now_us: i64,
    wake_at: Option<Mono>,
    last_session: SessionEpoch,
    epoch: Epoch,
    hands: Hands,
    is_answered: bool,
    pub(super) commits: u64,
    crash: Option<(u64, Moment)>,
    /// Another workflow for the run, not yet given to it.
    pub(super) other: Option<Other>,
}

impl Small {
    fn new(definition: Definition, crash: Option<(u64, Moment)>) -> Self {
        let definition = Arc::new(definition);
        let mut store = Store::default();
        store.runs.sent.insert(definition.name.clone(), Arc::clone(&definition));
        let settings = Settings::default();
        Self {
            store,
            kernel: Kernel::new(settings, Epoch(1), Arc::new(WorkflowTasks)),
            settings,
            definition,
            now_us: 0,
            wake_at: None,
            last_session: SessionEpoch(0),
            epoch: Epoch(1),
            hands: Hands::default(),
            is_answered: false,
            commits: 0,
            crash,
            other: None,
        }
    }

    fn now(&self) -> Now {
        Now { mono: Mono(self.now_us), wall: Wall(1_700_000_000_000_000 + self.now_us) }
    }

    /// The next thing that is to be done; false when the run has ended and nobody has anything left.
    fn go_on(&mut self) -> Result<bool, String> {
        self.now_us += 1_000;
        if self.is_answered && self.hands.session.is_some() && self.is_time_for_another()? {
            return Ok(true);
        }
        if self.hands.session.is_none() {
            self.greet()?;
        } else if !self.is_answered {
            self.start()?;
        } else if let Some(task) = self.store.tasks_that_wait(Waits::Approval).first() {
            self.ask(Request::Approve { task: *task })?;
        } else if let Some(report) = self.next_report() {
            self.hands.reports.push_back(report.clone());
            self.say(vec![report])?;
        } else if self.store.ties.live_runs().next().is_some() {
            let Some(wake_at) = self.wake_at else { return Err("nobody has anything to do".to_owned()) };
            self.now_us = self.now_us.max(wake_at.0);
            self.step(Input::Tick)?;
        } else {
            return self.wait_for_another();
        }
        Ok(true)
    }

    fn greet(&mut self) -> Result<(), String> {
        let session = self.last_session.next();
        self.last_session = session;
        self.hands.session = Some(session);
        let held = |(key, (started, _)): (&AttemptKey, &(bool, Spec))| Held { key: *key, started: *started };
        let hello = Hello {
            version: LOCKS_VERSION,
            worker: "w".into(),
            boot: BootId(1),
            groups: vec!["default".into()],
            labels: BTreeMap::new(),
            resources: Resources::default(),
            slots: 3,
            prefetch: 2,
            handlers: Vec::new(),
            sandboxes: Vec::new(),
            running: self.hands.work.iter().map(held).collect(),
            draining: false,
            at: self.now().wall,
        };
        self.step(Input::Hello { session, hello: Box::new(hello) })
    }

    /// The client asks for the run, as often as it takes to be answered; the door knows the key.
    fn start(&mut self) -> Result<(), String> {
        let key = SubmitKey { key: KeyHash([1; 16]), body: KeyHash([1; 16]) };
        if self.store.keys.contains_key(&key.key) {
            self.is_answered = true;
            return Ok(());
        }
        let prepared = PreparedRun::new((*self.definition).clone());
        let run = Box::new(NewRun { prepared, inputs: Value::Null });
        self.ask(Request::StartRun { run, key: Some(key) })
    }

    pub(super) fn ask(&mut self, request: Request) -> Result<(), String> {
        self.step(Input::Request { reply: ReplyTo(1), request })
    }

    fn say(&mut self, reports: Vec<Report>) -> Result<(), String> {
        match self.hands.session {
            Some(session) if !reports.is_empty() => self.step(Input::Reports { session, reports }),
            _ => Ok(()),
        }
    }

    /// One step, made durable at once, with everything that follows; or the master's end.
    pub(super) fn step(&mut self, input: Input) -> Result<(), String> {
        let output = self.kernel.step(input, self.now());
        self.kernel.check()?;
        self.take(output)
    }

    fn take(&mut self, output: Output) -> Result<(), String> {
        self.wake_at = output.wake_at;
        let mut effects = output.effects;
        if let Some(batch) = output.batch {
            match self.commit(batch)? {
                Some(more) => effects.extend(more),
                None => return self.die(),
            }
        }
        let dies = self.crash == Some((self.commits, Moment::Told));
        for effect in effects {
            self.perform(effect)?;
        }
        if dies { self.die() } else { Ok(()) }
    }

    /// Makes a decision durable. `None` when the master does not live to tell of it.
    fn commit(&mut self, batch: Batch) -> Result<Option<Vec<Effect>>, String> {
        self.commits += 1;
        if self.crash == Some((self.commits, Moment::Decided)) {
            return Ok(None);
        }
        self.store.gather(batch, Cause::Other);
        self.store.begin();
        let decision = self.store.commit(None)?;
        if self.crash == Some((self.commits, Moment::Committed)) {
            return Ok(None);
        }
        Ok(Some(self.kernel.step(Input::Committed(decision), self.now()).effects))
    }

    /// The master dies, and another one takes over from the rows.
    fn die(&mut self) -> Result<(), String> {
        self.crash = None;
        self.store.crash(false)?;
        self.hands.session = None;
        self.epoch = self.epoch.next();
        let scan = self.store.scan();
        let counters = scan.counters;
        let plan = self.store.plan(scan).map_err(|error| error.to_string())?;
        let (settings, maker) = (self.settings, Arc::new(WorkflowTasks));
        let (kernel, output) = Kernel::recover(settings, self.epoch, counters, plan, self.now(), maker);
        kernel.check()?;
        self.kernel = kernel;
        if output.batch.is_some() {
            return Err(format!("a master that takes over changes nothing by itself: {:?}", output.batch));
        }
        self.take(output)
    }

    fn perform(&mut self, effect: Effect) -> Result<(), String> {
        match effect {
            Effect::Reply { reply: Ok(Answer::RunStarted { .. }), .. } => self.is_answered = true,
            Effect::Reply { reply: Err(rejection), .. } => return self.is_refused(&rejection),
            Effect::LoadRun { run, also, .. } => {
                let loaded = self.store.load_run(run, &also).map(Box::new);
                self.step(Input::RunLoaded { run, loaded })?;
            }
            Effect::Return { keys, .. } => {
                let returned = self.hands.give_back(&keys);
                self.hands.reports.extend(returned.iter().cloned());
                self.say(returned)?;
            }
            Effect::Cancel { keys, .. } => {
                let stopped = self.hands.stop(&keys, self.now().wall);
                self.hands.reports.extend(stopped.iter().cloned());
                self.say(stopped)?;
            }
            Effect::Drop { keys, .. } => self.hands.drop_all(&keys),
            Effect::Reply { reply: Ok(_), .. } => {}
            Effect::Welcome { keep, .. } => {
                let kept = |key: &AttemptKey| keep.contains(key);
                self.hands.work.retain(|key, _| kept(key));
                self.hands.waiting.retain(kept);
                self.hands.reports.retain(|report| kept(&report.key));
                let again = self.hands.reports.iter().cloned().collect();
                self.say(again)?;
            }
            Effect::Assign { tasks, .. } => {
                for task in tasks {
                    let spec = serde_json::from_str(&task.body).map_err(|error| error.to_string())?;
                    self.hands.work.insert(task.key, (false, spec));
                    self.hands.waiting.push_back(task.key);
                }
            }
            Effect::Ack { up_to, .. } => {
                while let Some(report) = self.hands.reports.pop_front_if(|report| report.no <= up_to) {
                    if !matches!(report.body, ReportBody::Started { .. }) {
                        self.hands.work.remove(&report.key);
                    }
                }
            }
            other => return Err(format!("nothing led to {other:?}")),
        }
        Ok(())
    }

    /// What the worker does next: begins the first that waits, or ends it.
    fn next_report(&mut self) -> Option<Report> {
        let at = self.now().wall;
        let key = *self.hands.waiting.front()?;
        let (started, spec) = self.hands.work.get_mut(&key)?;
        let body = if *started {
            let spec = spec.clone();
            self.hands.waiting.pop_front();
            let (end, outputs) = self.hands.outcome_of(key.task, &spec);
            ended(at, end, outputs)
        } else {
            *started = true;
            ReportBody::Started { at }
        };
        Some(self.hands.report(key, body))
    }

    fn ending(&self) -> Result<Ending, String> {
        let (mut nodes, mut gone) = (BTreeMap::new(), BTreeSet::new());
        for (id, row) in self.store.rows.iter().filter(|(_, row)| !self.is_past(row.run.as_ref())) {
            let spec = self.store.spec_of(row).map(|spec| spec.body.to_string()).unwrap_or_default();
            let left = row.outcome.outputs.as_deref().unwrap_or("nothing");
            let text = format!("{} after {spec} left {left}", row.state.status);
            let is_gone = row.run.as_ref().is_some_and(|place| place.node.contains('~'));
            if is_gone {
                gone.insert(self.path_of(*id));
                continue;
            }
            if let Some(before) = nodes.insert(self.path_of(*id), text) {
                return Err(format!("task {id} is there twice: {before}"));
            }
        }
        for run in self.store.ties.runs.values().filter(|run| run.birth.parent.is_some()) {
            let name = run.birth.parent.map(|parent| self.path_of(parent)).unwrap_or_default();
            nodes.insert(format!("{name}/"), run.state.status.to_string());
        }
        let top = self.store.ties.runs.values().find(|run| run.birth.parent.is_none());
        let run = top.map(|run| run.state.status.to_string()).unwrap_or_default();
        Ok(Ending { run, nodes, gone, commits: self.commits })
    }

    /// Whether a task is a part of a child that was begun anew since.
    fn is_past(&self, place: Option<&RunNode>) -> bool {
        let Some(place) = place else { return false };
        let parent = self.store.ties.runs.get(&place.run).and_then(|run| run.birth.parent);
        parent.is_some_and(|parent| {
            let is_last = self.store.ties.child_of(parent).is_some_and(|run| run.id == place.run);
            !is_last || self.is_past(self.store.rows.get(&parent).and_then(|row| row.run.as_ref()))
        })
    }

    /// A node's name behind those of the nodes that it is in.
    fn path_of(&self, task: TaskId) -> String {
        let Some(place) = self.store.rows.get(&task).and_then(|row| row.run.as_ref()) else {
            return task.to_string();
        };
        let parent = self.store.ties.runs.get(&place.run).and_then(|run| run.birth.parent);
        match parent {
            Some(parent) => format!("{}/{}", self.path_of(parent), place.node),
            None => place.node.to_string(),
        }
    }
}

impl Hands {
    fn report(&mut self, key: AttemptKey, body: ReportBody) -> Report {
        self.last_report += 1;
        Report { no: self.last_report, key, body }
    }

    /// Gives back what has not begun.
    fn give_back(&mut self, keys: &[AttemptKey]) -> Vec<Report> {
        let is_idle = |key: &&AttemptKey| self.work.get(*key).is_some_and(|(started, _)| !started);
        let idle: Vec<AttemptKey> = keys.iter().filter(is_idle).copied().collect();
        self.waiting.retain(|key| !idle.contains(key));
        idle.into_iter().map(|key| self.report(key, ReportBody::Returned {})).collect()
    }

    /// Stops what it has of that.
    fn stop(&mut self, keys: &[AttemptKey], at: Wall) -> Vec<Report> {
        let known: Vec<AttemptKey> = keys.iter().filter(|key| self.waiting.contains(key)).copied().collect();
        self.waiting.retain(|key| !known.contains(key));
        let stopped = ended(at, End::Cancelled, None);
        known.into_iter().map(|key| self.report(key, stopped.clone())).collect()
    }

    /// What it has of that is nobody's any more.
    fn drop_all(&mut self, keys: &[AttemptKey]) {
        self.work.retain(|key, _| !keys.contains(key));
        self.waiting.retain(|key| !keys.contains(key));
        self.reports.retain(|report| !keys.contains(&report.key));
    }

    /// What a command says of its own end.
    fn outcome_of(&mut self, task: TaskId, spec: &Spec) -> (End, Option<String>) {
        let Payload::Shell { command } = &spec.payload else { return (End::Completed, None) };
        let (word, rest) = command.split_once(' ').unwrap_or((command, ""));
        match word {
            "give" => (End::Completed, Some(rest.to_owned())),
            "pass" => (End::Completed, Some(json!({"passed": spec.input}).to_string())),
            "flaky" if !self.failed.insert(task) => (End::Completed, Some(rest.to_owned())),
            _ => (End::Failed(RetryOn::Error), None),
        }
    }
}

fn ended(at: Wall, end: End, outputs: Option<String>) -> ReportBody {
    let error = (end == End::Failed(RetryOn::Error)).then(|| "it failed".into());
    let outcome = Outcome { outputs: outputs.map(|text| text.into()), error, ..Outcome::default() };
    let (started_at, finished_at) = (at, at);
    ReportBody::Finished(Box::new(Finished {
        started_at,
        finished_at,
        end,
        outcome,
        log_bytes: 0,
        log_cut: 0,
    }))
}

//! Short ways to make what is written.

use agentflow_core::batch::{
    AttemptEnd, AttemptRow, Batch, Counters, DefinitionRow, Outcome, OutcomeChange, RelationRow, RunBirth,
    RunNode, RunState, RunWrite, SpecRow, TaskBirth, TaskState, TaskWrite, WorkerRow,
};
use agentflow_core::event::{Event, Happening, Subject};
use agentflow_core::ids::{Attempt, BootId, DecisionNumber, Epoch, Fence, RunId, TaskId};
use agentflow_core::relation::Relation;
use agentflow_core::run::RunStatus;
use agentflow_core::spec::{Payload, Spec};
use agentflow_core::status::Status;
use agentflow_core::time::Wall;
use agentflow_schema::testing::TestDatabase;
use agentflow_schema::{Committed, Durability, Error, Gathered, Options, Writer};

/// A writer in office.
pub(crate) struct Store {
    pub(crate) writer: Writer,
    pub(crate) epoch: Epoch,
}

pub(crate) fn open(database: &TestDatabase) -> Store {
    open_with(database, Durability::Full)
}

/// For tests of many commits, which need not wait for the disk.
pub(crate) fn open_relaxed(database: &TestDatabase) -> Store {
    open_with(database, Durability::Normal)
}

fn open_with(database: &TestDatabase, durability: Durability) -> Store {
    let mut writer = Writer::open(database.target(), &Options { durability }).expect("an empty database");
    let epoch = writer.take_office(Wall(1)).expect("nobody else").epoch;
    Store { writer, epoch }
}

impl Store {
    pub(crate) fn try_commit(
        &mut self,
        batches: impl IntoIterator<Item = Batch>,
    ) -> Result<Committed, Error> {
        self.writer.commit(self.epoch, &gather(batches))
    }

    pub(crate) fn commit(&mut self, batches: impl IntoIterator<Item = Batch>) -> Committed {
        self.try_commit(batches).expect("a batch as the core writes it")
    }
}

pub(crate) fn gather(batches: impl IntoIterator<Item = Batch>) -> Gathered {
    let mut gathered = Gathered::new();
    for batch in batches {
        gathered.push(batch).expect("decisions in order");
    }
    gathered
}

pub(crate) fn batch(decision: u64) -> Batch {
    Batch { decision: DecisionNumber(decision), ..Batch::default() }
}

pub(crate) fn spec(payload: Payload) -> SpecRow {
    spec_row(&Spec::new(payload))
}

pub(crate) fn spec_row(spec: &Spec) -> SpecRow {
    let body = spec.canonical();
    SpecRow { hash: Spec::hash_of(&body), body: body.into(), blobs: Box::default() }
}

pub(crate) fn noop() -> SpecRow {
    spec(Payload::Noop)
}

/// A state that the core could have written.
pub(crate) fn state(status: Status) -> TaskState {
    let held = status == Status::Running || status.is_settled();
    TaskState {
        status,
        group: "default".into(),
        priority: 50,
        attempt: Attempt(u32::from(held)),
        fence: Fence(u64::from(held)),
        failures: 0,
        lost: 0,
        version: 1,
        worker: held.then(|| "w1".into()),
        ready_at: Wall(10),
        assigned_at: held.then_some(Wall(20)),
        started_at: held.then_some(Wall(30)),
        settled_at: status.is_settled().then_some(Wall(40)),
        cancelling: false,
        waits: None,
    }
}

pub(crate) fn birth(spec: &SpecRow, at: i64) -> Option<Box<TaskBirth>> {
    Some(Box::new(TaskBirth { spec: spec.hash, title: "A title".into(), created_at: Wall(at), run: None }))
}

pub(crate) fn new_task(id: u64, spec: &SpecRow, state: TaskState) -> TaskWrite {
    TaskWrite {
        id: TaskId(id),
        birth: birth(spec, 5),
        spec: None,
        title: None,
        state,
        outcome: OutcomeChange::Keep,
    }
}

pub(crate) fn changed(id: u64, state: TaskState) -> TaskWrite {
    TaskWrite { id: TaskId(id), birth: None, spec: None, title: None, state, outcome: OutcomeChange::Keep }
}

pub(crate) fn with_outcome(task: TaskWrite, outcome: Outcome) -> TaskWrite {
    TaskWrite { outcome: OutcomeChange::Set(Box::new(outcome)), ..task }
}

pub(crate) fn exit(code: i32) -> Outcome {
    Outcome { exit_code: Some(code), result: Some("a result".into()), ..Outcome::default() }
}

pub(crate) fn event(id: u64, at: i64, happening: Happening) -> Event {
    Event { at: Wall(at), subject: Subject::Task(TaskId(id)), happening }
}

pub(crate) fn created(id: u64) -> Event {
    event(id, 5, Happening::TaskCreated { group: "default".into(), priority: 50, run: None, node: None })
}

pub(crate) fn completed(id: u64) -> Event {
    event(id, 40, Happening::TaskCompleted { attempt: Attempt(1) })
}

pub(crate) fn attempt(id: u64, number: u32, end: AttemptEnd) -> AttemptRow {
    AttemptRow {
        task: TaskId(id),
        attempt: Attempt(number),
        fence: Fence(u64::from(number)),
        worker: "w1".into(),
        assigned_at: Wall(20),
        started_at: Some(Wall(30)),
        ended_at: Wall(40),
        end,
        outcome: exit(1),
    }
}

pub(crate) fn worker(name: &str) -> WorkerRow {
    WorkerRow {
        name: name.into(),
        boot: BootId(u64::MAX - 1),
        groups: vec!["default".into(), "gpu".into()],
        labels: [("os".to_owned(), "linux".to_owned())].into(),
        slots: 4,
        prefetch: 16,
        draining: false,
        registered_at: Wall(1),
        changed_at: Wall(2),
    }
}

/// Creates `ids` as pending noops, in one decision.
pub(crate) fn creation(decision: u64, ids: std::ops::RangeInclusive<u64>) -> Batch {
    let spec = noop();
    Batch {
        tasks: ids.clone().map(|id| new_task(id, &spec, state(Status::Pending))).collect(),
        events: ids.clone().map(created).collect(),
        specs: vec![spec],
        counters: Counters { last_task: TaskId(*ids.end()), ..Counters::default() },
        ..batch(decision)
    }
}

/// A workflow that differs from others by its name only.
pub(crate) fn definition(name: &str) -> DefinitionRow {
    let body = format!(r#"{{"name":"{name}"}}"#);
    DefinitionRow { hash: Spec::hash_of(&body), body: body.into() }
}

pub(crate) fn run_state(status: RunStatus) -> RunState {
    RunState {
        status,
        revision: 1,
        version: 1,
        settled_at: status.is_settled().then_some(Wall(40)),
        error: (status == RunStatus::Failed).then(|| "a node failed".into()),
        stopping: None,
    }
}

pub(crate) fn run_birth(definition: &DefinitionRow, first_task: u64, nodes: u32) -> RunBirth {
    RunBirth {
        definition: definition.hash,
        name: "A run".into(),
        mode: "dag",
        first_task: TaskId(first_task),
        nodes,
        inputs: r#"{"a":1}"#.into(),
        parent: None,
        created_at: Wall(5),
    }
}

pub(crate) fn new_run(id: u64, birth: RunBirth, state: RunState) -> RunWrite {
    RunWrite { id: RunId(id), birth: Some(Box::new(birth)), change: None, state }
}

pub(crate) fn changed_run(id: u64, state: RunState) -> RunWrite {
    RunWrite { id: RunId(id), birth: None, change: None, state }
}

pub(crate) fn place(run: u64, node: &str) -> RunNode {
    RunNode { run: RunId(run), node: node.into() }
}

/// The same new task, as a node of a run.
pub(crate) fn as_node(task: TaskWrite, run: u64, node: &str) -> TaskWrite {
    let birth = task.birth.map(|birth| Box::new(TaskBirth { run: Some(place(run, node)), ..*birth }));
    TaskWrite { birth, ..task }
}

/// Creates a run of noops with these tasks as its nodes `n1`, `n2` and so on, in one decision.
pub(crate) fn run_creation(decision: u64, run: u64, ids: std::ops::RangeInclusive<u64>) -> Batch {
    let definition = definition(&format!("of run {run}"));
    let nodes = u32::try_from(ids.clone().count()).expect("few");
    let spec = noop();
    Batch {
        runs: vec![new_run(run, run_birth(&definition, *ids.start(), nodes), run_state(RunStatus::Running))],
        definitions: vec![definition],
        tasks: ids
            .zip(1..)
            .map(|(id, n)| as_node(new_task(id, &spec, state(Status::Pending)), run, &format!("n{n}")))
            .collect(),
        specs: vec![spec],
        counters: Counters { last_run: RunId(run), ..Counters::default() },
        ..batch(decision)
    }
}

pub(crate) fn relation(predecessor: u64, successor: u64, relation: Relation) -> RelationRow {
    RelationRow {
        predecessor: TaskId(predecessor),
        successor: TaskId(successor),
        relation,
        created_at: Wall(5),
    }
}

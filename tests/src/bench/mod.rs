//! Measures the real programs and says each figure beside the unit that it is to be compared with.
//!
//! Owns: what is measured and how, the native load client, the table. Every ratio is taken in one run
//! on one machine, its unit measured between the rounds of what is compared with it: absolute figures
//! of a shared machine say little. Nothing here asserts a time.
//!
//! Invariant: a rate ends with the last outcome recorded, as the master's own counts of committed
//! state tell it, never with what was merely sent.

mod elsewhere;
mod figure;
mod growth;
mod hook;
mod idle;
mod latency;
mod line;
mod load;
mod locks;
mod many_locks;
mod queue;
mod runs;
mod saves;
mod spawn;
mod stage;
mod throughput;

use std::time::Duration;

use agentflow_schema::testing::TestDatabase;

pub use figure::{Figure, json, table};

use crate::harness::Failure;

/// Where the master under test keeps its state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Database {
    /// A SQLite file, `synchronous=FULL`.
    Sqlite,
    /// The server of the tests, as it is configured.
    Postgres,
}

impl Database {
    fn make(self) -> Result<TestDatabase, Failure> {
        match self {
            Self::Sqlite => Ok(TestDatabase::sqlite()),
            Self::Postgres => TestDatabase::postgres().ok_or_else(|| "there is no PostgreSQL".into()),
        }
    }

    /// What an acknowledged write survives.
    #[must_use]
    pub fn durability(self) -> &'static str {
        match self {
            Self::Sqlite => "SQLite FULL",
            Self::Postgres => "PostgreSQL, as configured",
        }
    }
}

/// How much of everything.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    /// Tasks of one submitted batch.
    pub batch: usize,
    /// Batches of one round of throughput.
    pub batches: usize,
    /// Rounds of throughput; the median counts.
    pub rounds: usize,
    /// Single submissions.
    pub singles: usize,
    /// Idle tasks, one after the other.
    pub idle_tasks: usize,
    /// Processes of one round of spawning.
    pub spawns: usize,
    /// Queued tasks whose memory is measured, and the long queue of the growth.
    pub many: usize,
    /// The short queue of the growth.
    pub few: usize,
    /// Queued tasks before a restart.
    pub restart: usize,
    /// Starts of a program.
    pub starts: usize,
    /// Rounds of one workflow.
    pub runs: usize,
    /// Nodes between the first and the last of a fan.
    pub fan: usize,
    /// Nodes of the large graph.
    pub graph: usize,
    /// Tasks that want the same key.
    pub handoffs: usize,
    /// Checkpoints of each task that saves.
    pub saves: usize,
    /// Tasks that save at once.
    pub savers: u32,
    /// Bytes of a large checkpoint.
    pub large: usize,
    /// Locks of one request of many.
    pub lock_batch: usize,
    /// Requests of many locks in one round.
    pub lock_batches: usize,
    /// Locks that are taken and given back one by one in one round.
    pub lock_singles: usize,
    /// Locks that are handed on to one who waits.
    pub lock_handoffs: usize,
    /// Files that are locked beside what is decided, and a hundredth of that many patterns.
    pub locked: usize,
    /// Answers of the hook.
    pub hooks: usize,
    /// Seconds that each of four tasks takes.
    pub sleep: &'static str,
}

impl Scale {
    /// What the published figures are made with.
    pub const FULL: Self = Self {
        batch: 10_000,
        batches: 20,
        rounds: 3,
        singles: 100_000,
        idle_tasks: 500,
        spawns: 3_000,
        many: 1_000_000,
        few: 10_000,
        restart: 100_000,
        starts: 10,
        runs: 30,
        fan: 1_000,
        graph: 100_000,
        handoffs: 500,
        saves: 500,
        savers: 50,
        large: 16 << 20,
        lock_batch: 1_000,
        lock_batches: 100,
        lock_singles: 20_000,
        lock_handoffs: 1_000,
        locked: 100_000,
        hooks: 500,
        sleep: "1",
    };

    /// To see that everything works; the figures mean nothing.
    pub const QUICK: Self = Self {
        batch: 100,
        batches: 2,
        rounds: 1,
        singles: 200,
        idle_tasks: 5,
        spawns: 20,
        many: 1_000,
        few: 200,
        restart: 300,
        starts: 1,
        runs: 2,
        fan: 20,
        graph: 300,
        handoffs: 10,
        saves: 5,
        savers: 3,
        large: 100 << 10,
        lock_batch: 20,
        lock_batches: 4,
        lock_singles: 64,
        lock_handoffs: 5,
        locked: 200,
        hooks: 3,
        sleep: "0.05",
    };
}

/// How long anything may take before the benchmark gives up.
const PATIENCE: Duration = Duration::from_secs(600);

type Measure = fn(Database, Scale) -> Result<Vec<Figure>, Failure>;

/// Every measure by the name that `--only` takes.
pub const MEASURES: &[(&str, Measure)] = &[
    ("noop", throughput::ordinary),
    ("noop-prefetch", throughput::prefetching),
    ("singles", throughput::singles),
    ("latency", latency::measure),
    ("exec", spawn::measure),
    ("memory", queue::memory),
    ("restart", queue::restart),
    ("idle", idle::measure),
    ("growth", growth::one_group),
    ("growth-mixed", growth::mixed),
    ("chain", runs::chain),
    ("chain-exec", runs::chain_exec),
    ("fan", runs::fan),
    ("foreach", runs::foreach),
    ("graph", runs::graph),
    ("keys", runs::keys),
    ("slots", runs::slots),
    ("checkpoint", saves::small),
    ("checkpoint-rate", saves::rate),
    ("checkpoint-large", saves::large),
    ("continue", elsewhere::measure),
    ("locks", locks::batches),
    ("locks-singles", locks::singles),
    ("locks-handoff", locks::handoff),
    ("locks-many", many_locks::measure),
    ("hook", hook::measure),
];

//! The master system: what is started in which order, and stopped in the reverse one.
//!
//! Start: open the database, take office, recover, then the arbiters from the store outwards.
//! Addresses are handed out explicitly; there is no registry of actors and no global.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::time::Instant;

use actix::{Actor, Addr, AsyncContext, Context, Recipient};
use actix_rt::{Arbiter, ArbiterHandle};
use agentflow_core::batch::{DefinitionRow, RoundRow, RunRow, SettledNode};
use agentflow_core::ids::{Epoch, RunId, SpecHash, TaskId};
use agentflow_core::kernel::{self, Kernel, LockSecret, Output, RecoveryError, RecoveryPlan, SavedRun};
use agentflow_core::limits;
use agentflow_protocol::schedule;
use agentflow_protocol::workflow::WorkflowTasks;
use agentflow_schema::{Blobs, Checkpointer, Durability, Gathered, Office, Options, Readers, Target, Writer};
use agentflow_workflow::Definition;
use tokio::sync::oneshot;

use crate::clock::Clock;
use crate::dispatcher::Dispatcher;
use crate::hub::EventHub;
use crate::janitor::Janitor;
use crate::registry::WorkerRegistry;
use crate::scheduler::Scheduler;
use crate::store::{Finish, PrunedLogs, Store, StoreHealth};
use crate::supervise::{self, Fatal};
use crate::values;

/// What a master is started with.
#[derive(Clone)]
pub struct Settings {
    /// The database.
    pub target: Target,
    /// What a commit survives.
    pub durability: Durability,
    /// Where files go.
    pub data_dir: PathBuf,
    /// How long a worker is trusted after its last sign of life.
    pub lease_ms: u64,
    /// How often a worker gives one.
    pub heartbeat_ms: u64,
    /// Days for which events and settled tasks are kept.
    pub retention_days: u64,
    /// Told of output that retention has made useless.
    pub pruned_logs: Option<Recipient<PrunedLogs>>,
}

/// Why a master cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The database cannot be used.
    #[error(transparent)]
    Store(#[from] agentflow_schema::Error),
    /// The database holds rows that no version of this program writes.
    #[error("the database contradicts itself: {0}")]
    Recovery(#[from] RecoveryError),
    /// The text of a run's workflow cannot be read.
    #[error("run {run}: its workflow cannot be read: {reason}")]
    Workflow {
        /// Which run.
        run: RunId,
        /// Why.
        reason: String,
    },
    /// The system gives no random numbers, of which the ids of locks are made.
    #[error("the system gives no random numbers: {0}")]
    Random(#[from] getrandom::Error),
    /// An arbiter ended while it was started.
    #[error("the runtime ended while the master was starting")]
    Runtime,
}

/// This term of office.
#[derive(Clone, Debug)]
pub struct OfficeInfo {
    /// Its number.
    pub epoch: Epoch,
    /// Names the log of events.
    pub log_id: String,
    /// When it began.
    pub started: Instant,
    /// Live tasks that were found.
    pub recovered: usize,
}

/// The ways into a running master. Cheap to clone.
#[derive(Clone)]
pub struct MasterHandles {
    /// Clients' requests.
    pub dispatcher: Addr<Dispatcher>,
    /// Workers' sockets.
    pub registry: Addr<WorkerRegistry>,
    /// Events.
    pub events: Addr<EventHub>,
    /// Reads of committed rows; they block.
    pub readers: Readers,
    /// Bytes by their hash; reading and writing them blocks.
    pub blobs: Blobs,
    /// This term of office.
    pub office: Arc<OfficeInfo>,
    /// How the store is doing.
    pub store: Arc<StoreHealth>,
    /// Why the master cannot go on, if so.
    pub fatal: Fatal,
}

/// A running master's actors.
pub struct MasterSystem {
    handles: MasterHandles,
    store: Addr<Store>,
    /// In the order in which they are stopped.
    arbiters: Vec<Arbiter>,
}

impl MasterSystem {
    /// Opens the database, takes office, recovers, and starts the actors. Blocks for as long as
    /// that takes: about 3 s per million live tasks. Call it within a running actix system.
    ///
    /// # Errors
    /// When the database cannot be used or its rows contradict themselves.
    pub fn start(settings: Settings) -> Result<Self, StartError> {
        let started = Instant::now();
        let clock = Clock::new();
        let mut writer = Writer::open(&settings.target, &Options { durability: settings.durability })?;
        let office = writer.take_office(clock.now().wall)?;
        let recovered = writer.recover()?;
        let blobs = Blobs::open(&settings.target, &settings.data_dir.join("blobs"))?;
        let (nodes, rounds) = (recovered.settled_nodes, recovered.rounds);
        let mut runs = saved_runs(recovered.runs, &recovered.definitions, nodes, rounds, recovered.outdated)?;
        let mut budget = limits::HELD_BYTES;
        for run in runs.iter_mut().filter(|run| run.has_large_values()) {
            for left in run.unread(&[]) {
                values::read(&blobs, left, &mut budget)?;
            }
        }
        let plan = RecoveryPlan::new(recovered.tasks, recovered.specs, recovered.workers)?
            .with_saved(recovered.saved, recovered.memories)
            .with_ties(runs, recovered.relations)
            .with_key_limits(recovered.key_limits)
            .with_locks(recovered.lock_spaces, recovered.locks)
            .with_schedules(recovered.schedules.into_iter().map(schedule::saved).collect());
        let found = plan.tasks();
        let mut lock_secret = LockSecret::default();
        getrandom::fill(&mut lock_secret.0)?;
        let kernel_settings =
            kernel::Settings { lease_ms: settings.lease_ms, lock_secret, ..Default::default() };
        let maker = Arc::new(WorkflowTasks);
        let (kernel, output) =
            Kernel::recover(kernel_settings, office.epoch, office.counters, plan, clock.now(), maker);
        let readers = Readers::open(&settings.target)?;
        let checkpointer = Checkpointer::open(&settings.target)?;
        let info = Arc::new(OfficeInfo {
            epoch: office.epoch,
            log_id: office.log_id.clone(),
            started,
            recovered: found,
        });
        log::info!("epoch {}: {found} live tasks recovered in {:?}", office.epoch, started.elapsed());
        let parts = Parts { settings, clock, writer, blobs, office, kernel, output, checkpointer };
        parts.start(readers, info)
    }

    /// The ways in.
    #[must_use]
    pub fn handles(&self) -> MasterHandles {
        self.handles.clone()
    }

    /// Writes what is decided and ends the actors. Call it when nothing comes in any more.
    pub async fn stop(mut self) {
        // What the sessions' ends decided is on its way to the store by now: the scheduling
        // arbiter answers, so everything before was handled.
        let stats = crate::dispatcher::Ask(agentflow_core::kernel::Request::Stats);
        let settled =
            actix_rt::time::timeout(std::time::Duration::from_secs(1), self.handles.dispatcher.send(stats));
        if settled.await.is_err() && self.handles.fatal.reason().is_none() {
            log::warn!("the store did not answer within 1 s; what it has is written now");
        }
        if self.store.send(Finish).await.is_err() {
            log::error!("the store was gone before the end");
        }
        for arbiter in &self.arbiters {
            arbiter.stop();
        }
        for arbiter in self.arbiters.drain(..) {
            if arbiter.join().is_err() {
                log::error!("an arbiter ended by a panic");
            }
        }
    }
}

/// Puts the parts of each live run together.
fn saved_runs(
    rows: Vec<RunRow>,
    definitions: &[DefinitionRow],
    settled: Vec<SettledNode>,
    mut rounds: Vec<RoundRow>,
    mut outdated: Vec<TaskId>,
) -> Result<Vec<SavedRun>, StartError> {
    let texts: BTreeMap<SpecHash, &str> = definitions.iter().map(|row| (row.hash, &*row.body)).collect();
    let mut nodes: BTreeMap<RunId, Vec<SettledNode>> = BTreeMap::new();
    for node in settled {
        nodes.entry(node.node.run).or_default().push(node);
    }
    let saved = rows.into_iter().map(|row| {
        let damaged = |reason| StartError::Workflow { run: row.id, reason };
        let text = texts.get(&row.birth.definition).ok_or_else(|| damaged("it is missing".to_owned()))?;
        let definition = Definition::from_json(text).map_err(|error| damaged(error.to_string()))?;
        let settled = nodes.remove(&row.id).unwrap_or_default();
        let is_own = |task: TaskId| row.numbers.node_of(task).is_some();
        let rounds = rounds.extract_if(.., |round| is_own(round.task)).collect();
        let outdated = outdated.extract_if(.., |task| is_own(*task)).collect();
        Ok(SavedRun { definition: Arc::new(definition), settled, rounds, outdated, row })
    });
    saved.collect()
}

/// Everything that was made before the first actor.
struct Parts {
    settings: Settings,
    clock: Clock,
    writer: Writer,
    blobs: Blobs,
    office: Office,
    kernel: Kernel,
    output: Output,
    checkpointer: Checkpointer,
}

impl Parts {
    fn start(self, readers: Readers, office: Arc<OfficeInfo>) -> Result<MasterSystem, StartError> {
        let Self {
            settings,
            clock,
            writer,
            blobs,
            office: Office { epoch, head_seq, .. },
            kernel,
            output,
            checkpointer,
        } = self;
        let fatal = Fatal::new();
        let health = Arc::new(StoreHealth::default());
        let arbiters: [Arbiter; 4] = std::array::from_fn(|_| Arbiter::new());
        let [schedule, store_arbiter, events_arbiter, janitor_arbiter] = &arbiters;

        let events = run_on(&events_arbiter.handle(), "EventHub", &fatal, move || EventHub::new(head_seq))?;

        // The dispatcher's address is needed by the store, and the store's by the dispatcher: its
        // mailbox is made first and its actor put in when the store is there.
        let (to_scheduler, from_store) = oneshot::channel::<Addr<Store>>();
        let (sender, receiver) = mpsc::channel();
        let scheduling_fatal = fatal.clone();
        let sessions_blobs = blobs.clone();
        let (heartbeat_ms, lease_ms) = (settings.heartbeat_ms, settings.lease_ms);
        let begun = schedule.spawn_fn(move || {
            let dispatcher_context = Context::<Dispatcher>::new();
            let registry_context = Context::<WorkerRegistry>::new();
            let dispatcher = dispatcher_context.address();
            if sender.send((dispatcher.clone(), registry_context.address())).is_err() {
                return;
            }
            actix_rt::spawn(async move {
                let Ok(store) = from_store.await else { return };
                let scheduler = Scheduler::new(kernel, clock, store, dispatcher, scheduling_fatal.clone());
                let registry = WorkerRegistry {
                    scheduler: scheduler.clone(),
                    blobs: sessions_blobs,
                    heartbeat_ms,
                    lease_ms,
                    sessions: 0,
                };
                supervise::run_vital(registry_context, registry, "WorkerRegistry", &scheduling_fatal);
                let actor = Dispatcher::new(scheduler.clone());
                supervise::run_vital(dispatcher_context, actor, "Dispatcher", &scheduling_fatal);
                scheduler.carry_out(output);
            });
        });
        if !begun {
            return Err(StartError::Runtime);
        }
        let (dispatcher, registry) = receiver.recv().map_err(|_| StartError::Runtime)?;

        let store = Store {
            writer,
            blobs: blobs.clone(),
            epoch,
            schedule: dispatcher.clone().recipient(),
            hub: events.clone(),
            pruned_logs: settings.pruned_logs,
            health: Arc::clone(&health),
            fatal: fatal.clone(),
            gathered: Gathered::new(),
            events: Vec::new(),
            decided_rows: 0,
            flushing: false,
            lingering: false,
            retrying: false,
        };
        let store = run_on(&store_arbiter.handle(), "Store", &fatal, move || store)?;
        to_scheduler.send(store.clone()).map_err(|_| StartError::Runtime)?;

        let janitor = Janitor {
            checkpointer,
            store: store.clone(),
            readers: readers.clone(),
            blobs: blobs.clone(),
            retention_days: settings.retention_days,
        };
        run_on(&janitor_arbiter.handle(), "Janitor", &fatal, move || janitor)?;

        let handles =
            MasterHandles { dispatcher, registry, events, readers, blobs, office, store: health, fatal };
        Ok(MasterSystem { handles, store, arbiters: arbiters.into() })
    }
}

/// Starts a vital actor on an arbiter of its own.
fn run_on<A>(
    arbiter: &ArbiterHandle,
    name: &'static str,
    fatal: &Fatal,
    make: impl FnOnce() -> A + Send + 'static,
) -> Result<Addr<A>, StartError>
where
    A: Actor<Context = Context<A>>,
{
    let (sender, receiver) = mpsc::channel();
    let fatal = fatal.clone();
    let begun = arbiter.spawn_fn(move || {
        let address = supervise::run_vital(Context::new(), make(), name, &fatal);
        // The receiver waits below.
        let _ = sender.send(address);
    });
    if !begun {
        return Err(StartError::Runtime);
    }
    receiver.recv().map_err(|_| StartError::Runtime)
}

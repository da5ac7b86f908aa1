//! The world: one clock, one agenda, one source of chance. Everything else happens in it.
//!
//! No thread, no real clock, no I/O: the same seed tells the same story, to the letter.

use std::collections::{BTreeMap, VecDeque};

use agentflow_core::ids::{BootId, DecisionNumber, Fence, ReplyTo, RunId, SessionEpoch, TaskId};
use agentflow_core::kernel::{Input, LoadedRun, Output, Settings};

use super::client::Clients;
use super::faults::Faults;
use super::invariants::Ledger;
use super::master::Master;
use super::network::{Downward, Network, Upward};
use super::random::Random;
use super::requests::Kinds;
use super::store::Store;
use super::worker::{Alarm, Worker};

/// A fault that no system may have, put in on purpose: the simulation must see it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Sabotage {
    /// None: the system as it is.
    #[default]
    None,
    /// Reports of old assignments pass for reports of the present one, as they would if the fence
    /// were not checked.
    StaleReports,
    /// Some effects leave before their decision is durable.
    EarlyEffects,
    /// Some batches are said to be durable and are not.
    ForgetBatch,
    /// Checkpoints that are durable are lost.
    LoseCheckpoint,
    /// A new master does not find the newest checkpoint of a task.
    OldCheckpoint,
    /// Workflows lose an edge on their way to the kernel, as they would if one were forgotten in its
    /// graph.
    DropEdge,
}

/// What is planned.
#[derive(Debug)]
pub(super) enum Happening {
    AtMaster { session: SessionEpoch, frame: Upward },
    AtWorker { session: SessionEpoch, frame: Downward },
    ClosedAtMaster { session: SessionEpoch },
    ClosedAtWorker { session: SessionEpoch },
    Alarm { worker: usize, boot: BootId, alarm: Alarm },
    Act,
    AtDoor { to: ReplyTo },
    Ask { life: u64, to: ReplyTo },
    Abandon { life: u64, to: ReplyTo },
    Tick { life: u64 },
    Commit { life: u64 },
    Committed { life: u64, decision: DecisionNumber },
    Loaded { life: u64, asked: Vec<TaskId> },
    RunLoaded { life: u64, run: RunId, loaded: Option<Box<LoadedRun>> },
    MasterStarts,
    Fault,
}

/// The latest inputs, for people. Off while many seeds run: a failing one is simply run again.
#[derive(Debug, Default)]
pub(super) struct Trace {
    pub(super) is_on: bool,
    pub(super) lines: VecDeque<String>,
}

const TRACE_LINES: usize = 60;
const TRACE_CHARS: usize = 400;

impl Trace {
    pub(super) fn note(&mut self, now_us: i64, input: &Input) {
        if self.is_on {
            self.say(now_us, &format!("{input:?}"));
        }
    }

    /// What a step decided.
    pub(super) fn note_events(&mut self, now_us: i64, output: &Output) {
        let Some(batch) = output.batch.as_ref().filter(|_| self.is_on) else { return };
        let events: Vec<String> =
            batch.events.iter().map(|event| format!("{} {:?}", event.subject, event.happening)).collect();
        if !events.is_empty() {
            self.say(now_us, &format!("  {:?}: {}", batch.decision, events.join("; ")));
        }
    }

    pub(super) fn say(&mut self, now_us: i64, text: &str) {
        if !self.is_on {
            return;
        }
        if self.lines.len() == TRACE_LINES {
            self.lines.pop_front();
        }
        let short: String = text.chars().take(TRACE_CHARS).collect();
        self.lines.push_back(format!("{:>9}.{:03} ms  {short}", now_us / 1_000, now_us % 1_000));
    }
}

/// Everything there is.
#[derive(Debug)]
pub(super) struct World {
    pub(super) random: Random,
    pub(super) now_us: i64,
    pub(super) wall_shift_us: i64,
    pub(super) master: Master,
    pub(super) store: Store,
    pub(super) network: Network,
    pub(super) workers: Vec<Worker>,
    pub(super) clients: Clients,
    pub(super) ledger: Ledger,
    pub(super) faults: Faults,
    pub(super) kinds: Kinds,
    /// Whether workers say things twice.
    pub(super) duplicates: bool,
    pub(super) slow_store_until: i64,
    /// Whether faults and new requests have stopped.
    pub(super) is_calm: bool,
    /// Since when.
    pub(super) calm_at: i64,
    /// A task that waits at a busy worker while another is idle, and since when.
    pub(super) waits_since: Option<(TaskId, Fence, i64)>,
    pub(super) sabotage: Sabotage,
    pub(super) kernel_steps: u64,
    pub(super) trace: Trace,
    agenda: BTreeMap<(i64, u64), Happening>,
    planned: u64,
    act_every_ms: u64,
}

impl World {
    /// The world of that seed, at its beginning.
    pub(super) fn new(seed: u64, sabotage: Sabotage) -> Self {
        let mut random = Random::new(seed);
        let settings = Settings {
            lease_ms: random.pick(&[500, 1_000, 3_000]).unwrap_or(1_000),
            lease_margin_ms: 100,
            live_tasks: random.pick(&[30, 1_000]).unwrap_or(1_000),
            ..Settings::default()
        };
        let count = random.between(1, 4);
        let workers = (0..count)
            .map(|n| {
                let groups: &[&str] = match random.below(3) {
                    0 => &["default"],
                    1 => &["default", "build"],
                    _ => &["build", "default"],
                };
                let zone = random.pick(&["a", "b"]).unwrap_or("a");
                let slots = random.pick(&[1, 2, 4]).unwrap_or(1);
                let prefetch = random.pick(&[0, 1, 4]).unwrap_or(0);
                Worker::new(&format!("w{n}"), groups, zone, slots, prefetch)
            })
            .collect();
        let mut world = Self {
            now_us: 0,
            wall_shift_us: 0,
            master: Master::new(settings),
            store: Store::default(),
            network: Network::default(),
            workers,
            clients: Clients::default(),
            ledger: Ledger::default(),
            faults: Faults::draw(&mut random),
            kinds: Kinds::draw(&mut random),
            duplicates: random.chance(700),
            slow_store_until: 0,
            is_calm: false,
            calm_at: 0,
            waits_since: None,
            sabotage,
            kernel_steps: 0,
            trace: Trace::default(),
            agenda: BTreeMap::new(),
            planned: 0,
            act_every_ms: random.pick(&[20, 60, 200, 1_000]).unwrap_or(60),
            random,
        };
        for worker in 0..world.workers.len() {
            let delay = world.random.ms(0, 500);
            world.alarm(worker, delay, Alarm::Start);
        }
        world.plan(0, Happening::Act);
        world.plan(500_000, Happening::Fault);
        world
    }

    /// Puts something on the agenda.
    pub(super) fn plan(&mut self, at: i64, happening: Happening) {
        self.planned += 1;
        self.agenda.insert((at.max(self.now_us), self.planned), happening);
    }

    /// Whether nothing is planned any more.
    pub(super) fn is_over(&self) -> bool {
        self.agenda.is_empty()
    }

    /// Lets the next thing happen.
    pub(super) fn advance(&mut self) -> Result<(), String> {
        let Some(((at, _), happening)) = self.agenda.pop_first() else {
            return Err("nothing is planned any more".to_owned());
        };
        self.now_us = at;
        match happening {
            Happening::AtMaster { session, frame } => self.at_master(session, frame),
            Happening::AtWorker { session, frame } => self.at_worker(session, frame),
            Happening::ClosedAtMaster { session } => self.on_closed_at_master(session),
            Happening::ClosedAtWorker { session } => {
                self.on_closed_at_worker(session);
                Ok(())
            }
            Happening::Alarm { worker, boot, alarm } => self.on_alarm(worker, boot, alarm),
            Happening::Act => {
                if !self.is_calm {
                    self.act()?;
                    let next = self.random.ms(1, 2 * self.act_every_ms);
                    self.plan(self.now_us + next, Happening::Act);
                }
                Ok(())
            }
            Happening::AtDoor { to } => self.at_door(to),
            Happening::Ask { life, to } => self.ask(life, to),
            Happening::Abandon { life, to } => self.abandon(life, to),
            Happening::Tick { life } => self.on_tick(life),
            Happening::Commit { life } => self.on_commit(life),
            Happening::Committed { life, decision } => self.on_committed(life, decision),
            Happening::Loaded { life, asked } => self.on_loaded(life, asked),
            Happening::RunLoaded { life, run, loaded } if life == self.master.life => {
                self.step(Input::RunLoaded { run, loaded })
            }
            Happening::RunLoaded { .. } => Ok(()),
            Happening::MasterStarts => self.start_master(),
            Happening::Fault => self.strike(),
        }
    }
}

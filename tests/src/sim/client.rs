//! Clients and the master's door: requests, and answers that get lost. What an answer promises is in
//! `answers.rs`, what is asked about runs and relations in `requests.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use agentflow_core::batch::KeyHash;
use agentflow_core::ids::{BootId, CheckpointId, ReplyTo, RunId, TaskId};
use agentflow_core::kernel::{
    Answer, Input, NewTask, Predecessor, PreparedSpec, Reply, Request, SubmitKey, Unlock,
};
use agentflow_core::rejection::Rejection;
use agentflow_core::spec::{ContinueFrom, OnDisconnect, Payload, Resources, RetryOn, Spec};

use super::world::{Happening, World};

/// A request on its way, and what its answer will be held to.
#[derive(Clone, Debug)]
pub(super) struct Pending {
    pub(super) request: Request,
    /// How often the tasks that it names had been opened again when it was sent.
    pub(super) reopenings: Vec<u32>,
    /// The master's life that took it; `None` while it travels.
    life: Option<u64>,
}

/// All clients together.
#[derive(Debug, Default)]
pub(super) struct Clients {
    pending: BTreeMap<ReplyTo, Pending>,
    /// Tasks that answers have named.
    known: Vec<TaskId>,
    /// Requests whose clients have gone away.
    abandoned: BTreeSet<ReplyTo>,
    submissions: u64,
    answers: u64,
}

impl Clients {
    /// Whether nobody waits for an answer.
    pub(super) fn is_idle(&self) -> bool {
        self.pending.is_empty()
    }

    /// A number that no submission has had.
    pub(super) fn next_submission(&mut self) -> u64 {
        self.submissions += 1;
        self.submissions
    }

    /// Whoever asked goes away. False if he asked for nothing that is under way.
    pub(super) fn abandon(&mut self, to: ReplyTo) -> bool {
        // One with a key comes again, and finds what it got.
        let may_go = |pending: &Pending| pending.life.is_some() && !has_key(&pending.request);
        let goes = self.pending.get(&to).is_some_and(may_go);
        if goes {
            self.pending.remove(&to);
            self.abandoned.insert(to);
        }
        goes
    }

    /// Answers so far.
    pub(super) fn answers(&self) -> u64 {
        self.answers
    }
}

/// A command that runs until it is told to stop.
const ENDLESS: &str = "endless";

/// Whether an attempt of that runs until it is told to stop.
pub(super) fn is_endless(spec: &Spec) -> bool {
    matches!(&spec.payload, Payload::Shell { command } if command == ENDLESS)
}

/// Unsettled tasks beyond which clients hold back.
const ENOUGH: usize = 60;

impl World {
    /// Some client does something.
    pub(super) fn act(&mut self) -> Result<(), String> {
        let live = self.store.live().count();
        let request = match self.random.below(54) {
            0..=9 if live < ENOUGH => self.new_submission(),
            10 => Request::Cancel { tasks: self.endless().into_iter().take(1).collect() },
            11..=12 => Request::Cancel { tasks: self.some_tasks() },
            13..=14 => Request::Retry { tasks: self.some_tasks(), continue_from: self.continue_from() },
            15 => Request::Patch {
                tasks: self.some_tasks(),
                priority: self.random.pick(&[None, Some(10), Some(50), Some(90)]).flatten(),
                group: self.random.pick(&[None, Some("default"), Some("build")]).flatten().map(Arc::from),
            },
            16 => Request::Why { task: self.some_tasks().first().copied().unwrap_or(TaskId(1)) },
            17 => Request::Workers,
            18 if self.faults.drain && self.random.chance(300) => {
                let worker = self.random.below(self.workers.len());
                Request::Drain { worker: Arc::clone(&self.workers[worker].name) }
            }
            20..=27 => self.relation_request().unwrap_or(Request::Stats),
            28..=35 if live < ENOUGH => self.run_request()?.unwrap_or(Request::Stats),
            36..=45 => self.change_request().unwrap_or(Request::Stats),
            46..=53 => self.lock_request().unwrap_or(Request::Stats),
            _ => Request::Stats,
        };
        self.send(request);
        Ok(())
    }

    /// Endless tasks that nobody has told to stop.
    fn endless(&self) -> Vec<TaskId> {
        // The attempt at work may be of an older version.
        let is_endless = |id, row| {
            let at_work = self.store.promises.in_hand.get(&id);
            let at_work = at_work.and_then(|hash| self.store.prepared(hash));
            at_work.into_iter().chain(self.store.spec_of(row)).any(|spec| is_endless(&spec.spec))
        };
        let is_cancelled = |id| self.store.history.get(id).is_some_and(|fold| fold.is_cancelled);
        let endless = self.store.live().filter(|(id, row)| is_endless(*id, row) && !is_cancelled(*id));
        endless.map(|(id, _)| id).collect()
    }

    /// Stops what would run for ever. Once is enough.
    pub(super) fn stop_endless(&mut self) {
        let tasks = self.endless();
        if !tasks.is_empty() {
            self.send(Request::Cancel { tasks });
        }
    }

    pub(super) fn some_tasks(&mut self) -> Vec<TaskId> {
        let count = if self.random.chance(200) { 4 } else { 1 };
        if self.random.chance(120)
            && let Some(run) = self.store.ties.live_runs().last()
        {
            let parts = self.store.ties.parts(run.id).to_vec();
            return self.random.pick(&parts).into_iter().collect();
        }
        (0..count)
            .map(|_| {
                // The latest are the liveliest; now and then one that nobody knows.
                let known = self.clients.known.len();
                let recent = if self.random.chance(700) { known.saturating_sub(30) } else { 0 };
                let at = recent + self.random.below(known - recent);
                let unknown = self.random.chance(20);
                if unknown {
                    TaskId(999_999)
                } else {
                    self.clients.known.get(at).copied().unwrap_or(TaskId(1))
                }
            })
            .collect()
    }

    fn new_submission(&mut self) -> Request {
        let number = self.clients.next_submission();
        let count = if self.random.chance(200) { self.random.between(2, 15) } else { 1 };
        let tasks = (0..count).map(|place| self.new_task(&format!("{number}/{place}"))).collect();
        let mut hash = [0; 16];
        hash[..8].copy_from_slice(&number.to_le_bytes());
        let key = self.random.chance(500).then_some(SubmitKey { key: KeyHash(hash), body: KeyHash(hash) });
        Request::Submit { tasks, key }
    }

    fn new_task(&mut self, title: &str) -> NewTask {
        let mut spec = Spec::new(match self.random.below(20) {
            0..=3 => Payload::Noop,
            4..=5 => Payload::Milestone,
            6 if self.random.chance(500) => Payload::Shell { command: ENDLESS.to_owned() },
            n => Payload::Shell { command: format!("job {}", n % 4) },
        });
        if self.random.chance(150) {
            let zone = self.random.pick(&["a", "b", "nowhere"]).unwrap_or("a");
            spec.labels.insert("zone".to_owned(), zone.to_owned());
        }
        if self.random.chance(if self.kinds.heavy { 700 } else { 150 }) {
            let cpus_milli = self.random.pick(&[500, 2_000, 3_000]).unwrap_or(500);
            spec.resources = Resources { cpus_milli, memory_mb: 100, ..Resources::default() };
        }
        if self.random.chance(400) {
            spec.retry.max = self.random.pick(&[1, 3]).unwrap_or(1);
            spec.retry.backoff_ms = self.random.pick(&[0, 50, 2_000]).unwrap_or(0);
            if self.random.chance(200) {
                spec.retry.on = vec![RetryOn::Error];
            }
        }
        if self.random.chance(100) {
            spec.retry.max_lost = self.random.pick(&[0, 1]).unwrap_or(0);
        }
        if self.random.chance(80) {
            spec.queue_timeout_ms = self.random.pick(&[20, 500, 5_000]);
        }
        if self.random.chance(200) {
            spec.on_disconnect = OnDisconnect::Stop;
        }
        if self.random.chance(300) {
            spec.keep_checkpoints = self.random.pick(&[1, 2, 3]);
        }
        if self.random.chance(80) {
            spec.continue_from = ContinueFrom::Beginning;
        }
        self.lock_for_task(&mut spec);
        let later = self.random.ms(1, 4_000);
        let not_before = self.random.chance(100).then(|| {
            let mut wall = self.now().wall;
            wall.0 += later;
            wall
        });
        NewTask {
            title: title.into(),
            group: self.random.pick(&["default", "default", "build"]).unwrap_or("default").into(),
            priority: self.random.pick(&[25, 50, 50, 75, 100]).unwrap_or(50),
            spec: Arc::new(PreparedSpec::new(spec)),
            not_before,
            hold: self.kinds.relations && self.random.chance(250),
            needs: self.needs(),
        }
    }

    /// What a new task comes after: mostly nothing.
    fn needs(&mut self) -> Vec<Predecessor> {
        if !self.kinds.relations || self.random.chance(850) {
            return Vec::new();
        }
        self.some_tasks().into_iter().map(|task| Predecessor { task, ended: None }).collect()
    }

    /// A warden says that a life of a worker is over.
    pub(super) fn warden_speaks(&mut self, worker: usize, boot: BootId) {
        let worker = Arc::clone(&self.workers[worker].name);
        self.send(Request::WorkerDead { worker, boot });
    }

    pub(super) fn send(&mut self, request: Request) {
        self.master.last_reply = self.master.last_reply.next();
        let to = self.master.last_reply;
        let reopenings = match &request {
            Request::Cancel { tasks } | Request::Retry { tasks, .. } => {
                tasks.iter().map(|task| self.store.history.reopenings(*task)).collect()
            }
            _ => Vec::new(),
        };
        self.clients.pending.insert(to, Pending { request, reopenings, life: None });
        let delay = self.random.ms(0, 5);
        self.plan(self.now_us + delay, Happening::AtDoor { to });
    }

    /// Sends a submission with a key again, as a client does that had no answer.
    fn send_again(&mut self, request: Request) {
        if has_key(&request) {
            self.send(request);
        }
    }

    /// The door: looks for the key in the database, then asks the kernel a little later.
    pub(super) fn at_door(&mut self, to: ReplyTo) -> Result<(), String> {
        let life = self.master.life;
        let is_up = self.master.kernel.is_some();
        let Some(pending) = self.clients.pending.get_mut(&to) else { return Ok(()) };
        if !is_up {
            let again = self.random.ms(50, 500);
            if has_key(&pending.request) || matches!(pending.request, Request::WorkerDead { .. }) {
                self.plan(self.now_us + again, Happening::AtDoor { to });
            } else {
                self.clients.pending.remove(&to);
            }
            return Ok(());
        }
        pending.life = Some(life);
        let request = pending.request.clone();
        if let Request::Submit { key: Some(key), .. } = &request
            && let Some(row) = self.store.keys.get(&key.key)
        {
            let reply = if row.body == key.body {
                Ok(Answer::Submitted { first: row.first, count: row.count, at: row.at, replayed: true })
            } else {
                Err(Rejection::KeyConflict)
            };
            return self.reply(to, reply);
        }
        if let Request::StartRun { key: Some(key), .. } = &request
            && let Some(row) = self.store.keys.get(&key.key)
        {
            return self.reply(to, Ok(Answer::RunStarted { run: RunId(row.first.0), replayed: true }));
        }
        if let Request::Save { key: Some(key), .. } = &request
            && let Some(row) = self.store.keys.get(&key.key)
        {
            let (checkpoint, at) = (CheckpointId(row.first.0), row.at);
            return self.reply(to, Ok(Answer::Saved { checkpoint, at }));
        }
        if let Some(reply) = self.locked_before(&request) {
            return self.reply(to, reply);
        }
        self.may_abandon(to, &request);
        let looked_up = self.looked_up(request.clone());
        if let Some(pending) = self.clients.pending.get_mut(&to) {
            pending.request = looked_up;
        }
        // What an upgrade was made from may be old by then.
        let slow = self.random.chance(if matches!(request, Request::Upgrade(_)) { 100 } else { 20 });
        let delay = if slow { self.random.ms(1_000, 20_000) } else { self.random.ms(0, 2) };
        self.plan(self.now_us + delay, Happening::Ask { life, to });
        // An impatient client sends the same again while the first is under way.
        if self.random.chance(100) {
            self.send_again(request);
        }
        Ok(())
    }

    pub(super) fn ask(&mut self, life: u64, to: ReplyTo) -> Result<(), String> {
        match self.clients.pending.get(&to) {
            Some(pending) if life == self.master.life => {
                let request = pending.request.clone();
                let request = self.at_kernel(request);
                if matches!(request, Request::Retry { .. } | Request::Restore(_) | Request::Upgrade(_)) {
                    self.store.promises.wishes.insert(to, request.clone());
                }
                self.step(Input::Request { reply: to, request })
            }
            _ => Ok(()),
        }
    }

    /// The master is gone, and with it every answer that it owed.
    pub(super) fn clients_lose_master(&mut self) {
        self.clients.abandoned.clear();
        let lost: Vec<ReplyTo> = self
            .clients
            .pending
            .iter()
            .filter(|(_, pending)| pending.life.is_some())
            .map(|(to, _)| *to)
            .collect();
        for to in lost {
            if let Some(pending) = self.clients.pending.remove(&to) {
                self.send_again(pending.request);
            }
        }
    }

    /// An answer leaves the master. What it says must be durable now; it may still get lost.
    pub(super) fn reply(&mut self, to: ReplyTo, reply: Reply) -> Result<(), String> {
        if self.clients.abandoned.remove(&to) {
            if let Ok(Answer::Locked(row)) = reply {
                self.send(Request::Unlock(vec![Unlock { lock: row.birth.id, fence: None, owner: None }]));
            }
            return Ok(());
        }
        let Some(pending) = self.clients.pending.remove(&to) else {
            return Err(format!("{to:?} was answered twice"));
        };
        self.clients.answers += 1;
        self.store.promises.wishes.remove(&to);
        self.check_answer(&pending, &reply)?;
        let looks_again = matches!(reply, Err(Rejection::JustEnded(_))) && self.random.chance(700);
        if looks_again {
            self.send(pending.request);
        } else if self.random.chance(50) {
            self.send_again(pending.request);
        } else if let Ok(Answer::Submitted { first, count, .. }) = reply {
            self.clients.known.extend((first.0..first.0 + u64::from(count)).map(TaskId));
        }
        Ok(())
    }
}

/// Whether a client can ask for that again without harm.
fn has_key(request: &Request) -> bool {
    matches!(
        request,
        Request::Submit { key: Some(_), .. }
            | Request::StartRun { key: Some(_), .. }
            | Request::Save { key: Some(_), .. }
    ) || matches!(request, Request::Lock { want, .. } if want.key.is_some())
}

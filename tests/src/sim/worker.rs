//! Workers: real words, pretended work.
//!
//! A worker holds every assignment until the master has acknowledged its end, keeps reports until
//! they are acknowledged and says them again on a new socket. A crash of the process loses its
//! work; what was over may survive in the spool.
//!
//! Invariants, checked as frames arrive: no assignment comes twice; no more of them than credits;
//! nothing that the worker cannot run; a welcome speaks of everything that the hello named.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use agentflow_core::attempt::{AttemptKey, End, Held, Hello, LOCKS_VERSION, Report, ReportBody};
use agentflow_core::checkpoint::Ask;
use agentflow_core::ids::{BootId, SessionEpoch, TaskId};
use agentflow_core::spec::{Payload, Resources, Spec};
use agentflow_core::time::Wall;

use super::network::{Downward, Upward};
use super::work::{Stage, Work};
use super::world::{Happening, World};

/// What can wake a worker.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Alarm {
    /// Try to reach the master.
    Connect,
    /// Show that it is alive.
    Heartbeat(SessionEpoch),
    /// Nobody has answered the hello on that socket.
    Unanswered(SessionEpoch),
    /// An attempt is over.
    Ended(AttemptKey, End),
    /// An attempt may ask for something.
    Ask(AttemptKey),
    /// The lease has passed since the master was lost at that moment.
    Deadline(i64),
    /// A process of another life starts.
    Start,
}

/// One worker, through all its lives.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) name: Arc<str>,
    pub(super) boot: BootId,
    pub(super) is_alive: bool,
    pub(super) session: Option<SessionEpoch>,
    /// Not yet acknowledged.
    pub(super) reports: VecDeque<Report>,
    pub(super) is_draining: bool,
    /// It will never come back.
    pub(super) is_gone: bool,
    pub(super) is_welcome: bool,
    pub(super) work: BTreeMap<AttemptKey, Work>,
    /// In the order of arrival.
    pub(super) waiting: VecDeque<AttemptKey>,
    pub(super) groups: Vec<Arc<str>>,
    labels: BTreeMap<String, String>,
    pub(super) resources: Resources,
    pub(super) slots: u32,
    pub(super) prefetch: u32,
    /// What the latest hello named.
    named: Vec<AttemptKey>,
    pub(super) last_report: u64,
    /// What its attempts asked and were not answered.
    pub(super) asks: VecDeque<Ask>,
    pub(super) last_ask: u64,
    pub(super) lost_master_at: Option<i64>,
}

impl Worker {
    pub(super) fn new(name: &str, groups: &[&str], label: &str, slots: u32, prefetch: u32) -> Self {
        Self {
            name: name.into(),
            boot: BootId(0),
            is_alive: false,
            session: None,
            reports: VecDeque::new(),
            is_draining: false,
            is_gone: false,
            groups: groups.iter().map(|group| Arc::from(*group)).collect(),
            labels: [("zone".to_owned(), label.to_owned())].into(),
            resources: Resources { cpus_milli: 4_000, memory_mb: 1_000, ..Resources::default() },
            slots,
            prefetch,
            is_welcome: false,
            work: BTreeMap::new(),
            waiting: VecDeque::new(),
            named: Vec::new(),
            last_report: 0,
            asks: VecDeque::new(),
            last_ask: 0,
            lost_master_at: None,
        }
    }

    /// Whether it can run such a task at all.
    pub(super) fn suits(&self, group: &Arc<str>, spec: &Spec) -> bool {
        !self.is_gone
            && self.groups.contains(group)
            && spec.labels.iter().all(|(key, value)| self.labels.get(key) == Some(value))
            && spec.resources.fits(&self.resources)
            && !matches!(spec.payload, Payload::Handler { .. })
    }

    /// What it has still to do, if anything.
    pub(super) fn busy_with(&self) -> Option<String> {
        let is_at_rest = self.work.is_empty() && self.reports.is_empty() && self.asks.is_empty();
        let is_idle = self.is_gone || self.is_alive && self.is_welcome && is_at_rest;
        (!is_idle).then(|| {
            format!(
                "alive {}, welcome {}, {:?}, {:?}, {:?}",
                self.is_alive, self.is_welcome, self.work, self.reports, self.asks
            )
        })
    }

    /// It is dead and stays so.
    pub(super) fn bury(&mut self) {
        self.is_gone = true;
        self.work.clear();
        self.reports.clear();
    }

    /// Whether it has nothing to do and takes work.
    pub(super) fn is_idle(&self) -> bool {
        self.is_welcome && !self.is_draining && self.work.is_empty() && self.reports.is_empty()
    }

    /// Whether it has that task and has not begun it.
    pub(super) fn is_waiting(&self, task: TaskId) -> bool {
        self.is_welcome && self.waiting.iter().any(|key| key.task == task)
    }

    /// Attempts in one of these stages.
    pub(super) fn count(&self, stages: &[Stage]) -> usize {
        self.work.values().filter(|work| stages.contains(&work.stage)).count()
    }

    fn hello(&self, at: Wall) -> Hello {
        let held =
            |(key, work): (&AttemptKey, &Work)| Held { key: *key, started: work.started_at != Wall(0) };
        Hello {
            version: LOCKS_VERSION,
            worker: Arc::clone(&self.name),
            boot: self.boot,
            groups: self.groups.clone(),
            labels: self.labels.clone(),
            resources: self.resources.clone(),
            slots: self.slots,
            prefetch: self.prefetch,
            handlers: Vec::new(),
            sandboxes: Vec::new(),
            running: self.work.iter().map(held).collect(),
            draining: self.is_draining,
            at,
        }
    }
}

impl World {
    pub(super) fn alarm(&mut self, worker: usize, after_us: i64, alarm: Alarm) {
        let boot = self.workers[worker].boot;
        self.plan(self.now_us + after_us, Happening::Alarm { worker, boot, alarm });
    }

    pub(super) fn on_alarm(&mut self, worker: usize, boot: BootId, alarm: Alarm) -> Result<(), String> {
        if self.workers[worker].boot != boot {
            return Ok(());
        }
        let is_alive = self.workers[worker].is_alive;
        match alarm {
            Alarm::Start if !is_alive && !self.workers[worker].is_gone => self.start_worker(worker),
            Alarm::Connect if is_alive && self.workers[worker].session.is_none() => self.greet(worker),
            Alarm::Heartbeat(session) if is_alive && self.workers[worker].session == Some(session) => {
                self.send_up(session, Upward::Heartbeat);
                let every = i64::try_from(self.master.settings.lease_ms).unwrap_or(0) * 1_000 / 5;
                self.alarm(worker, every, alarm);
            }
            Alarm::Unanswered(session)
                if self.workers[worker].session == Some(session) && !self.workers[worker].is_welcome =>
            {
                self.close_below(session, false);
                self.disconnected(worker);
            }
            Alarm::Ended(key, end) if is_alive => return self.attempt_ended(worker, key, end),
            Alarm::Ask(key) if is_alive => self.attempt_asks(worker, key),
            Alarm::Deadline(since) if is_alive && self.workers[worker].lost_master_at == Some(since) => {
                return self.stop_at_deadline(worker);
            }
            _ => {}
        }
        Ok(())
    }

    /// A new life begins, with what the spool has kept.
    fn start_worker(&mut self, index: usize) {
        let boot = BootId(self.random.next());
        let worker = &mut self.workers[index];
        worker.boot = boot;
        worker.is_alive = true;
        worker.is_draining = false;
        worker.lost_master_at = None;
        for (number, report) in (1..).zip(&mut worker.reports) {
            report.no = number;
        }
        worker.last_report = u64::try_from(worker.reports.len()).unwrap_or(0);
        worker.last_ask = 0;
        self.alarm(index, 0, Alarm::Connect);
    }

    fn greet(&mut self, index: usize) {
        if self.master.kernel.is_none() {
            let again = self.random.ms(20, 400);
            self.alarm(index, again, Alarm::Connect);
            return;
        }
        let session = self.connect(index);
        let at = self.now().wall;
        let lie = if self.faults.lies && self.random.chance(200) { self.foreign_key(index) } else { None };
        let worker = &mut self.workers[index];
        worker.session = Some(session);
        worker.is_welcome = false;
        let mut hello = worker.hello(at);
        hello.running.extend(lie.map(|key| Held { key, started: false }));
        worker.named = hello.running.iter().map(|held| held.key).collect();
        worker.named.sort();
        self.send_up(session, Upward::Hello(Box::new(hello)));
        self.alarm(index, 0, Alarm::Heartbeat(session));
        let patience = self.random.ms(800, 4_000);
        self.alarm(index, patience, Alarm::Unanswered(session));
    }

    /// The socket is gone: work goes on, and the worker tries again.
    pub(super) fn disconnected(&mut self, index: usize) {
        let now_us = self.now_us;
        let worker = &mut self.workers[index];
        worker.session = None;
        worker.is_welcome = false;
        if worker.lost_master_at.is_none() {
            worker.lost_master_at = Some(now_us);
            let lease = i64::try_from(self.master.settings.lease_ms).unwrap_or(0) * 1_000;
            self.alarm(index, lease, Alarm::Deadline(now_us));
        }
        let again = self.random.ms(0, 300);
        self.alarm(index, again, Alarm::Connect);
    }

    /// The process dies. A worker whose machine dies goes silently.
    pub(super) fn kill_worker(&mut self, index: usize, silently: bool) {
        let keeps_spool = self.random.chance(600);
        let worker = &mut self.workers[index];
        worker.is_alive = false;
        worker.is_welcome = false;
        worker.waiting.clear();
        worker.asks.clear();
        worker.work.retain(|_, work| keeps_spool && work.stage == Stage::Over);
        let kept = &worker.work;
        worker.reports.retain(|report| {
            kept.contains_key(&report.key) && !matches!(report.body, ReportBody::Started { .. })
        });
        if let Some(session) = worker.session.take() {
            self.close_below(session, silently);
        }
    }

    pub(super) fn worker_hears(&mut self, index: usize, frame: Downward) -> Result<(), String> {
        let is_greeting = matches!(frame, Downward::Welcome { .. } | Downward::Refuse(_));
        if self.workers[index].is_welcome == is_greeting {
            return Err(format!("worker {} heard {frame:?} out of turn", self.workers[index].name));
        }
        match frame {
            Downward::Welcome { keep, stop } => self.welcomed(index, &keep, &stop)?,
            Downward::Refuse(reason) => return Err(format!("a hello was refused: {reason}")),
            Downward::Assign(tasks) => {
                for task in tasks {
                    self.assigned(index, &task)?;
                }
                self.start_waiting(index)?;
            }
            Downward::Ack(up_to) => self.acknowledged(index, up_to),
            Downward::Answers(answers) => self.answered(index, &answers)?,
            Downward::Cancel(keys) => {
                for key in keys {
                    self.stop_attempt(index, key, End::Cancelled)?;
                }
            }
            Downward::Drop(keys) => {
                self.drop_attempts(index, &keys);
                self.start_waiting(index)?;
            }
            Downward::Return(keys) => self.give_back(index, &keys),
            Downward::Drain => self.drain_worker(index),
        }
        self.leave_if_drained(index);
        Ok(())
    }

    fn welcomed(&mut self, index: usize, keep: &[AttemptKey], stop: &[AttemptKey]) -> Result<(), String> {
        let worker = &mut self.workers[index];
        worker.is_welcome = true;
        worker.lost_master_at = None;
        let mut answered: Vec<AttemptKey> = keep.iter().chain(stop).copied().collect();
        answered.sort();
        if answered != worker.named {
            return Err(format!(
                "a hello named {:?}, the welcome keeps {keep:?}, stops {stop:?}",
                worker.named
            ));
        }
        self.drop_attempts(index, stop);
        // Nothing is promised of which come first.
        let asks_first = self.random.chance(500);
        if asks_first {
            self.ask_again(index);
        }
        self.repeat_reports(index);
        if !asks_first {
            self.ask_again(index);
        }
        self.start_waiting(index)
    }

    /// Takes no new work, and gives back what it has not begun.
    pub(super) fn drain_worker(&mut self, index: usize) {
        self.workers[index].is_draining = true;
        let waiting: Vec<AttemptKey> = self.workers[index].waiting.iter().copied().collect();
        self.give_back(index, &waiting);
        if let Some(session) = self.workers[index].session {
            self.send_up(session, Upward::Draining);
        }
        self.leave_if_drained(index);
    }

    pub(super) fn leave_if_drained(&mut self, index: usize) {
        let worker = &self.workers[index];
        let is_done = worker.work.is_empty() && worker.reports.is_empty();
        if !(worker.is_alive && worker.is_draining && worker.is_welcome && is_done) {
            return;
        }
        if let Some(session) = worker.session {
            self.send_up(session, Upward::Goodbye);
        }
        self.kill_worker(index, false);
        let again = self.random.ms(100, 3_000);
        self.alarm(index, again, Alarm::Start);
    }
}

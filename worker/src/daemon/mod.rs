//! The worker's one actor: what is held, what is owed, and who must hear of it.
//!
//! ```text
//! link ---- Up, Text, Down ----> Daemon <-- Begun, Output, Ended - Post- slots
//! link <--- Outbox ------------- Daemon ----- Job, Control -----------> slots
//!                                Daemon ----- reports ----------------> spool
//! ```
//!
//! Owns: the attempts, the lease, the numbers of reports. Runs no process and opens no socket
//! itself. Invariants: every assignment is answered by exactly one `finished` or `returned` report
//! unless the master drops it; an end is reported only after the attempt's log bytes were
//! acknowledged; nothing is forgotten before the master has acknowledged it.
//!
//! The frames of the master are in `session`, leaving is in `leaving`.

mod door;
mod leaving;
mod session;

use std::collections::{HashMap, HashSet};
use std::os::unix::net::UnixListener;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, AsyncContext, Context, Handler, Message};
use agentflow_core::batch::Outcome;
use agentflow_core::ids::{BootId, Epoch, RunId, TaskId};
use agentflow_core::spec::{RetryOn, Spec};
use agentflow_core::time::Mono;
use agentflow_protocol::worker::{
    AskBody, AttemptKey, End, Finished, FromWorker, Held, Hello, Report, ReportBody, VERSION,
};
use tokio::sync::oneshot;

use crate::api::Api;
use crate::clock::{boottime, wall};
use crate::config::Config;
use crate::control::{Control, Stop};
use crate::data_dir::DataDir;
use crate::door::Door;
use crate::error::Error;
use crate::executor::environment::Environment;
use crate::executor::{Event, Executor};
use crate::groups::Warden;
use crate::lease::Lease;
use crate::link::{self, LinkEvent, Target};
use crate::locks::Locks;
use crate::log_stream::{LogStream, Policy};
use crate::outbox::{Closing, Outbox};
use crate::place::Place;
use crate::post::{LINGER_MS, Mail, Post};
use crate::slots::{Job, Slots};
use crate::spool::Spool;
use crate::strays::Watches;
use crate::worktrees::Sweeper;
use leaving::Leaving;

/// A report that is not acknowledged by then goes to the spool.
const SPOOL_AFTER_MS: u64 = 100;

/// What start-up has made, and the daemon takes over.
pub(crate) struct Parts {
    pub(crate) config: Config,
    pub(crate) boot: BootId,
    pub(crate) data_dir: DataDir,
    pub(crate) spool: Spool,
    pub(crate) inherited: Vec<Report>,
    pub(crate) warden: Warden,
    pub(crate) listener: UnixListener,
    pub(crate) done: oneshot::Sender<Left>,
}

/// What is there when the daemon has left: its end, and the warden.
pub(crate) type Left = (Result<(), Error>, Option<Warden>);

/// What its owner asks of a worker.
#[derive(Message, Clone, Copy, PartialEq, Eq, Debug)]
#[rtype(result = "()")]
pub(crate) enum Order {
    /// Take nothing new, finish, leave.
    Drain,
    /// Stop everything and leave.
    Stop,
}

/// Where an attempt stands here.
#[derive(Debug)]
enum Phase {
    /// In the queue, or just taken from it.
    Waiting,
    /// Its thread has begun.
    Running,
    /// It is over; its output is not yet all acknowledged.
    Flushing { finished: Box<Finished>, since: Mono, spooled: bool },
}

#[derive(Debug)]
struct Attempt {
    key: AttemptKey,
    spec: Arc<Spec>,
    control: Arc<Control>,
    log: Arc<LogStream>,
    run: Option<RunId>,
    /// Opens the door for it.
    secret: Arc<str>,
    place: Arc<Place>,
    locks: Arc<Locks>,
    phase: Phase,
}

/// See the module.
pub(crate) struct Daemon {
    config: Config,
    boot: BootId,
    /// How the keys of this life's attempts begin.
    key_prefix: String,
    outbox: Rc<Outbox>,
    post: Arc<Post>,
    slots: Slots<Executor>,
    log_policy: Arc<Policy>,
    watches: Arc<Watches>,
    spool: Spool,
    spool_armed: bool,
    lease: Lease,
    attempts: HashMap<TaskId, Attempt>,
    /// What the latest hello named.
    greeted: Vec<AttemptKey>,
    hello_sent: Mono,
    epoch: Epoch,
    version: u32,
    /// Whether there is a socket, and whether it was welcomed.
    connected: bool,
    welcomed: bool,
    leaving: Leaving,
    /// Until it is handed over at the end.
    warden: Option<Warden>,
    done: Option<oneshot::Sender<Left>>,
    /// Takes away what settled tasks have left.
    _sweeper: Option<Sweeper>,
    _data_dir: DataDir,
}

impl Daemon {
    /// Starts the actor and its link on the current thread.
    pub(crate) fn launch(parts: Parts) -> actix::Addr<Self> {
        Self::create(|context| Self::new(parts, context))
    }

    fn new(parts: Parts, context: &mut Context<Self>) -> Self {
        let Parts { config, boot, data_dir, spool, inherited, warden, listener, done } = parts;
        let key_prefix = data_dir.key_of(boot);
        let environment =
            Environment::new(&data_dir.path, &key_prefix, &data_dir.socket, config.masters.first().cloned());
        let api = Arc::new(Api::new(config.masters.clone(), config.token_file.clone()));
        let scratch = environment.attempts().to_owned();
        let watches = Arc::new(Watches::new(scratch.clone()));
        let door = Door::new(context.address(), Arc::clone(&api), scratch, config.slots);
        actix_rt::spawn(Rc::new(door).serve(listener));
        let waiting = Arc::default();
        let post = Post::new(context.address().recipient(), Arc::clone(&waiting), config.prefetch);
        let post = Arc::new(post);
        let home = data_dir.path.join("worktrees");
        let sweeper = Sweeper::start(home.clone(), Arc::clone(&api));
        let sweeper = sweeper.inspect_err(|error| log::warn!("worktrees of settled tasks stay: {error}"));
        let executor = Executor::new(
            Arc::clone(&post),
            environment,
            warden.groups(),
            config.handlers.clone(),
            config.slots,
            api,
            home,
        );
        let outbox = Rc::new(Outbox::default());
        let target = Target { masters: config.masters.clone(), token_file: config.token_file.clone() };
        actix_rt::spawn(link::run(target, Rc::clone(&outbox), context.address().recipient()));
        for Report { key, body, .. } in inherited {
            // A predecessor's ends that were never acknowledged: the first numbers of this life.
            outbox.reports(|window| window.push(key, body, boottime(), true));
        }
        Self {
            slots: Slots::new(config.slots, waiting, executor),
            post,
            log_policy: Policy::new(config.log_cap_bytes, &data_dir.path.join("logs")),
            watches,
            outbox,
            config,
            boot,
            key_prefix,
            spool,
            spool_armed: false,
            lease: Lease::new(),
            attempts: HashMap::new(),
            greeted: Vec::new(),
            hello_sent: Mono(0),
            epoch: Epoch(0),
            version: VERSION,
            connected: false,
            welcomed: false,
            leaving: Leaving::No,
            warden: Some(warden),
            done: Some(done),
            _sweeper: sweeper.ok(),
            _data_dir: data_dir,
        }
    }

    /// Looks at the clock, and asks to be woken for the next look.
    fn tick(&mut self, context: &mut Context<Self>) {
        let now = boottime();
        if self.welcomed
            && let Some(n) = self.lease.beat(now)
        {
            self.outbox.send(&FromWorker::Heartbeat { n });
        }
        if self.connected && self.lease.is_silent(now) {
            self.lease.heard(now);
            self.outbox.close(Closing::Broken("the master was silent for a whole lease".to_owned()));
        }
        if self.lease.has_ended(now) {
            self.lose_lease();
        }
        if let Some(warden) = &mut self.warden {
            warden.look_after(now);
        }
        self.go_on_leaving(now);
        context.run_later(Duration::from_millis(self.lease.tick_ms()), Self::tick);
    }

    /// Says who we are and what we have.
    fn greet(&mut self) {
        let began = |phase: &Phase| !matches!(phase, Phase::Waiting);
        let held = self.attempts.values();
        let held = held.map(|attempt| Held { key: attempt.key, started: began(&attempt.phase) });
        // What is over and not acknowledged counts too: what is missing here is lost.
        let mut running: Vec<Held> = held.collect();
        self.outbox.reports(|window| running.extend(window.over()));
        self.greeted = running.iter().map(|held| held.key).collect();
        self.hello_sent = boottime();
        self.outbox.send(&FromWorker::Hello(Hello {
            version: VERSION,
            worker: self.config.id.as_str().into(),
            boot: self.boot,
            groups: self.config.groups.iter().map(|group| group.as_str().into()).collect(),
            labels: self.config.labels.clone(),
            resources: self.config.resources.clone(),
            slots: self.config.slots,
            prefetch: self.config.prefetch,
            handlers: self.config.handlers.keys().cloned().collect(),
            sandboxes: Vec::new(),
            running,
            draining: self.leaving.has_begun(),
            at: wall(),
        }));
    }

    fn report(&mut self, key: AttemptKey, body: ReportBody) {
        let now = boottime();
        self.outbox.reports(|window| window.push(key, body, now, false));
    }

    /// Reports an attempt's end; it is no longer held.
    fn report_end(&mut self, key: AttemptKey, finished: Box<Finished>) {
        self.attempts.remove(&key.task);
        self.report(key, ReportBody::Finished(finished));
    }

    /// Reports the end of something that has not begun.
    fn report_unbegun(&mut self, key: AttemptKey, end: End, error: Option<String>) {
        let at = wall();
        let outcome = Outcome { error: error.map(Into::into), ..Outcome::default() };
        let finished = Finished { started_at: at, finished_at: at, end, outcome, log_bytes: 0, log_cut: 0 };
        self.report_end(key, Box::new(finished));
    }

    /// Gives back what has not begun.
    fn give_back(&mut self, key: AttemptKey) {
        self.attempts.remove(&key.task);
        self.report(key, ReportBody::Returned {});
    }

    /// The attempt, if it is this very one that is held.
    fn held(&mut self, key: AttemptKey) -> Option<&mut Attempt> {
        self.attempts.get_mut(&key.task).filter(|attempt| attempt.key == key)
    }

    /// Forgets attempts and kills what runs of them; nothing is reported.
    fn drop_attempts(&mut self, keys: &HashSet<AttemptKey>) {
        if keys.is_empty() {
            return;
        }
        self.slots.take_back(|key| keys.contains(key));
        for key in keys {
            if self.held(*key).is_some()
                && let Some(attempt) = self.attempts.remove(&key.task)
            {
                attempt.control.stop(Stop::Drop);
                self.outbox.forget_log(*key);
            }
        }
    }

    /// Hands work to the slots.
    fn push_jobs(&mut self, jobs: Vec<Job>) {
        let keys: Vec<AttemptKey> = jobs.iter().map(|job| job.key).collect();
        if let Err(error) = self.slots.push(jobs) {
            self.slots.take_back(|key| keys.contains(key));
            for key in keys {
                let error = format!("the worker cannot start a thread: {error}");
                self.report_unbegun(key, End::Failed(RetryOn::Spawn), Some(error));
            }
        }
    }

    /// Whether the attempt's output has arrived, so that its end can be told.
    fn try_settle(&mut self, key: AttemptKey) {
        let Some(attempt) = self.held(key) else { return };
        let Some(totals) = attempt.log.settled() else { return };
        let Phase::Flushing { finished, .. } = &mut attempt.phase else { return };
        let mut finished = finished.clone();
        finished.log_bytes = totals.bytes;
        finished.log_cut = totals.cut;
        self.report_end(key, finished);
    }

    /// Reports that wait too long go to disk; all of them when `before` is now.
    fn spool_until(&mut self, before: Mono) {
        let mut due = self.outbox.reports(|window| window.take_for_spool(before));
        for attempt in self.attempts.values_mut() {
            if let Phase::Flushing { since, spooled: spooled @ false, .. } = &mut attempt.phase
                && *since <= before
            {
                *spooled = true;
                due.extend(provisional(attempt));
            }
        }
        self.spool.append(due);
    }

    /// Takes out of the spool what is acknowledged, when that is everything or a lot.
    fn clear_spool(&mut self) {
        if self.spool.is_empty() {
            return;
        }
        let mut needed = self.outbox.reports(|window| window.spooled());
        needed.extend(self.attempts.values().filter_map(|attempt| match attempt.phase {
            Phase::Flushing { spooled: true, .. } => provisional(attempt),
            _ => None,
        }));
        if needed.is_empty() || self.spool.is_large() {
            self.spool.replace(needed);
        }
    }

    fn arm_spool(&mut self, context: &mut Context<Self>) {
        if self.spool_armed {
            return;
        }
        let flushing = |attempt: &Attempt| matches!(attempt.phase, Phase::Flushing { .. });
        let nothing = self.outbox.reports(|window| window.is_empty());
        if nothing && !self.attempts.values().any(flushing) {
            return;
        }
        self.spool_armed = true;
        context.run_later(Duration::from_millis(SPOOL_AFTER_MS), |daemon, context| {
            daemon.spool_armed = false;
            let now = boottime();
            let age = i64::try_from(SPOOL_AFTER_MS * 1_000).unwrap_or(0);
            daemon.spool_until(if daemon.welcomed { Mono(now.0 - age) } else { now });
            daemon.arm_spool(context);
        });
    }
}

/// The end of an attempt whose output has not all arrived, as a successor would report it.
fn provisional(attempt: &Attempt) -> Option<Box<str>> {
    let Phase::Flushing { finished, .. } = &attempt.phase else { return None };
    let totals = attempt.log.abandoned();
    let mut finished = finished.clone();
    finished.log_bytes = totals.bytes;
    finished.log_cut = totals.cut;
    let report = Report { no: 0, key: attempt.key, body: ReportBody::Finished(finished) };
    serde_json::to_string(&report).ok().map(String::into_boxed_str)
}

impl Actor for Daemon {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        self.tick(context);
    }
}

impl Daemon {
    /// Hears what lies in the post.
    fn empty_post(&mut self, context: &mut Context<Self>) {
        for event in self.post.take() {
            self.happened(event);
        }
        self.arm_spool(context);
    }

    fn happened(&mut self, event: Event) {
        match event {
            Event::Begun { key, at } => {
                if let Some(attempt) = self.held(key) {
                    attempt.phase = Phase::Running;
                    self.report(key, ReportBody::Started { at });
                }
            }
            Event::Save { key, checkpoint } => {
                if self.held(key).is_some() {
                    self.ask(key, AskBody::Checkpoint(checkpoint), None);
                }
            }
            Event::Output(key) => {
                if let Some(attempt) = self.held(key) {
                    let log = Arc::clone(&attempt.log);
                    self.outbox.queue_log(key, &log);
                }
            }
            Event::Ended { key, finished } => {
                if let Some(attempt) = self.held(key) {
                    attempt.phase = Phase::Flushing { finished, since: boottime(), spooled: false };
                    self.try_settle(key);
                    self.go_on_leaving(boottime());
                }
            }
        }
    }
}

impl Handler<Mail> for Daemon {
    type Result = ();

    fn handle(&mut self, mail: Mail, context: &mut Self::Context) {
        match mail {
            Mail::Now => self.empty_post(context),
            Mail::Later => {
                context.run_later(Duration::from_millis(LINGER_MS), Self::empty_post);
            }
        }
    }
}

impl Handler<LinkEvent> for Daemon {
    type Result = ();

    fn handle(&mut self, event: LinkEvent, context: &mut Self::Context) {
        match event {
            LinkEvent::Up => {
                self.connected = true;
                self.lease.heard(boottime());
                self.greet();
            }
            LinkEvent::Text(text) => self.receive(&text, context),
            LinkEvent::Down { reason, finished } => {
                if finished {
                    self.leave(Ok(()));
                    return;
                }
                let state = if self.connected { "lost" } else { "not reached" };
                log::warn!("master {state}: {reason}");
                self.connected = false;
                self.welcomed = false;
                // Nobody knows how long it takes: what is owed goes to disk now.
                self.spool_until(boottime());
            }
        }
        self.arm_spool(context);
    }
}

impl Handler<Order> for Daemon {
    type Result = ();

    fn handle(&mut self, order: Order, _: &mut Self::Context) {
        match order {
            Order::Drain => self.begin_drain(),
            Order::Stop => self.begin_stop(boottime()),
        }
    }
}

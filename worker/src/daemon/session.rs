//! What the master says, and what follows from it.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use actix::{AsyncContext, Context};
use agentflow_core::batch::Outcome;
use agentflow_core::ids::Epoch;
use agentflow_core::spec::{OnDisconnect, Payload, RetryOn, Spec};
use agentflow_protocol::worker::{
    Assign, Assignment, AttemptKey, End, Finished, FromWorker, OLDEST_VERSION, ReportBody, ToWorker, VERSION,
    Welcome,
};

use super::{Attempt, Daemon, Phase};
use crate::clock::{boottime, wall};
use crate::control::{Control, Stop};
use crate::error::Kind;
use crate::locks::Locks;
use crate::log_stream::LogStream;
use crate::outbox::Closing;
use crate::place::Place;
use crate::slots::Job;

impl Daemon {
    /// One text frame.
    pub(super) fn receive(&mut self, text: &[u8], context: &mut Context<Self>) {
        let frame = std::str::from_utf8(text).map_err(|error| error.to_string());
        let frame = frame.and_then(|text| ToWorker::read(text).map_err(|error| error.to_string()));
        self.lease.heard(boottime());
        match frame {
            Ok(ToWorker::Welcome(welcome)) => self.welcome(welcome),
            Ok(ToWorker::Refused { reason, retry }) => self.refused(reason, retry),
            Ok(frame) if self.welcomed => self.frame(frame, context),
            Ok(_) => self.outbox.close(Closing::Broken("the master spoke before its welcome".to_owned())),
            Err(error) => {
                let reason = format!("the master sent a frame that is not understood: {error}");
                self.outbox.close(Closing::Broken(reason));
            }
        }
    }

    fn frame(&mut self, frame: ToWorker, context: &mut Context<Self>) {
        match frame {
            ToWorker::Assign(assign) => self.assign(&assign),
            ToWorker::Ack { up_to } => self.acknowledged(up_to),
            ToWorker::Answers { answers } => self.answered(answers),
            ToWorker::HeartbeatAck { n } => self.lease.acknowledged(n),
            ToWorker::Cancel { keys } => self.cancel(&keys, context),
            ToWorker::Drop { keys } => self.drop_attempts(&keys.into_iter().collect()),
            ToWorker::Return { keys } => self.take_back(&keys),
            ToWorker::LogAck { key, offset } => self.log_acknowledged(key, offset),
            ToWorker::Drain {} => self.begin_drain(),
            ToWorker::Restarting {} => log::info!("the master restarts; what runs here runs on"),
            ToWorker::Welcome(_) | ToWorker::Refused { .. } => {}
        }
    }

    /// Whether the sender is the newest master that was ever heard of.
    fn is_current(&mut self, epoch: Epoch) -> bool {
        if epoch < self.epoch {
            let reason = format!("a master of epoch {epoch} speaks, but {} was seen", self.epoch);
            self.outbox.close(Closing::Broken(reason));
            return false;
        }
        self.epoch = epoch;
        true
    }

    fn refused(&mut self, reason: String, retry: bool) {
        if retry {
            let reason = format!("the master refuses this worker for now: {reason}");
            self.outbox.close(Closing::Broken(reason));
            return;
        }
        self.leave(Err(Kind::Refused(reason).into()));
    }

    fn welcome(&mut self, welcome: Welcome) {
        if !(OLDEST_VERSION..=VERSION).contains(&welcome.version) {
            let reason = format!(
                "the master speaks version {}, this worker {OLDEST_VERSION} to {VERSION}",
                welcome.version
            );
            self.outbox.close(Closing::Broken(reason));
            return;
        }
        if !self.is_current(welcome.epoch) {
            return;
        }
        self.version = welcome.version;
        self.lease.begin(self.hello_sent, welcome.heartbeat_ms, welcome.lease_ms);
        // What is in neither list is not ours either.
        let keep: HashSet<AttemptKey> = welcome.keep.into_iter().collect();
        let mut unwanted: HashSet<AttemptKey> = std::mem::take(&mut self.greeted).into_iter().collect();
        unwanted.retain(|key| !keep.contains(key));
        self.drop_attempts(&unwanted);
        self.welcomed = true;
        self.outbox.forget_logs();
        for (key, log) in self.attempts.values().map(|attempt| (attempt.key, &attempt.log)) {
            if log.rewind() {
                self.outbox.queue_log(key, log);
            }
        }
        self.outbox.open();
        if self.leaving.has_begun() {
            self.outbox.send(&FromWorker::Draining {});
        }
        log::info!("connected as '{}'; {} attempts are still here", self.config.id, self.attempts.len());
    }

    fn assign(&mut self, assign: &Assign) {
        if !self.is_current(assign.epoch) {
            return;
        }
        let specs: Vec<Result<Arc<Spec>, String>> = assign
            .specs
            .iter()
            .map(|spec| serde_json::from_str(spec.get()).map(Arc::new).map_err(|error| error.to_string()))
            .collect();
        let at = wall();
        let mut jobs = Vec::new();
        for task in &assign.tasks {
            let key = task.key;
            if let Some(held) = self.attempts.get(&key.task).map(|attempt| attempt.key) {
                if held.fence >= key.fence {
                    continue;
                }
                // Superseded: the older process must not go on beside the newer.
                self.drop_attempts(&HashSet::from([held]));
            }
            if self.leaving.has_begun() || self.is_full() {
                self.give_back(key);
                continue;
            }
            let spec = usize::try_from(task.spec).ok().and_then(|place| specs.get(place));
            match spec {
                Some(Ok(spec)) if matches!(spec.payload, Payload::Noop | Payload::Milestone) => {
                    let (end, outcome) = (End::Completed, Outcome::default());
                    let finished =
                        Finished { started_at: at, finished_at: at, end, outcome, log_bytes: 0, log_cut: 0 };
                    self.report(key, ReportBody::Finished(Box::new(finished)));
                }
                Some(Ok(spec)) => match Locks::of(spec, &task.locks) {
                    Some(locks) => jobs.push(self.hold(task, spec, locks)),
                    None => {
                        let error = "the master did not send the locks that the task names".to_owned();
                        self.report_unbegun(key, End::Failed(RetryOn::Spawn), Some(error));
                    }
                },
                Some(Err(error)) => {
                    let error = format!("this worker does not understand the task: {error}");
                    self.report_unbegun(key, End::Failed(RetryOn::Spawn), Some(error));
                }
                None => {
                    let error = "the master sent no specification with the task".to_owned();
                    self.report_unbegun(key, End::Failed(RetryOn::Spawn), Some(error));
                }
            }
        }
        if !jobs.is_empty() {
            self.push_jobs(jobs);
        }
    }

    /// Whether more is held than was ever offered. Twice the offer, because what is over may still
    /// be waiting for the acknowledgement of its output.
    fn is_full(&self) -> bool {
        let offered = u64::from(self.config.slots) + u64::from(self.config.prefetch);
        self.attempts.len() as u64 >= 2 * offered
    }

    fn hold(&mut self, task: &Assignment, spec: &Arc<Spec>, locks: Locks) -> Job {
        let Assignment { key, rank, run, checkpoint, memory, .. } = *task;
        let secret: Arc<str> = self.new_secret(key.task).into();
        let place = Arc::new(Place::new(Arc::clone(&self.watches)));
        let locks = Arc::new(locks);
        let control = Arc::new(Control::default());
        let log = Arc::new(LogStream::new(&self.log_policy));
        let job = Job {
            key,
            rank,
            run,
            checkpoint,
            remembers: memory,
            secret: Arc::clone(&secret),
            place: Arc::clone(&place),
            locks: Arc::clone(&locks),
            spec: Arc::clone(spec),
            control: Arc::clone(&control),
            log: Arc::clone(&log),
        };
        let (spec, phase) = (Arc::clone(spec), Phase::Waiting);
        let attempt = Attempt { key, spec, control, log, run, secret, place, locks, phase };
        self.attempts.insert(key.task, attempt);
        job
    }

    fn acknowledged(&mut self, up_to: u64) {
        self.outbox.reports(|window| window.acknowledge(up_to));
        self.clear_spool();
        self.go_on_leaving(boottime());
    }

    fn log_acknowledged(&mut self, key: AttemptKey, offset: u64) {
        let Some(attempt) = self.held(key) else { return };
        let log = Arc::clone(&attempt.log);
        if log.acknowledge(offset) {
            self.outbox.queue_log(key, &log);
        }
        self.try_settle(key);
    }

    fn cancel(&mut self, keys: &[AttemptKey], context: &mut Context<Self>) {
        let wanted: HashSet<AttemptKey> = keys.iter().copied().collect();
        for job in self.slots.take_back(|key| wanted.contains(key)) {
            if self.held(job.key).is_some() {
                self.report_unbegun(job.key, End::Cancelled, None);
            }
        }
        for key in wanted {
            let Some(attempt) = self.held(key) else { continue };
            attempt.control.stop(Stop::Cancel);
            let control = Arc::clone(&attempt.control);
            let grace = Duration::from_millis(attempt.spec.cancel_grace_ms.into());
            context.run_later(grace, move |_, _| control.kill());
        }
    }

    fn take_back(&mut self, keys: &[AttemptKey]) {
        let wanted: HashSet<AttemptKey> = keys.iter().copied().collect();
        for job in self.slots.take_back(|key| wanted.contains(key)) {
            if self.held(job.key).is_some() {
                self.give_back(job.key);
            }
        }
    }

    /// The master may believe us dead from now on, and may soon give our attempts away, and their locks to
    /// others.
    pub(super) fn lose_lease(&mut self) {
        let stops =
            |attempt: &Attempt| attempt.spec.on_disconnect == OnDisconnect::Stop || attempt.locks.are_held();
        let keys: HashSet<AttemptKey> =
            self.attempts.values().filter(|attempt| stops(attempt)).map(|attempt| attempt.key).collect();
        log::warn!("the lease has ended; {} attempts are stopped, the others run on", keys.len());
        for job in self.slots.take_back(|key| keys.contains(key)) {
            if self.held(job.key).is_some() {
                self.give_back(job.key);
            }
        }
        for key in keys {
            if let Some(attempt) = self.held(key) {
                attempt.control.stop(Stop::Interrupt);
                // No grace: the margin that the master waits is shorter.
                attempt.control.kill();
            }
        }
    }
}

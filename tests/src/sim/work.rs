//! What workers do with what they are given: pretended attempts, and reports of them.

use std::sync::Arc;

use agentflow_core::attempt::{AttemptKey, End, Finished, Report, ReportBody};
use agentflow_core::batch::Outcome;
use agentflow_core::blob::{Left, NewBlob};
use agentflow_core::ids::{CheckpointId, TaskId};
use agentflow_core::kernel::{Assigned, PreparedSpec};
use agentflow_core::lock::LockId;
use agentflow_core::spec::{OnDisconnect, Payload, Resources, RetryOn, Spec};
use agentflow_core::time::Wall;
use serde_json::json;

use super::client::is_endless;
use super::invariants::result_of;
use super::network::Upward;
use super::order::own_output;
use super::worker::Alarm;
use super::world::World;

/// How far an attempt is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stage {
    Waiting,
    Running,
    Stopping,
    /// Its end is reported and not yet acknowledged.
    Over,
}

/// One attempt in a worker's hands.
#[derive(Debug)]
pub(super) struct Work {
    pub(super) stage: Stage,
    pub(super) spec: Spec,
    /// Whether it is of a run.
    is_part: bool,
    /// 0 before it has begun.
    pub(super) started_at: Wall,
    /// Where it begins.
    pub(super) checkpoint: Option<CheckpointId>,
    /// The last step that it has done.
    pub(super) step: u64,
    /// What it has locked beside what it was given.
    pub(super) locks: Vec<LockId>,
}

impl World {
    pub(super) fn assigned(&mut self, index: usize, task: &Assigned) -> Result<(), String> {
        let worker = &self.workers[index];
        self.ledger.received(&worker.name, task.key)?;
        let prepared = PreparedSpec::read(task.spec, Arc::clone(&task.body)).map_err(|e| e.to_string())?;
        let spec = prepared.spec;
        let is_for_it = worker.groups.iter().any(|group| worker.suits(group, &spec));
        if !is_for_it || spec.payload == Payload::Milestone {
            return Err(format!("worker {} was given {spec:?}, which it cannot run", worker.name));
        }
        let needs_some = !spec.resources.is_empty();
        let worker = &mut self.workers[index];
        let (stage, is_part) = (Stage::Waiting, task.run.is_some());
        let (checkpoint, started_at, locks) = (task.checkpoint, Wall(0), Vec::new());
        let work = Work { stage, spec, is_part, started_at, checkpoint, step: 0, locks };
        worker.work.insert(task.key, work);
        worker.waiting.push_back(task.key);
        // What is being stopped for the master counts until it is reported.
        let held = worker.count(&[Stage::Waiting, Stage::Running, Stage::Stopping]);
        let credits = (worker.slots + worker.prefetch) as usize;
        if held > credits {
            return Err(format!(
                "worker {} was given {held} attempts, it has {credits} credits",
                worker.name
            ));
        }
        // An attempt of an older version counts as what its task is now once the next master has found
        // it, or it came back from being lost: nobody knows then what it was given away as.
        let mut used = Resources::default();
        for (key, work) in worker.work.iter().filter(|(_, work)| work.stage != Stage::Over) {
            let counted = self.store.promises.in_hand.get(&key.task);
            let is_counted = self.store.history.is_latest(key.task, key.fence);
            let counted = counted.filter(|_| is_counted).and_then(|hash| self.store.prepared(hash));
            used.give(counted.map_or(&work.spec.resources, |spec| &spec.spec.resources));
        }
        // What needs nothing may be given even then.
        if needs_some && !used.fits(&worker.resources) {
            return Err(format!("worker {} has {:?}, given was {used:?}", worker.name, worker.resources));
        }
        Ok(())
    }

    pub(super) fn start_waiting(&mut self, index: usize) -> Result<(), String> {
        let at = self.now().wall;
        loop {
            let worker = &mut self.workers[index];
            if worker.count(&[Stage::Running, Stage::Stopping]) >= worker.slots as usize {
                return Ok(());
            }
            let Some(key) = worker.waiting.pop_front() else { return Ok(()) };
            let Some(work) = worker.work.get_mut(&key) else { continue };
            work.stage = Stage::Running;
            work.started_at = at;
            let Some(work) = self.workers[index].work.get(&key) else { continue };
            let is_noop = work.spec.payload == Payload::Noop;
            let is_endless = is_endless(&work.spec);
            let is_part = work.is_part;
            let checkpoint = work.checkpoint;
            let step = self.store.begin_at(key, checkpoint)?;
            if let Some(work) = self.workers[index].work.get_mut(&key) {
                work.step = step;
            }
            self.plan_ask(index, key);
            self.report(index, key, ReportBody::Started { at });
            if is_endless {
                continue;
            }
            let duration = if is_noop {
                0
            } else if self.random.chance(50) {
                self.random.ms(1_000, 8_000)
            } else {
                self.random.ms(1, 900)
            };
            // Of many nodes few may fail, or most runs would not get far.
            let end = match self.random.below(if is_part { 60 } else { 20 }) {
                0 => End::Failed(RetryOn::Timeout),
                1 => End::Failed(RetryOn::Spawn),
                2..=4 => End::Failed(RetryOn::Error),
                5 if !self.is_calm => End::Interrupted,
                _ => End::Completed,
            };
            self.alarm(index, duration, Alarm::Ended(key, end));
        }
    }

    /// Queues a report and sends it if the master listens; sometimes with all that went before.
    fn report(&mut self, index: usize, key: AttemptKey, body: ReportBody) {
        let sends_all = self.duplicates && self.random.chance(150);
        let worker = &mut self.workers[index];
        worker.last_report += 1;
        let report = Report { no: worker.last_report, key, body };
        worker.reports.push_back(report.clone());
        if let Some(session) = worker.session
            && worker.is_welcome
        {
            let reports = if sends_all { worker.reports.iter().cloned().collect() } else { vec![report] };
            self.send_up(session, Upward::Reports(reports));
        }
    }

    /// Says everything that is not acknowledged once more, on the same socket.
    pub(super) fn repeat_reports(&mut self, index: usize) {
        let worker = &self.workers[index];
        if let Some(session) = worker.session
            && worker.is_welcome
            && !worker.reports.is_empty()
        {
            let reports = worker.reports.iter().cloned().collect();
            self.send_up(session, Upward::Reports(reports));
        }
    }

    pub(super) fn attempt_ended(&mut self, index: usize, key: AttemptKey, end: End) -> Result<(), String> {
        let at = self.now().wall;
        let mut outputs = self.random_outputs(key.task, end);
        // As large ones are kept; the door has read them.
        let blob = outputs.take_if(|_| self.random.chance(250)).map(NewBlob::new);
        let left = blob.map(|blob| {
            Box::new(Left { outputs: Some(blob.named()), outputs_text: Some(blob.text), ..Left::default() })
        });
        let worker = &mut self.workers[index];
        let Some(work) = worker.work.get_mut(&key) else { return Ok(()) };
        if work.stage == Stage::Over {
            return Ok(());
        }
        work.stage = Stage::Over;
        let outcome = Outcome {
            exit_code: Some(i32::from(end != End::Completed)),
            result: Some(result_of(&worker.name, key)),
            outputs,
            left,
            error: matches!(end, End::Failed(_)).then(|| "it failed".into()),
            ..Outcome::default()
        };
        let finished =
            Finished { started_at: work.started_at, finished_at: at, end, outcome, log_bytes: 0, log_cut: 0 };
        worker.waiting.retain(|waiting| *waiting != key);
        self.report(index, key, ReportBody::Finished(Box::new(finished)));
        self.start_waiting(index)?;
        self.leave_if_drained(index);
        Ok(())
    }

    /// What an attempt leaves, mostly if it ends well: small values that others decide by.
    fn random_outputs(&mut self, task: TaskId, end: End) -> Option<Box<str>> {
        let share = if end == End::Completed { 750 } else { 200 };
        if !self.random.chance(share) {
            return None;
        }
        let list: Vec<usize> = (0..self.random.below(5)).map(|_| self.random.below(9)).collect();
        let (n, flag) = (self.random.below(5), self.random.chance(500));
        let mut outputs = json!({"n": n, "flag": flag, "list": list});
        outputs[own_output(task)] = json!(self.random.below(1_000));
        Some(outputs.to_string().into())
    }

    /// Stops an attempt: at once if it waits, else after a while, unless it ends before.
    pub(super) fn stop_attempt(&mut self, index: usize, key: AttemptKey, end: End) -> Result<(), String> {
        let Some(work) = self.workers[index].work.get_mut(&key) else { return Ok(()) };
        match work.stage {
            Stage::Waiting => return self.attempt_ended(index, key, end),
            Stage::Running => {
                work.stage = Stage::Stopping;
                let grace = self.random.ms(1, 1_000);
                self.alarm(index, grace, Alarm::Ended(key, end));
            }
            Stage::Stopping | Stage::Over => {}
        }
        Ok(())
    }

    pub(super) fn stop_at_deadline(&mut self, index: usize) -> Result<(), String> {
        let stops = |work: &Work| work.spec.on_disconnect == OnDisconnect::Stop && work.stage != Stage::Over;
        let keys: Vec<AttemptKey> =
            self.workers[index].work.iter().filter(|(_, work)| stops(work)).map(|(key, _)| *key).collect();
        for key in keys {
            self.stop_attempt(index, key, End::Interrupted)?;
        }
        // What has locks is killed without grace.
        let locking = |work: &Work| {
            (!work.spec.locks.is_empty() || !work.locks.is_empty()) && work.stage != Stage::Over
        };
        let work = &self.workers[index].work;
        let keys: Vec<AttemptKey> =
            work.iter().filter(|(_, work)| locking(work)).map(|(key, _)| *key).collect();
        for key in keys {
            self.attempt_ended(index, key, End::Interrupted)?;
        }
        Ok(())
    }

    /// Kills attempts that are no longer the worker's; nobody wants to hear of them.
    pub(super) fn drop_attempts(&mut self, index: usize, keys: &[AttemptKey]) {
        let worker = &mut self.workers[index];
        for key in keys {
            worker.work.remove(key);
            worker.waiting.retain(|waiting| waiting != key);
        }
    }

    pub(super) fn give_back(&mut self, index: usize, keys: &[AttemptKey]) {
        for key in keys {
            let worker = &mut self.workers[index];
            if let Some(work) = worker.work.get_mut(key)
                && work.stage == Stage::Waiting
            {
                work.stage = Stage::Over;
                worker.waiting.retain(|waiting| waiting != key);
                self.report(index, *key, ReportBody::Returned {});
            }
        }
    }

    pub(super) fn acknowledged(&mut self, index: usize, up_to: u64) {
        let worker = &mut self.workers[index];
        while let Some(report) = worker.reports.front()
            && report.no <= up_to
        {
            if !matches!(report.body, ReportBody::Started { .. }) {
                worker.work.remove(&report.key);
            }
            worker.reports.pop_front();
        }
    }

    /// A worker speaks of what another one was given, as it would with a copied data directory.
    pub(super) fn tell_a_lie(&mut self, index: usize) {
        let Some(key) = self.foreign_key(index) else { return };
        if self.random.chance(400) {
            self.asks_for(index, key);
            return;
        }
        let at = self.now().wall;
        let outcome =
            Outcome { result: Some(result_of(&self.workers[index].name, key)), ..Outcome::default() };
        let (end, started_at) = (End::Completed, at);
        let finished = Finished { started_at, finished_at: at, end, outcome, log_bytes: 0, log_cut: 0 };
        self.report(index, key, ReportBody::Finished(Box::new(finished)));
    }

    /// An attempt that some other worker has.
    pub(super) fn foreign_key(&mut self, index: usize) -> Option<AttemptKey> {
        let other = self.random.below(self.workers.len());
        if other == index {
            return None;
        }
        let keys: Vec<AttemptKey> = self.workers[other].work.keys().copied().collect();
        self.random.pick(&keys)
    }
}

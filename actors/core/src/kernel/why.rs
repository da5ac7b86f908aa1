//! Why a task is not running: computed from the state that schedules, so that it cannot disagree.

use super::workers::Worker;
use super::{Kernel, Requirement};
use crate::ids::TaskId;
use crate::rejection::Rejection;
use crate::status::Status;
use crate::task::{Hold, Phase};
use crate::time::{Now, Wall};
use crate::why::{Reason, Why};

/// Workers named in one reason.
const NAMES: usize = 10;

impl Kernel {
    /// Every reason why a live task is not running.
    ///
    /// # Errors
    /// When the task is not live: its row says how it settled.
    pub fn why(&self, id: TaskId, now: Now) -> Result<Why, Rejection> {
        let Some(entry) = self.tasks.get(id) else {
            let reasons = self.why_unwritten(id).ok_or(Rejection::UnknownTask(id))?;
            return Ok(Why { task: id, status: Status::Blocked, reasons });
        };
        let requirement = &self.classes.get(entry.class).requirement;
        let task = &entry.task;
        let reasons = match &task.phase {
            Phase::Blocked => self.blocked(id),
            Phase::Gate => vec![self.asked(entry, task.created_at)],
            Phase::Open(_) => Vec::new(),
            Phase::Delayed(_) => vec![Self::delayed(task.failures, task.ready_at, now)],
            Phase::Ready(_) => {
                let mut reasons = self.lacking_keys(&requirement.keys, now);
                reasons.extend(self.lacking_locks(id));
                if reasons.is_empty() {
                    reasons = self.unplaced(requirement, task.ready_at);
                }
                reasons
            }
            Phase::Assigned(hold) if hold.started_at.is_some() => Vec::new(),
            Phase::Assigned(hold) => vec![self.handed(hold)],
            Phase::Settled(_) => Vec::new(),
        };
        Ok(Why { task: id, status: task.status(), reasons })
    }

    fn blocked(&self, id: TaskId) -> Vec<Reason> {
        let mut reasons = self.blocked_by_relations(id);
        reasons.extend(self.blocked_in_run(id));
        reasons
    }

    fn asked(&self, entry: &super::table::Entry, since: Wall) -> Reason {
        let question = self.specs.get(entry.spec).spec.description.as_deref().unwrap_or("may it go on?");
        let what = format!("it waits for an approval: {question}");
        let frees = "POST /tasks/{id}/approve or /reject";
        Reason { since: Some(since), ..Reason::new("approval", what, frees) }
    }

    fn delayed(failures: u32, ready_at: Wall, now: Now) -> Reason {
        let seconds = std::time::Duration::from_millis(ready_at.ms_since(now.wall)).as_secs_f64();
        let (code, what) = if failures > 0 {
            ("backoff", format!("failed {failures} times; its next attempt is due in {seconds:.1} s"))
        } else {
            ("not_before", format!("not before its time, in {seconds:.1} s"))
        };
        Reason::new(code, what, "time")
    }

    fn handed(&self, hold: &Hold) -> Reason {
        let worker = &self.workers[hold.worker];
        let name = worker.name.to_string();
        let reason = if worker.session.is_none() {
            Reason::new(
                "worker_disconnected",
                format!("handed to worker {name}, which is disconnected"),
                "its return, or the end of its lease",
            )
        } else {
            let (running, slots) = (worker.running, worker.slots);
            Reason::new(
                "worker_queue",
                format!("handed to worker {name}, where {running} attempts run on {slots} slots"),
                "a free slot there, or an idle worker elsewhere",
            )
        };
        Reason { held_by: vec![name], since: Some(hold.assigned_at), ..reason }
    }

    /// Why no worker takes a ready task: nobody suits, or all that do are full or away.
    fn unplaced(&self, requirement: &Requirement, since: Wall) -> Vec<Reason> {
        let mut suitable = Vec::new();
        let mut nearest: Option<(usize, String)> = None;
        for (_, worker) in self.workers.iter().filter(|(_, worker)| worker.is_online()) {
            match worker.suits(requirement) {
                Ok(()) => suitable.push(worker),
                Err(lack) => {
                    let distance = usize::from(!worker.groups.contains(&requirement.group));
                    if nearest.as_ref().is_none_or(|(least, _)| distance < *least) {
                        nearest = Some((distance, format!("{} {lack}", worker.name)));
                    }
                }
            }
        }
        if suitable.is_empty() {
            return vec![Reason { since: Some(since), ..nobody(requirement, nearest.map(|(_, text)| text)) }];
        }
        let mut reasons = Vec::new();
        let mut add = |code, what: &str, frees: &str, workers: &[&Worker]| {
            if !workers.is_empty() {
                let shown = || workers.iter().take(NAMES);
                let slots =
                    |worker: &&Worker| format!("{} ({}/{} slots)", worker.name, worker.running, worker.slots);
                let names: Vec<String> = shown().map(slots).collect();
                let detail = format!("{} suitable {what}: {}", workers.len(), names.join(", "));
                let held_by = shown().map(|worker| worker.name.to_string()).collect();
                reasons.push(Reason { held_by, since: Some(since), ..Reason::new(code, detail, frees) });
            }
        };
        let (draining, rest) = split(suitable, |worker| worker.draining);
        let (away, here) = split(rest, |worker| worker.session.is_none());
        let (short, full) =
            split(here, |worker| worker.has_slot() && !requirement.resources.fits(&worker.free));
        add("workers_full", "workers are full", "the end of an attempt there, or another worker", &full);
        add("resources", "workers have too little free", "the end of an attempt that occupies it", &short);
        add("workers_disconnected", "workers are disconnected", "their return", &away);
        add("workers_draining", "workers are draining", "another worker", &draining);
        reasons
    }
}

fn split(workers: Vec<&Worker>, test: impl Fn(&Worker) -> bool) -> (Vec<&Worker>, Vec<&Worker>) {
    workers.into_iter().partition(|worker| test(worker))
}

fn nobody(requirement: &Requirement, nearest: Option<String>) -> Reason {
    let mut what = format!("no online worker serves group {}", requirement.group);
    let labels: Vec<String> =
        requirement.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    if !labels.is_empty() {
        what.push_str(&format!(" with label {}", labels.join(" and ")));
    }
    if let Some(handler) = &requirement.handler {
        what.push_str(&format!(" with handler {handler}"));
    }
    if requirement.sandbox {
        what.push_str(" with a sandbox");
    }
    if !requirement.resources.is_empty() {
        what.push_str(" with its resources");
    }
    if let Some(nearest) = nearest {
        what.push_str(&format!("; nearest: {nearest}"));
    }
    Reason::new("no_worker", what, "a worker that serves it")
}

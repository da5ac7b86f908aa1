//! Versions of tasks: what a task is to do can be changed while it waits, while it runs and after it
//! has ended.
//!
//! A running attempt finishes on the version that it began with, unless it is to be begun anew; one that
//! only waits at its worker is asked back. Until an attempt is out of its worker's hands the kernel keeps
//! the old specification for it, since what it occupies there follows from that; the row has the new one
//! at once.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::specs::SpecIndex;
use super::words::{Answer, NewVersion, Reply};
use super::{Kernel, Requirement, Step};
use crate::batch::{OutcomeChange, SpecChange, VersionRow};
use crate::event::Happening;
use crate::ids::{SpecHash, TaskId};
use crate::limits;
use crate::rejection::Rejection;
use crate::spec::ContinueFrom;
use crate::task::{Command, Phase, Policy};

/// What is known of the versions of a live task.
#[derive(Debug)]
struct Version {
    number: u32,
    /// The specification of the next attempt, while another is in a worker's hands.
    next: Option<SpecIndex>,
}

/// The versions of live tasks that were upgraded.
#[derive(Debug, Default)]
pub(crate) struct Versions(FxHashMap<TaskId, Version>);

impl Versions {
    /// Of a live task.
    pub(super) fn number(&self, task: TaskId) -> u32 {
        self.0.get(&task).map_or(1, |version| version.number)
    }

    /// A task with that version is live from now on.
    pub(super) fn enter(&mut self, task: TaskId, number: u32) {
        if number > 1 {
            self.0.insert(task, Version { number, next: None });
        }
    }

    /// Tasks of which a version waits for the end of an attempt.
    pub(super) fn waiting(&self) -> usize {
        self.0.values().filter(|version| version.next.is_some()).count()
    }

    /// Every task that was upgraded.
    pub(super) fn tasks(&self) -> impl Iterator<Item = TaskId> {
        self.0.keys().copied()
    }

    fn take_next(&mut self, task: TaskId) -> Option<SpecIndex> {
        self.0.get_mut(&task)?.next.take()
    }
}

impl Kernel {
    /// Gives a live task another version.
    pub(super) fn on_upgrade(&mut self, step: &mut Step, new: NewVersion) -> Reply {
        let id = new.task;
        let entry = self.tasks.get(id).ok_or(Rejection::UnknownTask(id))?;
        if let Some(run) = self.run_of(id) {
            return Err(Rejection::PartOfRun(run));
        }
        if matches!(entry.task.phase, Phase::Open(_)) {
            return Err(Rejection::Illegal {
                status: entry.task.status(),
                action: "an upgrade",
                needs: "work of its own",
            });
        }
        self.check_version(id, new.from)?;
        if self.newest_spec(id) != Some(new.base) {
            return Err(Rejection::Busy);
        }
        if new.restart {
            self.supersede_attempt(step, id, &format!("version {} takes its place", new.from + 1))?;
        }
        let is_other =
            self.tasks.get(id).is_some_and(|entry| self.specs.get(entry.spec).hash != new.spec.hash);
        let waits_there = is_other && self.waits_at_its_worker(id);
        let version = self.upgrade(step, new);
        if waits_there {
            // One that has begun meanwhile says so, and finishes on its version.
            self.command(step, id, Command::AskBack, OutcomeChange::Keep)?;
        }
        self.pass_milestone(step, id);
        Ok(Answer::Upgraded { version })
    }

    /// Whether an attempt has been handed over and has not begun, and can be asked back.
    pub(super) fn waits_at_its_worker(&self, id: TaskId) -> bool {
        let hold = self.tasks.get(id).and_then(|entry| entry.task.hold());
        hold.is_some_and(|hold| {
            hold.started_at.is_none() && !hold.cancelling && self.workers[hold.worker].session.is_some()
        })
    }

    /// What a live task is to do from its next attempt on.
    fn newest_spec(&self, id: TaskId) -> Option<SpecHash> {
        let next = self.versions.0.get(&id).and_then(|version| version.next);
        Some(self.specs.get(next.unwrap_or(self.tasks.get(id)?.spec)).hash)
    }

    pub(super) fn check_version(&self, task: TaskId, expected: u32) -> Result<(), Rejection> {
        let current = self.versions.number(task);
        if current != expected {
            return Err(Rejection::OtherVersion { expected, current });
        }
        if current >= limits::VERSIONS {
            return Err(Rejection::Limit { what: "versions of a task", limit: limits::VERSIONS as usize });
        }
        Ok(())
    }

    /// Makes the new version that of the task; it must fit.
    pub(super) fn upgrade(&mut self, step: &mut Step, new: NewVersion) -> u32 {
        let NewVersion { task: id, title, spec, reason, author, first, continue_from, from, .. } = new;
        let version = from + 1;
        let Some(entry) = self.tasks.get(id) else { return from };
        let (old, created_at) = (entry.spec, entry.task.created_at);
        let before = self.versions.take_next(id);
        let old_hash = self.specs.get(before.unwrap_or(old)).hash;
        let row = |version, title, spec, reason, author, created_at| VersionRow {
            task: id,
            version,
            title,
            spec,
            reason,
            author,
            created_at,
        };
        if from == 1 {
            let (reason, author) = ("".into(), "".into());
            step.batch.saved.versions.push(row(1, first, old_hash, reason, author, created_at));
        }
        let now = step.now.wall;
        let title_of_row = title.clone();
        step.batch.saved.versions.push(row(
            version,
            title_of_row,
            spec.hash,
            Arc::clone(&reason),
            author,
            now,
        ));
        let (index, is_new) = self.specs.enter(&spec);
        if is_new {
            step.write_spec(&spec);
        }
        if let Some(before) = before {
            self.specs.leave(before);
        }
        self.versions.0.insert(id, Version { number: version, next: Some(index) });
        let entry = self.tasks.get(id);
        if entry.is_some_and(|entry| entry.task.hold().is_none()) {
            let is_queued = entry.is_some_and(|entry| entry.task.is_ready());
            self.take_version(step, id, is_queued);
            if is_queued {
                self.enqueue(step, id);
            }
        }
        if continue_from == ContinueFrom::Beginning {
            self.begin_anew(step, id);
            self.forget_all(step, id);
        }
        step.task_event(id, Happening::TaskUpgraded { version, reason });
        self.write(step, id, None, OutcomeChange::Keep);
        if let Some(write) = step.batch.tasks.last_mut() {
            write.spec = (old_hash != spec.hash).then_some(SpecChange { old: old_hash, new: spec.hash });
            write.title = Some(title);
        }
        step.urgent = true;
        version
    }

    /// The task is in nobody's hands: from now on it is what its latest version says. If it is in a
    /// queue, it must be queued again.
    pub(super) fn take_version(&mut self, step: &mut Step, id: TaskId, is_queued: bool) {
        let Some(next) = self.versions.take_next(id) else { return };
        let Some(entry) = self.tasks.get_mut(id) else { return };
        let old = std::mem::replace(&mut entry.spec, next);
        let group = Arc::clone(&self.classes.get(entry.class).requirement.group);
        self.specs.leave(old);
        let requirement = Requirement::of(&group, &self.specs.get(next).spec);
        self.reclass(step, id, requirement, is_queued);
    }

    /// A task has ended; versions that came too late for it are in its row.
    pub(super) fn leave_versions(&mut self, id: TaskId) {
        if let Some(Version { next: Some(next), .. }) = self.versions.0.remove(&id) {
            self.specs.leave(next);
        }
    }

    /// Takes the current attempt from a task.
    pub(super) fn supersede_attempt(
        &mut self,
        step: &mut Step,
        id: TaskId,
        reason: &str,
    ) -> Result<(), Rejection> {
        let entry = self.tasks.get(id).ok_or(Rejection::UnknownTask(id))?;
        let policy = Policy { retry: &self.specs.get(entry.spec).spec.retry, seed: id.0 };
        let command = Command::Supersede { reason: reason.into() };
        // No plain command: even a task that has become a milestone does not end before whoever
        // supersedes its attempt is done with it.
        if let Some(event) = entry.task.decide(command, policy, step.now.wall)? {
            self.happen(step, id, &event, OutcomeChange::Keep);
        }
        Ok(())
    }
}

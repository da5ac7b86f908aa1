//! What clients ask.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use super::apply::key_of;
use super::classes::Requirement;
use super::table;
use super::words::{
    Answer, Effect, LoadedTask, NewVersion, PreparedSpec, Reply, Request, RestoreRequest, Stats,
};
use super::{Kernel, Step};
use crate::attempt::AttemptKey;
use crate::batch::{OutcomeChange, SettledCounts, TaskState};
use crate::checkpoint::Choice;
use crate::event::Happening;
use crate::ids::{ReplyTo, TaskId};
use crate::memory::Owner;
use crate::rejection::Rejection;
use crate::spec::ContinueFrom;
use crate::status::Status;
use crate::task::{Command, Phase, Policy, Task};

/// Settled tasks on their way from the database to be run again. A task is asked for by one
/// request at a time: until its row is here, another `retry` could not know what it decides on.
#[derive(Debug, Default)]
pub(crate) struct Reopening {
    on_their_way: BTreeMap<TaskId, (ReplyTo, Purpose)>,
    waiting: BTreeMap<ReplyTo, Progress>,
}

/// What for.
#[derive(Debug)]
enum Purpose {
    Retry(ContinueFrom),
    Restore(Box<RestoreRequest>),
    Upgrade(Box<NewVersion>),
}

#[derive(Debug, Default)]
struct Progress {
    left: usize,
    changed: u32,
    refused: Vec<(TaskId, Rejection)>,
}

impl Kernel {
    pub(super) fn on_request(&mut self, step: &mut Step, to: ReplyTo, request: Request) {
        let reply = match request {
            Request::Submit { tasks, key } => self.on_submit(step, tasks, key),
            Request::Cancel { tasks } => Ok(self.for_each(tasks, |kernel, task| {
                kernel.command(step, task, Command::Cancel, OutcomeChange::Keep).map(drop)
            })),
            Request::Retry { tasks, continue_from } => {
                self.reopen(step, to, tasks, continue_from);
                return;
            }
            Request::Save { save, key } => self.on_save(step, *save, key),
            Request::Restore(restore) => {
                if !self.has_ended_before(restore.task) {
                    self.restore_live(step, *restore).map(|()| Answer::Done)
                } else {
                    self.reopen_for(step, to, restore.task, Purpose::Restore(restore));
                    return;
                }
            }
            Request::Upgrade(new) => {
                if !self.has_ended_before(new.task) {
                    self.on_upgrade(step, *new)
                } else {
                    self.reopen_for(step, to, new.task, Purpose::Upgrade(new));
                    return;
                }
            }
            Request::Remember { owner, name, value, ttl_ms } => {
                self.on_remember(step, owner, name, value, ttl_ms).map(|()| Answer::Done)
            }
            Request::Patch { tasks, priority, group } => {
                Ok(self.for_each(tasks, |kernel, task| kernel.patch(step, task, priority, group.as_ref())))
            }
            Request::Release { tasks } => {
                Ok(self.for_each(tasks, |kernel, task| kernel.release_hold(step, task)))
            }
            Request::Approve { task } => self.approve(step, task).map(|()| Answer::Done),
            Request::Reject { task, reason } => self.reject(step, task, &reason).map(|()| Answer::Done),
            Request::Relate { predecessor, successor, relation } => {
                self.relate(step, &predecessor, successor, relation).map(|()| Answer::Done)
            }
            Request::StartRun { run, key } => self.on_start_run(step, *run, key),
            Request::Rerun(again) => {
                self.on_rerun(step, to, *again);
                return;
            }
            Request::Fork(fork) => {
                self.on_fork(step, to, *fork);
                return;
            }
            Request::UpgradeRun(upgrade) => {
                self.on_upgrade_run(step, to, *upgrade);
                return;
            }
            Request::ConfigureKey(row) => self.configure_key(step, row).map(|()| Answer::Done),
            Request::Keys => Ok(Answer::Keys(self.key_infos())),
            Request::PutSchedule(schedule) => self.put_schedule(step, *schedule).map(|()| Answer::Done),
            Request::RemoveSchedule { name } => self.remove_schedule(step, &name).map(|()| Answer::Done),
            Request::PauseSchedule { name, paused } => {
                self.pause_schedule(step, &name, paused).map(|()| Answer::Done)
            }
            Request::FireSchedule { name } => self.fire_schedule(step, &name).map(|()| Answer::Done),
            Request::Schedules => Ok(Answer::Schedules(self.schedule_rows())),
            Request::ControlRun { run, action } => self.control_run(step, run, action),
            Request::WhyRun { run } => self.why_run(run, step.now).map(Answer::WhyRun),
            Request::Why { task } => self.why(task, step.now).map(|why| Answer::Why(Box::new(why))),
            Request::Stats => Ok(Answer::Stats(Box::new(self.stats()))),
            Request::Lock { want, wait_ms } => {
                if let Some(reply) = self.on_lock(step, to, *want, wait_ms) {
                    reply
                } else {
                    return;
                }
            }
            Request::LockEach(wants) => Ok(self.on_lock_each(step, to, wants)),
            Request::Unlock(unlocks) => Ok(self.on_unlock(step, unlocks)),
            Request::UnlockBy { owner, repo, path } => {
                self.unlock_by(step, &owner, repo.as_ref(), path.as_ref()).map(Answer::Released)
            }
            Request::Renew { lock, fence, ttl_ms } => self.renew_lock(step, lock, fence, ttl_ms),
            Request::Break { lock, reason } => self.break_lock(step, lock, &reason),
            Request::Locks(filter) => Ok(self.lock_list(&filter)),
            Request::Workers => Ok(Answer::Workers(self.workers.infos())),
            Request::Drain { worker } => self.drain(step, &worker).map(|()| Answer::Done),
            Request::WorkerDead { worker, boot } => {
                self.on_worker_dead(step, &worker, boot).map(|()| Answer::Done)
            }
        };
        step.effects.push(Effect::Reply { to, reply });
    }

    fn for_each(
        &mut self,
        tasks: Vec<TaskId>,
        mut change: impl FnMut(&mut Self, TaskId) -> Result<(), Rejection>,
    ) -> Answer {
        let (mut changed, mut refused) = (0, Vec::new());
        for task in tasks {
            match change(self, task) {
                Ok(()) => changed += 1,
                Err(rejection) => refused.push((task, rejection)),
            }
        }
        Answer::Changed { changed, refused }
    }

    fn patch(
        &mut self,
        step: &mut Step,
        id: TaskId,
        priority: Option<u8>,
        group: Option<&Arc<str>>,
    ) -> Result<(), Rejection> {
        let entry = self.tasks.get(id).ok_or(Rejection::UnknownTask(id))?;
        // The same rule holds for both: a task may be changed while it waits here.
        let priority = priority.unwrap_or(entry.task.priority);
        self.command(step, id, Command::Prioritise { priority }, OutcomeChange::Keep)?;
        if let Some(group) = group {
            self.regroup(step, id, group);
        }
        Ok(())
    }

    fn regroup(&mut self, step: &mut Step, id: TaskId, group: &Arc<str>) {
        let Some(entry) = self.tasks.get(id) else { return };
        if self.classes.get(entry.class).requirement.group == *group {
            return;
        }
        let requirement = Requirement::of(group, &self.specs.get(entry.spec).spec);
        let is_ready = entry.task.is_ready();
        self.reclass(step, id, requirement, is_ready);
        self.changed(step, id);
        if is_ready {
            self.enqueue(step, id);
        }
    }

    /// Has a task require something else; if it is in a queue, it must be queued again.
    pub(super) fn reclass(&mut self, step: &mut Step, id: TaskId, requirement: Requirement, is_queued: bool) {
        let Some(entry) = self.tasks.get(id) else { return };
        let (old, is_queued) = (entry.class, is_queued && !entry.parked);
        self.leave_lock_queue(step, id);
        let class = self.enter_class(step, requirement);
        if let Some(entry) = self.tasks.get_mut(id) {
            entry.class = class;
        }
        if is_queued {
            let tasks = &self.tasks;
            self.classes.forget(old, |task, key| super::apply::is_waiting(tasks, old, task, key));
        }
        self.leave_class(old);
    }

    /// Has a blocked task require what its new body says.
    pub(super) fn change_class(&mut self, step: &mut Step, id: TaskId, new: &super::NewTask) {
        debug_assert!(self.tasks.get(id).is_some_and(|entry| entry.task.phase == Phase::Blocked));
        let Some(old) = self.tasks.get(id) else { return };
        let is_other = self.classes.get(old.class).requirement.group != new.group;
        let is_other = is_other || old.task.priority != new.priority;
        self.reclass(step, id, Requirement::of(&new.group, &new.spec.spec), false);
        if let Some(entry) = self.tasks.get_mut(id) {
            entry.task.priority = new.priority;
            entry.task.ready_at = new.not_before.unwrap_or(step.now.wall);
        }
        if is_other {
            let group = Arc::clone(&new.group);
            step.task_event(id, Happening::TaskChanged { group, priority: new.priority });
        }
    }

    /// Asks for the rows of settled tasks; live ones are refused at once.
    fn reopen(&mut self, step: &mut Step, to: ReplyTo, tasks: Vec<TaskId>, continue_from: ContinueFrom) {
        let mut progress = Progress::default();
        let mut wanted = Vec::new();
        for id in tasks {
            if let Some(entry) = self.tasks.get(id) {
                let needs = "completed, failed, cancelled or skipped";
                let refusal = Rejection::Illegal { status: entry.task.status(), action: "retry", needs };
                progress.refused.push((id, refusal));
            } else if id > self.counters.last_task || id.0 == 0 {
                progress.refused.push((id, Rejection::UnknownTask(id)));
            } else if let Entry::Vacant(place) = self.reopening.on_their_way.entry(id) {
                place.insert((to, Purpose::Retry(continue_from)));
                wanted.push(id);
            } else {
                progress.refused.push((id, Rejection::Busy));
            }
        }
        progress.left = wanted.len();
        self.reopening.waiting.insert(to, progress);
        if !wanted.is_empty() {
            step.effects.push(Effect::Load { tasks: wanted });
        }
        self.conclude_reopening(step, to);
    }

    /// Whether a task is known and not live.
    fn has_ended_before(&self, id: TaskId) -> bool {
        self.tasks.get(id).is_none() && id.0 > 0 && id <= self.counters.last_task
    }

    /// Asks for the row of one settled task, for something else than a retry.
    fn reopen_for(&mut self, step: &mut Step, to: ReplyTo, id: TaskId, purpose: Purpose) {
        if let Entry::Vacant(place) = self.reopening.on_their_way.entry(id) {
            place.insert((to, purpose));
            step.effects.push(Effect::Load { tasks: vec![id] });
        } else {
            step.effects.push(Effect::Reply { to, reply: Err(Rejection::Busy) });
        }
    }

    /// Whether the row of a settled task is on its way, for somebody who is about to open it again.
    pub(super) fn is_on_its_way(&self, id: TaskId) -> bool {
        self.reopening.on_their_way.contains_key(&id)
    }

    pub(super) fn on_loaded(&mut self, step: &mut Step, asked: &[TaskId], tasks: Vec<LoadedTask>) {
        let mut found: BTreeMap<TaskId, LoadedTask> =
            tasks.into_iter().map(|task| (task.row.id, task)).collect();
        for id in asked {
            let Some((to, purpose)) = self.reopening.on_their_way.remove(id) else { continue };
            let is_list = matches!(purpose, Purpose::Retry(_));
            let result = match found.remove(id) {
                Some(loaded) => self.revive(step, loaded, purpose),
                None => Err(Rejection::UnknownTask(*id)),
            };
            if !is_list {
                step.effects.push(Effect::Reply { to, reply: result });
                continue;
            }
            if let Some(progress) = self.reopening.waiting.get_mut(&to) {
                progress.left -= 1;
                match result {
                    Ok(_) => progress.changed += 1,
                    Err(rejection) => progress.refused.push((*id, rejection)),
                }
            }
            self.conclude_reopening(step, to);
        }
    }

    fn conclude_reopening(&mut self, step: &mut Step, to: ReplyTo) {
        if self.reopening.waiting.get(&to).is_some_and(|progress| progress.left == 0)
            && let Some(Progress { changed, refused, .. }) = self.reopening.waiting.remove(&to)
        {
            step.effects.push(Effect::Reply { to, reply: Ok(Answer::Changed { changed, refused }) });
        }
    }

    /// Brings a settled task back to life.
    fn revive(&mut self, step: &mut Step, loaded: LoadedTask, purpose: Purpose) -> Reply {
        let LoadedTask { row, spec: prepared, successors, saved } = loaded;
        if let Some(node) = &row.run {
            return Err(Rejection::PartOfRun(node.run));
        }
        let (id, state) = (row.id, row.state);
        let task = Task {
            phase: Phase::Settled(state.status),
            created_at: row.created_at,
            ready_at: state.ready_at,
            pending_since: if state.lost > 0 { step.now.wall } else { state.ready_at },
            fence: state.fence,
            attempt: state.attempt,
            failures: state.failures,
            lost: state.lost,
            priority: state.priority,
        };
        if self.tasks.len() >= self.settings.live_tasks {
            return Err(Rejection::Limit {
                what: "tasks that are not settled",
                limit: self.settings.live_tasks,
            });
        }
        match &purpose {
            Purpose::Retry(_) => {}
            Purpose::Restore(restore) => {
                if !saved.kept.iter().any(|kept| kept.id == restore.checkpoint) {
                    return Err(Rejection::CheckpointGone(restore.checkpoint));
                }
                self.check_memory(Owner::Task(id), &restore.memory)?;
            }
            Purpose::Upgrade(new) if new.from != state.version => {
                return Err(Rejection::OtherVersion { expected: new.from, current: state.version });
            }
            Purpose::Upgrade(new) if new.base != prepared.hash => return Err(Rejection::Busy),
            Purpose::Upgrade(_) => {}
        }
        let policy = Policy { retry: &prepared.spec.retry, seed: id.0 };
        let Some(event) = task.decide(Command::Retry, policy, step.now.wall)? else {
            return Ok(Answer::Done);
        };
        self.bring_back(step, id, task, &state, &prepared);
        self.saved.enter(id, saved);
        self.wait_again(&successors);
        self.happen(step, id, &event, OutcomeChange::Keep);
        let answer = self.take_up(step, id, purpose)?;
        self.pass_milestone(step, id);
        Ok(answer)
    }

    /// What a settled task was brought back for.
    fn take_up(&mut self, step: &mut Step, id: TaskId, purpose: Purpose) -> Reply {
        match purpose {
            Purpose::Retry(ContinueFrom::Checkpoint) => {}
            Purpose::Retry(ContinueFrom::Beginning) => {
                self.begin_anew(step, id);
                self.forget_all(step, id);
            }
            Purpose::Restore(restore) => self.restore_live(step, *restore)?,
            Purpose::Upgrade(new) => return Ok(Answer::Upgraded { version: self.upgrade(step, *new) }),
        }
        Ok(Answer::Done)
    }

    /// Has a live task go on at a checkpoint.
    fn restore_live(&mut self, step: &mut Step, restore: RestoreRequest) -> Result<(), Rejection> {
        let RestoreRequest { task: id, checkpoint, continue_from, memory } = restore;
        let entry = self.tasks.get(id).ok_or(Rejection::UnknownTask(id))?;
        if !self.saved.has(id, checkpoint) {
            return Err(Rejection::CheckpointGone(checkpoint));
        }
        let attempt = entry.task.attempt;
        self.check_memory(Owner::Task(id), &memory)?;
        self.supersede_attempt(step, id, &format!("checkpoint {checkpoint} was restored"))?;
        let choice = match continue_from {
            ContinueFrom::Checkpoint => Choice::At(checkpoint),
            ContinueFrom::Beginning => Choice::Beginning,
        };
        self.choose(step, id, Some(choice));
        self.replace_memory(step, Owner::Task(id), memory)?;
        step.task_event(id, Happening::TaskRestored { attempt, checkpoint });
        step.urgent = true;
        self.pass_milestone(step, id);
        Ok(())
    }

    /// Puts a settled task into the table again; something must happen to it at once.
    pub(super) fn bring_back(
        &mut self,
        step: &mut Step,
        id: TaskId,
        task: Task,
        state: &TaskState,
        prepared: &Arc<PreparedSpec>,
    ) {
        if let Some(count) = self.counters.settled.of(state.status) {
            *count = count.saturating_sub(1);
        }
        let class = self.enter_class(step, Requirement::of(&state.group, &prepared.spec));
        self.versions.enter(id, state.version);
        // Its text is in the database for as long as the task is.
        let (spec, _) = self.specs.enter(prepared);
        self.tasks.insert(id, table::Entry { task, spec, class, parked: false });
    }

    fn drain(&mut self, step: &mut Step, name: &Arc<str>) -> Result<(), Rejection> {
        let index = self.workers.find(name).ok_or_else(|| Rejection::UnknownWorker(Arc::clone(name)))?;
        self.start_draining(step, index);
        if let Some(session) = self.workers[index].session {
            step.effects.push(Effect::Drain { session });
        }
        Ok(())
    }

    /// Whether an attempt is the current one of its task and has begun.
    #[must_use]
    pub fn is_running(&self, key: AttemptKey) -> bool {
        self.tasks.get(key.task).is_some_and(|entry| {
            key_of(key.task, &entry.task) == key && entry.task.status() == Status::Running
        })
    }

    /// Counts as they stand.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let mut stats = Stats {
            blocked: self.live.blocked,
            pending: self.live.pending,
            running: self.live.running,
            settled: self.counters.settled,
            locks_held: self.locks.held() as u64,
            locks_waiting: self.locks.waiting() as u64,
            ..Stats::default()
        };
        for (_, worker) in self.workers.iter() {
            if !worker.is_online() {
                stats.offline += 1;
                continue;
            }
            if worker.draining {
                stats.draining += 1;
            } else {
                stats.online += 1;
            }
            stats.slots += u64::from(worker.slots);
            stats.slots_used += u64::from(worker.running);
        }
        stats
    }

    pub(super) fn on_pruned(&mut self, removed: SettledCounts) {
        let settled = &mut self.counters.settled;
        settled.completed = settled.completed.saturating_sub(removed.completed);
        settled.failed = settled.failed.saturating_sub(removed.failed);
        settled.cancelled = settled.cancelled.saturating_sub(removed.cancelled);
        settled.skipped = settled.skipped.saturating_sub(removed.skipped);
    }
}

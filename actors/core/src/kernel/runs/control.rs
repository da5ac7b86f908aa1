//! What people do with a run: pause, resume, cancel, approve, reject.

use super::table::Run;
use super::{run_event, write_run};
use crate::batch::{OutcomeChange, OutdatedRow};
use crate::event::Happening;
use crate::ids::{RunId, TaskId};
use crate::kernel::words::Answer;
use crate::kernel::{Kernel, Step};
use crate::rejection::Rejection;
use crate::run::RunStatus;
use crate::task::{Command, Phase};

/// What people do with a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RunAction {
    /// Start nothing new.
    Pause,
    /// Go on.
    Resume,
    /// Stop what runs, and never begin the rest.
    Cancel,
}

impl Kernel {
    pub(in crate::kernel) fn control_run(
        &mut self,
        step: &mut Step,
        id: RunId,
        action: RunAction,
    ) -> Result<Answer, Rejection> {
        let mut run = self.runs.take(id).ok_or(Rejection::UnknownRun(id))?;
        let done = match action {
            RunAction::Pause => self.pause_run(step, &mut run),
            RunAction::Resume => self.resume_run(step, &mut run),
            RunAction::Cancel => {
                self.stop_run(step, &mut run, true);
                Ok(())
            }
        };
        step.runs.insert(id);
        self.runs.put_back(run);
        done.map(|()| Answer::Done)
    }

    fn pause_run(&mut self, step: &mut Step, run: &mut Run) -> Result<(), Rejection> {
        match run.status {
            RunStatus::Paused => return Ok(()),
            RunStatus::Pending | RunStatus::Running if !run.graph.is_stopping() => {}
            status => return Err(Rejection::IllegalRun { status, action: "pause", needs: "running" }),
        }
        run.status = RunStatus::Paused;
        run.graph.pause();
        // What waits here waits on; what a worker has may finish.
        for task in self.live_tasks_of(run) {
            let waits = self
                .tasks
                .get(task)
                .is_some_and(|entry| matches!(entry.task.phase, Phase::Ready(_) | Phase::Delayed(_)));
            if waits {
                self.hold_back(step, run, task, true);
            }
        }
        for child in run.children() {
            // One that is being stopped ends all the same.
            let _ending = self.control_run(step, child, RunAction::Pause);
        }
        run_event(step, run.id, Happening::RunPaused {});
        write_run(step, run);
        step.urgent = true;
        Ok(())
    }

    /// What comes back from a worker, to be tried again, waits if its run is paused; and is made anew if
    /// the attempt was of an older version of its run.
    pub(in crate::kernel) fn wait_for_run(&mut self, step: &mut Step, task: TaskId) {
        let Some(place) = self.runs.place(task) else { return };
        // One that is being worked on is taken out: that decides for itself.
        let Some(mut run) = self.runs.take(place.run) else { return };
        let is_outdated = self.leave_outdated(step, task);
        if is_outdated || run.status == RunStatus::Paused {
            self.hold_back(step, &mut run, task, !is_outdated);
        }
        if is_outdated {
            step.runs.insert(run.id);
        }
        self.runs.put_back(run);
    }

    /// Whether the last attempt of a task was of an older version of its run; from now on it is not.
    pub(in crate::kernel) fn leave_outdated(&mut self, step: &mut Step, task: TaskId) -> bool {
        let was_outdated = self.runs.take_outdated(task);
        if was_outdated {
            step.batch.outdated.push(OutdatedRow { task, outdated: false });
        }
        was_outdated
    }

    /// Has a task of a run wait until the run begins it: as it is, or made anew.
    fn hold_back(&mut self, step: &mut Step, run: &mut Run, task: TaskId, as_it_is: bool) {
        if let Some(place) = self.runs.place(task).filter(|place| place.item.is_none()) {
            run.graph.unbegin(place.node);
            // Before its row is written. It was decided on, and goes on as it is, with whatever people
            // have changed of it.
            if as_it_is {
                self.runs.approve(task);
            }
        }
        let blocked = self.command(step, task, Command::Block, OutcomeChange::Keep);
        debug_assert!(blocked.is_ok(), "{blocked:?}");
    }

    fn resume_run(&mut self, step: &mut Step, run: &mut Run) -> Result<(), Rejection> {
        match run.status {
            RunStatus::Paused => {}
            RunStatus::Pending | RunStatus::Running => return Ok(()),
            status => return Err(Rejection::IllegalRun { status, action: "resume", needs: "paused" }),
        }
        run.status = RunStatus::Running;
        run.graph.resume();
        // Nodes are begun again by the graph; items wait by themselves.
        let items: Vec<TaskId> = run.parts.values().flat_map(|parts| parts.live_items()).collect();
        for task in items {
            let is_blocked = self.tasks.get(task).is_some_and(|entry| entry.task.phase == Phase::Blocked);
            if is_blocked {
                let unblocked = self.command(step, task, Command::Unblock, OutcomeChange::Keep);
                debug_assert!(unblocked.is_ok(), "{unblocked:?}");
            }
        }
        for child in run.children() {
            let resumed = self.control_run(step, child, RunAction::Resume);
            debug_assert!(resumed.is_ok(), "{resumed:?}");
        }
        run_event(step, run.id, Happening::RunResumed {});
        write_run(step, run);
        step.urgent = true;
        Ok(())
    }

    /// Ends a run: what runs is stopped, what has not begun never will. `asked` says that somebody
    /// wants it; otherwise a node failed and `fail_fast` says so.
    pub(super) fn stop_run(&mut self, step: &mut Step, run: &mut Run, asked: bool) {
        let before = run.graph.stop_was_asked();
        run.graph.stop(asked);
        step.urgent |= asked;
        let is_paused = run.status == RunStatus::Paused;
        if is_paused {
            // It goes on, to its end.
            run.status = RunStatus::Running;
            run.graph.resume();
            run_event(step, run.id, Happening::RunResumed {});
        }
        if is_paused || run.graph.stop_was_asked() != before {
            // The next master must know it too.
            write_run(step, run);
        }
        for task in self.live_tasks_of(run) {
            // One that has just ended, or is being stopped, needs nothing more.
            let _ended = self.command(step, task, Command::Cancel, OutcomeChange::Keep);
        }
        for child in run.children() {
            let _ended = self.control_run(step, child, RunAction::Cancel);
        }
        step.runs.insert(run.id);
    }

    /// A node with parts was told to stop: its parts are.
    pub(in crate::kernel) fn stop_parts(&mut self, step: &mut Step, id: TaskId) {
        let Some(place) = self.runs.place(id) else { return };
        let Some(run) = self.runs.get(place.run) else { return };
        let Some(parts) = run.parts.get(&place.node) else { return };
        let items: Vec<TaskId> = parts.live_items().filter(|task| self.tasks.get(*task).is_some()).collect();
        let child = match parts {
            super::parts::Parts::Child(child) => Some(*child),
            super::parts::Parts::Items(_) => None,
        };
        for task in items {
            let _ended = self.command(step, task, Command::Cancel, OutcomeChange::Keep);
        }
        if let Some(child) = child {
            let _ended = self.control_run(step, child, RunAction::Cancel);
        }
        step.runs.insert(place.run);
    }

    pub(in crate::kernel) fn approve(&mut self, step: &mut Step, id: TaskId) -> Result<(), Rejection> {
        if let Some(place) = self.runs.place(id).filter(|place| place.item.is_none())
            && let Some(run) = self.runs.get_mut(place.run)
            && run.graph.status(place.node) == crate::run::NodeStatus::Open
            && !run.parts.contains_key(&place.node)
        {
            run.graph.reopen(place.node);
            step.runs.insert(place.run);
            // Before it is written, so that its row says it.
            self.runs.approve(id);
        }
        self.command(step, id, Command::Approve, OutcomeChange::Keep).map(drop)
    }

    pub(in crate::kernel) fn reject(
        &mut self,
        step: &mut Step,
        id: TaskId,
        reason: &str,
    ) -> Result<(), Rejection> {
        let reason = if reason.is_empty() { "rejected".to_owned() } else { format!("rejected: {reason}") };
        self.command(step, id, Command::Reject { reason: reason.into() }, OutcomeChange::Keep).map(drop)
    }
}

impl Run {
    /// The runs that are nodes of this one.
    fn children(&self) -> Vec<RunId> {
        let children = self.parts.values().filter_map(|parts| match parts {
            super::parts::Parts::Child(child) => Some(*child),
            super::parts::Parts::Items(_) => None,
        });
        children.collect()
    }
}

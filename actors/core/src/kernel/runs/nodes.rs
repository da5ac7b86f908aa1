//! A node begins, or ends without having begun.

use std::sync::Arc;

use serde_json::Value;

use super::table::{Place, Run, value_of};
use super::values::milestone;
use super::{run_event, write_run};
use crate::batch::{Outcome, OutcomeChange, RoundRow, RunNode};
use crate::event::Happening;
use crate::ids::TaskId;
use crate::kernel::submit::{Begin, Origin};
use crate::kernel::words::NewTask;
use crate::kernel::{Kernel, Step};
use crate::run::{NodeStatus, RunStatus};
use crate::status::Status;
use crate::task::{Command, TaskEvent};

impl Kernel {
    /// Everything before a node has ended well enough: its condition decides.
    pub(super) fn begin_node(&mut self, step: &mut Step, run: &mut Run, node: u32) {
        if run.status == RunStatus::Pending {
            run.status = RunStatus::Running;
            run_event(step, run.id, Happening::RunStarted {});
            write_run(step, run);
        }
        // It was made when the approval was asked for.
        if self.runs.take_approval(run.task_of(node)) {
            self.begin_work(step, run, node, None);
            return;
        }
        if let Some(condition) = run.extra(node).and_then(|extra| extra.when.clone()) {
            match condition.is_true(&run.scope_for(node, condition.references())) {
                Ok(true) => {}
                Ok(false) => {
                    let cause = format!("its condition is false: {}", condition.source());
                    self.end_unbegun(step, run, node, NodeStatus::Skipped, Some(cause.into()));
                    return;
                }
                Err(error) => {
                    let error = format!("when: {error}");
                    self.end_unbegun(step, run, node, NodeStatus::Failed, Some(error.into()));
                    return;
                }
            }
        }
        let is_whole = run.extra(node).is_none_or(|extra| extra.foreach.is_none() && extra.child.is_none());
        let task =
            if is_whole { run.make_task(node, None, &*self.maker) } else { Ok(milestone(run.name_of(node))) };
        match task {
            Err(error) => self.end_unbegun(step, run, node, NodeStatus::Failed, Some(error.into())),
            Ok(task) if run.extra(node).is_some_and(|extra| extra.approval.is_some()) => {
                let task = run.with_question(node, task);
                self.make_node(step, run, node, task, Begin::Gate);
                run.graph.open(node);
            }
            Ok(task) => self.begin_work(step, run, node, Some(task)),
        }
    }

    /// Begins the work itself; `task` is absent when the task is there already.
    fn begin_work(&mut self, step: &mut Step, run: &mut Run, node: u32, task: Option<NewTask>) {
        let is_whole = run.extra(node).is_none_or(|extra| extra.foreach.is_none() && extra.child.is_none());
        if !is_whole {
            if let Some(task) = task {
                self.make_node(step, run, node, task, Begin::Blocked);
            }
            run.graph.open(node);
            self.open_parts(step, run, node);
            return;
        }
        run.graph.begin(node);
        match task {
            Some(task) => self.make_node(step, run, node, task, Begin::Ready),
            None => {
                let unblocked = self.command(step, run.task_of(node), Command::Unblock, OutcomeChange::Keep);
                debug_assert!(unblocked.is_ok(), "{unblocked:?}");
            }
        }
    }

    /// Makes the task that a node is; one that waits already to run again gets its new body.
    fn make_node(&mut self, step: &mut Step, run: &Run, node: u32, task: NewTask, begin: Begin) {
        let id = run.task_of(node);
        if self.tasks.get(id).is_some() {
            self.rewrite(step, id, run.name_of(node), task, begin);
            return;
        }
        let name = run.name_of(node).into();
        let place = Place { run: run.id, node, item: None };
        self.make_part(step, id, task, begin, place, name);
    }

    fn rewrite(&mut self, step: &mut Step, id: TaskId, node: &str, task: NewTask, begin: Begin) {
        self.change_spec(step, id, &task.spec);
        self.change_class(step, id, &task);
        // Another version of the run may have another title or another name for it.
        self.write(step, id, None, OutcomeChange::Keep);
        if let Some(write) = step.batch.tasks.last_mut() {
            write.title = Some(if task.title.is_empty() { node.into() } else { task.title });
        }
        let command = match begin {
            Begin::Ready => Command::Unblock,
            Begin::Gate => Command::Ask,
            Begin::Blocked => return,
        };
        let begun = self.command(step, id, command, OutcomeChange::Keep);
        debug_assert!(begun.is_ok(), "{begun:?}");
    }

    /// Makes a task of a run.
    pub(super) fn make_part(
        &mut self,
        step: &mut Step,
        id: TaskId,
        mut task: NewTask,
        begin: Begin,
        place: Place,
        node: Arc<str>,
    ) {
        // Its title says which it is, unless the body gives one.
        if task.title.is_empty() {
            task.title = node.as_ref().into();
        }
        self.runs.set_place(id, place);
        let class = self.enter_class_of(step, &task);
        let origin = Origin { id, run: Some(RunNode { run: place.run, node }) };
        self.create(step, task, class, origin, begin);
    }

    /// Ends a node that has not begun. Its task is made only to be ended.
    pub(super) fn end_unbegun(
        &mut self,
        step: &mut Step,
        run: &mut Run,
        node: u32,
        end: NodeStatus,
        cause: Option<Arc<str>>,
    ) {
        let id = run.task_of(node);
        if self.tasks.get(id).is_none() {
            let task = milestone(run.name_of(node));
            self.make_node(step, run, node, task, Begin::Blocked);
        }
        run.graph.end(node, end);
        let status = end.status().unwrap_or(Status::Skipped);
        self.happen(
            step,
            id,
            &TaskEvent::Settled { status, started_at: None, error: cause },
            OutcomeChange::Keep,
        );
    }

    /// Whether an attempt that ended well is to be made again because of its node's `loop`.
    ///
    /// # Errors
    /// Why the node fails, for people.
    pub(in crate::kernel) fn goes_round(&self, id: TaskId, outcome: &Outcome) -> Result<bool, Arc<str>> {
        let Some(place) = self.runs.place(id).filter(|place| place.item.is_none()) else { return Ok(false) };
        let Some(run) = self.runs.get(place.run) else { return Ok(false) };
        let Some(repeat) = run.extra(place.node).and_then(|extra| extra.repeat.clone()) else {
            return Ok(false);
        };
        let round = run.rounds.get(&place.node).copied().unwrap_or(1);
        let own = value_of(Status::Completed, outcome).view();
        let scope = run.scope_for(place.node, repeat.until.references()).own(&own).iteration(round);
        match repeat.until.is_true(&scope) {
            Ok(true) => Ok(false),
            Ok(false) if round >= repeat.max => {
                let text = format!("loop: after {round} times still not: {}", repeat.until.source());
                Err(text.into())
            }
            Ok(false) => Ok(true),
            Err(error) => Err(format!("loop.until: {error}").into()),
        }
    }

    /// After a round of a `loop`: what the next one is, where its body reads the round.
    pub(in crate::kernel) fn next_round(&mut self, step: &mut Step, id: TaskId) {
        let Some(place) = self.runs.place(id) else { return };
        let Some(mut run) = self.runs.take(place.run) else { return };
        // Here and not before: a report that comes twice is judged twice.
        let round = run.rounds.entry(place.node).or_insert(1);
        *round += 1;
        step.batch.rounds.push(RoundRow { task: id, round: Some(*round) });
        // What could not be rendered now could not have been before: only the round is new.
        if let Ok(task) = run.make_task(place.node, None, &*self.maker) {
            self.change_spec(step, id, &task.spec);
        }
        self.runs.put_back(run);
    }
}

impl Run {
    /// Puts the question of an approval into the task that waits for it.
    fn with_question(&self, node: u32, task: NewTask) -> NewTask {
        let message = self.extra(node).and_then(|extra| extra.approval.as_ref());
        let Some(message) = message.filter(|approval| !approval.message.is_empty()) else { return task };
        let text = match self.evaluate(node, &Value::from(message.message.as_str())) {
            Ok(Value::String(text)) => text,
            Ok(other) => other.to_string(),
            Err(_) => message.message.clone(),
        };
        let spec = crate::spec::Spec { description: Some(text), ..task.spec.spec.clone() };
        NewTask { spec: Arc::new(task.spec.with(spec)), ..task }
    }

    /// Why the run failed, by the node that did.
    pub(super) fn failure_of(&self, node: u32) -> Arc<str> {
        let name = self.name_of(node);
        match self.graph.status(node) {
            NodeStatus::Cancelled => format!("'{name}' was cancelled").into(),
            _ => format!("'{name}' failed").into(),
        }
    }
}

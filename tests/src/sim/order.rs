//! In which order plain tasks must go, worked out from the rows of relations and from the events
//! alone.
//!
//! Invariants: nothing is handed to a worker before everything that it comes after has settled as the
//! relation demands; nothing is skipped but because of something that did not; what waits is blocked;
//! outputs reach the successor of a `context`.

use std::collections::{BTreeMap, BTreeSet};

use agentflow_core::batch::RelationRow;
use agentflow_core::blob::{BlobRef, InputPart, InputSource};
use agentflow_core::event::{Event, Happening, Subject};
use agentflow_core::ids::TaskId;
use agentflow_core::relation::Relation;
use agentflow_core::status::Status;
use agentflow_protocol::input::assemble;
use serde_json::Value;

use super::fold::Fold;
use super::store::Store;
use super::values::text_of;

/// A relation, as its successor sees it.
pub(super) type Key = (TaskId, TaskId, Relation);

/// How far a relation is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Wait {
    /// The predecessor has not ended.
    Open,
    /// It ended well enough.
    Met,
    /// It did not.
    Broken,
    /// One of the two was opened again since: both would be right.
    Either,
    /// Another task took the predecessor's place.
    Superseded,
}

#[derive(Clone, Debug)]
struct Before {
    task: TaskId,
    relation: Relation,
    wait: Wait,
    /// What the predecessor of a `context` left.
    outputs: Option<Box<str>>,
}

/// All relations, from both sides.
#[derive(Debug, Default)]
pub(super) struct Order {
    before: BTreeMap<TaskId, Vec<Before>>,
    after: BTreeMap<TaskId, BTreeSet<TaskId>>,
}

impl Order {
    fn find(&mut self, predecessor: TaskId, successor: TaskId) -> impl Iterator<Item = &mut Before> {
        let before = self.before.get_mut(&successor).into_iter().flatten();
        before.filter(move |before| before.task == predecessor)
    }

    fn supersede(&mut self, old: TaskId) {
        for successor in self.after.get(&old).cloned().unwrap_or_default() {
            for before in self.find(old, successor).filter(|before| before.wait == Wait::Open) {
                before.wait = Wait::Superseded;
            }
        }
    }

    /// A task that had ended is to run again: those that are still blocked wait for it once more.
    fn waits_again(&mut self, task: TaskId, is_blocked: impl Fn(&TaskId) -> bool) {
        let after = self.after.get(&task).cloned().unwrap_or_default();
        for successor in after.into_iter().filter(is_blocked) {
            for before in self.find(task, successor).filter(|before| before.wait != Wait::Superseded) {
                before.wait = Wait::Open;
                before.outputs = None;
            }
        }
    }

    fn predecessor_ended(&mut self, task: TaskId, status: Status, outputs: Option<&str>) {
        for successor in self.after.get(&task).cloned().unwrap_or_default() {
            for before in self.find(task, successor) {
                let was_open = before.wait == Wait::Open;
                before.wait = match (before.wait, met(before.relation, status)) {
                    (Wait::Open, true) => Wait::Met,
                    (Wait::Open, false) => Wait::Broken,
                    (Wait::Met, false) | (Wait::Broken, true) => Wait::Either,
                    (wait, _) => wait,
                };
                // Of a predecessor that ends once more either outputs would be right.
                let keeps = was_open && before.relation == Relation::Context && before.wait == Wait::Met;
                before.outputs = outputs.filter(|_| keeps).map(Into::into);
            }
        }
    }
}

fn met(relation: Relation, status: Status) -> bool {
    relation == Relation::Sequential || status == Status::Completed
}

impl Store {
    /// Takes a new relation in, or the same one once more.
    pub(super) fn is_related(&mut self, row: &RelationRow) {
        let RelationRow { predecessor, successor, relation, .. } = *row;
        if relation == Relation::Upgrade {
            self.order.supersede(predecessor);
        }
        if !relation.orders() {
            return;
        }
        let fold = self.history.get(predecessor);
        let status = fold.map_or(Status::Pending, |fold| fold.status);
        let wait = match status {
            status if !status.is_settled() => Wait::Open,
            // Whoever asked may have seen an earlier end.
            _ if fold.is_some_and(|fold| fold.reopenings > 0) => Wait::Either,
            status if met(relation, status) => Wait::Met,
            _ => Wait::Broken,
        };
        let before = Before { task: predecessor, relation, wait, outputs: None };
        let all = self.order.before.entry(successor).or_default();
        all.retain(|other| (other.task, other.relation) != (predecessor, relation));
        all.push(before);
        self.order.after.entry(predecessor).or_default().insert(successor);
    }

    /// What an event says against what must come before.
    pub(super) fn check_order(&mut self, event: &Event) -> Result<(), String> {
        let id = match event.subject {
            Subject::Task(id) => id,
            Subject::Run(run) => return self.check_run_event(run, &event.happening),
            _ => return Ok(()),
        };
        self.check_successor(id, &event.happening)?;
        if let Happening::TaskReopened { .. } = event.happening {
            let rows = &self.rows;
            self.order
                .waits_again(id, |id| rows.get(id).is_some_and(|row| row.state.status == Status::Blocked));
        }
        if self.rows.get(&id).is_some_and(|row| row.run.is_some()) {
            self.check_part(id, &event.happening)?;
        }
        let status = self.history.get(id).map_or(Status::Pending, |fold: &Fold| fold.status);
        if status.is_settled() {
            let outputs = self.rows.get(&id).and_then(text_of);
            self.order.predecessor_ended(id, status, outputs);
        }
        Ok(())
    }

    fn check_successor(&mut self, id: TaskId, happening: &Happening) -> Result<(), String> {
        let Some(all) = self.order.before.get_mut(&id) else {
            let is_plain = self.rows.get(&id).is_some_and(|row| row.run.is_none());
            return match happening {
                Happening::TaskSkipped { cause } if is_plain => {
                    Err(format!("task {id} comes after nothing and was skipped: {cause}"))
                }
                _ => Ok(()),
            };
        };
        match happening {
            Happening::TaskAssigned { .. } | Happening::TaskCompleted { .. } => {
                match all.iter().find(|before| matches!(before.wait, Wait::Open | Wait::Broken)) {
                    Some(before) => Err(format!("task {id} began in spite of {before:?}")),
                    None => self.check_context(id),
                }
            }
            Happening::TaskSkipped { cause } => {
                let may = |before: &Before| matches!(before.wait, Wait::Broken | Wait::Either);
                if all.iter().any(may) {
                    Ok(())
                } else {
                    Err(format!("task {id} was skipped because of '{cause}', in spite of {all:?}"))
                }
            }
            Happening::TaskReopened { .. } => {
                for before in all {
                    before.wait = Wait::Either;
                    before.outputs = None;
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// The outputs of the predecessors are in the input of a task that begins. Each task's outputs
    /// have a name of their own, so that they cannot hide one another.
    fn check_context(&self, id: TaskId) -> Result<(), String> {
        let Some(spec) = self.rows.get(&id).and_then(|row| self.spec_of(row)) else { return Ok(()) };
        let parts = match &spec.spec.input {
            Some(input) => vec![InputPart { name: None, source: InputSource::Value(input.clone()) }],
            None => spec.spec.input_parts.clone(),
        };
        let read = |blob: &BlobRef| self.blobs.get(&blob.sha256).map(ToString::to_string).ok_or(Gone);
        let input = assemble(&parts, read).map_err(|error| format!("the input of task {id}: {error}"))?;
        let input: Value = serde_json::from_str(&input).unwrap_or_default();
        for before in self.order.before.get(&id).into_iter().flatten() {
            let Some(outputs) = &before.outputs else { continue };
            let outputs: Value = serde_json::from_str(outputs).unwrap_or_default();
            let own = own_output(before.task);
            if input.get(&own) != outputs.get(&own) {
                return Err(format!(
                    "task {id} began without the outputs of task {}: {outputs}, input {input}",
                    before.task
                ));
            }
        }
        Ok(())
    }

    /// Whether something that comes after a task is blocked. It may have ended before, and been opened
    /// again: whoever takes over then waits for it once more.
    pub(super) fn is_waited_for(&self, task: TaskId) -> bool {
        let is_blocked =
            |id: &TaskId| self.rows.get(id).is_some_and(|row| row.state.status == Status::Blocked);
        self.order.after.get(&task).is_some_and(|after| after.iter().any(is_blocked))
    }

    /// What was made to wait waits.
    pub(super) fn check_relations(&self, new: &[Key]) -> Result<(), String> {
        for (predecessor, successor, relation) in new {
            let all = self.order.before.get(successor).into_iter().flatten();
            let mut same = all.filter(|before| (before.task, before.relation) == (*predecessor, *relation));
            let waits = same.any(|before| before.wait == Wait::Open);
            let status = self.rows.get(successor).map(|row| row.state.status);
            if waits && !status.is_some_and(|status| status == Status::Blocked || status.is_settled()) {
                return Err(format!("task {successor} comes after task {predecessor} and is {status:?}"));
            }
        }
        Ok(())
    }
}

/// The name under which a task's outputs hold something that no other task's have.
pub(super) fn own_output(task: TaskId) -> String {
    format!("of{task}")
}

/// A blob that nobody has left.
#[derive(Debug, thiserror::Error)]
#[error("it names what is not kept")]
struct Gone;

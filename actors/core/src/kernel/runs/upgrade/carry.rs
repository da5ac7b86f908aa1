//! What of a run goes on under its new workflow: numbers, ends, values, what is at work.

use std::sync::Arc;

use super::Rows;
use crate::batch::{NodeRename, OutcomeChange, OutdatedRow, RoundRow};
use crate::kernel::runs::parts::Parts;
use crate::kernel::runs::restore::{item_name, place_of};
use crate::kernel::runs::table::{Kept, Place, Run};
use crate::kernel::{Kernel, Step};
use crate::run::mapping::{Fate, Mapped, Mapping};
use crate::run::{Graph, RunStatus};
use crate::status::Status;
use crate::task::{Command, Phase};

impl Kernel {
    /// Fills the new run from the old one.
    pub(super) fn carry_over(
        &mut self,
        step: &mut Step,
        mut old: Run,
        run: &mut Run,
        mapping: &Mapping,
        mut rows: Rows,
    ) {
        let last_task = &mut self.counters.last_task;
        let number = |mapped: &Mapped| match mapped.old {
            Some(node) => old.task_of(node),
            None => {
                *last_task = last_task.next();
                *last_task
            }
        };
        run.numbers = mapping.nodes.iter().map(number).collect();
        rename(step, self, &old, run, mapping, &rows);
        for (node, fate) in &mapping.removed {
            self.remove_node(step, &old, *node, *fate);
        }
        let kept =
            || (0..).zip(&mapping.nodes).filter_map(|(node, mapped)| Some((node, mapped, mapped.old?)));
        let ended = kept().filter(|(_, mapped, _)| mapped.fate == Fate::Kept);
        let ended =
            ended.filter_map(|(node, _, before)| Some((node, before, old.graph.status(before).status()?)));
        let ended: Vec<(u32, u32, Status)> = ended.collect();
        let at_work = kept().filter(|(_, mapped, before)| {
            matches!(mapped.fate, Fate::GoesOn | Fate::Finishes) && !old.parts.contains_key(before)
        });
        let at_work = at_work.map(|(node, ..)| node);
        let ends = ended.iter().map(|(node, _, status)| (*node, *status));
        run.graph = Graph::restore(Arc::clone(&run.definition), ends, at_work);
        if run.status == RunStatus::Paused {
            run.graph.pause();
        }
        let room = self.runs.room_for_values();
        for (node, before, status) in ended {
            let row = || rows.settled.remove(&run.task_of(node)).map(|ended| ended.outcome);
            let kept = old.kept.remove(&before).map(Kept::into_outcome);
            let outcome = kept.or_else(row).unwrap_or_default();
            run.keep_value(node, status, outcome, room.saturating_sub(run.held));
        }
        for (node, mapped, before) in kept() {
            match old.rounds.remove(&before) {
                Some(_) if mapped.fate == Fate::Restarts => {
                    step.batch.rounds.push(RoundRow { task: run.task_of(node), round: None });
                }
                Some(rounds) => drop(run.rounds.insert(node, rounds)),
                None => {}
            }
            match mapped.fate {
                Fate::Waits => self.wait_for_version(step, run, node, mapped.is_changed),
                Fate::GoesOn => self.go_on(run, node, old.parts.remove(&before)),
                Fate::Finishes => self.finish_first(step, run, node),
                Fate::Restarts => self.restart_node(step, run, node),
                Fate::Again => {
                    if let Some(loaded) = rows.tasks.remove(&run.task_of(node)) {
                        self.rewind_task(step, run, node, loaded, false);
                    }
                }
                Fate::New | Fate::Kept | Fate::Removed | Fate::Stopped | Fate::Refused => {}
            }
        }
    }

    /// A node that is no longer there: its task has no place any more, and ends by itself.
    fn remove_node(&mut self, step: &mut Step, old: &Run, node: u32, fate: Fate) {
        let id = old.task_of(node);
        self.leave_outdated(step, id);
        self.runs.leave_place(id);
        if old.rounds.contains_key(&node) {
            step.batch.rounds.push(RoundRow { task: id, round: None });
        }
        if self.tasks.get(id).is_none() {
            return;
        }
        let command = if fate == Fate::Stopped {
            Command::Cancel
        } else {
            let cause = format!("version {} of its run does not have it", old.version + 1);
            Command::Skip { cause: cause.into() }
        };
        let gone = self.command(step, id, command, OutcomeChange::Keep);
        debug_assert!(gone.is_ok(), "{gone:?}");
    }

    /// A node that no worker has: it is begun by the new definition, when its turn comes.
    fn wait_for_version(&mut self, step: &mut Step, run: &mut Run, node: u32, is_changed: bool) {
        let id = run.task_of(node);
        let Some(phase) = self.tasks.get(id).map(|entry| entry.task.phase.clone()) else { return };
        self.runs.set_place(id, Place { run: run.id, node, item: None });
        let was_approved = self.runs.take_approval(id);
        match phase {
            Phase::Gate if !is_changed => run.graph.open(node),
            Phase::Ready(_) | Phase::Delayed(_) if !is_changed => run.graph.begin(node),
            Phase::Gate | Phase::Ready(_) | Phase::Delayed(_) => {
                let blocked = self.command(step, id, Command::Block, OutcomeChange::Keep);
                debug_assert!(blocked.is_ok(), "{blocked:?}");
            }
            Phase::Blocked if was_approved && !is_changed => self.runs.approve(id),
            // What was decided on it no longer holds.
            Phase::Blocked if was_approved => self.write(step, id, None, OutcomeChange::Keep),
            Phase::Blocked | Phase::Open(_) | Phase::Assigned(_) | Phase::Settled(_) => {}
        }
    }

    /// What is at work stays so.
    fn go_on(&mut self, run: &mut Run, node: u32, parts: Option<Parts>) {
        let place = Place { run: run.id, node, item: None };
        self.runs.set_place(run.task_of(node), place);
        let Some(mut parts) = parts else { return };
        parts.set_limit(run.extra(node).and_then(|extra| extra.max_parallel));
        run.graph.open(node);
        for task in parts.live_items() {
            if let Some(place) = self.runs.place(task) {
                self.runs.set_place(task, Place { node, ..place });
            }
        }
        for _ in 0..parts.active() {
            run.graph.begin_part();
        }
        run.parts.insert(node, parts);
    }

    /// A worker has an attempt of the version before: the next one is made anew. One that only waits
    /// there is asked back.
    fn finish_first(&mut self, step: &mut Step, run: &Run, node: u32) {
        let id = run.task_of(node);
        self.runs.set_place(id, Place { run: run.id, node, item: None });
        self.runs.set_outdated(id);
        step.batch.outdated.push(OutdatedRow { task: id, outdated: true });
        if self.waits_at_its_worker(id) {
            let asked = self.command(step, id, Command::AskBack, OutcomeChange::Keep);
            debug_assert!(asked.is_ok(), "{asked:?}");
        }
    }

    /// Takes what is at work from its worker; the run begins it anew.
    fn restart_node(&mut self, step: &mut Step, run: &mut Run, node: u32) {
        let id = run.task_of(node);
        self.leave_outdated(step, id);
        self.runs.set_place(id, Place { run: run.id, node, item: None });
        let taken = self.supersede_attempt(step, id, &format!("version {} of its run", run.version));
        debug_assert!(taken.is_ok(), "{taken:?}");
        let blocked = self.command(step, id, Command::Block, OutcomeChange::Keep);
        debug_assert!(blocked.is_ok(), "{blocked:?}");
    }
}

/// Has the rows of tasks name their nodes as they are called now. One whose node is gone gets a name
/// that no node can have.
fn rename(step: &mut Step, kernel: &Kernel, old: &Run, run: &Run, mapping: &Mapping, rows: &Rows) {
    let mut names: Vec<Option<Arc<str>>> = vec![None; old.definition.nodes.len()];
    for (node, mapped) in (0..).zip(&mapping.nodes) {
        if let Some(before) = mapped.old
            && old.name_of(before) != run.name_of(node)
        {
            names[before as usize] = Some(run.name_of(node).into());
        }
    }
    for (before, _) in &mapping.removed {
        names[*before as usize] = Some(format!("{}~v{}", old.name_of(*before), old.version).into());
    }
    let known = old.definition.names();
    // What has ended, items of all attempts among it.
    for ended in rows.settled.values() {
        let Some((node, _)) = place_of(&known, &ended.node.node) else { continue };
        let Some(name) = &names[node as usize] else { continue };
        let rest = ended.node.node.get(old.name_of(node).len()..).unwrap_or_default();
        let node = format!("{name}{rest}").into();
        step.batch.renames.push(NodeRename { task: ended.task, node });
    }
    // What is there: nodes, and the items of those that are open.
    for (node, name) in (0..).zip(&names) {
        let Some(name) = name else { continue };
        let id = old.task_of(node);
        let Some(entry) = kernel.tasks.get(id) else { continue };
        step.batch.renames.push(NodeRename { task: id, node: Arc::clone(name) });
        let items = old.parts.get(&node).into_iter().flat_map(Parts::live_items);
        for (item, task) in (0..).zip(items) {
            let node = item_name(name, item, entry.task.attempt.0).into();
            step.batch.renames.push(NodeRename { task, node });
        }
    }
}

//! What answers promise, and whether it is so.

use agentflow_core::batch::Waits;
use agentflow_core::ids::{RunId, TaskId};
use agentflow_core::kernel::{Answer, Reply, Request, RunAction};
use agentflow_core::rejection::Rejection;
use agentflow_core::status::Status;

use super::client::Pending;
use super::world::World;

impl World {
    pub(super) fn check_answer(&mut self, pending: &Pending, reply: &Reply) -> Result<(), String> {
        if let Some(checked) = self.check_lock_answer(&pending.request, reply) {
            return checked;
        }
        if let Some(checked) = self.check_change(&pending.request, reply) {
            return checked;
        }
        match (&pending.request, reply) {
            (Request::Submit { tasks, key }, Ok(Answer::Submitted { first, count, .. })) => {
                if tasks.len() != *count as usize {
                    return Err(format!("{} tasks were submitted, {count} acknowledged", tasks.len()));
                }
                self.ledger.acknowledge(*first, *count, key.map(|key| (key.key, key.body)))?;
                for (place, task) in (first.0..).zip(tasks) {
                    match self.store.rows.get(&TaskId(place)) {
                        Some(row) if row.title == task.title => {}
                        row => return Err(format!("task {place} was acknowledged; its row: {row:?}")),
                    }
                }
                Ok(())
            }
            (Request::Cancel { tasks }, Ok(Answer::Changed { changed, refused })) => {
                check_total(tasks, *changed, refused)?;
                for (task, before) in tasks.iter().zip(&pending.reopenings) {
                    let is_refused = refused.iter().any(|(other, _)| other == task);
                    let fold = self.store.history.get(*task);
                    let took_effect = fold.is_some_and(|fold| fold.is_cancelled || fold.reopenings > *before);
                    if !is_refused && !took_effect {
                        return Err(format!("cancelling task {task} was acknowledged; it is {fold:?}"));
                    }
                }
                Ok(())
            }
            (Request::Retry { tasks, .. }, Ok(Answer::Changed { changed, refused })) => {
                check_total(tasks, *changed, refused)?;
                for (task, before) in tasks.iter().zip(&pending.reopenings) {
                    let is_refused = refused.iter().any(|(other, _)| other == task);
                    if !is_refused && self.store.history.reopenings(*task) <= *before {
                        return Err(format!("retrying task {task} was acknowledged; it was not reopened"));
                    }
                }
                Ok(())
            }
            (Request::Patch { tasks, .. }, Ok(Answer::Changed { changed, refused })) => {
                check_total(tasks, *changed, refused)
            }
            (Request::Stats, Ok(Answer::Stats(stats))) => {
                let settled = stats.settled;
                let settled = settled.completed + settled.failed + settled.cancelled + settled.skipped;
                let total = stats.blocked + stats.pending + stats.running + settled;
                let rows = u64::try_from(self.store.rows.len()).unwrap_or(0);
                if total > rows {
                    Err(format!("{total} tasks were counted, {rows} are durable"))
                } else {
                    Ok(())
                }
            }
            (Request::StartRun { run, key }, Ok(Answer::RunStarted { run: id, .. })) => {
                self.ledger.acknowledge_run(*id, key.map(|key| key.key))?;
                self.check_run(*id, &run.prepared.definition.name)
            }
            (Request::ControlRun { run, action }, Ok(Answer::Done)) => {
                if *action == RunAction::Cancel && !self.store.runs.revived.contains(run) {
                    self.store.runs.cancelled.insert(*run);
                }
                self.check_known(*run)
            }
            (Request::WhyRun { run }, Ok(Answer::WhyRun(_))) => self.check_known(*run),
            (Request::UpgradeRun(upgrade), Ok(Answer::Upgraded { version })) => {
                let row = self.store.ties.runs.get(&upgrade.run);
                match row.map(|row| row.state.version) {
                    Some(now) if *version == upgrade.from + 1 && now >= *version => Ok(()),
                    other => Err(format!("run {} was upgraded to {version}; it has {other:?}", upgrade.run)),
                }
            }
            (Request::Relate { predecessor, successor, relation }, Ok(Answer::Done)) => {
                let key = (predecessor.task, *successor, *relation);
                let ties = &self.store.ties;
                // Or another task has taken the place of that one meanwhile.
                if ties.relations.contains_key(&key) || ties.is_superseded(predecessor.task) {
                    Ok(())
                } else {
                    Err(format!("{key:?} was acknowledged and is not there"))
                }
            }
            (Request::Release { tasks }, Ok(Answer::Changed { changed, refused })) => {
                check_total(tasks, *changed, refused)?;
                let is_kept = |task: &&TaskId| {
                    let row = self.store.rows.get(task);
                    row.is_none_or(|row| row.state.waits == Some(Waits::Release))
                        && !refused.iter().any(|(other, _)| other == *task)
                };
                match tasks.iter().find(is_kept) {
                    Some(task) => Err(format!("releasing task {task} was acknowledged; it is held")),
                    None => Ok(()),
                }
            }
            (Request::Approve { task }, Ok(Answer::Done)) => {
                let is_approved = self.store.history.get(*task).is_some_and(|fold| fold.is_approved);
                if is_approved { Ok(()) } else { Err(format!("task {task} was approved and is not")) }
            }
            (Request::Reject { task, .. }, Ok(Answer::Done)) => {
                match self.store.history.get(*task).map(|fold| fold.status) {
                    Some(Status::Failed) => Ok(()),
                    other => Err(format!("task {task} was rejected and is {other:?}")),
                }
            }
            (Request::Drain { worker }, Ok(Answer::Done)) => {
                if self.store.drained(worker) {
                    Ok(())
                } else {
                    Err(format!("worker {worker} was drained and has no row"))
                }
            }
            (Request::Why { .. }, Ok(Answer::Why(_)) | Err(Rejection::UnknownTask(_)))
            | (Request::Workers, Ok(Answer::Workers(_)))
            | (Request::WorkerDead { .. }, Ok(Answer::Done))
            | (Request::Drain { .. } | Request::WorkerDead { .. }, Err(Rejection::UnknownWorker(_)))
            | (
                Request::Submit { .. },
                Err(
                    Rejection::Limit { .. }
                    | Rejection::KeyConflict
                    | Rejection::UnknownTask(_)
                    | Rejection::JustEnded(_),
                ),
            )
            | (Request::StartRun { .. }, Err(Rejection::Limit { .. } | Rejection::KeyConflict))
            | (Request::ControlRun { .. }, Err(Rejection::UnknownRun(_) | Rejection::IllegalRun { .. }))
            | (Request::WhyRun { .. }, Err(Rejection::UnknownRun(_)))
            | (
                Request::UpgradeRun(_),
                Err(
                    Rejection::OtherVersion { .. }
                    | Rejection::OtherWork(_)
                    | Rejection::NothingToRun(_)
                    | Rejection::Mapping(_)
                    | Rejection::IllegalRun { .. }
                    | Rejection::Limit { .. }
                    | Rejection::Busy,
                ),
            )
            | (
                Request::Approve { .. } | Request::Reject { .. },
                Err(Rejection::UnknownTask(_) | Rejection::Illegal { .. }),
            )
            | (
                Request::Relate { .. },
                Err(
                    Rejection::Cycle(_)
                    | Rejection::NotParallel(_)
                    | Rejection::HasStarted(_)
                    | Rejection::JustEnded(_)
                    | Rejection::UnknownTask(_)
                    | Rejection::PartOfRun(_),
                ),
            ) => Ok(()),
            (request, reply) => Err(format!("{request:?} was answered with {reply:?}")),
        }
    }

    /// A run that was answered is there, with what it was asked for.
    fn check_run(&self, id: RunId, name: &str) -> Result<(), String> {
        match self.store.ties.runs.get(&id) {
            Some(row) if *row.birth.name == *name => Ok(()),
            row => Err(format!("run {id} was acknowledged as '{name}'; its row: {row:?}")),
        }
    }

    /// What is said to exist does, and has gone on: no answer speaks of a run that is not durable.
    fn check_known(&self, id: RunId) -> Result<(), String> {
        if self.store.ties.runs.contains_key(&id) {
            Ok(())
        } else {
            Err(format!("an answer spoke of run {id}, which is not there"))
        }
    }
}

fn check_total(tasks: &[TaskId], changed: u32, refused: &[(TaskId, Rejection)]) -> Result<(), String> {
    if tasks.len() == changed as usize + refused.len() {
        Ok(())
    } else {
        Err(format!("{tasks:?}: {changed} changed and {refused:?} refused"))
    }
}

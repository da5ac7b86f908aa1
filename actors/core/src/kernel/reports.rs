//! What workers report of their attempts.

use super::words::Effect;
use super::{Kernel, Step};
use std::sync::Arc;

use crate::attempt::{End, Finished, Report, ReportBody};
use crate::batch::{LogRow, Outcome, OutcomeChange};
use crate::ids::{SessionEpoch, TaskId};
use crate::rejection::Rejection;
use crate::spec::RetryOn;
use crate::task::{Command, WorkerIndex};

impl Kernel {
    pub(super) fn on_reports(&mut self, step: &mut Step, session: SessionEpoch, reports: Vec<Report>) {
        // A socket that was superseded has nothing more to say; its successor says it again.
        let Some(worker) = self.workers.of_session(session) else { return };
        self.renew_lease(step.now, worker);
        let Some(up_to) = reports.iter().map(|report| report.no).max() else { return };
        for report in reports {
            // A stale report changes nothing; it is acknowledged so that it is not sent again.
            let _stale = self.report(step, worker, report);
        }
        step.effects.push(Effect::Ack { session, up_to });
    }

    fn report(&mut self, step: &mut Step, worker: WorkerIndex, report: Report) -> Result<(), Rejection> {
        let key = report.key;
        self.check_holder(key.task, worker)?;
        let (command, outcome) = match report.body {
            ReportBody::Started { at } => {
                (Command::Start { attempt: key.attempt, fence: key.fence, at }, OutcomeChange::Keep)
            }
            ReportBody::Returned {} => {
                (Command::Return { attempt: key.attempt, fence: key.fence }, OutcomeChange::Keep)
            }
            ReportBody::Finished(finished) => {
                let Finished { started_at, end, outcome, log_bytes, log_cut, .. } = *finished;
                let (end, error, again) = self.judge_round(key.task, end, &outcome);
                let (attempt, fence) = (key.attempt, key.fence);
                let command = Command::Finish { attempt, fence, end, started_at, error, again };
                let done = self.command(step, key.task, command, OutcomeChange::Set(Box::new(outcome)))?;
                if done.is_some() && log_bytes > 0 {
                    let row = LogRow { task: key.task, attempt: key.attempt, bytes: log_bytes, cut: log_cut };
                    step.batch.logs.push(row);
                }
                return Ok(());
            }
        };
        self.command(step, key.task, command, outcome).map(drop)
    }

    /// What the `loop` of a node makes of an attempt's end: whether it goes round again, or has failed.
    fn judge_round(&self, task: TaskId, end: End, outcome: &Outcome) -> (End, Option<Arc<str>>, bool) {
        let error = outcome.error.clone();
        if end != End::Completed {
            return (end, error, false);
        }
        match self.goes_round(task, outcome) {
            Ok(again) => (end, error, again),
            Err(error) => (End::Failed(RetryOn::Error), Some(error), false),
        }
    }

    /// Only the worker that holds a task, or that lost it last, may report on it.
    fn check_holder(&self, task: TaskId, worker: WorkerIndex) -> Result<(), Rejection> {
        let entry = self.tasks.get(task).ok_or(Rejection::Stale)?;
        let holder = entry.task.hold().or_else(|| entry.task.orphan().map(|orphan| &orphan.hold));
        if holder.is_some_and(|hold| hold.worker == worker) { Ok(()) } else { Err(Rejection::Stale) }
    }
}

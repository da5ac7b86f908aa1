//! The locks of an attempt while it runs, and what becomes of one that has changed what it had not locked.

use agentflow_protocol::log_frame::Stream;
use agentflow_protocol::worker::End;

use super::{Ending, Executor};
use crate::slots::Job;
use crate::strays;

impl Executor {
    /// Sees from now on what an attempt with locks changes.
    ///
    /// # Errors
    /// Why that cannot be seen, for people.
    pub(super) fn watch(&self, job: &Job) -> Result<(), String> {
        if job.spec.locks.is_empty() {
            return Ok(());
        }
        let cancelled = || job.control.stopped().is_some();
        let watched = job.place.watch(&job.spec, &job.locks, &cancelled);
        watched.map_err(|why| format!("what it changes cannot be compared with its locks: {why}"))
    }

    /// Refuses the result of an attempt that has changed what it had not locked, and names all of that.
    pub(super) fn refuse_strays(&self, job: &Job, ending: Ending) -> Ending {
        if ending.end != End::Completed || !job.locks.were_held() {
            return ending;
        }
        let error = match job.place.strays(&|| job.control.stopped().is_some()) {
            Ok(strays) if strays.is_empty() => return ending,
            Ok(strays) => {
                self.log(job, Stream::Err, strays::lines(&strays).as_bytes());
                strays::refusal(&strays)
            }
            Err(why) => format!("what it has changed cannot be compared with its locks: {why}"),
        };
        if let Some(stop) = job.control.stopped() {
            return Ending::stopped(stop, ending.outcome);
        }
        log::warn!("task {}: {error}", job.key.task);
        ending.spoilt(error)
    }
}

//! Answers that are held until a task has settled or a run has ended.

use std::time::Instant;

use agentflow_actors::WaitSettled;
use agentflow_core::event::Subject;

use super::answer::Failure;
use super::read;
use crate::state::Master;

/// What `record` reads, at once, or when `is_settled` says so of it or the time is over.
///
/// # Errors
/// Those of `record`; 503 while the master stops.
pub(crate) async fn wait<T>(
    master: &Master,
    subject: Subject,
    wait_ms: Option<u64>,
    record: impl AsyncFn() -> Result<T, Failure>,
    is_settled: impl Fn(&T) -> bool,
) -> Result<T, Failure> {
    let deadline = Instant::now() + read::wait(wait_ms);
    let listener = master.stopping.listen();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        // Asked before the row is read: what settles in between is not missed.
        let settled = (!left.is_zero()).then(|| master.handles.events.send(WaitSettled(subject.clone())));
        let record = record().await?;
        let Some(settled) = settled.filter(|_| !is_settled(&record)) else { return Ok(record) };
        match listener.unless(actix_rt::time::timeout(left, settled)).await {
            None | Some(Ok(Err(_))) => return Err(Failure::stopping()),
            Some(Ok(Ok(())) | Err(_)) => {}
        }
    }
}

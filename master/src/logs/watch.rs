//! Who wants to hear that a task has written something.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use agentflow_core::ids::{Attempt, TaskId};
use tokio::sync::watch;

/// The followed tasks; clones share them.
#[derive(Clone, Default)]
pub(crate) struct Watchers(Arc<Mutex<HashMap<TaskId, watch::Sender<Attempt>>>>);

/// One follower; it is forgotten when it is dropped.
pub(crate) struct Watcher {
    task: TaskId,
    latest: watch::Receiver<Attempt>,
    watchers: Watchers,
}

impl Watchers {
    fn lock(&self) -> MutexGuard<'_, HashMap<TaskId, watch::Sender<Attempt>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Follows a task from now on.
    pub(crate) fn watch(&self, task: TaskId) -> Watcher {
        let latest = self.lock().entry(task).or_insert_with(|| watch::channel(Attempt(0)).0).subscribe();
        Watcher { task, latest, watchers: self.clone() }
    }

    /// Tells those who follow the task.
    pub(super) fn wrote(&self, task: TaskId, attempt: Attempt) {
        if let Some(sender) = self.lock().get(&task) {
            sender.send_modify(|latest| *latest = attempt.max(*latest));
        }
    }
}

impl Watcher {
    /// The newest attempt that has written something since somebody follows the task. What is
    /// written after this call wakes [`Watcher::changed`].
    pub(crate) fn latest(&mut self) -> Attempt {
        *self.latest.borrow_and_update()
    }

    /// Waits until something is written.
    pub(crate) async fn changed(&mut self) {
        if self.latest.changed().await.is_err() {
            // The sender lives as long as this follower; nothing more would come.
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let mut watched = self.watchers.lock();
        if watched.get(&self.task).is_some_and(|sender| sender.receiver_count() <= 1) {
            watched.remove(&self.task);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_is_forgotten_with_its_last_follower() {
        let watchers = Watchers::default();
        let mut first = watchers.watch(TaskId(1));
        let second = watchers.watch(TaskId(1));
        watchers.wrote(TaskId(1), Attempt(2));
        assert_eq!(first.latest(), Attempt(2));
        drop(first);
        assert_eq!(watchers.lock().len(), 1);
        drop(second);
        assert!(watchers.lock().is_empty());
    }
}

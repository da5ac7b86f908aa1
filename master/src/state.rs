//! What every handler may use: addresses to ask, and what is asked of the machine.

use std::path::PathBuf;
use std::sync::atomic::AtomicUsize;

use actix::Addr;
use actix_web::web;
use agentflow_actors::{Ask, MasterHandles};
use agentflow_core::kernel::{Answer, Request};
use agentflow_core::rejection::Rejection;
use agentflow_schema::Readers;

use crate::http::answer::Failure;
use crate::http::token::Token;
use crate::logs::{LogStore, Watchers};
use crate::metrics::Metrics;
use crate::stopping::Stopping;

/// Shared by all threads that serve HTTP.
pub(crate) struct Master {
    pub(crate) handles: MasterHandles,
    pub(crate) logs: Addr<LogStore>,
    pub(crate) logs_dir: PathBuf,
    pub(crate) watchers: Watchers,
    pub(crate) stopping: Stopping,
    pub(crate) token: Option<Token>,
    /// Who keeps the objects of Git LFS.
    pub(crate) lfs_upstream: Option<String>,
    pub(crate) metrics: Metrics,
    /// Bulk actions under way.
    pub(crate) bulk_actions: AtomicUsize,
}

impl Master {
    /// Asks the kernel. The answer speaks of what is durable.
    pub(crate) async fn ask(&self, request: Request) -> Result<Answer, Failure> {
        Ok(self.try_ask(request).await??)
    }

    /// As [`Master::ask`], for those who treat a refusal themselves.
    pub(crate) async fn try_ask(&self, request: Request) -> Result<Result<Answer, Rejection>, Failure> {
        Ok(self.handles.dispatcher.send(Ask(request)).await?)
    }

    /// Reads from the database, on a thread that may wait.
    pub(crate) async fn read<T, F>(&self, read: F) -> Result<T, Failure>
    where
        T: Send + 'static,
        F: FnOnce(&Readers) -> Result<T, agentflow_schema::Error> + Send + 'static,
    {
        let readers = self.handles.readers.clone();
        Ok(web::block(move || read(&readers)).await??)
    }

    /// Refuses what cannot be written now.
    pub(crate) fn check_writable(&self) -> Result<(), Failure> {
        if self.stopping.has_begun() {
            return Err(Failure::stopping());
        }
        if self.handles.store.is_full() {
            return Err(Failure::disk_full());
        }
        Ok(())
    }
}

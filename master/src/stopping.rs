//! The beginning of the end, as everything that waits for long hears of it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

/// Says that the master stops.
#[derive(Clone, Debug)]
pub(crate) struct Stopping(Arc<watch::Sender<bool>>);

/// Held by whatever may last: sockets, long polls, streams. When stopping begins, each of them ends
/// by itself and lets go of this.
#[derive(Clone, Debug)]
pub(crate) struct Listener(watch::Receiver<bool>);

impl Stopping {
    pub(crate) fn new() -> Self {
        Self(Arc::new(watch::channel(false).0))
    }

    /// Tells everybody.
    pub(crate) fn begin(&self) {
        self.0.send_replace(true);
    }

    /// Whether it has begun.
    pub(crate) fn has_begun(&self) -> bool {
        *self.0.borrow()
    }

    /// For something that may last.
    pub(crate) fn listen(&self) -> Listener {
        Listener(self.0.subscribe())
    }

    /// Waits until every listener has let go, at most `limit`; says whether they have.
    pub(crate) async fn all_gone(&self, limit: Duration) -> bool {
        actix_rt::time::timeout(limit, self.0.closed()).await.is_ok()
    }
}

impl Listener {
    /// Waits until stopping begins.
    pub(crate) async fn begun(mut self) {
        // An error means that the sender is gone: then everything is over too.
        let _ = self.0.wait_for(|begun| *begun).await;
    }

    /// Waits for `future`; `None` if stopping began first.
    pub(crate) async fn unless<F: Future>(&self, future: F) -> Option<F::Output> {
        let begun = std::pin::pin!(self.clone().begun());
        match futures_util::future::select(std::pin::pin!(future), begun).await {
            futures_util::future::Either::Left((output, _)) => Some(output),
            futures_util::future::Either::Right(_) => None,
        }
    }
}

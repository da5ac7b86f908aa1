//! Supervision. actix does not tell anybody that an actor panicked, so each actor is run as a
//! future whose `JoinHandle` is watched.
//!
//! | actor | when it panics |
//! | --- | --- |
//! | `Dispatcher`, `WorkerRegistry`, the kernel, `Store`, `EventHub`, `Janitor` | the master ends with exit code 70 and recovers from the disk: its memory cannot be trusted |
//! | `WorkerSession` | its socket is closed; the worker reconnects |
//! | `Task`, `Run` | its conversation begins anew with the next message |
//! | `Lock` | the client gets no answer; a grant ends with its time, or is found by its key |

use std::sync::Arc;

use actix::{Actor, Addr, AsyncContext, Context};
use tokio::sync::watch;

/// Says why the master cannot go on. The first reason counts.
#[derive(Clone, Debug)]
pub struct Fatal(Arc<watch::Sender<Option<String>>>);

impl Fatal {
    pub(crate) fn new() -> Self {
        Self(Arc::new(watch::channel(None).0))
    }

    /// Declares that the master cannot go on.
    pub(crate) fn declare(&self, reason: String) {
        self.0.send_if_modified(|first| {
            if first.is_some() {
                return false;
            }
            log::error!("the master cannot go on: {reason}");
            *first = Some(reason);
            true
        });
    }

    /// The reason, if there is one.
    #[must_use]
    pub fn reason(&self) -> Option<String> {
        self.0.borrow().clone()
    }

    /// Waits for a reason.
    pub async fn wait(&self) -> String {
        let mut receiver = self.0.subscribe();
        match receiver.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or_default(),
            // The sender lives as long as `self`.
            Err(_) => std::future::pending().await,
        }
    }
}

/// Runs an actor on this arbiter and calls `panicked` if it panics.
pub(crate) fn run<A>(context: Context<A>, actor: A, panicked: impl FnOnce() + 'static) -> Addr<A>
where
    A: Actor<Context = Context<A>>,
{
    let address = context.address();
    let life = actix_rt::spawn(context.into_future(actor));
    actix_rt::spawn(async move {
        if let Err(end) = life.await
            && end.is_panic()
        {
            panicked();
        }
    });
    address
}

/// Runs an actor without which the master cannot go on.
pub(crate) fn run_vital<A>(context: Context<A>, actor: A, name: &'static str, fatal: &Fatal) -> Addr<A>
where
    A: Actor<Context = Context<A>>,
{
    let fatal = fatal.clone();
    run(context, actor, move || fatal.declare(format!("actor {name} panicked")))
}

//! A request for locks: the conversation with whoever waits for the answer.
//!
//! ```text
//!   HTTP ──AskLock──► Dispatcher ──begin──► Lock ──ask───────► kernel
//!   HTTP ◄─────────── Granted ───────────── Lock ◄──reply───── kernel   granted, refused, time over
//!   HTTP gone ──(its oneshot closes)──────► Lock ──Abandoned─► kernel   its place is given up
//!   Granted, dropped unheard ──Ask(Unlock)──► Dispatcher ────► kernel
//! ```
//!
//! Its truth is in the kernel. What the kernel cannot know is whether anybody still listens: a client that
//! goes away while it waits must lose its place, and a grant that was on its way to it must not be held
//! for half an hour by nobody. With an idempotency key the client can ask again for a grant that it has
//! not heard of, and so that stays.

use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;

use actix::{Actor, ActorContext, ActorFutureExt, Addr, AsyncContext, Context, Message, WrapFuture};
use agentflow_core::batch::LockRow;
use agentflow_core::kernel::{Answer, Input, LockRequest, Reply, Request, Unlock};
use agentflow_core::rejection::Rejection;
use tokio::sync::oneshot;

use crate::dispatcher::{Ask, Dispatcher};
use crate::scheduler::Scheduler;
use crate::supervise;

/// A client's request for locks. It is given up when the receiver of `answer` is dropped before there is
/// one.
#[derive(Message, Debug)]
#[rtype(result = "()")]
pub struct AskLock {
    /// What.
    pub want: Box<LockRequest>,
    /// How long to wait for it; 0 is a try.
    pub wait_ms: u64,
    /// Who listens.
    pub answer: oneshot::Sender<Result<Granted, Rejection>>,
}

/// A grant on its way to its client. One that is dropped before it is heard of is given back, unless its
/// client can ask for it again.
#[derive(Debug)]
pub struct Granted {
    lock: Box<LockRow>,
    undo: Option<Addr<Dispatcher>>,
}

impl Granted {
    /// The lock. It is its client's business from now on.
    #[must_use]
    pub fn heard(mut self) -> LockRow {
        self.undo = None;
        LockRow::clone(&self.lock)
    }
}

impl Drop for Granted {
    fn drop(&mut self) {
        if let Some(dispatcher) = &self.undo {
            let birth = &self.lock.birth;
            let unlock = Unlock { lock: birth.id, fence: Some(birth.fence), owner: None };
            dispatcher.do_send(Ask(Request::Unlock(vec![unlock])));
        }
    }
}

/// The actor.
pub(crate) struct Lock {
    scheduler: Rc<Scheduler>,
    request: Option<AskLock>,
}

/// Begins the conversation about a request.
pub(crate) fn begin(scheduler: &Rc<Scheduler>, request: AskLock) {
    let actor = Lock { scheduler: Rc::clone(scheduler), request: Some(request) };
    supervise::run(Context::new(), actor, || {
        log::error!("the conversation about a lock panicked; the lock ends with its time");
    });
}

impl Actor for Lock {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Context<Self>) {
        let Some(request) = self.request.take() else { return context.stop() };
        let conversation = converse(Rc::clone(&self.scheduler), request).into_actor(self);
        context.spawn(conversation.map(|(), _, context| context.stop()));
    }
}

async fn converse(scheduler: Rc<Scheduler>, request: AskLock) {
    let AskLock { want, wait_ms, answer: mut client } = request;
    // By its key a client finds again what it has not heard of.
    let undo = want.key.is_none().then(|| scheduler.dispatcher());
    let granted = |reply: Reply| match reply {
        Ok(Answer::Locked(lock)) => Ok(Granted { lock, undo }),
        Ok(other) => {
            log::error!("the kernel gave an answer to another question: {other:?}");
            Err(Rejection::Busy)
        }
        Err(rejection) => Err(rejection),
    };
    let (sender, mut answer) = oneshot::channel();
    let reply = scheduler.ask(Request::Lock { want, wait_ms }, sender);
    let heard = poll_fn(|task| match Pin::new(&mut answer).poll(task) {
        Poll::Ready(answer) => Poll::Ready(Some(answer)),
        Poll::Pending => client.poll_closed(task).map(|()| None),
    });
    match heard.await {
        // If nobody takes it, it is dropped.
        Some(Ok(answer)) => drop(client.send(granted(answer))),
        // The master is going down.
        Some(Err(_)) => {}
        // The kernel answers at once: with what was decided before, or that the place is given up.
        None => {
            scheduler.step(Input::Abandoned { reply });
            drop(answer.await.map(granted));
        }
    }
}

//! The dispatcher: clients' requests, the clock, and what the store says.
//!
//! ```text
//!   HTTP ──Ask──► Dispatcher ──step──► kernel
//!   HTTP ──AskLock──► Dispatcher (each has a conversation of its own)
//!   Store ──FromStore──►       (effects go out)
//! ```
//!
//! Large submissions are admitted one at a time, when the store has little left to write, so that
//! completions and single submissions never wait behind a row of them.

use std::collections::VecDeque;
use std::rc::Rc;

use actix::{Actor, AsyncContext, Context, Handler, Message, ResponseFuture, SpawnHandle};
use agentflow_core::event::{Happening, Subject};
use agentflow_core::kernel::{Input, Reply, Request};
use agentflow_core::limits;
use agentflow_core::rejection::Rejection;
use agentflow_core::time::Mono;
use tokio::sync::oneshot;

use crate::hub::Segment;
use crate::lock::{self, AskLock};
use crate::run;
use crate::scheduler::Scheduler;
use crate::store::FromStore;
use crate::task::{Ended, GetProgress, ProgressOf, Task};

/// Tasks from which on a submission is large.
const LARGE: usize = 256;

/// Large submissions that may wait: 64 of 10,000 tasks are about 200 MB.
const WAITING: usize = 64;

/// A client's request. Decided even if the asker goes away: never attach a timeout to a request
/// that changes something.
#[derive(Message, Debug)]
#[rtype(result = "Reply")]
pub struct Ask(pub Request);

/// The kernel wants to be woken then.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct WakeAt(pub(crate) Option<Mono>);

/// The actor.
pub struct Dispatcher {
    scheduler: Rc<Scheduler>,
    waiting: VecDeque<(Request, oneshot::Sender<Reply>)>,
    alarm: Option<SpawnHandle>,
}

impl Dispatcher {
    pub(crate) fn new(scheduler: Rc<Scheduler>) -> Self {
        Self { scheduler, waiting: VecDeque::new(), alarm: None }
    }

    fn is_busy(&self) -> bool {
        self.scheduler.outstanding.get() > limits::COMMIT_ROWS
    }

    fn admit(&mut self) {
        while !self.is_busy()
            && let Some((request, sender)) = self.waiting.pop_front()
        {
            self.scheduler.ask(request, sender);
        }
    }

    /// Keeps a `Task` actor for each attempt that runs under a deadline, until it ends.
    fn follow_attempts(&self, segment: &Segment) {
        let mut tasks = self.scheduler.tasks.borrow_mut();
        if tasks.is_empty() {
            return;
        }
        for event in &segment.events {
            if let Subject::Task(id) = event.subject
                && ends_an_attempt(&event.happening)
                && let Some(task) = tasks.remove(&id)
            {
                task.do_send(Ended);
            }
        }
    }
}

fn ends_an_attempt(happening: &Happening) -> bool {
    matches!(
        happening,
        Happening::TaskCompleted { .. }
            | Happening::TaskFailed { .. }
            | Happening::TaskCancelled { .. }
            | Happening::TaskRetrying { .. }
            | Happening::TaskLost { .. }
            | Happening::TaskReturned { .. }
            | Happening::TaskSuperseded { .. }
            | Happening::TaskRepeating { .. }
    )
}

impl Actor for Dispatcher {
    type Context = Context<Self>;
}

impl Handler<Ask> for Dispatcher {
    type Result = ResponseFuture<Reply>;

    fn handle(&mut self, Ask(request): Ask, _: &mut Context<Self>) -> Self::Result {
        let (sender, receiver) = oneshot::channel();
        let is_large = matches!(&request, Request::Submit { tasks, .. } if tasks.len() >= LARGE);
        if is_large && (self.is_busy() || !self.waiting.is_empty()) {
            if self.waiting.len() >= WAITING {
                let what = "large submissions that wait";
                return Box::pin(std::future::ready(Err(Rejection::Limit { what, limit: WAITING })));
            }
            self.waiting.push_back((request, sender));
        } else {
            run::say(&self.scheduler, request, sender);
        }
        Box::pin(async move {
            match receiver.await {
                Ok(reply) => reply,
                // The master is going down: the asker's connection goes with it.
                Err(_) => std::future::pending().await,
            }
        })
    }
}

impl Handler<AskLock> for Dispatcher {
    type Result = ();

    fn handle(&mut self, request: AskLock, _: &mut Context<Self>) {
        lock::begin(&self.scheduler, request);
    }
}

impl Handler<FromStore> for Dispatcher {
    type Result = ();

    fn handle(&mut self, message: FromStore, _: &mut Context<Self>) {
        match message {
            FromStore::Committed { decision, rows, segment } => {
                let outstanding = &self.scheduler.outstanding;
                outstanding.set(outstanding.get().saturating_sub(rows));
                if let Some(segment) = segment {
                    self.follow_attempts(&segment);
                    run::follow(&self.scheduler, &segment);
                }
                self.scheduler.step(Input::Committed(decision));
                self.admit();
            }
            FromStore::Loaded { asked, tasks } => self.scheduler.step(Input::Loaded { asked, tasks }),
            FromStore::RunLoaded { run, loaded } => {
                self.scheduler.step(Input::RunLoaded { run, loaded });
            }
            FromStore::Pruned(counts) => self.scheduler.step(Input::Pruned(counts)),
        }
    }
}

impl Handler<WakeAt> for Dispatcher {
    type Result = ();

    fn handle(&mut self, WakeAt(at): WakeAt, context: &mut Context<Self>) {
        if let Some(alarm) = self.alarm.take() {
            context.cancel_future(alarm);
        }
        if let Some(at) = at {
            let ms = self.scheduler.now_mono().ms_until(at);
            self.alarm = Some(context.run_later(std::time::Duration::from_millis(ms), |dispatcher, _| {
                dispatcher.alarm = None;
                dispatcher.scheduler.ring();
            }));
        }
    }
}

impl Handler<GetProgress> for Dispatcher {
    type Result = ResponseFuture<Option<ProgressOf>>;

    fn handle(&mut self, GetProgress(id): GetProgress, _: &mut Context<Self>) -> Self::Result {
        let task: Option<actix::Addr<Task>> = self.scheduler.tasks.borrow().get(&id).cloned();
        Box::pin(async move {
            match task {
                Some(task) => task.send(GetProgress(id)).await.ok().flatten(),
                None => None,
            }
        })
    }
}

//! A task in flight: the conversation about its running attempt.
//!
//! ```text
//!   session ──Progress──► Task ◄──GetProgress── a reader
//! ```
//!
//! A task is a virtual actor: its truth is in the kernel and its row. A mailbox exists from the
//! first thing that is said about its running attempt until the attempt's end; an attempt of which
//! nobody speaks costs nothing.

use std::rc::Rc;

use actix::{Actor, ActorContext, Addr, Context, Handler, Message};
use agentflow_core::attempt::AttemptKey;
use agentflow_core::ids::TaskId;

use crate::scheduler::Scheduler;
use crate::supervise;

/// Conversations at once: attempts that run on all workers. Past it, progress is not kept; 900
/// bytes each are 90 MB.
const CONVERSATIONS: usize = 100_000;

/// Bytes of a progress message that are kept.
const MESSAGE_BYTES: usize = 1_024;

/// How far an attempt is, by its worker. The latest counts.
#[derive(Message, Clone, PartialEq, Debug)]
#[rtype(result = "()")]
pub struct Progress {
    /// Of which attempt.
    pub key: AttemptKey,
    /// 0 to 100.
    pub percent: f32,
    /// For people.
    pub message: String,
}

/// Asks how far a running attempt is.
#[derive(Message, Clone, Copy, Debug)]
#[rtype(result = "Option<ProgressOf>")]
pub struct GetProgress(pub TaskId);

/// The answer to [`GetProgress`].
#[derive(Clone, PartialEq, Debug)]
pub struct ProgressOf {
    /// 0 to 100.
    pub percent: f32,
    /// For people.
    pub message: String,
}

/// The attempt is over.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Ended;

/// The actor.
pub(crate) struct Task {
    key: AttemptKey,
    progress: Option<ProgressOf>,
}

/// Passes progress on to the attempt's conversation, which begins with it if need be. What is said
/// of an attempt that is over is not heard.
pub(crate) fn progress(scheduler: &Rc<Scheduler>, progress: Progress) {
    if !scheduler.is_running(progress.key) {
        return;
    }
    let task = scheduler.tasks.borrow().get(&progress.key.task).cloned();
    if let Some(task) = task.or_else(|| open(scheduler, progress.key)) {
        task.do_send(progress);
    }
}

fn open(scheduler: &Rc<Scheduler>, key: AttemptKey) -> Option<Addr<Task>> {
    let id = key.task;
    if scheduler.tasks.borrow().len() >= CONVERSATIONS {
        return None;
    }
    let quarantine = Rc::clone(scheduler);
    let address = supervise::run(Context::new(), Task { key, progress: None }, move || {
        log::error!("the conversation about task {id} panicked; its attempt goes on without one");
        quarantine.tasks.borrow_mut().remove(&id);
    });
    scheduler.tasks.borrow_mut().insert(id, address.clone());
    Some(address)
}

impl Actor for Task {
    type Context = Context<Self>;
}

impl Handler<Progress> for Task {
    type Result = ();

    fn handle(&mut self, mut progress: Progress, _: &mut Context<Self>) {
        if progress.key != self.key {
            return;
        }
        if progress.message.len() > MESSAGE_BYTES {
            let end = progress.message.floor_char_boundary(MESSAGE_BYTES);
            progress.message.truncate(end);
        }
        let percent = if progress.percent.is_finite() { progress.percent.clamp(0.0, 100.0) } else { 0.0 };
        self.progress = Some(ProgressOf { percent, message: progress.message });
    }
}

impl Handler<GetProgress> for Task {
    type Result = Option<ProgressOf>;

    fn handle(&mut self, _: GetProgress, _: &mut Context<Self>) -> Self::Result {
        self.progress.clone()
    }
}

impl Handler<Ended> for Task {
    type Result = ();

    fn handle(&mut self, _: Ended, context: &mut Context<Self>) {
        context.stop();
    }
}

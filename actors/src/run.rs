//! A run: the conversation about the whole.
//!
//! ```text
//!   client ──Say──► Run ──step──► kernel      pause, resume, cancel, approve, reject, rerun
//!   commit ──Over─► Run
//! ```
//!
//! Its truth is in the kernel and its rows. Everything that is said to a run or to one of its gates
//! goes through its mailbox, so that two people who decide at once are heard one after the other. A
//! mailbox exists from the first word until the run's end; one that panics is begun anew with the next
//! word.

use std::rc::Rc;

use actix::{Actor, ActorContext, Addr, Context, Handler, Message};
use agentflow_core::event::Subject;
use agentflow_core::ids::RunId;
use agentflow_core::kernel::{Reply, Request};
use tokio::sync::oneshot;

use crate::hub::Segment;
use crate::scheduler::Scheduler;
use crate::supervise;

/// Something that somebody wants of a run.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Say {
    pub(crate) request: Request,
    pub(crate) sender: oneshot::Sender<Reply>,
}

/// It has ended.
#[derive(Message, Clone, Copy, Debug)]
#[rtype(result = "()")]
pub(crate) struct Over;

/// The actor.
pub(crate) struct Run {
    scheduler: Rc<Scheduler>,
}

/// Hands a request to the run that it is about, if it is about one.
pub(crate) fn say(scheduler: &Rc<Scheduler>, request: Request, sender: oneshot::Sender<Reply>) {
    let run = match &request {
        Request::ControlRun { run, .. } => Some(*run),
        Request::Rerun(again) => Some(again.run),
        Request::Approve { task } | Request::Reject { task, .. } => scheduler.run_of(*task),
        _ => None,
    };
    match run.filter(|run| scheduler.has_run(*run)) {
        Some(run) => address(scheduler, run).do_send(Say { request, sender }),
        // One that has ended, or none: the kernel says so.
        None => drop(scheduler.ask(request, sender)),
    }
}

/// Ends the conversations about runs that have ended.
pub(crate) fn follow(scheduler: &Rc<Scheduler>, segment: &Segment) {
    let mut runs = scheduler.runs.borrow_mut();
    if runs.is_empty() {
        return;
    }
    for event in &segment.events {
        if let Subject::Run(run) = event.subject
            && event.happening.settles()
            && let Some(run) = runs.remove(&run)
        {
            run.do_send(Over);
        }
    }
}

/// The run's mailbox, which is opened with the first word.
fn address(scheduler: &Rc<Scheduler>, run: RunId) -> Addr<Run> {
    if let Some(address) = scheduler.runs.borrow().get(&run) {
        return address.clone();
    }
    let quarantine = Rc::clone(scheduler);
    let actor = Run { scheduler: Rc::clone(scheduler) };
    let address = supervise::run(Context::new(), actor, move || {
        log::error!("the conversation about run {run} panicked; it begins anew");
        quarantine.runs.borrow_mut().remove(&run);
    });
    scheduler.runs.borrow_mut().insert(run, address.clone());
    address
}

impl Actor for Run {
    type Context = Context<Self>;
}

impl Handler<Say> for Run {
    type Result = ();

    fn handle(&mut self, Say { request, sender }: Say, _: &mut Context<Self>) {
        self.scheduler.ask(request, sender);
    }
}

impl Handler<Over> for Run {
    type Result = ();

    fn handle(&mut self, _: Over, context: &mut Context<Self>) {
        context.stop();
    }
}

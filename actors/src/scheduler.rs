//! What the actors of the scheduling arbiter share: the kernel and the ways out of it.
//!
//! Every happening comes in through [`Scheduler::step`]; the batch goes to the store and the
//! effects that are due are carried out. Nothing here waits.
//!
//! A panic inside the kernel leaves its memory half changed, so it ends the master.

use std::cell::{Cell, RefCell};
use std::os::fd::OwnedFd;
use std::panic::AssertUnwindSafe;
use std::rc::Rc;

use actix::Addr;
use agentflow_core::attempt::AttemptKey;
use agentflow_core::ids::{Epoch, ReplyTo, RunId, SessionEpoch, TaskId};
use agentflow_core::kernel::{Assigned, Effect, Input, Kernel, Output, Reply, Request};
use agentflow_core::time::Mono;
use rustc_hash::FxHashMap;
use tokio::sync::oneshot;

use crate::clock::Clock;
use crate::dispatcher::{Dispatcher, WakeAt};
use crate::run::Run;
use crate::session::{ToSession, WorkerSession};
use crate::store::{Load, LoadRun, Persist, Store};
use crate::supervise::Fatal;
use crate::task::Task;

/// The kernel and its surroundings. Lives on one arbiter, shared by `Rc`.
pub(crate) struct Scheduler {
    kernel: RefCell<Kernel>,
    clock: Clock,
    store: Addr<Store>,
    dispatcher: Addr<Dispatcher>,
    pub(crate) fatal: Fatal,
    replies: RefCell<FxHashMap<ReplyTo, oneshot::Sender<Reply>>>,
    last_reply: Cell<u64>,
    pub(crate) sessions: RefCell<FxHashMap<SessionEpoch, Conversation>>,
    pub(crate) tasks: RefCell<FxHashMap<TaskId, Addr<Task>>>,
    pub(crate) runs: RefCell<FxHashMap<RunId, Addr<Run>>>,
    /// Rows that are decided and not yet durable.
    pub(crate) outstanding: Cell<usize>,
    wake_at: Cell<Option<Mono>>,
}

/// One worker's socket as seen from here.
pub(crate) struct Conversation {
    pub(crate) address: Addr<WorkerSession>,
    /// To shut the socket from outside: a peer that stops reading freezes its door.
    pub(crate) socket: Option<OwnedFd>,
}

impl Scheduler {
    pub(crate) fn new(
        kernel: Kernel,
        clock: Clock,
        store: Addr<Store>,
        dispatcher: Addr<Dispatcher>,
        fatal: Fatal,
    ) -> Rc<Self> {
        Rc::new(Self {
            kernel: RefCell::new(kernel),
            clock,
            store,
            dispatcher,
            fatal,
            replies: RefCell::default(),
            last_reply: Cell::new(0),
            sessions: RefCell::default(),
            tasks: RefCell::default(),
            runs: RefCell::default(),
            outstanding: Cell::new(0),
            wake_at: Cell::new(None),
        })
    }

    pub(crate) fn epoch(&self) -> Epoch {
        self.kernel.borrow().epoch()
    }

    pub(crate) fn now_mono(&self) -> Mono {
        self.clock.now().mono
    }

    /// The way in for clients.
    pub(crate) fn dispatcher(&self) -> Addr<Dispatcher> {
        self.dispatcher.clone()
    }

    /// Whether an attempt is the current one of its task and has begun.
    pub(crate) fn is_running(&self, key: AttemptKey) -> bool {
        self.kernel.borrow().is_running(key)
    }

    /// The run that a live task is a part of.
    pub(crate) fn run_of(&self, task: TaskId) -> Option<RunId> {
        self.kernel.borrow().run_of(task)
    }

    /// Whether a run has not ended.
    pub(crate) fn has_run(&self, run: RunId) -> bool {
        self.kernel.borrow().has_run(run)
    }

    /// Puts a client's request to the kernel. The receiver gets the answer once it is durable.
    pub(crate) fn ask(&self, request: Request, sender: oneshot::Sender<Reply>) -> ReplyTo {
        let reply = ReplyTo(self.last_reply.get() + 1);
        self.last_reply.set(reply.0);
        self.replies.borrow_mut().insert(reply, sender);
        self.step(Input::Request { reply, request });
        reply
    }

    /// Takes one happening in and does what follows.
    pub(crate) fn step(&self, input: Input) {
        if self.fatal.reason().is_some() {
            return;
        }
        let now = self.clock.now();
        let stepped =
            std::panic::catch_unwind(AssertUnwindSafe(|| self.kernel.borrow_mut().step(input, now)));
        match stepped {
            Ok(output) => self.carry_out(output),
            Err(_) => self.fatal.declare("the kernel panicked".to_owned()),
        }
    }

    /// Sends the batch to the store, does what is due, and sees to the next wake-up.
    pub(crate) fn carry_out(&self, output: Output) {
        if let Some(batch) = output.batch {
            self.outstanding.set(self.outstanding.get() + batch.rows());
            self.store.do_send(Persist(batch));
        }
        self.release(output.effects);
        if output.wake_at != self.wake_at.get() {
            self.wake_at.set(output.wake_at);
            self.dispatcher.do_send(WakeAt(output.wake_at));
        }
    }

    /// Carries out effects, in order. Assignments to one worker are put into one frame, unless
    /// something else is said to it in between.
    fn release(&self, effects: Vec<Effect>) {
        let mut work: Vec<(SessionEpoch, Vec<Assigned>)> = Vec::new();
        let mut acks: Vec<(SessionEpoch, u64)> = Vec::new();
        for effect in effects {
            match effect {
                Effect::Assign { session, mut tasks } => match work.iter_mut().find(|(to, _)| *to == session)
                {
                    Some((_, waiting)) => waiting.append(&mut tasks),
                    None => work.push((session, tasks)),
                },
                Effect::Ack { session, up_to } => match acks.iter_mut().find(|(to, _)| *to == session) {
                    Some((_, number)) => *number = up_to.max(*number),
                    None => acks.push((session, up_to)),
                },
                Effect::Reply { to, reply } => {
                    if let Some(sender) = self.replies.borrow_mut().remove(&to) {
                        // Whoever asked may have gone; what was decided stands.
                        let _ = sender.send(reply);
                    }
                }
                Effect::Load { tasks } => self.store.do_send(Load(tasks)),
                Effect::LoadRun { run, files, also } => self.store.do_send(LoadRun { run, files, also }),
                Effect::Welcome { session, keep, stop } => {
                    self.tell(session, ToSession::Welcome { keep, stop })
                }
                Effect::Refuse { session, reason } => {
                    self.tell(session, ToSession::Refuse { reason });
                    self.forget(session);
                }
                Effect::Answers { session, answers } => {
                    self.tell(session, ToSession::Answers { answers });
                }
                Effect::Cancel { session, keys } => {
                    self.hand_over(&mut work, session);
                    self.tell(session, ToSession::Cancel { keys });
                }
                Effect::Drop { session, keys } => {
                    self.hand_over(&mut work, session);
                    self.tell(session, ToSession::Drop { keys });
                }
                Effect::Return { session, keys } => {
                    self.hand_over(&mut work, session);
                    self.tell(session, ToSession::Return { keys });
                }
                Effect::Drain { session } => self.tell(session, ToSession::Drain),
                Effect::Close { session } => self.close(session),
            }
        }
        for (session, up_to) in acks {
            self.tell(session, ToSession::Ack { up_to });
        }
        for (session, tasks) in work {
            self.tell(session, ToSession::Assign { tasks });
        }
    }

    fn hand_over(&self, work: &mut Vec<(SessionEpoch, Vec<Assigned>)>, session: SessionEpoch) {
        if let Some(at) = work.iter().position(|(to, _)| *to == session) {
            let (_, tasks) = work.remove(at);
            self.tell(session, ToSession::Assign { tasks });
        }
    }

    /// Says something to a worker. If its socket has gone meanwhile, the kernel knows or will.
    fn tell(&self, session: SessionEpoch, words: ToSession) {
        if let Some(conversation) = self.sessions.borrow().get(&session) {
            conversation.address.do_send(words);
        }
    }

    /// Shuts a socket from outside.
    fn close(&self, session: SessionEpoch) {
        let Some(conversation) = self.forget(session) else { return };
        conversation
            .address
            .do_send(ToSession::Close { reason: "superseded, or silent for its whole lease".into() });
        // A door that is stuck in a full socket does not hear that; its socket does.
        if let Some(socket) = conversation.socket {
            actix_rt::spawn(async move {
                actix_rt::time::sleep(std::time::Duration::from_millis(500)).await;
                if let Err(error) = rustix::net::shutdown(&socket, rustix::net::Shutdown::Both) {
                    log::debug!("the socket was closed already: {error}");
                }
            });
        }
    }

    /// Removes a socket from those that can be spoken to.
    pub(crate) fn forget(&self, session: SessionEpoch) -> Option<Conversation> {
        self.sessions.borrow_mut().remove(&session)
    }
}

impl Scheduler {
    /// The time that the kernel wanted to be woken at has come.
    pub(crate) fn ring(&self) {
        self.wake_at.set(None);
        self.step(Input::Tick);
    }
}

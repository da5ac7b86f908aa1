//! Runs attempts: what a slot's thread does from an attempt's begin to its end.
//!
//! ```text
//! slot's thread                          daemon
//!   | -- Begun ---------------------------> |   before anything is spawned
//!   | -- Output (there is some to send) --> |
//!   | -- Ended ---------------------------> |
//! ```
//!
//! Owns: the mapping from a task's payload to a process or a warm handler. Knows nothing of the
//! master, leases or reports' numbers.

mod deadlines;
pub(crate) mod environment;
mod handler;
mod keep;
mod locks;
pub(crate) mod output;
mod own_file;
mod process;
mod resume;
pub(crate) mod watch;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use agentflow_core::batch::Outcome;
use agentflow_core::checkpoint::NewCheckpoint;
use agentflow_core::limits::ERROR_BYTES;
use agentflow_core::spec::{Payload, RetryOn};
use agentflow_core::time::Wall;
use agentflow_protocol::log_frame::Stream;
use agentflow_protocol::worker::{AttemptKey, End, Finished};

use crate::api::Api;
use crate::clock::wall;
use crate::config::Handler;
use crate::control::Stop;
use crate::groups::Groups;
use crate::post::Post;
use crate::slots::{Job, Runner};
use environment::Environment;
use output::Tail;

/// Bytes read from a pipe at once: what a Linux pipe holds.
const READ_BYTES: usize = 64 << 10;

/// What an attempt's thread tells the daemon.
#[derive(Debug)]
pub(crate) enum Event {
    /// It begins now.
    Begun { key: AttemptKey, at: Wall },
    /// It has output to send.
    Output(AttemptKey),
    /// Its own file has changed.
    Save { key: AttemptKey, checkpoint: Box<NewCheckpoint> },
    /// It is over, and its slot is free. Totals of its output are still missing.
    Ended { key: AttemptKey, finished: Box<Finished> },
}

/// How an attempt ended.
#[derive(Debug)]
struct Ending {
    end: End,
    outcome: Outcome,
}

impl Ending {
    fn failed(class: RetryOn, error: impl Into<String>) -> Self {
        let outcome = Outcome { error: Some(bounded(error.into()).into()), ..Outcome::default() };
        Self { end: End::Failed(class), outcome }
    }

    /// A good end that comes to nothing. What is known of it stays.
    fn spoilt(self, error: impl Into<String>) -> Self {
        let error = Some(bounded(error.into()).into());
        Self { end: End::Failed(RetryOn::Error), outcome: Outcome { error, ..self.outcome } }
    }

    /// The end of an attempt that was stopped from outside.
    fn stopped(stop: Stop, outcome: Outcome) -> Self {
        let end = match stop {
            Stop::Cancel => End::Cancelled,
            Stop::Interrupt | Stop::Drop => End::Interrupted,
        };
        Self { end, outcome }
    }
}

/// Cuts an error text to its limit.
fn bounded(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(ERROR_BYTES));
    text
}

/// What a thread keeps from one attempt to the next.
#[derive(Debug)]
pub(crate) struct Scratch {
    read: Box<[u8]>,
    tail: Tail,
}

impl Default for Scratch {
    fn default() -> Self {
        Self { read: vec![0; READ_BYTES].into_boxed_slice(), tail: Tail::default() }
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Executor {
    post: Arc<Post>,
    environment: Environment,
    groups: Arc<Groups>,
    handlers: handler::Pools,
    api: Arc<Api>,
    /// Where worktrees are.
    worktrees: PathBuf,
}

impl Executor {
    pub(crate) fn new(
        post: Arc<Post>,
        environment: Environment,
        groups: Arc<Groups>,
        handlers: BTreeMap<String, Handler>,
        slots: u32,
        api: Arc<Api>,
        worktrees: PathBuf,
    ) -> Self {
        let handlers = handler::Pools::new(handlers, slots);
        Self { post, environment, groups, handlers, api, worktrees }
    }

    /// Hands output on to whoever sends it.
    fn log(&self, job: &Job, stream: Stream, bytes: &[u8]) {
        if job.log.append(stream, bytes) {
            self.post.push(Event::Output(job.key));
        }
    }

    fn tell_end(&self, job: &Job, started_at: Wall, ending: Ending) {
        if job.log.end() {
            self.post.push(Event::Output(job.key));
        }
        let Ending { end, outcome } = ending;
        let finished = Finished { started_at, finished_at: wall(), end, outcome, log_bytes: 0, log_cut: 0 };
        self.post.push(Event::Ended { key: job.key, finished: Box::new(finished) });
    }
}

impl Runner for Executor {
    type Scratch = Scratch;

    fn run(&self, job: &Job, scratch: &mut Scratch) {
        let at = wall();
        if let Some(stop) = job.control.stopped() {
            return self.tell_end(job, at, Ending::stopped(stop, Outcome::default()));
        }
        self.post.push(Event::Begun { key: job.key, at });
        let ending = match &job.spec.payload {
            Payload::Handler { name } => self.handlers.run(self, job, scratch, name),
            Payload::Noop | Payload::Milestone => Ending { end: End::Completed, outcome: Outcome::default() },
            Payload::Shell { .. } | Payload::Exec { .. } | Payload::Script { .. } => {
                process::run(self, job, scratch)
            }
        };
        self.tell_end(job, at, ending);
    }

    fn panicked(&self, job: &Job) {
        // Whatever it had started goes with it.
        job.control.kill();
        self.tell_end(job, wall(), Ending::failed(RetryOn::Error, "the worker's executor panicked"));
    }
}

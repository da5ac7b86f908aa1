//! The attempts that wait, and the threads that run them: one thread per running attempt.
//!
//! Owns: the queue, in the order of the ranks that the master gave, and a pool of threads that grows to
//! the number of slots as it is needed. A thread takes its next attempt itself, so that nobody
//! else's turn lies between two of them. Knows nothing of what running means.
//!
//! Invariant: an attempt is either still in the queue, and can be taken back, or a thread has it.

use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar};
use std::thread;

use agentflow_core::ids::{CheckpointId, RunId};
use agentflow_core::spec::Spec;
use agentflow_protocol::worker::AttemptKey;

use crate::control::Control;
use crate::guarded::{Guarded, wait};
use crate::locks::Locks;
use crate::log_stream::LogStream;
use crate::place::Place;

/// A slot's thread only spawns, polls and reads: its buffers are on the heap.
const STACK_BYTES: usize = 256 << 10;

/// One attempt to make.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) key: AttemptKey,
    /// Smaller ones begin first.
    pub(crate) rank: i64,
    /// The run that it is a part of.
    pub(crate) run: Option<RunId>,
    /// The checkpoint at which it begins.
    pub(crate) checkpoint: Option<CheckpointId>,
    /// Whether its task remembers something.
    pub(crate) remembers: bool,
    /// Opens the door for it.
    pub(crate) secret: Arc<str>,
    /// Where it works.
    pub(crate) place: Arc<Place>,
    pub(crate) locks: Arc<Locks>,
    pub(crate) spec: Arc<Spec>,
    pub(crate) control: Arc<Control>,
    pub(crate) log: Arc<LogStream>,
}

/// Runs one attempt to its end on a slot's thread.
pub(crate) trait Runner: Send + Sync + 'static {
    /// What a thread keeps from one attempt to the next.
    type Scratch: Default;

    fn run(&self, job: &Job, scratch: &mut Self::Scratch);

    /// `run` has panicked.
    fn panicked(&self, job: &Job);
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Job>,
    threads: u32,
    idle: u32,
    closed: bool,
}

impl State {
    /// Mostly at the end: the master hands tasks over in this order.
    fn enter(&mut self, job: Job) {
        let behind = self.waiting.iter().rev().take_while(|other| other.rank > job.rank).count();
        self.waiting.insert(self.waiting.len() - behind, job);
    }
}

#[derive(Debug)]
struct Shared<R> {
    state: Guarded<State>,
    changed: Condvar,
    /// Attempts in the queue, for those who do not want to lock it.
    waiting: Arc<AtomicUsize>,
    runner: R,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Slots<R> {
    shared: Arc<Shared<R>>,
    limit: u32,
}

impl<R> Shared<R> {
    fn count(&self, state: &State) {
        self.waiting.store(state.waiting.len(), Ordering::Relaxed);
    }
}

impl<R: Runner> Slots<R> {
    /// Keeps the number of attempts that wait in `waiting`.
    pub(crate) fn new(limit: u32, waiting: Arc<AtomicUsize>, runner: R) -> Self {
        let shared = Shared { state: Guarded::default(), changed: Condvar::new(), waiting, runner };
        Self { shared: Arc::new(shared), limit }
    }

    /// Puts attempts into the queue, behind those of their rank.
    ///
    /// # Errors
    /// When there is no thread for them and none can be started; they wait all the same.
    pub(crate) fn push(&self, jobs: impl IntoIterator<Item = Job>) -> io::Result<()> {
        let mut state = self.shared.state.lock();
        for job in jobs {
            state.enter(job);
        }
        self.shared.count(&state);
        let waiting = u32::try_from(state.waiting.len()).unwrap_or(u32::MAX);
        for _ in 0..waiting.min(state.idle) {
            self.shared.changed.notify_one();
        }
        let missing = waiting.saturating_sub(state.idle).min(self.limit - state.threads);
        for _ in 0..missing {
            let shared = Arc::clone(&self.shared);
            let builder = thread::Builder::new().name("slot".to_owned()).stack_size(STACK_BYTES);
            match builder.spawn(move || work(&shared)) {
                Ok(_) => state.threads += 1,
                Err(error) if state.threads == 0 => return Err(error),
                Err(error) => {
                    log::warn!("fewer attempts run at once: a thread cannot be started: {error}");
                    break;
                }
            }
        }
        Ok(())
    }

    /// Takes out of the queue what has not begun and is `wanted`.
    pub(crate) fn take_back(&self, wanted: impl Fn(&AttemptKey) -> bool) -> Vec<Job> {
        let mut state = self.shared.state.lock();
        let all = std::mem::take(&mut state.waiting);
        let (taken, kept): (VecDeque<_>, VecDeque<_>) = all.into_iter().partition(|job| wanted(&job.key));
        state.waiting = kept;
        self.shared.count(&state);
        taken.into()
    }
}

impl<R> Drop for Slots<R> {
    fn drop(&mut self) {
        self.shared.state.lock().closed = true;
        self.shared.changed.notify_all();
    }
}

fn work<R: Runner>(shared: &Shared<R>) {
    let mut scratch = R::Scratch::default();
    loop {
        let Some(job) = next(shared) else { return };
        let run = catch_unwind(AssertUnwindSafe(|| shared.runner.run(&job, &mut scratch)));
        if run.is_err() {
            scratch = R::Scratch::default();
            shared.runner.panicked(&job);
        }
    }
}

fn next<R>(shared: &Shared<R>) -> Option<Job> {
    let mut state = shared.state.lock();
    loop {
        if state.closed {
            return None;
        }
        if let Some(job) = state.waiting.pop_front() {
            shared.count(&state);
            return Some(job);
        }
        state.idle += 1;
        state = wait(&shared.changed, state);
        state.idle -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log_stream::Policy;
    use agentflow_core::ids::{Attempt, Fence, TaskId};
    use agentflow_core::spec::Payload;
    use std::path::Path;
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::time::Duration;

    struct Gate {
        begun: Sender<u64>,
        go: Guarded<Receiver<()>>,
    }

    impl Runner for Gate {
        type Scratch = ();

        fn run(&self, job: &Job, (): &mut ()) {
            self.begun.send(job.key.task.0).expect("the test listens");
            self.go.lock().recv().expect("the test speaks");
            assert_ne!(job.key.task.0, 2, "the second attempt panics");
        }

        fn panicked(&self, job: &Job) {
            self.begun.send(1_000 + job.key.task.0).expect("the test listens");
        }
    }

    fn job(task: u64) -> Job {
        Job {
            key: AttemptKey { task: TaskId(task), attempt: Attempt(1), fence: Fence(1) },
            rank: 0,
            run: None,
            checkpoint: None,
            remembers: false,
            secret: "".into(),
            place: Arc::default(),
            locks: Arc::default(),
            spec: Arc::new(Spec::new(Payload::Noop)),
            control: Arc::default(),
            log: Arc::new(LogStream::new(&Policy::new(10, Path::new("/")))),
        }
    }

    #[test]
    fn the_smallest_rank_goes_first() {
        let mut state = State::default();
        for (task, rank) in [(1, 5), (2, 5), (3, 1), (4, 5), (5, 1), (6, 9)] {
            state.enter(Job { rank, ..job(task) });
        }
        let order: Vec<u64> = state.waiting.iter().map(|job| job.key.task.0).collect();
        assert_eq!(order, [3, 5, 1, 2, 4, 6]);
    }

    #[test]
    fn attempts_begin_in_order_and_the_rest_can_be_taken_back() {
        let (begun, seen) = channel();
        let (go, gate) = channel();
        let slots = Slots::new(1, Arc::default(), Gate { begun, go: Guarded::new(gate) });
        let seen = || seen.recv_timeout(Duration::from_secs(10)).expect("an attempt begins");
        slots.push((1..=4).map(job)).expect("a thread");
        assert_eq!(seen(), 1);
        let back = slots.take_back(|key| key.task.0 != 2);
        assert_eq!(back.iter().map(|job| job.key.task.0).collect::<Vec<_>>(), [3, 4]);
        go.send(()).expect("a thread");
        assert_eq!(seen(), 2);
        go.send(()).expect("a thread");
        assert_eq!(seen(), 1_002, "a panic is told");
        slots.push([job(5)]).expect("a thread");
        assert_eq!(seen(), 5, "and the slot lives on");
        go.send(()).expect("a thread");
    }
}

//! What the slots' threads tell the daemon, gathered while they have more to do.
//!
//! ```text
//! slot ──event──► Post ──Mail::Now────────────────► Daemon takes all that is there
//!                      ──Mail::Later──(LINGER_MS)──►
//! ```
//!
//! Waking the daemon, a frame, a step of the master and a commit cost more than a short process. As
//! long as more than half of the prefetched attempts still wait here, nobody needs an end at once:
//! the slot has its next attempt already. So an event may lie for [`LINGER_MS`], and all that come
//! meanwhile travel with it. An idle worker, or one that is about to run dry, tells at once.
//!
//! Invariant: while an event lies here, the daemon is on its way.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use actix::{Message, Recipient};

use crate::executor::Event;
use crate::guarded::Guarded;

/// How long an event may lie: at 3,000 ends a second 15 of them share one frame and one commit, and
/// nobody notices 5 ms beside a queue of attempts.
pub(crate) const LINGER_MS: u64 = 5;

/// There is something in the post.
#[derive(Message, Clone, Copy, PartialEq, Eq, Debug)]
#[rtype(result = "()")]
pub(crate) enum Mail {
    /// Take it.
    Now,
    /// Take it in [`LINGER_MS`].
    Later,
}

#[derive(Debug, Default)]
struct State {
    events: Vec<Event>,
    /// What the daemon was told since it last took everything.
    told: Option<Mail>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Post {
    state: Guarded<State>,
    daemon: Recipient<Mail>,
    /// Attempts that wait for a slot.
    waiting: Arc<AtomicUsize>,
    /// More than so many must wait for an event to lie.
    enough: usize,
}

impl Post {
    /// `waiting` is kept by the slots.
    pub(crate) fn new(daemon: Recipient<Mail>, waiting: Arc<AtomicUsize>, prefetch: u32) -> Self {
        let enough = usize::try_from(prefetch / 2).unwrap_or(usize::MAX);
        Self { state: Guarded::default(), daemon, waiting, enough }
    }

    /// Leaves an event for the daemon.
    pub(crate) fn push(&self, event: Event) {
        // A count that is old by a moment only decides about a few milliseconds.
        let may_lie = self.waiting.load(Ordering::Relaxed) > self.enough;
        let mail = if may_lie { Mail::Later } else { Mail::Now };
        let mut state = self.state.lock();
        state.events.push(event);
        let is_told = match state.told {
            None => false,
            Some(Mail::Later) => may_lie,
            Some(Mail::Now) => true,
        };
        if !is_told {
            state.told = Some(mail);
            drop(state);
            self.daemon.do_send(mail);
        }
    }

    /// Everything that lies here, in order.
    pub(crate) fn take(&self) -> Vec<Event> {
        let mut state = self.state.lock();
        state.told = None;
        std::mem::take(&mut state.events)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix::{Actor, Context, Handler};
    use agentflow_core::attempt::AttemptKey;
    use agentflow_core::ids::{Attempt, Fence, TaskId};
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::time::Duration;

    struct Reader(Sender<Mail>);

    impl Actor for Reader {
        type Context = Context<Self>;
    }

    impl Handler<Mail> for Reader {
        type Result = ();

        fn handle(&mut self, mail: Mail, _: &mut Self::Context) {
            self.0.send(mail).expect("the test listens");
        }
    }

    fn event(task: u64) -> Event {
        Event::Output(AttemptKey { task: TaskId(task), attempt: Attempt(1), fence: Fence(1) })
    }

    fn next(mails: &Receiver<Mail>) -> Mail {
        mails.recv_timeout(Duration::from_secs(10)).expect("the daemon is told")
    }

    #[test]
    fn events_lie_only_while_enough_attempts_wait() {
        let arbiter = actix::System::new();
        let (sender, mails) = channel();
        let reader = arbiter.block_on(async { Reader(sender).start() });
        let waiting = Arc::new(AtomicUsize::new(9));
        let post = Post::new(reader.recipient(), Arc::clone(&waiting), 16);
        let told = || {
            arbiter.block_on(async { actix_rt::task::yield_now().await });
            next(&mails)
        };
        post.push(event(1));
        assert_eq!(told(), Mail::Later);
        post.push(event(2));
        waiting.store(8, Ordering::Relaxed);
        post.push(event(3));
        assert_eq!(told(), Mail::Now, "nobody is told of the second; the third cannot wait");
        assert_eq!(post.take().len(), 3);
        assert!(post.take().is_empty());
        post.push(event(4));
        assert_eq!(told(), Mail::Now);
        assert!(mails.try_recv().is_err());
    }
}

//! The event hub: the last events in memory, and those who wait for the next.
//!
//! ```text
//!   Store ──Publish──► EventHub ◄──Next── subscriber (asks again when it has consumed)
//!                              ◄──WaitSettled── a waiting request
//! ```
//!
//! Subscribers pull. A slow one asks late, finds that the ring has moved on, and reads from the
//! database: nothing is buffered for anybody.

use std::collections::VecDeque;
use std::sync::Arc;

use actix::{Actor, Context, Handler, Message, ResponseFuture};
use agentflow_core::event::{Event, Subject};
use agentflow_core::ids::Seq;
use rustc_hash::FxHashMap;
use tokio::sync::oneshot;

/// Events in the ring: two seconds of 20,000 tasks a second, about 20 MB.
const RING_EVENTS: usize = 160_000;

/// The events of one commit, numbered on from the first.
#[derive(Debug)]
pub struct Segment {
    /// The number of the first event.
    pub first_seq: Seq,
    /// In order; never empty.
    pub events: Vec<Event>,
}

impl Segment {
    fn last_seq(&self) -> Seq {
        Seq(self.first_seq.0 + self.events.len() as u64 - 1)
    }
}

/// Events have been committed.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Publish(pub(crate) Arc<Segment>);

/// Asks for committed events after a cursor; waits if there are none yet.
#[derive(Message, Clone, Copy, Debug)]
#[rtype(result = "Result<Recent, HubClosed>")]
pub struct Next {
    /// The last event that the asker has.
    pub after: Seq,
    /// Enough events; the last segment is given whole.
    pub limit: usize,
}

/// The answer to [`Next`].
#[derive(Debug)]
pub enum Recent {
    /// Segments that hold events after the cursor; the first may begin before it.
    Events(Vec<Arc<Segment>>),
    /// The cursor is older than the ring: read from the database.
    Behind,
}

/// The master stops.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the master is stopping")]
pub struct HubClosed;

/// Answers when an event that settles the task or ends the run is committed. To miss nothing, send
/// this first and then look whether it has ended already.
#[derive(Message, Clone, Debug)]
#[rtype(result = "()")]
pub struct WaitSettled(pub Subject);

/// The actor.
pub struct EventHub {
    ring: VecDeque<Arc<Segment>>,
    held: usize,
    /// The newest event.
    head: Seq,
    /// The event before the ring's first.
    before: Seq,
    waiting: Vec<(Next, oneshot::Sender<Recent>)>,
    settling: FxHashMap<Subject, Vec<oneshot::Sender<()>>>,
}

impl EventHub {
    pub(crate) fn new(head: Seq) -> Self {
        Self {
            ring: VecDeque::new(),
            held: 0,
            head,
            before: head,
            waiting: Vec::new(),
            settling: FxHashMap::default(),
        }
    }

    fn recent(&self, next: Next) -> Option<Recent> {
        if next.after < self.before {
            return Some(Recent::Behind);
        }
        if next.after >= self.head {
            return None;
        }
        let from = self.ring.partition_point(|segment| segment.last_seq() <= next.after);
        let mut events = 0;
        let mut segments = Vec::new();
        for segment in self.ring.iter().skip(from) {
            events += segment.events.len();
            segments.push(Arc::clone(segment));
            if events >= next.limit {
                break;
            }
        }
        Some(Recent::Events(segments))
    }

    fn tell_settled(&mut self, segment: &Segment) {
        if self.settling.is_empty() {
            return;
        }
        for event in &segment.events {
            if event.happening.settles()
                && let Some(waiting) = self.settling.remove(&event.subject)
            {
                for sender in waiting {
                    // The asker may have gone.
                    let _ = sender.send(());
                }
            }
        }
    }
}

impl Actor for EventHub {
    type Context = Context<Self>;
}

impl Handler<Publish> for EventHub {
    type Result = ();

    fn handle(&mut self, Publish(segment): Publish, _: &mut Context<Self>) {
        self.head = segment.last_seq();
        self.held += segment.events.len();
        self.tell_settled(&segment);
        self.ring.push_back(segment);
        while self.held > RING_EVENTS && self.ring.len() > 1 {
            if let Some(oldest) = self.ring.pop_front() {
                self.held -= oldest.events.len();
                self.before = oldest.last_seq();
            }
        }
        for (next, sender) in std::mem::take(&mut self.waiting) {
            match self.recent(next) {
                Some(recent) => {
                    let _ = sender.send(recent);
                }
                None if !sender.is_closed() => self.waiting.push((next, sender)),
                None => {}
            }
        }
    }
}

impl Handler<Next> for EventHub {
    type Result = ResponseFuture<Result<Recent, HubClosed>>;

    fn handle(&mut self, next: Next, _: &mut Context<Self>) -> Self::Result {
        if let Some(recent) = self.recent(next) {
            return Box::pin(std::future::ready(Ok(recent)));
        }
        self.waiting.retain(|(_, sender)| !sender.is_closed());
        let (sender, receiver) = oneshot::channel();
        self.waiting.push((next, sender));
        Box::pin(async { receiver.await.map_err(|_| HubClosed) })
    }
}

impl Handler<WaitSettled> for EventHub {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, WaitSettled(subject): WaitSettled, _: &mut Context<Self>) -> Self::Result {
        let (sender, receiver) = oneshot::channel();
        let waiting = self.settling.entry(subject).or_default();
        waiting.retain(|sender| !sender.is_closed());
        waiting.push(sender);
        Box::pin(async {
            // If the hub goes, the asker looks into the database, which is right too.
            let _ = receiver.await;
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use agentflow_core::event::Happening;
    use agentflow_core::ids::{Attempt, TaskId};
    use agentflow_core::time::Wall;

    fn segment(first: u64, count: u64) -> Arc<Segment> {
        let event = |n| Event {
            at: Wall(0),
            subject: Subject::Task(TaskId(n)),
            happening: Happening::TaskCompleted { attempt: Attempt(1) },
        };
        Arc::new(Segment { first_seq: Seq(first), events: (first..first + count).map(event).collect() })
    }

    fn hub() -> EventHub {
        let mut hub = EventHub::new(Seq(10));
        for segment in [segment(11, 3), segment(14, 2)] {
            hub.head = segment.last_seq();
            hub.ring.push_back(segment);
        }
        hub
    }

    fn firsts(hub: &EventHub, after: u64, limit: usize) -> Option<Vec<u64>> {
        match hub.recent(Next { after: Seq(after), limit })? {
            Recent::Events(segments) => Some(segments.iter().map(|segment| segment.first_seq.0).collect()),
            Recent::Behind => Some(vec![]),
        }
    }

    #[test]
    fn a_cursor_finds_what_follows_it() {
        let hub = hub();
        assert_eq!(firsts(&hub, 9, 10), Some(vec![]), "older than the ring");
        assert_eq!(firsts(&hub, 10, 10), Some(vec![11, 14]));
        assert_eq!(firsts(&hub, 10, 1), Some(vec![11]));
        assert_eq!(firsts(&hub, 12, 10), Some(vec![11, 14]));
        assert_eq!(firsts(&hub, 13, 10), Some(vec![14]));
        assert_eq!(firsts(&hub, 15, 10), None);
    }

    #[actix::test]
    async fn waiting_ends_with_the_next_commit() {
        let hub = EventHub::new(Seq(0)).start();
        let next = actix_rt::spawn(hub.send(Next { after: Seq(0), limit: 1 }));
        let settled = actix_rt::spawn(hub.send(WaitSettled(Subject::Task(TaskId(2)))));
        while !hub.connected() {
            tokio::task::yield_now().await;
        }
        // A message that is answered shows that those before it were handled.
        hub.send(Publish(segment(1, 1))).await.expect("alive");
        assert!(matches!(next.await.expect("ran"), Ok(Ok(Recent::Events(_)))));
        hub.send(Publish(segment(2, 1))).await.expect("alive");
        settled.await.expect("ran").expect("answered");
    }
}

//! What running attempts have asked of the master, until it answers.
//!
//! Owns: the numbers of questions, and who waits for each answer. Invariants: numbers rise by one; a
//! question is sent again on each new socket until it is answered; the master knows a checkpoint or a lock
//! that is asked for twice by its number. Answers may come in any order: some locks are waited for.

use std::collections::BTreeMap;

use agentflow_core::limits::{ASKS, FRAME_BYTES};
use agentflow_core::lock::LockId;
use agentflow_protocol::Problem;
use agentflow_protocol::worker::{Ask, AskAnswer, AskBody, AttemptKey, Given, LockAsk};
use tokio::sync::oneshot;

use crate::locks::Grant;

/// Room for the frame around the questions.
const ASK_BYTES: usize = FRAME_BYTES - 64;

/// Questions for locks, which may wait for long: the others have room beside them.
const LOCK_ASKS: usize = ASKS / 2;

/// What somebody is told in the end.
pub(crate) type Answer = Result<Given, Problem>;

/// What an answer changes about an attempt's locks.
#[derive(Debug)]
pub(crate) enum Change {
    /// It has this one.
    Granted(Grant),
    /// It was granted this one, and whoever asked does not take it.
    Unwanted(LockId),
    /// It has given this one back.
    Released(LockId),
}

#[derive(Debug)]
struct Pending {
    key: AttemptKey,
    text: Box<str>,
    about: About,
    waits: Option<oneshot::Sender<Answer>>,
}

/// What of a question must be known when it is answered.
#[derive(Debug)]
enum About {
    Lock(Box<LockAsk>),
    Unlock(LockId),
    Other,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Asks {
    last: u64,
    pending: BTreeMap<u64, Pending>,
    /// The last one that was sent on this socket.
    sent: u64,
}

impl Asks {
    /// Asks something. Where nobody waits, the answer is only logged.
    pub(crate) fn push(&mut self, key: AttemptKey, body: AskBody, waits: Option<oneshot::Sender<Answer>>) {
        let refuse = |waits, problem| tell(waits, Err(problem), self.last);
        if self.pending.len() >= ASKS {
            let detail = format!("{ASKS} questions of this worker's tasks wait for the master; try again");
            return refuse(waits, Problem::new(429, "limit", detail));
        }
        if matches!(body, AskBody::Lock(_)) && self.waiting_for_locks() >= LOCK_ASKS {
            let detail = format!("{LOCK_ASKS} of this worker's tasks wait for locks already; try again");
            return refuse(waits, Problem::new(429, "limit", detail));
        }
        let ask = Ask { no: self.last + 1, key, body };
        // Plain data with string keys: cannot fail.
        let text = serde_json::to_string(&ask).unwrap_or_default().into_boxed_str();
        if text.len() >= ASK_BYTES {
            let detail = format!("a question has less than {ASK_BYTES} bytes, this one {}", text.len());
            return refuse(waits, Problem::new(413, "too_large", detail));
        }
        let about = match ask.body {
            AskBody::Lock(ask) => About::Lock(ask),
            AskBody::Unlock { lock } => About::Unlock(lock),
            AskBody::Checkpoint(_) | AskBody::Remember { .. } | AskBody::Forget { .. } => About::Other,
        };
        self.last += 1;
        self.pending.insert(self.last, Pending { key, text, about, waits });
    }

    fn waiting_for_locks(&self) -> usize {
        self.pending.values().filter(|pending| matches!(pending.about, About::Lock(_))).count()
    }

    /// Everything is sent again on a new socket.
    pub(crate) fn rewind(&mut self) {
        self.sent = 0;
    }

    /// The next frame of what was not yet sent on this socket.
    pub(crate) fn next_frame(&mut self) -> Option<String> {
        let mut frame = String::new();
        for (no, ask) in self.pending.range(self.sent + 1..) {
            if frame.is_empty() {
                frame.push_str(r#"{"type":"asks","asks":["#);
            } else if frame.len() + ask.text.len() >= ASK_BYTES {
                break;
            } else {
                frame.push(',');
            }
            frame.push_str(&ask.text);
            self.sent = *no;
        }
        if frame.is_empty() {
            return None;
        }
        frame.push_str("]}");
        Some(frame)
    }

    /// Hands answers on, and gives what they change about locks. A lock that nobody waits for any more is
    /// not taken, and none is while the worker has no lease: somebody else may have it by now.
    pub(crate) fn answered(&mut self, answers: Vec<AskAnswer>, is_leased: bool) -> Vec<(AttemptKey, Change)> {
        let mut changes = Vec::new();
        for AskAnswer { no, given, problem } in answers {
            let Some(Pending { key, about, waits, .. }) = self.pending.remove(&no) else { continue };
            let mut answer = match (given, problem) {
                (Some(given), _) => Ok(given),
                (None, Some(problem)) => Err(problem),
                (None, None) => Err(Problem::new(500, "internal", "the master gave no answer")),
            };
            match (about, &answer) {
                (About::Lock(ask), Ok(Given { lock: Some(held), .. })) => {
                    let is_waited_for = waits.as_ref().is_some_and(|waits| !waits.is_closed());
                    if is_leased && is_waited_for {
                        changes.push((key, Change::Granted(Grant::new(held.clone(), *ask))));
                    } else {
                        changes.push((key, Change::Unwanted(held.id)));
                        let detail = "the lock was granted while the worker had no lease; ask again";
                        answer = Err(Problem::new(503, "no_lease", detail));
                    }
                }
                (About::Unlock(lock), Ok(_)) => changes.push((key, Change::Released(lock))),
                _ => {}
            }
            tell(waits, answer, no);
        }
        changes
    }

    /// Nobody will answer any more.
    pub(crate) fn give_up(&mut self, reason: &str) {
        for (no, pending) in std::mem::take(&mut self.pending) {
            tell(pending.waits, Err(Problem::new(503, "stopping", reason)), no);
        }
    }
}

fn tell(waits: Option<oneshot::Sender<Answer>>, answer: Answer, no: u64) {
    match (waits, answer) {
        // Whoever asked may have gone; what was decided stands.
        (Some(waits), answer) => drop(waits.send(answer)),
        (None, Err(problem)) => log::warn!("question {no} to the master: {problem}"),
        (None, Ok(_)) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use agentflow_core::checkpoint::Whose;
    use agentflow_core::ids::{Attempt, Fence, TaskId};
    use agentflow_core::lock::{LockFence, LockMode, LockPath, PathLock, Repository};
    use agentflow_core::time::Wall;
    use agentflow_protocol::worker::{FromWorker, HeldLock};

    const KEY: AttemptKey = AttemptKey { task: TaskId(1), attempt: Attempt(1), fence: Fence(1) };

    fn push(asks: &mut Asks, body: AskBody) -> oneshot::Receiver<Answer> {
        let (sender, receiver) = oneshot::channel();
        asks.push(KEY, body, Some(sender));
        receiver
    }

    fn ask(asks: &mut Asks, bytes: usize) -> oneshot::Receiver<Answer> {
        let value = format!("\"{}\"", "x".repeat(bytes)).into();
        push(asks, AskBody::Remember { whose: Whose::Task, name: "a".into(), value, ttl_ms: None })
    }

    fn lock(asks: &mut Asks) -> oneshot::Receiver<Answer> {
        let paths = vec![PathLock { path: LockPath::new("a").expect("a path"), mode: LockMode::Write }];
        let (repo, reason) = (Repository::default(), "".into());
        push(asks, AskBody::Lock(Box::new(LockAsk { repo, ignore_case: false, paths, wait_ms: 5, reason })))
    }

    fn granted(no: u64, id: u8) -> Vec<AskAnswer> {
        let held = HeldLock { id: LockId([id; 16]), repo: Repository::default(), fence: LockFence(1) };
        let given = Given { checkpoint: None, lock: Some(held), at: Wall(3) };
        vec![AskAnswer { no, given: Some(given), problem: None }]
    }

    fn numbers(frame: &str) -> Vec<u64> {
        assert!(frame.len() <= FRAME_BYTES);
        match serde_json::from_str(frame).expect("a frame") {
            FromWorker::Asks { asks } => asks.iter().map(|ask| ask.no).collect(),
            other => panic!("no questions: {other:?}"),
        }
    }

    #[test]
    fn questions_are_asked_until_they_are_answered() {
        let mut asks = Asks::default();
        let mut first = ask(&mut asks, 1);
        let mut second = ask(&mut asks, 1);
        assert_eq!(numbers(&asks.next_frame().expect("a frame")), [1, 2]);
        assert!(asks.next_frame().is_none());
        let given = Given { checkpoint: None, lock: None, at: Wall(3) };
        let answer = AskAnswer { no: 1, given: Some(given.clone()), problem: None };
        assert!(asks.answered(vec![answer], true).is_empty());
        assert_eq!(first.try_recv(), Ok(Ok(given)));
        asks.rewind();
        ask(&mut asks, 1);
        assert_eq!(numbers(&asks.next_frame().expect("a frame")), [2, 3]);
        asks.give_up("the worker leaves");
        assert_eq!(second.try_recv().expect("an answer").expect_err("a problem").status, 503);
        assert!(asks.next_frame().is_none());
    }

    #[test]
    fn frames_and_questions_are_bounded() {
        let mut asks = Asks::default();
        let mut receivers: Vec<_> = (0..=ASKS).map(|_| ask(&mut asks, 2_000)).collect();
        let refused = receivers.pop().expect("one").try_recv().expect("an answer");
        assert_eq!(refused.expect_err("a limit").status, 429);
        let mut seen = 0;
        while let Some(frame) = asks.next_frame() {
            seen += numbers(&frame).len();
        }
        assert_eq!(seen, ASKS);
    }

    #[test]
    fn a_lock_is_only_taken_by_who_waits_for_it() {
        let mut asks = Asks::default();
        let mut waits = lock(&mut asks);
        let changes = asks.answered(granted(1, 1), true);
        assert!(matches!(&changes[..], [(KEY, Change::Granted(grant))] if grant.held.id == LockId([1; 16])));
        assert!(waits.try_recv().expect("an answer").is_ok());
        drop(lock(&mut asks));
        let mut late = lock(&mut asks);
        for (no, is_leased) in [(2, true), (3, false)] {
            let changes = asks.answered(granted(no, 7), is_leased);
            assert!(matches!(changes[..], [(KEY, Change::Unwanted(LockId([7, ..])))]), "{changes:?}");
        }
        assert_eq!(late.try_recv().expect("an answer").expect_err("no lease").status, 503);
        push(&mut asks, AskBody::Unlock { lock: LockId([1; 16]) });
        let given = Given { checkpoint: None, lock: None, at: Wall(3) };
        let changes = asks.answered(vec![AskAnswer { no: 4, given: Some(given), problem: None }], false);
        assert!(matches!(changes[..], [(KEY, Change::Released(LockId([1, ..])))]), "{changes:?}");
    }

    #[test]
    fn who_waits_for_locks_leaves_room_for_others() {
        let mut asks = Asks::default();
        let mut waiting: Vec<_> = (0..=LOCK_ASKS).map(|_| lock(&mut asks)).collect();
        let refused = waiting.pop().expect("one").try_recv().expect("an answer");
        assert_eq!(refused.expect_err("a limit").status, 429);
        let mut large = ask(&mut asks, ASK_BYTES);
        assert_eq!(large.try_recv().expect("an answer").expect_err("no frame holds it").status, 413);
        assert!(ask(&mut asks, 1).try_recv().is_err(), "it waits for an answer");
    }
}

//! What running attempts have asked of the master, until it answers.
//!
//! Owns: the numbers of questions, and who waits for each answer. Invariants: numbers rise by one; a
//! question is sent again on each new socket until it is answered; the master knows a checkpoint that
//! comes twice by its number.

use std::collections::BTreeMap;

use agentflow_core::limits::{ASKS, FRAME_BYTES};
use agentflow_protocol::Problem;
use agentflow_protocol::worker::{Ask, AskAnswer, AskBody, AttemptKey, Given};
use tokio::sync::oneshot;

/// Room for the frame around the questions.
const ASK_BYTES: usize = FRAME_BYTES - 64;

/// What somebody is told in the end.
pub(crate) type Answer = Result<Given, Problem>;

#[derive(Debug)]
struct Pending {
    text: Box<str>,
    waits: Option<oneshot::Sender<Answer>>,
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
        if self.pending.len() >= ASKS {
            let detail = format!("{ASKS} questions of this worker's tasks wait for the master; try again");
            return tell(waits, Err(Problem::new(429, "limit", detail)), self.last);
        }
        self.last += 1;
        // Plain data with string keys: cannot fail.
        let text = serde_json::to_string(&Ask { no: self.last, key, body }).unwrap_or_default();
        self.pending.insert(self.last, Pending { text: text.into_boxed_str(), waits });
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

    /// Hands answers on.
    pub(crate) fn answered(&mut self, answers: Vec<AskAnswer>) {
        for AskAnswer { no, given, problem } in answers {
            let Some(pending) = self.pending.remove(&no) else { continue };
            let answer = match (given, problem) {
                (Some(given), _) => Ok(given),
                (None, Some(problem)) => Err(problem),
                (None, None) => Err(Problem::new(500, "internal", "the master gave no answer")),
            };
            tell(pending.waits, answer, no);
        }
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
    use agentflow_core::time::Wall;
    use agentflow_protocol::worker::FromWorker;

    fn ask(asks: &mut Asks, bytes: usize) -> oneshot::Receiver<Answer> {
        let key = AttemptKey { task: TaskId(1), attempt: Attempt(1), fence: Fence(1) };
        let value = format!("\"{}\"", "x".repeat(bytes)).into();
        let body = AskBody::Remember { whose: Whose::Task, name: "a".into(), value, ttl_ms: None };
        let (sender, receiver) = oneshot::channel();
        asks.push(key, body, Some(sender));
        receiver
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
        let given = Given { checkpoint: None, at: Wall(3) };
        asks.answered(vec![AskAnswer { no: 1, given: Some(given), problem: None }]);
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
}

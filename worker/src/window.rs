//! Reports that the master has not yet made durable.
//!
//! Owns: their numbers, their order, and which of them were sent on this socket. Invariants:
//! numbers rise by one from 1; a report stays until an acknowledgement covers it; a frame holds at
//! most [`REPORTS_PER_FRAME`] reports and stays below [`FRAME_BYTES`].
//!
//! A report is turned into text once, when it is made: the same bytes are sent, sent again, and
//! written to the spool.

use std::collections::VecDeque;

use agentflow_core::limits::{FRAME_BYTES, REPORTS_PER_FRAME};
use agentflow_core::time::Mono;
use agentflow_protocol::worker::{AttemptKey, Held, Report, ReportBody};

/// Room for the frame around the reports.
const REPORT_BYTES: usize = FRAME_BYTES - 64;

#[derive(Debug)]
struct Pending {
    no: u64,
    /// The attempt that is over with this report, and whether it had begun.
    over: Option<Held>,
    text: Box<str>,
    since: Mono,
    spool: Spooling,
}

/// Only ends are kept in the spool, and each is written once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Spooling {
    Never,
    Due,
    Done,
}

#[derive(Debug, Default)]
pub(crate) struct Window {
    last: u64,
    pending: VecDeque<Pending>,
    sent: usize,
}

impl Window {
    /// Adds a report. `spooled` says that the spool has it already.
    pub(crate) fn push(&mut self, key: AttemptKey, body: ReportBody, now: Mono, spooled: bool) {
        self.last += 1;
        let spool = match body {
            ReportBody::Finished(_) if spooled => Spooling::Done,
            ReportBody::Finished(_) => Spooling::Due,
            ReportBody::Started { .. } | ReportBody::Returned {} => Spooling::Never,
        };
        let over = match &body {
            ReportBody::Started { .. } => None,
            ReportBody::Returned {} => Some(Held { key, started: false }),
            // What ended at the moment of its begin has not run: nobody needs to hear of its start.
            ReportBody::Finished(end) => Some(Held { key, started: end.finished_at > end.started_at }),
        };
        let report = Report { no: self.last, key, body };
        // Plain data with string keys: cannot fail.
        let text = serde_json::to_string(&report).unwrap_or_default().into_boxed_str();
        self.pending.push_back(Pending { no: self.last, over, text, since: now, spool });
    }

    /// The next frame of what was not yet sent on this socket.
    pub(crate) fn next_frame(&mut self) -> Option<String> {
        let first = self.pending.get(self.sent)?;
        let mut frame = String::with_capacity(64 + 2 * first.text.len());
        frame.push_str(r#"{"type":"reports","reports":["#);
        let mut count = 0;
        for report in self.pending.range(self.sent..).take(REPORTS_PER_FRAME) {
            if count > 0 {
                if frame.len() + report.text.len() >= REPORT_BYTES {
                    break;
                }
                frame.push(',');
            }
            frame.push_str(&report.text);
            count += 1;
        }
        frame.push_str("]}");
        self.sent += count;
        Some(frame)
    }

    /// Forgets reports up to that number.
    pub(crate) fn acknowledge(&mut self, up_to: u64) {
        while self.pending.front().is_some_and(|report| report.no <= up_to) {
            self.pending.pop_front();
            self.sent = self.sent.saturating_sub(1);
        }
    }

    /// On a new socket everything is sent again.
    pub(crate) fn rewind(&mut self) {
        self.sent = 0;
    }

    /// Attempts that are over, and whose end the master may not have heard.
    pub(crate) fn over(&self) -> impl Iterator<Item = Held> {
        self.pending.iter().filter_map(|report| report.over)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    /// The reports that the spool must get: ends made at or before `before`. Each is given out once.
    pub(crate) fn take_for_spool(&mut self, before: Mono) -> Vec<Box<str>> {
        let pending = self.pending.iter_mut();
        let due = pending.filter(|report| report.spool == Spooling::Due && report.since <= before);
        due.map(|report| {
            report.spool = Spooling::Done;
            report.text.clone()
        })
        .collect()
    }

    /// Every unacknowledged end that was given to the spool.
    pub(crate) fn spooled(&self) -> Vec<Box<str>> {
        let done = self.pending.iter().filter(|report| report.spool == Spooling::Done);
        done.map(|report| report.text.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use agentflow_core::batch::Outcome;
    use agentflow_core::ids::{Attempt, Fence, TaskId};
    use agentflow_core::time::Wall;
    use agentflow_protocol::worker::{End, Finished, FromWorker};

    fn key(task: u64) -> AttemptKey {
        AttemptKey { task: TaskId(task), attempt: Attempt(1), fence: Fence(1) }
    }

    fn end(result: usize) -> ReportBody {
        ReportBody::Finished(Box::new(Finished {
            started_at: Wall(1),
            finished_at: Wall(2),
            end: End::Completed,
            outcome: Outcome { result: Some("x".repeat(result).into()), ..Outcome::default() },
            log_bytes: 0,
            log_cut: 0,
        }))
    }

    fn numbers(frame: &str) -> Vec<u64> {
        match serde_json::from_str(frame).expect("a frame") {
            FromWorker::Reports { reports } => reports.iter().map(|report| report.no).collect(),
            other => panic!("no reports: {other:?}"),
        }
    }

    #[test]
    fn unacknowledged_reports_are_sent_again() {
        let mut window = Window::default();
        for task in 1..=3 {
            window.push(key(task), end(0), Mono(0), false);
        }
        assert_eq!(numbers(&window.next_frame().expect("reports")), [1, 2, 3]);
        assert!(window.next_frame().is_none());
        window.acknowledge(2);
        window.rewind();
        window.push(key(4), end(0), Mono(0), false);
        assert_eq!(numbers(&window.next_frame().expect("reports")), [3, 4]);
        assert_eq!(window.over().map(|held| held.key).collect::<Vec<_>>(), [key(3), key(4)]);
        window.acknowledge(4);
        assert!(window.is_empty() && window.next_frame().is_none());
    }

    #[test]
    fn a_frame_is_bounded_in_count_and_bytes() {
        let mut window = Window::default();
        for task in 0..2_500 {
            window.push(key(task), ReportBody::Started { at: Wall(0) }, Mono(0), false);
        }
        assert_eq!(numbers(&window.next_frame().expect("reports")).len(), REPORTS_PER_FRAME);
        let mut window = Window::default();
        for task in 0..40 {
            window.push(key(task), end(64 << 10), Mono(0), false);
        }
        let mut seen = 0;
        while let Some(frame) = window.next_frame() {
            assert!(frame.len() <= FRAME_BYTES);
            seen += numbers(&frame).len();
        }
        assert_eq!(seen, 40);
    }

    #[test]
    fn the_spool_gets_old_ends_once() {
        let mut window = Window::default();
        window.push(key(1), ReportBody::Started { at: Wall(0) }, Mono(0), false);
        window.push(key(1), end(0), Mono(5), false);
        window.push(key(2), end(0), Mono(9), false);
        assert_eq!(window.take_for_spool(Mono(5)).len(), 1);
        assert_eq!(window.take_for_spool(Mono(5)).len(), 0);
        assert_eq!(window.spooled().len(), 1);
        assert_eq!(window.take_for_spool(Mono(9)).len(), 1);
    }
}

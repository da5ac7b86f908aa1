//! A run as plain lines, for pipes and logs: one for each thing that becomes of a node.
//!
//! ```text
//! 12:03:04 build running
//! 12:03:05 build completed (1.2 s)
//! ```

use std::collections::HashSet;
use std::sync::Arc;

use agentflow_core::status::Status;
use agentflow_protocol::api::TaskView;
use agentflow_protocol::runs::RunWhyView;
use jiff::tz::TimeZone;

use super::board::waits;
use super::{Board, Change, Listener, Place, Shared, span};
use crate::args::WaitFlags;
use crate::client::Client;
use crate::clock::{now, time_of_day};
use crate::error::Error;
use crate::output::{Output, Paint, printable};
use crate::settle::task_path;
use crate::task_output::log_lines;

/// Prints what happens.
pub(crate) struct Lines {
    client: Arc<Client>,
    output: Output,
    flags: WaitFlags,
    /// What has been told of waiting, by task and reason.
    told: HashSet<(u64, String)>,
    zone: TimeZone,
    is_quiet: bool,
}

impl Lines {
    /// Prints, unless it is quiet: then it only listens.
    pub(crate) fn new(client: Arc<Client>, flags: WaitFlags, output: Output, is_quiet: bool) -> Self {
        Self { client, output, flags, told: HashSet::new(), zone: TimeZone::system(), is_quiet }
    }

    fn node(&self, board: &Board, place: Place, change: Change) -> Option<(u64, Status, String)> {
        let line = board.line(place)?;
        let name = printable(&board.full_name(place));
        let (at, word) = match change {
            // Items come in thousands; their ends are enough.
            Change::Began(_) if place.part.is_some() => return None,
            Change::Began(_) => (line.began, "running".to_owned()),
            Change::Retrying(_) => (None, "failed, will be tried again".to_owned()),
            Change::Lost(_) => (None, "pending again".to_owned()),
            _ => (line.ended, line.status.word().to_owned()),
        };
        let at = at.unwrap_or_else(now);
        let paint = Paint::of(line.status).filter(|_| line.status.is_settled());
        let mut text = format!("{} {name} ", time_of_day(at, &self.zone));
        text.push_str(&paint.map_or(word.clone(), |paint| self.output.paint(paint, word)));
        if let Some(milliseconds) = line.milliseconds(at).filter(|_| line.status.is_settled()) {
            text.push_str(&format!(" ({})", span(milliseconds)));
        }
        if line.attempt > 1 && matches!(change, Change::Began(_)) {
            text.push_str(&format!(", attempt {}", line.attempt));
        }
        if !line.note.is_empty() && !matches!(change, Change::Began(_)) {
            text.push_str(&format!(": {}", printable(line.note.lines().next().unwrap_or_default())));
        }
        Some((line.task, line.status, text))
    }

    /// The output that belongs below a node's line.
    fn below(&self, task: u64, status: Status) -> Result<Vec<String>, Error> {
        if self.flags.logs && status != Status::Skipped {
            return log_lines(&self.client, task, self.output);
        }
        if status != Status::Failed {
            return Ok(Vec::new());
        }
        let view: TaskView = self.client.get(&task_path(task))?;
        Ok(view.result.map(|result| self.output.tail(&result)).unwrap_or_default())
    }

    fn run(&self, board: &Board) -> Option<String> {
        let word = board.status.word();
        // How it ends is said by the last line of all.
        (!board.status.is_settled() && board.status != agentflow_core::run::RunStatus::Pending)
            .then(|| format!("{} run {} {word}", time_of_day(now(), &self.zone), board.run))
    }
}

impl Listener for Lines {
    fn changed(&mut self, board: &Shared, change: Change) -> Result<(), Error> {
        if self.is_quiet {
            return Ok(());
        }
        let line = {
            let board = board.lock();
            match change.place() {
                None => self.run(&board).map(|text| (None, text)),
                Some(place) => {
                    self.node(&board, place, change).map(|(task, status, text)| (Some((task, status)), text))
                }
            }
        };
        let Some((task, text)) = line else { return Ok(()) };
        self.output.line(text)?;
        match (task, change) {
            (Some((task, status)), Change::Settled(_)) => {
                self.below(task, status)?.iter().try_for_each(|line| self.output.line(line))
            }
            _ => Ok(()),
        }
    }

    fn waits(&mut self, board: &Shared, why: &RunWhyView) -> Result<(), Error> {
        if self.is_quiet {
            return Ok(());
        }
        let board = board.lock();
        for node in &why.nodes {
            let reason = node.reasons.iter().find(|reason| reason.code != "predecessors");
            let Some(reason) = reason else { continue };
            let is_approval = reason.code == "approval";
            // Paused was said when it was done; that workers are busy is no news while they are.
            let is_news = is_approval || (!board.is_at_work() && reason.code != "run_paused");
            if !is_news || !self.told.insert((node.task_id, reason.code.clone())) {
                continue;
            }
            let helps = match is_approval {
                true => format!("agentflow approve {0}, or agentflow reject {0}", node.task_id),
                false => format!("what helps: {}", reason.frees),
            };
            let name = board.place_of(node.task_id).map(|place| board.full_name(place));
            let name = printable(name.as_ref().unwrap_or(&node.name));
            let at = time_of_day(now(), &self.zone);
            self.output.line(format_args!("{at} {name} {} ({helps})", printable(&waits(&reason.detail))))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::board::tests::{board, event};
    use super::*;

    #[test]
    fn lines_say_when_who_and_what() {
        let client = Arc::new(Client::new(vec!["http://127.0.0.1:1".into()], None, None));
        let mut lines = Lines::new(client, WaitFlags::default(), Output::detect(true), false);
        lines.zone = TimeZone::UTC;
        let check = |events: &[super::super::Event], change: fn(Place) -> Change, expect: Option<&str>| {
            let place = Place { node: 0, part: None };
            let text = lines.node(&board(&["build"], events), place, change(place)).map(|(_, _, text)| text);
            assert_eq!(text.as_deref(), expect);
        };
        let began = event(43_384, "task:1", "task.started", json!({"attempt": 1}));
        let again = event(43_384, "task:1", "task.started", json!({"attempt": 2}));
        let done = event(43_386, "task:1", "task.completed", json!({"attempt": 1}));
        let failed = event(43_386, "task:1", "task.failed", json!({"attempt": 1, "error": "exit code 2"}));
        let skipped = event(43_386, "task:1", "task.skipped", json!({"cause": "'a' failed"}));
        check(std::slice::from_ref(&began), Change::Began, Some("12:03:04 build running"));
        check(&[again], Change::Began, Some("12:03:04 build running, attempt 2"));
        check(&[began.clone(), done], Change::Settled, Some("12:03:06 build completed (2.0 s)"));
        check(&[began, failed], Change::Settled, Some("12:03:06 build failed (2.0 s): exit code 2"));
        check(&[skipped], Change::Settled, Some("12:03:06 build skipped: 'a' failed"));
    }
}

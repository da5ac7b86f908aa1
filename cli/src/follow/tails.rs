//! The last line of what nodes print, for the tree: read beside the events, a little at a time.
//!
//! It is only for the eye. What cannot be read is left out, and nobody waits for it.

use std::collections::{HashMap, HashSet};
use std::io::Read;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use agentflow_core::status::Status;

use super::{Board, Shared};
use crate::client::{Client, with_query};
use crate::error::Error;
use crate::settle::task_path;

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(300);

/// Outputs that are read in one look: more lines than these are seldom on a terminal.
const OUTPUTS: usize = 32;

/// Parts of a node that are few: they are mostly shown, and not only counted.
const FEW: usize = 16;

/// Bytes of one output that are read in one look.
const BYTES: u64 = 1 << 20;

/// The end is not kept waiting for longer.
const LAST_LOOK: Duration = Duration::from_millis(500);

/// Reads beside, until it is told to finish.
pub(super) struct Reader {
    finish: mpsc::Sender<()>,
    thread: JoinHandle<()>,
}

impl Reader {
    /// Begins.
    pub(super) fn start(board: &Shared, client: &Arc<Client>) -> Result<Self, Error> {
        let (board, client) = (board.clone(), client.impatient());
        let (finish, finished) = mpsc::channel();
        let mut tails = Tails::default();
        let thread = std::thread::Builder::new().name("tails".to_owned()).spawn(move || {
            loop {
                tails.look(&board, &client);
                if finished.recv_timeout(PAUSE) == Err(RecvTimeoutError::Disconnected) {
                    return tails.look(&board, &client);
                }
            }
        });
        let thread = thread.map_err(|error| Error::io("cannot start a thread", error))?;
        Ok(Self { finish, thread })
    }

    /// Has a last look.
    pub(super) fn finish(self) {
        drop(self.finish);
        let since = Instant::now();
        while !self.thread.is_finished() && since.elapsed() < LAST_LOOK {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

#[derive(Default)]
struct Tails {
    /// How far each output was read, by task: attempt and bytes.
    read: HashMap<u64, (u32, u64)>,
    /// Tasks whose output was read after their end.
    done: HashSet<u64>,
}

/// An output that is worth a look.
#[derive(PartialEq, Eq, Debug)]
struct Wanted {
    task: u64,
    attempt: u32,
    is_over: bool,
}

impl Tails {
    fn look(&mut self, board: &Shared, client: &Client) {
        let wanted = self.wanted(&board.lock());
        for one in &wanted {
            if let Some(line) = self.read(one, client) {
                board.lock().set_last(one.task, line);
            }
            if one.is_over {
                self.done.insert(one.task);
            }
        }
    }

    /// What runs, and what has ended since. Of many items those that have ended are not looked at.
    fn wanted(&self, board: &Board) -> Vec<Wanted> {
        let lines = board.nodes.iter().flat_map(|node| {
            let whole = node.parts.is_empty().then_some((&node.line, true));
            let are_few = node.parts.len() <= FEW;
            whole.into_iter().chain(node.parts.iter().map(move |part| (part, are_few)))
        });
        let wanted = lines.filter_map(|(line, to_the_end)| {
            let is_over = line.status.is_settled();
            let is_wanted = match line.status {
                Status::Running => true,
                _ => to_the_end && is_over && line.attempt > 0 && !self.done.contains(&line.task),
            };
            is_wanted.then_some(Wanted { task: line.task, attempt: line.attempt.max(1), is_over })
        });
        wanted.take(OUTPUTS).collect()
    }

    /// The last line of what is new.
    fn read(&mut self, wanted: &Wanted, client: &Client) -> Option<String> {
        let place = self.read.entry(wanted.task).or_insert((wanted.attempt, 0));
        if place.0 != wanted.attempt {
            *place = (wanted.attempt, 0);
        }
        let path = with_query(
            &format!("{}/logs", task_path(wanted.task)),
            &[("attempt", wanted.attempt.to_string()), ("offset", place.1.to_string())],
        );
        let stream = client.stream(&path, "text/plain").ok()?;
        let mut bytes = Vec::new();
        stream.take(BYTES).read_to_end(&mut bytes).ok()?;
        place.1 += bytes.len() as u64;
        last_line(&bytes)
    }
}

/// The last line that says something. What a carriage return has written over is gone.
fn last_line(bytes: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(bytes);
    let line = text.lines().rev().map(|line| {
        let line = line.trim_end();
        line.rsplit('\r').next().unwrap_or_default().trim().to_owned()
    });
    line.into_iter().find(|line| !line.is_empty())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::board::tests::{board, event};
    use super::*;

    #[test]
    fn the_last_line_says_something() {
        let check = |text: &str, expect: Option<&str>| {
            assert_eq!(last_line(text.as_bytes()).as_deref(), expect, "{text:?}");
        };
        check("a\nb\n\n  \n", Some("b"));
        check("10 %\r20 %\r30 %", Some("30 %"));
        check("10 %\r20 %\r\n", Some("20 %"));
        check("\n", None);
        check("", None);
    }

    #[test]
    fn what_runs_is_looked_at_and_what_has_ended_once() {
        let started = |task: u64| event(1, &format!("task:{task}"), "task.started", json!({"attempt": 2}));
        let events = [
            started(1),
            started(2),
            event(2, "task:2", "task.completed", json!({})),
            event(2, "task:3", "task.skipped", json!({})),
            event(2, "task:9", "task.created", json!({"run": 5, "node": "d[0]"})),
            started(9),
            event(2, "task:10", "task.created", json!({"run": 5, "node": "d[1]"})),
            started(10),
            event(3, "task:10", "task.completed", json!({})),
        ];
        let mut board = board(&["a", "b", "c", "d"], &events);
        let mut tails = Tails::default();
        let wanted = |tails: &Tails, board: &Board| -> Vec<u64> {
            tails.wanted(board).iter().map(|one| one.task).collect()
        };
        assert_eq!(wanted(&tails, &board), [1, 2, 9, 10]);
        tails.done.extend([2, 10]);
        assert_eq!(wanted(&tails, &board), [1, 9]);
        tails.done.clear();
        for item in 0..FEW as u64 {
            let data = json!({"run": 5, "node": format!("d[{}]", item + 2)});
            board.take(&event(4, &format!("task:{}", 20 + item), "task.created", data));
        }
        assert_eq!(wanted(&tails, &board), [1, 2, 9]);
    }
}

//! Waiting until tasks are settled, through restarts of the master.
//!
//! One task is waited for by a long poll of its own. Many are followed through the event log from
//! a cursor, which costs the same for three tasks as for a hundred thousand. The cursor and the
//! set of open tasks are all the state there is: after any failure the same question is asked again.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use agentflow_core::status::Status;
use agentflow_protocol::api::TaskView;
use serde::Deserialize;

use crate::client::{Client, with_query};
use crate::error::Error;

/// One long poll: short enough that proxies bear it.
const POLL: Duration = Duration::from_secs(20);

/// The first poll, after which the user is told what the tasks wait for.
const FIRST_POLL: Duration = Duration::from_secs(3);

/// Events of one answer.
const PAGE: usize = 1_000;

/// Open tasks that are looked at when the log has been silent for a whole poll.
const PROBES: usize = 16;

/// Where following begins.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Since {
    /// After this event; it was the newest when the tasks were not yet there.
    Event(u64),
    /// Now: tasks may have settled before.
    Now,
}

/// Who listens while tasks settle.
pub(crate) trait Listener {
    /// This task has settled; said once for each.
    fn settled(&mut self, id: u64, status: Status) -> Result<(), Error>;
    /// Nothing has settled for a while; `open` is one of those that are waited for.
    fn idle(&mut self, open: u64);
}

#[derive(Deserialize)]
struct Page {
    events: Vec<Line>,
    head: u64,
    log_id: String,
}

/// As much of an event as matters here; a newer master may know more kinds.
#[derive(Deserialize)]
struct Line {
    seq: u64,
    subject: String,
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Deserialize)]
struct Head {
    head: u64,
}

/// The newest event's number.
pub(crate) fn head(client: &Client) -> Result<u64, Error> {
    Ok(client.get::<Head>("/api/v2/stats")?.head)
}

/// Waits until every one of these has settled.
///
/// # Errors
/// Those of the client; a task that is not there is a 404.
pub(crate) fn settle(
    client: &Client,
    ids: &[u64],
    since: Since,
    listener: &mut dyn Listener,
) -> Result<(), Error> {
    let mut open: HashSet<u64> = ids.iter().copied().collect();
    let mut cursor = match since {
        Since::Event(cursor) => cursor,
        Since::Now if open.len() == 1 => return settle_one(client, ids.first().copied(), listener),
        Since::Now => {
            let cursor = head(client)?;
            probe(client, &mut open, usize::MAX, listener)?;
            cursor
        }
    };
    // Known after the first answer; a master whose database was put back has another one.
    let mut log_id = String::new();
    let begun = Instant::now();
    let mut told = false;
    let all = open.len();
    while !open.is_empty() {
        let wait = if told { POLL } else { FIRST_POLL };
        let asked = Instant::now();
        match poll(client, cursor, &log_id, wait) {
            Ok(page) if page.head < cursor => {
                // The database was put back. Look at every task, go on from there.
                probe(client, &mut open, usize::MAX, listener)?;
                cursor = page.head;
            }
            Ok(page) => {
                log_id = page.log_id;
                let silent = page.events.is_empty();
                cursor = page.events.last().map_or(cursor, |line| line.seq);
                for line in page.events {
                    if let Some((id, status)) = settling(&line).filter(|(id, _)| open.remove(id)) {
                        listener.settled(id, status)?;
                    }
                }
                if silent {
                    probe(client, &mut open, PROBES, listener)?;
                    // Only a master that cannot wait answers at once with nothing.
                    std::thread::sleep(Duration::from_millis(50).saturating_sub(asked.elapsed()));
                }
            }
            Err(error) if error.is_status(410) => {
                cursor = head(client)?;
                log_id.clear();
                probe(client, &mut open, usize::MAX, listener)?;
            }
            Err(error) => return Err(error),
        }
        if !told && begun.elapsed() >= FIRST_POLL {
            told = true;
            if let Some(id) = open.iter().min().filter(|_| open.len() == all) {
                listener.idle(*id);
            }
        }
    }
    Ok(())
}

fn settle_one(client: &Client, id: Option<u64>, listener: &mut dyn Listener) -> Result<(), Error> {
    let Some(id) = id else { return Ok(()) };
    let mut wait = FIRST_POLL;
    loop {
        let path = with_query(&task_path(id), &[("wait_ms", wait.as_millis().to_string())]);
        let asked = Instant::now();
        let view: TaskView = client.get_waiting(&path, wait)?;
        if view.status.is_settled() {
            return listener.settled(id, view.status);
        }
        if wait == FIRST_POLL {
            listener.idle(id);
        }
        wait = POLL;
        std::thread::sleep(Duration::from_millis(50).saturating_sub(asked.elapsed()));
    }
}

fn poll(client: &Client, cursor: u64, log_id: &str, wait: Duration) -> Result<Page, Error> {
    let path = with_query(
        "/api/v2/events",
        &[
            ("after", cursor.to_string()),
            ("log_id", log_id.to_owned()),
            ("limit", PAGE.to_string()),
            ("wait_ms", wait.as_millis().to_string()),
        ],
    );
    client.get_waiting(&path, wait)
}

/// Asks for up to `limit` open tasks themselves.
fn probe(
    client: &Client,
    open: &mut HashSet<u64>,
    limit: usize,
    listener: &mut dyn Listener,
) -> Result<(), Error> {
    let mut ids: Vec<u64> = open.iter().copied().collect();
    ids.sort_unstable();
    ids.truncate(limit);
    for id in ids {
        let view: TaskView = client.get(&task_path(id))?;
        if view.status.is_settled() && open.remove(&id) {
            listener.settled(id, view.status)?;
        }
    }
    Ok(())
}

/// The task that an event settles, and how.
fn settling(line: &Line) -> Option<(u64, Status)> {
    let status: Status = line.kind.strip_prefix("task.")?.parse().ok()?;
    let id = line.subject.strip_prefix("task:")?.parse().ok()?;
    status.is_settled().then_some((id, status))
}

/// Where a task is.
pub(crate) fn task_path(id: u64) -> String {
    format!("/api/v2/tasks/{id}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_settling_events_settle() {
        let line = |kind: &str, subject: &str| {
            settling(&Line { seq: 1, subject: subject.into(), kind: kind.into() })
        };
        assert_eq!(line("task.completed", "task:5"), Some((5, Status::Completed)));
        assert_eq!(line("task.failed", "task:5"), Some((5, Status::Failed)));
        assert_eq!(line("task.retrying", "task:5"), None);
        assert_eq!(line("task.running", "task:5"), None);
        assert_eq!(line("run.completed", "run:5"), None);
        assert_eq!(line("worker.offline", "worker:w"), None);
    }
}

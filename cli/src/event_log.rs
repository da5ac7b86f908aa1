//! The master's event log, followed from a cursor.

use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::Value;

use crate::client::{Client, with_query};
use crate::error::Error;
use crate::settle::head;

/// Events of one answer.
const PAGE: usize = 1_000;

/// As much of an event as matters here; a newer master may know more kinds.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Event {
    seq: u64,
    /// Such as `lock.acquired`.
    #[serde(rename = "type")]
    pub(crate) kind: String,
    /// What it says.
    #[serde(default)]
    pub(crate) data: Value,
}

#[derive(Deserialize)]
struct Page {
    events: Vec<Event>,
    head: u64,
    log_id: String,
}

/// What the log answers.
#[derive(Debug)]
pub(crate) enum News {
    /// What has happened; nothing after a time of silence.
    Events(Vec<Event>),
    /// It is another log now, or was put back: what has happened meanwhile is not known.
    Anew,
}

/// A place in the log.
pub(crate) struct EventLog<'a> {
    client: &'a Client,
    /// Only of this one, such as `lock:0f…`; of everything when empty.
    subject: String,
    after: u64,
    /// Known after the first answer; a master whose database was put back has another one.
    log_id: String,
}

impl<'a> EventLog<'a> {
    /// The end of the log.
    ///
    /// # Errors
    /// Those of the client.
    pub(crate) fn from_now(client: &'a Client) -> Result<Self, Error> {
        Ok(Self { client, subject: String::new(), after: head(client)?, log_id: String::new() })
    }

    /// The history of one thing from its beginning.
    pub(crate) fn of(client: &'a Client, subject: String) -> Self {
        Self { client, subject, after: 0, log_id: String::new() }
    }

    /// What comes next, waiting for it so long.
    ///
    /// # Errors
    /// Those of the client.
    pub(crate) fn next(&mut self, wait: Duration) -> Result<News, Error> {
        let asked = Instant::now();
        let page = match self.page(wait) {
            Ok(page) => page,
            Err(error) if error.is_status(410) => {
                self.log_id.clear();
                self.after = if self.subject.is_empty() { head(self.client)? } else { 0 };
                return Ok(News::Anew);
            }
            Err(error) => return Err(error),
        };
        if page.head < self.after {
            self.after = page.head;
            return Ok(News::Anew);
        }
        self.log_id = page.log_id;
        match page.events.last() {
            Some(last) => self.after = last.seq,
            // Only a master that cannot wait answers at once with nothing.
            None if !wait.is_zero() => {
                std::thread::sleep(Duration::from_millis(50).saturating_sub(asked.elapsed()));
            }
            None => {}
        }
        Ok(News::Events(page.events))
    }

    fn page(&self, wait: Duration) -> Result<Page, Error> {
        let wait_ms = if wait.is_zero() { String::new() } else { wait.as_millis().to_string() };
        let path = with_query(
            "/api/v2/events",
            &[
                ("after", self.after.to_string()),
                ("log_id", self.log_id.clone()),
                ("limit", PAGE.to_string()),
                ("subject", self.subject.clone()),
                ("wait_ms", wait_ms),
            ],
        );
        self.client.get_waiting(&path, wait)
    }
}

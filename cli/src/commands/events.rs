//! `events`: what happened, and what happens.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::args::Events;
use crate::client::{Client, with_query};
use crate::error::{Error, exit};
use crate::interrupt::{Ended, guarded};
use crate::output::{Cell, Output, Paint};
use crate::settle::head;

/// Events of one answer.
const PAGE: usize = 1_000;

/// One long poll while following.
const POLL: Duration = Duration::from_secs(20);

/// An event, kept as it came: a newer master may know more kinds.
#[derive(Clone, Deserialize, Serialize)]
struct Event {
    seq: u64,
    at: String,
    subject: String,
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    data: Value,
}

#[derive(Deserialize)]
struct Page {
    events: Vec<Event>,
    head: u64,
    log_id: String,
}

pub(super) fn events(events: Events, client: Client, output: Output) -> Result<u8, Error> {
    if !events.follow {
        return past(&events, &client, output);
    }
    let client = Arc::new(client);
    match guarded(None, move || follow(&events, &client, output))? {
        Ended::Done(result) => result,
        Ended::Interrupted | Ended::TimedOut => Ok(exit::INTERRUPTED),
    }
}

fn past(events: &Events, client: &Client, output: Output) -> Result<u8, Error> {
    // Of one subject from the beginning; of everything the newest.
    let mut after = match (events.after, &events.subject) {
        (Some(after), _) => after,
        (None, Some(_)) => 0,
        (None, None) => head(client)?.saturating_sub(events.limit as u64),
    };
    let mut shown: Vec<Event> = Vec::new();
    let mut newest = after;
    while shown.len() < events.limit {
        let limit = (events.limit - shown.len()).min(PAGE);
        let page = page(client, events, after, "", limit, Duration::ZERO)?;
        newest = page.head;
        let Some(last) = page.events.last() else { break };
        after = last.seq;
        let whole = page.events.len() < limit;
        shown.extend(page.events);
        if whole {
            break;
        }
    }
    if output.json {
        output.json(&json!({ "events": shown, "head": newest }))?;
        return Ok(exit::DONE);
    }
    let rows: Vec<Vec<Cell>> = shown
        .iter()
        .map(|event| {
            vec![
                event.seq.to_string().into(),
                event.at.clone().into(),
                event.subject.clone().into(),
                event.kind.clone().into(),
                data(&event.data).into(),
            ]
        })
        .collect();
    output.table(&["SEQ", "AT", "SUBJECT", "TYPE", "DATA"], &rows)?;
    Ok(exit::DONE)
}

/// Goes on for ever; the number of the last event shown is where it goes on after a failure.
fn follow(events: &Events, client: &Client, output: Output) -> Result<u8, Error> {
    let mut after = match events.after {
        Some(after) => after,
        None => head(client)?,
    };
    let mut log_id = String::new();
    loop {
        let asked = Instant::now();
        let page = match page(client, events, after, &log_id, PAGE, POLL) {
            Ok(page) => page,
            Err(error) if error.is_status(410) => {
                eprintln!("the master's log is another one now; going on with what is to come");
                after = head(client)?;
                log_id.clear();
                continue;
            }
            Err(error) => return Err(error),
        };
        if page.head < after {
            eprintln!("the master's log was put back to event {}; going on from there", page.head);
            after = page.head;
            continue;
        }
        log_id = page.log_id;
        for event in &page.events {
            if output.json {
                output.json_line(event)?;
            } else {
                let subject = output.paint(Paint::Busy, format!("{:<12}", event.subject));
                output.line(format_args!(
                    "{}  {}  {subject}  {:<18}  {}",
                    event.seq,
                    event.at,
                    event.kind,
                    data(&event.data)
                ))?;
            }
        }
        match page.events.last() {
            Some(last) => after = last.seq,
            // Only a master that cannot wait answers at once with nothing.
            None => std::thread::sleep(Duration::from_millis(50).saturating_sub(asked.elapsed())),
        }
    }
}

fn page(
    client: &Client,
    events: &Events,
    after: u64,
    log_id: &str,
    limit: usize,
    wait: Duration,
) -> Result<Page, Error> {
    let wait_ms = if wait.is_zero() { String::new() } else { wait.as_millis().to_string() };
    let path = with_query(
        "/api/v2/events",
        &[
            ("after", after.to_string()),
            ("log_id", log_id.to_owned()),
            ("limit", limit.to_string()),
            ("subject", events.subject.clone().unwrap_or_default()),
            ("wait_ms", wait_ms),
        ],
    );
    client.get_waiting(&path, wait)
}

/// `worker=w1 attempt=1`.
fn data(data: &Value) -> String {
    let Value::Object(fields) = data else { return String::new() };
    let words: Vec<String> = fields
        .iter()
        .map(|(name, value)| match value {
            Value::String(text) => format!("{name}={text}"),
            other => format!("{name}={other}"),
        })
        .collect();
    words.join(" ")
}

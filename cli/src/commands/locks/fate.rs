//! What becomes of a lock while a program runs under it: it is renewed, and its end is heard of.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::Duration;

use agentflow_core::lock::LockId;
use serde_json::Value;

use super::ask::Granted;
use super::program::Happening;
use crate::client::Client;
use crate::clock::boottime;
use crate::error::Error;
use crate::event_log::{Event, EventLog, News};
use crate::output::printable;

/// Between two tries to renew.
const PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// One long poll: short enough that proxies bear it.
const POLL: Duration = Duration::from_secs(20);

/// What becomes of a lock.
pub(super) enum Fate {
    /// It is held for another time.
    Renewed(Granted),
    /// The master could not be asked, and why.
    Away(String),
    /// It is held no more, and why.
    Lost(String),
}

/// How a lock ended.
pub(super) struct End {
    /// Whether it was given back.
    pub(super) is_released: bool,
    pub(super) why: String,
}

/// Renews a lock after each third of its time, until it is over. An answer is late after `limit`.
pub(super) fn keep(
    client: &Client,
    mut granted: Granted,
    limit: Duration,
    news: &Sender<Happening<Fate>>,
    is_over: &Receiver<()>,
) {
    let Some(ttl) = granted.ttl() else { return };
    let mut pause = (granted.since + ttl / 3).saturating_sub(boottime());
    while is_over.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
        let fate = match granted.renew(client, limit) {
            Ok(renewed) => {
                pause = ttl / 3;
                granted = renewed.clone();
                Fate::Renewed(renewed)
            }
            Err(Error::Problem(problem)) if [404, 409].contains(&problem.status) => {
                // The log says why.
                let end = ending(client, granted.lock.id).map(|end| end.why);
                Fate::Lost(end.unwrap_or_else(|| printable(&problem.detail)))
            }
            Err(error) => {
                pause = (ttl / 20).clamp(PAUSE.0, PAUSE.1);
                Fate::Away(error.to_string())
            }
        };
        let is_lost = matches!(fate, Fate::Lost(_));
        if news.send(Happening::News(fate)).is_err() || is_lost {
            return;
        }
    }
}

/// Tells at once when the lock is taken away. Where the log cannot be followed, a renewal tells later.
pub(super) fn watch(client: &Client, id: LockId, news: &Sender<Happening<Fate>>) {
    let mut log = EventLog::of(client, format!("lock:{id}"));
    loop {
        match log.next(POLL) {
            Ok(News::Events(events)) => {
                if let Some(end) = events.iter().find_map(end_in) {
                    // Nobody listens any more where the program has ended.
                    let _ = news.send(Happening::News(Fate::Lost(end.why)));
                    return;
                }
            }
            Ok(News::Anew) => {}
            Err(error) => {
                log::debug!("the end of the lock cannot be watched: {error}");
                std::thread::sleep(PAUSE.1);
            }
        }
    }
}

/// How a lock ended, as the log says.
pub(super) fn ending(client: &Client, id: LockId) -> Option<End> {
    match EventLog::of(client, format!("lock:{id}")).next(Duration::ZERO) {
        Ok(News::Events(events)) => events.iter().find_map(end_in),
        _ => None,
    }
}

/// What an event says of the end of a lock.
fn end_in(event: &Event) -> Option<End> {
    let what = match event.kind.as_str() {
        "lock.released" => "it was given back",
        "lock.expired" => "it was not renewed in time",
        "lock.broken" => "it was broken",
        _ => return None,
    };
    let reason = event.data.get("reason").and_then(Value::as_str);
    let reason = reason.map(|reason| format!(": {}", printable(reason))).unwrap_or_default();
    Some(End { is_released: event.kind == "lock.released", why: format!("{what}{reason}") })
}

//! `GET /tasks/{id}/logs`: an attempt's output, whole or as it grows, as plain text or as events.

use std::pin::Pin;

use actix_web::http::header;
use actix_web::{HttpRequest, HttpResponse, web};
use agentflow_actors::WaitSettled;
use agentflow_core::event::Subject;
use agentflow_core::ids::{Attempt, TaskId};
use agentflow_protocol::Problem;
use bytes::Bytes;
use futures_util::stream::{Stream, unfold};
use serde::Deserialize;

use super::answer::{Answered, Failure};
use super::{read, sse, tasks};
use crate::logs::{LogReader, STEP_BYTES, Watcher};
use crate::state::Master;
use crate::stopping::Listener;

/// Query of `GET /tasks/{id}/logs`.
#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct LogsQuery {
    /// `1` to go on until the task has settled, through later attempts if none is named.
    follow: Option<String>,
    /// Bytes of the text to leave out: where an earlier answer ended.
    offset: Option<u64>,
    /// From 1; the latest when absent.
    attempt: Option<u32>,
}

/// An attempt's output.
#[utoipa::path(get, path = "/api/v2/tasks/{id}/logs", tag = "tasks", params(("id" = String, Path), LogsQuery),
    responses(
        (status = 200, description = "The output as it was printed. With `Accept: text/event-stream` events whose data is `{\"attempt\", \"offset\", \"text\"}`", content(
            (String = "text/plain"), (String = "text/event-stream"))),
        (status = 404, body = Problem)))]
pub(crate) async fn logs(master: web::Data<Master>, request: HttpRequest, id: web::Path<String>) -> Answered {
    let query: LogsQuery = read::query(&request)?;
    let id = read::task_id(&id)?;
    let follow = match query.follow.as_deref() {
        None | Some("0" | "false") => false,
        Some("1" | "true" | "") => true,
        Some(other) => {
            return Err(Failure::new(422, "query", format!("follow: '{other}' is not allowed; 1 or 0")));
        }
    };
    if query.attempt == Some(0) {
        return Err(Failure::new(422, "query", "attempt: attempts are numbered from 1"));
    }
    // Both begin before the row is read: what happens in between is not missed.
    let watcher = follow.then(|| master.watchers.watch(id));
    let settled = follow.then(|| master.handles.events.send(WaitSettled(Subject::Task(id))));
    let state = tasks::record(&master, id).await?.state;
    let attempt = Attempt(query.attempt.unwrap_or(state.attempt.0.max(1)));
    // One that was followed by another grows no more.
    let is_over = state.attempt > attempt;
    let reader = LogReader::new(&master.logs_dir, id, attempt, query.offset.unwrap_or_default());
    let growth = match (watcher, settled) {
        (Some(watcher), Some(settled)) if !is_over => {
            let settled: Settled = Box::pin(async move {
                // A closed mailbox means that the master stops, which ends the stream as well.
                let _ = settled.await;
            });
            Some(Growth {
                watcher,
                settled: (!state.status.is_settled()).then_some(settled),
                listener: master.stopping.listen(),
                moves_on: query.attempt.is_none(),
            })
        }
        _ => None,
    };
    let tail = Tail { master: master.clone(), task: id, attempt, reader: Some(reader), growth };
    let mut response = HttpResponse::Ok();
    response.insert_header((header::CACHE_CONTROL, "no-store"));
    if sse::is_wanted(&request) {
        return Ok(sse::answer(events(tail)));
    }
    let text = unfold(tail, |mut tail| async move {
        match tail.next().await {
            Ok(Some(piece)) => Some((Ok(piece.bytes), tail)),
            Ok(None) => None,
            Err(failure) => Some((Err(failure.into()), Tail { reader: None, ..tail })),
        }
    });
    Ok(response
        .content_type("text/plain; charset=utf-8")
        .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .streaming::<_, actix_web::Error>(text))
}

type Settled = Pin<Box<dyn Future<Output = ()>>>;

/// What a follower waits for.
struct Growth {
    watcher: Watcher,
    /// `None` once the task has settled.
    settled: Option<Settled>,
    listener: Listener,
    /// Whether it goes on with later attempts.
    moves_on: bool,
}

/// A stretch of output.
struct Piece {
    attempt: Attempt,
    /// Of its first byte.
    offset: u64,
    bytes: Bytes,
}

/// A reader that may wait at the end.
struct Tail {
    master: web::Data<Master>,
    task: TaskId,
    attempt: Attempt,
    /// `None` after a failure.
    reader: Option<LogReader>,
    growth: Option<Growth>,
}

impl Tail {
    /// The next stretch; `None` at the end.
    async fn next(&mut self) -> Result<Option<Piece>, Failure> {
        loop {
            // Before the file is read: what is written in between wakes the wait below.
            let latest = self.growth.as_mut().map(|growth| growth.watcher.latest());
            let is_settled = self.growth.as_ref().is_none_or(|growth| growth.settled.is_none());
            let Some(reader) = self.reader.take() else { return Ok(None) };
            let (reader, step) = web::block(move || {
                let mut reader = reader;
                let step = reader.step();
                (reader, step)
            })
            .await?;
            let bytes = step?;
            let end = reader.offset();
            self.reader = Some(reader);
            if !bytes.is_empty() {
                return Ok(Some(Piece { attempt: self.attempt, offset: end - bytes.len() as u64, bytes }));
            }
            let Some(growth) = &mut self.growth else { return Ok(None) };
            if let Some(latest) = latest.filter(|latest| *latest > self.attempt) {
                if !growth.moves_on {
                    return Ok(None);
                }
                self.attempt = latest;
                self.reader = Some(LogReader::new(&self.master.logs_dir, self.task, latest, 0));
                let bytes = format!("\n[agentflow: attempt {latest}]\n").into();
                return Ok(Some(Piece { attempt: latest, offset: 0, bytes }));
            }
            if is_settled || !growth.wait().await {
                return Ok(None);
            }
        }
    }
}

impl Growth {
    /// Waits until there may be more; `false` when the master stops.
    async fn wait(&mut self) -> bool {
        let Some(settled) = &mut self.settled else { return true };
        let changed = std::pin::pin!(self.watcher.changed());
        let either = futures_util::future::select(changed, settled);
        match self.listener.unless(either).await {
            None => false,
            Some(futures_util::future::Either::Left(_)) => true,
            Some(futures_util::future::Either::Right(_)) => {
                self.settled = None;
                true
            }
        }
    }
}

/// The same as events. Text that ends within a character waits for the rest of it.
fn events(tail: Tail) -> impl Stream<Item = String> {
    unfold((Some(tail), Vec::new()), |(tail, mut rest)| async move {
        let mut tail = tail?;
        loop {
            let piece = match tail.next().await {
                Ok(Some(piece)) => piece,
                Ok(None) => return Some((sse::event(None, Some("end"), &"end"), (None, rest))),
                Err(failure) => {
                    return Some((sse::event(None, Some("error"), &failure.to_string()), (None, rest)));
                }
            };
            let end = piece.offset + piece.bytes.len() as u64;
            let start = piece.offset.saturating_sub(rest.len() as u64);
            rest.extend_from_slice(&piece.bytes);
            let whole = whole_characters(&rest);
            if whole == 0 && rest.len() < STEP_BYTES {
                continue;
            }
            let tail_bytes = rest.split_off(whole);
            let text = String::from_utf8_lossy(&rest).into_owned();
            let data = serde_json::json!({ "attempt": piece.attempt, "offset": start, "text": text });
            let next = end - tail_bytes.len() as u64;
            let event = sse::event(Some(next), None, &data);
            return Some((event, (Some(tail), tail_bytes)));
        }
    })
}

/// How much of `bytes` can be shown: all but a character that is cut at the end.
fn whole_characters(bytes: &[u8]) -> usize {
    match std::str::from_utf8(bytes) {
        Ok(_) => bytes.len(),
        Err(error) if error.error_len().is_none() => error.valid_up_to(),
        // Broken in the middle: shown with replacement characters, up to a cut at the end.
        Err(_) => {
            let start = bytes.len().saturating_sub(3);
            (start..bytes.len())
                .find(|at| {
                    bytes[*at] >= 0xc0
                        && std::str::from_utf8(&bytes[*at..]).is_err_and(|error| error.error_len().is_none())
                })
                .unwrap_or(bytes.len())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_are_not_cut() {
        assert_eq!(whole_characters(b"abc"), 3);
        assert_eq!(whole_characters("aé".as_bytes()), 3);
        assert_eq!(whole_characters(&"aé".as_bytes()[..2]), 1);
        assert_eq!(whole_characters(b"a\xffb"), 3);
        assert_eq!(whole_characters(b"a\xffb\xc3"), 3);
    }
}

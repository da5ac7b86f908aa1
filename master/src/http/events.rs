//! The log of events: pages, long polls, `text/event-stream`, and the WebSocket for dashboards.

use std::time::Instant;

use actix::Addr;
use actix_web::{HttpRequest, web};
use agentflow_actors::{EventHub, Next, Recent};
use agentflow_core::event::Subject;
use agentflow_core::ids::Seq;
use agentflow_core::limits;
use agentflow_protocol::Problem;
use agentflow_protocol::api::{EventView, Events};
use agentflow_schema::Readers;
use futures_util::stream::{Stream, unfold};
use serde::{Deserialize, Serialize};

use super::answer::{Answered, Failure, ok};
use super::event_socket::EventSocket;
use super::{read, sse, views};
use crate::door;
use crate::state::Master;
use crate::stopping::Listener;

/// Events on a page unless the client says otherwise.
const USUAL_PAGE: usize = 100;

/// Bytes of one frame from a dashboard.
const FRAME_BYTES: usize = 4 << 10;

/// Query of `GET /events`.
#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct EventsQuery {
    /// Events with a larger `seq`; 0 when absent.
    after: Option<u64>,
    /// 1 to 1,000; 100 when absent.
    limit: Option<usize>,
    /// `task:5` or `worker:NAME`: the history of one thing.
    subject: Option<String>,
    /// Holds the answer until there is an event, at most this long (up to 600,000).
    wait_ms: Option<u64>,
    /// The log that `after` belongs to; 410 if it is another one.
    log_id: Option<String>,
}

/// Query of `GET /events/ws`.
#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct StreamQuery {
    /// For `text/event-stream`: events with a larger `seq`; the header `Last-Event-ID` goes before.
    after: Option<u64>,
}

/// A stretch of the log that is no longer kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct Gap {
    /// The first event that is missing.
    pub(crate) from: u64,
    /// The last.
    pub(crate) to: u64,
}

/// What a subscriber gets.
pub(crate) enum Step {
    Events(Vec<EventView>),
    Gap(Gap),
}

/// A reader of the log that waits at its end: from memory while it keeps up, else from the database.
pub(crate) struct Subscription {
    hub: Addr<EventHub>,
    readers: Readers,
    after: Seq,
}

impl Subscription {
    pub(crate) fn new(master: &Master, after: Seq) -> Self {
        let (hub, readers) = (master.handles.events.clone(), master.handles.readers.clone());
        Self { hub, readers, after }
    }

    /// What comes next, at most `limit` events.
    pub(crate) async fn next(&mut self, limit: usize) -> Result<Step, Failure> {
        loop {
            let recent = self.hub.send(Next { after: self.after, limit }).await?;
            let step = match recent.map_err(|_| Failure::stopping())? {
                Recent::Events(segments) => {
                    let after = self.after;
                    let events: Vec<EventView> = segments
                        .iter()
                        .flat_map(|segment| (segment.first_seq.0..).map(Seq).zip(&segment.events))
                        .filter(|(seq, _)| *seq > after)
                        .take(limit)
                        .map(|(seq, event)| views::event(seq, event))
                        .collect();
                    self.pass(events)
                }
                Recent::Behind => self.read(limit).await?,
            };
            if let Some(step) = step {
                return Ok(step);
            }
        }
    }

    async fn read(&mut self, limit: usize) -> Result<Option<Step>, Failure> {
        let (readers, after) = (self.readers.clone(), self.after);
        let (oldest, stored) = web::block(move || {
            let oldest = readers.head()?.oldest_seq;
            Ok::<_, agentflow_schema::Error>((oldest, readers.events(after, limit)?))
        })
        .await??;
        if oldest > after.next() {
            let gap = Gap { from: after.next().0, to: oldest.0 - 1 };
            self.after = Seq(gap.to);
            return Ok(Some(Step::Gap(gap)));
        }
        let events: Vec<_> = stored.iter().map(|stored| views::event(stored.seq, &stored.event)).collect();
        if events.is_empty() {
            // The hub speaks of committed events only, so that they must be there.
            return Err(Failure::new(500, "internal", format!("the events after {after} cannot be found")));
        }
        Ok(self.pass(events))
    }

    fn pass(&mut self, events: Vec<EventView>) -> Option<Step> {
        self.after = events.last()?.seq;
        Some(Step::Events(events))
    }
}

/// A page of the log.
#[utoipa::path(get, path = "/api/v2/events", tag = "events", params(EventsQuery),
    responses((status = 200, content((Events = "application/json"), (String = "text/event-stream"))),
        (status = 410, body = Problem, description = "The cursor belongs to another log"), (status = 422, body = Problem)))]
pub(crate) async fn list(master: web::Data<Master>, request: HttpRequest) -> Answered {
    let query: EventsQuery = read::query(&request)?;
    let limit = read::page_limit(query.limit, USUAL_PAGE)?;
    let subject: Option<Subject> = query
        .subject
        .as_deref()
        .map(str::parse)
        .transpose()
        .map_err(|why| Failure::new(422, "query", format!("subject: {why}")))?;
    if query.log_id.is_some_and(|log| log != master.handles.office.log_id) {
        return Err(Failure::new(410, "foreign_cursor", "the cursor belongs to another log; begin at 0"));
    }
    let after = Seq(query.after.unwrap_or_default());
    if sse::is_wanted(&request) && subject.is_none() {
        return Ok(stream(&master, after_header(&request).unwrap_or(after)));
    }
    page(&master, after, limit, subject, read::wait(query.wait_ms)).await
}

async fn page(
    master: &Master,
    after: Seq,
    limit: usize,
    subject: Option<Subject>,
    wait: std::time::Duration,
) -> Answered {
    let deadline = Instant::now() + wait;
    let listener = master.stopping.listen();
    // Up to where the log was searched for the subject without success.
    let mut searched = after;
    loop {
        let wanted = subject.clone();
        let (head, stored) = master
            .read(move |readers| {
                let head = readers.head()?;
                let events = match &wanted {
                    Some(subject) => readers.events_of(subject, after, limit)?,
                    None => readers.events(after, limit)?,
                };
                Ok((head, events))
            })
            .await?;
        let left = deadline.saturating_duration_since(Instant::now());
        if !stored.is_empty() || left.is_zero() {
            let events: Vec<_> =
                stored.iter().map(|stored| views::event(stored.seq, &stored.event)).collect();
            // Read before the events, so that a commit in between must not seem to be lost.
            let head = events.last().map_or(head.head_seq, |last| last.seq.max(head.head_seq));
            return ok(&Events { events, head: head.0, log_id: master.handles.office.log_id.clone() });
        }
        searched = searched.max(head.head_seq);
        let Some(searched_to) = wait_for(master, &listener, searched, subject.as_ref(), left).await? else {
            continue;
        };
        searched = searched_to;
    }
}

/// Waits until an event after `searched` (about the subject) is committed or the time is over. Says
/// up to where it has looked, if there is a hit or nothing more can be known here.
async fn wait_for(
    master: &Master,
    listener: &Listener,
    mut searched: Seq,
    subject: Option<&Subject>,
    left: std::time::Duration,
) -> Result<Option<Seq>, Failure> {
    let hub = &master.handles.events;
    let look = async {
        loop {
            let recent = hub.send(Next { after: searched, limit: limits::PAGE }).await?;
            let Recent::Events(segments) = recent.map_err(|_| Failure::stopping())? else {
                return Ok(Some(searched));
            };
            let mut events = segments
                .iter()
                .flat_map(|segment| (segment.first_seq.0..).map(Seq).zip(&segment.events))
                .filter(|(seq, _)| *seq > searched);
            let last = segments
                .last()
                .map_or(searched, |segment| Seq(segment.first_seq.0 + segment.events.len() as u64 - 1));
            if events.any(|(_, event)| subject.is_none_or(|subject| *subject == event.subject)) {
                return Ok(Some(searched));
            }
            searched = last.max(searched);
        }
    };
    match listener.unless(actix_rt::time::timeout(left, look)).await {
        None => Err(Failure::stopping()),
        Some(Ok(found)) => found,
        Some(Err(_)) => Ok(None),
    }
}

/// Events as they happen: a WebSocket, or `text/event-stream` for whoever asks for no upgrade.
#[utoipa::path(get, path = "/api/v2/events/ws", tag = "events", params(StreamQuery),
    responses((status = 101, description = "A WebSocket; see docs/PROTOCOL.md"),
        (status = 200, description = "One event per message, its `seq` as id; `event: gap` where events were pruned", content_type = "text/event-stream", body = EventView)))]
pub(crate) async fn socket(
    master: web::Data<Master>,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<actix_web::HttpResponse, actix_web::Error> {
    let query: StreamQuery = read::query(&request)?;
    if master.stopping.has_begun() {
        return Err(Failure::stopping().into());
    }
    if door::is_upgrade(&request) {
        return door::open(EventSocket::new(master), &request, payload, FRAME_BYTES);
    }
    let after = after_header(&request).unwrap_or(Seq(query.after.unwrap_or_default()));
    Ok(stream(&master, after))
}

/// `Last-Event-ID`, as a browser sends it when it reconnects.
fn after_header(request: &HttpRequest) -> Option<Seq> {
    request.headers().get("last-event-id")?.to_str().ok()?.trim().parse().ok().map(Seq)
}

fn stream(master: &Master, after: Seq) -> actix_web::HttpResponse {
    let state = (Subscription::new(master, after), master.stopping.listen());
    sse::answer(lines(state))
}

fn lines(state: (Subscription, Listener)) -> impl Stream<Item = String> {
    unfold(state, |(mut subscription, listener)| async move {
        let text = match listener.unless(subscription.next(limits::PAGE)).await? {
            Ok(Step::Events(events)) => {
                events.iter().map(|event| sse::event(Some(event.seq.0), None, event)).collect()
            }
            Ok(Step::Gap(gap)) => sse::event(Some(gap.to), Some("gap"), &gap),
            // The client comes back by itself, with the last id that it saw.
            Err(_) => return None,
        };
        Some((text, (subscription, listener)))
    })
}

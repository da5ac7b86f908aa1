//! `text/event-stream`: events as lines, with a sign of life on idle connections.

use std::time::Duration;

use actix_web::http::header;
use actix_web::{HttpRequest, HttpResponse};
use bytes::Bytes;
use futures_util::future::{Either, select};
use futures_util::stream::{Stream, StreamExt, unfold};
use serde::Serialize;

/// Idle connections get a comment this often; also the time after which a client that has gone is
/// noticed.
const SIGN_OF_LIFE: Duration = Duration::from_secs(15);

/// Whether the client asks for events.
pub(crate) fn is_wanted(request: &HttpRequest) -> bool {
    request
        .headers()
        .get_all(header::ACCEPT)
        .filter_map(|value| value.to_str().ok())
        .any(|value| value.contains("text/event-stream"))
}

/// One event. `id` is what the client sends back as `Last-Event-ID`.
pub(crate) fn event<T: Serialize>(id: Option<u64>, name: Option<&str>, data: &T) -> String {
    let mut text = String::new();
    if let Some(id) = id {
        text.push_str(&format!("id: {id}\n"));
    }
    if let Some(name) = name {
        text.push_str(&format!("event: {name}\n"));
    }
    // JSON without spaces has no line breaks.
    text.push_str("data: ");
    text.push_str(&serde_json::to_string(data).unwrap_or_default());
    text.push_str("\n\n");
    text
}

/// Answers with a stream of events.
pub(crate) fn answer(events: impl Stream<Item = String> + 'static) -> HttpResponse {
    let body = unfold(Box::pin(events), |mut events| async move {
        let idle = std::pin::pin!(actix_rt::time::sleep(SIGN_OF_LIFE));
        // A stream keeps its place when a poll of it is given up.
        let text = match select(events.next(), idle).await {
            Either::Left((text, _)) => text?,
            Either::Right(_) => ": idle\n\n".to_owned(),
        };
        Some((Ok::<_, actix_web::Error>(Bytes::from(text)), events))
    });
    HttpResponse::Ok()
        .content_type("text/event-stream")
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .streaming(body)
}

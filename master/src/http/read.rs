//! Reading requests: bodies within their limit, queries and ids that say what is wrong with them.

use std::time::Duration;

use actix_web::http::header;
use actix_web::{HttpRequest, web};
use agentflow_core::ids::TaskId;
use agentflow_core::limits;
use agentflow_protocol::problem::read_json;
use agentflow_protocol::{Problem, problem};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::answer::Failure;

/// How long a body may take. 32 MiB in this time are a line of 4.5 Mbit/s.
const BODY_TIME: Duration = Duration::from_secs(60);

/// Bytes of a body that is too large which are read and thrown away, because a client that is still
/// writing does not see the answer; four times the largest body that is allowed.
const DISCARD_BYTES: usize = 4 * limits::LARGE_BODY_BYTES;

/// How long that may take.
const DISCARD_TIME: Duration = Duration::from_secs(10);

/// Reads a body of at most `limit` bytes.
pub(crate) async fn body(
    request: &HttpRequest,
    payload: web::Payload,
    limit: usize,
) -> Result<Bytes, Failure> {
    let slow = || Failure::new(408, "slow", format!("the body took longer than {} s", BODY_TIME.as_secs()));
    actix_rt::time::timeout(BODY_TIME, read_body(request, payload, limit)).await.map_err(|_| slow())?
}

async fn read_body(request: &HttpRequest, mut payload: web::Payload, limit: usize) -> Result<Bytes, Failure> {
    let declared = declared_length(request);
    if declared.is_some_and(|length| length > limit as u64) {
        discard(payload).await;
        return Err(Failure::too_large(limit));
    }
    let mut body =
        BytesMut::with_capacity(declared.map_or(0, |length| usize::try_from(length).unwrap_or(limit)));
    while let Some(chunk) = payload.next().await {
        let chunk =
            chunk.map_err(|error| Failure::new(400, "malformed", format!("the body broke off: {error}")))?;
        if body.len() + chunk.len() > limit {
            discard(payload).await;
            return Err(Failure::too_large(limit));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.freeze())
}

/// How long a body says it is.
pub(crate) fn declared_length(request: &HttpRequest) -> Option<u64> {
    request.headers().get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Reads what is left of a body that is refused, within bounds.
pub(crate) async fn discard(mut payload: web::Payload) {
    let drain = async {
        let mut bytes = 0;
        while let Some(Ok(chunk)) = payload.next().await {
            bytes += chunk.len();
            if bytes > DISCARD_BYTES {
                break;
            }
        }
    };
    // Whether all of it came makes no difference to the answer.
    let _ = actix_rt::time::timeout(DISCARD_TIME, drain).await;
}

/// Reads a JSON object. A list would pass for one whose fields are given by position.
pub(crate) fn object<T: DeserializeOwned>(body: &[u8]) -> Result<T, Failure> {
    if body.trim_ascii_start().starts_with(b"{") {
        return Ok(read_json(body)?);
    }
    let _: serde::de::IgnoredAny = read_json(body)?;
    let detail = "the body must be a JSON object".to_owned();
    Err(Problem::invalid(vec![problem::FieldError { pointer: String::new(), detail }]).into())
}

/// Reads a small JSON body.
pub(crate) async fn json<T: DeserializeOwned>(
    request: &HttpRequest,
    payload: web::Payload,
) -> Result<T, Failure> {
    object(&body(request, payload, limits::BODY_BYTES).await?)
}

/// Reads a small JSON body where none means `{}`.
pub(crate) async fn json_or_nothing<T: DeserializeOwned>(
    request: &HttpRequest,
    payload: web::Payload,
) -> Result<T, Failure> {
    let body = body(request, payload, limits::BODY_BYTES).await?;
    let text = if body.iter().all(u8::is_ascii_whitespace) { b"{}".as_slice() } else { &body };
    object(text)
}

/// Reads the query; unknown parameters are refused by name.
pub(crate) fn query<T: DeserializeOwned>(request: &HttpRequest) -> Result<T, Failure> {
    match web::Query::<T>::from_query(request.query_string()) {
        Ok(query) => Ok(query.into_inner()),
        Err(actix_web::error::QueryPayloadError::Deserialize(error)) => {
            Err(Failure::new(422, "query", format!("the query: {error}")))
        }
        Err(error) => Err(Failure::new(422, "query", format!("the query: {error}"))),
    }
}

/// The query of routes that take none.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NoQuery {}

/// Checks that there is no query.
pub(crate) fn no_query(request: &HttpRequest) -> Result<(), Failure> {
    query::<NoQuery>(request).map(drop)
}

/// Reads a task's id as it stands in a path.
pub(crate) fn task_id(text: &str) -> Result<TaskId, Failure> {
    match text.parse() {
        Ok(TaskId(0)) | Err(_) => Err(Failure::not_found(format!(
            "there is no task '{text}'; an id is a number from 1, such as 5 or TASK-00000005"
        ))),
        Ok(id) => Ok(id),
    }
}

/// A `wait_ms`, cut to what is allowed.
pub(crate) fn wait(wait_ms: Option<u64>) -> Duration {
    Duration::from_millis(wait_ms.unwrap_or_default().min(limits::WAIT_MS))
}

/// A page's `limit`.
pub(crate) fn page_limit(limit: Option<usize>, usual: usize) -> Result<usize, Failure> {
    match limit {
        None => Ok(usual),
        Some(limit) if (1..=limits::PAGE).contains(&limit) => Ok(limit),
        Some(limit) => {
            Err(Failure::new(422, "query", format!("limit: {limit} is not allowed; 1 to {}", limits::PAGE)))
        }
    }
}

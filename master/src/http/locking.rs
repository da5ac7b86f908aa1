//! `POST /locks`: one request or many, checked here, decided by the kernel. One alone may wait for its
//! turn; whoever goes away meanwhile loses his place.

use actix_web::http::{StatusCode, header};
use actix_web::{HttpRequest, HttpResponse, web};
use agentflow_actors::AskLock;
use agentflow_core::batch::LockRow;
use agentflow_core::ids::LockNumber;
use agentflow_core::kernel::{Answer, LockRequest, Request, SubmitKey};
use agentflow_core::limits;
use agentflow_core::rejection::Rejection;
use agentflow_protocol::Problem;
use agentflow_protocol::locks::{LockBody, LockResult, LockResults, LockView, LocksBody, warnings};
use agentflow_schema::Readers;
use bytes::Bytes;
use tokio::sync::oneshot;

use super::answer::{Answered, Failure, json};
use super::{locks, read, submit, tasks};
use crate::door::Socket;
use crate::state::Master;

/// Bytes of a body whose paths are compared with each other on this thread; a larger one takes longer
/// than going to another thread does.
const SMALL_BYTES: usize = 16 << 10;

/// Locks files: all of the paths of a request or none. Many requests are each granted or refused.
#[utoipa::path(post, path = "/api/v2/locks", tag = "locks",
    params(("Idempotency-Key" = Option<String>, Header,
        description = "The same key with the same body gets the same lock; of many requests each has the key with its position, `KEY/0`")),
    request_body(content = LockBody, description = "One request, or `{\"requests\": […]}` (schema `LocksBody`)"),
    responses(
        (status = 201, body = LockView, description = "The lock; for many requests `{\"results\": […]}` (schema `LockResults`)"),
        (status = 404, body = Problem, description = "There is no such task"),
        (status = 409, body = Problem, description = "`locked`: others hold it or come first, who are named in `holders`. `deadlock`: waiting for it would be in vain"),
        (status = 422, body = Problem, description = "Every bad field by its JSON pointer"),
        (status = 429, body = Problem)))]
pub(crate) async fn lock(master: web::Data<Master>, http: HttpRequest, payload: web::Payload) -> Answered {
    read::no_query(&http)?;
    master.check_writable()?;
    let body = read::body(&http, payload, limits::LARGE_BODY_BYTES).await?;
    let header = submit::header_key(&http)?.map(std::borrow::Cow::into_owned);
    if submit::is_batch(&body, "requests") {
        let requests = checked(body, move |body| many_of(body, header.as_deref())).await?;
        many(&master, requests).await
    } else {
        let (request, wait_ms) = checked(body, move |body| one_of(body, header)).await?;
        one(&master, &http, request, wait_ms).await
    }
}

/// Checks a body, and a large one where it keeps nobody waiting.
async fn checked<T, F>(body: Bytes, check: F) -> Result<T, Failure>
where
    T: Send + 'static,
    F: FnOnce(&[u8]) -> Result<T, Failure> + Send + 'static,
{
    if body.len() <= SMALL_BYTES { check(&body) } else { web::block(move || check(&body)).await? }
}

fn one_of(body: &[u8], header: Option<String>) -> Result<(LockRequest, u64), Failure> {
    let mut body: LockBody = read::object(body)?;
    body.idempotency_key = submit::one_key(header.map(Into::into), body.idempotency_key)?;
    let key = key_of(&body, body.idempotency_key.as_deref());
    let wait_ms = body.wait_ms.unwrap_or_default();
    let request = body.check("").map_err(Problem::invalid)?;
    Ok((LockRequest { key, ..request }, wait_ms))
}

fn many_of(body: &[u8], header: Option<&str>) -> Result<Vec<LockRequest>, Failure> {
    let body: LocksBody = read::object(body)?;
    let key = |(at, body): (usize, &LockBody)| match (&body.idempotency_key, header) {
        (Some(own), _) => key_of(body, Some(own)),
        (None, Some(header)) => key_of(body, Some(&format!("{header}/{at}"))),
        (None, None) => None,
    };
    let keys: Vec<Option<SubmitKey>> = body.requests.iter().enumerate().map(key).collect();
    let requests = body.check().map_err(Problem::invalid)?;
    Ok(requests.into_iter().zip(keys).map(|(request, key)| LockRequest { key, ..request }).collect())
}

fn key_of(body: &LockBody, key: Option<&str>) -> Option<SubmitKey> {
    key.map(|key| submit::submit_key(key, "lock", &body.canonical()))
}

async fn one(master: &Master, http: &HttpRequest, request: LockRequest, wait_ms: u64) -> Answered {
    if let Some(key) = request.key
        && let Some(made) = master.read(move |readers| made_before(readers, key)).await?
    {
        return created(&made?);
    }
    let task = request.owner.task();
    match take(master, http, request, wait_ms).await? {
        Ok(row) => created(&row),
        Err(rejection) => Err(match task {
            Some(task) => tasks::not_live(master, task, rejection, "a lock").await,
            None => rejection.into(),
        }),
    }
}

/// Has the kernel decide. If this is dropped while it waits, or its client has gone when there is an
/// answer, the request is given up.
pub(crate) async fn take(
    master: &Master,
    http: &HttpRequest,
    request: LockRequest,
    wait_ms: u64,
) -> Result<Result<LockRow, Rejection>, Failure> {
    let (answer, receiver) = oneshot::channel();
    master.handles.dispatcher.do_send(AskLock { want: Box::new(request), wait_ms, answer });
    let answer = match wait_ms {
        0 => receiver.await.ok(),
        _ => master.stopping.listen().unless(receiver).await.and_then(Result::ok),
    };
    match answer.ok_or_else(Failure::stopping)? {
        Ok(granted) if Socket::has_gone(http) => {
            drop(granted);
            Err(Failure::new(499, "gone", "the client has gone"))
        }
        Ok(granted) => Ok(Ok(granted.heard())),
        Err(rejection) => Ok(Err(rejection)),
    }
}

async fn many(master: &Master, requests: Vec<LockRequest>) -> Answered {
    let (requests, mut results) = with_made_before(master, requests).await?;
    let asked: Vec<usize> = (0..results.len()).filter(|at| results[*at].is_none()).collect();
    if !requests.is_empty() {
        match master.ask(Request::LockEach(requests)).await? {
            Answer::Locks(answers) => {
                asked.into_iter().zip(answers).for_each(|(at, answer)| results[at] = Some(answer));
            }
            other => return Err(tasks::unexpected(&other)),
        }
    }
    let result = |result: Result<LockRow, Rejection>| match result {
        Ok(row) => LockResult::Lock(view(&row)),
        Err(rejection) => LockResult::Problem(Problem::of(&rejection)),
    };
    let results = results.into_iter().map(|one| result(one.unwrap_or(Err(Rejection::Busy)))).collect();
    json(StatusCode::CREATED, &LockResults { results })
}

/// The requests that were not made before, and what became of the others, each in its place.
async fn with_made_before(
    master: &Master,
    requests: Vec<LockRequest>,
) -> Result<(Vec<LockRequest>, Vec<Option<Result<LockRow, Rejection>>>), Failure> {
    if requests.iter().all(|request| request.key.is_none()) {
        let results = vec![None; requests.len()];
        return Ok((requests, results));
    }
    let keys: Vec<Option<SubmitKey>> = requests.iter().map(|request| request.key).collect();
    let found = master.read(move |readers| {
        let made = |key: Option<SubmitKey>| key.map_or(Ok(None), |key| made_before(readers, key));
        keys.into_iter().map(made).collect::<Result<Vec<_>, _>>()
    });
    let results = found.await?;
    let new = requests.into_iter().zip(&results).filter(|(_, made)| made.is_none());
    Ok((new.map(|(request, _)| request).collect(), results))
}

/// What the key was used for, as far as the database knows; the kernel knows the last minute.
fn made_before(
    readers: &Readers,
    key: SubmitKey,
) -> Result<Option<Result<LockRow, Rejection>>, agentflow_schema::Error> {
    let Some(used) = readers.key(&key.key)? else { return Ok(None) };
    if used.body != key.body {
        return Ok(Some(Err(Rejection::KeyConflict)));
    }
    let row = readers.lock(LockNumber(used.first.0))?;
    let lost = |why: String| Rejection::LockLost(format!("it was granted for this key, and {why}"));
    Ok(Some(match row {
        None => Err(lost("has ended".to_owned())),
        Some(row) => match &row.state.ended {
            None => Ok(row),
            Some(ended) => Err(lost(locks::how_ended(ended))),
        },
    }))
}

/// A lock that was granted, with what its owner may not have meant.
fn view(row: &LockRow) -> LockView {
    LockView { warnings: warnings(&row.birth.paths), ..LockView::of(row) }
}

fn created(row: &LockRow) -> Answered {
    let mut response: HttpResponse = json(StatusCode::CREATED, &view(row))?;
    let location = format!("/api/v2/locks/{}", row.birth.id);
    if let Ok(location) = header::HeaderValue::from_str(&location) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

//! Checkpoints of tasks: saved by clients, listed, read and restored.

use actix_web::http::{StatusCode, header};
use actix_web::{HttpRequest, HttpResponse, web};
use agentflow_actors::wall;
use agentflow_core::blob::BlobHash;
use agentflow_core::checkpoint::{Content, MARKS, NewCheckpoint};
use agentflow_core::ids::{CheckpointId, Fence, TaskId};
use agentflow_core::kernel::{Answer, Request, RestoreRequest, SaveRequest};
use agentflow_core::limits;
use agentflow_core::rejection::Rejection;
use agentflow_protocol::Problem;
use agentflow_protocol::api::{AttemptView, TaskView};
use agentflow_protocol::percent::encode;
use agentflow_protocol::saved::{
    CHECKPOINT_COMMIT, CHECKPOINT_NAME, CHECKPOINT_REFERENCE, CheckpointBody, CheckpointView, Checkpoints,
    ContinueBody, MemoryView, small,
};
use agentflow_schema::{CheckpointRecord, PutError};

use super::answer::{Answered, Failure, json, ok};
use super::{blobs, memory, read, submit, tasks};
use crate::state::Master;

/// Saves the state of a task that has not ended, in the name of its client or of an attempt.
#[utoipa::path(post, path = "/api/v2/tasks/{id}/checkpoints", tag = "checkpoints",
    params(("id" = String, Path), ("Idempotency-Key" = Option<String>, Header)), request_body = CheckpointBody,
    responses((status = 201, body = CheckpointView, description = "It is durable"), (status = 404, body = Problem),
        (status = 409, body = Problem, description = "The task has ended, or the attempt with that fence is not the current one"),
        (status = 413, body = Problem, description = "More than 16 MiB"), (status = 422, body = Problem)))]
pub(crate) async fn save(
    master: web::Data<Master>,
    request: HttpRequest,
    id: web::Path<String>,
    payload: web::Payload,
) -> Answered {
    read::no_query(&request)?;
    master.check_writable()?;
    let task = read::task_id(&id)?;
    let key = submit::header_key(&request)?.map(std::borrow::Cow::into_owned);
    let body = read::body(&request, payload, limits::LARGE_BODY_BYTES).await?;
    let form = format!("checkpoint of {task}");
    let key = key.map(|key| submit::submit_key(&key, &form, &body));
    let read = move || -> Result<_, Failure> {
        let body: CheckpointBody = read::object(&body)?;
        let fence = body.fence.map(Fence);
        Ok((body.check()?, fence))
    };
    let (checked, fence) = web::block(read).await??;
    if let Some(made) = submit::find(&master, key).await? {
        return created(&master, CheckpointId(made.first.0)).await;
    }
    let content = keep(&master, checked.bytes).await?;
    let checkpoint = NewCheckpoint { name: checked.name, json: checked.json, content, files: None };
    let save = Box::new(SaveRequest { task, fence, checkpoint, memory: checked.memory });
    match master.try_ask(Request::Save { save, key }).await? {
        Ok(Answer::Saved { checkpoint, .. }) => created(&master, checkpoint).await,
        Ok(other) => Err(tasks::unexpected(&other)),
        Err(rejection) => Err(tasks::not_live(&master, task, rejection, "a checkpoint").await),
    }
}

async fn created(master: &Master, id: CheckpointId) -> Answered {
    let record = record(master, id).await?;
    let mut response = json(StatusCode::CREATED, &view(&record))?;
    let location = format!("/api/v2/checkpoints/{id}");
    if let Ok(location) = header::HeaderValue::from_str(&location) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

/// Has large bytes kept, before anything names them and off the store's thread.
async fn keep(master: &Master, bytes: Vec<u8>) -> Result<Content, Failure> {
    if let Some(content) = small(&bytes) {
        return Ok(content);
    }
    let store = master.handles.blobs.clone();
    let kept = web::block(move || {
        let sha256 = BlobHash::of(&bytes);
        store.put(sha256, limits::CHECKPOINT_BYTES, &mut bytes.as_slice(), wall())
    });
    match kept.await? {
        Ok(blob) => Ok(Content::Blob(blob)),
        Err(PutError::Store(error)) => Err(blobs::failed(error)),
        Err(other) => Err(Failure::internal(&other)),
    }
}

/// The history of a task: its checkpoints without their data, and the begin and end of its attempts.
#[utoipa::path(get, path = "/api/v2/tasks/{id}/checkpoints", tag = "checkpoints", params(("id" = String, Path)),
    responses((status = 200, body = Checkpoints), (status = 404, body = Problem)))]
pub(crate) async fn list(master: web::Data<Master>, request: HttpRequest, id: web::Path<String>) -> Answered {
    read::no_query(&request)?;
    let id = read::task_id(&id)?;
    let task = tasks::record(&master, id).await?;
    let attempts = tasks::all_attempts(&master, &task).await?;
    let records = master.read(move |readers| readers.checkpoints(id)).await?;
    let mut entries: Vec<((u32, u8, u64), CheckpointView)> = Vec::new();
    for record in &records {
        let view = view(record);
        let end = attempts.iter().find(|one| one.attempt == view.attempt).and_then(|one| one.finished_at);
        // A client may save while a task that was opened again waits for its next attempt.
        let is_later = record.fence.0 == 0 && end.is_some_and(|end| view.created_at > end);
        entries.push(((view.attempt, if is_later { 3 } else { 1 }, record.id.0), view));
    }
    for attempt in &attempts {
        let marks = [attempt.started_at, attempt.finished_at.filter(|_| attempt.status == "completed")];
        for (mark, at) in marks.into_iter().enumerate() {
            let place = if mark == 0 { 0 } else { 2 };
            let view = at.map(|at| CheckpointView { created_at: at, ..mark_of(id, attempt, MARKS[mark]) });
            entries.extend(view.map(|view| ((attempt.attempt, place, 0), view)));
        }
    }
    entries.sort_by_key(|(place, _)| *place);
    ok(&Checkpoints { checkpoints: entries.into_iter().map(|(_, view)| view).collect() })
}

fn mark_of(task: TaskId, attempt: &AttemptView, name: &str) -> CheckpointView {
    CheckpointView {
        id: None,
        task_id: task.0,
        attempt: attempt.attempt,
        name: name.to_owned(),
        bytes: 0,
        data: None,
        data_base64: None,
        memory: None,
        commit: None,
        reference: None,
        created_at: attempt.assigned_at,
    }
}

/// One checkpoint with its data.
#[utoipa::path(get, path = "/api/v2/checkpoints/{id}", tag = "checkpoints", params(("id" = u64, Path)),
    responses((status = 200, body = CheckpointView), (status = 404, body = Problem, description = "There is none, or it is not kept any more")))]
pub(crate) async fn get(master: web::Data<Master>, request: HttpRequest, id: web::Path<String>) -> Answered {
    read::no_query(&request)?;
    let record = record(&master, checkpoint_id(&id)?).await?;
    let mut view = view(&record);
    let json = record.json;
    let bytes = data(&master, record).await?;
    let body = web::block(move || {
        view.set_data(bytes, json);
        serde_json::to_vec(&view)
    });
    let body = body.await?.map_err(|error| Failure::internal(&error))?;
    Ok(HttpResponse::Ok().content_type("application/json").body(body))
}

/// The data of a checkpoint: exactly the bytes that were saved.
#[utoipa::path(get, path = "/api/v2/checkpoints/{id}/data", tag = "checkpoints", params(("id" = u64, Path)),
    responses((status = 200, content_type = "application/octet-stream", body = Vec<u8>), (status = 404, body = Problem)))]
pub(crate) async fn get_data(
    master: web::Data<Master>,
    request: HttpRequest,
    id: web::Path<String>,
) -> Answered {
    read::no_query(&request)?;
    let record = record(&master, checkpoint_id(&id)?).await?;
    let mut response = HttpResponse::Ok();
    response
        .content_type("application/octet-stream")
        .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .insert_header((CHECKPOINT_NAME, encode(&record.name).into_owned()));
    if let Some(files) = &record.files {
        response
            .insert_header((CHECKPOINT_COMMIT, encode(&files.commit).into_owned()))
            .insert_header((CHECKPOINT_REFERENCE, encode(&files.reference).into_owned()));
    }
    Ok(response.body(data(&master, record).await?))
}

/// Has a task go on at a checkpoint: a settled task is opened again, a running attempt is stopped for a
/// new one.
#[utoipa::path(post, path = "/api/v2/checkpoints/{id}/restore", tag = "checkpoints", params(("id" = u64, Path)), request_body = ContinueBody,
    responses((status = 200, body = TaskView), (status = 404, body = Problem, description = "There is none, or it is not kept any more"),
        (status = 409, body = Problem, description = "The task is being cancelled, or is a node of a run that has ended")))]
pub(crate) async fn restore(
    master: web::Data<Master>,
    request: HttpRequest,
    id: web::Path<String>,
    payload: web::Payload,
) -> Answered {
    read::no_query(&request)?;
    master.check_writable()?;
    let id = checkpoint_id(&id)?;
    let ContinueBody { continue_from } = read::json_or_nothing(&request, payload).await?;
    let record = record(&master, id).await?;
    let (task, memory) = (record.task, record.memory);
    let restore = Box::new(RestoreRequest { task, checkpoint: id, continue_from, memory });
    match master.ask(Request::Restore(restore)).await? {
        Answer::Done => tasks::answer(&master, task).await,
        other => Err(tasks::unexpected(&other)),
    }
}

fn checkpoint_id(text: &str) -> Result<CheckpointId, Failure> {
    let id = text.parse().ok().filter(|id| *id > 0).map(CheckpointId);
    id.ok_or_else(|| Failure::not_found(format!("there is no checkpoint '{text}'; an id is a number from 1")))
}

async fn record(master: &Master, id: CheckpointId) -> Result<CheckpointRecord, Failure> {
    let record = master.read(move |readers| readers.checkpoint(id)).await?;
    record.ok_or_else(|| Rejection::CheckpointGone(id).into())
}

/// All of its bytes, wherever they are.
async fn data(master: &Master, record: CheckpointRecord) -> Result<Vec<u8>, Failure> {
    match record.content {
        Some(Content::Data(data)) => Ok(data.to_vec()),
        Some(Content::Blob(blob)) => blobs::whole(master, blob).await,
        None => Ok(Vec::new()),
    }
}

fn view(record: &CheckpointRecord) -> CheckpointView {
    let files = record.files.as_ref();
    CheckpointView {
        id: Some(record.id.0),
        task_id: record.task.0,
        attempt: record.attempt.0,
        name: record.name.clone(),
        bytes: record.bytes,
        data: None,
        data_base64: None,
        memory: memory::values(&MemoryView::of(&record.memory, wall())),
        commit: files.map(|files| files.commit.as_ref().to_owned()),
        reference: files.map(|files| files.reference.as_ref().to_owned()),
        created_at: record.created_at.into(),
    }
}

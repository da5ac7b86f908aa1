//! What tasks and runs remember.

use std::sync::Arc;

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use agentflow_actors::wall;
use agentflow_core::checkpoint::check_key;
use agentflow_core::kernel::{Answer, Request};
use agentflow_core::limits;
use agentflow_core::memory::{Memory, Owner};
use agentflow_core::rejection::Rejection;
use agentflow_protocol::Problem;
use agentflow_protocol::saved::{EntryBody, EntryView, MemoryView};
use serde_json::value::RawValue;

use super::answer::{Answered, Failure, ok};
use super::{read, runs, tasks};
use crate::state::Master;

/// What a task remembers.
#[utoipa::path(get, path = "/api/v2/tasks/{id}/memory", tag = "memory", params(("id" = String, Path)),
    responses((status = 200, body = MemoryView), (status = 404, body = Problem)))]
pub(crate) async fn of_task(
    master: web::Data<Master>,
    request: HttpRequest,
    id: web::Path<String>,
) -> Answered {
    all(&master, &request, Owner::Task(read::task_id(&id)?)).await
}

/// What a run remembers: all of its tasks share it.
#[utoipa::path(get, path = "/api/v2/runs/{id}/memory", tag = "memory", params(("id" = String, Path)),
    responses((status = 200, body = MemoryView), (status = 404, body = Problem)))]
pub(crate) async fn of_run(
    master: web::Data<Master>,
    request: HttpRequest,
    id: web::Path<String>,
) -> Answered {
    all(&master, &request, Owner::Run(runs::run_id(&id)?)).await
}

/// One thing that a task remembers.
#[utoipa::path(get, path = "/api/v2/tasks/{id}/memory/{name}", tag = "memory", params(("id" = String, Path), ("name" = String, Path)),
    responses((status = 200, body = EntryView), (status = 404, body = Problem, description = "There is none, or it has expired")))]
pub(crate) async fn get_of_task(
    master: web::Data<Master>,
    request: HttpRequest,
    path: web::Path<(String, String)>,
) -> Answered {
    let (id, name) = path.into_inner();
    one(&master, &request, Owner::Task(read::task_id(&id)?), &name).await
}

/// One thing that a run remembers.
#[utoipa::path(get, path = "/api/v2/runs/{id}/memory/{name}", tag = "memory", params(("id" = String, Path), ("name" = String, Path)),
    responses((status = 200, body = EntryView), (status = 404, body = Problem, description = "There is none, or it has expired")))]
pub(crate) async fn get_of_run(
    master: web::Data<Master>,
    request: HttpRequest,
    path: web::Path<(String, String)>,
) -> Answered {
    let (id, name) = path.into_inner();
    one(&master, &request, Owner::Run(runs::run_id(&id)?), &name).await
}

/// Has a task remember something; at most 100 things and 1 MiB.
#[utoipa::path(put, path = "/api/v2/tasks/{id}/memory/{name}", tag = "memory", params(("id" = String, Path), ("name" = String, Path)), request_body = EntryBody,
    responses((status = 200, body = EntryView), (status = 404, body = Problem), (status = 409, body = Problem, description = "The task has ended"),
        (status = 413, body = Problem, description = "The memory is full"), (status = 422, body = Problem)))]
pub(crate) async fn put_of_task(
    master: web::Data<Master>,
    request: HttpRequest,
    path: web::Path<(String, String)>,
    payload: web::Payload,
) -> Answered {
    let (id, name) = path.into_inner();
    put(&master, &request, Owner::Task(read::task_id(&id)?), name, payload).await
}

/// Has a run remember something; at most 100 things and 1 MiB.
#[utoipa::path(put, path = "/api/v2/runs/{id}/memory/{name}", tag = "memory", params(("id" = String, Path), ("name" = String, Path)), request_body = EntryBody,
    responses((status = 200, body = EntryView), (status = 404, body = Problem), (status = 409, body = Problem, description = "The run has ended"),
        (status = 413, body = Problem, description = "The memory is full"), (status = 422, body = Problem)))]
pub(crate) async fn put_of_run(
    master: web::Data<Master>,
    request: HttpRequest,
    path: web::Path<(String, String)>,
    payload: web::Payload,
) -> Answered {
    let (id, name) = path.into_inner();
    put(&master, &request, Owner::Run(runs::run_id(&id)?), name, payload).await
}

/// Has a task forget something; that it is not there is no error.
#[utoipa::path(delete, path = "/api/v2/tasks/{id}/memory/{name}", tag = "memory", params(("id" = String, Path), ("name" = String, Path)),
    responses((status = 204), (status = 404, body = Problem), (status = 409, body = Problem, description = "The task has ended")))]
pub(crate) async fn delete_of_task(
    master: web::Data<Master>,
    request: HttpRequest,
    path: web::Path<(String, String)>,
) -> Answered {
    let (id, name) = path.into_inner();
    delete(&master, &request, Owner::Task(read::task_id(&id)?), &name).await
}

/// Has a run forget something; that it is not there is no error.
#[utoipa::path(delete, path = "/api/v2/runs/{id}/memory/{name}", tag = "memory", params(("id" = String, Path), ("name" = String, Path)),
    responses((status = 204), (status = 404, body = Problem), (status = 409, body = Problem, description = "The run has ended")))]
pub(crate) async fn delete_of_run(
    master: web::Data<Master>,
    request: HttpRequest,
    path: web::Path<(String, String)>,
) -> Answered {
    let (id, name) = path.into_inner();
    delete(&master, &request, Owner::Run(runs::run_id(&id)?), &name).await
}

async fn memory(master: &Master, owner: Owner) -> Result<Memory, Failure> {
    match owner {
        Owner::Task(id) => drop(tasks::record(master, id).await?),
        Owner::Run(id) => drop(runs::record(master, id).await?),
    }
    master.read(move |readers| readers.memory(owner)).await
}

async fn all(master: &Master, request: &HttpRequest, owner: Owner) -> Answered {
    read::no_query(request)?;
    ok(&MemoryView::of(&memory(master, owner).await?, wall()))
}

async fn one(master: &Master, request: &HttpRequest, owner: Owner, name: &str) -> Answered {
    read::no_query(request)?;
    let memory = memory(master, owner).await?;
    let found = memory.get(name, wall()).and_then(|entry| {
        let value = RawValue::from_string(entry.value.as_ref().to_owned()).ok()?;
        Some(EntryView { name: name.to_owned(), value, expires_at: entry.expires_at.map(Into::into) })
    });
    match found {
        Some(view) => ok(&view),
        None => Err(Failure::not_found(format!("nothing is remembered as '{name}'"))),
    }
}

async fn put(
    master: &Master,
    request: &HttpRequest,
    owner: Owner,
    name: String,
    payload: web::Payload,
) -> Answered {
    read::no_query(request)?;
    master.check_writable()?;
    let EntryBody { value, ttl_ms } = read::json(request, payload).await?;
    check_key(&name).map_err(|why| Failure::new(422, "invalid", format!("the name '{name}': {why}")))?;
    if ttl_ms.is_some_and(|ms| ms == 0 || ms > limits::TIMEOUT_MS) {
        return Err(Failure::field("/ttl_ms", format!("allowed: 1 to {}", limits::TIMEOUT_MS)));
    }
    let text: Arc<str> = value.get().into();
    remember(master, owner, &name, Some(text), ttl_ms).await?;
    one(master, request, owner, &name).await
}

async fn delete(master: &Master, request: &HttpRequest, owner: Owner, name: &str) -> Answered {
    read::no_query(request)?;
    master.check_writable()?;
    check_key(name).map_err(|why| Failure::new(422, "invalid", format!("the name '{name}': {why}")))?;
    remember(master, owner, name, None, None).await?;
    Ok(HttpResponse::build(StatusCode::NO_CONTENT).finish())
}

async fn remember(
    master: &Master,
    owner: Owner,
    name: &str,
    value: Option<Arc<str>>,
    ttl_ms: Option<u64>,
) -> Result<(), Failure> {
    let request = Request::Remember { owner, name: name.into(), value, ttl_ms };
    match master.try_ask(request).await? {
        Ok(Answer::Done) => Ok(()),
        Ok(other) => Err(tasks::unexpected(&other)),
        Err(rejection) => Err(match (owner, rejection) {
            (Owner::Task(id), rejection) => tasks::not_live(master, id, rejection, "a memory").await,
            (Owner::Run(id), Rejection::UnknownRun(_)) => {
                let status = runs::record(master, id).await?.row.state.status;
                Failure::conflict(format!("the run is {status}; what an ended run remembers stays as it is"))
            }
            (Owner::Run(_), rejection) => rejection.into(),
        }),
    }
}

/// The values alone; none if there are none.
pub(crate) fn values(view: &MemoryView) -> Option<Box<RawValue>> {
    if view.memory.is_empty() {
        return None;
    }
    serde_json::value::to_raw_value(&view.memory).ok()
}

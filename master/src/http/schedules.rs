//! Schedules: made, listed, paused, and begun by hand.

use std::sync::Arc;
use std::time::SystemTime;

use actix_web::{HttpRequest, web};
use agentflow_core::kernel::{Answer, Request};
use agentflow_core::limits;
use agentflow_core::time::Wall;
use agentflow_protocol::Problem;
use agentflow_protocol::api::Nothing;
use agentflow_protocol::schedule::{ScheduleBody, ScheduleView, Schedules, view};

use super::answer::{Answered, Failure, ok};
use super::{read, tasks};
use crate::state::Master;

/// Every schedule, by name.
#[utoipa::path(get, path = "/api/v2/schedules", tag = "schedules", responses((status = 200, body = Schedules)))]
pub(crate) async fn list(master: web::Data<Master>, request: HttpRequest) -> Answered {
    read::no_query(&request)?;
    ok(&Schedules { schedules: all(&master).await? })
}

/// One schedule.
#[utoipa::path(get, path = "/api/v2/schedules/{name}", tag = "schedules", params(("name" = String, Path)),
    responses((status = 200, body = ScheduleView), (status = 404, body = Problem)))]
pub(crate) async fn get(
    master: web::Data<Master>,
    request: HttpRequest,
    name: web::Path<String>,
) -> Answered {
    read::no_query(&request)?;
    ok(&one(&master, &name).await?)
}

/// Makes a schedule or changes one: a task or a workflow that is begun again and again.
#[utoipa::path(put, path = "/api/v2/schedules/{name}", tag = "schedules", params(("name" = String, Path)), request_body = ScheduleBody,
    responses((status = 200, body = ScheduleView), (status = 422, body = Problem, description = "Among others when it would never begin anything"), (status = 429, body = Problem)))]
pub(crate) async fn put(
    master: web::Data<Master>,
    request: HttpRequest,
    name: web::Path<String>,
    payload: web::Payload,
) -> Answered {
    read::no_query(&request)?;
    master.check_writable()?;
    let body = read::body(&request, payload, limits::BODY_BYTES).await?;
    let body: ScheduleBody = read::object(&body)?;
    let text = name.clone();
    let schedule = web::block(move || body.prepare(&text, now())).await?.map_err(Problem::invalid)?;
    done(&master, Request::PutSchedule(Box::new(schedule))).await?;
    ok(&one(&master, &name).await?)
}

/// Takes a schedule away; what it has begun goes on.
#[utoipa::path(delete, path = "/api/v2/schedules/{name}", tag = "schedules", params(("name" = String, Path)),
    responses((status = 200, body = Schedules), (status = 404, body = Problem)))]
pub(crate) async fn delete(
    master: web::Data<Master>,
    request: HttpRequest,
    name: web::Path<String>,
) -> Answered {
    read::no_query(&request)?;
    master.check_writable()?;
    done(&master, Request::RemoveSchedule { name: name.as_str().into() }).await?;
    ok(&Schedules { schedules: all(&master).await? })
}

/// Has a schedule wait.
#[utoipa::path(post, path = "/api/v2/schedules/{name}/pause", tag = "schedules", params(("name" = String, Path)),
    responses((status = 200, body = ScheduleView), (status = 404, body = Problem)))]
pub(crate) async fn pause(
    master: web::Data<Master>,
    request: HttpRequest,
    name: web::Path<String>,
    payload: web::Payload,
) -> Answered {
    act(&master, &request, &name, payload, |name| Request::PauseSchedule { name, paused: true }).await
}

/// Has it go on.
#[utoipa::path(post, path = "/api/v2/schedules/{name}/resume", tag = "schedules", params(("name" = String, Path)),
    responses((status = 200, body = ScheduleView), (status = 404, body = Problem)))]
pub(crate) async fn resume(
    master: web::Data<Master>,
    request: HttpRequest,
    name: web::Path<String>,
    payload: web::Payload,
) -> Answered {
    act(&master, &request, &name, payload, |name| Request::PauseSchedule { name, paused: false }).await
}

/// Begins what it begins now, beside its times.
#[utoipa::path(post, path = "/api/v2/schedules/{name}/trigger", tag = "schedules", params(("name" = String, Path)),
    responses((status = 200, body = ScheduleView), (status = 404, body = Problem)))]
pub(crate) async fn trigger(
    master: web::Data<Master>,
    request: HttpRequest,
    name: web::Path<String>,
    payload: web::Payload,
) -> Answered {
    act(&master, &request, &name, payload, |name| Request::FireSchedule { name }).await
}

async fn act(
    master: &Master,
    request: &HttpRequest,
    name: &str,
    payload: web::Payload,
    ask: impl FnOnce(Arc<str>) -> Request,
) -> Answered {
    read::no_query(request)?;
    master.check_writable()?;
    let Nothing {} = read::json_or_nothing(request, payload).await?;
    done(master, ask(name.into())).await?;
    ok(&one(master, name).await?)
}

async fn done(master: &Master, request: Request) -> Result<(), Failure> {
    match master.ask(request).await? {
        Answer::Done => Ok(()),
        other => Err(tasks::unexpected(&other)),
    }
}

async fn all(master: &Master) -> Result<Vec<ScheduleView>, Failure> {
    match master.ask(Request::Schedules).await? {
        Answer::Schedules(rows) => Ok(rows.iter().map(view).collect()),
        other => Err(tasks::unexpected(&other)),
    }
}

async fn one(master: &Master, name: &str) -> Result<ScheduleView, Failure> {
    let found = all(master).await?.into_iter().find(|schedule| schedule.name == name);
    found.ok_or_else(|| Failure::not_found(format!("there is no schedule '{name}'; see /api/v2/schedules")))
}

fn now() -> Wall {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Wall(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

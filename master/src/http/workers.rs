//! Workers: the list, draining, the warden's word, and the way in for their sockets.

use actix_web::{HttpRequest, HttpResponse, web};
use agentflow_core::ids::BootId;
use agentflow_core::kernel::{Answer, Request};
use agentflow_core::limits;
use agentflow_protocol::Problem;
use agentflow_protocol::api::{Nothing, WorkerDead, WorkerView, Workers};

use super::answer::{Answered, Failure, ok};
use super::{read, tasks, views};
use crate::door::{self, Socket};
use crate::state::Master;
use crate::worker_door::WorkerDoor;

/// Every worker that is known, by id.
#[utoipa::path(get, path = "/api/v2/workers", tag = "workers", responses((status = 200, body = Workers)))]
pub(crate) async fn list(master: web::Data<Master>, request: HttpRequest) -> Answered {
    read::no_query(&request)?;
    ok(&Workers { workers: all(&master).await? })
}

/// One worker.
#[utoipa::path(get, path = "/api/v2/workers/{id}", tag = "workers", params(("id" = String, Path)),
    responses((status = 200, body = WorkerView), (status = 404, body = Problem)))]
pub(crate) async fn get(master: web::Data<Master>, request: HttpRequest, id: web::Path<String>) -> Answered {
    read::no_query(&request)?;
    ok(&one(&master, &id).await?)
}

/// Gives a worker no new work; it leaves when it has finished what it has.
#[utoipa::path(post, path = "/api/v2/workers/{id}/drain", tag = "workers", params(("id" = String, Path)),
    responses((status = 200, body = WorkerView), (status = 404, body = Problem)))]
pub(crate) async fn drain(
    master: web::Data<Master>,
    request: HttpRequest,
    id: web::Path<String>,
    payload: web::Payload,
) -> Answered {
    read::no_query(&request)?;
    master.check_writable()?;
    let Nothing {} = read::json_or_nothing(&request, payload).await?;
    done(&master, &id, Request::Drain { worker: id.as_str().into() }).await
}

/// Said by a worker's warden: every process of that life of the worker is dead, so that its attempts
/// can begin elsewhere at once.
#[utoipa::path(post, path = "/api/v2/workers/{id}/dead", tag = "workers", params(("id" = String, Path)), request_body = WorkerDead,
    responses((status = 200, body = WorkerView), (status = 404, body = Problem), (status = 409, body = Problem, description = "The worker has begun another life since")))]
pub(crate) async fn dead(
    master: web::Data<Master>,
    request: HttpRequest,
    id: web::Path<String>,
    payload: web::Payload,
) -> Answered {
    read::no_query(&request)?;
    master.check_writable()?;
    let WorkerDead { boot } = read::json(&request, payload).await?;
    done(&master, &id, Request::WorkerDead { worker: id.as_str().into(), boot: BootId(boot) }).await
}

/// The way in for workers.
#[utoipa::path(get, path = "/api/v2/workers/connect", tag = "workers",
    responses((status = 101, description = "A WebSocket; see docs/PROTOCOL.md"), (status = 426, body = Problem), (status = 503, body = Problem)))]
pub(crate) async fn connect(
    master: web::Data<Master>,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, actix_web::Error> {
    read::no_query(&request)?;
    if master.stopping.has_begun() {
        return Err(Failure::stopping().into());
    }
    if !door::is_upgrade(&request) {
        return Err(Failure::new(426, "upgrade", "workers connect here with a WebSocket").into());
    }
    let peer = request.peer_addr().map_or_else(|| "an unknown address".to_owned(), |peer| peer.to_string());
    let conversation = WorkerDoor::new(&master, peer, Socket::take(&request));
    door::open(conversation, &request, payload, limits::FRAME_BYTES)
}

async fn done(master: &Master, id: &str, request: Request) -> Answered {
    match master.ask(request).await? {
        Answer::Done => ok(&one(master, id).await?),
        other => Err(tasks::unexpected(&other)),
    }
}

async fn all(master: &Master) -> Result<Vec<WorkerView>, Failure> {
    match master.ask(Request::Workers).await? {
        Answer::Workers(workers) => Ok(workers.into_iter().map(views::worker).collect()),
        other => Err(tasks::unexpected(&other)),
    }
}

async fn one(master: &Master, id: &str) -> Result<WorkerView, Failure> {
    let found = all(master).await?.into_iter().find(|worker| worker.id == id);
    found.ok_or_else(|| Failure::not_found(format!("there is no worker '{id}'; see /api/v2/workers")))
}

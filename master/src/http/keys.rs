//! Concurrency keys: the list, and their limits.

use actix_web::{HttpRequest, web};
use agentflow_core::batch::{KeyLimit, KeyLimitRow, Rate};
use agentflow_core::kernel::{Answer, KeyInfo, Request};
use agentflow_core::limits;
use agentflow_protocol::Problem;
use agentflow_protocol::keys::{KeyBody, KeyView, Keys, RateBody};
use agentflow_protocol::submit::check_name;

use super::answer::{Answered, Failure, ok};
use super::{read, tasks};
use crate::state::Master;

/// Every key that is configured, held or wanted.
#[utoipa::path(get, path = "/api/v2/keys", tag = "keys", responses((status = 200, body = Keys)))]
pub(crate) async fn list(master: web::Data<Master>, request: HttpRequest) -> Answered {
    read::no_query(&request)?;
    ok(&Keys { keys: all(&master).await? })
}

/// One key.
#[utoipa::path(get, path = "/api/v2/keys/{name}", tag = "keys", params(("name" = String, Path)),
    responses((status = 200, body = KeyView), (status = 404, body = Problem)))]
pub(crate) async fn get(
    master: web::Data<Master>,
    request: HttpRequest,
    name: web::Path<String>,
) -> Answered {
    read::no_query(&request)?;
    ok(&one(&master, &name).await?)
}

/// Sets how many may hold a key, and how many may begin with it in a time.
#[utoipa::path(put, path = "/api/v2/keys/{name}", tag = "keys", params(("name" = String, Path)), request_body = KeyBody,
    responses((status = 200, body = KeyView), (status = 422, body = Problem), (status = 429, body = Problem)))]
pub(crate) async fn put(
    master: web::Data<Master>,
    request: HttpRequest,
    name: web::Path<String>,
    payload: web::Payload,
) -> Answered {
    read::no_query(&request)?;
    master.check_writable()?;
    check_name(&name).map_err(|why| Failure::new(422, "invalid", format!("the key's name: {why}")))?;
    let body: KeyBody = read::json_or_nothing(&request, payload).await?;
    configure(&master, &name, Some(limit(body)?)).await?;
    ok(&one(&master, &name).await?)
}

/// Takes the limits of a key away: one attempt may hold it, as often as it likes.
#[utoipa::path(delete, path = "/api/v2/keys/{name}", tag = "keys", params(("name" = String, Path)),
    responses((status = 200, body = Keys), (status = 404, body = Problem)))]
pub(crate) async fn delete(
    master: web::Data<Master>,
    request: HttpRequest,
    name: web::Path<String>,
) -> Answered {
    read::no_query(&request)?;
    master.check_writable()?;
    one(&master, &name).await?;
    configure(&master, &name, None).await?;
    ok(&Keys { keys: all(&master).await? })
}

fn limit(body: KeyBody) -> Result<KeyLimit, Failure> {
    let most = limits::KEY_LIMIT;
    let is_fine = |number: u32| (1..=most).contains(&number);
    let limit = body.limit.unwrap_or(1);
    if !is_fine(limit) {
        return Err(Failure::field("/limit", format!("allowed: 1 to {most}")));
    }
    let rate = body.rate.map(|RateBody { count, per_ms }| {
        if !is_fine(count) {
            return Err(Failure::field("/rate/count", format!("allowed: 1 to {most}")));
        }
        if !(1..=limits::TIMEOUT_MS).contains(&per_ms) {
            return Err(Failure::field("/rate/per_ms", format!("allowed: 1 to {}", limits::TIMEOUT_MS)));
        }
        Ok(Rate { count, per_ms })
    });
    Ok(KeyLimit { limit, rate: rate.transpose()? })
}

async fn configure(master: &Master, name: &str, limit: Option<KeyLimit>) -> Result<(), Failure> {
    match master.ask(Request::ConfigureKey(KeyLimitRow { name: name.into(), limit })).await? {
        Answer::Done => Ok(()),
        other => Err(tasks::unexpected(&other)),
    }
}

async fn all(master: &Master) -> Result<Vec<KeyView>, Failure> {
    let view = |info: KeyInfo| KeyView {
        name: info.name.as_ref().to_owned(),
        limit: info.limit,
        rate: info.rate.map(|rate| RateBody { count: rate.count, per_ms: rate.per_ms }),
        configured: info.configured,
        holders: info.holders.iter().map(|task| task.0).collect(),
        held: info.held,
        waiting: info.waiting,
    };
    match master.ask(Request::Keys).await? {
        Answer::Keys(keys) => Ok(keys.into_iter().map(view).collect()),
        other => Err(tasks::unexpected(&other)),
    }
}

async fn one(master: &Master, name: &str) -> Result<KeyView, Failure> {
    let found = all(master).await?.into_iter().find(|key| key.name == name);
    found.ok_or_else(|| Failure::not_found(format!("nobody uses a key '{name}'; see /api/v2/keys")))
}

//! Locks of files that were granted: listed, renewed, given back, broken, and what they covered.

use std::collections::BTreeMap;

use actix_web::{HttpRequest, HttpResponse, web};
use agentflow_core::batch::{LockEnd, LockEnded, LockRow};
use agentflow_core::ids::{LockNumber, TaskId};
use agentflow_core::kernel::{Answer, LockFilter, Request, Unlock};
use agentflow_core::limits;
use agentflow_core::lock::{LockFence, LockId, LockOwner, LockPath, Repository};
use agentflow_core::rejection::Rejection;
use agentflow_protocol::locks::{
    BreakBody, LockPage, LockView, Refused, ReleaseBody, Released, ReleasedAll, RenewBody, Verified,
    VerifyBody, WaitingView, owner_named,
};
use agentflow_protocol::{Problem, Timestamp};
use serde::Deserialize;

use super::answer::{Answered, Failure, ok};
use super::lock_history::Coverage;
use super::{read, tasks};
use crate::state::Master;

/// Locks on a page unless the client says otherwise.
const USUAL_PAGE: usize = 100;

/// Query of `GET /locks`.
#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListQuery {
    /// Locks in this repository.
    repo: Option<String>,
    /// Locks that overlap this path.
    path: Option<String>,
    /// Locks of this person or program; `task:5` for those of a task.
    owner: Option<String>,
    /// Locks of this task.
    task_id: Option<String>,
    /// That lock.
    id: Option<String>,
    /// 1 to 1,000; 100 when absent.
    limit: Option<usize>,
    /// From the page before.
    cursor: Option<String>,
}

/// Query of `DELETE /locks`: whose locks, and which of them.
#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ReleaseQuery {
    /// Those of this task.
    task_id: Option<String>,
    /// Instead: those of this person or program.
    owner: Option<String>,
    /// In this repository.
    repo: Option<String>,
    /// At this path.
    path: Option<String>,
}

/// Query of `DELETE /locks/{id}`.
#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ReleaseOneQuery {
    /// Its fence: refused if it has another one.
    fence: Option<u64>,
    /// Who gives it back: refused if it is another's.
    owner: Option<String>,
}

fn wrong(field: &str, why: impl std::fmt::Display) -> Failure {
    Failure::new(422, "query", format!("the query: {field}: {why}"))
}

fn owner_of(task_id: Option<&str>, owner: Option<&str>) -> Result<Option<LockOwner>, Failure> {
    match (task_id, owner) {
        (Some(_), Some(_)) => Err(wrong("owner", "stands beside task_id; give one of them")),
        (None, None) => Ok(None),
        (None, Some(name)) => owner_named(name).map(Some).map_err(|why| wrong("owner", why)),
        (Some(id), None) => match id.parse() {
            Ok(TaskId(0)) | Err(_) => Err(wrong("task_id", format!("'{id}' is no task id; write 5"))),
            Ok(id) => Ok(Some(LockOwner::Task(id))),
        },
    }
}

fn repo_of(repo: Option<&str>) -> Result<Option<Repository>, Failure> {
    repo.map(Repository::new).transpose().map_err(|why| wrong("repo", why))
}

fn path_of(path: Option<&str>) -> Result<Option<LockPath>, Failure> {
    path.map(LockPath::new).transpose().map_err(|why| wrong("path", why))
}

impl ListQuery {
    fn filter(&self) -> Result<LockFilter, Failure> {
        let lock = self.id.as_deref().map(str::parse).transpose().map_err(|why| wrong("id", why))?;
        let cursor = self.cursor.as_deref().map_or(Ok(0), str::parse);
        let after = cursor.map_err(|_| wrong("cursor", "is not one that a page before gave"))?;
        Ok(LockFilter {
            repo: repo_of(self.repo.as_deref())?,
            path: path_of(self.path.as_deref())?,
            owner: owner_of(self.task_id.as_deref(), self.owner.as_deref())?,
            lock,
            after: LockNumber(after),
            limit: read::page_limit(self.limit, USUAL_PAGE)?,
        })
    }
}

/// Locks that are held, and who waits for some.
#[utoipa::path(get, path = "/api/v2/locks", tag = "locks", params(ListQuery),
    responses((status = 200, body = LockPage), (status = 422, body = Problem)))]
pub(crate) async fn list(master: web::Data<Master>, request: HttpRequest) -> Answered {
    let filter = read::query::<ListQuery>(&request)?.filter()?;
    let (rows, waiting, next_cursor) = page(&master, filter).await?;
    let locks = rows.iter().map(LockView::of).collect();
    ok(&LockPage { locks, waiting, next_cursor })
}

/// A page of the locks that are held, who waits for such, and where the next page begins.
pub(crate) async fn page(
    master: &Master,
    filter: LockFilter,
) -> Result<(Vec<LockRow>, Vec<WaitingView>, Option<String>), Failure> {
    match master.ask(Request::Locks(filter)).await? {
        Answer::LockList { locks, waiting, more } => {
            let next = locks.last().filter(|_| more).map(|row| row.number.to_string());
            Ok((locks, waiting.into_iter().map(WaitingView::from).collect(), next))
        }
        other => Err(tasks::unexpected(&other)),
    }
}

/// One lock that is held.
#[utoipa::path(get, path = "/api/v2/locks/{id}", tag = "locks", params(("id" = String, Path)),
    responses((status = 200, body = LockView), (status = 404, body = Problem)))]
pub(crate) async fn get(master: web::Data<Master>, request: HttpRequest, id: web::Path<String>) -> Answered {
    read::no_query(&request)?;
    ok(&LockView::of(&held(&master, lock_id(&id)?).await?))
}

/// The row of a lock that is held.
pub(crate) async fn held(master: &Master, id: LockId) -> Result<LockRow, Failure> {
    let (mut rows, ..) =
        page(master, LockFilter { lock: Some(id), limit: 1, ..LockFilter::default() }).await?;
    rows.pop().ok_or_else(|| Rejection::UnknownLock(id).into())
}

/// Reads the id of a lock as it stands in a path.
pub(crate) fn lock_id(text: &str) -> Result<LockId, Failure> {
    text.parse().map_err(|why| Failure::not_found(format!("there is no lock '{text}': {why}")))
}

/// Gives one lock back.
#[utoipa::path(delete, path = "/api/v2/locks/{id}", tag = "locks", params(("id" = String, Path), ReleaseOneQuery),
    responses((status = 204), (status = 404, body = Problem),
        (status = 409, body = Problem, description = "It has another fence, is another's, or is held no more")))]
pub(crate) async fn delete(
    master: web::Data<Master>,
    request: HttpRequest,
    id: web::Path<String>,
) -> Answered {
    let query: ReleaseOneQuery = read::query(&request)?;
    master.check_writable()?;
    let owner = owner_of(None, query.owner.as_deref())?;
    let unlock = Unlock { lock: lock_id(&id)?, fence: query.fence.map(LockFence), owner };
    match unlocked(&master, vec![unlock]).await?.pop() {
        Some(Err(rejection)) => Err(rejection.into()),
        Some(Ok(())) | None => Ok(HttpResponse::NoContent().finish()),
    }
}

/// Gives many locks back, each by itself.
#[utoipa::path(post, path = "/api/v2/locks/release", tag = "locks", request_body = ReleaseBody,
    responses((status = 200, body = Released, description = "Those that were not given back are named"), (status = 422, body = Problem)))]
pub(crate) async fn release(
    master: web::Data<Master>,
    request: HttpRequest,
    payload: web::Payload,
) -> Answered {
    read::no_query(&request)?;
    master.check_writable()?;
    let body: ReleaseBody = read::json(&request, payload).await?;
    let unlocks = body.check().map_err(Problem::invalid)?;
    let ids: Vec<LockId> = unlocks.iter().map(|unlock| unlock.lock).collect();
    let mut answer = Released::default();
    for (id, result) in ids.into_iter().zip(unlocked(&master, unlocks).await?) {
        match result {
            Ok(()) => answer.released += 1,
            Err(rejection) => answer.refused.push(Refused { id, problem: Problem::of(&rejection) }),
        }
    }
    ok(&answer)
}

/// Gives locks back, and says what became of each.
pub(crate) async fn unlocked(
    master: &Master,
    unlocks: Vec<Unlock>,
) -> Result<Vec<Result<(), Rejection>>, Failure> {
    let mut results = match master.ask(Request::Unlock(unlocks)).await? {
        Answer::Unlocked(results) => results,
        other => return Err(tasks::unexpected(&other)),
    };
    let unknown = |result: &Result<(), Rejection>| match result {
        Err(Rejection::UnknownLock(id)) => Some(*id),
        _ => None,
    };
    let mut ended = ends_of(master, results.iter().filter_map(unknown).collect()).await?;
    for result in &mut results {
        if let Some(end) = unknown(result).and_then(|id| ended.remove(&id)) {
            *result = Err(Rejection::LockLost(end));
        }
    }
    Ok(results)
}

/// The kernel knows locks that are held. How others ended is in their rows.
async fn ends_of(master: &Master, ids: Vec<LockId>) -> Result<BTreeMap<LockId, String>, Failure> {
    if ids.is_empty() {
        return Ok(BTreeMap::new());
    }
    let ended = master.read(move |readers| {
        let mut ended = BTreeMap::new();
        for id in ids {
            let row = readers.lock_by_id(&id)?;
            ended.extend(
                row.and_then(|row| row.state.ended).map(|end| (id, format!("it {}", how_ended(&end)))),
            );
        }
        Ok(ended)
    });
    ended.await
}

/// How a lock ended, for people: what stands after its name.
pub(crate) fn how_ended(LockEnded { end, at, reason }: &LockEnded) -> String {
    let how = match end {
        LockEnd::Released => "was released",
        LockEnd::Expired => "expired",
        LockEnd::Broken => "was broken",
        LockEnd::Lost => "was lost with its attempt",
    };
    let reason = if reason.is_empty() { String::new() } else { format!(": {reason}") };
    format!("{how} at {}{reason}", Timestamp(*at))
}

/// Gives back what an owner holds: all of it, or what he holds in a repository, or at a path.
#[utoipa::path(delete, path = "/api/v2/locks", tag = "locks", params(ReleaseQuery),
    responses((status = 200, body = ReleasedAll), (status = 422, body = Problem),
        (status = 409, body = Problem, description = "The path was locked together with others")))]
pub(crate) async fn delete_all(master: web::Data<Master>, request: HttpRequest) -> Answered {
    let query: ReleaseQuery = read::query(&request)?;
    master.check_writable()?;
    let owner = owner_of(query.task_id.as_deref(), query.owner.as_deref())?;
    let owner = owner.ok_or_else(|| wrong("owner", "is missing; say whose locks, or of which task_id"))?;
    let (repo, path) = (repo_of(query.repo.as_deref())?, path_of(query.path.as_deref())?);
    match master.ask(Request::UnlockBy { owner, repo, path }).await? {
        Answer::Released(released) => ok(&ReleasedAll { released }),
        other => Err(tasks::unexpected(&other)),
    }
}

/// Holds a lock longer. One that ends with an attempt is renewed by that, and stays as it is.
#[utoipa::path(post, path = "/api/v2/locks/{id}/renew", tag = "locks", params(("id" = String, Path)), request_body = RenewBody,
    responses((status = 200, body = LockView), (status = 404, body = Problem), (status = 422, body = Problem),
        (status = 409, body = Problem, description = "It has another fence, or is held no more")))]
pub(crate) async fn renew(
    master: web::Data<Master>,
    request: HttpRequest,
    id: web::Path<String>,
    payload: web::Payload,
) -> Answered {
    read::no_query(&request)?;
    master.check_writable()?;
    let lock = lock_id(&id)?;
    let body: RenewBody = read::json(&request, payload).await?;
    body.check().map_err(Problem::invalid)?;
    let (fence, ttl_ms) = (LockFence(body.fence), body.ttl_ms);
    ok(&LockView::of(&changed(&master, Request::Renew { lock, fence, ttl_ms }).await?))
}

/// Takes a lock away from its owner. An attempt that has it is stopped.
#[utoipa::path(post, path = "/api/v2/locks/{id}/break", tag = "locks", params(("id" = String, Path)), request_body = BreakBody,
    responses((status = 200, body = LockView, description = "As it was"), (status = 404, body = Problem), (status = 422, body = Problem),
        (status = 409, body = Problem, description = "It is held no more")))]
pub(crate) async fn break_lock(
    master: web::Data<Master>,
    request: HttpRequest,
    id: web::Path<String>,
    payload: web::Payload,
) -> Answered {
    read::no_query(&request)?;
    master.check_writable()?;
    let lock = lock_id(&id)?;
    let body: BreakBody = read::json(&request, payload).await?;
    body.check().map_err(Problem::invalid)?;
    let reason = body.reason.into();
    ok(&LockView::of(&changed(&master, Request::Break { lock, reason }).await?))
}

/// Asks for one lock, and says how it is then.
pub(crate) async fn changed(master: &Master, request: Request) -> Result<LockRow, Failure> {
    match master.try_ask(request).await? {
        Ok(Answer::Locked(row)) => Ok(*row),
        Ok(other) => Err(tasks::unexpected(&other)),
        Err(Rejection::UnknownLock(id)) => {
            let end = ends_of(master, vec![id]).await?.remove(&id);
            Err(end.map_or(Rejection::UnknownLock(id), Rejection::LockLost).into())
        }
        Err(rejection) => Err(rejection.into()),
    }
}

/// Says whether changes were made under locks, by the history of what was granted: each path must have
/// been covered by a lock for writing that was not broken, and nobody else may have locked it since.
#[utoipa::path(post, path = "/api/v2/locks/verify", tag = "locks", request_body = VerifyBody,
    responses((status = 200, body = Verified), (status = 422, body = Problem),
        (status = 404, body = Problem, description = "Nothing was ever locked in that repository"),
        (status = 409, body = Problem, description = "`uncovered` names each path that is not covered, and why")))]
pub(crate) async fn verify(
    master: web::Data<Master>,
    request: HttpRequest,
    payload: web::Payload,
) -> Answered {
    read::no_query(&request)?;
    let body = read::body(&request, payload, limits::LARGE_BODY_BYTES).await?;
    let body: VerifyBody = read::object(&body)?;
    let asked = body.check().map_err(Problem::invalid)?;
    let repo = asked.repo.clone();
    let uncovered = master.read(move |readers| {
        let Some(space) = readers.lock_space(&asked.repo)? else { return Ok(None) };
        let mut coverage = Coverage::new(&asked, space.ignore_case);
        let (from, mut after) = (coverage.first(), LockFence::default());
        while !coverage.is_decided(after) {
            let grants = readers.write_grants(space.id, from, after, limits::PAGE)?;
            let Some(last) = grants.last() else { break };
            after = last.birth.fence;
            grants.iter().for_each(|grant| coverage.see(grant));
        }
        Ok(Some(coverage.uncovered()))
    });
    match uncovered.await? {
        None => Err(Rejection::UnknownRepository(repo).into()),
        Some(uncovered) if uncovered.is_empty() => ok(&Verified { covered: true }),
        Some(uncovered) => Err(Problem::not_covered(uncovered).into()),
    }
}

//! The locking API of Git LFS, so that `git lfs lock`, `locks`, `unlock` and its check before a push use
//! these locks. A file that is locked so is locked for writing, on every branch, until it is unlocked.
//!
//! Who locks is who logs in. Objects are kept elsewhere: a client that asks for them is sent on, and logs
//! in there by itself, so that no credentials of the other server pass through here.

use actix_web::http::{StatusCode, header};
use actix_web::{HttpRequest, HttpResponse, ResponseError, web};
use agentflow_core::batch::LockRow;
use agentflow_core::ids::LockNumber;
use agentflow_core::kernel::{LockFilter, LockRequest, Request, Unlock};
use agentflow_core::limits;
use agentflow_core::lock::{LockId, LockMode, LockOwner, LockPath, PathLock, Repository};
use agentflow_core::rejection::{Locked, Rejection};
use agentflow_protocol::lfs::{
    LfsLock, LfsLockBody, LfsLocked, LfsLocks, LfsProblem, LfsUnlockBody, LfsVerified, LfsVerifyBody,
    MEDIA_TYPE, NOBODY,
};
use agentflow_protocol::submit::check_name;
use serde::{Deserialize, Serialize};

use super::answer::Failure;
use super::{locking, locks, read, token};
use crate::state::Master;

/// Locks on a page unless the client says otherwise.
const USUAL_PAGE: usize = 100;

/// What a server of Git LFS has below its address when it is found by the address of a repository.
const SUFFIX: &str = "/info/lfs";

/// A problem in the words of Git LFS.
#[derive(Debug)]
pub(crate) struct LfsFailure {
    status: StatusCode,
    problem: LfsProblem,
}

/// What every handler here returns.
type Answered = Result<HttpResponse, LfsFailure>;

impl LfsFailure {
    fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, problem: LfsProblem { message: message.into(), lock: None } }
    }
}

impl From<Failure> for LfsFailure {
    fn from(failure: Failure) -> Self {
        Self::new(failure.status_code(), failure.to_string())
    }
}

impl From<Rejection> for LfsFailure {
    fn from(rejection: Rejection) -> Self {
        Failure::from(rejection).into()
    }
}

impl std::fmt::Display for LfsFailure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.problem.message)
    }
}

impl ResponseError for LfsFailure {
    fn status_code(&self) -> StatusCode {
        self.status
    }

    fn error_response(&self) -> HttpResponse {
        let mut response = HttpResponse::build(self.status);
        if self.status == StatusCode::UNAUTHORIZED {
            // The client asks its user, or whatever keeps his passwords.
            response.insert_header((header::WWW_AUTHENTICATE, "Basic realm=\"AgentFlow\""));
        }
        response.content_type(MEDIA_TYPE).body(serde_json::to_vec(&self.problem).unwrap_or_default())
    }
}

/// Whether a request is one of Git LFS.
pub(crate) fn is_lfs(request: &HttpRequest) -> bool {
    request.path().starts_with("/lfs/")
}

fn answer<T: Serialize>(status: StatusCode, body: &T) -> Answered {
    let text = serde_json::to_vec(body).map_err(|error| Failure::internal(&error))?;
    Ok(HttpResponse::build(status).content_type(MEDIA_TYPE).body(text))
}

fn repository(text: &str) -> Result<Repository, LfsFailure> {
    let text = text.strip_suffix(SUFFIX).unwrap_or(text);
    Repository::new(text)
        .map_err(|why| LfsFailure::new(StatusCode::NOT_FOUND, format!("'{text}' is no repository: {why}")))
}

fn path(text: &str) -> Result<LockPath, LfsFailure> {
    LockPath::new(text)
        .map_err(|why| LfsFailure::new(StatusCode::UNPROCESSABLE_ENTITY, format!("the path '{text}': {why}")))
}

/// Who asks.
fn caller(request: &HttpRequest) -> Result<LockOwner, LfsFailure> {
    let user = token::basic(request).map(|(user, _)| user).filter(|user| !user.is_empty());
    let user = user.unwrap_or_else(|| NOBODY.to_owned());
    check_name(&user).map_err(|why| {
        LfsFailure::new(StatusCode::UNPROCESSABLE_ENTITY, format!("the user's name: {why}"))
    })?;
    Ok(LockOwner::Named(user.into()))
}

/// Locks a file for writing, until it is unlocked.
#[utoipa::path(post, path = "/lfs/{repo}/locks", tag = "lfs", params(("repo" = String, Path, description = "`example.com/team/app`, with its slashes")),
    request_body(content = LfsLockBody, content_type = "application/vnd.git-lfs+json"),
    responses((status = 201, body = LfsLocked, content_type = "application/vnd.git-lfs+json"),
        (status = 409, body = LfsProblem, content_type = "application/vnd.git-lfs+json", description = "It is locked, and by whom")))]
pub(crate) async fn lock(
    master: web::Data<Master>,
    request: HttpRequest,
    repo: web::Path<String>,
    payload: web::Payload,
) -> Answered {
    master.check_writable()?;
    let (repo, owner) = (repository(&repo)?, caller(&request)?);
    let body: LfsLockBody = read::json(&request, payload).await?;
    let want = LockRequest {
        repo,
        ignore_case: false,
        paths: [PathLock { path: path(&body.path)?, mode: LockMode::Write }].into(),
        owner,
        ttl_ms: None,
        reason: "".into(),
        priority: 50,
        key: None,
    };
    match locking::take(&master, &request, want, 0).await? {
        Ok(row) => match LfsLock::of(&row).next() {
            Some(lock) => answer(StatusCode::CREATED, &LfsLocked { lock }),
            None => Err(Failure::internal(&"a lock without a path").into()),
        },
        Err(Rejection::Locked(locked)) => Err(taken(&master, &locked).await?),
        Err(rejection) => Err(rejection.into()),
    }
}

/// Why a file cannot be locked, with the lock that is there.
async fn taken(master: &Master, locked: &Locked) -> Result<LfsFailure, LfsFailure> {
    let problem = LfsProblem { message: locked.to_string(), lock: None };
    let failure = LfsFailure { status: StatusCode::CONFLICT, problem };
    let holder = locked.holders.iter().find_map(|holder| Some((holder, holder.lock?.0)));
    let Some((holder, id)) = holder else { return Ok(failure) };
    let filter = LockFilter { lock: Some(id), limit: 1, ..LockFilter::default() };
    let (rows, ..) = locks::page(master, filter).await?;
    // It may have been unlocked meanwhile.
    let lock = rows.iter().flat_map(LfsLock::of).find(|lock| lock.path == holder.path.as_str());
    Ok(LfsFailure { problem: LfsProblem { lock, ..failure.problem }, ..failure })
}

/// Query of `GET /locks`. Others than these are not looked at.
#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct LfsListQuery {
    /// The lock of exactly that path.
    path: Option<String>,
    /// That lock.
    id: Option<String>,
    /// From the page before.
    cursor: Option<String>,
    /// 1 to 1,000; 100 when absent.
    limit: Option<usize>,
}

/// Locks for writing in a repository, each path by itself.
#[utoipa::path(get, path = "/lfs/{repo}/locks", tag = "lfs", params(("repo" = String, Path, description = "`example.com/team/app`, with its slashes"), LfsListQuery),
    responses((status = 200, body = LfsLocks, content_type = "application/vnd.git-lfs+json")))]
pub(crate) async fn list(
    master: web::Data<Master>,
    request: HttpRequest,
    repo: web::Path<String>,
) -> Answered {
    let query: LfsListQuery = read::query(&request)?;
    let lock = match query.id.as_deref().filter(|id| !id.is_empty()).map(str::parse::<LockId>) {
        None => None,
        Some(Ok(id)) => Some(id),
        // It is none of ours.
        Some(Err(_)) => return answer(StatusCode::OK, &LfsLocks::default()),
    };
    let at = query.path.as_deref().filter(|path| !path.is_empty()).map(path).transpose()?;
    let filter =
        LockFilter { path: at.clone(), lock, ..filter(&repo, query.cursor.as_deref(), query.limit)? };
    let (rows, next_cursor) = page(&master, filter).await?;
    let is_meant = |lock: &LfsLock| at.as_ref().is_none_or(|path| path.as_str() == lock.path);
    let locks = rows.iter().flat_map(LfsLock::of).filter(is_meant).collect();
    answer(StatusCode::OK, &LfsLocks { locks, next_cursor })
}

fn filter(repo: &str, cursor: Option<&str>, limit: Option<usize>) -> Result<LockFilter, LfsFailure> {
    let cursor = cursor.filter(|cursor| !cursor.is_empty()).map_or(Ok(0), str::parse);
    let after = cursor.map_err(|_| {
        LfsFailure::new(StatusCode::UNPROCESSABLE_ENTITY, "the cursor is not one that a page before gave")
    })?;
    let limit = limit.filter(|limit| *limit > 0).unwrap_or(USUAL_PAGE).min(limits::PAGE);
    let repo = Some(repository(repo)?);
    Ok(LockFilter { repo, after: LockNumber(after), limit, ..LockFilter::default() })
}

async fn page(master: &Master, filter: LockFilter) -> Result<(Vec<LockRow>, Option<String>), LfsFailure> {
    let (rows, _, next) = locks::page(master, filter).await?;
    Ok((rows, next))
}

/// The locks in a repository, those of who asks apart: a push that changes one of the others is stopped
/// by the client.
#[utoipa::path(post, path = "/lfs/{repo}/locks/verify", tag = "lfs", params(("repo" = String, Path, description = "`example.com/team/app`, with its slashes")),
    request_body(content = LfsVerifyBody, content_type = "application/vnd.git-lfs+json"),
    responses((status = 200, body = LfsVerified, content_type = "application/vnd.git-lfs+json")))]
pub(crate) async fn verify(
    master: web::Data<Master>,
    request: HttpRequest,
    repo: web::Path<String>,
    payload: web::Payload,
) -> Answered {
    let caller = caller(&request)?.to_string();
    let body: LfsVerifyBody = read::json_or_nothing(&request, payload).await?;
    let (rows, next_cursor) = page(&master, filter(&repo, body.cursor.as_deref(), body.limit)?).await?;
    let (ours, theirs) = rows.iter().flat_map(LfsLock::of).partition(|lock| lock.owner.name == caller);
    answer(StatusCode::OK, &LfsVerified { ours, theirs, next_cursor })
}

/// Unlocks a file. Another's lock is broken, if that is what is wanted.
#[utoipa::path(post, path = "/lfs/{repo}/locks/{id}/unlock", tag = "lfs",
    params(("repo" = String, Path, description = "`example.com/team/app`, with its slashes"), ("id" = String, Path)),
    request_body(content = LfsUnlockBody, content_type = "application/vnd.git-lfs+json"),
    responses((status = 200, body = LfsLocked, content_type = "application/vnd.git-lfs+json", description = "The lock that was"),
        (status = 403, body = LfsProblem, content_type = "application/vnd.git-lfs+json", description = "It is another's, or holds more than this path"),
        (status = 404, body = LfsProblem, content_type = "application/vnd.git-lfs+json")))]
pub(crate) async fn unlock(
    master: web::Data<Master>,
    request: HttpRequest,
    place: web::Path<(String, String)>,
    payload: web::Payload,
) -> Answered {
    master.check_writable()?;
    let (repo, id) = place.into_inner();
    let (repo, id, owner) = (repository(&repo)?, locks::lock_id(&id)?, caller(&request)?);
    let LfsUnlockBody { force } = read::json_or_nothing(&request, payload).await?;
    let row = locks::held(&master, id).await?;
    let lock = LfsLock::of(&row).next().filter(|_| row.repo == repo);
    let lock = lock.ok_or(Rejection::UnknownLock(id))?;
    if row.birth.owner != owner && !force {
        let message = format!("the lock is {}'s; --force breaks it", row.birth.owner);
        return Err(LfsFailure::new(StatusCode::FORBIDDEN, message));
    }
    if row.birth.paths.len() > 1 && !force {
        let message = Rejection::LockedTogether(id).to_string();
        return Err(LfsFailure::new(StatusCode::FORBIDDEN, message));
    }
    if row.birth.owner == owner {
        let unlock = Unlock { lock: id, fence: Some(row.birth.fence), owner: Some(owner) };
        if let Some(Err(rejection)) = locks::unlocked(&master, vec![unlock]).await?.pop() {
            return Err(rejection.into());
        }
    } else {
        let reason = format!("unlocked by {owner} with force, over Git LFS").into();
        locks::changed(&master, Request::Break { lock: id, reason }).await?;
    }
    answer(StatusCode::OK, &LfsLocked { lock })
}

/// Sends a client that wants objects to the server that has them.
#[utoipa::path(post, path = "/lfs/{repo}/objects/batch", tag = "lfs", params(("repo" = String, Path, description = "`example.com/team/app`, with its slashes")),
    responses((status = 307, description = "To the server that was configured with `--lfs-upstream`"),
        (status = 501, body = LfsProblem, content_type = "application/vnd.git-lfs+json", description = "There is none")))]
pub(crate) async fn objects(
    master: web::Data<Master>,
    repo: web::Path<String>,
    payload: web::Payload,
) -> Answered {
    let repo = repository(&repo)?;
    read::discard(payload).await;
    let Some(upstream) = &master.lfs_upstream else {
        let message = "this master keeps locks, not objects: start it with --lfs-upstream URL, the address \
                       of the Git LFS server that has them; '{repo}' in it is the repository";
        return Err(LfsFailure::new(StatusCode::NOT_IMPLEMENTED, message));
    };
    let upstream = upstream.trim_end_matches('/').replace("{repo}", repo.as_str());
    let mut response = HttpResponse::TemporaryRedirect();
    Ok(response.insert_header((header::LOCATION, format!("{upstream}/objects/batch"))).finish())
}

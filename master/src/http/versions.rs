//! Versions of tasks.

use std::sync::Arc;
use std::time::Duration;

use actix_web::{HttpRequest, web};
use agentflow_core::ids::TaskId;
use agentflow_core::kernel::{Answer, NewVersion, PreparedSpec, Request};
use agentflow_core::limits;
use agentflow_core::rejection::Rejection;
use agentflow_core::spec::Spec;
use agentflow_protocol::Problem;
use agentflow_protocol::api::TaskView;
use agentflow_protocol::saved::{UpgradeBody, VersionView, Versions};
use agentflow_protocol::upgrade::Upgrade;
use agentflow_schema::{TaskRecord, VersionRecord};
use serde::Deserialize;

use super::answer::{Answered, Failure, ok};
use super::{read, submit, tasks};
use crate::state::Master;

/// How often an upgrade is tried while somebody else is faster.
const TRIES: u32 = 5;

/// Before the second try; each later one waits twice as long, all of them 150 ms. Another request that
/// changes a run takes as long as to read its rows.
const PAUSE: Duration = Duration::from_millis(10);

/// Bytes of a reason.
const REASON_BYTES: usize = 4_096;

/// Gives a task another version. A running attempt finishes on the version that it began with, unless
/// `restart` is set; a settled task runs again.
#[utoipa::path(post, path = "/api/v2/tasks/{id}/upgrade", tag = "versions", params(("id" = String, Path)), request_body = UpgradeBody,
    responses((status = 200, body = TaskView), (status = 404, body = Problem),
        (status = 409, body = Problem, description = "The task has another version than `expected_version`, or is a node of a run"),
        (status = 422, body = Problem)))]
pub(crate) async fn upgrade(
    master: web::Data<Master>,
    request: HttpRequest,
    id: web::Path<String>,
    payload: web::Payload,
) -> Answered {
    read::no_query(&request)?;
    master.check_writable()?;
    let id = read::task_id(&id)?;
    let body: UpgradeBody = read::object(&read::body(&request, payload, limits::LARGE_BODY_BYTES).await?)?;
    check(&body)?;
    patiently(body.expected_version, async || try_upgrade(&master, id, &body).await).await?;
    tasks::answer(&master, id).await
}

/// Makes an upgrade anew while somebody else is faster: what was read is not what it is. A version that
/// was expected is no other than that.
pub(super) async fn patiently(
    expected: Option<u32>,
    attempt: impl AsyncFn() -> Result<Result<u32, Rejection>, Failure>,
) -> Result<(), Failure> {
    let (mut tries, mut pause) = (1, PAUSE);
    loop {
        let Err(rejection) = attempt().await? else { return Ok(()) };
        let passes = match rejection {
            Rejection::Busy => true,
            Rejection::OtherVersion { .. } => expected.is_none(),
            _ => false,
        };
        if !passes || tries == TRIES {
            return Err(rejection.into());
        }
        actix_rt::time::sleep(pause).await;
        (tries, pause) = (tries + 1, pause * 2);
    }
}

fn check(body: &UpgradeBody) -> Result<(), Failure> {
    let has_fields = body.new_spec.as_ref().is_some_and(|fields| !fields.is_empty());
    if body.new_title.is_none() && body.new_description.is_none() && !has_fields {
        return Err(Failure::field("", "nothing to change; allowed: new_title, new_description, new_spec"));
    }
    check_words(&body.upgrade_reason, body.author.as_deref())
}

/// Checks why an upgrade is made and by whom.
pub(super) fn check_words(reason: &str, author: Option<&str>) -> Result<(), Failure> {
    let is_clean = |text: &str, most| text.len() <= most && !text.contains('\0');
    if !is_clean(reason, REASON_BYTES) {
        return Err(Failure::field(
            "/upgrade_reason",
            format!("allowed: up to {REASON_BYTES} bytes without NUL"),
        ));
    }
    if author.is_some_and(|author| !is_clean(author, limits::NAME_BYTES)) {
        let most = limits::NAME_BYTES;
        return Err(Failure::field("/author", format!("allowed: up to {most} bytes without NUL")));
    }
    Ok(())
}

async fn try_upgrade(
    master: &Master,
    id: TaskId,
    body: &UpgradeBody,
) -> Result<Result<u32, Rejection>, Failure> {
    let record = tasks::record(master, id).await?;
    let current = record.state.version;
    if let Some(expected) = body.expected_version.filter(|expected| *expected != current) {
        return Ok(Err(Rejection::OtherVersion { expected, current }));
    }
    if let Some(node) = &record.run {
        let detail = format!("the task is node '{}' of run {}; upgrade the run", node.node, node.run);
        return Err(Failure::conflict(detail));
    }
    let old: Spec = serde_json::from_str(&record.spec_body).map_err(|error| Failure::internal(&error))?;
    let upgrade = Upgrade {
        title: body.new_title.as_deref(),
        description: body.new_description.as_deref(),
        fields: body.new_spec.as_ref(),
    };
    let (title, spec, named) = upgrade.apply(&record.title, &old).map_err(Problem::invalid)?;
    submit::check_sources(master, std::slice::from_ref(&named), "/new_spec").await?;
    let mut specs = [Arc::new(PreparedSpec::new(spec))];
    submit::keep_inputs(master, &mut specs).await?;
    let [spec] = specs;
    let new = NewVersion {
        task: id,
        from: current,
        base: record.spec,
        title: title.into(),
        spec,
        reason: body.upgrade_reason.as_str().into(),
        author: body.author.clone().unwrap_or_default().into(),
        first: record.title.into(),
        restart: body.restart,
        continue_from: body.continue_from,
    };
    match master.try_ask(Request::Upgrade(Box::new(new))).await? {
        Ok(Answer::Upgraded { version }) => Ok(Ok(version)),
        Ok(other) => Err(tasks::unexpected(&other)),
        Err(rejection) => Ok(Err(rejection)),
    }
}

/// Versions on a page unless the client says otherwise.
const USUAL_PAGE: usize = 100;

/// Query of the listings of versions.
#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct VersionsQuery {
    /// 1 to 1,000; 100 when absent. A page has fewer where versions are long.
    limit: Option<usize>,
    /// From the page before.
    cursor: Option<String>,
}

impl VersionsQuery {
    /// The version before the page, and how many it may have.
    pub(super) fn of(request: &HttpRequest) -> Result<(u32, usize), Failure> {
        let Self { limit, cursor } = read::query(request)?;
        let after = cursor.as_deref().map_or(Ok(0), |cursor| {
            let wrong = || format!("the query: '{cursor}' is no cursor of a listing of versions");
            cursor.parse().map_err(|_| Failure::new(422, "query", wrong()))
        })?;
        Ok((after, read::page_limit(limit, USUAL_PAGE)?))
    }
}

/// The versions of a task, each whole, the oldest first; the last one is the current.
#[utoipa::path(get, path = "/api/v2/tasks/{id}/versions", tag = "versions", params(("id" = String, Path), VersionsQuery),
    responses((status = 200, body = Versions<VersionView>), (status = 404, body = Problem), (status = 422, body = Problem)))]
pub(crate) async fn versions(
    master: web::Data<Master>,
    request: HttpRequest,
    id: web::Path<String>,
) -> Answered {
    let (after, limit) = VersionsQuery::of(&request)?;
    let id = read::task_id(&id)?;
    let record = tasks::record(&master, id).await?;
    let (rows, has_more) = master.read(move |readers| readers.versions(id, after, limit)).await?;
    let rows = if rows.is_empty() && after == 0 { vec![first(record)] } else { rows };
    let next_cursor = rows.last().filter(|_| has_more).map(|row| row.version.to_string());
    ok(&Versions { versions: rows.into_iter().map(view).collect(), next_cursor })
}

/// The one version of a task that was never upgraded.
fn first(record: TaskRecord) -> VersionRecord {
    VersionRecord {
        version: 1,
        title: record.title,
        spec_body: record.spec_body,
        reason: String::new(),
        author: String::new(),
        created_at: record.created_at,
    }
}

fn view(record: VersionRecord) -> VersionView {
    VersionView {
        version: record.version,
        title: record.title,
        reason: record.reason,
        author: Some(record.author).filter(|author| !author.is_empty()),
        created_at: record.created_at.into(),
        spec: serde_json::from_str(&record.spec_body).unwrap_or_default(),
    }
}

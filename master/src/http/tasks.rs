//! Reading and changing single tasks, and listing them.

use actix_web::{HttpRequest, web};
use agentflow_actors::GetProgress;
use agentflow_core::event::Subject;
use agentflow_core::ids::{RunId, TaskId};
use agentflow_core::kernel::{Again, Answer, Request};
use agentflow_core::rejection::Rejection;
use agentflow_core::spec::ContinueFrom;
use agentflow_core::status::Status;
use agentflow_core::why::Why;
use agentflow_protocol::Problem;
use agentflow_protocol::api::{
    AttemptView, Attempts, Nothing, PatchBody, Progress, TaskPage, TaskView, WhyView,
};
use agentflow_protocol::saved::ContinueBody;
use agentflow_protocol::submit::check_name;
use agentflow_schema::{Cursor, TaskFilter, TaskRecord};
use serde::Deserialize;

use super::answer::{Answered, Failure, ok};
use super::large::Elsewhere;
use super::{large, read, run_views, runs, settled, views};
use crate::state::Master;

/// Tasks on a page unless the client says otherwise.
const USUAL_PAGE: usize = 100;

/// Query of `GET /tasks`.
#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListQuery {
    /// One or more, separated by commas.
    status: Option<String>,
    /// Tasks of this group.
    group: Option<String>,
    /// Tasks of this run.
    run: Option<u64>,
    /// Tasks held or settled by this worker.
    worker: Option<String>,
    /// Tasks that require these labels, `KEY=VALUE`, separated by commas.
    label: Option<String>,
    /// 1 to 1,000; 100 when absent.
    limit: Option<usize>,
    /// From the page before.
    cursor: Option<String>,
}

/// Query of `GET /dead-letters`.
#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct DeadLetterQuery {
    /// Tasks of this group.
    group: Option<String>,
    /// Tasks of this run.
    run: Option<u64>,
    /// 1 to 1,000; 100 when absent.
    limit: Option<usize>,
    /// From the page before.
    cursor: Option<String>,
}

/// Query of `GET /tasks/{id}`.
#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct GetQuery {
    /// Holds the answer until the task has settled, at most this long (up to 600,000).
    wait_ms: Option<u64>,
}

/// Reads `KEY=VALUE`.
pub(crate) fn label(text: &str) -> Result<(String, String), String> {
    text.split_once('=')
        .map(|(key, value)| (key.trim().to_owned(), value.trim().to_owned()))
        .ok_or_else(|| format!("'{text}' is no label; write KEY=VALUE"))
}

impl ListQuery {
    fn filter(&self) -> Result<TaskFilter, String> {
        let parts = |text: &Option<String>| -> Vec<String> {
            text.iter().flat_map(|text| text.split(',')).map(|part| part.trim().to_owned()).collect()
        };
        let statuses = parts(&self.status).iter().map(|word| word.parse()).collect::<Result<_, _>>()?;
        let labels = parts(&self.label).iter().map(|text| label(text)).collect::<Result<_, _>>()?;
        let (group, worker) = (self.group.clone(), self.worker.clone());
        Ok(TaskFilter { statuses, group, worker, labels, run: self.run.map(RunId), ..TaskFilter::default() })
    }
}

/// Lists tasks by id, without payloads and results.
#[utoipa::path(get, path = "/api/v2/tasks", tag = "tasks", params(ListQuery),
    responses((status = 200, body = TaskPage, description = "A page may be short and not the last: only a missing `next_cursor` says so"), (status = 422, body = Problem)))]
pub(crate) async fn list(master: web::Data<Master>, request: HttpRequest) -> Answered {
    page(&master, read::query(&request)?).await
}

/// Tasks that failed and will not be tried again, with why; `retry` gives them another chance.
#[utoipa::path(get, path = "/api/v2/dead-letters", tag = "tasks", params(DeadLetterQuery),
    responses((status = 200, body = TaskPage), (status = 422, body = Problem)))]
pub(crate) async fn dead_letters(master: web::Data<Master>, request: HttpRequest) -> Answered {
    let DeadLetterQuery { group, run, limit, cursor } = read::query(&request)?;
    let status = Some(Status::Failed.word().to_owned());
    page(&master, ListQuery { status, group, run, limit, cursor, worker: None, label: None }).await
}

async fn page(master: &Master, query: ListQuery) -> Answered {
    let wrong = |why: String| Failure::new(422, "query", format!("the query: {why}"));
    let filter = query.filter().map_err(wrong)?;
    let cursor: Option<Cursor> = query.cursor.as_deref().map(str::parse).transpose().map_err(wrong)?;
    let limit = read::page_limit(query.limit, USUAL_PAGE)?;
    let (tasks, next) = master.read(move |readers| readers.tasks(&filter, cursor, limit)).await?;
    ok(&TaskPage {
        tasks: tasks.into_iter().map(views::summary).collect(),
        next_cursor: next.map(|cursor| cursor.to_string()),
    })
}

/// One task; with `wait_ms`, when it has settled or the time is over.
#[utoipa::path(get, path = "/api/v2/tasks/{id}", tag = "tasks", params(("id" = String, Path), GetQuery),
    responses((status = 200, body = TaskView), (status = 404, body = Problem)))]
pub(crate) async fn get(master: web::Data<Master>, request: HttpRequest, id: web::Path<String>) -> Answered {
    let query: GetQuery = read::query(&request)?;
    let id = read::task_id(&id)?;
    let read = async || record(&master, id).await;
    let is_settled = |record: &TaskRecord| record.state.status.is_settled();
    let record = settled::wait(&master, Subject::Task(id), query.wait_ms, read, is_settled).await?;
    large::ok(&master, with_progress(&master, record).await?).await
}

/// A running attempt's progress is in no row: its conversation knows it.
async fn with_progress(master: &Master, record: TaskRecord) -> Result<(TaskView, Elsewhere), Failure> {
    let (id, is_running) = (record.id, record.state.status == Status::Running);
    let (mut view, elsewhere) = views::task(record);
    if is_running {
        let progress = master.handles.dispatcher.send(GetProgress(id)).await?;
        view.progress = progress.map(|of| Progress { percent: of.percent, message: of.message });
    }
    Ok((view, elsewhere))
}

/// Stops a task: a waiting one at once, a running one with its process group.
#[utoipa::path(post, path = "/api/v2/tasks/{id}/cancel", tag = "tasks", params(("id" = String, Path)),
    responses((status = 200, body = TaskView), (status = 404, body = Problem), (status = 409, body = Problem, description = "It is settled")))]
pub(crate) async fn cancel(
    master: web::Data<Master>,
    request: HttpRequest,
    id: web::Path<String>,
    payload: web::Payload,
) -> Answered {
    act(&master, &request, &id, payload, |id| Request::Cancel { tasks: vec![id] }, "cancelling").await
}

/// Runs a settled task again, from its newest checkpoint unless it is to begin at the beginning.
#[utoipa::path(post, path = "/api/v2/tasks/{id}/retry", tag = "tasks", params(("id" = String, Path)), request_body = ContinueBody,
    responses((status = 200, body = TaskView), (status = 404, body = Problem), (status = 409, body = Problem, description = "It is not settled")))]
pub(crate) async fn retry(
    master: web::Data<Master>,
    request: HttpRequest,
    id: web::Path<String>,
    payload: web::Payload,
) -> Answered {
    read::no_query(&request)?;
    master.check_writable()?;
    let id = read::task_id(&id)?;
    let ContinueBody { continue_from } = read::json_or_nothing(&request, payload).await?;
    change(&master, id, Request::Retry { tasks: vec![id], continue_from }, "a retry").await
}

pub(crate) async fn act(
    master: &Master,
    request: &HttpRequest,
    id: &str,
    payload: web::Payload,
    ask: impl FnOnce(TaskId) -> Request,
    action: &'static str,
) -> Answered {
    read::no_query(request)?;
    master.check_writable()?;
    let id = read::task_id(id)?;
    let Nothing {} = read::json_or_nothing(request, payload).await?;
    change(master, id, ask(id), action).await
}

/// Changes the priority or the group of a task that waits.
#[utoipa::path(patch, path = "/api/v2/tasks/{id}", tag = "tasks", params(("id" = String, Path)), request_body = PatchBody,
    responses((status = 200, body = TaskView), (status = 404, body = Problem), (status = 409, body = Problem, description = "It is not waiting"), (status = 422, body = Problem)))]
pub(crate) async fn patch(
    master: web::Data<Master>,
    request: HttpRequest,
    id: web::Path<String>,
    payload: web::Payload,
) -> Answered {
    read::no_query(&request)?;
    master.check_writable()?;
    let id = read::task_id(&id)?;
    let body: PatchBody = read::json(&request, payload).await?;
    if body.priority.is_none() && body.group.is_none() {
        return Err(Failure::field("", "nothing to change; allowed: priority, group"));
    }
    let priority = body.priority.map(|priority| priority.number()).transpose();
    let priority = priority.map_err(|why| Failure::field("/priority", why))?;
    if let Some(group) = &body.group {
        check_name(group).map_err(|why| Failure::field("/group", why))?;
    }
    let group = body.group.map(Into::into);
    change(&master, id, Request::Patch { tasks: vec![id], priority, group }, "a change").await
}

/// Asks for one task and answers with its new state.
pub(crate) async fn change(master: &Master, id: TaskId, request: Request, action: &'static str) -> Answered {
    let continue_from = match &request {
        Request::Retry { continue_from, .. } => *continue_from,
        _ => ContinueFrom::default(),
    };
    match master.ask(request).await? {
        Answer::Changed { mut refused, .. } => match refused.pop() {
            None => answer(master, id).await,
            // The kernel knows live tasks only.
            Some((_, Rejection::UnknownTask(_))) => {
                let record = record(master, id).await?;
                let status = record.state.status;
                let needs = match record.run {
                    Some(node) if !status.is_settled() => {
                        format!(
                            "it is a node of run {} that has not begun; cancel or pause the run",
                            node.run
                        )
                    }
                    _ => format!("{action} needs one that is not settled"),
                };
                Err(Failure::conflict(format!("the task is {status}; {needs}")))
            }
            // A node of a run: what was skipped because of it follows.
            Some((_, Rejection::PartOfRun(run))) => {
                retry_node(master, run, id, continue_from).await?;
                answer(master, id).await
            }
            Some((_, rejection)) => Err(rejection.into()),
        },
        other => Err(unexpected(&other)),
    }
}

async fn retry_node(
    master: &Master,
    run: RunId,
    id: TaskId,
    continue_from: ContinueFrom,
) -> Result<(), Failure> {
    let node = record(master, id).await?.run.map(|node| node.node).unwrap_or_default();
    if node.contains('~') {
        let detail = format!("an upgrade of run {run} has taken this node out, which is '{node}' now");
        return Err(Failure::conflict(detail));
    }
    // In a pipeline with items a node itself is called so.
    let is_item = node.contains('[') && runs::record(master, run).await?.row.numbers.node_of(id).is_none();
    if is_item {
        let whole = node.split('[').next().unwrap_or_default();
        let detail = format!("the task is an item of node '{whole}' of run {run}; retry that one");
        return Err(Failure::conflict(detail));
    }
    let from = vec![node.as_ref().into()];
    runs::again(master, Again { run, from, only_skipped: true, continue_from, change: None }).await
}

/// The reasons why a task is not running.
#[utoipa::path(get, path = "/api/v2/tasks/{id}/why", tag = "tasks", params(("id" = String, Path)),
    responses((status = 200, body = WhyView), (status = 404, body = Problem)))]
pub(crate) async fn why(master: web::Data<Master>, request: HttpRequest, id: web::Path<String>) -> Answered {
    read::no_query(&request)?;
    let id = read::task_id(&id)?;
    match master.try_ask(Request::Why { task: id }).await? {
        Ok(Answer::Why(why)) => ok(&views::why(*why)),
        Ok(other) => Err(unexpected(&other)),
        // The kernel knows live tasks only; a settled one waits for nothing.
        Err(Rejection::UnknownTask(_)) => {
            let status = record(&master, id).await?.state.status;
            ok(&views::why(Why { task: id, status, reasons: Vec::new() }))
        }
        Err(rejection) => Err(rejection.into()),
    }
}

/// Every attempt of a task, oldest first.
#[utoipa::path(get, path = "/api/v2/tasks/{id}/attempts", tag = "tasks", params(("id" = String, Path)),
    responses((status = 200, body = Attempts), (status = 404, body = Problem)))]
pub(crate) async fn attempts(
    master: web::Data<Master>,
    request: HttpRequest,
    id: web::Path<String>,
) -> Answered {
    read::no_query(&request)?;
    let id = read::task_id(&id)?;
    let record = record(&master, id).await?;
    ok(&Attempts { attempts: all_attempts(&master, &record).await? })
}

/// Every attempt of a task, oldest first.
pub(crate) async fn all_attempts(master: &Master, record: &TaskRecord) -> Result<Vec<AttemptView>, Failure> {
    let id = record.id;
    let rows = master.read(move |readers| readers.attempts(id)).await?;
    let mut attempts: Vec<_> = rows.into_iter().map(views::attempt).collect();
    if let Some(latest) = views::latest_attempt(record)
        && attempts.last().is_none_or(|last| last.fence < latest.fence)
    {
        attempts.push(latest);
    }
    Ok(attempts)
}

/// What a refusal means for a task that the kernel may not know: it knows live ones only.
pub(crate) async fn not_live(master: &Master, id: TaskId, rejection: Rejection, what: &str) -> Failure {
    if !matches!(rejection, Rejection::UnknownTask(_)) {
        return rejection.into();
    }
    match record(master, id).await {
        Ok(record) if record.state.status.is_settled() => Failure::conflict(format!(
            "the task is {}; {what} needs one that is not settled",
            record.state.status
        )),
        Ok(_) => {
            Failure::conflict(format!("it is a node of a run and has not begun; {what} needs one that has"))
        }
        Err(failure) => failure,
    }
}

/// A task's row. A number that a run has given to a node of which nothing has become yet has none: the
/// run answers for it.
pub(crate) async fn record(master: &Master, id: TaskId) -> Result<TaskRecord, Failure> {
    let record = master.read(move |readers| match readers.task(id)? {
        Some(record) => Ok(Some(record)),
        None => Ok(readers.run_with_node(id)?.and_then(|run| run_views::unwritten_task(&run, id))),
    });
    record.await?.ok_or_else(|| Rejection::UnknownTask(id).into())
}

/// Answers with a task as it stands.
pub(crate) async fn answer(master: &Master, id: TaskId) -> Answered {
    large::ok(master, views::task(record(master, id).await?)).await
}

/// An answer that does not belong to the question: a mistake in this program.
pub(crate) fn unexpected(answer: &Answer) -> Failure {
    log::error!("the kernel gave an answer to another question: {answer:?}");
    Failure::new(500, "internal", "the master failed at this; its log says why")
}

/// Whether a status may still change by itself.
pub(crate) fn live() -> Vec<Status> {
    Status::ALL.into_iter().filter(|status| !status.is_settled()).collect()
}

//! Runs of workflows: begun, read, and controlled.

use std::borrow::Cow;

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use agentflow_core::event::Subject;
use agentflow_core::ids::RunId;
use agentflow_core::kernel::{Again, Answer, Fork, NewRun, PreparedRun, Request, RunAction, RunWhy};
use agentflow_core::limits;
use agentflow_core::rejection::Rejection;
use agentflow_core::run::RunStatus;
use agentflow_core::spec::ContinueFrom;
use agentflow_protocol::Problem;
use agentflow_protocol::api::Nothing;
use agentflow_protocol::runs::{
    DryRun, GraphView, NodeWhyView, RerunBody, RunBody, RunPage, RunView, RunWhyView,
};
use agentflow_protocol::workflow::{definition_of, field_errors, instantiated};
use agentflow_schema::{RunCursor, RunFilter, RunRecord};
use agentflow_workflow::Definition;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::answer::{Answered, Failure, ok};
use super::{read, run_views, settled, submit, tasks, views};
use crate::state::Master;

/// Runs on a page unless the client says otherwise.
const USUAL_PAGE: usize = 100;

/// Query of routes that can be tried without effect.
#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct StartQuery {
    /// `1` or `true`: validate and plan, and make nothing.
    pub(super) dry_run: Option<String>,
}

/// Begins a run of a workflow.
#[utoipa::path(post, path = "/api/v2/runs", tag = "runs",
    params(StartQuery, ("Idempotency-Key" = Option<String>, Header, description = "The same key with the same body makes nothing new")),
    request_body = RunBody,
    responses((status = 201, body = RunView), (status = 200, body = DryRun, description = "For `dry_run`"),
        (status = 409, body = Problem, description = "The key was used with another body"),
        (status = 422, body = Problem, description = "Everything that is wrong with the workflow; with line and column if it was sent as text"),
        (status = 429, body = Problem), (status = 503, body = Problem)))]
pub(crate) async fn start(
    master: web::Data<Master>,
    request: HttpRequest,
    payload: web::Payload,
) -> Answered {
    let query: StartQuery = read::query(&request)?;
    let is_dry = dry_run(query.dry_run.as_deref())?;
    let body = read::body(&request, payload, limits::LARGE_BODY_BYTES).await?;
    let header_key = submit::header_key(&request)?;
    let read: RunBody = read::object(&body)?;
    let key = match (header_key, read.idempotency_key.clone()) {
        (Some(header), Some(field)) if header != field => {
            let detail = "is not the same as the header Idempotency-Key; send one of them";
            return Err(Failure::field("/idempotency_key", detail));
        }
        (Some(key), _) => Some(key),
        (None, field) => field.map(Cow::Owned),
    };
    let key = key.map(|key| submit::submit_key(&key, "run", &body));
    // A large workflow takes its time, and this thread serves others.
    let prepared = web::block(move || prepare(read)).await??;
    if is_dry {
        return ok(&dry(&prepared.prepared));
    }
    master.check_writable()?;
    if let Some(row) = submit::find(&master, key).await? {
        return created(&master, RunId(row.first.0)).await;
    }
    match master.ask(Request::StartRun { run: Box::new(prepared), key }).await? {
        Answer::RunStarted { run, .. } => created(&master, run).await,
        other => Err(tasks::unexpected(&other)),
    }
}

/// Reads a flag of a query.
pub(crate) fn dry_run(text: Option<&str>) -> Result<bool, Failure> {
    match text {
        None | Some("0" | "false") => Ok(false),
        Some("1" | "true" | "") => Ok(true),
        Some(other) => {
            Err(Failure::new(422, "query", format!("dry_run: '{other}' is not allowed; write dry_run=1")))
        }
    }
}

fn prepare(body: RunBody) -> Result<NewRun, Failure> {
    let RunBody { workflow, vars, inputs, .. } = body;
    let definition = definition_of(&workflow, &vars, &inputs).map_err(Problem::invalid)?;
    Ok(NewRun { prepared: PreparedRun::new(definition), inputs })
}

fn dry(prepared: &PreparedRun) -> DryRun {
    let definition = &prepared.definition;
    let names = |level: Vec<&str>| level.into_iter().map(str::to_owned).collect();
    DryRun {
        name: definition.name.to_string(),
        mode: definition.mode.to_string(),
        plan: definition.plan_names().into_iter().map(names).collect(),
        node_count: u32::try_from(definition.nodes.len()).unwrap_or(u32::MAX),
        definition: format!("{:?}", prepared.hash),
    }
}

async fn created(master: &Master, id: RunId) -> Answered {
    let view = view(master, id).await?;
    let text = serde_json::to_vec(&view).unwrap_or_default();
    Ok(HttpResponse::build(StatusCode::CREATED)
        .insert_header(("location", format!("/api/v2/runs/{id}")))
        .content_type("application/json")
        .body(text))
}

/// Query of `GET /runs`.
#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListQuery {
    /// One or more, separated by commas.
    status: Option<String>,
    /// Runs of workflows of this name.
    name: Option<String>,
    /// 1 to 1,000; 100 when absent.
    limit: Option<usize>,
    /// From the page before.
    cursor: Option<String>,
}

/// Lists runs, the newest first, without their nodes.
#[utoipa::path(get, path = "/api/v2/runs", tag = "runs", params(ListQuery),
    responses((status = 200, body = RunPage), (status = 422, body = Problem)))]
pub(crate) async fn list(master: web::Data<Master>, request: HttpRequest) -> Answered {
    let query: ListQuery = read::query(&request)?;
    let wrong = |why: String| Failure::new(422, "query", format!("the query: {why}"));
    let words = query.status.iter().flat_map(|text| text.split(',')).map(str::trim);
    let statuses: Vec<RunStatus> = words.map(str::parse).collect::<Result<_, _>>().map_err(wrong)?;
    let cursor: Option<RunCursor> = query.cursor.as_deref().map(str::parse).transpose().map_err(wrong)?;
    let limit = read::page_limit(query.limit, USUAL_PAGE)?;
    let filter = RunFilter { statuses, name: query.name };
    let (runs, next) = master.read(move |readers| readers.runs(&filter, cursor, limit)).await?;
    ok(&RunPage {
        runs: runs.into_iter().map(run_views::summary).collect(),
        next_cursor: next.map(|cursor| cursor.to_string()),
    })
}

/// Query of `GET /runs/{id}`.
#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct GetQuery {
    /// Holds the answer until the run has ended, at most this long (up to 600,000).
    wait_ms: Option<u64>,
}

/// One run with its nodes; with `wait_ms`, when it has ended or the time is over.
#[utoipa::path(get, path = "/api/v2/runs/{id}", tag = "runs", params(("id" = u64, Path), GetQuery),
    responses((status = 200, body = RunView), (status = 404, body = Problem)))]
pub(crate) async fn get(master: web::Data<Master>, request: HttpRequest, id: web::Path<String>) -> Answered {
    let query: GetQuery = read::query(&request)?;
    let id = run_id(&id)?;
    let read = async || record(&master, id).await;
    let is_settled = |record: &RunRecord| record.row.state.status.is_settled();
    let record = settled::wait(&master, Subject::Run(id), query.wait_ms, read, is_settled).await?;
    ok(&full(&master, record).await?)
}

/// The nodes, what comes before what, the levels, and a Mermaid flowchart.
#[utoipa::path(get, path = "/api/v2/runs/{id}/graph", tag = "runs", params(("id" = u64, Path)),
    responses((status = 200, body = GraphView), (status = 404, body = Problem)))]
pub(crate) async fn graph(
    master: web::Data<Master>,
    request: HttpRequest,
    id: web::Path<String>,
) -> Answered {
    read::no_query(&request)?;
    let record = record(&master, run_id(&id)?).await?;
    let view = master.read(move |readers| run_views::graph(readers, &record)).await?;
    ok(&view.map_err(damaged)?)
}

/// Starts nothing new until `resume`; what runs may finish.
#[utoipa::path(post, path = "/api/v2/runs/{id}/pause", tag = "runs", params(("id" = u64, Path)),
    responses((status = 200, body = RunView), (status = 404, body = Problem), (status = 409, body = Problem)))]
pub(crate) async fn pause(
    master: web::Data<Master>,
    request: HttpRequest,
    id: web::Path<String>,
    payload: web::Payload,
) -> Answered {
    control(&master, &request, &id, payload, RunAction::Pause).await
}

/// Goes on after `pause`.
#[utoipa::path(post, path = "/api/v2/runs/{id}/resume", tag = "runs", params(("id" = u64, Path)),
    responses((status = 200, body = RunView), (status = 404, body = Problem), (status = 409, body = Problem)))]
pub(crate) async fn resume(
    master: web::Data<Master>,
    request: HttpRequest,
    id: web::Path<String>,
    payload: web::Payload,
) -> Answered {
    control(&master, &request, &id, payload, RunAction::Resume).await
}

/// Stops what runs, with its process groups, and never begins the rest.
#[utoipa::path(post, path = "/api/v2/runs/{id}/cancel", tag = "runs", params(("id" = u64, Path)),
    responses((status = 200, body = RunView), (status = 404, body = Problem), (status = 409, body = Problem)))]
pub(crate) async fn cancel(
    master: web::Data<Master>,
    request: HttpRequest,
    id: web::Path<String>,
    payload: web::Payload,
) -> Answered {
    control(&master, &request, &id, payload, RunAction::Cancel).await
}

async fn control(
    master: &Master,
    request: &HttpRequest,
    id: &str,
    payload: web::Payload,
    action: RunAction,
) -> Answered {
    read::no_query(request)?;
    master.check_writable()?;
    let id = run_id(id)?;
    let Nothing {} = read::json_or_nothing(request, payload).await?;
    match master.try_ask(Request::ControlRun { run: id, action }).await? {
        Ok(Answer::Done) => ok(&view(master, id).await?),
        Ok(other) => Err(tasks::unexpected(&other)),
        // The kernel knows live runs only.
        Err(Rejection::UnknownRun(_)) => {
            let status = record(master, id).await?.row.state.status;
            Err(Failure::conflict(format!("the run is {status}; that needs one that has not ended")))
        }
        Err(rejection) => Err(rejection.into()),
    }
}

/// Runs a part of a run again: what is named and everything after it, or what failed. `dry_run` says
/// what that is.
#[utoipa::path(post, path = "/api/v2/runs/{id}/rerun", tag = "runs", params(("id" = u64, Path), StartQuery), request_body = RerunBody,
    responses((status = 200, body = RunView, description = "For `dry_run` a `RerunPreview`"), (status = 404, body = Problem),
        (status = 409, body = Problem, description = "What is to run again is at work, or nothing failed"), (status = 422, body = Problem)))]
pub(crate) async fn rerun(
    master: web::Data<Master>,
    request: HttpRequest,
    id: web::Path<String>,
    payload: web::Payload,
) -> Answered {
    let query: StartQuery = read::query(&request)?;
    let is_dry = dry_run(query.dry_run.as_deref())?;
    let id = run_id(&id)?;
    let body: RerunBody = read::json_or_nothing(&request, payload).await?;
    let record = record(&master, id).await?;
    if let Some(parent) = record.row.birth.parent {
        let detail = format!("run {id} is task {parent} of another run; rerun that one, from that task");
        return Err(Failure::conflict(detail));
    }
    if is_dry {
        let from = body.from;
        let preview = master.read(move |readers| run_views::preview(readers, &record, &from)).await?;
        return ok(&preview.map_err(|why| Failure::field("/from", why))?);
    }
    master.check_writable()?;
    let change = web::block(move || other_values(&record, body.vars, body.inputs)).await??;
    let from = body.from.into_iter().map(Into::into).collect();
    let continue_from = ContinueFrom::Beginning;
    again(&master, Again { run: id, from, only_skipped: false, continue_from, change }).await?;
    ok(&view(&master, id).await?)
}

/// A new run that takes over what completed in this one: what is named, what failed and everything
/// after it runs again, there. This run stays as it is.
#[utoipa::path(post, path = "/api/v2/runs/{id}/fork", tag = "runs", params(("id" = u64, Path)), request_body = RerunBody,
    responses((status = 201, body = RunView), (status = 404, body = Problem),
        (status = 409, body = Problem, description = "Nothing failed and no node is named"), (status = 422, body = Problem)))]
pub(crate) async fn fork(
    master: web::Data<Master>,
    request: HttpRequest,
    id: web::Path<String>,
    payload: web::Payload,
) -> Answered {
    read::no_query(&request)?;
    master.check_writable()?;
    let id = run_id(&id)?;
    let body: RerunBody = read::json_or_nothing(&request, payload).await?;
    let record = record(&master, id).await?;
    if let Some(parent) = record.row.birth.parent {
        let detail = format!("run {id} is task {parent} of another run; fork that one, from that task");
        return Err(Failure::conflict(detail));
    }
    let change = web::block(move || other_values(&record, body.vars, body.inputs)).await??;
    let from = body.from.into_iter().map(Into::into).collect();
    match master.ask(Request::Fork(Box::new(Fork { run: id, from, change }))).await? {
        Answer::RunStarted { run, .. } => created(&master, run).await,
        other => Err(tasks::unexpected(&other)),
    }
}

/// Asks for a part of a run to run again.
pub(crate) async fn again(master: &Master, again: Again) -> Result<(), Failure> {
    match master.ask(Request::Rerun(Box::new(again))).await? {
        Answer::Done => Ok(()),
        other => Err(tasks::unexpected(&other)),
    }
}

/// The run's workflow and inputs with other values in them, if there are any.
fn other_values(
    record: &RunRecord,
    vars: Option<Map<String, Value>>,
    inputs: Option<Value>,
) -> Result<Option<(PreparedRun, Value)>, Failure> {
    if vars.is_none() && inputs.is_none() {
        return Ok(None);
    }
    let definition =
        Definition::from_json(&record.definition_body).map_err(|error| damaged(error.to_string()))?;
    let old = || serde_json::from_str(&record.row.birth.inputs).unwrap_or_default();
    let inputs = inputs.unwrap_or_else(old);
    let definition = instantiated(definition, &vars.unwrap_or_default(), &inputs)
        .map_err(|wrong| Problem::invalid(field_errors(&wrong)))?;
    Ok(Some((PreparedRun::new(definition), inputs)))
}

/// What holds up each node that has not begun.
#[utoipa::path(get, path = "/api/v2/runs/{id}/why", tag = "runs", params(("id" = u64, Path)),
    responses((status = 200, body = RunWhyView), (status = 404, body = Problem)))]
pub(crate) async fn why(master: web::Data<Master>, request: HttpRequest, id: web::Path<String>) -> Answered {
    read::no_query(&request)?;
    let id = run_id(&id)?;
    let why = match master.try_ask(Request::WhyRun { run: id }).await? {
        Ok(Answer::WhyRun(why)) => why,
        Ok(other) => return Err(tasks::unexpected(&other)),
        Err(Rejection::UnknownRun(_)) => RunWhy::default(),
        Err(rejection) => return Err(rejection.into()),
    };
    let status = record(&master, id).await?.row.state.status;
    let node = |node: agentflow_core::kernel::NodeWhy| NodeWhyView {
        name: node.name.as_ref().to_owned(),
        task_id: node.task.0,
        reasons: node.reasons.into_iter().map(views::reason).collect(),
    };
    let nodes = why.nodes.into_iter().map(node).collect();
    ok(&RunWhyView { run_id: id.0, status, nodes, more: why.more })
}

/// Reads a run's id as it stands in a path.
pub(crate) fn run_id(text: &str) -> Result<RunId, Failure> {
    match text.parse() {
        Ok(0) | Err(_) => Err(Failure::not_found(format!(
            "there is no run '{text}'; an id is a number from 1; see /api/v2/runs"
        ))),
        Ok(id) => Ok(RunId(id)),
    }
}

pub(crate) async fn record(master: &Master, id: RunId) -> Result<RunRecord, Failure> {
    let record = master.read(move |readers| readers.run(id)).await?;
    record.ok_or_else(|| Failure::not_found(format!("there is no run {id}; see /api/v2/runs")))
}

pub(super) async fn view(master: &Master, id: RunId) -> Result<RunView, Failure> {
    let record = record(master, id).await?;
    full(master, record).await
}

async fn full(master: &Master, record: RunRecord) -> Result<RunView, Failure> {
    let view = master.read(move |readers| run_views::full(readers, &record)).await?;
    view.map_err(damaged)
}

/// The answer about a run whose rows cannot be read.
pub(super) fn damaged(reason: String) -> Failure {
    log::error!("a run cannot be shown: {reason}");
    Failure::new(500, "internal", "the master failed at this; its log says why")
}

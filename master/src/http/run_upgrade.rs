//! Another workflow for a run: given, tried without effect, and the versions that are left.

use std::sync::Arc;

use actix_web::{HttpRequest, web};
use agentflow_core::batch::{RunVersionRow, Waits};
use agentflow_core::ids::{RunId, TaskId};
use agentflow_core::kernel::{Answer, PreparedRun, Request, UpgradeRun};
use agentflow_core::limits;
use agentflow_core::rejection::Rejection;
use agentflow_core::run::mapping::{Change, Mapping, MappingError, Named, Standing, Wish};
use agentflow_core::status::Status;
use agentflow_protocol::Problem;
use agentflow_protocol::run_upgrade::{
    NodeFate, RemovedNode, RunUpgradeBody, RunUpgradePreview, RunVersionView,
};
use agentflow_protocol::runs::RunView;
use agentflow_protocol::saved::Versions;
use agentflow_protocol::workflow::upgraded_definition;
use agentflow_schema::{NodeRecord, RunRecord, RunVersionRecord};
use agentflow_workflow::Definition;
use serde_json::Value;

use super::answer::{Answered, Failure, ok};
use super::versions::VersionsQuery;
use super::{read, run_views, runs, tasks, versions};
use crate::state::Master;

/// Gives a run another workflow, while it runs or after it has ended. What has ended stays as it
/// ended, what is at work finishes as it began, and the rest does what the new workflow says, unless
/// `restart_from` or `restart` say otherwise. `dry_run` says what would become of each node.
#[utoipa::path(post, path = "/api/v2/runs/{id}/upgrade", tag = "versions", params(("id" = u64, Path), runs::StartQuery), request_body = RunUpgradeBody,
    responses((status = 200, body = RunView, description = "For `dry_run` a `RunUpgradePreview`"), (status = 404, body = Problem),
        (status = 409, body = Problem, description = "The run has another version than `expected_version`, is being stopped, or has work that would be lost; or nothing would run"),
        (status = 422, body = Problem, description = "Everything that is wrong with the workflow; with line and column if it was sent as text")))]
pub(crate) async fn upgrade(
    master: web::Data<Master>,
    request: HttpRequest,
    id: web::Path<String>,
    payload: web::Payload,
) -> Answered {
    let query: runs::StartQuery = read::query(&request)?;
    let is_dry = runs::dry_run(query.dry_run.as_deref())?;
    let id = runs::run_id(&id)?;
    let body: RunUpgradeBody = read::object(&read::body(&request, payload, limits::LARGE_BODY_BYTES).await?)?;
    versions::check_words(&body.upgrade_reason, body.author.as_deref())?;
    let body = Arc::new(body);
    if is_dry {
        let planned = plan(&master, id, &body).await?;
        let preview = master.read(move |readers| {
            let rows = run_views::rows(readers, &planned.record)?;
            let outdated = readers.outdated_nodes(id)?;
            Ok(planned.preview(&rows.nodes, &outdated, body.restart))
        });
        return ok(&preview.await??);
    }
    master.check_writable()?;
    versions::patiently(body.expected_version, async || try_upgrade(&master, id, &body).await).await?;
    ok(&runs::view(&master, id).await?)
}

async fn try_upgrade(
    master: &Master,
    id: RunId,
    body: &Arc<RunUpgradeBody>,
) -> Result<Result<u32, Rejection>, Failure> {
    let planned = plan(master, id, body).await?;
    let upgrade = UpgradeRun {
        run: id,
        from: planned.record.row.state.version,
        prepared: planned.new,
        inputs: planned.inputs,
        map: planned.named,
        restart_from: planned.starts,
        restart: body.restart,
        reason: body.upgrade_reason.as_str().into(),
        author: body.author.as_deref().unwrap_or_default().into(),
    };
    match master.try_ask(Request::UpgradeRun(Box::new(upgrade))).await? {
        Ok(Answer::Upgraded { version }) => Ok(Ok(version)),
        Ok(other) => Err(tasks::unexpected(&other)),
        Err(rejection) => Ok(Err(rejection)),
    }
}

/// An upgrade whose form is right.
struct Planned {
    record: RunRecord,
    old: Definition,
    old_inputs: Value,
    new: PreparedRun,
    kept_vars: Vec<String>,
    inputs: Value,
    named: Named,
    starts: Vec<Box<str>>,
}

/// Reads the run, and the workflow for it.
async fn plan(master: &Master, id: RunId, body: &Arc<RunUpgradeBody>) -> Result<Planned, Failure> {
    let record = runs::record(master, id).await?;
    let (state, parent) = (&record.row.state, record.row.birth.parent);
    if let Some(expected) = body.expected_version.filter(|expected| *expected != state.version) {
        return Err(Rejection::OtherVersion { expected, current: state.version }.into());
    }
    if let Some(parent) = parent.filter(|_| state.status.is_settled()) {
        let detail = format!("run {id} is task {parent} of another run; upgrade that one");
        return Err(Failure::conflict(detail));
    }
    let body = Arc::clone(body);
    // A large workflow takes its time, and this thread serves others.
    web::block(move || Planned::new(record, &body)).await?
}

impl Planned {
    fn new(record: RunRecord, body: &RunUpgradeBody) -> Result<Self, Failure> {
        let old = Definition::from_json(&record.definition_body)
            .map_err(|error| runs::damaged(error.to_string()))?;
        let old_inputs: Value = serde_json::from_str(&record.row.birth.inputs).unwrap_or_default();
        let inputs = body.inputs.clone().unwrap_or_else(|| old_inputs.clone());
        let (new, kept_vars) = upgraded_definition(&body.workflow, &old.vars, body.vars.as_ref(), &inputs)
            .map_err(Problem::invalid)?;
        let new = PreparedRun::new(new);
        let (named, starts) = (body.named(), body.starts());
        let planned = Self { record, old, old_inputs, new, kept_vars, inputs, named, starts };
        planned.mapping(body.restart, |_| Standing::Waiting).map_err(Rejection::from)?;
        Ok(planned)
    }

    fn mapping(&self, restart: bool, standing: impl Fn(u32) -> Standing) -> Result<Mapping, MappingError> {
        let change = Change {
            old: &self.old,
            old_inputs: &self.old_inputs,
            new: &self.new.definition,
            new_inputs: &self.inputs,
        };
        Mapping::new(change, &self.named, Wish { restart_from: &self.starts, restart }, standing)
    }

    /// What would become of each node, as the rows of the old ones stand.
    fn preview(
        &self,
        rows: &[Option<NodeRecord>],
        outdated: &[TaskId],
        restart: bool,
    ) -> Result<RunUpgradePreview, Rejection> {
        let row = |old: u32| rows.get(old as usize).and_then(Option::as_ref);
        let standing = |old: u32| row(old).map_or(Standing::Waiting, |row| standing(row, outdated));
        let mapping = self.mapping(restart, standing)?;
        let state = &self.record.row.state;
        if state.stopping.is_some() {
            let needs = "one that is not being stopped";
            return Err(Rejection::IllegalRun { status: state.status, action: "an upgrade", needs });
        }
        if state.status.is_settled() && !mapping.has_work() {
            return Err(Rejection::NothingToRun(self.record.row.id));
        }
        let numbers = &self.record.row.numbers;
        let old_name = |old: u32| self.old.nodes[old as usize].name.to_string();
        let status = |old: u32| row(old).map_or(Status::Blocked, |row| row.status);
        let nodes = self.new.definition.nodes.iter().zip(&mapping.nodes).map(|(node, mapped)| NodeFate {
            name: node.name.to_string(),
            task_id: mapped.old.map(|old| numbers.task_of(old).0),
            was: mapped.old.map(old_name).filter(|was| **was != *node.name),
            status: mapped.old.map(status),
            fate: mapped.fate.as_str().to_owned(),
        });
        let removed = mapping.removed.iter().map(|(old, fate)| RemovedNode {
            name: old_name(*old),
            task_id: numbers.task_of(*old).0,
            status: status(*old),
            fate: fate.as_str().to_owned(),
        });
        let refused = mapping.refused(&self.old, &self.new.definition).map(str::to_owned);
        Ok(RunUpgradePreview {
            version: state.version + 1,
            nodes: nodes.collect(),
            removed: removed.collect(),
            refused: refused.collect(),
            kept_vars: self.kept_vars.clone(),
        })
    }
}

/// Where a node stands, by its row.
fn standing(row: &NodeRecord, outdated: &[TaskId]) -> Standing {
    match row.status {
        status if status.is_settled() => Standing::Ended(status),
        Status::Running if row.waits == Some(Waits::Parts) => Standing::Parts,
        Status::Running | Status::Pending if row.waits.is_some() || row.worker.is_none() => Standing::Waiting,
        Status::Running | Status::Pending if row.cancelling => Standing::Stopping,
        Status::Running | Status::Pending if outdated.binary_search(&row.task).is_ok() => Standing::Outdated,
        Status::Running | Status::Pending => Standing::AtWork,
        _ => Standing::Waiting,
    }
}

/// The versions of a run, each whole, the oldest first; the last one is the current.
#[utoipa::path(get, path = "/api/v2/runs/{id}/versions", tag = "versions", params(("id" = u64, Path), VersionsQuery),
    responses((status = 200, body = Versions<RunVersionView>), (status = 404, body = Problem), (status = 422, body = Problem)))]
pub(crate) async fn versions(
    master: web::Data<Master>,
    request: HttpRequest,
    id: web::Path<String>,
) -> Answered {
    let (after, limit) = VersionsQuery::of(&request)?;
    let id = runs::run_id(&id)?;
    let record = runs::record(&master, id).await?;
    let page = master.read(move |readers| {
        let (found, has_more) = readers.run_versions(id, after, limit)?;
        let found = if found.is_empty() && after == 0 { vec![first(record)] } else { found };
        let next_cursor = found.last().filter(|_| has_more).map(|record| record.row.version.to_string());
        let versions = found.into_iter().map(view).collect::<Result<Vec<_>, _>>();
        Ok(versions.map(|versions| Versions { versions, next_cursor }))
    });
    ok(&page.await?.map_err(|error| runs::damaged(error.to_string()))?)
}

/// The one version of a run that was never upgraded.
fn first(record: RunRecord) -> RunVersionRecord {
    let birth = record.row.birth;
    let row = RunVersionRow {
        run: record.row.id,
        version: 1,
        definition: birth.definition,
        inputs: birth.inputs,
        reason: "".into(),
        author: "".into(),
        created_at: birth.created_at,
    };
    RunVersionRecord { row, definition_body: record.definition_body }
}

fn view(record: RunVersionRecord) -> Result<RunVersionView, serde_json::Error> {
    let row = record.row;
    Ok(RunVersionView {
        version: row.version,
        reason: row.reason.as_ref().to_owned(),
        author: Some(row.author.as_ref().to_owned()).filter(|author| !author.is_empty()),
        created_at: row.created_at.into(),
        definition: format!("{:?}", row.definition),
        inputs: serde_json::from_str(&row.inputs).ok().filter(|inputs: &Value| !inputs.is_null()),
        workflow: serde_json::from_str(&record.definition_body)?,
    })
}

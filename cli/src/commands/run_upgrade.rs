//! `upgrade run:ID`: another workflow for a run, or a preview of what it would do.

use agentflow_core::ids::RunId;
use agentflow_core::status::Status;
use agentflow_protocol::Problem;
use agentflow_protocol::run_upgrade::{RunUpgradeBody, RunUpgradePreview};
use agentflow_protocol::runs::RunView;

use super::versions::author;
use crate::args::{Global, Upgrade, UpgradeOfRun};
use crate::error::{Error, exit};
use crate::follow::run_path;
use crate::output::{Cell, Output, Paint};
use crate::workflow_file::{Given, WorkflowFile};

pub(super) fn upgrade(
    run: RunId,
    file: &str,
    upgrade: &Upgrade,
    global: &Global,
    output: Output,
) -> Result<u8, Error> {
    let UpgradeOfRun { map, restart_from, dry_run, variables, .. } = &upgrade.run;
    let (vars, inputs) = Given::read(variables)?.into_parts();
    let file = WorkflowFile::read(file)?;
    let body = RunUpgradeBody {
        workflow: file.sent()?,
        vars,
        inputs,
        map: map.iter().cloned().collect(),
        restart_from: restart_from.clone(),
        restart: upgrade.restart,
        expected_version: upgrade.expected_version,
        upgrade_reason: upgrade.reason.clone(),
        author: author(upgrade),
    };
    let client = super::connect(global)?;
    let path = format!("{}/upgrade", run_path(run.0));
    let refused = |error| match error {
        Error::Problem(problem) if is_of_file(&problem) => file.refused(&problem),
        error => error,
    };
    if *dry_run {
        let preview: RunUpgradePreview = client.post(&format!("{path}?dry_run=1"), &body).map_err(refused)?;
        return show(run, &preview, output);
    }
    let view: RunView = client.post(&path, &body).map_err(refused)?;
    if output.json {
        output.json(&view)?;
    } else {
        let (status, name) = (output.run_status(view.status), output.title(&view.name));
        output.line(format_args!("{status}  {:>5}  version {}  {name}", view.id, view.version))?;
    }
    Ok(exit::DONE)
}

/// Whether what is wrong stands in the file or beside it, not in the flags of the upgrade.
fn is_of_file(problem: &Problem) -> bool {
    let is_of_file = |pointer: &str| pointer.starts_with("/workflow") || pointer.starts_with("/vars");
    !problem.errors.is_empty() && problem.errors.iter().all(|error| is_of_file(&error.pointer))
}

fn show(run: RunId, preview: &RunUpgradePreview, output: Output) -> Result<u8, Error> {
    if output.json {
        output.json(preview)?;
        return Ok(exit::DONE);
    }
    let nodes =
        preview.nodes.iter().map(|node| row(&node.fate, &node.name, node.was.as_deref(), node.status));
    let removed = preview.removed.iter().map(|node| row(&node.fate, &node.name, None, Some(node.status)));
    let rows: Vec<Vec<Cell>> = nodes.chain(removed).collect();
    output.table(&["FATE", "NODE", "WAS", "STATUS"], &rows)?;
    eprintln!("run {run} would get version {}; nothing was changed", preview.version);
    if !preview.kept_vars.is_empty() {
        eprintln!(
            "it would keep what it has of these vars, and not take what the file says: {}; --var NAME=VALUE \
             changes them",
            preview.kept_vars.join(", ")
        );
    }
    if !preview.refused.is_empty() {
        eprintln!(
            "it would be refused: wait for those nodes or cancel them; --restart stops what is at work, unless \
             it is a foreach or a child workflow"
        );
    }
    Ok(exit::DONE)
}

fn row(fate: &str, name: &str, was: Option<&str>, status: Option<Status>) -> Vec<Cell> {
    let paint = match fate {
        "new" => Some(Paint::Good),
        "again" | "restarts" => Some(Paint::Busy),
        "finishes" | "removed" | "stopped" => Some(Paint::Odd),
        "refused" => Some(Paint::Bad),
        "kept" => Some(Paint::Faint),
        _ => None,
    };
    vec![
        Cell::painted(fate, paint),
        name.into(),
        was.unwrap_or("-").into(),
        status.map_or_else(|| Cell::from("-"), Cell::status),
    ]
}

//! `runs`, and what can be done with a run that is there: `run get|pause|resume|cancel|why`.

use agentflow_core::ids::RunId;
use agentflow_protocol::Timestamp;
use agentflow_protocol::api::Nothing;
use agentflow_protocol::runs::{NodeView, RunPage, RunView, RunWhyView};
use serde_json::json;

use super::each::each;
use super::rerun;
use super::tasks::reason_lines;
use crate::args::{RunAct, Runs, SomeRuns};
use crate::client::{Client, with_query};
use crate::error::{Error, exit};
use crate::follow::{milliseconds, run_path, span};
use crate::output::{Cell, Output, age};

/// Runs of one page.
const PAGE: usize = 1_000;

pub(super) fn list(list: &Runs, client: &Client, output: Output) -> Result<u8, Error> {
    let mut runs: Vec<RunView> = Vec::new();
    let mut cursor = None;
    while runs.len() < list.limit {
        let limit = (list.limit - runs.len()).min(PAGE);
        let page: RunPage = client.get(&page_path(list, limit, cursor.as_deref()))?;
        runs.extend(page.runs);
        cursor = page.next_cursor;
        if cursor.is_none() {
            break;
        }
    }
    if output.json {
        output.json(&json!({ "runs": runs, "next_cursor": cursor }))?;
        return Ok(exit::DONE);
    }
    let rows: Vec<Vec<Cell>> = runs
        .iter()
        .map(|run| {
            vec![
                run.id.to_string().into(),
                Cell::run(run.status),
                run.mode.clone().into(),
                run.node_count.to_string().into(),
                age(run.created_at).into(),
                took(run).into(),
                output.title(&run.name).into(),
            ]
        })
        .collect();
    output.table(&["ID", "STATUS", "MODE", "NODES", "AGE", "TOOK", "NAME"], &rows)?;
    if cursor.is_some() {
        eprintln!("there are more: --limit N");
    }
    Ok(exit::DONE)
}

fn page_path(list: &Runs, limit: usize, cursor: Option<&str>) -> String {
    let status: Vec<&str> = list.status.iter().map(|status| status.word()).collect();
    with_query(
        "/api/v2/runs",
        &[
            ("status", status.join(",")),
            ("limit", limit.to_string()),
            ("cursor", cursor.unwrap_or_default().to_owned()),
        ],
    )
}

fn took(run: &RunView) -> String {
    run.finished_at.map_or_else(|| "-".to_owned(), |ended| span(milliseconds(run.created_at, ended)))
}

pub(super) fn act(act: &RunAct, client: &Client, output: Output) -> Result<u8, Error> {
    match act {
        RunAct::Get(run) => get(run.id.0, client, output),
        RunAct::Why(run) => why(run.id.0, client, output),
        RunAct::Rerun(again) => rerun::rerun(again, client, output),
        RunAct::Pause(runs) => control(runs, "pause", client, output),
        RunAct::Resume(runs) => control(runs, "resume", client, output),
        RunAct::Cancel(runs) => control(runs, "cancel", client, output),
    }
}

fn get(id: u64, client: &Client, output: Output) -> Result<u8, Error> {
    let run: RunView = client.get(&run_path(id))?;
    if output.json {
        output.json(&run)?;
        return Ok(exit::DONE);
    }
    output.fields(&fields(&run))?;
    let rows: Vec<Vec<Cell>> = run.nodes.iter().flatten().map(row).collect();
    output.line("")?;
    output.table(&["TASK", "STATUS", "ATTEMPT", "WORKER", "TOOK", "NODE", "NOTE"], &rows)?;
    Ok(exit::DONE)
}

fn fields(run: &RunView) -> Vec<(&'static str, String)> {
    let optional = [
        ("id", Some(run.id.to_string())),
        ("name", Some(run.name.clone())),
        ("status", Some(run.status.to_string())),
        ("error", run.error.clone()),
        ("mode", Some(run.mode.clone())),
        ("parent", run.parent.map(|task| format!("task {task}"))),
        ("created", Some(run.created_at.to_string())),
        ("finished", run.finished_at.map(|time: Timestamp| time.to_string())),
        ("took", run.finished_at.map(|_| took(run))),
        ("vars", run.vars.as_ref().filter(|vars| !vars.is_empty()).map(|vars| json!(vars).to_string())),
        ("inputs", run.inputs.as_ref().filter(|inputs| !inputs.is_null()).map(ToString::to_string)),
    ];
    optional.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
}

fn row(node: &NodeView) -> Vec<Cell> {
    let took = match (node.started_at, node.finished_at) {
        (Some(began), Some(ended)) => span(milliseconds(began, ended)),
        (Some(began), None) => age(began),
        _ => "-".to_owned(),
    };
    let waits = node.waits.as_ref().map(|what| format!("waits for {what}"));
    vec![
        node.task_id.to_string().into(),
        Cell::status(node.status),
        node.attempt.to_string().into(),
        node.worker.clone().unwrap_or_else(|| "-".to_owned()).into(),
        took.into(),
        node.name.clone().into(),
        node.error.clone().or(waits).unwrap_or_default().into(),
    ]
}

fn control(runs: &SomeRuns, word: &str, client: &Client, output: Output) -> Result<u8, Error> {
    let ask = |id: RunId| client.post::<RunView>(&format!("{}/{word}", run_path(id.0)), &Nothing {});
    each(&runs.ids, "run", output, ask, |id, run| {
        let (status, name) = (output.run_status(run.status), output.title(&run.name));
        output.line(format_args!("{status}  {id:>5}  {name}"))
    })
}

fn why(id: u64, client: &Client, output: Output) -> Result<u8, Error> {
    let why: RunWhyView = client.get(&format!("{}/why", run_path(id)))?;
    if output.json {
        output.json(&why)?;
        return Ok(exit::DONE);
    }
    output.line(format_args!("run {} is {}", why.run_id, output.run_status(why.status).trim_end()))?;
    for node in why.nodes.iter().filter(|node| !node.reasons.is_empty()) {
        output.line(format_args!("{} (task {})", output.title(&node.name), node.task_id))?;
        for line in node.reasons.iter().flat_map(reason_lines) {
            output.line(format_args!("  {line}"))?;
        }
    }
    if why.more > 0 {
        output.line(format_args!("… and {} more", why.more))?;
    }
    if why.nodes.iter().all(|node| node.reasons.is_empty()) && !why.status.is_settled() {
        output.line("nothing holds it back")?;
    }
    Ok(exit::DONE)
}

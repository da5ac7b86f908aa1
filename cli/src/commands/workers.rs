//! `workers` and `drain`.

use agentflow_protocol::api::{Nothing, WorkerView, Workers};
use serde_json::json;

use crate::args::Drain;
use crate::client::{Client, encode};
use crate::error::{Error, exit};
use crate::output::{Cell, Output, age};

pub(super) fn list(client: &Client, output: Output) -> Result<u8, Error> {
    let answer: Workers = client.get("/api/v2/workers")?;
    if output.json {
        output.json(&answer)?;
        return Ok(exit::DONE);
    }
    let rows: Vec<Vec<Cell>> = answer
        .workers
        .iter()
        .map(|worker| {
            let labels: Vec<String> =
                worker.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
            vec![
                worker.id.clone().into(),
                Cell::worker(&worker.status),
                format!("{}/{}", worker.running, worker.slots).into(),
                worker.assigned.to_string().into(),
                age(worker.changed_at).into(),
                worker.groups.join(",").into(),
                labels.join(" ").into(),
            ]
        })
        .collect();
    output.table(&["ID", "STATUS", "RUNNING", "ASSIGNED", "SINCE", "GROUPS", "LABELS"], &rows)?;
    if rows.is_empty() {
        eprintln!("no worker has come yet: start one with `agentflow-worker --master {}`", client.address());
    }
    Ok(exit::DONE)
}

pub(super) fn drain(drain: &Drain, client: &Client, output: Output) -> Result<u8, Error> {
    let mut workers = Vec::new();
    for worker in &drain.workers {
        let view: WorkerView =
            client.post(&format!("/api/v2/workers/{}/drain", encode(worker)), &Nothing {})?;
        if !output.json {
            output.line(format_args!("{}  {}, {} tasks there", view.id, view.status, view.assigned))?;
        }
        workers.push(view);
    }
    if output.json {
        output.json(&json!({ "workers": workers }))?;
    }
    Ok(exit::DONE)
}

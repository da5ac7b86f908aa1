//! `run rerun`: a part of a run again, from the nodes that failed or from named ones; `fork`: the same
//! in a new run.

use agentflow_protocol::runs::{RerunBody, RerunPreview, RunView};

use crate::args::{Fork, Rerun};
use crate::client::Client;
use crate::error::{Error, exit};
use crate::follow::run_path;
use crate::output::Output;
use crate::workflow_file::Given;

pub(super) fn rerun(rerun: &Rerun, client: &Client, output: Output) -> Result<u8, Error> {
    let (vars, inputs) = Given::read(&rerun.variables)?.into_parts();
    let body = RerunBody { from: rerun.from.clone(), vars, inputs };
    let path = format!("{}/rerun", run_path(rerun.run.id.0));
    if rerun.dry_run {
        let preview: RerunPreview = client.post(&format!("{path}?dry_run=1"), &body)?;
        return show(&preview, output);
    }
    begun(&client.post(&path, &body)?, output)
}

pub(super) fn fork(fork: &Fork, client: &Client, output: Output) -> Result<u8, Error> {
    let (vars, inputs) = Given::read(&fork.variables)?.into_parts();
    let body = RerunBody { from: fork.from.clone(), vars, inputs };
    begun(&client.post(&format!("{}/fork", run_path(fork.run.id.0)), &body)?, output)
}

fn begun(run: &RunView, output: Output) -> Result<u8, Error> {
    if output.json {
        output.json(run)?;
    } else {
        let status = output.run_status(run.status);
        output.line(format_args!("{status}  {:>5}  {}", run.id, output.title(&run.name)))?;
        eprintln!("follow it with `agentflow run --resume {}`", run.id);
    }
    Ok(exit::DONE)
}

fn show(preview: &RerunPreview, output: Output) -> Result<u8, Error> {
    if output.json {
        output.json(preview)?;
        return Ok(exit::DONE);
    }
    let parts = [("again", &preview.nodes), ("kept", &preview.kept), ("at work", &preview.at_work)];
    for (word, names) in parts {
        names.iter().try_for_each(|name| output.line(format_args!("{word:<7}  {}", output.title(name))))?;
    }
    Ok(exit::DONE)
}

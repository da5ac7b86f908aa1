//! `upgrade` and `versions`, of tasks; those of runs are handed on.

use agentflow_core::ids::TaskId;
use agentflow_protocol::Timestamp;
use agentflow_protocol::api::TaskView;
use agentflow_protocol::saved::{UpgradeBody, VersionView, Versions};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use similar::{ChangeTag, TextDiff};

use super::checkpoints::continue_from;
use super::{run_upgrade, run_versions, variable};
use crate::args::{Global, TaskOrRun, Upgrade, VersionsOf};
use crate::client::Client;
use crate::error::{Error, exit};
use crate::output::{Output, Paint, printable};
use crate::settle::task_path;

/// Gives a task another version, or a run another workflow.
pub(super) fn upgrade(upgrade: &Upgrade, global: &Global, output: Output) -> Result<u8, Error> {
    match (upgrade.subject, &upgrade.run.workflow) {
        (TaskOrRun::Task(task), None) if upgrade.run.variables.is_empty() => {
            upgrade_task(task, upgrade, &super::connect(global)?, output)
        }
        (TaskOrRun::Run(run), Some(file)) => run_upgrade::upgrade(run, file, upgrade, global, output),
        (TaskOrRun::Run(run), None) => {
            let text =
                format!("a run is given another workflow: agentflow upgrade run:{run} --workflow FILE");
            Err(Error::Usage(text))
        }
        (TaskOrRun::Task(task), _) => {
            let text = format!(
                "--workflow, --var, --vars-file and --input are for runs, and {task} is a task; write run:ID"
            );
            Err(Error::Usage(text))
        }
    }
}

fn upgrade_task(task: TaskId, upgrade: &Upgrade, client: &Client, output: Output) -> Result<u8, Error> {
    let body = UpgradeBody {
        new_title: upgrade.title.clone(),
        new_description: upgrade.description.clone(),
        new_spec: fields(upgrade)?,
        upgrade_reason: upgrade.reason.clone(),
        author: author(upgrade),
        expected_version: upgrade.expected_version,
        restart: upgrade.restart,
        continue_from: continue_from(upgrade.from_beginning),
    };
    let view: TaskView = client.post(&format!("{}/upgrade", task_path(task.0)), &body)?;
    if output.json {
        output.json(&view)?;
    } else {
        let (status, title) = (output.status(view.status), output.title(&view.title));
        output.line(format_args!("{status}  {:>5}  version {}  {title}", view.id, view.version))?;
    }
    Ok(exit::DONE)
}

/// Who is said to have upgraded it.
pub(super) fn author(upgrade: &Upgrade) -> Option<String> {
    upgrade.author.clone().or_else(|| variable("USER"))
}

fn fields(upgrade: &Upgrade) -> Result<Option<Map<String, Value>>, Error> {
    let mut fields = match &upgrade.spec {
        None => Map::new(),
        Some(text) => serde_json::from_str(text)
            .map_err(|error| Error::Usage(format!("--spec is no JSON object: {error}")))?,
    };
    if let Some(line) = &upgrade.shell {
        fields.insert("command".to_owned(), json!(line));
    }
    if !upgrade.argv.is_empty() {
        fields.insert("argv".to_owned(), json!(upgrade.argv));
    }
    Ok(Some(fields).filter(|fields| !fields.is_empty()))
}

/// Shows the versions of a task or a run, and what each changed.
pub(super) fn versions(of: &VersionsOf, client: &Client, output: Output) -> Result<u8, Error> {
    let task = match of.subject {
        TaskOrRun::Task(task) => task,
        TaskOrRun::Run(run) => return run_versions::versions(run, client, output),
    };
    list(&format!("{}/versions", task_path(task.0)), client, output, |version: &VersionView| {
        let author = version.author.as_deref();
        let head = head(version.version, version.created_at, author, &version.reason);
        Ok((head, text(version)))
    })
}

/// Shows every version behind that path, each by its head and what its text changes.
pub(super) fn list<V: Serialize + DeserializeOwned>(
    path: &str,
    client: &Client,
    output: Output,
    lines: impl Fn(&V) -> Result<(String, String), Error>,
) -> Result<u8, Error> {
    let mut found: Versions<V> = client.get(path)?;
    while let Some(cursor) = found.next_cursor.take() {
        let page: Versions<V> = client.get(&format!("{path}?cursor={cursor}"))?;
        found.versions.extend(page.versions);
        found.next_cursor = page.next_cursor;
    }
    if output.json {
        output.json(&found)?;
        return Ok(exit::DONE);
    }
    let mut before = None;
    for version in &found.versions {
        let (head, text) = lines(version)?;
        output.line(output.paint(Paint::Head, head))?;
        show_changes(before.as_deref(), &text, output)?;
        before = Some(text);
    }
    Ok(exit::DONE)
}

/// `version 2  2026-11-22T17:00:00Z by ann: it was wrong`.
pub(super) fn head(version: u32, at: Timestamp, author: Option<&str>, reason: &str) -> String {
    let author = author.map(|author| format!(" by {author}")).unwrap_or_default();
    let reason = if reason.is_empty() { String::new() } else { format!(": {reason}") };
    printable(&format!("version {version}  {at}{author}{reason}"))
}

/// A version as lines: its title, then its fields.
fn text(version: &VersionView) -> String {
    let mut text = format!("title: {}\n", version.title);
    for (name, value) in &version.spec {
        let value = match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        text.push_str(&format!("{name}: {value}\n"));
    }
    text
}

/// The lines of a version, marked where the one before has others.
fn show_changes(before: Option<&str>, after: &str, output: Output) -> Result<(), Error> {
    let Some(before) = before else {
        return after.lines().try_for_each(|line| output.line(format_args!("  {}", printable(line))));
    };
    for change in TextDiff::from_lines(before, after).iter_all_changes() {
        let line = printable(change.value().trim_end_matches('\n'));
        match change.tag() {
            ChangeTag::Equal => output.line(format_args!("  {line}"))?,
            ChangeTag::Delete => output.line(output.paint(Paint::Bad, format_args!("- {line}")))?,
            ChangeTag::Insert => output.line(output.paint(Paint::Good, format_args!("+ {line}")))?,
        }
    }
    Ok(())
}

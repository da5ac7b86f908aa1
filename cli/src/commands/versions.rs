//! `upgrade` and `versions`.

use agentflow_protocol::api::TaskView;
use agentflow_protocol::saved::{UpgradeBody, VersionView, Versions};
use serde_json::{Map, Value, json};
use similar::{ChangeTag, TextDiff};

use super::checkpoints::continue_from;
use super::variable;
use crate::args::{OneTask, Upgrade};
use crate::client::Client;
use crate::error::{Error, exit};
use crate::output::{Output, Paint};
use crate::settle::task_path;

pub(super) fn upgrade(upgrade: &Upgrade, client: &Client, output: Output) -> Result<u8, Error> {
    let body = UpgradeBody {
        new_title: upgrade.title.clone(),
        new_description: upgrade.description.clone(),
        new_spec: fields(upgrade)?,
        upgrade_reason: upgrade.reason.clone(),
        author: upgrade.author.clone().or_else(|| variable("USER")),
        expected_version: upgrade.expected_version,
        restart: upgrade.restart,
        continue_from: continue_from(upgrade.from_beginning),
    };
    let view: TaskView = client.post(&format!("{}/upgrade", task_path(upgrade.task.0)), &body)?;
    if output.json {
        output.json(&view)?;
    } else {
        let (status, title) = (output.status(view.status), output.title(&view.title));
        output.line(format_args!("{status}  {:>5}  version {}  {title}", view.id, view.version))?;
    }
    Ok(exit::DONE)
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

pub(super) fn versions(task: &OneTask, client: &Client, output: Output) -> Result<u8, Error> {
    let found: Versions = client.get(&format!("{}/versions", task_path(task.id.0)))?;
    if output.json {
        output.json(&found)?;
        return Ok(exit::DONE);
    }
    let mut before = None;
    for version in &found.versions {
        let author = version.author.as_ref().map(|author| format!(" by {author}")).unwrap_or_default();
        let reason = if version.reason.is_empty() { String::new() } else { format!(": {}", version.reason) };
        let head = format!("version {}  {}{author}{reason}", version.version, version.created_at);
        output.line(output.paint(Paint::Head, head))?;
        let text = text(version);
        show_changes(before.as_deref(), &text, output)?;
        before = Some(text);
    }
    Ok(exit::DONE)
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

fn show_changes(before: Option<&str>, after: &str, output: Output) -> Result<(), Error> {
    let Some(before) = before else {
        return after.lines().try_for_each(|line| output.line(format_args!("  {line}")));
    };
    for change in TextDiff::from_lines(before, after).iter_all_changes() {
        let line = change.value().trim_end_matches('\n');
        match change.tag() {
            ChangeTag::Equal => output.line(format_args!("  {line}"))?,
            ChangeTag::Delete => output.line(output.paint(Paint::Bad, format_args!("- {line}")))?,
            ChangeTag::Insert => output.line(output.paint(Paint::Good, format_args!("+ {line}")))?,
        }
    }
    Ok(())
}

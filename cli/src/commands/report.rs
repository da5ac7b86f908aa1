//! Telling how the work goes and how it ended: a line for each task, the output of those that
//! failed, a bar while waiting, and the exit code.

use std::collections::HashMap;
use std::io::IsTerminal;
use std::sync::Arc;
use std::time::Duration;

use agentflow_core::status::Status;
use agentflow_protocol::api::{TaskView, WhyView};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::args::WaitFlags;
use crate::client::Client;
use crate::error::{Error, exit};
use crate::output::{Output, Paint};
use crate::settle::{Listener, Since, settle, task_path};
use crate::task_output::log_lines;

/// Tasks whose whole state is asked for at the end with `--json`; past it the status is printed.
const WHOLE_VIEWS: usize = 1_000;

/// Tasks that are waited for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Work {
    /// In the order in which they were written.
    pub(crate) ids: Vec<u64>,
    /// What to call them, as far as it is known.
    pub(crate) titles: HashMap<u64, String>,
    /// The run that they belong to.
    pub(crate) run: Option<String>,
}

/// How it all ended.
#[derive(Clone, Copy, Debug, Default, Serialize, PartialEq, Eq)]
pub(crate) struct Tally {
    completed: u64,
    failed: u64,
    cancelled: u64,
    skipped: u64,
    /// What the first failed task ended with, by the order of the list.
    #[serde(skip)]
    first_exit_code: Option<(usize, u8)>,
}

impl Tally {
    fn add(&mut self, status: Status) {
        match status {
            Status::Completed => self.completed += 1,
            Status::Failed => self.failed += 1,
            Status::Cancelled => self.cancelled += 1,
            Status::Skipped => self.skipped += 1,
            Status::Blocked | Status::Pending | Status::Running => {}
        }
    }

    /// Whether every task completed.
    pub(crate) fn is_good(&self) -> bool {
        self.failed + self.cancelled + self.skipped == 0
    }

    /// The exit code of the command.
    pub(crate) fn exit_code(&self, flags: WaitFlags) -> u8 {
        match self.first_exit_code {
            _ if self.is_good() => exit::DONE,
            Some((_, code)) if flags.exit_code => code,
            _ => exit::FAILED,
        }
    }
}

/// The bar on a terminal; nothing in a pipe. Clones are the same bar.
#[derive(Clone)]
pub(crate) struct Bar(ProgressBar);

impl Bar {
    /// A bar for so many tasks.
    pub(crate) fn new(tasks: usize, output: Output) -> Self {
        let shown = std::io::stderr().is_terminal() && !output.json;
        let bar = if shown { ProgressBar::new(tasks as u64) } else { ProgressBar::hidden() };
        let template = "{spinner} {bar:30} {pos}/{len} {elapsed} {msg}";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("=> "));
        }
        if shown {
            bar.enable_steady_tick(Duration::from_millis(200));
        }
        Self(bar)
    }

    /// None at all.
    pub(crate) fn hidden() -> Self {
        Self(ProgressBar::hidden())
    }

    /// Takes it off the terminal.
    pub(crate) fn clear(&self) {
        self.0.finish_and_clear();
    }
}

/// Waits for the work and tells about it.
///
/// # Errors
/// Those of the client and of standard output.
pub(crate) fn see_through(
    client: &Arc<Client>,
    work: &Work,
    since: Since,
    flags: WaitFlags,
    output: Output,
    bar: &Bar,
) -> Result<Tally, Error> {
    let places = work.ids.iter().enumerate().map(|(place, id)| (*id, place)).collect();
    let mut teller =
        Teller { client, work, places, flags, output, bar, tally: Tally::default(), ends: HashMap::new() };
    let result = settle(client, &work.ids, since, &mut teller);
    bar.clear();
    result?;
    let Teller { tally, ends, .. } = teller;
    if output.json {
        tell_json(client, work, &ends, &tally, output)?;
    } else if work.ids.len() > 1 {
        tell_sum(&tally, output)?;
    }
    Ok(tally)
}

struct Teller<'a> {
    client: &'a Client,
    work: &'a Work,
    places: HashMap<u64, usize>,
    flags: WaitFlags,
    output: Output,
    bar: &'a Bar,
    tally: Tally,
    ends: HashMap<u64, Status>,
}

impl Listener for Teller<'_> {
    fn settled(&mut self, id: u64, status: Status) -> Result<(), Error> {
        self.tally.add(status);
        self.ends.insert(id, status);
        let failed = matches!(status, Status::Failed | Status::Cancelled | Status::Skipped);
        let known = self.work.titles.get(&id);
        let view: Option<TaskView> =
            if failed || known.is_none() { Some(self.client.get(&task_path(id))?) } else { None };
        if let Some(view) = view.as_ref().filter(|_| failed) {
            let place = self.places.get(&id).copied().unwrap_or(usize::MAX);
            if self.tally.first_exit_code.is_none_or(|(first, _)| place < first) {
                self.tally.first_exit_code =
                    exit_of(view).map(|code| (place, code)).or(self.tally.first_exit_code);
            }
        }
        if !self.output.json {
            let title =
                known.cloned().or_else(|| view.as_ref().map(|view| view.title.clone())).unwrap_or_default();
            let mut lines = vec![self.end_line(id, status, &title, view.as_ref().filter(|_| failed))];
            if self.flags.logs {
                lines.extend(log_lines(self.client, id, self.output)?);
            } else if let Some(result) =
                view.as_ref().filter(|_| failed).and_then(|view| view.result.as_deref())
            {
                lines.extend(self.output.tail(result));
            }
            let output = self.output;
            self.bar.0.suspend(|| lines.iter().try_for_each(|line| output.line(line)))?;
        }
        self.bar.0.inc(1);
        Ok(())
    }

    fn idle(&mut self, open: u64) {
        let path = format!("{}/why", task_path(open));
        let Ok(why) = self.client.get::<WhyView>(&path) else { return };
        if let Some(reason) = why.reasons.first() {
            let text = format!("task {open} waits: {} (what helps: {})", reason.detail, reason.frees);
            self.bar.0.suspend(|| eprintln!("{text}"));
        }
    }
}

impl Teller<'_> {
    fn end_line(&self, id: u64, status: Status, title: &str, failed: Option<&TaskView>) -> String {
        let mut line = format!("{}  {id:>5}  {}", self.output.status(status), self.output.title(title));
        if let Some(error) = failed.and_then(|view| view.error.as_deref()).filter(|error| !error.is_empty()) {
            line.push_str(&format!("  ({})", self.output.paint(Paint::Bad, self.output.title(error))));
        }
        line
    }
}

/// What a shell would have said of the task's process.
fn exit_of(view: &TaskView) -> Option<u8> {
    let code = view.exit_code.or_else(|| view.signal.map(|signal| 128 + signal))?;
    u8::try_from(code).ok().filter(|code| *code != 0)
}

fn tell_sum(tally: &Tally, output: Output) -> Result<(), Error> {
    let parts: Vec<String> = [
        (tally.completed, Status::Completed),
        (tally.failed, Status::Failed),
        (tally.cancelled, Status::Cancelled),
        (tally.skipped, Status::Skipped),
    ]
    .iter()
    .filter(|(count, _)| *count > 0)
    .map(|(count, status)| format!("{count} {status}"))
    .collect();
    let paint = if tally.is_good() { Paint::Good } else { Paint::Bad };
    output.line(output.paint(paint, parts.join(", ")))
}

fn tell_json(
    client: &Client,
    work: &Work,
    ends: &HashMap<u64, Status>,
    tally: &Tally,
    output: Output,
) -> Result<(), Error> {
    #[derive(Serialize)]
    #[serde(untagged)]
    enum Line<'a> {
        Whole(Box<TaskView>),
        Short { id: u64, title: Option<&'a String>, status: Option<Status> },
    }
    let mut tasks = Vec::with_capacity(work.ids.len());
    for id in &work.ids {
        tasks.push(if work.ids.len() <= WHOLE_VIEWS {
            Line::Whole(Box::new(client.get(&task_path(*id))?))
        } else {
            Line::Short { id: *id, title: work.titles.get(id), status: ends.get(id).copied() }
        });
    }
    let status = if tally.is_good() { "completed" } else { "failed" };
    let mut answer = serde_json::json!({ "status": status, "counts": tally, "tasks": tasks });
    if let (Some(run), Some(fields)) = (&work.run, answer.as_object_mut()) {
        fields.insert("run".to_owned(), run.as_str().into());
    }
    output.json(&answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_code_is_one_unless_the_tasks_own_is_wanted() {
        let mut tally = Tally::default();
        tally.add(Status::Completed);
        assert_eq!(tally.exit_code(WaitFlags::default()), exit::DONE);
        tally.add(Status::Failed);
        tally.first_exit_code = Some((1, 7));
        assert_eq!(tally.exit_code(WaitFlags::default()), exit::FAILED);
        assert_eq!(tally.exit_code(WaitFlags { exit_code: true, logs: false }), 7);
        tally.first_exit_code = None;
        assert_eq!(tally.exit_code(WaitFlags { exit_code: true, logs: false }), exit::FAILED);
    }
}

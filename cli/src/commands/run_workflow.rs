//! `run` of a workflow file: handing it in, and following it to its end.

use std::sync::{Arc, Mutex, PoisonError};

use agentflow_core::run::RunStatus;
use agentflow_core::status::Status;
use agentflow_protocol::api::TaskView;
use agentflow_protocol::runs::RunView;
use agentflow_protocol::submit::TaskBody;
use agentflow_workflow::Tree;
use console::Term;
use serde_json::Value;

use super::run::RUN_LABEL;
use crate::args::{Run, WaitFlags};
use crate::client::Client;
use crate::error::{Error, exit};
use crate::follow::{Board, Lines, Screen, Shared, begin, follow, milliseconds, run_path, span};
use crate::output::{Output, Paint};
use crate::run_list;
use crate::settle::{Since, task_path};
use crate::state::{RunRecord, WorkflowRecord};
use crate::task_locks;
use crate::task_output::log_lines;
use crate::workflow_file::{Given, WorkflowFile};

/// Failed nodes whose output is shown below the tree.
const FAILURES: usize = 10;

/// The tree, once there is something to draw. Clones are the same.
#[derive(Clone)]
pub(super) struct Watch {
    /// Where it is drawn, if it is.
    on: Option<(Term, Output)>,
    screen: Arc<Mutex<Option<Screen>>>,
}

impl Watch {
    /// On a terminal; if it is `wanted`, also where only standard error is one.
    pub(super) fn new(wanted: bool, output: Output) -> Self {
        let error = Output::of_standard_error();
        let on = if output.can_draw() {
            Some((Term::buffered_stdout(), output))
        } else if wanted && !output.json && error.can_draw() {
            Some((Term::buffered_stderr(), error))
        } else {
            None
        };
        Self { on, screen: Arc::default() }
    }

    fn start(&self, board: &Shared, client: &Arc<Client>) -> Result<(), Error> {
        if let Some((term, output)) = &self.on {
            *self.lock() = Some(Screen::start(board, client, term.clone(), *output)?);
        }
        Ok(())
    }

    fn finish(&self) {
        // Not held meanwhile: an impatient Ctrl-C stops it.
        let screen = self.lock().clone();
        screen.iter().for_each(Screen::finish);
    }

    /// Draws no more.
    pub(super) fn stop(&self) {
        self.lock().iter().for_each(Screen::stop);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Screen>> {
        self.screen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is written down of a workflow before it is handed in.
///
/// # Errors
/// Where something is put into it here, everything that is wrong with it: a master of its own is not
/// started for a file that is wrong.
pub(super) fn record(
    file: &WorkflowFile,
    given: &Given,
    run: &Run,
    record: &RunRecord,
) -> Result<WorkflowRecord, Error> {
    let is_here = record.master.is_none();
    let defaults = defaults(run, is_here.then_some(record.id.as_str()))?;
    let (body, groups) = match defaults.as_slice() {
        [] => (file.body(given)?, Vec::new()),
        defaults => file.body_with(given, defaults)?,
    };
    Ok(WorkflowRecord { file: file.name.clone(), groups, body, run: None })
}

/// What the flags say of every task; for a run in this process also where it is and whose.
fn defaults(run: &Run, here: Option<&str>) -> Result<Vec<(Box<str>, Tree)>, Error> {
    let mut task = TaskBody::default();
    run_list::apply(&mut task, &run.task, run.task_timeout);
    task_locks::apply(std::slice::from_mut(&mut task), &run.task)?;
    if let Some(id) = here {
        task.workdir = task.workdir.take().or_else(current_directory);
        task.labels.get_or_insert_default().insert(RUN_LABEL.to_owned(), id.to_owned());
    }
    let value = serde_json::to_value(&task).map_err(|error| Error::Usage(error.to_string()))?;
    let Value::Object(fields) = value else { return Ok(Vec::new()) };
    Ok(fields.iter().map(|(key, value)| (key.as_str().into(), Tree::from(value))).collect())
}

/// Where the command was typed.
pub(super) fn current_directory() -> Option<String> {
    std::env::current_dir().ok().and_then(|dir| dir.to_str().map(str::to_owned))
}

/// Hands it in, unless that was done before, and notes the run's number.
///
/// # Errors
/// What the master finds wrong, with the lines of the file.
pub(super) fn hand_in(
    client: &Client,
    record: &mut RunRecord,
    file: Option<&WorkflowFile>,
) -> Result<RunView, Error> {
    let key = record.key.clone();
    let Some(workflow) = &mut record.workflow else {
        return Err(Error::Usage("this run is no workflow".to_owned()));
    };
    if let Some(run) = workflow.run {
        return client.get(&run_path(run));
    }
    let answer: Result<RunView, Error> = client.post_keyed("/api/v2/runs", &workflow.body, &key);
    let view = answer.map_err(|error| match (error, file) {
        (Error::Problem(problem), Some(file)) if problem.status == 422 => file.refused(&problem),
        (error, _) => error,
    })?;
    workflow.run = Some(view.id);
    Ok(view)
}

/// Hands it in and does not wait.
///
/// # Errors
/// Those of [`hand_in`].
pub(super) fn detach(
    client: &Client,
    record: &RunRecord,
    file: &WorkflowFile,
    output: Output,
) -> Result<u8, Error> {
    let view = hand_in(client, &mut record.clone(), Some(file))?;
    if output.json {
        output.json(&view)?;
    } else {
        output.line(view.id)?;
    }
    Ok(exit::DONE)
}

/// Follows a run to its end and tells how it went.
///
/// # Errors
/// Those of the client and of standard output.
pub(super) fn see_through(
    client: &Arc<Client>,
    view: &RunView,
    since: Since,
    flags: WaitFlags,
    output: Output,
    watch: &Watch,
) -> Result<u8, Error> {
    let (board, cursor) = begin(client, view, since)?;
    let board = Shared::new(board);
    watch.start(&board, client)?;
    // On a terminal the tree says it all; what is piped gets lines beside it.
    let is_quiet = output.json || output.can_draw();
    let mut lines = Lines::new(Arc::clone(client), flags, output, is_quiet);
    let ended = follow(client, &board, cursor, &mut lines);
    watch.finish();
    let ended = ended?;
    if output.json {
        output.json(&ended)?;
    } else {
        if is_quiet {
            tell_outputs(client, &board.lock().clone(), flags, output)?;
        }
        tell_end(&ended, &board.lock(), output)?;
    }
    Ok(exit_code(&ended, flags))
}

/// Below a tree: what failed nodes have printed, or with `--logs` what all have.
fn tell_outputs(client: &Client, board: &Board, flags: WaitFlags, output: Output) -> Result<(), Error> {
    let lines = board.nodes.iter().flat_map(|node| std::iter::once(&node.line).chain(&node.parts));
    let wanted = lines.filter(|line| line.attempt > 0 && (flags.logs || line.status == Status::Failed));
    for line in wanted.take(if flags.logs { usize::MAX } else { FAILURES }) {
        let shown = if flags.logs {
            log_lines(client, line.task, output)?
        } else {
            let view: TaskView = client.get(&task_path(line.task))?;
            view.result.map(|result| output.tail(&result)).unwrap_or_default()
        };
        if !shown.is_empty() {
            output.line(format_args!("{} {}", output.status(line.status), output.title(&line.name)))?;
            shown.iter().try_for_each(|line| output.line(line))?;
        }
    }
    Ok(())
}

/// `run 5 ci failed: 3 completed, 1 failed (12.3 s)`.
fn tell_end(run: &RunView, board: &Board, output: Output) -> Result<(), Error> {
    let count = |status: Status| board.nodes.iter().filter(|node| node.line.status == status).count();
    let parts: Vec<String> = Status::ALL
        .iter()
        .map(|status| (count(*status), status))
        .filter(|(count, _)| *count > 0)
        .map(|(count, status)| format!("{count} {status}"))
        .collect();
    let paint = if run.status == RunStatus::Completed { Paint::Good } else { Paint::Bad };
    let took = run.finished_at.map(|ended| span(milliseconds(run.created_at, ended))).unwrap_or_default();
    output.line(format_args!(
        "run {} {} {}: {} ({took})",
        run.id,
        output.title(&run.name),
        output.paint(paint, run.status),
        parts.join(", ")
    ))
}

/// 0 when it completed; else 1, or what the first failed node ended with.
fn exit_code(run: &RunView, flags: WaitFlags) -> u8 {
    if run.status == RunStatus::Completed {
        return exit::DONE;
    }
    let failed = run.nodes.iter().flatten().filter(|node| node.status == Status::Failed);
    let codes = failed.filter_map(|node| u8::try_from(node.exit_code?).ok());
    codes.into_iter().find(|code| flags.exit_code && *code != 0).unwrap_or(exit::FAILED)
}

//! `run`: hands in a list or a workflow, waits for its end, and can be resumed.
//!
//! What is to be done is written down before anything is sent, with the key under which it is
//! sent: a run that was killed between any two steps is resumed without doing a task twice.
//! Where no master answers, one is started in this process for as long as it is needed.

use std::sync::Arc;

use agentflow_protocol::runs::RunView;
use agentflow_protocol::submit::TaskBody;

use super::report::{Bar, Work, see_through};
use super::run_workflow::{self, Watch};
use super::submit::hand_in;
use super::{DEFAULT_MASTER, client, named_masters, runs};
use crate::args::{Global, Run, WaitFlags};
use crate::client::Client;
use crate::document::{self, Kind};
use crate::embedded;
use crate::error::{Error, exit};
use crate::follow::run_path;
use crate::input::read_text;
use crate::interrupt::{Ended, guarded};
use crate::output::Output;
use crate::run_list;
use crate::settle::{Since, head};
use crate::state::{Owner, RunRecord, StateDir};
use crate::task_locks;
use crate::workflow_file::{Given, WorkflowFile};

/// The label that ties the tasks of a masterless run to the worker that the run brings along: a
/// later run or `up` over the same state does not begin what was interrupted.
pub(super) const RUN_LABEL: &str = "agentflow.run";

/// Where the work is done.
pub(super) enum Place {
    /// At a master that has its own workers.
    Master(String),
    /// In this process, or at the embedded master of another one with a worker of ours.
    Here,
}

/// What is to be done.
enum Source {
    /// A list, and what to call it in messages.
    List(Vec<TaskBody>, String),
    Workflow(WorkflowFile),
}

/// What is shown while it goes on.
#[derive(Clone)]
struct Shown {
    bar: Bar,
    watch: Watch,
}

pub(super) fn run(run: Run, global: &Global, output: Output) -> Result<u8, Error> {
    if let Some(act) = &run.act {
        if let Some(list) = &run.list {
            return Err(Error::Usage(format!("one file at a time: nothing can follow {list}")));
        }
        return runs::act(act, &super::connect(global)?, output);
    }
    let state = StateDir::open()?;
    let (mut record, place, file) = match &run.resume {
        Some(id) => match numbered(&state, id) {
            Some(number) => return attach(number, &run, global, output),
            None => resumed(&state, id, global)?,
        },
        None => match begun(&state, &run, global)? {
            (record, Place::Master(masters), Some(file)) if run.detach => {
                let client = client(super::addresses(&masters)?, global);
                return run_workflow::detach(&client, &record, &file, output);
            }
            begun => begun,
        },
    };
    let (client, local) = match place {
        Place::Master(masters) => (client(super::addresses(&masters)?, global), None),
        Place::Here => {
            let (local, worker) = embedded::open(&state, &record, RUN_LABEL, run.slots)?;
            record.worker = Some(worker);
            (client(vec![local.url().to_owned()], global), Some(local))
        }
    };
    let result = see_to_it(&state, record, file, Arc::new(client), local.is_some(), &run, output);
    let Some(local) = local else { return result };
    let closed = match &result {
        Ok(code) if !matches!(*code, exit::INTERRUPTED | exit::TIMEOUT) => local.close(),
        // What still runs is stopped; the record has what it takes to go on.
        _ => local.abandon(),
    };
    match (result, closed) {
        (Ok(code), Err(error)) => {
            log::warn!("the embedded master did not end well: {error}");
            Ok(code)
        }
        (result, _) => result,
    }
}

/// A new run, written down, and where to do it.
fn begun(
    state: &StateDir,
    run: &Run,
    global: &Global,
) -> Result<(RunRecord, Place, Option<WorkflowFile>), Error> {
    let source = read_source(run.list.as_deref().unwrap_or_default())?;
    let place = place(state, run, global)?;
    let master = match &place {
        Place::Master(masters) => Some(masters.clone()),
        Place::Here => None,
    };
    match source {
        Source::Workflow(file) => {
            if run.detach && master.is_none() {
                let next = "start a master that stays with `agentflow up`, or leave out --detach";
                return Err(Error::Usage(format!("--detach needs a master, and none answers: {next}")));
            }
            let mut record = state.new_run(master, Vec::new())?;
            let given = Given::read(&run.variables)?;
            record.workflow = Some(run_workflow::record(&file, &given, run, &record)?);
            Ok((record, place, Some(file)))
        }
        Source::List(tasks, name) => {
            if run.detach || run.watch || !run.variables.is_empty() {
                let what = "--detach, --watch, --var, --vars-file and --input are for workflow files";
                return Err(Error::Usage(format!("{what}; {name} is a list of commands")));
            }
            let mut record = state.new_run(master, tasks)?;
            fill_in(&mut record, run);
            task_locks::apply(&mut record.tasks, &run.task)?;
            run_list::check(&record.tasks, &name)?;
            Ok((record, place, None))
        }
    }
}

fn place(state: &StateDir, run: &Run, global: &Global) -> Result<Place, Error> {
    Ok(match named_masters(global)? {
        Some(masters) => Place::Master(masters.join(",")),
        None if run.embedded => Place::Here,
        None => match state.live_master()? {
            Some(live) if live.owner == Owner::Up => Place::Master(live.url),
            Some(_) => Place::Here,
            None if Client::new(vec![DEFAULT_MASTER.to_owned()], None, None).answers() => {
                Place::Master(DEFAULT_MASTER.to_owned())
            }
            None => Place::Here,
        },
    })
}

/// Fills what the tasks of a list leave out.
fn fill_in(record: &mut RunRecord, run: &Run) {
    // The worker is here: work begins where the command was typed, also when it is resumed from
    // elsewhere.
    let here = if record.master.is_none() { run_workflow::current_directory() } else { None };
    let (id, is_here) = (record.id.clone(), record.master.is_none());
    for task in &mut record.tasks {
        run_list::apply(task, &run.task, run.task_timeout);
        if is_here {
            task.workdir = task.workdir.take().or_else(|| here.clone());
            task.labels.get_or_insert_default().insert(RUN_LABEL.to_owned(), id.clone());
        }
    }
}

/// A known run, and where it was begun.
fn resumed(
    state: &StateDir,
    id: &str,
    global: &Global,
) -> Result<(RunRecord, Place, Option<WorkflowFile>), Error> {
    let record = state.load_run(id)?;
    let place = match (&record.master, named_masters(global)?) {
        (None, _) => Place::Here,
        (Some(_), Some(masters)) => Place::Master(masters.join(",")),
        (Some(masters), None) => Place::Master(masters.clone()),
    };
    Ok((record, place, None))
}

/// The number of a run at the master, where no record has that name.
fn numbered(state: &StateDir, id: &str) -> Option<u64> {
    let number = id.parse().ok().filter(|number| *number > 0)?;
    state.load_run(id).is_err().then_some(number)
}

/// Follows a run that somebody else has handed in.
fn attach(number: u64, run: &Run, global: &Global, output: Output) -> Result<u8, Error> {
    let client = Arc::new(super::connect(global)?);
    let view: RunView = client.get(&run_path(number))?;
    let (flags, watch) = (run.wait, Watch::new(run.watch, output));
    let shown = watch.clone();
    let speaker = Arc::clone(&client);
    let ended = guarded(run.timeout, move || {
        run_workflow::see_through(&client, &view, Since::Now, flags, output, &watch)
    })?;
    let (said, code) = match ended {
        Ended::Done(result) => return result,
        Ended::Interrupted => ("interrupted", exit::INTERRUPTED),
        Ended::TimedOut => ("not done in time", exit::TIMEOUT),
    };
    speaker.hush();
    shown.stop();
    eprintln!("{said}; the run goes on: follow it again with `agentflow run --resume {number}`");
    Ok(code)
}

/// A JSON array is the list itself; anything else names a file.
fn read_source(list: &str) -> Result<Source, Error> {
    if list.trim_start().starts_with('[') {
        let name = "the list".to_owned();
        return Ok(Source::List(run_list::parse(list, &name)?, name));
    }
    let text = read_text(list)?;
    match document::kind(&text) {
        Kind::Workflow => Ok(Source::Workflow(WorkflowFile { name: list.to_owned(), text })),
        Kind::List => Ok(Source::List(run_list::parse(&text, list)?, list.to_owned())),
    }
}

/// Hands in what is not yet handed in and waits for it, unless a signal or the limit comes first.
fn see_to_it(
    state: &StateDir,
    record: RunRecord,
    file: Option<WorkflowFile>,
    client: Arc<Client>,
    here: bool,
    run: &Run,
    output: Output,
) -> Result<u8, Error> {
    let flags = run.wait;
    let id = record.id.clone();
    let at = client.address();
    if !output.json {
        let place = if here { "in this process".to_owned() } else { format!("at {at}") };
        let what = match &record.workflow {
            Some(workflow) => workflow.file.clone(),
            None => format!("{} tasks", record.tasks.len()),
        };
        eprintln!("run {id}: {what} {place}");
    }
    let bar = if record.workflow.is_some() { Bar::hidden() } else { Bar::new(record.tasks.len(), output) };
    let shown = Shown { bar, watch: Watch::new(run.watch, output) };
    let inner = shown.clone();
    let (saved, state, speaker) = (state, state.clone(), Arc::clone(&client));
    state.save_run(&record)?;
    let ended =
        guarded(run.timeout, move || work(&state, record, file.as_ref(), &client, flags, output, &inner))?;
    let resume = format!("`agentflow run --resume {id}`");
    let (said, code) = match ended {
        Ended::Done(Ok(code)) => return Ok(code),
        Ended::Done(Err(error)) => {
            let begun = saved.load_run(&id).is_ok_and(|record| record.cursor.is_some());
            if begun && matches!(error, Error::NoMaster { .. } | Error::Broken { .. }) {
                eprintln!("run {id} is not lost: go on with {resume}");
            }
            return Err(error);
        }
        Ended::Interrupted => ("interrupted", exit::INTERRUPTED),
        Ended::TimedOut => ("not done in time", exit::TIMEOUT),
    };
    // The master goes away now, and that is no news.
    speaker.hush();
    shown.bar.clear();
    shown.watch.stop();
    if here {
        eprintln!("{said}; what was not done waits: go on with {resume}");
    } else {
        eprintln!("{said}; the tasks go on at {at}: wait for them again with {resume}");
    }
    Ok(code)
}

fn work(
    state: &StateDir,
    mut record: RunRecord,
    file: Option<&WorkflowFile>,
    client: &Arc<Client>,
    flags: WaitFlags,
    output: Output,
    shown: &Shown,
) -> Result<u8, Error> {
    let cursor = match record.cursor {
        Some(cursor) => cursor,
        None => head(client)?,
    };
    record.cursor = Some(cursor);
    if record.workflow.is_some() {
        state.save_run(&record)?;
        let view = run_workflow::hand_in(client, &mut record, file)?;
        state.save_run(&record)?;
        return run_workflow::see_through(client, &view, Since::Event(cursor), flags, output, &shown.watch);
    }
    if record.ids.len() < record.tasks.len() {
        state.save_run(&record)?;
        let (tasks, key) = (record.tasks.clone(), record.key.clone());
        record.ids = hand_in(client, &tasks, &key)?;
        state.save_run(&record)?;
    }
    let titles = record.ids.iter().copied().zip(record.tasks.iter().map(run_list::headline)).collect();
    let work = Work { ids: record.ids, titles, run: Some(record.id) };
    let tally = see_through(client, &work, Since::Event(cursor), flags, output, &shown.bar)?;
    Ok(tally.exit_code(flags))
}

//! `run`: hands in a list, waits for all of it, and can be resumed.
//!
//! What is to be done is written down before anything is sent, with the key under which it is
//! sent: a run that was killed between any two steps is resumed without doing a task twice.
//! Where no master answers, one is started in this process for as long as it is needed.

use std::sync::Arc;

use agentflow_protocol::submit::TaskBody;

use super::report::{Bar, Tally, Work, see_through};
use super::submit::{hand_in, read_text};
use super::{DEFAULT_MASTER, client, named_masters};
use crate::args::{Global, Run, WaitFlags};
use crate::client::Client;
use crate::embedded;
use crate::error::{Error, exit};
use crate::interrupt::{Ended, guarded};
use crate::output::Output;
use crate::run_list;
use crate::settle::{Since, head};
use crate::state::{Owner, RunRecord, StateDir};

/// The label that ties the tasks of a masterless run to the worker that the run brings along: a
/// later run or `up` over the same state does not begin what was interrupted.
const RUN_LABEL: &str = "agentflow.run";

/// Where the work is done.
enum Place {
    /// At a master that has its own workers.
    Master(String),
    /// In this process, or at the embedded master of another one with a worker of ours.
    Here,
}

pub(super) fn run(run: Run, global: &Global, output: Output) -> Result<u8, Error> {
    let state = StateDir::open()?;
    let (mut record, place) = match &run.resume {
        Some(id) => resumed(&state, id, global)?,
        None => begun(&state, &run, global)?,
    };
    let (client, local) = match place {
        Place::Master(masters) => (client(super::addresses(&masters)?, global), None),
        Place::Here => {
            let (local, worker) = embedded::open(&state, &record, RUN_LABEL, run.slots)?;
            record.worker = Some(worker);
            (client(vec![local.url().to_owned()], global), Some(local))
        }
    };
    let result = see_to_it(&state, record, Arc::new(client), local.is_some(), &run, output);
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
fn begun(state: &StateDir, run: &Run, global: &Global) -> Result<(RunRecord, Place), Error> {
    let list = run.list.as_deref().unwrap_or_default();
    let mut tasks = read_list(list)?;
    for task in &mut tasks {
        run_list::apply(task, &run.task, run.task_timeout);
    }
    let place = match named_masters(global)? {
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
    };
    let master = match &place {
        Place::Master(masters) => Some(masters.clone()),
        Place::Here => None,
    };
    let mut record = state.new_run(master, tasks)?;
    if record.master.is_none() {
        // The worker is here: work begins where the command was typed, also when it is resumed
        // from elsewhere.
        let here = std::env::current_dir().ok().and_then(|dir| dir.to_str().map(str::to_owned));
        for task in &mut record.tasks {
            task.workdir = task.workdir.take().or_else(|| here.clone());
            task.labels.get_or_insert_default().insert(RUN_LABEL.to_owned(), record.id.clone());
        }
    }
    run_list::check(&record.tasks, if list.trim_start().starts_with('[') { "the list" } else { list })?;
    Ok((record, place))
}

/// A known run, and where it was begun.
fn resumed(state: &StateDir, id: &str, global: &Global) -> Result<(RunRecord, Place), Error> {
    let record = state.load_run(id)?;
    let place = match (&record.master, named_masters(global)?) {
        (None, _) => Place::Here,
        (Some(_), Some(masters)) => Place::Master(masters.join(",")),
        (Some(masters), None) => Place::Master(masters.clone()),
    };
    Ok((record, place))
}

/// A JSON array is the list itself; anything else names a file.
fn read_list(list: &str) -> Result<Vec<TaskBody>, Error> {
    if list.trim_start().starts_with('[') {
        return run_list::parse(list, "the list");
    }
    run_list::parse(&read_text(list)?, list)
}

/// Hands in what is not yet handed in and waits for it, unless a signal or the limit comes first.
fn see_to_it(
    state: &StateDir,
    record: RunRecord,
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
        eprintln!("run {id}: {} tasks {place}", record.tasks.len());
    }
    let bar = Bar::new(record.tasks.len(), output);
    let shown = bar.clone();
    let (saved, state, speaker) = (state, state.clone(), Arc::clone(&client));
    state.save_run(&record)?;
    let ended = guarded(run.timeout, move || work(&state, record, &client, flags, output, &bar))?;
    let resume = format!("`agentflow run --resume {id}`");
    let (said, code) = match ended {
        Ended::Done(Ok(tally)) => return Ok(tally.exit_code(flags)),
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
    shown.clear();
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
    client: &Arc<Client>,
    flags: WaitFlags,
    output: Output,
    bar: &Bar,
) -> Result<Tally, Error> {
    let cursor = match record.cursor {
        Some(cursor) => cursor,
        None => head(client)?,
    };
    record.cursor = Some(cursor);
    if record.ids.len() < record.tasks.len() {
        state.save_run(&record)?;
        let (tasks, key) = (record.tasks.clone(), record.key.clone());
        record.ids = hand_in(client, &tasks, &key)?;
        state.save_run(&record)?;
    }
    let titles = record.ids.iter().copied().zip(record.tasks.iter().map(run_list::headline)).collect();
    let work = Work { ids: record.ids, titles, run: Some(record.id) };
    see_through(client, &work, Since::Event(cursor), flags, output, bar)
}

//! The commands, one file per subject, and the way to a master that they share.

mod artifacts;
mod checkpoints;
mod choice;
mod each;
mod events;
mod gates;
mod guard;
mod hook;
mod hook_git;
mod hooks;
mod keys;
mod locks;
mod logs;
mod memory;
mod report;
mod rerun;
mod run;
mod run_upgrade;
mod run_versions;
mod run_workflow;
mod runs;
mod schedules;
mod service;
mod submit;
mod tasks;
mod versions;
mod wait;
mod workers;
mod workflows;

use clap::CommandFactory;

use crate::args::{Arguments, Command, Global};
use crate::client::Client;
use crate::embedded;
use crate::error::{Error, exit};
use crate::output::Output;
use crate::state::StateDir;

/// Where a master is expected unless something else is said.
const DEFAULT_MASTER: &str = "http://127.0.0.1:6767";

/// Executes a command.
///
/// # Errors
/// Whatever keeps it from its end; work that failed is no error but an exit code.
pub(crate) fn execute(command: Command, global: &Global, output: Output) -> Result<u8, Error> {
    match command {
        Command::Up(up) => embedded::up(&up, output),
        Command::Submit(submit) => submit::submit(*submit, global, output),
        Command::Run(run) => run::run(*run, global, output),
        Command::Runs(list) => runs::list(&list, &connect(global)?, output),
        Command::Validate(validate) => workflows::validate(&validate, output),
        Command::Plan(plan) => workflows::plan(&plan, global, output),
        Command::Graph(graph) => workflows::graph(&graph, global, output),
        Command::Schema { what } => workflows::schema(what, output),
        Command::Approve(tasks) => gates::approve(&tasks, &connect(global)?, output),
        Command::Reject(reject) => gates::reject(&reject, &connect(global)?, output),
        Command::Release(tasks) => gates::release(&tasks, &connect(global)?, output),
        Command::Relate(relate) => gates::relate(&relate, &connect(global)?, output),
        Command::Keys { act } => keys::keys(act.as_ref(), &connect(global)?, output),
        Command::Lock(lock) => locks::lock(&lock, global, output),
        Command::Unlock(unlock) => locks::unlock(&unlock, global, output),
        Command::Locks(list) => locks::locks(list, global, output),
        Command::Hook { act } => hook::hook(act, global, output),
        Command::Hooks { act } => hooks::hooks(&act, output),
        Command::Guard { act } => guard::guard(act, global, output),
        Command::Schedules { act } => schedules::schedules(act.as_ref(), &connect(global)?, output),
        Command::Artifacts { act } => artifacts::artifacts(&act, &connect(global)?, output),
        Command::Checkpoint { act } => checkpoints::checkpoint(act, global, output),
        Command::Remember(remember) => memory::remember(&remember, global, output),
        Command::Recall(recall) => memory::recall(&recall, global, output),
        Command::Forget(forget) => memory::forget(&forget, global, output),
        Command::Progress(progress) => memory::progress(&progress),
        Command::Fork(fork) => rerun::fork(&fork, &connect(global)?, output),
        Command::Upgrade(upgrade) => versions::upgrade(&upgrade, global, output),
        Command::Versions(of) => versions::versions(&of, &connect(global)?, output),
        Command::List(list) => tasks::list(&list, &connect(global)?, output),
        Command::DeadLetters(list) => tasks::dead_letters(&list, &connect(global)?, output),
        Command::Get(get) => tasks::get(&get, &connect(global)?, output),
        Command::Logs(logs) => logs::logs(&logs, connect(global)?, output),
        Command::Why(task) => tasks::why(&task, &connect(global)?, output),
        Command::Cancel(choice) => choice::cancel(&choice, &connect(global)?, output),
        Command::Retry(retry) => choice::retry(&retry, &connect(global)?, output),
        Command::Update(update) => tasks::update(&update, &connect(global)?, output),
        Command::Wait(wait) => wait::wait(wait, connect(global)?, output),
        Command::Workers => workers::list(&connect(global)?, output),
        Command::Drain(drain) => workers::drain(&drain, &connect(global)?, output),
        Command::Events(events) => events::events(events, connect(global)?, output),
        Command::Health => service::health(&connect(global)?, output),
        Command::Stats => service::stats(&connect(global)?, output),
        Command::Completion { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "agentflow", &mut script);
            output.bytes(&script)?;
            Ok(exit::DONE)
        }
    }
}

/// The master that was named, else the one of this user's state directory, else the default.
fn connect(global: &Global) -> Result<Client, Error> {
    if let Some(masters) = named_masters(global)? {
        return Ok(client(masters, global));
    }
    // Without a state directory there is no local master to find.
    let local = StateDir::open().and_then(|state| state.live_master()).unwrap_or_else(|error| {
        log::debug!("no local master is looked for: {error}");
        None
    });
    let master = local.map_or_else(|| DEFAULT_MASTER.to_owned(), |live| live.url);
    Ok(client(vec![master], global))
}

fn client(masters: Vec<String>, global: &Global) -> Client {
    let token = variable("AGENTFLOW_TOKEN");
    Client::new(masters, token, global.patience)
}

/// The masters named by the flag or the environment.
fn named_masters(global: &Global) -> Result<Option<Vec<String>>, Error> {
    named_master(global).map(|text| addresses(&text)).transpose()
}

/// The same as it was written.
fn named_master(global: &Global) -> Option<String> {
    let flag = global.master.clone();
    flag.or_else(|| variable("AGENTFLOW_MASTER")).or_else(|| variable("AGENTFLOW_MASTER_URL"))
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
}

/// Base addresses from a list with commas.
fn addresses(text: &str) -> Result<Vec<String>, Error> {
    let masters = text
        .split(',')
        .map(str::trim)
        .filter(|address| !address.is_empty())
        .map(|address| {
            let address = address.trim_end_matches('/');
            match address.split_once("://") {
                Some(("http", host)) if !host.is_empty() => Ok(address.to_owned()),
                None => Ok(format!("http://{address}")),
                Some(_) => Err(Error::Usage(format!(
                    "'{address}' is no master's address; write http://HOST:PORT (for TLS put a proxy in front)"
                ))),
            }
        })
        .collect::<Result<Vec<_>, _>>()?;
    if masters.is_empty() {
        return Err(Error::Usage("--master names no address; write http://HOST:PORT".to_owned()));
    }
    Ok(masters)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_completed() {
        let read = |text| addresses(text).map_err(|error| error.exit_code());
        assert_eq!(read("http://a:1/, b:2"), Ok(vec!["http://a:1".into(), "http://b:2".into()]));
        assert_eq!(read("https://a:1"), Err(2));
        assert_eq!(read(" , "), Err(2));
    }
}

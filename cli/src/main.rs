//! `agentflow`: the command that people type.
//!
//! Owns: the command line, the way to a master, what is printed, and exit codes. Must not know:
//! how tasks are scheduled or kept; it speaks to a master over HTTP, even to one in its own process.

use std::process::ExitCode;

use clap::Parser;

mod args;
mod client;
mod clock;
mod commands;
mod descendants;
mod document;
mod embedded;
mod enforce;
mod error;
mod event_log;
mod follow;
mod input;
mod inside;
mod interrupt;
mod output;
mod restart;
mod run_list;
mod settle;
mod state;
mod task_locks;
mod task_output;
mod who;
mod workflow_file;
mod working_copy;

use args::Arguments;
use error::exit;
use output::Output;

fn main() -> ExitCode {
    // A worker in this process starts this program again as its warden.
    if let Some(code) = embedded::warden_if_asked() {
        return code;
    }
    let arguments = Arguments::parse();
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("warn")).init();
    let output = Output::detect(arguments.global.json);
    match commands::execute(arguments.command, &arguments.global, output) {
        Ok(code) => ExitCode::from(code),
        Err(error) if error.is_closed_pipe() => ExitCode::from(exit::DONE),
        Err(error) => {
            eprintln!("{}", error.message());
            ExitCode::from(error.exit_code())
        }
    }
}

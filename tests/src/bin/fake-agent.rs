//! The program of an agent without a model: `fake-agent -p SCRIPT --output-format stream-json --verbose`.

use std::path::PathBuf;
use std::process::ExitCode;

use agentflow_tests::agent::{Options, Script, run};
use agentflow_tests::harness::Failure;
use clap::Parser;

/// Calls the tools that a script lists, as Claude Code would call them.
#[derive(Parser)]
#[command(name = "fake-agent")]
struct Flags {
    /// The script in the place of a prompt: JSON, or a file with it
    #[arg(short, long = "print", value_name = "SCRIPT")]
    prompt: String,
    /// Settings instead of .claude/settings.json of the working directory
    #[arg(long, value_name = "FILE")]
    settings: Option<PathBuf>,
    /// Which session this is [default: another one each time]
    #[arg(long, value_name = "UUID")]
    session_id: Option<String>,
    /// Taken for the sake of those who give it: there is no other
    #[arg(long, value_parser = ["stream-json"], default_value = "stream-json")]
    output_format: String,
    /// The same
    #[arg(long)]
    verbose: bool,
}

fn main() -> ExitCode {
    let flags = Flags::parse();
    let done = script(&flags.prompt)
        .and_then(|script| run(Options { script, settings: flags.settings, session: flags.session_id }));
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn script(prompt: &str) -> Result<Script, Failure> {
    if prompt.trim_start().starts_with('{') {
        return Ok(serde_json::from_str(prompt)?);
    }
    let text = std::fs::read(prompt).map_err(|error| format!("{prompt}: {error}"))?;
    Ok(serde_json::from_slice(&text)?)
}

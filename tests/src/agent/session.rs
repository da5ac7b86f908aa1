//! One session, from the first line to the last.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::hooks::Settings;
use super::script::Script;
use super::stream::{Outcome, Session};
use super::tools;
use crate::harness::{Failure, Random};

/// Where a project keeps its settings.
const SETTINGS: &str = ".claude/settings.json";

/// What is asked on the command line.
#[derive(Clone, Debug)]
pub struct Options {
    /// What to do.
    pub script: Script,
    /// Settings instead of those of the working directory.
    pub settings: Option<PathBuf>,
    /// Which session this is; one is made up where there is none.
    pub session: Option<String>,
}

/// Does everything in the script; whether it was done.
///
/// # Errors
/// When it cannot begin.
pub fn run(options: Options) -> Result<bool, Failure> {
    let cwd = std::env::current_dir()?;
    let settings = Settings::read(&options.settings.unwrap_or_else(|| cwd.join(SETTINGS)))?;
    let mut session = Session::new(options.session.unwrap_or_else(made_up));
    let home = std::env::var("HOME").unwrap_or_default();
    let name: String =
        cwd.display().to_string().chars().map(|c| if c.is_alphanumeric() { c } else { '-' }).collect();
    let transcript = format!("{home}/.claude/projects/{name}/{}.jsonl", session.id);
    session.begins(&cwd);
    let mut denials = Vec::new();
    let count = options.script.calls.len();
    for (at, call) in options.script.calls.into_iter().enumerate() {
        let (tool, input) = (&call.tool, call.tool.input(&cwd));
        let id = call.id.unwrap_or_else(|| format!("toolu_{at:02}"));
        session.calls(&id, tool, &input);
        let question = json!({
            "session_id": session.id, "transcript_path": transcript, "cwd": cwd,
            "permission_mode": "acceptEdits", "hook_event_name": "PreToolUse", "tool_name": tool.name(),
            "tool_input": input, "tool_use_id": id,
        });
        let outcome = match settings.refuse(tool.name(), &question, &cwd) {
            Some(said) => {
                denials.push(denial(&id, tool.name(), &question));
                Outcome { is_error: true, said }
            }
            None => match tools::call(tool, &cwd) {
                Ok(said) => Outcome { is_error: false, said },
                Err(said) => Outcome { is_error: true, said },
            },
        };
        session.hears(&id, &outcome);
        if outcome.is_error && call.required {
            session.ends(Some(&format!("{id}: {}", outcome.said)), at + 1, &denials);
            return Ok(false);
        }
    }
    session.ends(None, count, &denials);
    Ok(true)
}

fn denial(id: &str, tool: &str, question: &Value) -> Value {
    json!({ "tool_name": tool, "tool_use_id": id, "tool_input": question["tool_input"] })
}

/// Looks like a UUID.
fn made_up() -> String {
    let mut random = Random::new(Random::fresh_seed() ^ u64::from(std::process::id()) << 32);
    let (a, b) = (random.bits(), random.bits());
    format!(
        "{:08x}-{:04x}-4{:03x}-8{:03x}-{:012x}",
        a >> 32,
        a >> 16 & 0xffff,
        a & 0xfff,
        b >> 52,
        b & 0xffff_ffff_ffff
    )
}

//! Asks the hooks that a settings file names before a tool is called.

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use crate::harness::{Failure, wait_for};

/// The exit code that is a no.
const NO: i32 = 2;

/// How long a hook may take that does not say so itself.
const TIMEOUT: u64 = 600;

/// What of a settings file concerns hooks.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Settings {
    #[serde(default)]
    hooks: Events,
}

#[derive(Debug, Default, Deserialize)]
struct Events {
    #[serde(default, rename = "PreToolUse")]
    pre_tool_use: Vec<Group>,
}

#[derive(Debug, Deserialize)]
struct Group {
    #[serde(default)]
    matcher: String,
    hooks: Vec<Hook>,
}

#[derive(Debug, Deserialize)]
struct Hook {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    command: String,
    timeout: Option<u64>,
}

impl Settings {
    /// Reads a file; where there is none there are no hooks.
    pub(super) fn read(path: &Path) -> Result<Self, Failure> {
        match std::fs::read(path) {
            Ok(text) => {
                serde_json::from_slice(&text).map_err(|error| format!("{}: {error}", path.display()).into())
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(format!("{}: {error}", path.display()).into()),
        }
    }

    /// Why that tool may not be called, if one of its hooks says so.
    pub(super) fn refuse(&self, tool: &str, call: &Value, cwd: &Path) -> Option<String> {
        let groups = self.hooks.pre_tool_use.iter().filter(|group| matches(&group.matcher, tool));
        let commands = groups.flat_map(|group| &group.hooks).filter(|hook| hook.kind == "command");
        commands.into_iter().find_map(|hook| {
            let why = hook.ask(&call.to_string(), cwd)?;
            Some(format!("PreToolUse:{tool} hook error: [{}]: {why}", hook.command))
        })
    }
}

/// Names with `|` between them; nothing and a star are every tool. More of a regular expression is not
/// needed here.
fn matches(matcher: &str, tool: &str) -> bool {
    matches!(matcher, "" | "*") || matcher.split('|').any(|name| name == tool)
}

impl Hook {
    /// The reason of a no. A hook that cannot be run, is late or fails otherwise has said nothing.
    fn ask(&self, call: &str, cwd: &Path) -> Option<String> {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", &self.command]).current_dir(cwd).env("CLAUDE_PROJECT_DIR", cwd);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().ok()?;
        // It need not read it, and says little.
        let _unread = child.stdin.take()?.write_all(call.as_bytes());
        let patience = Duration::from_secs(self.timeout.unwrap_or(TIMEOUT));
        let Ok(status) = wait_for("the hook ends", patience, || child.try_wait().ok().flatten()) else {
            let _killed = child.kill();
            let _reaped = child.wait();
            return None;
        };
        let (mut out, mut err) = (String::new(), String::new());
        child.stdout.take()?.read_to_string(&mut out).ok()?;
        child.stderr.take()?.read_to_string(&mut err).ok()?;
        match status.code() {
            Some(NO) => Some(err.trim_end().to_owned()),
            Some(0) => denied(&out),
            _ => None,
        }
    }
}

/// The reason in what a hook prints that ends well.
fn denied(out: &str) -> Option<String> {
    let said: Value = serde_json::from_str(out).ok()?;
    let said = &said["hookSpecificOutput"];
    let reason = said["permissionDecisionReason"].as_str().unwrap_or_default();
    (said["permissionDecision"] == "deny").then(|| reason.to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// What becomes of an Edit where the hook is that line of the shell.
    fn asked(command: &str) -> Option<String> {
        let hook = json!({ "type": "command", "command": command, "timeout": 1 });
        let groups = json!([{ "matcher": "Edit|Write", "hooks": [hook] }]);
        let settings: Settings =
            serde_json::from_value(json!({ "hooks": { "PreToolUse": groups } })).expect("settings");
        let call = json!({ "tool_name": "Edit" });
        assert_eq!(settings.refuse("Bash", &call, Path::new("/")), None, "it does not match");
        settings.refuse("Edit", &call, Path::new("/"))
    }

    #[test]
    fn two_is_a_no_and_every_other_failure_a_yes() {
        let no = asked("grep -q '\"tool_name\":\"Edit\"' && echo locked >&2; exit 2").expect("a no");
        assert!(no.starts_with("PreToolUse:Edit hook error: [") && no.ends_with("]: locked"), "{no}");
        for yes in ["exit 0", "exit 1", "exit 127", "no-such-program", "kill -9 $$", "sleep 20"] {
            assert_eq!(asked(yes), None, "{yes}");
        }
    }

    #[test]
    fn a_no_may_be_json() {
        let say = |word: &str| {
            let said = json!({ "hookSpecificOutput": {
                "hookEventName": "PreToolUse", "permissionDecision": word, "permissionDecisionReason": "it is locked",
            } });
            asked(&format!("echo '{said}'"))
        };
        assert!(say("deny").is_some_and(|why| why.ends_with("it is locked")));
        assert_eq!(say("allow"), None);
    }

    #[test]
    fn without_a_file_there_are_no_hooks() {
        let settings = Settings::read(Path::new("/nowhere/settings.json")).expect("none");
        assert_eq!(settings.refuse("Edit", &json!({}), Path::new("/")), None);
    }
}

//! `hook`: what agents and git call before files are changed.
//!
//! `hook pre-tool` answers within two seconds: it waits for no lock, and a master that does not answer in
//! time has not answered. What goes wrong is a no where every change needs a lock, because an agent takes
//! the failure of a hook for a yes.

use std::collections::HashSet;
use std::io::{BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::{Value, json};

use super::{connect, hook_git, named_master};
use crate::args::{Global, HookAct, HookFormat};
use crate::enforce::ask;
use crate::enforce::cache::Cache;
use crate::enforce::change::Change;
use crate::enforce::check::{Refused, judge};
use crate::enforce::files::{Found, find};
use crate::enforce::git::Git;
use crate::enforce::own::Own;
use crate::enforce::rules::Rules;
use crate::enforce::tool_call::{CALL_BYTES, ToolCall};
use crate::error::{Error, exit};
use crate::output::{Output, printable};
use crate::working_copy::{Mode, WorkingCopy};

/// What agents take for a no.
const DENIED: u8 = 2;

/// How long a master may take. The rest of two seconds is for git.
const ANSWER: Duration = Duration::from_millis(1_400);

pub(super) fn hook(act: HookAct, global: &Global, output: Output) -> Result<u8, Error> {
    match act {
        HookAct::PreTool { format } => {
            let format = if output.json { HookFormat::Json } else { format };
            pre_tool(format, global, output)
        }
        HookAct::Git(hook) => hook_git::run(&hook, global),
    }
}

fn pre_tool(format: HookFormat, global: &Global, output: Output) -> Result<u8, Error> {
    let here = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/"));
    let call = read().and_then(|call| ToolCall::of(&call));
    let said = call.as_ref().ok().and_then(|call| call.directory.clone());
    let directory = said.map_or_else(|| here.clone(), |said| here.join(said));
    let event = call.as_ref().map(|call| call.event.clone()).unwrap_or_default();
    let mut answer = Answer { global, began: Instant::now(), refused: Vec::new(), said: Vec::new() };
    match call.and_then(|call| call.files) {
        // Most tools do not write, and are not to wait.
        Ok(files) if files.is_empty() => {}
        Ok(files) => answer.files(&directory, &files),
        Err(why) => answer.cannot_tell(Rules::around(&directory), &why),
    }
    answer.tell(&event, format, output)
}

/// The call, up to its bound. It ends where its JSON does, and comes in time.
fn read() -> Result<Value, String> {
    let read = || {
        let mut input = std::io::stdin().lock().take(CALL_BYTES + 1);
        let call = Value::deserialize(&mut serde_json::Deserializer::from_reader(BufReader::new(&mut input)));
        if input.limit() == 0 {
            return Ok(Err(format!("the tool call is longer than {} MiB", CALL_BYTES >> 20)));
        }
        Ok(call.map_err(|error| format!("the tool call is no JSON ({error})")))
    };
    ask::within(ANSWER, read)
        .map_err(|_| format!("no whole tool call came within {} ms", ANSWER.as_millis()))?
}

/// The files of one working copy.
struct Group {
    copy: WorkingCopy,
    rules: Rules,
    changes: Vec<Change>,
}

/// What is going to be said.
struct Answer<'a> {
    global: &'a Global,
    began: Instant,
    /// Why not: no line is a yes.
    refused: Vec<String>,
    /// What people should know of a yes.
    said: Vec<String>,
}

impl Answer<'_> {
    /// Something is wrong: a no where every change needs a lock.
    fn cannot_tell(&mut self, rules: Rules, why: &str) {
        match rules.mode {
            Mode::Off => {}
            Mode::Enforce => self.refused.push(format!("{why}: {}", rules.failing())),
            Mode::Conflicts => self.said.push(format!("{why}: allowed, as only conflicts count here")),
        }
    }

    fn files(&mut self, directory: &Path, files: &[PathBuf]) {
        let around = if directory.is_dir() { WorkingCopy::around(directory) } else { Ok(None) };
        let agent = match around {
            Ok(agent) => agent,
            Err(error) => return self.cannot_tell(Rules::around(directory), &error.to_string()),
        };
        let mut groups = Vec::new();
        for file in files {
            if let Err(error) = self.find(&mut groups, agent.as_ref(), directory, file) {
                self.cannot_tell(Rules::around(directory), &error.to_string());
            }
        }
        for group in groups {
            let rules = group.rules;
            if let Err(error) = self.group(group) {
                self.cannot_tell(rules, &error.to_string());
            }
        }
    }

    /// Puts a file to those of its working copy: that of the agent, if it is in one.
    fn find(
        &mut self,
        groups: &mut Vec<Group>,
        agent: Option<&WorkingCopy>,
        directory: &Path,
        file: &Path,
    ) -> Result<(), Error> {
        let home = match agent {
            Some(agent) => Some(agent.clone()),
            None => around_file(&directory.join(file))?,
        };
        let Some(home) = home else { return Ok(()) };
        let rules = Rules::of(&home);
        match find(&home, directory, file)? {
            Found::Outside => {}
            Found::LeadsOut(why) if rules.mode != Mode::Off => self.refused.push(why),
            Found::LeadsOut(_) => {}
            // Nobody else can have a lock for it.
            Found::Here(change) if change.path.is_err() && rules.mode == Mode::Conflicts => {}
            Found::Here(change) => add(groups, home, rules, change),
            Found::Within(copy, change) => {
                let rules = if copy.repo == home.repo { Rules::of(&copy) } else { Rules::of_other(&copy) };
                add(groups, *copy, rules, change);
            }
        }
        Ok(())
    }

    fn group(&mut self, group: Group) -> Result<(), Error> {
        let Group { copy, rules, mut changes } = group;
        if rules.mode == Mode::Off || changes.is_empty() {
            return Ok(());
        }
        let own = Own::of(&copy)?;
        if rules.mode == Mode::Enforce {
            leave_out_ignored(&copy, &own, &mut changes);
        }
        let (global, repo) = (self.global.clone(), copy.repo.clone());
        let left = ANSWER.saturating_sub(self.began.elapsed());
        let mut cache = Cache::of(&copy, named_master(self.global));
        let verdict = judge(rules, &own, changes, |places| {
            cache.held(&places, |rest| {
                let asked = move || ask::held(&connect(&global)?.impatient(), &repo, &rest);
                ask::within(left, asked).map_err(|error| error.to_string())
            })
        });
        self.said.extend(verdict.notes);
        if !verdict.refused.is_empty() {
            self.refused
                .extend(verdict.refused.iter().map(|one| format!("{}: {}", one.change.shown(), one.why)));
            self.refused.extend(advice(&copy, &own, &verdict.refused));
        }
        Ok(())
    }

    fn tell(self, event: &str, format: HookFormat, output: Output) -> Result<u8, Error> {
        let lines = |lines: &[String], between: &str| {
            lines.iter().map(|line| printable(line)).collect::<Vec<_>>().join(between)
        };
        let said = lines(&self.said, "\n");
        let refused = (!self.refused.is_empty())
            .then(|| format!("agentflow: file locks do not allow this:\n  {}", lines(&self.refused, "\n  ")));
        if format == HookFormat::Json {
            let told = output.json_line(&in_json(event, refused.as_deref(), &said));
            return match (told, refused) {
                (Ok(()), _) => Ok(exit::DONE),
                // Nobody has heard the no.
                (Err(_), Some(_)) => Ok(DENIED),
                (Err(error), None) => Err(error),
            };
        }
        // Who does not listen knows by the exit code.
        let mut err = std::io::stderr().lock();
        if !said.is_empty() {
            let _unheard = writeln!(err, "agentflow: {said}");
        }
        let Some(refused) = refused else { return Ok(exit::DONE) };
        let _unheard = writeln!(err, "{refused}");
        Ok(DENIED)
    }
}

fn add(groups: &mut Vec<Group>, copy: WorkingCopy, rules: Rules, change: Change) {
    match groups.iter_mut().find(|group| group.copy.root == copy.root) {
        Some(group) => group.changes.push(change),
        None => groups.push(Group { copy, rules, changes: vec![change] }),
    }
}

/// The working copy in which a file lies, or will.
fn around_file(place: &Path) -> Result<Option<WorkingCopy>, Error> {
    match place.ancestors().skip(1).find(|at| at.is_dir()) {
        Some(above) => WorkingCopy::around(above),
        None => Ok(None),
    }
}

/// What git ignores reaches nobody else, and needs no lock.
fn leave_out_ignored(copy: &WorkingCopy, own: &Own, changes: &mut Vec<Change>) {
    let uncovered = changes.iter().filter(|change| change.path.as_ref().is_ok_and(|path| !own.covers(path)));
    let names: Vec<&[u8]> = uncovered.map(Change::name).collect();
    if names.is_empty() {
        return;
    }
    match Git::at(&copy.root).ignored(&names) {
        Ok(ignored) => {
            let ignored: HashSet<Vec<u8>> = ignored.into_iter().collect();
            changes.retain(|change| !ignored.contains(change.name()));
        }
        Err(error) => log::debug!("it is not known what git ignores: {error}"),
    }
}

/// What can be done.
fn advice(copy: &WorkingCopy, own: &Own, refused: &[Refused]) -> Vec<String> {
    let mut advice = Vec::new();
    if let Some(other) = own.elsewhere().first() {
        advice.push(format!(
            "This task has locks in the repository {other}, and these files are of {}: declare its locks with \
             repo: {}",
            copy.repo, copy.repo
        ));
    }
    let file = match refused {
        [one] => one.change.path.as_ref().ok().map(|path| quoted(&copy.root.join(path.as_str()))),
        _ => None,
    };
    let file = file.unwrap_or_else(|| "FILE".to_owned());
    if refused.iter().any(|one| one.is_held) {
        advice.push(format!(
            "Work on something else meanwhile, or wait for it: agentflow lock --wait 5m {file}"
        ));
    }
    if refused.iter().any(|one| !one.is_held && one.change.path.is_ok()) {
        advice.push(format!("Lock a file before you change it: agentflow lock {file}"));
    }
    advice
}

/// A path as a shell takes it.
fn quoted(path: &Path) -> String {
    let text = path.to_string_lossy();
    let is_plain = text.chars().all(|c| c.is_alphanumeric() || "/._-+@%,=:".contains(c));
    if is_plain { text.into_owned() } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

/// As the agent wants to hear it, which is known by what it calls the hook. A yes says nothing: it would
/// go over what the agent asks its user.
fn in_json(event: &str, refused: Option<&str>, said: &str) -> Value {
    match (refused, event) {
        (Some(why), "BeforeTool") => json!({ "decision": "deny", "reason": why }),
        (Some(why), "preToolUse") => {
            json!({ "permission": "deny", "agent_message": why, "user_message": why })
        }
        (Some(why), _) => json!({ "hookSpecificOutput": {
            "hookEventName": "PreToolUse",
            "permissionDecision": "deny",
            "permissionDecisionReason": why,
        } }),
        (None, _) if said.is_empty() => json!({}),
        (None, _) => json!({ "systemMessage": format!("agentflow: {said}") }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_quoted_where_a_shell_would_see_more() {
        assert_eq!(quoted(Path::new("/r/src/a-b.rs")), "/r/src/a-b.rs");
        assert_eq!(quoted(Path::new("/r/it's $HOME")), r"'/r/it'\''s $HOME'");
    }

    #[test]
    fn each_agent_is_answered_in_its_own_words() {
        assert_eq!(in_json("BeforeTool", Some("no"), "")["decision"], "deny");
        assert_eq!(in_json("preToolUse", Some("no"), "")["permission"], "deny");
        let claude = in_json("PreToolUse", Some("no"), "");
        assert_eq!(claude["hookSpecificOutput"]["permissionDecision"], "deny");
        assert_eq!(claude["hookSpecificOutput"]["permissionDecisionReason"], "no");
        assert_eq!(in_json("PreToolUse", None, ""), json!({}));
        assert_eq!(in_json("PreToolUse", None, "x"), json!({ "systemMessage": "agentflow: x" }));
    }
}

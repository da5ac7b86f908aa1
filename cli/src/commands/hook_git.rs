//! `hook git`: what the scripts of `hooks install` hand over to.
//!
//! The hook that was there before runs first. What goes wrong here stops git only where every change
//! needs a lock; elsewhere it is said.

use std::ffi::OsString;
use std::io::Read;
use std::path::Path;
use std::time::Duration;

use agentflow_core::lock::LockPath;

use super::{connect, guard};
use crate::args::{GitHook, GitHookName, Global};
use crate::enforce::chain::{self, Input};
use crate::enforce::change::Change;
use crate::enforce::check::{Verdict, judge};
use crate::enforce::git::{Git, names_in};
use crate::enforce::guard::Guard;
use crate::enforce::history::{Arriving, Step, changes};
use crate::enforce::own::Own;
use crate::enforce::rules::Rules;
use crate::enforce::staged::{is_id, is_nothing, staged};
use crate::enforce::{ask, trailers};
use crate::error::{Error, exit};
use crate::working_copy::{Mode, WorkingCopy};

/// Bytes of what git tells a hook: a line for each of a hundred thousand branches.
const INPUT_BYTES: u64 = 32 << 20;

/// How long a master may take to say who holds what.
const ANSWER: Duration = Duration::from_secs(10);

pub(super) fn run(hook: &GitHook, global: &Global) -> Result<u8, Error> {
    let input = match hook.name {
        GitHookName::PrePush => read_input()?,
        GitHookName::PreCommit | GitHookName::CommitMsg => Vec::new(),
    };
    if let Some(script) = &hook.script {
        let input = if hook.name == GitHookName::PrePush { Input::Read(input.clone()) } else { Input::Ours };
        if let Some(code) = chain::run(script, &hook.arguments, input)? {
            return Ok(code);
        }
    }
    let here =
        std::env::current_dir().map_err(|error| Error::io("cannot tell the current directory", error))?;
    let copy = match WorkingCopy::around(&here) {
        Ok(Some(copy)) => copy,
        Ok(None) => return Ok(exit::DONE),
        Err(error) => return unless_open(Rules::around(&here), error),
    };
    let rules = Rules::of(&copy);
    let call = Call { git: Git::at(&here), copy, rules, global };
    let done = match hook.name {
        GitHookName::PreCommit => call.pre_commit(),
        GitHookName::CommitMsg => call.commit_msg(&hook.arguments),
        GitHookName::PrePush => call.pre_push(&hook.arguments, &input),
    };
    done.or_else(|error| unless_open(rules, error))
}

/// What a hook reads, up to its bound.
///
/// # Errors
/// When there is more.
pub(super) fn read_input() -> Result<Vec<u8>, Error> {
    let mut input = Vec::new();
    let read = std::io::stdin().lock().take(INPUT_BYTES + 1).read_to_end(&mut input);
    read.map_err(|error| Error::io("cannot read what git says", error))?;
    if input.len() as u64 > INPUT_BYTES {
        return Err(Error::Usage(
            "git names more branches than are looked at: push fewer at once".to_owned(),
        ));
    }
    Ok(input)
}

/// Where not every change needs a lock, nobody is kept from work because a lock cannot be looked at.
fn unless_open(rules: Rules, error: Error) -> Result<u8, Error> {
    if rules.mode == Mode::Enforce {
        return Err(error);
    }
    eprintln!("{}\nagentflow: file locks are not checked, and this is allowed", error.message());
    Ok(exit::DONE)
}

/// One call of a hook.
struct Call<'a> {
    git: Git,
    copy: WorkingCopy,
    rules: Rules,
    global: &'a Global,
}

impl Call<'_> {
    fn pre_commit(&self) -> Result<u8, Error> {
        if self.rules.mode == Mode::Off {
            return Ok(exit::DONE);
        }
        let staged = staged(&self.git, &self.copy)?;
        self.judge(&Own::of(&self.copy)?, staged.changes, "committed")
    }

    /// Adds the trailers. A merge without conflicts is checked here, as git asks `pre-commit` of none.
    fn commit_msg(&self, arguments: &[OsString]) -> Result<u8, Error> {
        let [file] = arguments else {
            return Err(Error::Usage("commit-msg takes the file with the message".to_owned()));
        };
        let own = Own::of(&self.copy)?;
        let staged = staged(&self.git, &self.copy)?;
        let mut changes = staged.changes;
        if changes.is_empty() && !staged.is_merge {
            // Only the message of the newest commit is to be another one.
            changes = self.newest()?;
        }
        let paths: Vec<LockPath> = changes.iter().filter_map(|change| change.path.clone().ok()).collect();
        if staged.is_merge {
            let code = self.judge(&own, changes, "committed")?;
            if code != exit::DONE {
                return Ok(code);
            }
        }
        trailers::add(&self.git, Path::new(file), &trailers::lines(&own, &paths))?;
        Ok(exit::DONE)
    }

    /// What the newest commit changes.
    fn newest(&self) -> Result<Vec<Change>, Error> {
        let Some(id) = self.git.commit("HEAD")? else { return Ok(Vec::new()) };
        Ok(changes(&self.git, &[&id])?.remove(&id).unwrap_or_default())
    }

    fn pre_push(&self, arguments: &[OsString], input: &[u8]) -> Result<u8, Error> {
        if self.rules.mode == Mode::Off {
            return Ok(exit::DONE);
        }
        let mut steps = Vec::new();
        for line in input.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            steps.extend(self.step(&String::from_utf8_lossy(line))?);
        }
        let arriving = Arriving::with(&self.git, &steps, &self.known(arguments)?)?;
        if arriving.is_empty() {
            return Ok(exit::DONE);
        }
        if self.rules.mode == Mode::Conflicts {
            return self.judge(&Own::of(&self.copy)?, arriving.changes(), "pushed");
        }
        let client = connect(self.global)?;
        let strays = Guard { client: &client, repo: &self.copy.repo }.strays(&arriving)?;
        guard::tell(&strays, &self.copy.repo);
        Ok(if strays.is_empty() { exit::DONE } else { exit::FAILED })
    }

    /// What a line says that is pushed: `LOCAL ID REMOTE ID`, where the first may have spaces. Only
    /// branches are looked at, and of those that go away nothing.
    fn step(&self, line: &str) -> Result<Option<Step>, Error> {
        let mut words = line.rsplitn(4, ' ');
        let (from, remote, to) = (words.next(), words.next(), words.next());
        let (Some(from), Some(remote), Some(to)) = (from, remote, to) else {
            return Err(Error::Usage(format!("git says of a push what is not understood: {line:?}")));
        };
        if !is_id(from) || !is_id(to) {
            return Err(Error::Usage(format!("git says of a push what is not understood: {line:?}")));
        }
        if !remote.starts_with("refs/heads/") || is_nothing(to) {
            return Ok(None);
        }
        // What somebody else has pushed meanwhile is not here: then git refuses the push itself.
        let from = if is_nothing(from) { None } else { self.git.commit(from)? };
        Ok(Some(Step { from, to: to.to_owned() }))
    }

    /// The commits that the remote has, as far as it is known here.
    fn known(&self, arguments: &[OsString]) -> Result<Vec<String>, Error> {
        let name = arguments.first().and_then(|name| name.to_str());
        let address = arguments.get(1).and_then(|address| address.to_str());
        // One without a name is called by its address.
        let place = match name.filter(|name| Some(*name) != address) {
            Some(name) => format!("refs/remotes/{name}/"),
            None => "refs/remotes/".to_owned(),
        };
        let refs = self.git.run(&["for-each-ref", "--format=%(objectname)%00", &place])?;
        let ids = names_in(&refs).filter_map(|id| std::str::from_utf8(id.trim_ascii()).ok());
        Ok(ids.filter(|id| is_id(id)).map(str::to_owned).collect())
    }

    /// Says what may not be done, and answers whether all may.
    fn judge(&self, own: &Own, changes: Vec<Change>, done: &str) -> Result<u8, Error> {
        let verdict = judge(self.rules, own, changes, |places| {
            let (global, repo) = (self.global.clone(), self.copy.repo.clone());
            let asked = move || ask::held(&connect(&global)?.impatient(), &repo, &places);
            ask::within(ANSWER, asked).map_err(|error| error.to_string())
        });
        let Verdict { refused, notes } = verdict;
        notes.iter().for_each(|note| eprintln!("agentflow: {note}"));
        if refused.is_empty() {
            return Ok(exit::DONE);
        }
        let mut text = format!("agentflow: file locks do not allow that this is {done}:\n");
        for one in &refused {
            text.push_str(&format!("  {}: {}\n", one.change.shown(), one.why));
        }
        if let Some(other) = own.elsewhere().first() {
            let repo = &self.copy.repo;
            text.push_str(&format!("This task has locks in {other}, and these files are of {repo}\n"));
        }
        if refused.iter().any(|one| !one.is_held && one.change.path.is_ok()) {
            text.push_str("Lock them with `agentflow lock FILE…`, or leave them out.");
        } else {
            text.push_str("Leave them out, or wait for them with `agentflow lock --wait 5m FILE…`.");
        }
        eprintln!("{text}");
        Ok(exit::FAILED)
    }
}

//! Runs the `git` program: no shell, no hooks, no questions, and an end in time.
//!
//! Owns: the child, from its spawn until it is reaped.

mod capture;
mod environment;

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::File;
use std::io::{self, Seek};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

use crate::control::signal_group;
use capture::Captured;

/// How long a command may take that reads and writes this machine's disks.
const LOCAL: Duration = Duration::from_secs(600);

/// How long a command may take that talks to a remote.
const NETWORK: Duration = Duration::from_secs(300);

/// Tries while another git holds a lock. The pauses between them are 1.5 s together.
const TRIES: u32 = 6;

/// The first of these pauses; each is twice as long as the one before.
const PAUSE: Duration = Duration::from_millis(50);

/// Where git works.
#[derive(Clone, Debug)]
enum Place {
    /// It looks for the repository from this directory upwards.
    Within(PathBuf),
    /// It is told, so that nothing a task does to its worktree's `.git` leads it elsewhere.
    Exactly { git_dir: PathBuf, root: Option<PathBuf> },
}

/// Git at one place.
pub(super) struct Git<'a> {
    place: Place,
    cancelled: &'a dyn Fn() -> bool,
}

impl<'a> Git<'a> {
    /// In the repository that this directory lies in.
    pub(super) fn within(directory: &Path, cancelled: &'a dyn Fn() -> bool) -> Self {
        Self { place: Place::Within(directory.to_owned()), cancelled }
    }

    /// In this repository; in its worktree, if one is named.
    pub(super) fn exactly(git_dir: &Path, root: Option<&Path>, cancelled: &'a dyn Fn() -> bool) -> Self {
        let place = Place::Exactly { git_dir: git_dir.to_owned(), root: root.map(Path::to_owned) };
        Self { place, cancelled }
    }

    /// For the same caller in another directory.
    pub(super) fn elsewhere(&self, directory: &Path) -> Self {
        Self::within(directory, self.cancelled)
    }

    /// Git with these arguments. The first is the subcommand.
    pub(super) fn call<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Call<'_> {
        let args = args.into_iter().map(|arg| arg.as_ref().to_owned()).collect();
        Call { git: self, args, variables: Vec::new(), input: None, output: None, limit: LOCAL }
    }

    /// What a command prints, without the last end of line.
    pub(super) fn text<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Result<String, Failure> {
        Ok(self.call(args).run()?.text())
    }

    /// The same for a command that says by its exit code 1 that there is nothing.
    pub(super) fn ask<S: AsRef<OsStr>>(
        &self,
        args: impl IntoIterator<Item = S>,
    ) -> Result<Option<String>, Failure> {
        match self.text(args) {
            Ok(text) => Ok(Some(text)),
            Err(failure) if failure.code == Some(1) && failure.stderr.is_empty() => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    /// The commit of a name. `None` when there is none.
    pub(super) fn commit(&self, name: &str) -> Result<Option<String>, Failure> {
        self.ask(["rev-parse", "--verify", "--quiet", "--end-of-options", &format!("{name}^{{commit}}")])
    }

    /// Lets time pass until another try; fails when the caller does not wait any more.
    pub(super) fn pause(&self, time: Duration) -> Result<(), String> {
        let until = Instant::now() + time;
        loop {
            if (self.cancelled)() {
                return Err(format!("git {}", capture::OVER));
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            std::thread::sleep(left.min(capture::TICK));
        }
    }
}

/// One command.
pub(super) struct Call<'a> {
    git: &'a Git<'a>,
    args: Vec<OsString>,
    variables: Vec<(&'static str, OsString)>,
    input: Option<File>,
    output: Option<File>,
    limit: Duration,
}

/// What a command printed.
#[derive(Debug)]
pub(super) struct Output {
    pub(super) stdout: Vec<u8>,
    pub(super) stderr: String,
}

impl Output {
    /// Its text without the last end of line.
    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(line(&self.stdout)).into_owned()
    }

    /// The path that it printed.
    pub(super) fn path(&self) -> PathBuf {
        PathBuf::from(OsString::from_vec(line(&self.stdout).to_vec()))
    }
}

fn line(bytes: &[u8]) -> &[u8] {
    bytes.strip_suffix(b"\n").unwrap_or(bytes)
}

/// Why a command failed, and what it printed.
#[derive(Debug)]
pub(super) struct Failure {
    text: String,
    /// Its exit code, if it came to one.
    pub(super) code: Option<i32>,
    pub(super) stdout: String,
    pub(super) stderr: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl From<Failure> for String {
    fn from(failure: Failure) -> Self {
        failure.text
    }
}

impl Call<'_> {
    /// One more argument.
    pub(super) fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// An index other than the worktree's own.
    pub(super) fn index(self, path: &Path) -> Self {
        self.variable("GIT_INDEX_FILE", path)
    }

    pub(super) fn variable(mut self, name: &'static str, value: impl AsRef<OsStr>) -> Self {
        self.variables.push((name, value.as_ref().to_owned()));
        self
    }

    /// What it reads, from the begin of the file.
    pub(super) fn input(mut self, file: File) -> Self {
        self.input = Some(file);
        self
    }

    /// Where its output goes, whatever its size, instead of to the caller.
    pub(super) fn output(mut self, file: File) -> Self {
        self.output = Some(file);
        self
    }

    /// It talks to a remote.
    pub(super) fn network(mut self) -> Self {
        self.limit = NETWORK;
        self
    }

    /// Another bound on its time.
    #[cfg(test)]
    pub(super) fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Runs it; again while another git holds a lock that it needs.
    pub(super) fn run(&self) -> Result<Output, Failure> {
        let mut pause = PAUSE;
        for _ in 1..TRIES {
            match self.run_once() {
                Err(failure) if is_locked(&failure.stderr) && self.git.pause(pause).is_ok() => pause *= 2,
                result => return result,
            }
        }
        self.run_once()
    }

    fn run_once(&self) -> Result<Output, Failure> {
        if (self.git.cancelled)() {
            return Err(self.failure(capture::OVER));
        }
        let spawned = self.command().and_then(|mut command| command.spawn());
        let mut child = spawned.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => self.failure("this worker finds no program 'git' in its PATH"),
            _ => self.failure(format!("cannot be started: {error}")),
        })?;
        let watched = capture::watch(&mut child, self.limit, self.git.cancelled);
        if watched.is_err() {
            signal_group(Pid::from_child(&child), Signal::KILL);
        }
        let status = child.wait();
        let lost = |error: io::Error| self.failure(format!("git was lost: {error}"));
        let Captured { stdout, stderr, stopped } = watched.map_err(lost)?;
        let status = status.map_err(lost)?;
        let stderr = String::from_utf8_lossy(&stderr).into_owned();
        if status.success() && stopped.is_none() {
            return Ok(Output { stdout, stderr });
        }
        let why = match (stopped, last_lines(&stderr)) {
            (Some(stopped), _) => stopped,
            (None, lines) if lines.is_empty() => status.to_string(),
            (None, lines) => lines,
        };
        let stdout = String::from_utf8_lossy(&stdout).into_owned();
        Err(Failure { code: status.code(), stdout, stderr, ..self.failure(why) })
    }

    fn command(&self) -> io::Result<Command> {
        let mut command = Command::new("git");
        environment::apply(&mut command);
        match &self.git.place {
            Place::Within(directory) => command.arg("-C").arg(directory),
            Place::Exactly { git_dir, root } => {
                command.env("GIT_DIR", git_dir);
                if let Some(root) = root {
                    command.env("GIT_WORK_TREE", root);
                }
                command.arg("-C").arg(root.as_ref().unwrap_or(git_dir))
            }
        };
        for setting in environment::SETTINGS {
            command.arg("-c").arg(setting);
        }
        command.args(&self.args).envs(self.variables.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        if let Some(input) = &self.input {
            (&mut &*input).rewind()?;
            command.stdin(input.try_clone()?);
        }
        if let Some(output) = &self.output {
            output.set_len(0)?;
            (&mut &*output).rewind()?;
            command.stdout(output.try_clone()?);
        }
        Ok(command)
    }

    fn failure(&self, why: impl fmt::Display) -> Failure {
        let name = self.args.first().map(|arg| arg.to_string_lossy()).unwrap_or_default();
        let text = format!("git {name}: {why}");
        Failure { text, code: None, stdout: String::new(), stderr: String::new() }
    }
}

/// Whether another git held a lock, or was making or removing a worktree. A reference that has another
/// value than expected is neither.
fn is_locked(stderr: &str) -> bool {
    let is_half_made = stderr.contains("failed to read") && stderr.contains("commondir");
    is_half_made || (stderr.contains("File exists") && stderr.contains("lock"))
}

/// The last lines that say something.
fn last_lines(stderr: &str) -> String {
    const LINES: usize = 3;
    const BYTES: usize = 1_000;
    let lines = stderr.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("hint:"));
    let mut last: Vec<&str> = lines.rev().take(LINES).collect();
    last.reverse();
    let mut text = last.join("; ");
    if text.len() > BYTES {
        let cut = (text.len() - BYTES..text.len()).find(|at| text.is_char_boundary(*at));
        text.drain(..cut.unwrap_or_default());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_quote_the_last_lines() {
        assert_eq!(last_lines("a\nb\n\nhint: c\nc\nfatal: d\n"), "b; c; fatal: d");
        assert_eq!(last_lines(&"ä".repeat(600)).len(), 1_000);
        assert!(is_locked("fatal: Unable to create '/x/.git/index.lock': File exists."));
        assert!(is_locked("fatal: failed to read .git/worktrees/5/commondir: Success"));
        assert!(!is_locked("fatal: cannot lock ref 'refs/x': reference already exists"));
    }

    #[test]
    fn a_command_ends_in_time() {
        let directory = tempfile::tempdir().expect("a directory");
        // Its child ignores TERM, so that only KILL to the whole group ends it.
        let slow = ["-c", "alias.slow=!trap '' TERM; sleep 60 & wait", "slow"];
        let began = Instant::now();
        let git = Git::within(directory.path(), &|| false);
        let failure = git.call(slow).limit(Duration::from_millis(300)).run().expect_err("too slow");
        assert!(failure.to_string().contains("took longer"), "{failure}");
        let git = Git::within(directory.path(), &|| true);
        let failure = git.call(slow).run().expect_err("cancelled");
        assert!(failure.to_string().contains("the task is over"), "{failure}");
        assert!(began.elapsed() < Duration::from_secs(30));
    }

    #[test]
    fn a_lock_is_waited_for() {
        let directory = tempfile::tempdir().expect("a directory");
        let git = Git::within(directory.path(), &|| false);
        let fail = "echo try >>tries; test $(wc -l <tries) -ge 3 || \
                    { echo \"fatal: Unable to create '/x/index.lock': File exists.\" >&2; exit 128; }";
        git.call(["-c", &format!("alias.locked=!{fail}"), "locked"]).run().expect("the third try");
        let tries = std::fs::read_to_string(directory.path().join("tries"));
        assert_eq!(tries.expect("tries").lines().count(), 3);
    }

    #[test]
    fn output_is_bounded() {
        let directory = tempfile::tempdir().expect("a directory");
        let git = Git::within(directory.path(), &|| false);
        let failure = git.call(["-c", "alias.much=!yes", "much"]).run().expect_err("too much");
        assert!(failure.to_string().contains("printed more than"), "{failure}");
    }
}

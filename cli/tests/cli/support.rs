//! A home of its own for each test, and the real binary in it.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// Far longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A temporary directory that holds the state of every command started in it.
pub(crate) struct Home(tempfile::TempDir);

impl Home {
    /// A fresh one.
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().expect("a directory"))
    }

    /// A path in it.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// `agentflow` with these words, seeing nothing of the environment's masters.
    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_agentflow"));
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("AGENTFLOW_") {
                command.env_remove(name);
            }
        }
        command.env("XDG_STATE_HOME", self.0.path()).args(words).stdin(Stdio::null());
        command
    }

    /// Runs it to its end.
    pub(crate) fn run(&self, words: &[&str]) -> Ended {
        Ended::from(self.command(words).output().expect("the binary starts"))
    }

    /// Starts it and goes on.
    pub(crate) fn start(&self, words: &[&str]) -> Started {
        Started::of(self.command(words))
    }

    /// Master and worker on that address; waits until they listen.
    pub(crate) fn up(&self, listen: &str) -> Up {
        let mut started = self.start(&["up", "--listen", listen, "--slots", "4"]);
        let line = started.line_with("listening on ");
        let url = line.trim().trim_start_matches("listening on ").to_owned();
        Up { started, url }
    }
}

/// What a command left behind.
#[derive(Debug)]
pub(crate) struct Ended {
    /// Its exit code; `None` after a signal.
    pub(crate) code: Option<i32>,
    /// Standard output.
    pub(crate) out: String,
    /// Standard error.
    pub(crate) err: String,
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Self { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }
}

impl Ended {
    /// Checks the exit code; shows everything if it is another.
    #[track_caller]
    pub(crate) fn code(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self:#?}");
        self
    }

    /// Standard output as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:#?}"))
    }
}

/// A command in progress; killed when dropped.
pub(crate) struct Started {
    child: Child,
    out: BufReader<std::process::ChildStdout>,
    err: Option<thread::JoinHandle<String>>,
    seen: String,
}

impl Started {
    /// Starts that command.
    pub(crate) fn of(mut command: Command) -> Self {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the binary starts");
        let out = BufReader::new(child.stdout.take().expect("piped"));
        let mut err = child.stderr.take().expect("piped");
        let err = thread::spawn(move || {
            let mut text = String::new();
            err.read_to_string(&mut text).map(|_| text).unwrap_or_default()
        });
        Self { child, out, err: Some(err), seen: String::new() }
    }

    /// The first line of standard output that holds this text.
    #[track_caller]
    pub(crate) fn line_with(&mut self, text: &str) -> String {
        loop {
            let mut line = String::new();
            let read = self.out.read_line(&mut line).expect("readable");
            self.seen.push_str(&line);
            if line.contains(text) {
                return line;
            }
            if read == 0 {
                let err = self.err.take().map(|thread| thread.join().unwrap_or_default());
                panic!("it ended without '{text}': {} {err:?}", self.seen);
            }
        }
    }

    /// Sends a signal to the process alone.
    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).expect("it runs");
    }

    /// Kills it as the power would. Its warden goes on for a while and holds its standard error.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("a child");
    }

    /// Waits for its end.
    #[track_caller]
    pub(crate) fn end(mut self) -> Ended {
        let status = self.status();
        let mut rest = String::new();
        self.out.read_to_string(&mut rest).expect("readable");
        let out = std::mem::take(&mut self.seen) + &rest;
        let err = self.err.take().map(|thread| thread.join().unwrap_or_default()).unwrap_or_default();
        Ended { code: status.code(), out, err }
    }

    #[track_caller]
    fn status(&mut self) -> ExitStatus {
        let since = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("a child") {
                return status;
            }
            assert!(since.elapsed() < PATIENCE, "it does not end");
            thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `agentflow up`.
pub(crate) struct Up {
    started: Started,
    /// Where it listens.
    pub(crate) url: String,
}

impl Up {
    /// Kills it as the power would.
    pub(crate) fn kill(self) {
        self.started.kill();
    }

    /// Asks it to end, and waits.
    #[track_caller]
    pub(crate) fn stop(self) -> Ended {
        self.started.signal(Signal::TERM);
        self.started.end()
    }

    /// `HOST:PORT`.
    pub(crate) fn address(&self) -> String {
        self.url.trim_start_matches("http://").to_owned()
    }
}

/// Waits until it is so.
#[track_caller]
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let since = Instant::now();
    while !is_so() {
        assert!(since.elapsed() < PATIENCE, "still not: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// The lines of a file; none when it is not there.
pub(crate) fn lines(path: &Path) -> usize {
    std::fs::read_to_string(path).map_or(0, |text| text.lines().count())
}

/// A file in that home, by its path.
pub(crate) fn file(home: &Home, name: &str, text: &str) -> String {
    let path = home.path(name);
    std::fs::write(&path, text).expect("written");
    path.into_os_string().into_string().expect("text")
}

/// A file that is shipped in `examples/`, by its path.
pub(crate) fn example(name: &str) -> String {
    format!("{}/../examples/{name}", env!("CARGO_MANIFEST_DIR"))
}

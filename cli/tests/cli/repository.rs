//! Real repositories, with the real git and the hooks that it runs.

use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::support::{Ended, Home};

/// What all of these repositories are called.
pub(crate) const NAME: &str = "example.com/team/app";

/// Port 1 is reserved and unused.
const NOBODY: &str = "http://127.0.0.1:1";

/// A working copy in a home of its own. There are spaces and more in its path.
pub(crate) struct Repository {
    pub(crate) home: Home,
    /// Its top.
    pub(crate) root: PathBuf,
    /// Whom its hooks ask.
    master: String,
    /// The file with the locks of the attempt in which everything runs, if it runs in one.
    attempt: Option<PathBuf>,
    /// What the environment says besides.
    variables: Vec<(&'static str, String)>,
}

impl Repository {
    /// With one commit on `main`, and no master.
    pub(crate) fn new() -> Self {
        let home = Home::new();
        let root = home.path("the user's wörk copy").to_owned();
        fs::create_dir(&root).expect("made");
        let root = root.canonicalize().expect("there");
        let repository = Self { home, root, master: NOBODY.to_owned(), attempt: None, variables: Vec::new() };
        repository.git(&["init", "--quiet", "--initial-branch=main"]).code(0);
        repository.git(&["config", "remote.origin.url", "https://example.com/team/app.git"]).code(0);
        repository.write("src/a.rs", "one\n");
        repository.write("docs/b c.md", "two\n");
        repository.commit("first");
        repository
    }

    /// From now on its hooks ask this master.
    pub(crate) fn with_master(mut self, url: &str) -> Self {
        self.master = url.to_owned();
        self
    }

    /// From now on everything runs in an attempt of task 5, with locks in [`NAME`] for these paths.
    pub(crate) fn in_attempt(mut self, locks: &[(u64, &str)]) -> Self {
        let lock = |(fence, path): &(u64, &str)| {
            let paths = json!([{ "path": path, "mode": "write" }]);
            json!({ "id": format!("{fence:032x}"), "repo": NAME, "fence": fence, "paths": paths })
        };
        let locks: Vec<Value> = locks.iter().map(lock).collect();
        let path = self.home.path("locks.json");
        fs::write(&path, json!({ "locks": locks }).to_string()).expect("written");
        self.attempt = Some(path);
        self
    }

    /// From now on the environment says that too.
    pub(crate) fn with(mut self, name: &'static str, value: &str) -> Self {
        self.variables.push((name, value.to_owned()));
        self
    }

    /// Notes a lock as `agentflow lock` does.
    pub(crate) fn note(&self, fence: u64, path: &str) {
        let directory = self.root.join(".git/agentflow");
        fs::create_dir_all(&directory).expect("made");
        let lock = json!({
            "id": format!("{fence:032x}"), "fence": fence, "repo": NAME, "owner": "ann@here",
            "paths": [{ "path": path, "mode": "write" }],
        });
        fs::write(directory.join("locks.json"), json!({ "locks": [lock] }).to_string()).expect("written");
    }

    /// Says what holds in all copies.
    pub(crate) fn marker(&self, text: &str) {
        self.write(".agentflow/repository.toml", text);
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        let path = self.root.join(name);
        fs::create_dir_all(path.parent().expect("a directory")).expect("made");
        fs::write(path, text).expect("written");
    }

    /// A program, such as a hook.
    pub(crate) fn program(&self, name: &str, text: &str) -> PathBuf {
        self.write(name, text);
        let path = self.root.join(name);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("a mode");
        path
    }

    /// Commits everything, past all hooks, and says which commit it is.
    pub(crate) fn commit(&self, message: &str) -> String {
        self.git(&["add", "--all"]).code(0);
        self.git(&["commit", "--quiet", "--no-verify", "--allow-empty", "--message", message]).code(0);
        self.head()
    }

    /// The newest commit.
    pub(crate) fn head(&self) -> String {
        self.git(&["rev-parse", "HEAD"]).code(0).out.trim().to_owned()
    }

    /// The message of the newest commit.
    pub(crate) fn message(&self) -> String {
        self.git(&["log", "-1", "--format=%B"]).code(0).out
    }

    /// Git at its top.
    pub(crate) fn git(&self, words: &[&str]) -> Ended {
        self.git_in(&self.root, words)
    }

    /// Git elsewhere.
    pub(crate) fn git_in(&self, directory: &Path, words: &[&str]) -> Ended {
        let mut command = Command::new("git");
        command.args(words);
        self.prepare(&mut command, directory);
        Ended::from(command.output().expect("git runs"))
    }

    /// `agentflow` at its top.
    pub(crate) fn run(&self, words: &[&str]) -> Ended {
        self.run_in(&self.root, words, "")
    }

    /// `agentflow` elsewhere, reading this.
    pub(crate) fn run_in(&self, directory: &Path, words: &[&str], input: &str) -> Ended {
        let mut command = Command::new(env!("CARGO_BIN_EXE_agentflow"));
        command.args(words);
        self.prepare(&mut command, directory);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("it starts");
        // It need not read it.
        let _unread = child.stdin.take().expect("piped").write_all(input.as_bytes());
        Ended::from(child.wait_with_output().expect("it ends"))
    }

    /// Asks the hook of agents, in a directory.
    pub(crate) fn tool(&self, call: &Value) -> Ended {
        self.run_in(&self.root, &["hook", "pre-tool"], &call.to_string())
    }

    /// Asks whether a file may be edited.
    pub(crate) fn edit(&self, file: impl AsRef<Path>) -> Ended {
        let file = self.root.join(file);
        self.tool(&json!({
            "hook_event_name": "PreToolUse", "tool_name": "Edit", "cwd": self.root.to_str(),
            "tool_input": { "file_path": file.to_str(), "old_string": "a", "new_string": "b" },
        }))
    }

    /// Nothing of the environment's git, masters or attempts.
    fn prepare(&self, command: &mut Command, directory: &Path) {
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("AGENTFLOW_") || text.starts_with("GIT_") {
                command.env_remove(name);
            }
        }
        for who in ["AUTHOR", "COMMITTER"] {
            command
                .env(format!("GIT_{who}_NAME"), "User")
                .env(format!("GIT_{who}_EMAIL"), "user@example.org");
        }
        command
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("HOME", self.home.path(""));
        command.env("XDG_STATE_HOME", self.home.path("state")).env("AGENTFLOW_MASTER", &self.master);
        command.env("AGENTFLOW_OWNER", "ann@here");
        if let Some(locks) = &self.attempt {
            command.env("AGENTFLOW_LOCKS", locks).env("AGENTFLOW_TASK_ID", "5").env("AGENTFLOW_ATTEMPT", "2");
        }
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command.current_dir(directory).stdin(Stdio::null());
    }
}

/// All files of a directory with their modes, and where links lead.
pub(crate) fn files(directory: &Path) -> Vec<(String, u32, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().map(OsStr::to_string_lossy).unwrap_or_default().into_owned();
        let data = path.symlink_metadata().expect("there");
        let text = match path.read_link() {
            Ok(target) => target.as_os_str().as_encoded_bytes().to_vec(),
            Err(_) => fs::read(&path).unwrap_or_default(),
        };
        found.push((name, data.permissions().mode(), text));
    }
    found.sort();
    found
}

//! Where the race takes place: an origin with a guard, a clone for the worker and one for the person, and
//! the programs.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use agentflow_core::event::Happening;
use agentflow_core::ids::Seq;
use agentflow_protocol::api::EventView;
use agentflow_schema::testing::TestDatabase;
use rustix::process::Signal;
use serde_json::{Value, json};

use super::calls::END;
use super::history::git;
use super::plan::PLACES;
use super::shell::{FUNCTIONS, POST_RECEIVE};
use crate::harness::{Failure, Process, Scene, WorkerOptions, binaries, children, is_alive, wait_until};

/// What everybody calls the repository.
pub(super) const REPOSITORY: &str = "example.com/team/race";

/// By this variable the processes of a race are found.
pub(super) const MARK: &str = "RACE_TEST";

const PATIENCE: Duration = Duration::from_secs(30);

/// As `docs/ENFORCEMENT.md` has it.
const SETTINGS: &str = r#"{"hooks": {"PreToolUse": [{"matcher": "Edit|Write|MultiEdit|NotebookEdit", "hooks": [
    {"type": "command", "command": "agentflow hook pre-tool || exit 2", "timeout": 10}]}]}}
"#;

/// Nothing goes on in the background. What is fetched appears at once: git would otherwise write few objects
/// one by one, and whoever pushes from the same repository meanwhile would find a commit without its parents.
const SETTLED: [&str; 4] =
    ["gc.auto=0", "maintenance.auto=false", "receive.autogc=false", "transfer.unpackLimit=1"];

/// See the module. Programs end before their files go.
pub(super) struct Stage {
    worker: Process,
    master: Process,
    pub(super) scene: Scene,
    /// The program of the agents.
    pub(super) agent: PathBuf,
    /// `agentflow`.
    pub(super) command: PathBuf,
    /// The bare repository with the guard.
    pub(super) origin: PathBuf,
    /// The worker's clone, in which tasks have their worktrees.
    pub(super) hub: PathBuf,
    /// The person's clone.
    clone: PathBuf,
    /// The value of [`MARK`].
    pub(super) mark: String,
    /// What every contender's process has in its environment.
    pub(super) environment: Vec<(String, String)>,
}

impl Stage {
    pub(super) fn new(database: TestDatabase, seed: u64, agent: &Path) -> Result<Self, Failure> {
        let scene = Scene::new(database)?;
        let command = binaries()?.command.clone();
        let mark = format!("{seed}-{}", std::process::id());
        let path = path_with(command.parent().unwrap_or(Path::new("/")))?;
        let home = scene.path("home");
        for directory in [home.clone(), scene.path("held")] {
            std::fs::create_dir_all(directory)?;
        }
        std::fs::write(scene.path("functions.sh"), FUNCTIONS)?;
        let text = |path: PathBuf| path.display().to_string();
        let mut environment = vec![
            (MARK, mark.clone()),
            ("RACE", text(scene.path(""))),
            ("PATH", path.clone()),
            ("HOME", text(home.clone())),
            ("XDG_STATE_HOME", text(home.join("state"))),
            ("LC_ALL", "C".to_owned()),
            ("GIT_CONFIG_GLOBAL", "/dev/null".to_owned()),
            ("GIT_CONFIG_NOSYSTEM", "1".to_owned()),
        ];
        for name in ["GIT_AUTHOR_NAME", "GIT_COMMITTER_NAME"] {
            environment.push((name, "User".to_owned()));
        }
        for name in ["GIT_AUTHOR_EMAIL", "GIT_COMMITTER_EMAIL"] {
            environment.push((name, "user@example.org".to_owned()));
        }
        let environment = environment.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        let master = scene.start_master()?;
        let places = [scene.path("origin.git"), scene.path("hub"), scene.path("ann")];
        let server = format!(
            "env -i PATH='{path}' {MARK}={mark} HOME='{}' GIT_CONFIG_NOSYSTEM=1 git receive-pack",
            home.display()
        );
        let url = format!("http://127.0.0.1:{}", scene.port());
        repositories(&places, &server, &command, &url)?;
        let options = WorkerOptions { slots: Some(3), ..WorkerOptions::default() };
        let worker = scene.start_worker("w1", &options)?;
        scene.client().wait_online("w1", PATIENCE)?;
        let [origin, hub, clone] = places;
        let agent = agent.to_owned();
        Ok(Self { worker, master, scene, agent, command, origin, hub, clone, mark, environment })
    }

    /// Runs a command as the person, in his clone; its exit code. Where it writes is known to its steps as
    /// `OUT`.
    pub(super) fn person(
        &self,
        name: &str,
        words: &[String],
        out: &Path,
        patience: Duration,
    ) -> Result<Option<i32>, Failure> {
        // Words, for a program under test begins without any variable of ours.
        let mut command = Command::new("env");
        command.arg(format!("AGENTFLOW_MASTER=http://127.0.0.1:{}", self.scene.port()));
        command.args(["USER=ann", &format!("OUT={}", out.display())]).args(words);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.current_dir(&self.clone).stdout(Stdio::null());
        let mut process = Process::start(name, &mut command, &self.scene.path(&format!("{name}.log")))?;
        Ok(process.wait(patience)?.code())
    }

    /// What such a command has said.
    pub(super) fn log(&self, name: &str) -> String {
        std::fs::read_to_string(self.scene.path(&format!("{name}.log"))).unwrap_or_default()
    }

    /// What is there while somebody is at work in a place; the shell's functions make it.
    pub(super) fn held_place(&self, place: &str) -> PathBuf {
        self.scene.path("held").join(place.replace(['/', '*'], "_"))
    }

    /// Locks that are held, and who waits for one.
    pub(super) fn held(&self) -> Result<Vec<Value>, Failure> {
        let page: Value = self.scene.client().read(&format!("/api/v2/locks?repo={REPOSITORY}"))?;
        let list = |name: &str| page[name].as_array().cloned().ok_or_else(|| format!("no {name}: {page}"));
        Ok([list("locks")?, list("waiting")?].concat())
    }

    /// How often somebody had to wait for a lock.
    pub(super) fn waits(&self) -> Result<usize, Failure> {
        let events = self.scene.client().events(Seq(0))?;
        let is_wait = |event: &&EventView| matches!(event.happening, Happening::LockWaiting { .. });
        Ok(events.iter().filter(is_wait).count())
    }

    /// Ends the programs; what is wrong then.
    pub(super) fn close(mut self) -> Result<Vec<String>, Failure> {
        let programs = [self.worker.pid(), self.master.pid()];
        let others: Vec<u32> = programs.iter().flat_map(|pid| children(*pid)).collect();
        let mut wrong = Vec::new();
        for (name, program) in [("worker", &mut self.worker), ("master", &mut self.master)] {
            if let Some(status) = program.ended()? {
                wrong.push(format!("the {name} ended by itself ({status}): {}", program.last_log()));
            }
            // In good order, so that its warden goes with it.
            program.signal(Signal::TERM)?;
            program.wait(PATIENCE)?;
        }
        let gone = wait_until("all that the programs started is gone", PATIENCE, || {
            !others.iter().any(|pid| is_alive(*pid))
        });
        wrong.extend(gone.err().map(|error| error.to_string()));
        Ok(wrong)
    }
}

/// The programs under test before all others.
fn path_with(directory: &Path) -> Result<String, Failure> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let all = std::iter::once(directory.to_owned()).chain(std::env::split_paths(&path));
    Ok(std::env::join_paths(all)?.into_string().map_err(|_| "PATH is no text")?)
}

/// Makes the origin with its first commit and its guard, and both clones with their hooks.
fn repositories(places: &[PathBuf; 3], server: &str, command: &Path, url: &str) -> Result<(), Failure> {
    let [origin, hub, clone] = places;
    let home = origin.parent().unwrap_or(Path::new("/"));
    let text = |path: &Path| path.display().to_string();
    git(home, &["init", "--quiet", "--bare", "--initial-branch=main", &text(origin)])?;
    git(home, &["clone", "--quiet", &text(origin), &text(clone)])?;
    git(clone, &["checkout", "--quiet", "-B", "main"])?;
    let body: String = (1..=9).map(|line| format!("line {line}\n")).collect();
    let mut files = vec![
        (".agentflow/repository.toml".to_owned(), format!("name = \"{REPOSITORY}\"\nmode = \"enforce\"\n")),
        (".claude/settings.json".to_owned(), SETTINGS.to_owned()),
    ];
    files.extend(PLACES.map(|place| (place.replace("**", "about.txt"), format!("{body}{END}\n"))));
    for (name, text) in files {
        let path = clone.join(name);
        std::fs::create_dir_all(path.parent().unwrap_or(clone))?;
        std::fs::write(path, text)?;
    }
    git(clone, &["add", "--all"])?;
    git(clone, &["commit", "--quiet", "--message", "before there were locks"])?;
    git(clone, &["push", "--quiet", "origin", "main"])?;
    git(home, &["clone", "--quiet", &text(origin), &text(hub)])?;
    // Nothing is checked out there, so that its main can follow that of the origin.
    git(hub, &["checkout", "--quiet", "--detach"])?;
    let hook = origin.join("hooks/post-receive");
    std::fs::write(&hook, POST_RECEIVE.replace("HUB", &text(hub)))?;
    make_runnable(&hook)?;
    for place in [origin, hub, clone] {
        for setting in SETTLED {
            let (name, value) = setting.split_once('=').unwrap_or((setting, ""));
            git(place, &["config", name, value])?;
        }
    }
    for place in [hub, clone] {
        git(place, &["config", "remote.origin.receivepack", server])?;
        agentflow(command, place, &["hooks", "install"])?;
    }
    let guard = ["--master", url, "guard", "install", &text(origin), "--repo", REPOSITORY];
    agentflow(command, home, &guard)
}

fn make_runnable(path: &Path) -> Result<(), Failure> {
    use std::os::unix::fs::PermissionsExt;
    Ok(std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))?)
}

/// Runs `agentflow`, which must work.
fn agentflow(program: &Path, directory: &Path, words: &[&str]) -> Result<(), Failure> {
    let mut command = Command::new(program);
    command.args(words).current_dir(directory).stdout(Stdio::null());
    command.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1");
    let log = directory.join(".git/race-setup.log");
    let log = if log.parent().is_some_and(Path::is_dir) { log } else { directory.join("race-setup.log") };
    let mut process = Process::start("agentflow", &mut command, &log)?;
    let status = process.wait(PATIENCE)?;
    if status.success() {
        return Ok(());
    }
    Err(format!("agentflow {:?} ended ({status}): {}", json!(words), process.last_log()).into())
}

//! What the command keeps between two calls, in `$XDG_STATE_HOME/agentflow`:
//!
//! - `master.lock`: held by the process whose embedded master uses this directory, and naming its
//!   address, so that a second command joins it;
//! - `users.lock`: held, shared, by every `run` that uses that master, so that its owner does not
//!   stop it under them;
//! - `runs/ID.json`: what a `run` was to do and the ids that it got, so that it can be resumed.
//!
//! Locks are the kernel's (`flock`): they end with the process that holds them, however it ends.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use agentflow_protocol::submit::TaskBody;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::client::random_hex;
use crate::error::Error;

/// Run records kept; the oldest go first. A record of 10,000 commands is about 1 MiB.
const RECORDS: usize = 100;

/// How long a master that holds the lock may take to say where it listens: recovery included.
const STARTING: Duration = Duration::from_secs(30);

/// The directory.
#[derive(Clone, Debug)]
pub(crate) struct StateDir {
    root: PathBuf,
}

/// Who started the master that holds the lock.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Owner {
    /// `agentflow up`: it stays, and has a worker for everybody.
    Up,
    /// A masterless `run`: it stays as long as runs need it, and each brings its own worker.
    Run,
}

/// The master that is alive in this directory.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct LiveMaster {
    /// Its base address.
    pub(crate) url: String,
    /// Who started it.
    pub(crate) owner: Owner,
    /// In which process.
    pub(crate) pid: u32,
}

/// The right to run the master of this directory, until it is dropped or the process ends.
#[derive(Debug)]
pub(crate) struct MasterLock {
    file: File,
}

/// What a `run` was to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct RunRecord {
    /// Names it: 8 hexadecimal digits.
    pub(crate) id: String,
    /// The master's address; absent when the run is the embedded master's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) master: Option<String>,
    /// The event log's head before anything was submitted.
    #[serde(default)]
    pub(crate) cursor: Option<u64>,
    /// The worker that this run used, by its number; the next try uses the same, so that the
    /// master knows at once that the processes of the first are gone.
    #[serde(default)]
    pub(crate) worker: Option<u32>,
    /// The idempotency key under which the tasks are sent.
    pub(crate) key: String,
    /// What to do, as it is sent: sent again with the same key it makes nothing new.
    #[serde(default)]
    pub(crate) tasks: Vec<TaskBody>,
    /// The tasks' ids, once all are handed in.
    #[serde(default)]
    pub(crate) ids: Vec<u64>,
    /// Instead of tasks, a workflow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) workflow: Option<WorkflowRecord>,
}

/// A workflow that a `run` hands in.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct WorkflowRecord {
    /// Its file, as it was typed.
    pub(crate) file: String,
    /// The groups of its tasks.
    pub(crate) groups: Vec<String>,
    /// The request, as it is sent.
    pub(crate) body: Box<RawValue>,
    /// The run's number at the master, once it is handed in.
    #[serde(default)]
    pub(crate) run: Option<u64>,
}

impl RunRecord {
    /// The groups that a worker must serve to do it.
    pub(crate) fn groups(&self) -> Vec<String> {
        let default = || "default".to_owned();
        let of_tasks = self.tasks.iter().map(|task| task.group.clone().unwrap_or_else(default));
        let of_workflow = self.workflow.iter().flat_map(|workflow| workflow.groups.iter().cloned());
        let mut groups: Vec<String> = of_tasks.chain(of_workflow).collect();
        groups.sort_unstable();
        groups.dedup();
        if groups.is_empty() { vec![default()] } else { groups }
    }
}

impl StateDir {
    /// Finds the directory and makes it if it is not there.
    pub(crate) fn open() -> Result<Self, Error> {
        let root = locate(std::env::var_os("XDG_STATE_HOME").map(PathBuf::from), std::env::home_dir())
            .ok_or_else(|| {
                Error::Usage("no place to keep state: set HOME or XDG_STATE_HOME to a directory".to_owned())
            })?;
        Self::at(root)
    }

    /// Uses that directory.
    pub(crate) fn at(root: PathBuf) -> Result<Self, Error> {
        let make = |dir: &Path| {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(dir)
                .map_err(|error| Error::io(format!("cannot make {}", dir.display()), error))
        };
        make(&root)?;
        make(&root.join("runs"))?;
        Ok(Self { root })
    }

    /// The directory itself.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// A private file in it, opened and made if need be.
    pub(crate) fn file(&self, name: &str) -> Result<File, Error> {
        let path = self.root.join(name);
        OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(|error| Error::io(format!("cannot open {}", path.display()), error))
    }

    /// Takes the master's lock; `None` when another process has it.
    pub(crate) fn lock_master(&self) -> Result<Option<MasterLock>, Error> {
        let file = self.file("master.lock")?;
        // Who looks for a live master holds the lock, shared, for an instant.
        for _ in 0..20 {
            if try_lock(&file)? {
                file.set_len(0).map_err(|error| Error::io("cannot empty master.lock", error))?;
                return Ok(Some(MasterLock { file }));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(None)
    }

    /// The live master of this directory, if there is one. Waits for one that is starting.
    pub(crate) fn live_master(&self) -> Result<Option<LiveMaster>, Error> {
        let path = self.root.join("master.lock");
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io(format!("cannot read {}", path.display()), error)),
        };
        let since = Instant::now();
        loop {
            match file.try_lock_shared() {
                Ok(()) => return Ok(None),
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(error)) => {
                    return Err(Error::io(format!("cannot lock {}", path.display()), error));
                }
            }
            let mut text = String::new();
            file.rewind()
                .and_then(|()| file.read_to_string(&mut text))
                .map_err(|error| Error::io(format!("cannot read {}", path.display()), error))?;
            if let Ok(live) = serde_json::from_str(&text) {
                return Ok(Some(live));
            }
            if since.elapsed() > STARTING {
                return Err(Error::Embedded(format!(
                    "another process holds {} but its master does not start; look at that process",
                    path.display()
                )));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// A record for a new run.
    pub(crate) fn new_run(&self, master: Option<String>, tasks: Vec<TaskBody>) -> Result<RunRecord, Error> {
        self.prune();
        let (id, key) = (random_hex(4)?, random_hex(16)?);
        let (cursor, worker, ids, workflow) = (None, None, Vec::new(), None);
        Ok(RunRecord { id, master, cursor, worker, key, tasks, ids, workflow })
    }

    /// Writes a record; a crash leaves the old one or the new one.
    pub(crate) fn save_run(&self, record: &RunRecord) -> Result<(), Error> {
        let path = self.run_path(&record.id);
        let partial = path.with_extension("partial");
        let write = || -> io::Result<()> {
            let mut file =
                OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&partial)?;
            file.write_all(&serde_json::to_vec(record)?)?;
            fs::rename(&partial, &path)
        };
        write().map_err(|error| Error::io(format!("cannot write {}", path.display()), error))
    }

    /// The record of that run, or of the latest when `id` is `last`.
    pub(crate) fn load_run(&self, id: &str) -> Result<RunRecord, Error> {
        let known = self.runs();
        let name =
            if id == "last" { known.last().map(|(_, name)| name.clone()) } else { Some(id.to_owned()) };
        let path = name
            .filter(|name| !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric()))
            .map(|name| self.run_path(&name))
            .filter(|path| path.exists())
            .ok_or_else(|| {
                let latest: Vec<_> = known.iter().rev().take(5).map(|(_, name)| name.as_str()).collect();
                let hint = if latest.is_empty() { "none".to_owned() } else { latest.join(", ") };
                Error::Usage(format!("no run '{id}' is known here; the latest are: {hint}"))
            })?;
        let text =
            fs::read(&path).map_err(|error| Error::io(format!("cannot read {}", path.display()), error))?;
        serde_json::from_slice(&text)
            .map_err(|error| Error::io(format!("cannot read {}", path.display()), error.into()))
    }

    fn run_path(&self, id: &str) -> PathBuf {
        self.root.join("runs").join(format!("{id}.json"))
    }

    /// Known runs, oldest first.
    fn runs(&self) -> Vec<(std::time::SystemTime, String)> {
        let Ok(entries) = fs::read_dir(self.root.join("runs")) else { return Vec::new() };
        let mut runs: Vec<_> = entries
            .filter_map(Result::ok)
            .filter_map(|entry| {
                let path = entry.path();
                let name = path.file_stem()?.to_str()?.to_owned();
                (path.extension()? == "json").then_some(())?;
                Some((entry.metadata().ok()?.modified().ok()?, name))
            })
            .collect();
        runs.sort();
        runs
    }

    fn prune(&self) {
        let runs = self.runs();
        let excess = (runs.len() + 1).saturating_sub(RECORDS);
        for (_, name) in runs.iter().take(excess) {
            if let Err(error) = fs::remove_file(self.run_path(name)) {
                log::warn!("cannot remove the old record of run {name}: {error}");
            }
        }
    }
}

impl MasterLock {
    /// Says where the master listens.
    pub(crate) fn announce(&mut self, live: &LiveMaster) -> Result<(), Error> {
        let text = serde_json::to_vec(live).unwrap_or_default();
        self.file
            .set_len(0)
            .and_then(|()| self.file.rewind())
            .and_then(|()| self.file.write_all(&text))
            .map_err(|error| Error::io("cannot write master.lock", error))
    }
}

/// Takes an exclusive lock if nobody has one.
pub(crate) fn try_lock(file: &File) -> Result<bool, Error> {
    match file.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(Error::io("cannot lock a file of the state directory", error)),
    }
}

fn locate(xdg: Option<PathBuf>, home: Option<PathBuf>) -> Option<PathBuf> {
    let state = xdg
        .filter(|path| path.is_absolute())
        .or_else(|| home.filter(|home| home.is_absolute()).map(|home| home.join(".local/state")))?;
    Some(state.join("agentflow"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> (tempfile::TempDir, StateDir) {
        let dir = tempfile::tempdir().expect("a directory");
        let state = StateDir::at(dir.path().join("agentflow")).expect("made");
        (dir, state)
    }

    #[test]
    fn the_place_follows_the_environment() {
        let path = |text: &str| Some(PathBuf::from(text));
        assert_eq!(locate(path("/x"), path("/h")), path("/x/agentflow"));
        assert_eq!(locate(path("relative"), path("/h")), path("/h/.local/state/agentflow"));
        assert_eq!(locate(None, path("/h")), path("/h/.local/state/agentflow"));
        assert_eq!(locate(None, None), None);
    }

    #[test]
    fn the_lock_names_the_live_master_and_ends_with_its_holder() {
        let (_dir, state) = state();
        assert_eq!(state.live_master().expect("readable"), None);
        let mut lock = state.lock_master().expect("lockable").expect("free");
        assert!(state.lock_master().expect("lockable").is_none(), "held");
        let live = LiveMaster { url: "http://127.0.0.1:5".into(), owner: Owner::Run, pid: 7 };
        lock.announce(&live).expect("written");
        assert_eq!(state.live_master().expect("readable"), Some(live));
        drop(lock);
        assert_eq!(state.live_master().expect("readable"), None);
        assert!(state.lock_master().expect("lockable").is_some());
    }

    #[test]
    fn a_workflow_comes_back_as_it_was_written() {
        let (_dir, state) = state();
        let mut record = state.new_run(None, Vec::new()).expect("made");
        assert_eq!(record.groups(), ["default"]);
        let text = r#"{"workflow":{"b":1,"a":2}}"#;
        let body = RawValue::from_string(text.to_owned()).expect("JSON");
        let groups = vec!["gpu".to_owned()];
        record.workflow = Some(WorkflowRecord { file: "ci.yaml".into(), groups, body, run: Some(5) });
        state.save_run(&record).expect("saved");
        let read = state.load_run(&record.id).expect("there");
        assert_eq!(read.groups(), ["gpu"]);
        let workflow = read.workflow.expect("a workflow");
        assert_eq!((workflow.body.get(), workflow.run), (text, Some(5)));
    }

    #[test]
    fn run_records_come_back_and_are_bounded() {
        let (_dir, state) = state();
        for _ in 0..RECORDS + 5 {
            let mut record = state.new_run(None, vec![TaskBody::default()]).expect("made");
            record.ids = vec![4];
            state.save_run(&record).expect("saved");
            assert_eq!(state.load_run(&record.id).expect("there").ids, [4]);
        }
        assert_eq!(state.runs().len(), RECORDS);
        assert!(state.load_run("last").is_ok());
        let error = state.load_run("../etc").expect_err("no such run");
        assert_eq!(error.exit_code(), 2);
    }
}

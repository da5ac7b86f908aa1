//! Worktrees that tasks have left: each goes once its task is settled, if nothing is lost with it.
//!
//! An attempt that has completed closes its worktree itself. What failed, was cancelled or went down with
//! a worker is looked at here, now and then.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

use agentflow_core::ids::TaskId;
use agentflow_core::status::Status;
use serde::Deserialize;

use crate::api::{Api, Failed, Patience};
use crate::place;
use crate::workspace::Workspace;

/// Between two looks.
const EVERY: Duration = Duration::from_secs(3_600);

/// How long a master is tried.
const PATIENCE: Duration = Duration::from_secs(60);

/// Ends the thread when it is dropped.
#[derive(Debug)]
pub(crate) struct Sweeper {
    _end: Sender<()>,
}

impl Sweeper {
    /// Looks now and every hour; nothing is done while there are no worktrees.
    pub(crate) fn start(home: PathBuf, api: Arc<Api>) -> std::io::Result<Self> {
        let (end, ended) = channel();
        thread::Builder::new().name("worktrees".to_owned()).stack_size(256 << 10).spawn(move || {
            work(&home, &api, &ended);
        })?;
        Ok(Self { _end: end })
    }
}

fn work(home: &Path, api: &Api, ended: &Receiver<()>) {
    let is_over = || matches!(ended.try_recv(), Err(std::sync::mpsc::TryRecvError::Disconnected));
    loop {
        for (task, root) in worktrees(home) {
            let patience = Patience { time: PATIENCE, is_over: &is_over };
            if is_settled(api, task, &patience) {
                let closed = Workspace::open(&root, home, task, None, &is_over);
                place::tell(closed.and_then(|workspace| workspace.close(&is_over)));
            }
        }
        if ended.recv_timeout(EVERY) != Err(RecvTimeoutError::Timeout) {
            return;
        }
    }
}

/// The tasks that have a worktree here.
fn worktrees(home: &Path) -> Vec<(TaskId, PathBuf)> {
    let Ok(entries) = std::fs::read_dir(home) else { return Vec::new() };
    let entries = entries.filter_map(|entry| {
        let entry = entry.ok()?;
        let task = entry.file_name().to_str()?.parse().ok()?;
        entry.path().join(".git").exists().then(|| (TaskId(task), entry.path()))
    });
    entries.collect()
}

/// What of the master's answer is read.
#[derive(Deserialize)]
struct Stand {
    status: Status,
}

/// Whether nobody will go on with a task: then or when it is not known any more.
fn is_settled(api: &Api, task: TaskId, patience: &Patience<'_>) -> bool {
    match api.text(&format!("/api/v2/tasks/{task}/why"), patience) {
        Ok(text) => serde_json::from_str::<Stand>(&text).is_ok_and(|stand| stand.status.is_settled()),
        Err(Failed::Refused(404, _)) => true,
        Err(error) => {
            log::debug!("the worktree of task {task} is left alone: {error}");
            false
        }
    }
}

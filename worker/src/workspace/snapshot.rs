//! Taking snapshots, and forgetting old ones.
//!
//! A snapshot is a commit whose parent is the worktree's HEAD and whose tree is what the working files
//! were. It is made beside the worktree's own index, so that neither the task nor the user sees
//! anything of it.

use std::time::Duration;

use agentflow_core::ids::TaskId;

use super::filters::{Changes, must_have_worked};
use super::git::{Git, Output};
use super::remote::{Push, Remote};
use super::scratch::Scratch;
use super::{Snapshot, Workspace};

/// Where the snapshots of all tasks are.
const PLACE: &str = "refs/agentflow/checkpoints/";

/// A file in the worktree's git directory with the name of the snapshot that was pushed last.
const PUSHED: &str = "agentflow.pushed";

/// Tries to read files that a task changes meanwhile, and the pause after the first; it grows.
const READS: u32 = 4;
const PAUSE: Duration = Duration::from_millis(200);

/// Tries to find a number that neither this repository nor the remote has.
const NUMBERS: u32 = 20;

/// Bytes of a commit's message; one argument may have 128 KiB.
const MESSAGE_BYTES: usize = 16 << 10;

/// Names of repositories within the worktree that are told.
const LEFT_OUT: usize = 20;

/// The working files as they are at a moment.
pub(super) struct State {
    /// An index that agrees with them.
    pub(super) index: Scratch,
    pub(super) tree: String,
    pub(super) head: String,
}

/// A snapshot that this repository has.
pub(super) struct Known {
    number: u64,
    reference: String,
    commit: String,
    pub(super) tree: String,
    pub(super) parent: String,
}

impl Workspace {
    /// Takes a snapshot: tracked and untracked files, not ignored ones. Without a change since the last
    /// one it is that one again. It is pushed too, where there is a remote; that may fail.
    pub(crate) fn snapshot(&self, message: &str, cancelled: &dyn Fn() -> bool) -> Result<Snapshot, String> {
        let git = self.git(cancelled);
        let state = self.state(&git)?;
        self.record(&git, &state, message)
    }

    /// Deletes the task's snapshots beyond the newest `keep`, here and at the remote.
    pub(crate) fn prune(&self, keep: usize, cancelled: &dyn Fn() -> bool) -> Result<(), String> {
        let git = self.git(cancelled);
        let mut old = self.known(&git)?;
        old.truncate(old.len().saturating_sub(keep));
        let Some(newest) = old.last().map(|known| known.number) else { return Ok(()) };
        for known in &old {
            delete(&git, &known.reference, &known.commit)?;
        }
        let Some(remote) = self.remote(&git) else { return Ok(()) };
        let deleted = remote.numbers(self.task).and_then(|numbers| {
            let old = numbers.into_iter().filter(|number| *number <= newest);
            remote.delete(&old.map(|number| self.reference(number)).collect::<Vec<_>>())
        });
        if let Err(error) = deleted {
            log::warn!("task {}: old snapshots stay at '{}': {error}", self.task, remote.name);
        }
        Ok(())
    }

    /// Reads the working files.
    pub(super) fn state(&self, git: &Git<'_>) -> Result<State, String> {
        let head =
            git.commit("HEAD")?.ok_or("HEAD of the worktree has no commit, so that there is no parent")?;
        let index = Scratch::copy(&self.git_dir, &self.git_dir.join("index"))?;
        must_have_worked(&self.add(git, &index)?)?;
        let tree = git.call(["write-tree"]).index(index.path()).run()?.text();
        Ok(State { index, tree, head })
    }

    /// Brings an index up to the working files; again where they vanish under git's hands.
    fn add(&self, git: &Git<'_>, index: &Scratch) -> Result<Output, String> {
        let is_sparse = self.git_dir.join("info/sparse-checkout").exists();
        // Before 2.34 it is not known and not needed.
        let mut option = is_sparse.then_some("--sparse");
        let mut tries = 1;
        loop {
            let added = git.call(["add", "--all"].into_iter().chain(option)).index(index.path()).run();
            match added {
                Ok(output) => return Ok(output),
                Err(failure) if failure.code == Some(129) && option.is_some() => option = None,
                Err(failure) if !is_race(&failure.stderr) => return Err(failure.into()),
                Err(failure) if tries == READS => {
                    return Err(format!("the files change while they are read ({READS} tries): {failure}"));
                }
                Err(_) => {
                    git.pause(PAUSE * tries)?;
                    tries += 1;
                }
            }
        }
    }

    /// Makes a snapshot of a state.
    pub(super) fn record(&self, git: &Git<'_>, state: &State, message: &str) -> Result<Snapshot, String> {
        let mut repositories = Changes::check(git, &self.git_dir, &state.head, &state.tree)?.repositories;
        repositories.extend(self.changed_submodules(git, &state.index)?);
        let left_out = repositories.into_iter().take(LEFT_OUT).collect();
        let snapshot = self.record_tree(git, &state.tree, &state.head, message)?;
        Ok(Snapshot { left_out, ..snapshot })
    }

    /// The same without a look at the working files.
    pub(super) fn record_tree(
        &self,
        git: &Git<'_>,
        tree: &str,
        parent: &str,
        message: &str,
    ) -> Result<Snapshot, String> {
        let known = self.known(git)?;
        let mut next = known.last().map_or(1, |known| known.number + 1);
        let last = known.into_iter().next_back().filter(|last| last.tree == tree && last.parent == parent);
        let (commit, mut reference) = match last {
            Some(last) if self.is_pushed(&last.reference) => {
                return Ok(Snapshot::new(last.commit, last.reference, true));
            }
            Some(last) => (last.commit, Some(last.reference)),
            None => {
                let make = ["commit-tree", tree, "-p", parent, "-m", &told(message)];
                (git.text(make)?, None)
            }
        };
        // Made by git-lfs when it keeps the first file.
        let uses_lfs = self.common.join("lfs/objects").exists();
        for _ in 0..NUMBERS {
            let name = match reference.take() {
                Some(name) => name,
                None => {
                    let name = self.reference(next);
                    next += 1;
                    if !create(git, &name, &commit)? {
                        continue;
                    }
                    name
                }
            };
            let Some(remote) = self.remote(git) else { return Ok(Snapshot::new(commit, name, false)) };
            match remote.push(&name, &commit, uses_lfs) {
                Push::Done => {
                    self.remember_pushed(&name);
                    return Ok(Snapshot::new(commit, name, true));
                }
                Push::Failed(error) => {
                    log::warn!("task {}: {name} is only on this worker: {error}", self.task);
                    return Ok(Snapshot::new(commit, name, false));
                }
                // Another clone has taken snapshots of this task.
                Push::Taken => match remote.numbers(self.task) {
                    Ok(numbers) => {
                        next = numbers.into_iter().max().map_or(next, |largest| next.max(largest + 1));
                        delete(git, &name, &commit)?;
                    }
                    Err(error) => {
                        log::warn!("task {}: {name} is only on this worker: {error}", self.task);
                        return Ok(Snapshot::new(commit, name, false));
                    }
                },
            }
        }
        Err(format!("no number is free for a snapshot of task {}, although {NUMBERS} were tried", self.task))
    }

    /// The snapshots of this task that are here, the oldest first.
    pub(super) fn known(&self, git: &Git<'_>) -> Result<Vec<Known>, String> {
        let place = place_of(self.task);
        let text =
            git.text(["for-each-ref", "--format=%(refname) %(objectname) %(tree) %(parent)", &place])?;
        let parse = |line: &str| {
            let mut words = line.split(' ').map(str::to_owned);
            let reference = words.next()?;
            let number = number_of(self.task, &reference)?;
            Some(Known {
                number,
                reference,
                commit: words.next()?,
                tree: words.next()?,
                parent: words.next()?,
            })
        };
        let mut known: Vec<Known> = text.lines().filter_map(parse).collect();
        known.sort_by_key(|known| known.number);
        Ok(known)
    }

    /// Submodules, and other repositories, in which something is not committed.
    fn changed_submodules(&self, git: &Git<'_>, index: &Scratch) -> Result<Vec<String>, String> {
        if !self.root.join(".gitmodules").exists() {
            return Ok(Vec::new());
        }
        let diff = ["diff-files", "-z", "--raw", "--ignore-submodules=none"];
        let output = git.call(diff).index(index.path()).run()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let mut fields = text.split('\0');
        let mut found = Vec::new();
        while let (Some(what), Some(path)) = (fields.next(), fields.next()) {
            if what.starts_with(":160000") {
                found.push(path.to_owned());
            }
        }
        Ok(found)
    }

    fn reference(&self, number: u64) -> String {
        format!("{}{number}", place_of(self.task))
    }

    fn is_pushed(&self, reference: &str) -> bool {
        std::fs::read_to_string(self.git_dir.join(PUSHED)).is_ok_and(|pushed| pushed.trim() == reference)
    }

    fn remember_pushed(&self, reference: &str) {
        let path = self.git_dir.join(PUSHED);
        // Without it the next snapshot pushes once more.
        if let Err(error) = std::fs::write(&path, format!("{reference}\n")) {
            log::warn!("{}: {error}", path.display());
        }
    }

    pub(super) fn remote<'a>(&'a self, git: &'a Git<'a>) -> Option<Remote<'a>> {
        self.remote.as_deref().map(|name| Remote { git, name })
    }
}

/// Where the snapshots of a task are.
pub(super) fn place_of(task: TaskId) -> String {
    format!("{PLACE}{task}/")
}

/// The number of a task's snapshot.
pub(super) fn number_of(task: TaskId, reference: &str) -> Option<u64> {
    reference.strip_prefix(&place_of(task))?.parse().ok()
}

/// Whether a reference is one of a snapshot, of whatever task.
pub(super) fn is_reference(reference: &str) -> bool {
    let numbers = reference.strip_prefix(PLACE).and_then(|rest| rest.split_once('/'));
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    numbers.is_some_and(|(task, number)| is_number(task) && is_number(number))
}

/// Makes a reference that was not there. Whether it was not.
pub(super) fn create(git: &Git<'_>, reference: &str, commit: &str) -> Result<bool, String> {
    let nothing = "0".repeat(commit.len());
    match git.call(["update-ref", reference, commit, &nothing]).run() {
        Ok(_) => Ok(true),
        Err(failure) if failure.stderr.contains("already exists") => Ok(false),
        Err(failure) => Err(failure.into()),
    }
}

fn delete(git: &Git<'_>, reference: &str, commit: &str) -> Result<(), String> {
    git.call(["update-ref", "-d", reference, commit]).run()?;
    Ok(())
}

/// Whether a file was gone, or another, when git came to it. A program may be missing in these words too.
fn is_race(stderr: &str) -> bool {
    let signs = ["No such file or directory", "unable to stat", "short read", "Stale file handle"];
    signs.iter().any(|sign| stderr.contains(sign)) && !stderr.contains("filter '")
}

/// A message as an argument can hold it.
fn told(message: &str) -> String {
    let mut text = message.replace('\0', " ");
    let cut = (0..=MESSAGE_BYTES.min(text.len())).rev().find(|at| text.is_char_boundary(*at));
    text.truncate(cut.unwrap_or_default());
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_have_a_task_and_a_number() {
        assert_eq!(number_of(TaskId(5), "refs/agentflow/checkpoints/5/12"), Some(12));
        assert_eq!(number_of(TaskId(5), "refs/agentflow/checkpoints/51/2"), None);
        assert!(is_reference("refs/agentflow/checkpoints/5/1"));
        for other in ["refs/heads/main", "refs/agentflow/checkpoints/5", "refs/agentflow/checkpoints/5/-1"] {
            assert!(!is_reference(other), "{other}");
        }
        assert_eq!(told(&"ä".repeat(MESSAGE_BYTES)).len(), MESSAGE_BYTES);
    }
}

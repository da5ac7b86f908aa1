//! Making a task's worktree, and taking the one that is there.
//!
//! A worktree is ready when its git directory holds [`MARK`], which is written last.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use agentflow_core::ids::TaskId;

use super::git::Git;
use super::repository::{Repository, common};
use super::{filters, lock};

/// A file in the worktree's git directory with the name of the task's branch.
const MARK: &str = "agentflow.workspace";

/// A file beside it with the commit that the worktree was made at.
const BASE: &str = "agentflow.base";

/// Branches that one task may leave behind in a repository.
const BRANCHES: u32 = 100;

/// A worktree that is ready.
pub(super) struct Ready {
    pub(super) git_dir: PathBuf,
    pub(super) branch: String,
}

/// Takes the worktree at `root`, or makes it there.
pub(super) fn open(
    git: &Git<'_>,
    repository: &Repository,
    root: &Path,
    task: TaskId,
    base: Option<&str>,
) -> Result<Ready, String> {
    let lock = lock::take(git, &repository.common)?;
    if is_occupied(root)? {
        let taken = take(&git.elsewhere(root), repository, root, task).map_err(|why| {
            format!(
                "the worktree '{}' cannot be used: {why}. Save what you need of it, delete it, and run \
                 'git worktree prune' in '{}'",
                root.display(),
                repository.common.display()
            )
        })?;
        if let Some(ready) = taken {
            return Ok(ready);
        }
        log::warn!("the worktree '{}' was never finished; it is made anew", root.display());
        git.call(["worktree", "remove", "--force", "--force", "--"]).arg(root).run()?;
    } else if is_registered(git, root)? {
        // Somebody has deleted the directory; git would still keep its branch for it.
        git.call(["worktree", "remove", "--force", "--"]).arg(root).run()?;
    }
    make(git, repository, root, task, &Repository::base(git, base)?, lock)
}

/// Whether there is anything. An empty directory is nothing.
fn is_occupied(root: &Path) -> Result<bool, String> {
    let failed = |error: io::Error| format!("{}: {error}", root.display());
    match fs::symlink_metadata(root) {
        Ok(metadata) if metadata.is_dir() => Ok(fs::read_dir(root).map_err(failed)?.next().is_some()),
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(failed(error)),
    }
}

fn is_registered(git: &Git<'_>, root: &Path) -> Result<bool, String> {
    let list = git.text(["worktree", "list", "--porcelain"])?;
    let line = format!("worktree {}", root.display());
    Ok(list.lines().any(|other| other == line))
}

/// The worktree that is there. `None` when git was killed while it made it: no task has seen it.
fn take(git: &Git<'_>, repository: &Repository, root: &Path, task: TaskId) -> Result<Option<Ready>, String> {
    // Otherwise git would find a repository further up.
    if !root.join(".git").is_file() {
        return Err("it is no worktree of git".to_owned());
    }
    let common = common(git, root)?;
    if common != repository.common {
        return Err(format!("it belongs to the repository '{}'", common.display()));
    }
    let git_dir = git.call(["rev-parse", "--absolute-git-dir"]).run()?.path();
    if let Ok(branch) = fs::read_to_string(git_dir.join(MARK))
        && is_branch_of(branch.trim(), task)
    {
        return Ok(Some(Ready { git_dir, branch: branch.trim().to_owned() }));
    }
    // The index is written when all files are there.
    let is_begun = fs::read_to_string(git_dir.join("locked")).is_ok_and(|why| why.trim() == "initializing");
    if is_begun || !git_dir.join("index").exists() {
        return Ok(None);
    }
    let head = git.ask(["symbolic-ref", "--quiet", "--short", "HEAD"])?;
    let Some(branch) = head.filter(|head| is_branch_of(head, task)) else {
        return Err("it was not made for this task".to_owned());
    };
    mark(&git_dir, &branch)?;
    Ok(Some(Ready { git_dir, branch }))
}

fn make(
    git: &Git<'_>,
    repository: &Repository,
    root: &Path,
    task: TaskId,
    base: &str,
    lock: File,
) -> Result<Ready, String> {
    for number in 1..=BRANCHES {
        let branch = branch_name(task, number);
        let reference = format!("refs/heads/{branch}");
        let tip = git.commit(&reference)?;
        let option = match &tip {
            None => "-b",
            // It holds nothing that the base does not hold.
            Some(tip) if checked_out_at(git, &branch)?.is_none() && is_ancestor(git, tip, base)? => "-B",
            Some(_) => continue,
        };
        let add = ["worktree", "add", "--quiet", "--no-track", "--no-checkout", option, &branch, "--"];
        let added = match git.call(add).arg(root).arg(base).run() {
            // Another task of the same number was faster.
            Err(failure) if is_taken(&failure.stderr) => continue,
            added => added,
        };
        // Files may take long, and nobody else minds them.
        drop(lock);
        let ready = added.map_err(String::from).and_then(|_| fill(&git.elsewhere(root), &branch, base));
        if ready.is_err() {
            // Nobody has worked in it. What is not there any more need not be removed.
            let git = Git::exactly(&repository.common, None, &|| false);
            let _gone = git.call(["worktree", "remove", "--force", "--force", "--"]).arg(root).run();
            if tip.is_none() {
                let _gone = git.call(["update-ref", "-d", &reference, base]).run();
            }
        }
        return ready;
    }
    Err(format!(
        "task {task} has left {BRANCHES} branches in this repository; delete those that nobody needs"
    ))
}

/// Writes the files of a new worktree, and says that it is ready.
fn fill(git: &Git<'_>, branch: &str, base: &str) -> Result<Ready, String> {
    filters::must_have_worked(&git.call(["reset", "--quiet", "--hard"]).run()?)?;
    let git_dir = git.call(["rev-parse", "--absolute-git-dir"]).run()?.path();
    write(&git_dir.join(BASE), base)?;
    mark(&git_dir, branch)?;
    Ok(Ready { git_dir, branch: branch.to_owned() })
}

fn is_taken(stderr: &str) -> bool {
    (stderr.contains("a branch named") && stderr.contains("already exists"))
        || stderr.contains("already checked out at")
        || stderr.contains("already used by worktree at")
}

/// `agentflow/task-5`, then `agentflow/task-5-2` and so on: another worker may have the first, or an
/// earlier life of the master may have left it.
fn branch_name(task: TaskId, number: u32) -> String {
    match number {
        1 => format!("agentflow/task-{task}"),
        _ => format!("agentflow/task-{task}-{number}"),
    }
}

fn is_branch_of(branch: &str, task: TaskId) -> bool {
    let Some(rest) = branch.strip_prefix(&branch_name(task, 1)) else { return false };
    rest.is_empty() || rest.strip_prefix('-').is_some_and(|number| number.parse::<u32>().is_ok())
}

fn mark(git_dir: &Path, branch: &str) -> Result<(), String> {
    write(&git_dir.join(MARK), branch)
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    fs::write(path, format!("{text}\n")).map_err(|error| format!("{}: {error}", path.display()))
}

/// The commit that a worktree was made at. Older workers did not write it down.
pub(super) fn base(git_dir: &Path) -> Option<String> {
    let text = fs::read_to_string(git_dir.join(BASE)).ok()?;
    Some(text.trim().to_owned())
        .filter(|base| base.bytes().all(|byte| byte.is_ascii_hexdigit()) && !base.is_empty())
}

/// The worktree that has a branch checked out.
pub(super) fn checked_out_at(git: &Git<'_>, branch: &str) -> Result<Option<PathBuf>, String> {
    let reference = format!("refs/heads/{branch}");
    let path = git.call(["for-each-ref", "--format=%(worktreepath)", &reference]).run()?.path();
    Ok(Some(path).filter(|path| !path.as_os_str().is_empty()))
}

fn is_ancestor(git: &Git<'_>, commit: &str, of: &str) -> Result<bool, String> {
    Ok(git.ask(["merge-base", "--is-ancestor", commit, of])?.is_some())
}

//! The end of a worktree.

use super::git::Git;
use super::{Closed, Workspace};

impl Workspace {
    /// Removes the worktree and the task's branch, if that loses nothing.
    pub(crate) fn close(self, cancelled: &dyn Fn() -> bool) -> Result<Closed, String> {
        let git = self.git(cancelled);
        let reason = match self.work(&git)? {
            Some(work) => Some(work),
            None => self.remove(cancelled).err(),
        };
        Ok(match reason {
            None => Closed::Removed,
            Some(reason) => Closed::Kept { reason: format!("'{}' stays: {reason}", self.root.display()) },
        })
    }

    /// What only this worktree holds, for people.
    fn work(&self, git: &Git<'_>) -> Result<Option<String>, String> {
        let status = ["status", "--porcelain=v2", "-z", "--no-renames", "--ignore-submodules=none"];
        let status = git.call(status).arg("--untracked-files=normal").run()?;
        if let Some(first) = status.stdout.split(|byte| *byte == 0).next().filter(|line| !line.is_empty()) {
            let first = String::from_utf8_lossy(first);
            let path = match first.split_once(' ') {
                Some(("?", path)) => path,
                // Eight fields stand before the path, in a conflict ten.
                Some(("u", rest)) => rest.splitn(10, ' ').last().unwrap_or_default(),
                Some((_, rest)) => rest.splitn(8, ' ').last().unwrap_or_default(),
                None => &first,
            };
            return Ok(Some(format!("it has changes that are not committed, as of '{path}'")));
        }
        if self.git_dir.join("modules").exists() {
            return Ok(Some("it has submodules of its own, whose commits would be lost".to_owned()));
        }
        let branch = self.reference_of_branch();
        for name in ["HEAD", &branch] {
            if let Some(commit) = git.commit(name)?
                && !self.is_held_below(git, &commit, &["refs/heads/", "refs/remotes/"])?
            {
                let name = name.trim_start_matches("refs/heads/");
                return Ok(Some(format!("no other branch has the commits of its {name}")));
            }
        }
        Ok(None)
    }

    fn remove(&self, cancelled: &dyn Fn() -> bool) -> Result<(), String> {
        let git = Git::exactly(&self.common, None, cancelled);
        let remove = |options: &[&str]| {
            git.call(["worktree", "remove"].iter().chain(options).chain(&["--"])).arg(&self.root).run()
        };
        if let Err(failure) = remove(&[]) {
            // Git refuses even where they are not checked out. Here they are not, and all else was looked at.
            if !failure.stderr.contains("containing submodules") {
                return Err(failure.into());
            }
            remove(&["--force"])?;
        }
        if git.commit(&self.reference_of_branch())?.is_some()
            && let Err(failure) = git.call(["branch", "--quiet", "-D", "--", &self.branch]).run()
        {
            log::warn!("the branch {} stays behind: {failure}", self.branch);
        }
        Ok(())
    }
}

//! Bringing a worktree to a snapshot.

use super::filters::must_have_worked;
use super::git::Git;
use super::snapshot::{State, create, is_reference};
use super::worktree::checked_out_at;
use super::{Snapshot, Workspace};

/// The message of a snapshot that saves what a restore would lose.
const SAVED: &str = "AgentFlow: before another snapshot was restored";

/// Operations of git that would go on afterwards: what their directory is named, how they are forgotten.
const OPERATIONS: &[(&str, &[&str])] =
    &[("rebase-merge", &["rebase", "--quit"]), ("rebase-apply", &["am", "--quit"])];

impl Workspace {
    /// Brings the worktree to a snapshot that was taken here or elsewhere: HEAD is the task's branch at
    /// the snapshot's parent, the files are those of the snapshot, and what was not committed is not.
    /// Ignored files stay. What the worktree held and nothing else holds is saved first; it is the answer.
    pub(crate) fn restore(
        &self,
        snapshot: &Snapshot,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Option<Snapshot>, String> {
        let git = self.git(cancelled);
        self.bring(&git, snapshot)?;
        let parent = git.commit(&format!("{}^1", snapshot.commit))?;
        let parent =
            parent.ok_or_else(|| format!("{} has no parent, so it is no snapshot", snapshot.commit))?;
        if let Some(place) = checked_out_at(&git, &self.branch)?.filter(|place| *place != self.root) {
            let place = place.display();
            return Err(format!("the branch {} is checked out in '{place}'; switch it there", self.branch));
        }
        let state = self.state(&git)?;
        let saved = self.save(&git, &state)?;
        // The index agrees with the files, so that git removes those that the snapshot does not have, and
        // touches neither equal nor ignored ones.
        let read = ["read-tree", "--reset", "-u", &snapshot.commit];
        must_have_worked(&git.call(read).index(state.index.path()).run()?)?;
        for (directory, quit) in OPERATIONS {
            if self.git_dir.join(directory).exists() {
                git.call(*quit).run()?;
            }
        }
        git.call(["update-ref", "-m", "agentflow: restore", &self.reference_of_branch(), &parent]).run()?;
        git.call(["symbolic-ref", "-m", "agentflow: restore", "HEAD", &self.reference_of_branch()]).run()?;
        git.call(["reset", "--quiet", "--mixed"]).run()?;
        Ok(saved)
    }

    /// Makes sure that the snapshot's commit is here.
    fn bring(&self, git: &Git<'_>, snapshot: &Snapshot) -> Result<(), String> {
        let Snapshot { commit, reference, .. } = snapshot;
        let is_hash = [40, 64].contains(&commit.len()) && commit.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !is_hash || !is_reference(reference) {
            return Err(format!("'{commit}' under '{reference}' is no snapshot"));
        }
        if git.commit(commit)?.is_none() {
            let remote = self.remote(git);
            let remote =
                remote.ok_or("the snapshot is not on this worker, and the repository has no remote")?;
            remote.fetch(reference).map_err(|error| format!("the snapshot cannot be fetched: {error}"))?;
            if git.commit(commit)?.is_none() {
                return Err(format!("'{}' has another commit than {commit} under {reference}", remote.name));
            }
        }
        // Keeps it from git's collection of garbage. Another commit under that name stays what it is.
        if !create(git, reference, commit)? && git.commit(reference)?.as_ref() != Some(commit) {
            log::info!("{reference} is another snapshot here than {commit}");
        }
        Ok(())
    }

    /// Takes a snapshot of what only this worktree holds.
    fn save(&self, git: &Git<'_>, state: &State) -> Result<Option<Snapshot>, String> {
        let tip = git.commit(&self.reference_of_branch())?;
        if let Some(tip) = tip.filter(|tip| *tip != state.head)
            && !self.is_held(git, &tip)?
        {
            // The task has left its branch; that would be moved away from these commits.
            let tree = git.text(["rev-parse", "--verify", &format!("{tip}^{{tree}}")])?;
            self.record_tree(git, &tree, &tip, SAVED)?;
        }
        let known = self.known(git)?;
        if known.iter().any(|known| known.tree == state.tree && known.parent == state.head) {
            return Ok(None);
        }
        let clean = git.text(["rev-parse", "--verify", "HEAD^{tree}"])? == state.tree;
        if clean && self.is_held(git, &state.head)? {
            return Ok(None);
        }
        let saved = self.record(git, state, SAVED)?;
        log::info!("task {}: the worktree's own work is saved as {}", self.task, saved.reference);
        Ok(Some(saved))
    }

    /// Whether something other than the task's branch leads to a commit.
    fn is_held(&self, git: &Git<'_>, commit: &str) -> Result<bool, String> {
        self.is_held_below(git, commit, &["refs/"])
    }

    /// The same for some places of references.
    pub(super) fn is_held_below(&self, git: &Git<'_>, commit: &str, places: &[&str]) -> Result<bool, String> {
        let own = self.reference_of_branch();
        let contains = ["for-each-ref", "--format=%(refname)", "--count=2", "--contains", commit];
        let holders = git.text(contains.iter().chain(places))?;
        Ok(holders.lines().any(|holder| holder != own))
    }
}

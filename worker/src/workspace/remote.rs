//! Snapshots on their way to a remote and back.

use super::git::{Call, Failure, Git};
use super::snapshot::{number_of, place_of};
use agentflow_core::ids::TaskId;

/// References that one push deletes.
const AT_ONCE: usize = 100;

/// What became of a push.
pub(super) enum Push {
    Done,
    /// The remote has another commit under this name.
    Taken,
    Failed(String),
}

/// A remote of a repository.
pub(super) struct Remote<'a> {
    pub(super) git: &'a Git<'a>,
    pub(super) name: &'a str,
}

impl Remote<'_> {
    /// Sends a commit under a name that must be free there, or its own already. `lfs` says that files
    /// of it may be kept by git-lfs, which sends them by a hook; no hook runs here.
    pub(super) fn push(&self, reference: &str, commit: &str, lfs: bool) -> Push {
        let lease = format!("--force-with-lease={reference}:");
        let refspec = format!("{commit}:{reference}");
        let send = || {
            if lfs {
                self.call(["lfs", "push", self.name, commit])?.run()?;
            }
            let options = ["push", "--porcelain", "--no-verify", "--no-recurse-submodules"];
            self.call(options)?.arg(lease).arg("--").arg(self.name).arg(refspec).run()
        };
        match send() {
            Ok(_) => Push::Done,
            Err(failure) if is_rejected(&failure.stdout) => Push::Taken,
            Err(failure) => Push::Failed(failure.into()),
        }
    }

    /// Gets the objects of a snapshot. The name of its reference stays the remote's.
    pub(super) fn fetch(&self, reference: &str) -> Result<(), String> {
        let options =
            ["fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--no-recurse-submodules", "--"];
        self.call(options)?.arg(self.name).arg(reference).run()?;
        Ok(())
    }

    /// The numbers of a task's snapshots there.
    pub(super) fn numbers(&self, task: TaskId) -> Result<Vec<u64>, String> {
        let call = self.call(["ls-remote", "--quiet", "--refs", "--"])?;
        let text = call.arg(self.name).arg(format!("{}*", place_of(task))).run()?.text();
        let references =
            text.lines().filter_map(|line| line.split_once('\t').map(|(_, reference)| reference));
        Ok(references.filter_map(|reference| number_of(task, reference)).collect())
    }

    /// Deletes references that are there.
    pub(super) fn delete(&self, references: &[String]) -> Result<(), String> {
        for some in references.chunks(AT_ONCE) {
            let options = ["push", "--quiet", "--no-verify", "--no-recurse-submodules", "--"];
            let call = self.call(options)?.arg(self.name);
            some.iter().fold(call, |call, reference| call.arg(format!(":{reference}"))).run()?;
        }
        Ok(())
    }

    /// A command that reaches the remote without asking anybody anything. A program for SSH that the
    /// user has chosen is left as it is.
    fn call<const N: usize>(&self, args: [&str; N]) -> Result<Call<'_>, Failure> {
        let call = self.git.call(args).network();
        let is_chosen = ["GIT_SSH", "GIT_SSH_COMMAND"].iter().any(|name| std::env::var_os(name).is_some())
            || self.git.ask(["config", "--get", "core.sshCommand"])?.is_some();
        Ok(if is_chosen { call } else { call.variable("GIT_SSH_COMMAND", "ssh -o BatchMode=yes") })
    }
}

/// Git itself refuses; a refusal by the remote reads `[remote rejected]`.
fn is_rejected(stdout: &str) -> bool {
    stdout.lines().any(|line| line.starts_with('!') && line.contains("[rejected]"))
}

//! The part of the command line that is about file locks.

use std::path::PathBuf;
use std::time::Duration;

use agentflow_core::lock::{LockId, Repository};
use clap::{Args, Subcommand};

use super::values::{Term, duration, lock_id, repository, term};

#[derive(Debug, Args)]
#[command(
    subcommand_negates_reqs = true,
    disable_help_subcommand = true,
    override_usage = "agentflow lock [OPTIONS] PATH… [-- PROGRAM [ARG]…]\n       agentflow lock status PATH…\n       agentflow lock break --reason TEXT ID|PATH",
    after_help = LOCK
)]
pub(crate) struct Lock {
    #[command(subcommand)]
    pub(crate) act: Option<LockAct>,
    /// Files, directories (with everything below them) and patterns such as 'src/**'; all or none is locked
    #[arg(value_name = "PATH", required = true)]
    pub(crate) paths: Vec<PathBuf>,
    /// With a program and its arguments after `--`: hold the lock while it runs
    #[arg(last = true, value_name = "ARGV")]
    pub(crate) argv: Vec<String>,
    /// For reading: others may read too, and nobody writes
    #[arg(long, conflicts_with = "write")]
    pub(crate) read: bool,
    /// For writing: nobody else has a lock there (default)
    #[arg(long)]
    pub(crate) write: bool,
    /// It ends after so long unless it is renewed; none: only on request [default: 30m]
    #[arg(long, value_name = "TIME|none", value_parser = term)]
    pub(crate) ttl: Option<Term>,
    /// Wait for so long when somebody else holds it [default: not at all]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) wait: Option<Duration>,
    /// Why, for those who want it too
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: Option<String>,
    /// Lock a pattern that matches everything in the repository
    #[arg(long)]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) place: LockPlace,
    #[command(flatten)]
    pub(crate) whose: LockOwnerFlag,
}

const LOCK: &str = "\
A file that is called as one of the commands is written with its directory: ./status

Exit codes:
  5 somebody else holds it, or it was lost while the program ran; else that of the program";

/// What can be done with locks, besides taking them.
#[derive(Debug, Subcommand)]
pub(crate) enum LockAct {
    /// Say who holds paths, and who waits for them (exit code 5 if somebody else is in the way)
    Status(LockStatus),
    /// Take a lock away from its holder
    Break(BreakLock),
}

/// In which repository.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct LockPlace {
    /// The repository, by its origin; paths begin at its root [default: that of the current directory]
    #[arg(long, value_name = "ORIGIN", value_parser = repository)]
    pub(crate) repo: Option<Repository>,
}

/// By whom.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct LockOwnerFlag {
    /// Whose lock it is; `$AGENTFLOW_OWNER` unless given, else USER@HOST
    #[arg(long, value_name = "NAME")]
    pub(crate) owner: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct LockStatus {
    /// Files, directories and patterns
    #[arg(value_name = "PATH", required = true)]
    pub(crate) paths: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) place: LockPlace,
    #[command(flatten)]
    pub(crate) whose: LockOwnerFlag,
}

#[derive(Debug, Args)]
pub(crate) struct BreakLock {
    /// The lock's id, or a path that it locks
    #[arg(value_name = "ID|PATH")]
    pub(crate) what: PathBuf,
    /// Why, for the holder
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: String,
    #[command(flatten)]
    pub(crate) place: LockPlace,
}

#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("what").required(true).args(["paths", "ids", "all"]))]
pub(crate) struct Unlock {
    /// What is locked: all locks that lie within these paths
    #[arg(value_name = "PATH")]
    pub(crate) paths: Vec<PathBuf>,
    /// The lock's id; may be repeated
    #[arg(long = "id", value_name = "ID", value_parser = lock_id)]
    pub(crate) ids: Vec<LockId>,
    /// All that you have taken in this working copy; with --owner all of that owner's
    #[arg(long)]
    pub(crate) all: bool,
    #[command(flatten)]
    pub(crate) place: LockPlace,
    #[command(flatten)]
    pub(crate) whose: LockOwnerFlag,
}

#[derive(Debug, Args)]
pub(crate) struct Locks {
    /// Only what has files in common with these
    #[arg(value_name = "PATH")]
    pub(crate) paths: Vec<PathBuf>,
    /// Of all repositories
    #[arg(long, conflicts_with_all = ["repo", "paths"])]
    pub(crate) all_repos: bool,
    /// Go on as they change
    #[arg(long)]
    pub(crate) watch: bool,
    #[command(flatten)]
    pub(crate) place: LockPlace,
    /// Only those of this owner, such as ann@host or task:5
    #[arg(long, value_name = "NAME")]
    pub(crate) owner: Option<String>,
}

impl Lock {
    /// Whether anything is said of a lock that is to be taken.
    pub(crate) fn is_for_taking(&self) -> bool {
        let is_flagged = self.read || self.write || self.force;
        let is_told = self.ttl.is_some() || self.wait.is_some() || self.reason.is_some();
        let is_placed = self.place.repo.is_some() || self.whose.owner.is_some();
        !self.paths.is_empty() || !self.argv.is_empty() || is_flagged || is_told || is_placed
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Command, parse};
    use super::*;

    fn lock(words: &[&str]) -> Lock {
        match parse(&[&["lock"], words].concat()).map(|read| read.command) {
            Ok(Command::Lock(lock)) => *lock,
            other => panic!("{words:?}: {other:?}"),
        }
    }

    fn is_wrong(words: &[&str]) -> bool {
        parse(words).is_err()
    }

    #[test]
    fn a_lock_is_of_paths_and_may_have_a_program() {
        let held = lock(&["a", "src/**", "--ttl", "5m", "--wait", "10s", "--", "make", "--all"]);
        assert_eq!(
            (held.paths.len(), held.argv.as_slice()),
            (2, &["make".to_owned(), "--all".to_owned()][..])
        );
        assert_eq!(
            (held.ttl, held.wait),
            (Some(Term::For(Duration::from_mins(5))), Some(Duration::from_secs(10)))
        );
        assert_eq!(lock(&["a", "--ttl", "none"]).ttl, Some(Term::Endless));
        assert!(lock(&["--read", "a", "--force"]).read);
        assert!(is_wrong(&["lock"]), "what?");
        assert!(is_wrong(&["lock", "--", "make"]), "what?");
        assert!(is_wrong(&["lock", "a", "--read", "--write"]));
        assert!(is_wrong(&["lock", "a", "--ttl", "soon"]));
        assert!(is_wrong(&["lock", "a", "--repo", "/srv/app"]), "a path of one machine");
    }

    #[test]
    fn a_word_after_lock_is_a_path_unless_it_says_what_to_do() {
        assert_eq!(lock(&["./status"]).paths, [PathBuf::from("./status")]);
        assert_eq!(lock(&["help"]).paths, [PathBuf::from("help")]);
        assert_eq!(lock(&["a", "status"]).paths.len(), 2);
        assert!(
            matches!(lock(&["status", "a", "b"]).act, Some(LockAct::Status(status)) if status.paths.len() == 2)
        );
        assert!(matches!(lock(&["--json", "status", "a"]).act, Some(LockAct::Status(_))));
        assert!(matches!(lock(&["break", "a", "--reason", "x"]).act, Some(LockAct::Break(_))));
        assert!(is_wrong(&["lock", "break", "a"]), "why?");
        assert!(is_wrong(&["lock", "status"]), "of what?");
    }

    #[test]
    fn what_is_unlocked_is_said() {
        let id = "a5".repeat(16);
        assert!(!is_wrong(&["unlock", "a", "b"]) && !is_wrong(&["unlock", "--all"]));
        assert!(!is_wrong(&["unlock", "--id", &id, "--id", &id]));
        assert!(is_wrong(&["unlock"]) && is_wrong(&["unlock", "--id", "5"]));
        assert!(is_wrong(&["unlock", "a", "--all"]));
        assert!(!is_wrong(&["locks", "--watch", "src", "--repo", "example.com/app"]));
        assert!(is_wrong(&["locks", "--all-repos", "--repo", "example.com/app"]));
    }
}

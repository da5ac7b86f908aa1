//! The part of the command line that makes file locks hold: hooks of agents and of git, and the guard.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::LockPlace;

/// What agents and git call.
#[derive(Debug, Subcommand)]
pub(crate) enum HookAct {
    /// Say whether a tool of an agent may change its files: the call comes on standard input
    PreTool {
        /// How to say no: by exit code 2 and standard error, or as the agent's JSON
        #[arg(long, value_name = "FORMAT", default_value = "text")]
        format: HookFormat,
    },
    /// Do what git's hooks do: called by the scripts of `agentflow hooks install`
    Git(GitHook),
}

/// How an agent is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum HookFormat {
    /// Exit code 2, and the reason on standard error.
    Text,
    /// Exit code 0, and the answer on standard output.
    Json,
}

#[derive(Debug, Args)]
pub(crate) struct GitHook {
    /// The script that calls: the hook that made room for it runs first
    #[arg(long, value_name = "FILE")]
    pub(crate) script: Option<PathBuf>,
    /// Which hook
    #[arg(value_name = "HOOK")]
    pub(crate) name: GitHookName,
    /// As git gives them
    #[arg(value_name = "ARG", trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) arguments: Vec<OsString>,
}

/// A hook of git's.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum GitHookName {
    /// Before a commit: may these files be changed?
    PreCommit,
    /// Of its message: under which locks were they?
    CommitMsg,
    /// Before a push: were all of its commits made so?
    PrePush,
}

/// What can be done with the hooks of the repository of the current directory.
#[derive(Debug, Subcommand)]
pub(crate) enum HooksAct {
    /// Put them beside those that are there, which run first
    Install {
        /// Also where the directory of the hooks is that of all of this user's repositories
        #[arg(long)]
        shared: bool,
    },
    /// Take them away, and put back what was there
    Uninstall,
    /// Show each hook, and what it runs first
    Status,
}

/// What checks commits where nobody can go round it.
#[derive(Debug, Subcommand)]
pub(crate) enum GuardAct {
    /// Check that each commit was made under the locks that it names, as a job of CI does
    Verify {
        /// From the commit that was there before to the new one
        #[arg(value_name = "BASE..HEAD")]
        range: String,
        #[command(flatten)]
        place: LockPlace,
    },
    /// Check what is being pushed: a server's hook, which reads its lines on standard input
    PreReceive {
        #[command(flatten)]
        what: Guarded,
        /// The script that calls: the hook that made room for it runs first
        #[arg(long, value_name = "FILE")]
        script: Option<PathBuf>,
    },
    /// Put the hook into a bare repository beside one that is there, which runs first
    Install {
        /// The directory of the bare repository
        #[arg(value_name = "DIR")]
        server: PathBuf,
        #[command(flatten)]
        what: Guarded,
    },
    /// Take the hook away from a bare repository, and put back what was there
    Uninstall {
        /// The directory of the bare repository
        #[arg(value_name = "DIR")]
        server: PathBuf,
    },
}

/// What is guarded on a server.
#[derive(Clone, Debug, Args)]
pub(crate) struct Guarded {
    /// The repository, by the address that its working copies have as their origin
    #[arg(long, value_name = "ORIGIN", value_parser = super::values::repository)]
    pub(crate) repo: agentflow_core::lock::Repository,
    /// Only these, such as refs/heads/main or 'refs/heads/release/*'; may be repeated [default: all branches]
    #[arg(long = "ref", value_name = "PATTERN")]
    pub(crate) refs: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::super::{Command, parse};
    use super::*;

    #[test]
    fn a_hook_passes_on_what_git_gives() {
        let words = ["hook", "git", "--script", ".git/hooks/pre-push", "pre-push", "origin", "--x", "a b"];
        let Ok(Command::Hook { act: HookAct::Git(hook) }) = parse(&words).map(|read| read.command) else {
            panic!("no hook")
        };
        assert_eq!(hook.name, GitHookName::PrePush);
        assert_eq!(hook.arguments, ["origin", "--x", "a b"]);
        assert!(parse(&["hook", "git", "post-commit"]).is_err());
    }

    #[test]
    fn a_tool_call_is_answered_as_its_agent_wants() {
        let format = |words: &[&str]| match parse(words).ok()?.command {
            Command::Hook { act: HookAct::PreTool { format } } => Some(format),
            _ => None,
        };
        assert_eq!(format(&["hook", "pre-tool"]), Some(HookFormat::Text));
        assert_eq!(format(&["hook", "pre-tool", "--format", "json"]), Some(HookFormat::Json));
        assert_eq!(format(&["hook", "pre-tool", "--format", "xml"]), None);
    }

    #[test]
    fn a_server_says_which_repository_it_is() {
        assert!(
            parse(&["guard", "pre-receive", "--repo", "example.com/app", "--ref", "refs/heads/main"]).is_ok()
        );
        assert!(parse(&["guard", "install", "app.git", "--repo", "https://example.com/app.git"]).is_ok());
        assert!(
            parse(&["guard", "pre-receive"]).is_err() && parse(&["guard", "install", "app.git"]).is_err()
        );
        assert!(parse(&["guard", "verify", "main..HEAD"]).is_ok() && parse(&["guard", "verify"]).is_err());
    }
}

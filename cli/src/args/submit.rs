//! The part of the command line that says what a task is.

use std::path::PathBuf;
use std::time::Duration;

use agentflow_core::ids::TaskId;
use agentflow_core::lock::LockMode;
use agentflow_protocol::submit::Priority;
use clap::Args;

use super::values::{duration, key_value, path_and_mode, priority, task_id};

/// The fields of a task that can be given on the command line. With a file they stand in for
/// what it leaves out.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Task")]
pub(crate) struct TaskFlags {
    /// Which workers may take it [default: default]
    #[arg(long, value_name = "NAME")]
    pub(crate) group: Option<String>,
    /// 0 to 100, or low, normal, high, critical
    #[arg(long, value_name = "N", value_parser = priority)]
    pub(crate) priority: Option<Priority>,
    /// A label that the worker must have; may be repeated
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = key_value)]
    pub(crate) labels: Vec<(String, String)>,
    /// Retries after the first attempt
    #[arg(long, value_name = "N")]
    pub(crate) retry: Option<u32>,
    /// Wait before the first retry; each further one is twice as long [default: 1s]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) backoff: Option<Duration>,
    /// Stop an attempt that prints nothing for so long
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) idle_timeout: Option<Duration>,
    /// Fail when no worker has begun for so long
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) queue_timeout: Option<Duration>,
    /// Time between TERM and KILL when it is stopped [default: 5s]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) cancel_grace: Option<Duration>,
    /// Added to the environment; may be repeated
    #[arg(long = "env", value_name = "KEY=VALUE", value_parser = key_value)]
    pub(crate) env: Vec<(String, String)>,
    /// Where it starts, on the worker
    #[arg(long, value_name = "DIR")]
    pub(crate) workdir: Option<String>,
    /// Keep this file, pattern or directory once it has ended; may be repeated
    #[arg(long = "artifact", value_name = "PATH")]
    pub(crate) artifacts: Vec<String>,
    /// Tasks whose files it finds in AGENTFLOW_ARTIFACTS
    #[arg(long, value_name = "ID", value_parser = task_id, num_args = 1.., value_delimiter = ',')]
    pub(crate) artifacts_from: Vec<TaskId>,
    /// Save this file as a checkpoint when it changes, and put it back before a later attempt
    #[arg(long, value_name = "FILE")]
    pub(crate) checkpoint_file: Option<String>,
    /// Work in a git worktree of its own, begun at this commit [default: HEAD] of the repository at
    /// --workdir [default: the current directory]
    #[arg(long, value_name = "COMMIT", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    pub(crate) worktree: Option<String>,
    /// A file, directory or pattern that it locks before it begins; may be repeated
    #[arg(long = "lock", value_name = "PATH[:read]", value_parser = path_and_mode)]
    pub(crate) locks: Vec<(PathBuf, LockMode)>,
    /// Cores that it occupies
    #[arg(long, value_name = "N")]
    pub(crate) cpus: Option<f64>,
    /// Memory that it occupies
    #[arg(long, value_name = "MIB")]
    pub(crate) memory_mb: Option<u64>,
    /// What happens when the worker loses the master: keep (default) or stop
    #[arg(long, value_name = "WHAT", value_parser = ["keep", "stop"])]
    pub(crate) on_disconnect: Option<String>,
}

#[derive(Debug, Args)]
#[command(
    override_usage = "agentflow submit [OPTIONS] -- PROGRAM [ARG]…\n       agentflow submit [OPTIONS] --shell LINE\n       agentflow submit [OPTIONS] --file FILE"
)]
#[command(group = clap::ArgGroup::new("work").required(true).args(["argv", "shell", "file", "script", "handler", "kind"]))]
pub(crate) struct Submit {
    /// A program and its arguments, after `--`
    #[arg(last = true, value_name = "ARGV")]
    pub(crate) argv: Vec<String>,
    /// A line for /bin/sh
    #[arg(long, value_name = "LINE")]
    pub(crate) shell: Option<String>,
    /// A script file on the worker
    #[arg(long, value_name = "PATH")]
    pub(crate) script: Option<String>,
    /// A handler of the worker
    #[arg(long, value_name = "NAME")]
    pub(crate) handler: Option<String>,
    /// What it works on, JSON: the file AGENTFLOW_INPUT, or a handler's line
    #[arg(long, value_name = "JSON", conflicts_with = "file")]
    pub(crate) input: Option<String>,
    /// A kind without a payload: noop
    #[arg(long, value_name = "KIND", value_parser = ["noop"])]
    pub(crate) kind: Option<String>,
    /// A file with a task, a list of tasks or {"tasks": […]}; - is standard input
    #[arg(long, value_name = "FILE")]
    pub(crate) file: Option<String>,
    /// How many of this task
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) count: u32,
    /// One line for people
    #[arg(long, value_name = "TEXT")]
    pub(crate) title: Option<String>,
    /// Free text
    #[arg(long, value_name = "TEXT")]
    pub(crate) description: Option<String>,
    /// Stop an attempt after so long
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) timeout: Option<Duration>,
    /// Not before this time, such as 2026-11-22T17:00:00Z
    #[arg(long, value_name = "TIME")]
    pub(crate) not_before: Option<String>,
    /// The same key with the same task makes nothing new
    #[arg(long, value_name = "KEY")]
    pub(crate) idempotency_key: Option<String>,
    /// Tasks that must complete first
    #[arg(long, value_name = "ID", value_parser = task_id, num_args = 1.., value_delimiter = ',')]
    pub(crate) needs: Vec<TaskId>,
    /// Keep it blocked until `agentflow release`
    #[arg(long)]
    pub(crate) hold: bool,
    #[command(flatten)]
    pub(crate) task: TaskFlags,
    #[command(flatten)]
    pub(crate) wait: WaitFlags,
    /// Wait until it is settled
    #[arg(long = "wait")]
    pub(crate) wait_for_it: bool,
    /// Give up waiting after so long (exit code 124)
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) wait_timeout: Option<Duration>,
}

/// How the end of the work is told.
#[derive(Clone, Copy, Debug, Default, Args)]
pub(crate) struct WaitFlags {
    /// Print the output of every task, not only of those that failed
    #[arg(long)]
    pub(crate) logs: bool,
    /// End with the exit code of the first task that failed
    #[arg(long)]
    pub(crate) exit_code: bool,
}

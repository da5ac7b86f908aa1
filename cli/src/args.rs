//! The command line: what can be typed. Values are checked here as far as that needs no master.

use std::path::PathBuf;
use std::time::Duration;

use agentflow_core::ids::{RunId, TaskId};
use agentflow_core::limits;
use agentflow_core::status::Status;
use agentflow_protocol::submit::Priority;
use clap::{Args, Parser, Subcommand};

mod artifacts;
mod enforce;
mod keys;
mod locks;
mod saved;
mod schedules;
mod submit;
mod values;
mod workflows;

pub(crate) use artifacts::{ArtifactsAct, Download, GetArtifact, Whose};
pub(crate) use enforce::{GitHook, GitHookName, GuardAct, Guarded, HookAct, HookFormat, HooksAct};
pub(crate) use keys::{KeysAct, SetKey};
pub(crate) use locks::{BreakLock, Lock, LockAct, LockOwnerFlag, LockPlace, LockStatus, Locks, Unlock};
pub(crate) use saved::{
    CheckpointAct, Forget, Progress, Recall, Remember, Save, Upgrade, UpgradeOfRun, VersionsOf, WhoseMemory,
};
pub(crate) use schedules::{SchedulesAct, SetSchedule};
pub(crate) use submit::{Submit, TaskFlags, WaitFlags};
pub(crate) use values::{TaskOrRun, Term};
use values::{duration, key_value, priority, run_id, subject, task_id};
pub(crate) use workflows::{
    Fork, Graph, GraphFormat, Plan, Reject, Relate, Rerun, Run, RunAct, Runs, SomeRuns, SomeTasks, Validate,
    Variables, What,
};

/// Runs tasks for teams: a task goes in, a worker runs it, the result is durable.
#[derive(Debug, Parser)]
#[command(name = "agentflow", bin_name = "agentflow", version, max_term_width = 100, after_help = AFTER)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

const AFTER: &str = "\
Start here:
  agentflow run '[\"echo one\", \"echo two\"]'    run commands, with or without a master
  agentflow run ci.yaml --var n=2              run a workflow, and watch it
  agentflow up                                 master and worker in this terminal
  agentflow submit --wait -- make test         one task

Environment:
  AGENTFLOW_MASTER (or AGENTFLOW_MASTER_URL)   the master's address
  AGENTFLOW_TOKEN                              the token, where the master wants one
  AGENTFLOW_OWNER                              whose locks are taken, instead of USER@HOST
  NO_COLOR                                     no colours

Exit codes:
  0 done, 1 the work failed, 2 usage, 3 no master, 4 refused, 5 conflict, 124 timeout, 130 interrupted";

/// What every command takes.
#[derive(Clone, Debug, Args)]
pub(crate) struct Global {
    /// The master's address; several with commas [default: the one running here, else http://127.0.0.1:6767]
    #[arg(long, global = true, value_name = "URL")]
    pub(crate) master: Option<String>,
    /// Print JSON
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// How long to wait for a master that does not answer [default: 60s once it has answered, else 0s]
    #[arg(long, global = true, value_name = "TIME", value_parser = duration)]
    pub(crate) patience: Option<Duration>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start a master and a worker in this process
    Up(Up),
    /// Hand in one task, or a file of tasks
    Submit(Box<Submit>),
    /// Run a workflow file or a list of commands to its end
    Run(Box<Run>),
    /// List runs of workflows
    Runs(Runs),
    /// Say what is wrong with a workflow file
    Validate(Validate),
    /// Show the levels of a workflow file, or of tasks
    Plan(Plan),
    /// Draw a workflow file or a run
    Graph(Graph),
    /// Print a JSON Schema for editors
    Schema {
        /// Of this
        what: What,
    },
    /// Let tasks go on that wait for an approval
    Approve(SomeTasks),
    /// Fail tasks that wait for an approval
    Reject(Reject),
    /// Let tasks go on that were submitted with --hold
    Release(SomeTasks),
    /// Let one task come after another
    Relate(Relate),
    /// List concurrency keys, or set their limits
    #[command(visible_alias = "key")]
    Keys {
        #[command(subcommand)]
        act: Option<KeysAct>,
    },
    /// Lock files of a repository, alone or while a program runs
    Lock(Box<Lock>),
    /// Give locks of files back
    Unlock(Unlock),
    /// List the locks of files, and who waits for them
    Locks(Locks),
    /// Be the hook of an agent or of git that keeps to the locks of files
    Hook {
        #[command(subcommand)]
        act: HookAct,
    },
    /// Put hooks into this repository's git that keep to the locks of files
    Hooks {
        #[command(subcommand)]
        act: HooksAct,
    },
    /// Accept commits only under the locks that they name: in CI and on servers
    Guard {
        #[command(subcommand)]
        act: GuardAct,
    },
    /// List schedules, or make and control them
    #[command(visible_alias = "schedule")]
    Schedules {
        #[command(subcommand)]
        act: Option<SchedulesAct>,
    },
    /// List and fetch the files that tasks leave
    #[command(visible_alias = "artifact")]
    Artifacts {
        #[command(subcommand)]
        act: ArtifactsAct,
    },
    /// Save the state of tasks, and have them go on from there
    #[command(visible_alias = "checkpoints")]
    Checkpoint {
        #[command(subcommand)]
        act: CheckpointAct,
    },
    /// Have a task or run keep something in mind for a while
    Remember(Remember),
    /// Print what a task or run remembers
    Recall(Recall),
    /// Have a task or run forget something
    Forget(Forget),
    /// Say how far a task is: inside it
    Progress(Progress),
    /// Begin a new run where another one was: what completed there is taken over
    Fork(Fork),
    /// Give a task another version, or a run another workflow
    Upgrade(Box<Upgrade>),
    /// Show the versions of a task or run, and what each changed
    Versions(VersionsOf),
    /// List tasks
    #[command(visible_alias = "ls")]
    List(List),
    /// List tasks that failed for good, and why
    DeadLetters(DeadLetters),
    /// Show a task
    Get(Get),
    /// Print a task's output
    Logs(Logs),
    /// Say why a task is not running
    Why(OneTask),
    /// Stop tasks
    Cancel(Choice),
    /// Run settled tasks again, from their newest checkpoints
    Retry(Retry),
    /// Change the priority or group of waiting tasks
    Update(Update),
    /// Wait until tasks are settled
    Wait(Wait),
    /// List workers
    Workers,
    /// Let workers finish what they run and give them nothing new
    Drain(Drain),
    /// Show what happened
    Events(Events),
    /// Whether the master is well
    Health,
    /// Counts of tasks and workers
    Stats,
    /// Print a completion script
    Completion {
        /// For this shell
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Up {
    /// Where the master listens; port 0 picks one
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:6767", env = "AGENTFLOW_MASTER_LISTEN")]
    pub(crate) listen: String,
    /// A file, or postgres://… [default: agentflow.db in the data directory]
    #[arg(long, value_name = "PATH|URL", env = "AGENTFLOW_MASTER_DATABASE")]
    pub(crate) database: Option<String>,
    /// Where everything is kept [default: $XDG_STATE_HOME/agentflow]
    #[arg(long, value_name = "DIR", env = "AGENTFLOW_MASTER_DATA_DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Tasks at once [default: the number of cores]
    #[arg(long, value_name = "N", env = "AGENTFLOW_WORKER_SLOTS", value_parser = clap::value_parser!(u32).range(1..=i64::from(limits::SLOTS)))]
    pub(crate) slots: Option<u32>,
    /// A group that the worker serves; may be repeated [default: default]
    #[arg(long = "group", value_name = "NAME", env = "AGENTFLOW_WORKER_GROUP", value_delimiter = ',')]
    pub(crate) groups: Vec<String>,
    /// A label of the worker; may be repeated
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = key_value)]
    pub(crate) labels: Vec<(String, String)>,
    /// File with the token that every request must carry; needed to listen for other machines
    #[arg(long, value_name = "FILE", env = "AGENTFLOW_MASTER_TOKEN_FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// Git LFS server that keeps the objects, for clients of /lfs; '{repo}' in it is the repository
    #[arg(long, value_name = "URL", env = "AGENTFLOW_MASTER_LFS_UPSTREAM")]
    pub(crate) lfs_upstream: Option<String>,
    /// The worker's id
    #[arg(long, value_name = "ID", default_value = "local", env = "AGENTFLOW_WORKER_ID")]
    pub(crate) id: String,
}

/// Which tasks, by what they have in common.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct Filter {
    /// blocked, pending, running, completed, failed, cancelled, skipped; several with commas
    #[arg(long, value_name = "STATUS", value_delimiter = ',')]
    pub(crate) status: Vec<Status>,
    /// In this group
    #[arg(long, value_name = "NAME")]
    pub(crate) group: Option<String>,
    /// On this worker
    #[arg(long, value_name = "ID")]
    pub(crate) worker: Option<String>,
    /// Requiring this label
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) label: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct List {
    #[command(flatten)]
    pub(crate) filter: Filter,
    /// Of this run
    #[arg(long, value_name = "RUN", value_parser = run_id)]
    pub(crate) run: Option<RunId>,
    /// At most so many
    #[arg(long, value_name = "N", default_value_t = 50, conflicts_with = "all")]
    pub(crate) limit: usize,
    /// All of them
    #[arg(long)]
    pub(crate) all: bool,
}

#[derive(Debug, Args)]
pub(crate) struct DeadLetters {
    /// In this group
    #[arg(long, value_name = "NAME")]
    pub(crate) group: Option<String>,
    /// Of this run
    #[arg(long, value_name = "RUN", value_parser = run_id)]
    pub(crate) run: Option<RunId>,
    /// At most so many
    #[arg(long, value_name = "N", default_value_t = 50)]
    pub(crate) limit: usize,
}

#[derive(Debug, Args)]
pub(crate) struct OneTask {
    /// 5, or TASK-00000005
    #[arg(value_name = "ID", value_parser = task_id)]
    pub(crate) id: TaskId,
}

#[derive(Debug, Args)]
pub(crate) struct Get {
    #[command(flatten)]
    pub(crate) task: OneTask,
    /// Also its attempts
    #[arg(long)]
    pub(crate) attempts: bool,
    /// Also what it comes after and before
    #[arg(long)]
    pub(crate) relationships: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Logs {
    #[command(flatten)]
    pub(crate) task: OneTask,
    /// Go on until the task is settled
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// This attempt, from 1 [default: the latest, and with --follow those after it]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) attempt: Option<u32>,
    /// Leave out so many bytes of the attempt
    #[arg(long, value_name = "BYTES", default_value_t = 0)]
    pub(crate) offset: u64,
}

#[derive(Debug, Args)]
pub(crate) struct Choice {
    /// 5, or TASK-00000005; or choose by filter
    #[arg(value_name = "ID", value_parser = task_id)]
    pub(crate) ids: Vec<TaskId>,
    #[command(flatten)]
    pub(crate) filter: Filter,
    /// Every task that this can be done to
    #[arg(long, conflicts_with = "ids")]
    pub(crate) all: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Retry {
    #[command(flatten)]
    pub(crate) choice: Choice,
    /// Begin at the beginning, not at the newest checkpoint
    #[arg(long, requires = "ids", conflicts_with = "all")]
    pub(crate) from_beginning: bool,
}

#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("change").required(true).multiple(true).args(["priority", "to_group"]))]
pub(crate) struct Update {
    /// 5, or TASK-00000005
    #[arg(value_name = "ID", value_parser = task_id, required = true)]
    pub(crate) ids: Vec<TaskId>,
    /// 0 to 100, or low, normal, high, critical
    #[arg(long, value_name = "N", value_parser = priority)]
    pub(crate) priority: Option<Priority>,
    /// The new group
    #[arg(long = "group", value_name = "NAME")]
    pub(crate) to_group: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Wait {
    /// 5, or TASK-00000005
    #[arg(value_name = "ID", value_parser = task_id, required = true)]
    pub(crate) ids: Vec<TaskId>,
    /// Give up after so long (exit code 124)
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) timeout: Option<Duration>,
    #[command(flatten)]
    pub(crate) wait: WaitFlags,
}

#[derive(Debug, Args)]
pub(crate) struct Drain {
    /// The worker's id
    #[arg(value_name = "WORKER", required = true)]
    pub(crate) workers: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Events {
    /// Go on as things happen
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// After this number [default: the newest --limit, or with --follow only what is to come]
    #[arg(long, value_name = "SEQ")]
    pub(crate) after: Option<u64>,
    /// Only of this: task:5, run:5, worker:w1
    #[arg(long, value_name = "WHO", value_parser = subject)]
    pub(crate) subject: Option<String>,
    /// At most so many
    #[arg(long, value_name = "N", default_value_t = 100, conflicts_with = "follow")]
    pub(crate) limit: usize,
}

/// The arguments after the program's name, as the tests write them.
#[cfg(test)]
fn parse(words: &[&str]) -> Result<Arguments, clap::Error> {
    Arguments::try_parse_from(std::iter::once("agentflow").chain(words.iter().copied()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn every_help_is_one_line() {
        fn check(command: &clap::Command) {
            let name = command.get_name();
            let about = command.get_about().map(ToString::to_string).unwrap_or_default();
            assert!(!about.is_empty() && !about.contains('\n'), "{name}: {about:?}");
            for argument in command.get_arguments().filter(|argument| !argument.is_global_set()) {
                let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
                assert!(!help.is_empty() && !help.contains('\n'), "{name} {}: {help:?}", argument.get_id());
            }
            command.get_subcommands().for_each(check);
        }
        Arguments::command().get_subcommands().for_each(check);
    }

    #[test]
    fn a_program_comes_after_two_dashes() {
        let arguments = parse(&["submit", "--priority", "high", "--", "make", "--all"]).expect("valid");
        let Command::Submit(submit) = arguments.command else { panic!("another command") };
        assert_eq!(submit.argv, ["make", "--all"]);
        assert!(parse(&["submit"]).is_err(), "nothing to do");
        assert!(parse(&["submit", "--shell", "a", "--", "b"]).is_err(), "two payloads");
    }

    #[test]
    fn ids_come_in_both_spellings() {
        let arguments = parse(&["wait", "5", "TASK-00000006"]).expect("valid");
        let Command::Wait(wait) = arguments.command else { panic!("another command") };
        assert_eq!(wait.ids, [TaskId(5), TaskId(6)]);
        assert!(parse(&["wait", "five"]).is_err());
    }
}

//! The part of the command line that is about what outlives an attempt: checkpoints, memories, and
//! versions.

use std::path::PathBuf;
use std::time::Duration;

use agentflow_core::ids::{RunId, TaskId};
use clap::{Args, Subcommand};
use serde_json::value::RawValue;

use super::Variables;
use super::values::{TaskOrRun, duration, run_id, same_node, task_id, task_or_run, value};

/// What can be done with checkpoints.
#[derive(Debug, Subcommand)]
pub(crate) enum CheckpointAct {
    /// Save the state of a task: inside it, its own
    Save(Save),
    /// Print what was saved: inside a task, what it was restored from
    Load {
        /// The checkpoint's number [default: inside a task, the one that it was restored from]
        #[arg(value_name = "ID", value_parser = clap::value_parser!(u64).range(1..))]
        id: Option<u64>,
    },
    /// List the checkpoints of a task, and the begin and end of its attempts
    #[command(visible_alias = "ls")]
    List {
        /// The task [default: inside a task, itself]
        #[arg(value_name = "TASK", value_parser = task_id)]
        task: Option<TaskId>,
    },
    /// Show a checkpoint with its data
    Show {
        /// Its number
        #[arg(value_name = "ID", value_parser = clap::value_parser!(u64).range(1..))]
        id: u64,
    },
    /// Have a task go on at a checkpoint: a new attempt is made
    Restore {
        /// Its number
        #[arg(value_name = "ID", value_parser = clap::value_parser!(u64).range(1..))]
        id: u64,
        /// Restore only what the task remembered, and begin at the beginning
        #[arg(long)]
        from_beginning: bool,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Save {
    /// What it is called
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    /// What is saved; - is standard input
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub(crate) data: Option<String>,
    /// Instead, what this file holds
    #[arg(long, value_name = "FILE", conflicts_with = "data")]
    pub(crate) file: Option<PathBuf>,
    /// The task [default: inside a task, itself]
    #[arg(long, value_name = "TASK", value_parser = task_id)]
    pub(crate) task: Option<TaskId>,
}

/// Whose memory.
#[derive(Clone, Copy, Debug, Args)]
#[group(multiple = false)]
pub(crate) struct WhoseMemory {
    /// That of this task [default: inside a task, its own]
    #[arg(long, value_name = "TASK", value_parser = task_id)]
    pub(crate) task: Option<TaskId>,
    /// That of this run, which all of its tasks share; inside a task without a number its own run
    #[arg(long, value_name = "RUN", value_parser = run_id, num_args = 0..=1, default_missing_value = None)]
    pub(crate) run: Option<Option<RunId>>,
}

#[derive(Debug, Args)]
pub(crate) struct Remember {
    /// Under that name
    #[arg(value_name = "KEY")]
    pub(crate) key: String,
    /// What: JSON where it is a number, true, false, null, a list or an object, and text otherwise
    #[arg(value_name = "VALUE", value_parser = value, allow_hyphen_values = true)]
    pub(crate) value: Box<RawValue>,
    /// For so long [default: for ever]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) ttl: Option<Duration>,
    #[command(flatten)]
    pub(crate) whose: WhoseMemory,
}

#[derive(Debug, Args)]
pub(crate) struct Recall {
    /// What is remembered under that name [default: all of it]
    #[arg(value_name = "KEY")]
    pub(crate) key: Option<String>,
    #[command(flatten)]
    pub(crate) whose: WhoseMemory,
}

#[derive(Debug, Args)]
pub(crate) struct Forget {
    /// Under that name
    #[arg(value_name = "KEY", required = true)]
    pub(crate) keys: Vec<String>,
    #[command(flatten)]
    pub(crate) whose: WhoseMemory,
}

#[derive(Debug, Args)]
pub(crate) struct Progress {
    /// 0 to 100
    #[arg(value_name = "PERCENT")]
    pub(crate) percent: f32,
    /// For people
    #[arg(value_name = "TEXT", default_value = "")]
    pub(crate) message: String,
}

#[derive(Debug, Args)]
#[command(
    override_usage = "agentflow upgrade [OPTIONS] --reason TEXT TASK [-- PROGRAM [ARG]…]\n       agentflow upgrade [OPTIONS] --reason TEXT run:ID --workflow FILE [--dry-run]"
)]
#[command(group = clap::ArgGroup::new("payload").args(["argv", "shell"]))]
pub(crate) struct Upgrade {
    /// The task, such as 5; or the run, as run:5
    #[arg(value_name = "TASK|run:ID", value_parser = task_or_run)]
    pub(crate) subject: TaskOrRun,
    /// A program and its arguments, after `--`
    #[arg(last = true, value_name = "ARGV")]
    pub(crate) argv: Vec<String>,
    /// A line for /bin/sh
    #[arg(long, value_name = "LINE")]
    pub(crate) shell: Option<String>,
    /// Another title
    #[arg(long, value_name = "TEXT")]
    pub(crate) title: Option<String>,
    /// Another description; where the old one said what to do, so does this
    #[arg(long, value_name = "TEXT")]
    pub(crate) description: Option<String>,
    /// Fields of a task that take the place of the old ones, as JSON; null takes one away
    #[arg(long, value_name = "JSON")]
    pub(crate) spec: Option<String>,
    /// Why
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(crate) reason: String,
    /// By whom [default: this user]
    #[arg(long, value_name = "NAME")]
    pub(crate) author: Option<String>,
    /// Refuse it if there is another version by now
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) expected_version: Option<u32>,
    /// Stop what is at work and begin it anew; of a run, only what is to do something else
    #[arg(long)]
    pub(crate) restart: bool,
    /// Begin at the beginning, not at the newest checkpoint
    #[arg(long)]
    pub(crate) from_beginning: bool,
    #[command(flatten)]
    pub(crate) run: UpgradeOfRun,
}

/// What only a run is upgraded with.
#[derive(Debug, Args)]
#[command(next_help_heading = "Options for run:ID")]
pub(crate) struct UpgradeOfRun {
    /// The workflow file that takes the place of the run's; - is standard input
    #[arg(long, value_name = "FILE", conflicts_with_all = ["argv", "shell", "title", "description", "spec", "from_beginning"])]
    pub(crate) workflow: Option<String>,
    /// Which node of the new workflow is which of the run's; NEW= is none of them; may be repeated
    #[arg(long, value_name = "NEW=OLD", value_parser = same_node, requires = "workflow")]
    pub(crate) map: Vec<(String, Option<String>)>,
    /// These nodes of the new workflow and everything after them run again
    #[arg(long, value_name = "NODE", num_args = 1.., value_delimiter = ',', requires = "workflow")]
    pub(crate) restart_from: Vec<String>,
    /// Only show what would become of each node
    #[arg(long, requires = "workflow")]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) variables: Variables,
}

/// Whose versions.
#[derive(Debug, Args)]
pub(crate) struct VersionsOf {
    /// The task, such as 5; or the run, as run:5
    #[arg(value_name = "TASK|run:ID", value_parser = task_or_run)]
    pub(crate) subject: TaskOrRun,
}

#[cfg(test)]
mod tests {
    use super::super::{Command, parse};
    use super::*;

    #[test]
    fn a_memory_is_a_tasks_or_a_runs() {
        let whose = |words: &[&str]| match parse(words).ok()?.command {
            Command::Recall(recall) => Some((recall.key, recall.whose.task, recall.whose.run)),
            _ => None,
        };
        assert_eq!(whose(&["recall"]), Some((None, None, None)));
        assert_eq!(whose(&["recall", "k", "--run"]), Some((Some("k".into()), None, Some(None))));
        assert_eq!(whose(&["recall", "--run", "3"]), Some((None, None, Some(Some(RunId(3))))));
        assert_eq!(whose(&["recall", "--task", "3"]), Some((None, Some(TaskId(3)), None)));
        assert_eq!(whose(&["recall", "--task", "3", "--run", "3"]), None);
    }

    #[test]
    fn values_are_json_or_text() {
        let read = |text: &str| match parse(&["remember", "k", text]).ok()?.command {
            Command::Remember(remember) => Some(remember.value.get().to_owned()),
            _ => None,
        };
        for same in ["-5", "12345678901234567890123", r#"[1.50, {"b": 1, "a": null}]"#] {
            assert_eq!(read(same).as_deref(), Some(same));
        }
        assert_eq!(read(r#""a""#).as_deref(), Some(r#""\"a\"""#));
        assert_eq!(read("a b").as_deref(), Some(r#""a b""#));
    }

    #[test]
    fn a_new_version_has_one_payload() {
        assert!(parse(&["upgrade", "5", "--shell", "make"]).is_ok());
        assert!(parse(&["upgrade", "5", "--reason", "r", "--", "make", "--all"]).is_ok());
        assert!(parse(&["upgrade", "5", "--shell", "make", "--", "make"]).is_err());
        assert!(parse(&["checkpoint", "save", "n", "--data", "-", "--file", "x"]).is_err());
    }

    #[test]
    fn a_run_is_upgraded_with_a_workflow() {
        let run = ["upgrade", "run:5", "--workflow", "ci.yaml"];
        let with = |more: &[&str]| parse(&[&run, more].concat());
        let words =
            ["--map", "a=b", "--map", "c=", "--restart-from", "a,d", "e", "--var", "n=1", "--dry-run"];
        let Ok(Command::Upgrade(upgrade)) = with(&words).map(|read| read.command) else {
            panic!("no upgrade")
        };
        assert_eq!(upgrade.subject, TaskOrRun::Run(RunId(5)));
        assert_eq!(upgrade.run.map, [("a".to_owned(), Some("b".to_owned())), ("c".to_owned(), None)]);
        assert_eq!((upgrade.run.restart_from.len(), upgrade.run.variables.vars.len()), (3, 1));
        for other in [&["--shell", "x"][..], &["--title", "x"], &["--from-beginning"], &["--", "make"]] {
            assert!(with(other).is_err(), "{other:?}");
        }
        for alone in [&["--map", "a=b"][..], &["--restart-from", "a"], &["--dry-run"]] {
            assert!(parse(&[&["upgrade", "run:5"], alone].concat()).is_err(), "{alone:?}");
        }
    }
}

//! The part of the command line that is about workflows, runs and relationships.

use std::time::Duration;

use agentflow_core::ids::{RunId, TaskId};
use agentflow_core::limits;
use agentflow_core::relation::Relation;
use agentflow_core::run::RunStatus;
use clap::{Args, Subcommand, ValueEnum};
use serde_json::Value;

use super::values::{duration, run_id, run_status, task_id, variable};
use super::{TaskFlags, WaitFlags};

#[derive(Debug, Args)]
#[command(
    subcommand_negates_reqs = true,
    disable_help_subcommand = true,
    override_usage = "agentflow run [OPTIONS] FILE|JSON\n       agentflow run --resume RUN\n       agentflow run get|pause|resume|cancel|rerun|why RUN"
)]
#[command(group = clap::ArgGroup::new("what").required(true).args(["list", "resume"]))]
pub(crate) struct Run {
    #[command(subcommand)]
    pub(crate) act: Option<RunAct>,
    /// A workflow file, a JSON array of commands, or a file of commands; - is standard input
    #[arg(value_name = "FILE|JSON")]
    pub(crate) list: Option<String>,
    /// Go on with an interrupted run, or follow the run of this number
    #[arg(long, value_name = "RUN")]
    pub(crate) resume: Option<String>,
    #[command(flatten)]
    pub(crate) variables: Variables,
    /// Show the tree even where standard output is no terminal, on standard error
    #[arg(long)]
    pub(crate) watch: bool,
    /// Hand a workflow in and do not wait; prints the run's number
    #[arg(long, conflicts_with_all = ["watch", "timeout", "embedded", "resume", "logs", "exit_code"])]
    pub(crate) detach: bool,
    /// Give up waiting after so long (exit code 124)
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) timeout: Option<Duration>,
    /// Stop each attempt after so long
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) task_timeout: Option<Duration>,
    /// Tasks at once, where this command starts the worker [default: the number of cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(limits::SLOTS)))]
    pub(crate) slots: Option<u32>,
    /// Start an own master even if one answers at the default address
    #[arg(long, conflicts_with = "master")]
    pub(crate) embedded: bool,
    #[command(flatten)]
    pub(crate) wait: WaitFlags,
    #[command(flatten)]
    pub(crate) task: TaskFlags,
}

/// What can be done with a run that is there.
#[derive(Debug, Subcommand)]
pub(crate) enum RunAct {
    /// Show a run and its nodes
    Get(OneRun),
    /// Start nothing new in runs; what runs may finish
    Pause(SomeRuns),
    /// Let paused runs go on
    Resume(SomeRuns),
    /// Stop what runs in runs, and never begin the rest
    Cancel(SomeRuns),
    /// Run a part of a run again: what failed, or named nodes, and everything after
    Rerun(Rerun),
    /// Say why a run does not go on
    Why(OneRun),
}

#[derive(Debug, Args)]
pub(crate) struct Rerun {
    #[command(flatten)]
    pub(crate) run: OneRun,
    /// These nodes and everything after them [default: those that failed or were cancelled]
    #[arg(long, value_name = "NODE", num_args = 1.., value_delimiter = ',')]
    pub(crate) from: Vec<String>,
    /// Only show what would run again
    #[arg(long)]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) variables: Variables,
}

#[derive(Debug, Args)]
pub(crate) struct Fork {
    #[command(flatten)]
    pub(crate) run: OneRun,
    /// These nodes and everything after them run again, besides what failed or was cancelled
    #[arg(long, value_name = "NODE", num_args = 1.., value_delimiter = ',')]
    pub(crate) from: Vec<String>,
    #[command(flatten)]
    pub(crate) variables: Variables,
}

#[derive(Debug, Args)]
pub(crate) struct OneRun {
    /// The run's number
    #[arg(value_name = "RUN", value_parser = run_id)]
    pub(crate) id: RunId,
}

#[derive(Debug, Args)]
pub(crate) struct SomeRuns {
    /// The run's number
    #[arg(value_name = "RUN", value_parser = run_id, required = true)]
    pub(crate) ids: Vec<RunId>,
}

/// What a workflow is given.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct Variables {
    /// Put over the workflow's vars; JSON or text; may be repeated
    #[arg(long = "var", value_name = "KEY=VALUE", value_parser = variable)]
    pub(crate) vars: Vec<(String, Value)>,
    /// A file of vars, YAML or JSON; --var goes before it
    #[arg(long, value_name = "FILE")]
    pub(crate) vars_file: Option<String>,
    /// What expressions see as inputs: JSON, or @FILE
    #[arg(long, value_name = "JSON|@FILE")]
    pub(crate) input: Option<String>,
}

impl Variables {
    /// Whether nothing is given.
    pub(crate) fn is_empty(&self) -> bool {
        self.vars.is_empty() && self.vars_file.is_none() && self.input.is_none()
    }
}

#[derive(Debug, Args)]
pub(crate) struct Runs {
    /// pending, running, paused, completed, failed, cancelled; several with commas
    #[arg(long, value_name = "STATUS", value_parser = run_status, value_delimiter = ',')]
    pub(crate) status: Vec<RunStatus>,
    /// At most so many, the newest first
    #[arg(long, value_name = "N", default_value_t = 50)]
    pub(crate) limit: usize,
}

#[derive(Debug, Args)]
pub(crate) struct Validate {
    /// A workflow file, YAML or JSON; - is standard input
    #[arg(value_name = "FILE")]
    pub(crate) file: String,
    #[command(flatten)]
    pub(crate) variables: Variables,
}

#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("what").required(true).args(["file", "tasks", "group"]))]
pub(crate) struct Plan {
    /// A workflow file, YAML or JSON; - is standard input
    #[arg(value_name = "FILE")]
    pub(crate) file: Option<String>,
    #[command(flatten)]
    pub(crate) variables: Variables,
    /// Of these tasks at the master
    #[arg(long, value_name = "ID", value_parser = task_id, num_args = 1.., value_delimiter = ',')]
    pub(crate) tasks: Vec<TaskId>,
    /// Of this group's tasks at the master that are not settled
    #[arg(long, value_name = "NAME")]
    pub(crate) group: Option<String>,
    /// For tasks at the master: sequential, parallel, dag (default), pipeline, conditional
    #[arg(long, value_name = "MODE", conflicts_with = "file")]
    pub(crate) mode: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Graph {
    /// A workflow file, or a run's number
    #[arg(value_name = "FILE|RUN")]
    pub(crate) what: String,
    /// As lines of text, or as a Mermaid flowchart
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub(crate) format: GraphFormat,
    #[command(flatten)]
    pub(crate) variables: Variables,
}

/// How a graph is drawn.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum GraphFormat {
    /// Levels, one task a line
    Text,
    /// A flowchart for Markdown pages
    Mermaid,
}

/// What there are schemas of.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum What {
    /// Workflow files
    Workflow,
}

#[derive(Debug, Args)]
pub(crate) struct SomeTasks {
    /// 5, or TASK-00000005
    #[arg(value_name = "TASK", value_parser = task_id, required = true)]
    pub(crate) ids: Vec<TaskId>,
}

#[derive(Debug, Args)]
pub(crate) struct Reject {
    #[command(flatten)]
    pub(crate) tasks: SomeTasks,
    /// Why, for people
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Relate {
    /// The task that comes first
    #[arg(value_name = "BEFORE", value_parser = task_id)]
    pub(crate) before: TaskId,
    /// The task that comes after it
    #[arg(value_name = "AFTER", value_parser = task_id)]
    pub(crate) after: TaskId,
    /// dependency, context, sequential, parallel or upgrade
    #[arg(long = "type", value_name = "TYPE", default_value = "dependency")]
    pub(crate) relation: Relation,
}

#[cfg(test)]
mod tests {
    use super::super::Command;
    use super::*;

    fn parse(words: &[&str]) -> Result<Command, clap::Error> {
        super::super::parse(words).map(|arguments| arguments.command)
    }

    fn run(words: &[&str]) -> Run {
        match parse(words) {
            Ok(Command::Run(run)) => *run,
            other => panic!("{words:?}: {other:?}"),
        }
    }

    #[test]
    fn a_list_or_a_run_to_resume_but_not_both() {
        assert!(parse(&["run", "[]"]).is_ok());
        assert!(parse(&["run", "--resume", "ab12"]).is_ok());
        assert!(parse(&["run", "-"]).is_ok(), "standard input");
        assert!(parse(&["run", "--no-such-flag"]).is_err());
        assert!(parse(&["run"]).is_err());
        assert!(parse(&["run", "[]", "--resume", "ab12"]).is_err());
        assert!(parse(&["run", "ci.yaml", "--detach", "--watch"]).is_err());
    }

    #[test]
    fn a_word_after_run_is_a_file_unless_it_says_what_to_do() {
        assert_eq!(run(&["run", "./get"]).list.as_deref(), Some("./get"));
        assert_eq!(run(&["run", "help"]).list.as_deref(), Some("help"));
        let get = run(&["run", "get", "5"]);
        assert!(matches!(get.act, Some(RunAct::Get(OneRun { id: RunId(5) }))), "{get:?}");
        assert!(matches!(run(&["--json", "run", "why", "5"]).act, Some(RunAct::Why(_))));
        assert!(matches!(run(&["run", "--json", "why", "5"]).act, Some(RunAct::Why(_))));
        assert!(matches!(run(&["run", "cancel", "5", "6", "--json"]).act, Some(RunAct::Cancel(_))));
        let rerun = run(&["run", "rerun", "5", "--from", "a,b", "c", "--dry-run", "--var", "n=2"]);
        assert!(
            matches!(&rerun.act, Some(RunAct::Rerun(again)) if again.from == ["a", "b", "c"]),
            "{rerun:?}"
        );
        let Ok(Command::Fork(fork)) = parse(&["fork", "5", "--from", "a,b", "--var", "n=2"]) else {
            panic!("no fork")
        };
        assert_eq!((fork.run.id, fork.from.len(), fork.variables.vars.len()), (RunId(5), 2, 1));
        assert!(parse(&["run", "get"]).is_err(), "which run?");
        assert!(parse(&["run", "get", "five"]).is_err());
        let both = run(&["run", "ci.yaml", "get", "5"]);
        assert!(both.act.is_some() && both.list.is_some(), "refused when it is executed: {both:?}");
    }

    #[test]
    fn variables_keep_their_order() {
        let run = run(&["run", "ci.yaml", "--var", "n=1", "--var", "s=x", "--input", "[1]"]);
        assert_eq!(run.variables.vars, [("n".to_owned(), 1.into()), ("s".to_owned(), "x".into())]);
        assert!(!run.variables.is_empty());
        assert!(parse(&["run", "ci.yaml", "--var", "n"]).is_err());
    }

    #[test]
    fn plans_are_of_a_file_or_of_tasks() {
        assert!(parse(&["plan", "ci.yaml", "--var", "n=1"]).is_ok());
        assert!(parse(&["plan", "--tasks", "1,2"]).is_ok());
        assert!(parse(&["plan", "--group", "gpu", "--mode", "parallel"]).is_ok());
        assert!(parse(&["plan"]).is_err());
        assert!(parse(&["plan", "ci.yaml", "--tasks", "1"]).is_err());
    }

    #[test]
    fn what_a_task_needs_comes_before_two_dashes() {
        let Ok(Command::Submit(submit)) = parse(&["submit", "--hold", "--needs", "1", "2,3", "--", "make"])
        else {
            panic!("no submit")
        };
        assert_eq!((submit.needs, submit.hold), (vec![TaskId(1), TaskId(2), TaskId(3)], true));
        assert!(parse(&["relate", "1", "2", "--type", "before"]).is_err());
        assert!(parse(&["relate", "1", "2"]).is_ok());
        assert!(parse(&["approve"]).is_err());
    }
}

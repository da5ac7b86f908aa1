//! The part of the command line that is about the files that tasks leave.

use std::path::PathBuf;

use agentflow_core::ids::{RunId, TaskId};
use clap::{Args, Subcommand};

use super::values::{run_id, task_id};

/// What can be done with artifacts.
#[derive(Debug, Subcommand)]
pub(crate) enum ArtifactsAct {
    /// List the files of a task or of a run
    #[command(visible_alias = "ls")]
    List(Whose),
    /// Write one file here
    Get(GetArtifact),
    /// Write all files of a task or of a run into a directory
    Download(Download),
}

/// Whose files.
#[derive(Clone, Copy, Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Whose {
    /// The task
    #[arg(value_name = "TASK", value_parser = task_id)]
    pub(crate) task: Option<TaskId>,
    /// Instead of a task, all tasks of this run
    #[arg(long, value_name = "RUN", value_parser = run_id)]
    pub(crate) run: Option<RunId>,
}

#[derive(Debug, Args)]
pub(crate) struct GetArtifact {
    /// The file's number, as `agentflow artifacts list` shows it
    #[arg(value_name = "ID", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) id: u64,
    /// Where to write it; - is standard output [default: its own name, here]
    #[arg(long, short, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Download {
    #[command(flatten)]
    pub(crate) whose: Whose,
    /// The directory; of a run, each task's files are in a directory of its name
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub(crate) to: PathBuf,
}

#[cfg(test)]
mod tests {
    use super::super::Command;
    use super::*;

    fn parse(words: &[&str]) -> Option<ArtifactsAct> {
        match super::super::parse(&[&["artifacts"], words].concat()).ok()?.command {
            Command::Artifacts { act } => Some(act),
            _ => None,
        }
    }

    #[test]
    fn files_are_those_of_a_task_or_of_a_run() {
        let whose = |words: &[&str]| match parse(words) {
            Some(ArtifactsAct::List(Whose { task, run })) => Some((task, run)),
            _ => None,
        };
        assert_eq!(whose(&["list", "TASK-5"]), Some((Some(TaskId(5)), None)));
        assert_eq!(whose(&["ls", "--run", "3"]), Some((None, Some(RunId(3)))));
        assert_eq!(whose(&["list"]), None);
        assert_eq!(whose(&["list", "5", "--run", "3"]), None);
        assert!(matches!(
            parse(&["get", "7", "-o", "-"]),
            Some(ArtifactsAct::Get(GetArtifact { id: 7, .. }))
        ));
        assert!(parse(&["get", "0"]).is_none());
        assert!(matches!(parse(&["download", "5", "--to", "x"]), Some(ArtifactsAct::Download(_))));
    }
}

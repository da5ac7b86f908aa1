//! The part of the command line that is about schedules.

use agentflow_core::batch::CatchUp;
use clap::{Args, Subcommand, ValueEnum};

use super::Variables;

/// What can be done with schedules.
#[derive(Debug, Subcommand)]
pub(crate) enum SchedulesAct {
    /// Make a schedule, or put another in the place of one
    Set(Box<SetSchedule>),
    /// Have a schedule wait
    Pause(OneSchedule),
    /// Have it go on
    Resume(OneSchedule),
    /// Begin what it begins now, beside its times
    Trigger(OneSchedule),
    /// Take it away; what it has begun goes on
    Remove(OneSchedule),
}

#[derive(Debug, Args)]
pub(crate) struct OneSchedule {
    /// The schedule's name
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
}

#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("work").required(true).args(["file", "shell", "argv"]))]
pub(crate) struct SetSchedule {
    #[command(flatten)]
    pub(crate) schedule: OneSchedule,
    /// A workflow file, YAML or JSON; - is standard input
    #[arg(value_name = "FILE")]
    pub(crate) file: Option<String>,
    /// Instead of a workflow, a line for /bin/sh
    #[arg(long, value_name = "LINE")]
    pub(crate) shell: Option<String>,
    /// Instead of a workflow, a program and its arguments, after `--`
    #[arg(last = true, value_name = "ARGV")]
    pub(crate) argv: Vec<String>,
    /// Minute hour day month weekday, such as "30 6 * * MON-FRI"; with seconds first; or @daily
    #[arg(long, value_name = "CRON")]
    pub(crate) cron: String,
    /// An IANA time zone, such as Europe/Berlin [default: UTC]
    #[arg(long, value_name = "ZONE")]
    pub(crate) timezone: Option<String>,
    /// What happens to times that passed while no master was there
    #[arg(long, value_name = "WHAT", default_value = "skip")]
    pub(crate) catch_up: Missed,
    #[command(flatten)]
    pub(crate) variables: Variables,
}

/// What becomes of times that passed while no master was there.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Missed {
    /// They are left out
    Skip,
    /// One of them is made up for
    Once,
    /// Each of them is made up for
    All,
}

impl From<Missed> for CatchUp {
    fn from(missed: Missed) -> Self {
        match missed {
            Missed::Skip => Self::Skip,
            Missed::Once => Self::Once,
            Missed::All => Self::All,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Command;
    use super::*;

    fn parse(words: &[&str]) -> Result<Command, clap::Error> {
        super::super::parse(words).map(|arguments| arguments.command)
    }

    #[test]
    fn a_schedule_is_of_a_file_or_of_one_task() {
        let set = |words: &[&str]| match parse(&[&["schedules", "set", "nightly"], words].concat()) {
            Ok(Command::Schedules { act: Some(SchedulesAct::Set(set)) }) => Some(set),
            _ => None,
        };
        let of_file = set(&["ci.yaml", "--cron", "@daily", "--var", "n=1"]).expect("a schedule");
        assert_eq!((of_file.file.as_deref(), of_file.catch_up), (Some("ci.yaml"), Missed::Skip));
        let of_task = set(&["--cron", "0 3 * * *", "--catch-up", "once", "--", "make", "test"]);
        assert_eq!(of_task.map(|set| (set.argv.len(), set.catch_up)), Some((2, Missed::Once)));
        assert!(set(&["ci.yaml"]).is_none(), "when?");
        assert!(set(&["--cron", "@daily"]).is_none(), "what?");
        assert!(set(&["ci.yaml", "--cron", "@daily", "--shell", "make"]).is_none(), "which?");
    }
}

//! Values on the command line: read and checked as far as that needs no master.

use std::path::PathBuf;
use std::time::Duration;

use agentflow_core::ids::{RunId, TaskId};
use agentflow_core::lock::{LockId, LockMode, Repository};
use agentflow_core::run::RunStatus;
use agentflow_protocol::submit::Priority;
use clap::ValueEnum;
use serde_json::Value;
use serde_json::value::{RawValue, to_raw_value};

/// The units of a duration on the command line, in milliseconds.
#[derive(Clone, Copy, ValueEnum)]
enum Unit {
    Ms,
    S,
    M,
    H,
    D,
}

/// Reads `500ms`, `30s`, `5m`, `2h`, `1d`; a bare number is seconds.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("'{text}' is no time; allowed: 500ms, 30s, 5m, 2h, 1d, or a number of seconds");
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let number: f64 = number.parse().map_err(|_| wrong())?;
    let unit = if unit.is_empty() { Unit::S } else { Unit::from_str(unit, false).map_err(|_| wrong())? };
    let ms = match unit {
        Unit::Ms => 1.0,
        Unit::S => 1_000.0,
        Unit::M => 60_000.0,
        Unit::H => 3_600_000.0,
        Unit::D => 86_400_000.0,
    };
    Duration::try_from_secs_f64(number * ms / 1_000.0).map_err(|_| wrong())
}

/// How long something is held.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Term {
    /// So long.
    For(Duration),
    /// Until it is given back.
    Endless,
}

/// Reads a duration, or `none`.
pub(super) fn term(text: &str) -> Result<Term, String> {
    if text == "none" { Ok(Term::Endless) } else { duration(text).map(Term::For) }
}

pub(super) fn repository(text: &str) -> Result<Repository, String> {
    Repository::new(text).map_err(|error| error.to_string())
}

pub(super) fn lock_id(text: &str) -> Result<LockId, String> {
    text.parse().map_err(str::to_owned)
}

/// Reads `PATH`, `PATH:read` or `PATH:write`.
pub(super) fn path_and_mode(text: &str) -> Result<(PathBuf, LockMode), String> {
    let (path, mode) = match text.rsplit_once(':') {
        Some((path, "read")) => (path, LockMode::Read),
        Some((path, "write")) => (path, LockMode::Write),
        Some((_, mode)) if !mode.is_empty() && mode.chars().all(|letter| letter.is_ascii_alphabetic()) => {
            return Err(format!(
                "'{mode}' is no mode; allowed: read, write (a path that ends so: '{text}:write')"
            ));
        }
        _ => (text, LockMode::Write),
    };
    if path.is_empty() { Err("a path is missing".to_owned()) } else { Ok((path.into(), mode)) }
}

pub(super) fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(format!("'{text}' is no KEY=VALUE")),
    }
}

pub(super) fn task_id(text: &str) -> Result<TaskId, String> {
    text.parse().map_err(|_| format!("'{text}' is no task id; write 5 or TASK-00000005"))
}

pub(super) fn priority(text: &str) -> Result<Priority, String> {
    let priority = text.parse().map_or_else(|_| Priority::Name(text.to_owned()), Priority::Number);
    priority.number()?;
    Ok(priority)
}

pub(super) fn subject(text: &str) -> Result<String, String> {
    use agentflow_core::event::Subject;
    text.parse::<Subject>().map(|subject| subject.to_string())
}

pub(super) fn run_id(text: &str) -> Result<RunId, String> {
    let wrong = || format!("'{text}' is no run; write its number, such as 5");
    text.parse().ok().filter(|id| *id > 0).map(RunId).ok_or_else(wrong)
}

/// A task or a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum TaskOrRun {
    /// `5`, `TASK-00000005`, `task:5`
    Task(TaskId),
    /// `run:5`
    Run(RunId),
}

pub(super) fn task_or_run(text: &str) -> Result<TaskOrRun, String> {
    match text.split_once(':') {
        Some(("run", id)) => run_id(id).map(TaskOrRun::Run),
        Some(("task", id)) => task_id(id).map(TaskOrRun::Task),
        _ => task_id(text)
            .map(TaskOrRun::Task)
            .map_err(|_| format!("'{text}' is neither a task nor a run; write 5, TASK-00000005 or run:5")),
    }
}

/// Reads `NEW=OLD`: names of nodes; without `OLD` none of the old ones.
pub(super) fn same_node(text: &str) -> Result<(String, Option<String>), String> {
    match text.split_once('=') {
        Some((new, old)) if !new.is_empty() => {
            Ok((new.to_owned(), Some(old.to_owned()).filter(|old| !old.is_empty())))
        }
        _ => Err(format!("'{text}' is no NEW=OLD; write two names of nodes, or NEW= for a new one")),
    }
}

/// Reads `10/1m`: so many in that time.
pub(super) fn rate(text: &str) -> Result<(u32, Duration), String> {
    let wrong = || format!("'{text}' is no rate; write how many in which time, such as 10/1m");
    let (count, time) = text.split_once('/').ok_or_else(wrong)?;
    let count = count.parse().ok().filter(|count| *count > 0).ok_or_else(wrong)?;
    Ok((count, duration(time)?))
}

pub(super) fn run_status(text: &str) -> Result<RunStatus, String> {
    text.parse()
}

/// Reads `KEY=VALUE`: the value is JSON where it is a number, true, false, null, a list or an object,
/// and text otherwise.
pub(super) fn variable(text: &str) -> Result<(String, Value), String> {
    let (key, text) = key_value(text)?;
    Ok((key, value_of(&text)))
}

/// Reads a value by the same rule; JSON stays as it is written.
pub(super) fn value(text: &str) -> Result<Box<RawValue>, serde_json::Error> {
    match value_of(text) {
        Value::String(text) => to_raw_value(&text),
        _ => serde_json::from_str(text),
    }
}

fn value_of(text: &str) -> Value {
    let read = serde_json::from_str(text).ok().filter(|read| !matches!(read, Value::String(_)));
    read.unwrap_or_else(|| Value::from(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let ms = |text| duration(text).map(|time| time.as_millis());
        assert_eq!(
            [ms("500ms"), ms("30s"), ms("1.5m"), ms("7")],
            [Ok(500), Ok(30_000), Ok(90_000), Ok(7_000)]
        );
        assert!(ms("soon").is_err() && ms("-1s").is_err() && ms("").is_err() && ms("5w").is_err());
    }

    #[test]
    fn variables_are_json_or_text() {
        let check = |text: &str, key: &str, value: Value| {
            assert_eq!(variable(text), Ok((key.to_owned(), value)), "{text}");
        };
        check("n=1", "n", 1.into());
        check("n=-1.5", "n", serde_json::json!(-1.5));
        check("on=true", "on", true.into());
        check("no=null", "no", Value::Null);
        check("list=[1, \"a\"]", "list", serde_json::json!([1, "a"]));
        check("map={\"a\": 1}", "map", serde_json::json!({"a": 1}));
        check("text=a=b", "text", "a=b".into());
        check("quoted=\"1\"", "quoted", "\"1\"".into());
        check("version=1.2.3", "version", "1.2.3".into());
        check("empty=", "empty", "".into());
        assert!(variable("=x").is_err() && variable("x").is_err());
    }

    #[test]
    fn a_path_is_locked_for_writing_unless_it_says_otherwise() {
        let read = |text: &str| path_and_mode(text).map(|(path, mode)| (path.display().to_string(), mode));
        assert_eq!(read("src/**"), Ok(("src/**".to_owned(), LockMode::Write)));
        assert_eq!(read("docs:read"), Ok(("docs".to_owned(), LockMode::Read)));
        assert_eq!(read("a:b:write"), Ok(("a:b".to_owned(), LockMode::Write)));
        assert!(read(":read").is_err());
        assert!(read("docs:raed").is_err_and(|why| why.contains("allowed: read, write")));
        assert_eq!(read("a:1"), Ok(("a:1".to_owned(), LockMode::Write)));
    }

    #[test]
    fn a_number_alone_is_a_task() {
        assert_eq!(task_or_run("5"), Ok(TaskOrRun::Task(TaskId(5))));
        assert_eq!(task_or_run("TASK-00000005"), Ok(TaskOrRun::Task(TaskId(5))));
        assert_eq!(task_or_run("task:5"), Ok(TaskOrRun::Task(TaskId(5))));
        assert_eq!(task_or_run("run:5"), Ok(TaskOrRun::Run(RunId(5))));
        for wrong in ["run", "run:", "run:0", "worker:5", "x"] {
            assert!(task_or_run(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_node_is_an_old_one_or_none() {
        assert_eq!(same_node("a=b"), Ok(("a".to_owned(), Some("b".to_owned()))));
        assert_eq!(same_node("a="), Ok(("a".to_owned(), None)));
        assert!(same_node("a").is_err() && same_node("=a").is_err());
    }

    #[test]
    fn runs_are_numbered_from_one() {
        assert_eq!(run_id("5"), Ok(RunId(5)));
        assert!(run_id("0").is_err() && run_id("x").is_err());
    }
}

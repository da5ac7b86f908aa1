//! Reading a plain list of work: from the command line, a JSON text, or a text with one command
//! per line. Pure.
//!
//! A list is a JSON array whose entries are commands (strings, for `/bin/sh -c`) or task objects;
//! `{"tasks": […]}` and a single task object mean the same.

use std::time::Duration;

use agentflow_core::limits;
use agentflow_core::spec::OnDisconnect;
use agentflow_protocol::problem::{Problem, read_json};
use agentflow_protocol::submit::{
    ResourcesBody, RetryBody, Sources, TaskBody, TaskRef, WorktreeAt, WorktreeBody,
};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::args::TaskFlags;
use crate::error::Error;

/// Reads the text of a list and checks every task, so that nothing is sent if one is wrong.
///
/// # Errors
/// `Usage`, naming the entry and the field; `name` is the file, for the message.
pub(crate) fn parse(text: &str, name: &str) -> Result<Vec<TaskBody>, Error> {
    let trimmed = text.trim_start();
    let tasks = if trimmed.starts_with('[') {
        from_array(trimmed, name)?
    } else if trimmed.starts_with('{') {
        from_object(trimmed, name)?
    } else if is_json_name(name) {
        return Err(Error::Usage(format!("{name}: is no JSON array or object")));
    } else {
        from_lines(text)
    };
    if tasks.is_empty() {
        return Err(Error::Usage(format!("{name}: no commands in it")));
    }
    Ok(tasks)
}

/// Checks the tasks as the master will.
///
/// # Errors
/// `Usage` with every bad field of the first bad task.
pub(crate) fn check(tasks: &[TaskBody], name: &str) -> Result<(), Error> {
    for (index, task) in tasks.iter().enumerate() {
        let at = if tasks.len() == 1 { String::new() } else { format!("/{index}") };
        if let Err(errors) = task.clone().check(&at) {
            let lines: Vec<_> =
                errors.iter().map(|error| format!("{name}: {}: {}", error.pointer, error.detail)).collect();
            return Err(Error::Usage(lines.join("\n")));
        }
    }
    Ok(())
}

fn is_json_name(name: &str) -> bool {
    std::path::Path::new(name).extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json"))
}

fn from_array(text: &str, name: &str) -> Result<Vec<TaskBody>, Error> {
    let entries: Vec<Box<RawValue>> =
        read_json(text.as_bytes()).map_err(|problem| wrong(name, "", &problem))?;
    entries.iter().enumerate().map(|(index, raw)| entry(raw, name, &format!("/{index}"))).collect()
}

fn from_object(text: &str, name: &str) -> Result<Vec<TaskBody>, Error> {
    #[derive(Deserialize)]
    struct Shape {
        tasks: Option<Box<RawValue>>,
        version: Option<serde_json::Value>,
    }
    let shape: Shape = read_json(text.as_bytes()).map_err(|problem| wrong(name, "", &problem))?;
    match shape.tasks {
        Some(tasks) if shape.version.is_none() && tasks.get().starts_with('[') => {
            from_array(tasks.get(), name)
        }
        Some(_) => Err(Error::Usage(format!(
            "{name}: looks like a workflow; this version runs plain lists: an array of commands or tasks"
        ))),
        None => {
            let task = read_json(text.as_bytes()).map_err(|problem| wrong(name, "", &problem))?;
            Ok(vec![task])
        }
    }
}

fn entry(raw: &RawValue, name: &str, at: &str) -> Result<TaskBody, Error> {
    let text = raw.get();
    match text.as_bytes().first() {
        Some(b'"') => {
            let command: String =
                serde_json::from_str(text).map_err(|error| Error::Usage(format!("{name}: {at}: {error}")))?;
            if command.trim().is_empty() {
                return Err(Error::Usage(format!("{name}: {at}: an empty command")));
            }
            Ok(shell(command))
        }
        Some(b'{') => read_json(text.as_bytes()).map_err(|problem| wrong(name, at, &problem)),
        _ => Err(Error::Usage(format!("{name}: {at}: expected a command (a string) or a task (an object)"))),
    }
}

fn wrong(name: &str, at: &str, problem: &Problem) -> Error {
    let field = problem.errors.first().map_or("", |error| error.pointer.as_str());
    let detail = problem.errors.first().map_or(&problem.detail, |error| &error.detail);
    let place = format!("{at}{field}");
    let place = if place.is_empty() { String::new() } else { format!("{place}: ") };
    Error::Usage(format!("{name}: {place}{detail}"))
}

/// One command per line; `#` begins a comment line; a line that ends in `\` goes on in the next.
fn from_lines(text: &str) -> Vec<TaskBody> {
    let mut tasks = Vec::new();
    let mut open = String::new();
    for line in text.lines() {
        if open.is_empty() && (line.trim().is_empty() || line.trim_start().starts_with('#')) {
            continue;
        }
        if let Some(begun) = line.strip_suffix('\\') {
            open.push_str(begun);
            continue;
        }
        open.push_str(line);
        tasks.push(shell(std::mem::take(&mut open).trim().to_owned()));
    }
    if !open.trim().is_empty() {
        tasks.push(shell(open.trim().to_owned()));
    }
    tasks
}

/// A task that runs this line.
pub(crate) fn shell(command: String) -> TaskBody {
    TaskBody { kind: Some("shell".to_owned()), command: Some(command), ..TaskBody::default() }
}

/// Fills what the task leaves out from the flags; labels and variables are joined.
pub(crate) fn apply(task: &mut TaskBody, flags: &TaskFlags, timeout: Option<Duration>) {
    task.group = task.group.take().or_else(|| flags.group.clone());
    task.priority = task.priority.take().or_else(|| flags.priority.clone());
    for (key, value) in &flags.labels {
        task.labels.get_or_insert_default().entry(key.clone()).or_insert_with(|| value.clone());
    }
    for (key, value) in &flags.env {
        task.env.get_or_insert_default().entry(key.clone()).or_insert_with(|| value.clone());
    }
    if flags.retry.is_some() || flags.backoff.is_some() {
        let retry = task.retry.get_or_insert_with(RetryBody::default);
        retry.max = retry.max.or(flags.retry);
        retry.backoff_ms = retry.backoff_ms.or(flags.backoff.map(milliseconds));
    }
    if flags.cpus.is_some() || flags.memory_mb.is_some() {
        task.resources.get_or_insert_with(|| ResourcesBody {
            cpus: flags.cpus.unwrap_or_default(),
            memory_mb: flags.memory_mb.unwrap_or_default(),
            ..ResourcesBody::default()
        });
    }
    task.timeout_ms = task.timeout_ms.or(timeout.map(milliseconds));
    task.idle_timeout_ms = task.idle_timeout_ms.or(flags.idle_timeout.map(milliseconds));
    task.queue_timeout_ms = task.queue_timeout_ms.or(flags.queue_timeout.map(milliseconds));
    task.cancel_grace_ms = task
        .cancel_grace_ms
        .or(flags.cancel_grace.map(|grace| u32::try_from(grace.as_millis()).unwrap_or(u32::MAX)));
    if !flags.artifacts.is_empty() {
        task.artifacts.get_or_insert_with(|| flags.artifacts.clone());
    }
    task.checkpoint_file = task.checkpoint_file.take().or_else(|| flags.checkpoint_file.clone());
    if let (None, Some(base)) = (&task.worktree, &flags.worktree) {
        let base = Some(base.clone()).filter(|base| !base.is_empty());
        task.worktree = Some(WorktreeBody::At(WorktreeAt { base }));
    }
    if !flags.artifacts_from.is_empty() {
        let from = || flags.artifacts_from.iter().map(|id| TaskRef::Number(id.0)).collect();
        task.artifacts_from.get_or_insert_with(|| Sources::Numbered(from()));
    }
    // Whoever wants a worktree and says no more means the repository that they are in.
    let here = || {
        flags
            .worktree
            .as_ref()
            .and_then(|_| std::env::current_dir().ok()?.into_os_string().into_string().ok())
    };
    task.workdir = task.workdir.take().or_else(|| flags.workdir.clone()).or_else(here);
    task.on_disconnect = task.on_disconnect.or(match flags.on_disconnect.as_deref() {
        Some("stop") => Some(OnDisconnect::Stop),
        Some(_) => Some(OnDisconnect::Keep),
        None => None,
    });
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// What to call a task in a line of output.
pub(crate) fn headline(task: &TaskBody) -> String {
    let text = task
        .title
        .clone()
        .or_else(|| task.command.clone())
        .or_else(|| task.argv.as_ref().map(|argv| argv.join(" ")))
        .or_else(|| task.path.clone())
        .or_else(|| task.name.clone())
        .or_else(|| task.description.clone())
        .or_else(|| task.kind.clone())
        .unwrap_or_default();
    text.lines().next().unwrap_or_default().chars().filter(|c| !c.is_control()).take(80).collect()
}

/// The tasks in the portions in which they may be sent: by number and by size.
pub(crate) fn portions(tasks: &[TaskBody]) -> Vec<&[TaskBody]> {
    // Half of what a body may hold, for the brackets and for what escaping adds.
    const BYTES: usize = limits::LARGE_BODY_BYTES / 2;
    let mut portions = Vec::new();
    let (mut start, mut bytes) = (0, 0);
    for (index, task) in tasks.iter().enumerate() {
        let size = serde_json::to_vec(task).map_or(0, |text| text.len());
        if index > start && (index - start == limits::TASKS_PER_SUBMISSION || bytes + size > BYTES) {
            portions.extend(tasks.get(start..index));
            (start, bytes) = (index, 0);
        }
        bytes += size;
    }
    portions.extend(tasks.get(start..).filter(|rest| !rest.is_empty()));
    portions
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commands(text: &str, name: &str) -> Result<Vec<String>, String> {
        parse(text, name).map(|tasks| tasks.iter().map(headline).collect()).map_err(|error| error.to_string())
    }

    #[test]
    fn strings_and_objects() {
        assert_eq!(
            commands(r#" ["echo a", {"title": "B", "kind": "exec", "argv": ["b"]}]"#, "l"),
            Ok(vec!["echo a".into(), "B".into()])
        );
        assert_eq!(commands(r#"{"tasks": ["a", "b"]}"#, "l"), Ok(vec!["a".into(), "b".into()]));
        assert_eq!(commands(r#"{"command": "a"}"#, "l"), Ok(vec!["a".into()]));
    }

    #[test]
    fn lines_with_comments() {
        let text = "# build first\n\nmake -j2\n  echo 'a # b'\ncat \\\n  file\n";
        assert_eq!(
            commands(text, "list.txt"),
            Ok(vec!["make -j2".into(), "echo 'a # b'".into(), "cat   file".into()])
        );
    }

    #[test]
    fn errors_name_the_entry_and_the_field() {
        let error = commands(r#"["a", {"command": "b", "colour": 1}]"#, "l.json").expect_err("unknown");
        assert!(error.starts_with("l.json: /1") && error.contains("colour"), "{error}");
        let error = commands(r#"["a", 5]"#, "l.json").expect_err("a number");
        assert!(error.contains("/1: expected a command"), "{error}");
        assert!(commands("[", "l").expect_err("broken").contains("no JSON"), "broken");
        assert!(commands("make", "l.json").is_err(), "a JSON file that is none");
        assert!(commands("[]", "l").expect_err("empty").contains("no commands"));
        assert!(commands("# nothing\n", "l").is_err());
        let error = commands(r#"{"version": 1, "tasks": {"a": {"run": "b"}}}"#, "w").expect_err("workflow");
        assert!(error.contains("workflow"), "{error}");
    }

    #[test]
    fn tasks_are_checked_before_anything_is_sent() {
        let tasks = parse(r#"["a", {"command": "b", "priority": 500}]"#, "l").expect("the form is right");
        let error = check(&tasks, "l").expect_err("out of range").to_string();
        assert!(error.contains("/1/priority"), "{error}");
    }

    #[test]
    fn flags_fill_what_is_left_out() {
        let flags = TaskFlags {
            group: Some("g".into()),
            retry: Some(2),
            env: vec![("A".into(), "flag".into()), ("B".into(), "flag".into())],
            ..TaskFlags::default()
        };
        let mut tasks =
            parse(r#"["a", {"command": "b", "group": "own", "env": {"A": "own"}}]"#, "l").expect("list");
        for task in &mut tasks {
            apply(task, &flags, Some(Duration::from_secs(3)));
        }
        assert_eq!(tasks[0].group.as_deref(), Some("g"));
        assert_eq!(tasks[1].group.as_deref(), Some("own"));
        assert_eq!(tasks[1].env.as_ref().expect("joined")["A"], "own");
        assert_eq!(tasks[1].env.as_ref().expect("joined")["B"], "flag");
        assert_eq!(tasks[1].retry.as_ref().and_then(|retry| retry.max), Some(2));
        assert_eq!(tasks[0].timeout_ms, Some(3_000));
    }

    #[test]
    fn the_shipped_examples_are_lists() {
        for (name, text) in [
            ("hello.json", include_str!("../../examples/hello.json")),
            ("hello.txt", include_str!("../../examples/hello.txt")),
        ] {
            let tasks = parse(text, name).expect("a list");
            check(&tasks, name).expect("sound tasks");
        }
    }

    #[test]
    fn portions_keep_to_the_limits() {
        let tasks = vec![shell("a".into()); limits::TASKS_PER_SUBMISSION * 2 + 1];
        let sizes: Vec<_> = portions(&tasks).iter().map(|portion| portion.len()).collect();
        assert_eq!(sizes, [limits::TASKS_PER_SUBMISSION, limits::TASKS_PER_SUBMISSION, 1]);
        let large = vec![shell("a".repeat(400 << 10)); 100];
        assert!(portions(&large).len() > 1);
        assert!(portions(&[]).is_empty());
    }

    #[test]
    fn a_worktree_is_of_the_repository_where_one_is() {
        let here = std::env::current_dir().expect("a directory").display().to_string();
        let workdir = |flags: &TaskFlags| {
            let mut task = shell("make".into());
            apply(&mut task, flags, None);
            task.workdir
        };
        let flags = TaskFlags { worktree: Some(String::new()), ..TaskFlags::default() };
        assert_eq!(workdir(&flags), Some(here));
        assert_eq!(
            workdir(&TaskFlags { workdir: Some("/other".into()), ..flags }).as_deref(),
            Some("/other")
        );
        assert_eq!(workdir(&TaskFlags::default()), None);
    }
}

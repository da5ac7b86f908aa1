//! Locks of tasks: which repository is meant where none is named. Where a task is handed in from a working
//! copy, it is the repository of that.

use std::path::{Path, PathBuf};

use agentflow_core::lock::{LockMode, LockPath};
use agentflow_protocol::locks::{PathAt, PathBody};
use agentflow_protocol::submit::{TaskBody, TaskLocks, TaskLocksAt, TaskLocksEntry};
use agentflow_workflow::Tree;

use crate::args::TaskFlags;
use crate::error::Error;
use crate::working_copy::WorkingCopy;

/// Fills what the tasks leave out: the locks of the flags, and the repository of all locks.
///
/// # Errors
/// When a path is none of the repository's, or the working copy does not say which repository it is.
pub(crate) fn apply(tasks: &mut [TaskBody], flags: &TaskFlags) -> Result<(), Error> {
    let is_needed = !flags.locks.is_empty() || tasks.iter_mut().any(|task| !homeless(task).is_empty());
    let copy = if is_needed { around()? } else { None };
    let given = of_flags(&flags.locks, copy.as_ref())?;
    for task in tasks {
        if task.locks.is_none() {
            task.locks.clone_from(&given);
        }
        let Some(copy) = &copy else { continue };
        for entry in homeless(task) {
            let mut at = match entry {
                TaskLocksEntry::Path(path) => {
                    TaskLocksAt { path: Some(path.clone()), ..TaskLocksAt::default() }
                }
                TaskLocksEntry::At(at) => (**at).clone(),
            };
            at.repo = Some(copy.repo.to_string());
            at.ignore_case |= copy.ignore_case;
            *entry = TaskLocksEntry::At(Box::new(at));
        }
    }
    Ok(())
}

/// Names the repository in the locks of a workflow's tasks that name none, and of those in it. Says
/// whether there are any, and a working copy that has a name. What is an expression as a whole is left.
///
/// # Errors
/// When the working copy does not say which repository it is.
pub(crate) fn name_repository(workflow: &mut Tree) -> Result<bool, Error> {
    let mut entries = Vec::new();
    collect(workflow, &mut entries);
    if entries.is_empty() {
        return Ok(false);
    }
    let Some(copy) = around()? else { return Ok(false) };
    for entry in entries {
        let mut fields = match std::mem::replace(entry, Tree::Null) {
            Tree::Map(fields) => fields,
            path => vec![("path".into(), path)],
        };
        fields.push(("repo".into(), Tree::String(copy.repo.as_str().into())));
        if copy.ignore_case && fields.iter().all(|(key, _)| &**key != "ignore_case") {
            fields.push(("ignore_case".into(), Tree::Bool(true)));
        }
        *entry = Tree::Map(fields);
    }
    Ok(true)
}

fn around() -> Result<Option<WorkingCopy>, Error> {
    let here =
        std::env::current_dir().map_err(|error| Error::io("cannot tell the current directory", error))?;
    WorkingCopy::around(&here)
}

/// The locks that the flags ask for.
fn of_flags(flags: &[(PathBuf, LockMode)], copy: Option<&WorkingCopy>) -> Result<Option<TaskLocks>, Error> {
    let path = |typed: &Path| match copy {
        Some(copy) => Ok(copy.path(typed)?),
        None => LockPath::new(&typed.to_string_lossy())
            .map_err(|error| Error::Usage(format!("--lock '{}': {error}", typed.display()))),
    };
    let body = |(typed, mode): &(PathBuf, LockMode)| {
        let path = path(typed)?;
        if path.is_everything() {
            eprintln!("agentflow: --lock '{path}' is everything: while it runs, nobody else can lock a file");
        }
        Ok(PathBody::At(PathAt { path: path.to_string(), mode: Some(*mode) }))
    };
    let paths = flags.iter().map(body).collect::<Result<Vec<_>, Error>>()?;
    let at = TaskLocksAt { paths: Some(paths), ..TaskLocksAt::default() };
    // A list: the maps of defaults are joined with those of a workflow.
    Ok((!flags.is_empty()).then(|| TaskLocks::Many(vec![TaskLocksEntry::At(Box::new(at))])))
}

/// The locks of a task that name no repository.
fn homeless(task: &mut TaskBody) -> Vec<&mut TaskLocksEntry> {
    let entries = match &mut task.locks {
        None => &mut [],
        Some(TaskLocks::One(entry)) => std::slice::from_mut(entry),
        Some(TaskLocks::Many(entries)) => entries.as_mut_slice(),
    };
    let is_homeless = |entry: &&mut TaskLocksEntry| match &**entry {
        TaskLocksEntry::Path(_) => true,
        TaskLocksEntry::At(at) => at.repo.is_none(),
    };
    entries.iter_mut().filter(is_homeless).collect()
}

/// The same in a workflow.
fn collect<'a>(workflow: &'a mut Tree, found: &mut Vec<&'a mut Tree>) {
    let Tree::Map(entries) = workflow else { return };
    for (key, value) in entries {
        let tasks: Vec<&mut Tree> = match (&**key, value) {
            ("defaults", defaults) => vec![defaults],
            ("tasks", Tree::Map(tasks)) => tasks.iter_mut().map(|(_, task)| task).collect(),
            ("tasks", Tree::List(tasks)) => tasks.iter_mut().collect(),
            _ => continue,
        };
        for task in tasks {
            let Tree::Map(fields) = task else { continue };
            for (key, value) in fields {
                match (&**key, value) {
                    ("workflow", child) => collect(child, found),
                    ("locks", Tree::List(locks)) => {
                        found.extend(locks.iter_mut().filter(|lock| is_homeless(lock)))
                    }
                    ("locks", lock) if is_homeless(lock) && !is_expression(lock) => found.push(lock),
                    _ => {}
                }
            }
        }
    }
}

fn is_homeless(lock: &Tree) -> bool {
    match lock {
        Tree::String(_) => true,
        Tree::Map(fields) => fields.iter().all(|(key, _)| &**key != "repo"),
        _ => false,
    }
}

/// Whether a text may turn out to be a list or a map.
fn is_expression(lock: &Tree) -> bool {
    lock.as_str().is_some_and(|text| text.trim_start().starts_with("${{"))
}

#[cfg(test)]
mod tests {
    use agentflow_workflow::read_tree;
    use serde_json::json;

    use super::*;

    #[test]
    fn locks_without_a_repository_are_found() {
        let mut tree = read_tree(
            "defaults: {locks: [a, {path: b, repo: h/x}]}
tasks:
  one: {locks: src/**, run: x}
  two: {locks: {path: c, mode: read}}
  all: {locks: '${{ vars.locks }}'}
  each: {foreach: [x, y], locks: ['${{ item }}', {paths: [d]}]}
  none: make
  child: {workflow: {tasks: [{name: t, locks: [e]}]}}
",
        )
        .expect("a document");
        let mut found = Vec::new();
        collect(&mut tree, &mut found);
        let found: Vec<_> = found.iter().map(|lock| lock.to_value()).collect();
        let expect = [
            json!("a"),
            json!("src/**"),
            json!({"path": "c", "mode": "read"}),
            json!("${{ item }}"),
            json!({"paths": ["d"]}),
            json!("e"),
        ];
        assert_eq!(found, expect);
    }

    #[test]
    fn flags_ask_for_one_grant() {
        let flags = [(PathBuf::from("./docs/"), LockMode::Read), (PathBuf::from("a"), LockMode::Write)];
        let locks = of_flags(&flags, None).expect("paths");
        let expect =
            json!([{"paths": [{"path": "docs/**", "mode": "read"}, {"path": "a", "mode": "write"}]}]);
        assert_eq!(serde_json::to_value(locks).expect("JSON"), expect);
        assert!(of_flags(&[], None).expect("nothing").is_none());
        let error =
            of_flags(&[(PathBuf::from("../a"), LockMode::Read)], None).expect_err("outside").to_string();
        assert!(error.starts_with("--lock '../a': '..'"), "{error}");
    }
}

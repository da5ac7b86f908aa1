//! The locks of a task: how they may be written, and the one form that a specification has of them.

use std::collections::BTreeMap;
use std::fmt;

use agentflow_core::limits;
use agentflow_core::lock::{LockMode, LockUntil, Repository};
use agentflow_core::spec::SpecLocks;
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

use super::check::Check;
use crate::locks::{PathBody, TextOrObject, TextOrObjectVisitor, Written, in_order};

/// What a task locks.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub enum TaskLocks {
    /// One entry.
    One(TaskLocksEntry),
    /// All of them.
    Many(Vec<TaskLocksEntry>),
}

/// One or more paths of a repository.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub enum TaskLocksEntry {
    /// A path, to write there.
    Path(String),
    /// Whatever else there is to say.
    At(Box<TaskLocksAt>),
}

/// Paths of a repository, and how they are locked.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TaskLocksAt {
    /// A file, a directory with all below it (`dir/` or `dir/**`), or a pattern.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Instead of one path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub paths: Option<Vec<PathBody>>,
    /// `read` or `write`, where a path does not say so itself; `write` when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub mode: Option<LockMode>,
    /// Which repository: the address of its origin, or `example.com/team/app`; `default` when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repo: Option<String>,
    /// `attempt` (default): until the attempt ends. `merged`: if it ends well, until the lock is
    /// released, at most a week.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub until: Option<LockUntil>,
    /// Whether upper and lower case are the same in this repository.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub ignore_case: bool,
}

impl TextOrObject for TaskLocksEntry {
    type Object = Box<TaskLocksAt>;

    fn text(text: &str) -> Self {
        Self::Path(text.to_owned())
    }

    fn object(object: Box<TaskLocksAt>) -> Self {
        Self::At(object)
    }
}

impl<'de> Deserialize<'de> for TaskLocksEntry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TextOrObjectVisitor::new("a path, or an object with paths to lock"))
    }
}

impl<'de> Deserialize<'de> for TaskLocks {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct BodyVisitor;

        impl<'de> Visitor<'de> for BodyVisitor {
            type Value = TaskLocks;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a path, an object with paths to lock, or a list of both")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<TaskLocks, E> {
                Ok(TaskLocks::One(TaskLocksEntry::text(text)))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<TaskLocks, A::Error> {
                Box::deserialize(MapAccessDeserializer::new(map)).map(TaskLocksEntry::At).map(TaskLocks::One)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<TaskLocks, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(list)).map(TaskLocks::Many)
            }
        }

        deserializer.deserialize_any(BodyVisitor)
    }
}

impl Check<'_> {
    /// One entry for each repository and each way to hold it, all in their order.
    pub(super) fn locks(&mut self, body: TaskLocks) -> Vec<SpecLocks> {
        let entries: Vec<(String, TaskLocksEntry)> = match body {
            TaskLocks::One(entry) => vec![("locks".to_owned(), entry)],
            TaskLocks::Many(entries) => {
                entries.into_iter().enumerate().map(|(at, entry)| (format!("locks/{at}"), entry)).collect()
            }
        };
        let before = self.errors.len();
        let mut locks: BTreeMap<(Repository, LockUntil, bool), Vec<Written>> = BTreeMap::new();
        for (field, entry) in entries {
            let (how, paths) = self.entry(&field, entry);
            if let Some(how) = how {
                locks.entry(how).or_default().extend(paths);
            }
            if self.is_enough() {
                break;
            }
        }
        let count: usize = locks.values().map(Vec::len).sum();
        if count > limits::LOCK_PATHS {
            self.wrong("locks", format!("have {count} paths; allowed: up to {}", limits::LOCK_PATHS));
        }
        if locks.len() > limits::ENTRIES {
            let (count, most) = (locks.len(), limits::ENTRIES);
            self.wrong("locks", format!("name {count} repositories, or ways to lock; allowed: up to {most}"));
        }
        if self.errors.len() == before {
            let ways: Vec<_> = locks.iter().collect();
            for ways in ways.chunk_by(|((one, ..), _), ((next, ..), _)| one == next) {
                let paths: Vec<Written> = ways.iter().flat_map(|(_, paths)| paths.iter().cloned()).collect();
                self.apart("locks", &paths, ways.iter().any(|((.., ignore_case), _)| *ignore_case));
            }
        }
        let locks = locks.into_iter();
        locks
            .map(|((repo, until, ignore_case), paths)| SpecLocks {
                repo,
                ignore_case,
                until,
                paths: in_order(paths),
            })
            .collect()
    }

    fn entry(
        &mut self,
        field: &str,
        entry: TaskLocksEntry,
    ) -> (Option<(Repository, LockUntil, bool)>, Vec<Written>) {
        let TaskLocksAt { path, paths, mode, repo, until, ignore_case } = match entry {
            TaskLocksEntry::Path(path) => {
                let how = (Repository::default(), LockUntil::default(), false);
                let path = self.lock_path(field.to_owned(), &path, LockMode::Write);
                return (Some(how), path.into_iter().collect());
            }
            TaskLocksEntry::At(at) => *at,
        };
        let repo = match repo {
            None => Some(Repository::default()),
            Some(text) => self.repo(&format!("{field}/repo"), &text),
        };
        let mode = mode.unwrap_or_default();
        let paths = match (path, paths) {
            (Some(_), Some(_)) => {
                self.wrong(&format!("{field}/paths"), "stands beside path; give one of them");
                Vec::new()
            }
            (None, None) => {
                self.wrong(field, "names no path; give path or paths");
                Vec::new()
            }
            (Some(path), None) => self.lock_path(format!("{field}/path"), &path, mode).into_iter().collect(),
            (None, Some(paths)) => self.lock_paths(&format!("{field}/paths"), paths, mode),
        };
        (repo.map(|repo| (repo, until.unwrap_or_default(), ignore_case)), paths)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::TaskBody;
    use super::*;
    use crate::problem::{FieldError, read_json};

    fn locks(locks: Value) -> Result<Vec<SpecLocks>, Vec<FieldError>> {
        let text = json!({"kind": "noop", "locks": locks}).to_string();
        let body: TaskBody = read_json(text.as_bytes()).map_err(|problem| problem.errors)?;
        body.check("").map(|checked| checked.spec.locks)
    }

    fn wrong(written: Value) -> Vec<String> {
        let errors = locks(written.clone()).expect_err(&written.to_string());
        errors.into_iter().map(|error| error.pointer).collect()
    }

    #[test]
    fn all_forms_are_one() {
        let expected = locks(json!([{"paths": [{"path": "src/**", "mode": "write"}], "repo": "default"}]));
        for form in [
            json!("src/**"),
            json!(["/src/"]),
            json!({"path": "src/**"}),
            json!([{"path": "src/**", "until": "attempt", "ignore_case": false}]),
            json!({"paths": ["src/**"]}),
            json!({"paths": ["src/**"], "mode": "write"}),
        ] {
            assert_eq!(locks(form.clone()), expected, "{form}");
        }
        assert_eq!(locks(json!([])), Ok(Vec::new()));
        assert_eq!(locks(Value::Null), Ok(Vec::new()));
    }

    #[test]
    fn there_is_one_entry_for_each_repository_and_way() {
        let found = locks(json!([
            "b",
            {"repo": "git@example.com:team/app.git", "paths": ["x", {"path": "y", "mode": "write"}], "mode": "read"},
            {"path": "c", "until": "merged"},
            "a",
        ]))
        .expect("valid");
        let spec = serde_json::to_value(found).expect("plain data");
        let path = |path: &str, mode: &str| json!({"path": path, "mode": mode});
        let expected = json!([
            {"repo": "default", "paths": [path("a", "write"), path("b", "write")]},
            {"repo": "default", "until": "merged", "paths": [path("c", "write")]},
            {"repo": "example.com/team/app", "paths": [path("x", "read"), path("y", "write")]},
        ]);
        assert_eq!(spec, expected);
    }

    #[test]
    fn what_is_wrong_is_named_where_it_is_written() {
        assert_eq!(wrong(json!(5)), ["/locks"]);
        assert_eq!(wrong(json!("..")), ["/locks"]);
        assert_eq!(wrong(json!({"path": ".."})), ["/locks/path"]);
        assert_eq!(
            wrong(json!(["a", "../b", {"paths": ["c", {"path": ""}]}])),
            ["/locks/1", "/locks/2/paths/1/path"]
        );
        assert_eq!(wrong(json!([{"repo": "a b", "path": "c"}, {}])), ["/locks/0/repo", "/locks/1"]);
        assert_eq!(wrong(json!([{"path": "a", "paths": ["b"]}])), ["/locks/0/paths"]);
        assert_eq!(wrong(json!([{"path": "a", "until": "dawn"}])), ["/locks/0/until"]);
        assert_eq!(wrong(json!([{"path": "a", "owner": "b"}])), ["/locks/0/owner"]);
        assert_eq!(wrong(json!(["a", {"path": "a", "until": "merged"}])), ["/locks/1/path"]);
        assert_eq!(wrong(json!([{"path": "A", "ignore_case": true}, {"path": "a"}])), ["/locks/0/path"]);
        assert!(locks(json!(["a", {"path": "a", "repo": "other"}])).is_ok());
        let many: Vec<String> = (0..=limits::LOCK_PATHS).map(|n| format!("{n}")).collect();
        assert_eq!(wrong(json!(many)), ["/locks"]);
    }
}

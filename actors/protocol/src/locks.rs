//! Locks of files, as clients ask for them and see them.
//!
//! A body is what was written; its `check` turns it into what the kernel cannot refuse for its form, or
//! into one error per bad field.

mod paths;
mod views;

use std::collections::BTreeSet;

use agentflow_core::kernel::{LockRequest, Unlock};
use agentflow_core::limits;
use agentflow_core::lock::{LockFence, LockId, LockMode, LockOwner, LockPath, Repository};
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

use crate::problem::FieldError;
use crate::submit::check::Check;
use crate::submit::{Priority, TaskRef};
pub use paths::{PathAt, PathBody};
pub(crate) use paths::{TextOrObject, TextOrObjectVisitor, Written, in_order};
pub use views::{
    HolderView, LockPage, LockProblem, LockResult, LockResults, LockView, Refused, Released, ReleasedAll,
    Uncovered, Verified, WaitingView, warnings,
};

/// A request for locks: all of its paths or none.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LockBody {
    /// Which repository: the address of its origin, or `example.com/team/app`.
    pub repo: String,
    /// What, 1 to 10,000, no two of which overlap: each a text, which is for writing, or an object.
    pub paths: Vec<PathBody>,
    /// For this task, with all its attempts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task_id: Option<TaskRef>,
    /// For this person or program, instead of a task.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// How long it is held unless it is renewed, up to 30 days: half an hour when absent, for ever when
    /// null. A lock of a task that has a running attempt ends with that.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub ttl_ms: Option<Option<u64>>,
    /// How long to wait for it, up to 600,000; at once or not at all when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wait_ms: Option<u64>,
    /// Why, for people: up to 500 characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Who is served first of those who wait: as with tasks; 50 when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<Priority>,
    /// Whether upper and lower case are the same in this repository.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub ignore_case: bool,
    /// The same key with the same body, whatever its `wait_ms`, gets the same lock.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<String>,
}

/// A field that is there and null is there.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<u64>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

impl LockBody {
    /// What two requests with the same key must have in common: everything but how long they wait.
    #[must_use]
    pub fn canonical(&self) -> Vec<u8> {
        let body = Self { wait_ms: None, idempotency_key: None, ..self.clone() };
        // Plain data, which cannot fail.
        serde_json::to_vec(&body).unwrap_or_default()
    }

    /// Checks every field; `at` is the JSON pointer of this body. The request has no key: it is of the
    /// caller to give it one.
    ///
    /// # Errors
    /// One entry per bad field.
    pub fn check(self, at: &str) -> Result<LockRequest, Vec<FieldError>> {
        let mut check = Check { at, errors: Vec::new() };
        let repo = check.repo("repo", &self.repo);
        let before = check.errors.len();
        let paths = check.lock_paths("paths", self.paths, LockMode::Write);
        if check.errors.len() == before {
            check.apart("paths", &paths, self.ignore_case);
        }
        let owner = match (self.task_id, self.owner) {
            (Some(_), Some(_)) => {
                check.wrong("owner", "stands beside task_id; give one of them");
                None
            }
            (None, None) => {
                check.wrong("owner", "is missing; say who locks, or which task_id");
                None
            }
            (Some(task), None) => check.task("task_id", &task),
            (None, Some(name)) => check.owner("owner", &name),
        };
        let ttl_ms = self.ttl_ms.unwrap_or(Some(limits::LOCK_TTL_MS));
        check.ttl(ttl_ms);
        let reason = self.reason.unwrap_or_default();
        check.reason(&reason);
        let priority = check.priority(self.priority.as_ref());
        if let Some(key) = &self.idempotency_key {
            check.idempotency_key(key);
        }
        match (repo, owner) {
            (Some(repo), Some(owner)) if check.errors.is_empty() => Ok(LockRequest {
                repo,
                ignore_case: self.ignore_case,
                paths: in_order(paths),
                owner,
                ttl_ms,
                reason: reason.into(),
                priority,
                key: None,
            }),
            _ => Err(check.errors),
        }
    }
}

/// Many requests, each granted or refused by itself, without waiting.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LocksBody {
    /// 1 to 1,000, with 10,000 paths together.
    pub requests: Vec<LockBody>,
}

impl LocksBody {
    /// Checks every field of every request.
    ///
    /// # Errors
    /// One entry per bad field.
    pub fn check(self) -> Result<Vec<LockRequest>, Vec<FieldError>> {
        let mut check = Check { at: "", errors: Vec::new() };
        check.count("requests", self.requests.len(), limits::LOCK_REQUESTS);
        let paths: usize = self.requests.iter().map(|request| request.paths.len()).sum();
        if paths > limits::LOCK_PATHS {
            let most = limits::LOCK_PATHS;
            check.wrong("requests", format!("have {paths} paths together; allowed: up to {most}"));
        }
        if !check.errors.is_empty() {
            return Err(check.errors);
        }
        let mut requests = Vec::with_capacity(self.requests.len());
        for (at, body) in self.requests.into_iter().enumerate() {
            if body.wait_ms.is_some_and(|ms| ms > 0) {
                check.wrong(&format!("requests/{at}/wait_ms"), "a request among many does not wait");
            }
            match body.check(&format!("/requests/{at}")) {
                Ok(request) => requests.push(request),
                Err(more) => check.errors.extend(more),
            }
            if check.is_enough() {
                break;
            }
        }
        if check.errors.is_empty() { Ok(requests) } else { Err(check.errors) }
    }
}

/// The body of `POST /locks/release`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ReleaseBody {
    /// 1 to 1,000.
    pub locks: Vec<ReleaseEntry>,
}

/// A lock that is to be given back.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ReleaseEntry {
    /// Its id.
    pub id: String,
    /// Its fence: refused if it has another one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fence: Option<u64>,
}

impl ReleaseBody {
    /// Checks every field.
    ///
    /// # Errors
    /// One entry per bad field.
    pub fn check(self) -> Result<Vec<Unlock>, Vec<FieldError>> {
        let mut check = Check { at: "", errors: Vec::new() };
        check.count("locks", self.locks.len(), limits::LOCK_REQUESTS);
        let mut unlocks = Vec::with_capacity(self.locks.len());
        for (at, entry) in self.locks.iter().enumerate() {
            match entry.id.parse::<LockId>() {
                Ok(lock) => unlocks.push(Unlock { lock, fence: entry.fence.map(LockFence), owner: None }),
                Err(why) => check.wrong(&format!("locks/{at}/id"), why),
            }
            if check.is_enough() {
                break;
            }
        }
        if check.errors.is_empty() { Ok(unlocks) } else { Err(check.errors) }
    }
}

/// The body of `POST /locks/{id}/renew`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RenewBody {
    /// Its fence, which must be right.
    pub fence: u64,
    /// How long from now, up to 30 days: as before when absent, for ever when null.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub ttl_ms: Option<Option<u64>>,
}

impl RenewBody {
    /// Checks every field.
    ///
    /// # Errors
    /// One entry per bad field.
    pub fn check(&self) -> Result<(), Vec<FieldError>> {
        let mut check = Check { at: "", errors: Vec::new() };
        check.ttl(self.ttl_ms.flatten());
        if check.errors.is_empty() { Ok(()) } else { Err(check.errors) }
    }
}

/// The body of `POST /locks/{id}/break`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BreakBody {
    /// Why: 1 to 500 characters.
    pub reason: String,
}

impl BreakBody {
    /// Checks every field.
    ///
    /// # Errors
    /// One entry per bad field.
    pub fn check(&self) -> Result<(), Vec<FieldError>> {
        let mut check = Check { at: "", errors: Vec::new() };
        if self.reason.trim().is_empty() {
            check.wrong("reason", "is empty; its owner is told why");
        }
        check.reason(&self.reason);
        if check.errors.is_empty() { Ok(()) } else { Err(check.errors) }
    }
}

/// The body of `POST /locks/verify`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct VerifyBody {
    /// Which repository.
    pub repo: String,
    /// What was changed, 1 to 10,000.
    pub paths: Vec<PathBody>,
    /// The fence under which it was changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fence: Option<u64>,
    /// Instead of one: each path must be covered by one of them; up to 1,000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fences: Option<Vec<u64>>,
}

/// A question of the history whose form is right.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Verify {
    /// In which repository.
    pub repo: Repository,
    /// What was changed, in the order in which it was asked.
    pub paths: Vec<LockPath>,
    /// Under which fences.
    pub fences: BTreeSet<LockFence>,
}

impl VerifyBody {
    /// Checks every field.
    ///
    /// # Errors
    /// One entry per bad field.
    pub fn check(self) -> Result<Verify, Vec<FieldError>> {
        let mut check = Check { at: "", errors: Vec::new() };
        let repo = check.repo("repo", &self.repo);
        let paths = check.lock_paths("paths", self.paths, LockMode::Write);
        let fences = match (self.fence, self.fences) {
            (Some(_), Some(_)) => {
                check.wrong("fences", "stands beside fence; give one of them");
                Vec::new()
            }
            (None, None) => {
                check.wrong("fence", "is missing; under which lock was it changed?");
                Vec::new()
            }
            (Some(fence), None) => vec![fence],
            (None, Some(fences)) => {
                check.count("fences", fences.len(), limits::LOCK_REQUESTS);
                fences
            }
        };
        match repo {
            Some(repo) if check.errors.is_empty() => Ok(Verify {
                repo,
                paths: paths.into_iter().map(|one| one.lock.path).collect(),
                fences: fences.into_iter().map(LockFence).collect(),
            }),
            _ => Err(check.errors),
        }
    }
}

/// An owner by the name under which answers show him: `task:5`, or one that he gave.
///
/// # Errors
/// Says what is allowed.
pub fn owner_named(name: &str) -> Result<LockOwner, String> {
    match name.strip_prefix("task:") {
        Some(task) => {
            let task = TaskRef::Name(task.to_owned()).id().map_err(|why| format!("'{name}' {why}"))?;
            Ok(LockOwner::Task(task))
        }
        None => {
            crate::submit::check_name(name)?;
            Ok(LockOwner::Named(name.into()))
        }
    }
}

impl Check<'_> {
    pub(crate) fn repo(&mut self, field: &str, text: &str) -> Option<Repository> {
        Repository::new(text).map_err(|error| self.wrong(field, error.to_string())).ok()
    }

    fn task(&mut self, field: &str, task: &TaskRef) -> Option<LockOwner> {
        task.id().map(LockOwner::Task).map_err(|why| self.wrong(field, why)).ok()
    }

    /// The name of a person or a program. Nobody passes for a task.
    fn owner(&mut self, field: &str, name: &str) -> Option<LockOwner> {
        if name.starts_with("task:") {
            self.wrong(field, "is the name of a task; give its number as task_id");
            return None;
        }
        owner_named(name).map_err(|why| self.wrong(field, why)).ok()
    }

    fn ttl(&mut self, ttl_ms: Option<u64>) {
        if ttl_ms.is_some_and(|ms| !(1..=limits::TIMEOUT_MS).contains(&ms)) {
            let most = limits::TIMEOUT_MS;
            self.wrong("ttl_ms", format!("allowed: 1 to {most} (30 days), or null for ever"));
        }
    }

    fn reason(&mut self, reason: &str) {
        if reason.chars().count() > limits::REASON_CHARS {
            self.wrong("reason", format!("longer than {} characters", limits::REASON_CHARS));
        }
        self.clean("reason", reason);
    }

    /// How many there are of something that must be there.
    fn count(&mut self, field: &str, count: usize, most: usize) {
        if !(1..=most).contains(&count) {
            self.wrong(field, format!("has {count} entries; allowed: 1 to {most}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::problem::read_json;

    fn check(json: &str) -> Result<LockRequest, Vec<FieldError>> {
        let body: LockBody = read_json(json.as_bytes()).map_err(|problem| problem.errors)?;
        body.check("")
    }

    fn wrong(json: &str) -> Vec<String> {
        check(json).expect_err(json).into_iter().map(|error| error.pointer).collect()
    }

    #[test]
    fn a_request_says_who_locks_what() {
        let want = check(
            r#"{"repo": "https://example.com/team/app.git", "owner": "alice", "ttl_ms": null, "priority": "high",
                "paths": ["src/b.rs", {"path": "/src/a.rs", "mode": "read"}, {"path": "docs/"}], "reason": "why not"}"#,
        )
        .expect("valid");
        assert_eq!(want.repo.as_str(), "example.com/team/app");
        let paths: Vec<String> =
            want.paths.iter().map(|lock| format!("{} {}", lock.mode, lock.path)).collect();
        assert_eq!(paths, ["write docs/**", "read src/a.rs", "write src/b.rs"]);
        assert_eq!((want.ttl_ms, want.priority), (None, 75));
        assert_eq!(want.owner, LockOwner::Named("alice".into()));
        let want = check(r#"{"repo": "app", "task_id": "TASK-00000005", "paths": ["a"]}"#).expect("valid");
        assert_eq!(want.owner.to_string(), "task:5");
        assert_eq!((want.ttl_ms, want.priority), (Some(limits::LOCK_TTL_MS), 50));
    }

    #[test]
    fn every_bad_field_is_named() {
        let errors = wrong(
            r#"{"repo": "/srv/app", "paths": ["", {"path": "../x"}, "a\u0000b"], "ttl_ms": 0, "priority": 101,
                "reason": "\u0000"}"#,
        );
        let pointers =
            ["/repo", "/paths/0", "/paths/1/path", "/paths/2", "/owner", "/ttl_ms", "/reason", "/priority"];
        assert_eq!(errors, pointers);
        let with = |fields: &str| wrong(&format!(r#"{{"repo": "app", "paths": ["a"], {fields}}}"#));
        assert_eq!(with(r#""owner": "a", "task_id": 5"#), ["/owner"]);
        assert_eq!(with(r#""owner": "task:5""#), ["/owner"]);
        assert_eq!(with(r#""task_id": 0"#), ["/task_id"]);
        assert_eq!(with(r#""owner": "a", "ttl_ms": 31536000000"#), ["/ttl_ms"], "a year");
        assert_eq!(with(r#""owner": "a", "colour": "red""#), ["/colour"]);
        assert_eq!(wrong(r#"{"repo": "app", "owner": "a", "paths": []}"#), ["/paths"]);
        assert_eq!(
            wrong(r#"{"repo": "app", "owner": "a", "paths": [{"path": "a", "mod": 1}]}"#),
            ["/paths/0/mod"]
        );
        assert_eq!(
            wrong(r#"{"repo": "app", "owner": "a", "paths": [{"path": "a", "mode": "x"}]}"#),
            ["/paths/0/mode"]
        );
        assert_eq!(wrong(r#"{"repo": "app", "owner": "a", "paths": ["a", 5]}"#), ["/paths/1"]);
        let long =
            format!(r#"{{"repo": "app", "owner": "a", "paths": ["a"], "reason": "{}"}}"#, "é".repeat(501));
        assert_eq!(wrong(&long), ["/reason"]);
    }

    #[test]
    fn two_paths_that_overlap_are_refused_together() {
        let errors = check(r#"{"repo": "app", "owner": "a", "paths": ["src/a.rs", {"path": "src/**"}]}"#);
        let errors = errors.expect_err("they overlap");
        assert_eq!(errors[0].pointer, "/paths/1/path");
        assert!(
            errors[0].detail.contains("'src/a.rs'") && errors[0].detail.contains("/paths/0"),
            "{errors:?}"
        );
        let cased = |ignore| {
            format!(r#"{{"repo": "app", "owner": "a", "paths": ["A", "a"], "ignore_case": {ignore}}}"#)
        };
        assert!(check(&cased(false)).is_ok());
        assert_eq!(wrong(&cased(true)), ["/paths/1"]);
    }

    #[test]
    fn there_is_a_limit_to_paths() {
        let body = |count: usize| {
            let paths: Vec<String> = (0..count).map(|n| format!("src/{n}.rs")).collect();
            serde_json::json!({"repo": "app", "owner": "a", "paths": paths}).to_string()
        };
        assert!(check(&body(limits::LOCK_PATHS)).is_ok());
        let errors = check(&body(limits::LOCK_PATHS + 1)).expect_err("too many");
        assert!(errors.len() == 1 && errors[0].detail.contains("10000"), "{errors:?}");
    }

    #[test]
    fn many_requests_are_checked_each() {
        let body: LocksBody = serde_json::from_value(serde_json::json!({"requests": [
            {"repo": "app", "owner": "a", "paths": ["a"]},
            {"repo": "app", "owner": "", "paths": ["a", "a"], "wait_ms": 5},
        ]}))
        .expect("JSON");
        let errors = body.check().expect_err("the second is wrong");
        let pointers: Vec<&str> = errors.iter().map(|error| error.pointer.as_str()).collect();
        assert_eq!(pointers, ["/requests/1/wait_ms", "/requests/1/paths/1", "/requests/1/owner"]);
        assert!(LocksBody::default().check().is_err(), "none");
    }

    #[test]
    fn a_question_of_the_history_names_its_fences() {
        let verify = |json: &str| {
            let body: VerifyBody = read_json(json.as_bytes()).expect("JSON");
            body.check().map_err(|errors| errors[0].pointer.clone())
        };
        let asked = verify(r#"{"repo": "app", "paths": ["b", {"path": "a"}], "fences": [3, 1]}"#);
        let asked = asked.expect("valid");
        assert_eq!(asked.paths.iter().map(LockPath::as_str).collect::<Vec<_>>(), ["b", "a"]);
        assert_eq!(asked.fences.into_iter().collect::<Vec<_>>(), [LockFence(1), LockFence(3)]);
        assert_eq!(verify(r#"{"repo": "app", "paths": ["a"]}"#), Err("/fence".to_owned()));
        assert_eq!(verify(r#"{"repo": "app", "paths": ["a"], "fences": []}"#), Err("/fences".to_owned()));
    }

    #[test]
    fn owners_are_known_by_their_names() {
        assert_eq!(owner_named("task:5").map(|owner| owner.to_string()), Ok("task:5".to_owned()));
        assert_eq!(owner_named("alice"), Ok(LockOwner::Named("alice".into())));
        assert!(owner_named("task:x").is_err() && owner_named("").is_err());
    }
}

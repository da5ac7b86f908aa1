//! Errors as RFC 9457 `application/problem+json`.

use std::fmt;

use agentflow_core::rejection::Rejection;
use serde::{Deserialize, Deserializer, Serialize};

use crate::locks::{HolderView, LockProblem, Uncovered};

/// The media type of a [`Problem`].
pub const MEDIA_TYPE: &str = "application/problem+json";

/// An error that says what is wrong, where, and what is allowed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Problem {
    /// Names the kind of problem; stable.
    #[serde(rename = "type")]
    pub kind: String,
    /// The kind, for people.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// This occurrence, for people: what is wrong and what to do next.
    pub detail: String,
    /// The bad fields, where there are any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError>,
    /// What it says of locks, where it is about some.
    #[serde(flatten, deserialize_with = "about_locks")]
    pub locks: Option<Box<LockProblem>>,
}

/// Most problems are not about locks, and then have none of its members.
fn about_locks<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Box<LockProblem>>, D::Error> {
    let locks = LockProblem::deserialize(deserializer)?;
    Ok((locks != LockProblem::default()).then(|| Box::new(locks)))
}

/// One bad field.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct FieldError {
    /// A JSON pointer, such as `/tasks/3/retry/max`.
    pub pointer: String,
    /// What is wrong with it and what is allowed.
    pub detail: String,
}

impl Problem {
    /// A problem of that kind (a short word, such as `stale`) and status.
    #[must_use]
    pub fn new(status: u16, kind: &str, detail: impl Into<String>) -> Self {
        Self {
            kind: format!("urn:agentflow:problem:{kind}"),
            title: title(status).to_owned(),
            status,
            detail: detail.into(),
            errors: Vec::new(),
            locks: None,
        }
    }

    /// Why a command changed nothing.
    #[must_use]
    pub fn of(rejection: &Rejection) -> Self {
        let text = rejection.to_string();
        let (status, kind) = match rejection {
            Rejection::UnknownTask(_)
            | Rejection::UnknownRun(_)
            | Rejection::UnknownWorker(_)
            | Rejection::UnknownSchedule(_)
            | Rejection::UnknownLock(_)
            | Rejection::UnknownRepository(_)
            | Rejection::CheckpointGone(_) => (404, "not_found"),
            Rejection::Illegal { .. }
            | Rejection::IllegalRun { .. }
            | Rejection::PartOfRun(_)
            | Rejection::NoRun(_)
            | Rejection::NodeAtWork(_)
            | Rejection::OtherWork(_)
            | Rejection::NothingToRun(_)
            | Rejection::NothingFailed(_)
            | Rejection::OtherNodes(_)
            | Rejection::HasStarted(_)
            | Rejection::NotParallel(_)
            | Rejection::OthersLock(_)
            | Rejection::LockedTogether(_) => (409, "conflict"),
            Rejection::UnknownNode(_) => {
                let error = FieldError { pointer: "/from".to_owned(), detail: text };
                return Self::invalid(vec![error]);
            }
            Rejection::Mapping(error) => {
                let error = FieldError { pointer: error.field().to_owned(), detail: text };
                return Self::invalid(vec![error]);
            }
            Rejection::Locked(locked) => {
                let locks = Some(Box::new(LockProblem::of(locked)));
                return Self { locks, ..Self::new(409, "locked", text) };
            }
            Rejection::Deadlock(_) => (409, "deadlock"),
            Rejection::Cycle(_) => (409, "cycle"),
            Rejection::JustEnded(_) | Rejection::Busy => (409, "busy"),
            Rejection::Stale | Rejection::StaleAttempt { .. } | Rejection::LockLost(_) => (409, "stale"),
            Rejection::OtherVersion { .. } => (409, "version"),
            Rejection::KeyConflict => (409, "idempotency_key"),
            Rejection::Malformed(_) => (422, "invalid"),
            Rejection::MemoryFull { .. } | Rejection::ValueTooLarge(_) => (413, "too_large"),
            Rejection::Limit { .. } => (429, "limit"),
        };
        Self::new(status, kind, text)
    }

    /// Who holds, or waits before, where a lock was not granted.
    #[must_use]
    pub fn holders(&self) -> &[HolderView] {
        self.locks.as_deref().map_or(&[], |locks| &locks.holders)
    }

    /// The paths that no lock covers, where a change was refused.
    #[must_use]
    pub fn uncovered(&self) -> &[Uncovered] {
        self.locks.as_deref().map_or(&[], |locks| &locks.uncovered)
    }

    /// 409 with the paths of a change that no lock covers.
    #[must_use]
    pub fn not_covered(uncovered: Vec<Uncovered>) -> Self {
        let named: Vec<String> =
            uncovered.iter().take(3).map(|one| format!("'{}' {}", one.path, one.reason)).collect();
        let more = match uncovered.len().saturating_sub(named.len()) {
            0 => String::new(),
            more => format!("; and {more} more"),
        };
        let detail = format!("not covered by a lock: {}{more}", named.join("; "));
        let locks = Some(Box::new(LockProblem { uncovered, ..LockProblem::default() }));
        Self { locks, ..Self::new(409, "uncovered", detail) }
    }

    /// 422 with the fields that are wrong.
    #[must_use]
    pub fn invalid(errors: Vec<FieldError>) -> Self {
        let detail = match errors.as_slice() {
            [one] if one.pointer.is_empty() => one.detail.clone(),
            [one] => format!("{}: {}", one.pointer, one.detail),
            many => format!("{} fields are wrong", many.len()),
        };
        Self { errors, ..Self::new(422, "invalid", detail) }
    }
}

/// The standard phrase of a status that this API uses.
fn title(status: u16) -> &'static str {
    match status {
        400 => "Malformed request",
        401 => "Token required",
        403 => "Not allowed",
        404 => "Not found",
        405 => "Method not allowed",
        408 => "Too slow",
        409 => "Conflict",
        410 => "Gone",
        413 => "Too large",
        422 => "Invalid",
        426 => "Upgrade required",
        429 => "Too many requests",
        503 => "Not ready",
        _ => "Error",
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}

impl std::error::Error for Problem {}

/// Reads JSON, naming the field that is wrong.
///
/// # Errors
/// 400 when the text is no JSON; 422 with a JSON pointer when it does not fit `T`.
pub fn read_json<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    // The plain reader is faster; the one that tracks the path runs only on failure.
    if let Ok(value) = serde_json::from_slice(bytes) {
        return Ok(value);
    }
    let reader = &mut serde_json::Deserializer::from_slice(bytes);
    match serde_path_to_error::deserialize::<_, T>(reader) {
        Ok(_) => Err(Problem::new(400, "malformed", "the JSON text is followed by something else")),
        Err(error) => Err(explain(&error)),
    }
}

fn explain(error: &serde_path_to_error::Error<serde_json::Error>) -> Problem {
    let cause = error.inner();
    if cause.is_data() {
        return Problem::invalid(vec![FieldError {
            pointer: pointer_of(error.path()),
            detail: cause.to_string(),
        }]);
    }
    if cause.to_string().starts_with("recursion limit exceeded") {
        let detail = "nested deeper than 127 levels".to_owned();
        return Problem::invalid(vec![FieldError { pointer: pointer_of(error.path()), detail }]);
    }
    Problem::new(400, "malformed", format!("the body is no JSON: {cause}"))
}

/// A path as a JSON pointer.
pub(crate) fn pointer_of(path: &serde_path_to_error::Path) -> String {
    use serde_path_to_error::Segment;
    let mut text = String::new();
    for segment in path.iter() {
        match segment {
            Segment::Seq { index } => text.push_str(&format!("/{index}")),
            Segment::Map { key } | Segment::Enum { variant: key } => {
                text.push('/');
                text.push_str(&key.replace('~', "~0").replace('/', "~1"));
            }
            Segment::Unknown => {}
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use agentflow_core::lock::{LockFence, LockId, LockMode, LockOwner, LockPath};
    use agentflow_core::rejection::{Holder, Locked};

    use super::*;

    #[derive(Deserialize, Debug)]
    #[serde(deny_unknown_fields)]
    struct Body {
        #[serde(rename = "a/b")]
        #[expect(dead_code, reason = "only read")]
        inner: Vec<u8>,
    }

    #[test]
    fn a_bad_field_is_named() {
        let problem = read_json::<Body>(br#"{"a/b": [1, "x"]}"#).expect_err("a string is no number");
        assert_eq!(problem.status, 422);
        assert_eq!(problem.errors[0].pointer, "/a~1b/1");
        let problem = read_json::<Body>(br#"{"a/b": [], "c": 1}"#).expect_err("c is unknown");
        assert!(problem.errors[0].detail.contains("unknown field `c`"), "{problem:?}");
    }

    #[test]
    fn who_stands_in_the_way_is_a_member() {
        let holder = Holder {
            lock: Some((LockId([7; 16]), LockFence(3))),
            owner: LockOwner::Named("alice".into()),
            path: LockPath::new("src/**").expect("a path"),
            mode: LockMode::Write,
            expires_at: None,
        };
        let locked = Locked { holders: vec![holder], position: 2, waited: false };
        let problem = Problem::of(&Rejection::Locked(Box::new(locked)));
        let json = serde_json::to_value(&problem).expect("plain data");
        assert_eq!((&json["position"], &json["holders"][0]["owner"]), (&2.into(), &"alice".into()));
        assert_eq!(serde_json::from_value::<Problem>(json).expect("its own text"), problem);
        assert_eq!((problem.holders().len(), problem.uncovered().len()), (1, 0));
        let plain = Problem::new(404, "not_found", "there is none");
        let json = serde_json::to_value(&plain).expect("plain data");
        assert_eq!(json.as_object().map(serde_json::Map::len), Some(4), "{json}");
        assert_eq!(serde_json::from_value::<Problem>(json).expect("its own text"), plain);
    }

    #[test]
    fn paths_without_a_lock_are_named() {
        let one = |path: &str| Uncovered { path: path.to_owned(), reason: "has none".to_owned() };
        let problem = Problem::not_covered(["a", "b", "c", "d", "e"].map(one).into());
        assert_eq!(problem.uncovered().len(), 5);
        assert!(problem.detail.contains("'c' has none; and 2 more"), "{problem}");
    }

    #[test]
    fn broken_text_is_malformed() {
        assert_eq!(read_json::<Body>(b"{").expect_err("broken").status, 400);
        assert_eq!(read_json::<Body>(br#"{"a/b": []} x"#).expect_err("trailing").status, 400);
    }
}

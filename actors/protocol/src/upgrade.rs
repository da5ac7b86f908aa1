//! What a new version of a task is, from the old one and what is to be different.

use agentflow_core::limits;
use agentflow_core::spec::{Payload, Spec};
use serde_json::{Map, Value};

use crate::problem::{FieldError, read_json};
use crate::submit::{Checked, TaskBody, headline, short_form};

/// Fields that are the payload: each takes the place of the whole old one.
const PAYLOAD: [&str; 6] = ["kind", "command", "argv", "path", "args", "name"];

/// Fields of a task that are no part of a version.
const OUTSIDE: [(&str, &str); 7] = [
    ("title", "use new_title"),
    ("group", "use PATCH /tasks/{id}"),
    ("priority", "use PATCH /tasks/{id}"),
    ("needs", "use POST /relationships"),
    ("hold", "it is said when a task is made"),
    ("not_before", "it is said when a task is made"),
    ("idempotency_key", "it is said when a task is made"),
];

/// What is to be different.
#[derive(Clone, Copy, Debug)]
pub struct Upgrade<'a> {
    /// Another title.
    pub title: Option<&'a str>,
    /// Another description.
    pub description: Option<&'a str>,
    /// Fields of a task.
    pub fields: Option<&'a Map<String, Value>>,
}

impl Upgrade<'_> {
    /// The new title and specification, and the checked fields alone.
    ///
    /// # Errors
    /// One entry per bad field.
    pub fn apply(&self, title: &str, old: &Spec) -> Result<(String, Spec, Checked), Vec<FieldError>> {
        let mut errors = Vec::new();
        let mut wrong = |field: &str, detail: String| {
            errors.push(FieldError { pointer: format!("/{field}"), detail });
        };
        let is_title = |title: &str| title.chars().count() <= limits::TITLE_CHARS && !title.contains('\0');
        if !self.title.is_none_or(is_title) {
            wrong("new_title", format!("allowed: up to {} characters without NUL", limits::TITLE_CHARS));
        }
        let empty = Map::new();
        let fields = self.fields.unwrap_or(&empty);
        for (field, instead) in OUTSIDE.iter().filter(|(field, _)| fields.contains_key(*field)) {
            wrong(&format!("new_spec/{field}"), format!("is no part of a version; {instead}"));
        }
        if self.description.is_some() && fields.contains_key("description") {
            wrong("new_spec/description", "stands beside new_description; give one of them".to_owned());
        }
        let has_payload =
            PAYLOAD.iter().any(|field| fields.get(*field).is_some_and(|value| !value.is_null()));
        if !has_payload && let Some(field) = PAYLOAD.iter().find(|field| fields.contains_key(**field)) {
            wrong(
                &format!("new_spec/{field}"),
                "a task must have something to do; give another payload".to_owned(),
            );
        }
        let (description, its_field) = match self.description {
            Some(text) => (Some(text), "new_description"),
            None => (fields.get("description").and_then(Value::as_str), "new_spec/description"),
        };
        let derived = description.filter(|_| !has_payload && is_short_form(old));
        let derived = derived.map(|text| match short_form(text) {
            Ok(Payload::Milestone) => Err("is empty: the task would have nothing to do".to_owned()),
            other => other,
        });
        if let Some(Err(why)) = &derived {
            wrong(its_field, why.clone());
        }
        if description.is_some_and(|text| text.contains('\0')) {
            wrong(its_field, "holds a NUL character".to_owned());
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        let checked = read(fields)?;
        let mut spec = old.clone();
        if has_payload {
            spec.payload = checked.spec.payload.clone();
        }
        fields.keys().for_each(|field| take(&mut spec, field, &checked.spec));
        if let Some(text) = description {
            spec.description = Some(text.to_owned()).filter(|text| !text.is_empty());
        }
        if let Some(Ok(payload)) = derived {
            spec.payload = payload;
        }
        let title = match self.title {
            Some(title) => title.to_owned(),
            // It was made from the old payload.
            None if title == headline(&old.payload) => headline(&spec.payload),
            None => title.to_owned(),
        };
        if spec.canonical().len() - spec.input.as_ref().map_or(0, |input| input.to_string().len())
            > limits::SPEC_BYTES
        {
            let detail = format!("the task would be larger than {} bytes", limits::SPEC_BYTES);
            return Err(vec![FieldError { pointer: "/new_spec".to_owned(), detail }]);
        }
        Ok((title, spec, checked))
    }
}

/// Whether what a task does follows from its description.
fn is_short_form(spec: &Spec) -> bool {
    spec.description.as_deref().is_some_and(|text| short_form(text).as_ref() == Ok(&spec.payload))
}

/// The fields as those of a task; `null` is the default. Whether a description says what to do depends
/// on the old one, so that its text is not looked at here.
fn read(fields: &Map<String, Value>) -> Result<Checked, Vec<FieldError>> {
    let given: Map<String, Value> = fields
        .iter()
        .filter(|(name, value)| !value.is_null() && (*name != "description" || !value.is_string()))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    let text = Value::from(given).to_string();
    let body: TaskBody = read_json(text.as_bytes()).map_err(|problem| {
        let below =
            |error: FieldError| FieldError { pointer: format!("/new_spec{}", error.pointer), ..error };
        problem.errors.into_iter().map(below).collect::<Vec<_>>()
    })?;
    body.check("/new_spec")
}

fn take(spec: &mut Spec, field: &str, new: &Spec) {
    match field {
        "description" => spec.description.clone_from(&new.description),
        "input" => {
            spec.input.clone_from(&new.input);
            spec.input_parts.clone_from(&new.input_parts);
        }
        "labels" => spec.labels.clone_from(&new.labels),
        "resources" => spec.resources.clone_from(&new.resources),
        "concurrency_keys" => spec.concurrency_keys.clone_from(&new.concurrency_keys),
        "locks" => spec.locks.clone_from(&new.locks),
        "retry" => spec.retry.clone_from(&new.retry),
        "queue_timeout_ms" => spec.queue_timeout_ms = new.queue_timeout_ms,
        "timeout_ms" => spec.timeout_ms = new.timeout_ms,
        "idle_timeout_ms" => spec.idle_timeout_ms = new.idle_timeout_ms,
        "cancel_grace_ms" => spec.cancel_grace_ms = new.cancel_grace_ms,
        "env" => spec.env.clone_from(&new.env),
        "artifacts" => spec.artifacts.clone_from(&new.artifacts),
        "artifacts_from" => spec.artifacts_from.clone_from(&new.artifacts_from),
        "workdir" => spec.workdir.clone_from(&new.workdir),
        "on_disconnect" => spec.on_disconnect = new.on_disconnect,
        "sandbox" => spec.sandbox = new.sandbox,
        "checkpoint_file" => spec.checkpoint_file.clone_from(&new.checkpoint_file),
        "worktree" => spec.worktree.clone_from(&new.worktree),
        "keep_checkpoints" => spec.keep_checkpoints = new.keep_checkpoints,
        "continue_from" => spec.continue_from = new.continue_from,
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn spec(body: Value) -> Spec {
        let body: TaskBody = serde_json::from_value(body).expect("a task");
        body.check("").expect("valid").spec
    }

    fn upgraded(old: &Spec, description: Option<&str>, fields: Value) -> Result<Spec, Vec<FieldError>> {
        let fields = fields.as_object().expect("an object");
        let upgrade = Upgrade { title: None, description, fields: Some(fields) };
        upgrade.apply("t", old).map(|(_, spec, _)| spec)
    }

    #[test]
    fn fields_take_the_place_of_the_old_ones() {
        let old = spec(json!({"command": "make", "env": {"A": "1"}, "timeout_ms": 5, "input": {"n": 1}}));
        let new =
            upgraded(&old, None, json!({"argv": ["make", "all"], "timeout_ms": null, "retry": {"max": 2}}));
        let same =
            json!({"argv": ["make", "all"], "env": {"A": "1"}, "retry": {"max": 2}, "input": {"n": 1}});
        assert_eq!(new, Ok(spec(same)));
    }

    #[test]
    fn a_description_that_is_the_work_changes_the_work() {
        let short = spec(json!({"description": "shell: echo one"}));
        let new = upgraded(&short, Some("shell: echo two"), json!({})).expect("valid");
        assert_eq!(new, spec(json!({"description": "shell: echo two"})));
        let plain = spec(json!({"description": "for people", "command": "make"}));
        let new = upgraded(&plain, Some("for others"), json!({})).expect("valid");
        assert_eq!(new, spec(json!({"description": "for others", "command": "make"})));
        let errors = upgraded(&short, Some(""), json!({})).expect_err("nothing to do");
        assert!(errors[0].pointer == "/new_description" && errors[0].detail.contains("nothing to do"));
    }

    #[test]
    fn a_title_that_was_made_from_the_work_is_made_anew() {
        let old = spec(json!({"command": "make"}));
        let fields = json!({"command": "make all"});
        let upgrade = Upgrade { title: None, description: None, fields: fields.as_object() };
        assert_eq!(upgrade.apply("make", &old).map(|(title, ..)| title), Ok("make all".to_owned()));
        assert_eq!(upgrade.apply("Build", &old).map(|(title, ..)| title), Ok("Build".to_owned()));
        let titled = Upgrade { title: Some("Other"), ..upgrade };
        assert_eq!(titled.apply("make", &old).map(|(title, ..)| title), Ok("Other".to_owned()));
    }

    #[test]
    fn bad_fields_are_named() {
        let old = spec(json!({"command": "make"}));
        let pointer = |fields: Value| upgraded(&old, None, fields).expect_err("wrong")[0].pointer.clone();
        assert_eq!(pointer(json!({"title": "x"})), "/new_spec/title");
        assert_eq!(pointer(json!({"command": null})), "/new_spec/command");
        assert_eq!(pointer(json!({"retry": {"max": -1}})), "/new_spec/retry/max");
        assert_eq!(pointer(json!({"retry": {"max": 5_000}})), "/new_spec/retry/max");
        assert_eq!(pointer(json!({"nothing": 1})), "/new_spec/nothing");
        assert_eq!(pointer(json!({"kind": "exec", "command": "x"})), "/new_spec/command");
    }

    #[test]
    fn every_field_of_a_specification_can_be_changed() {
        let all = json!({
            "command": "x", "description": "d", "input": 1, "labels": {"a": "b"}, "resources": {"cpus": 1.0},
            "concurrency_keys": ["k"], "locks": ["src/**"], "retry": {"max": 1}, "queue_timeout_ms": 1, "timeout_ms": 1,
            "idle_timeout_ms": 1, "cancel_grace_ms": 1, "env": {"A": "b"}, "artifacts": ["a"],
            "artifacts_from": [1], "workdir": "/tmp", "on_disconnect": "stop", "sandbox": "none",
            "checkpoint_file": "f", "worktree": true, "keep_checkpoints": 2, "continue_from": "beginning"
        });
        let (old, whole) = (spec(json!({"command": "y"})), spec(all.clone()));
        let new = upgraded(&old, None, all).expect("valid");
        assert_eq!(new, whole);
        let names = serde_json::to_value(&whole).expect("plain data");
        let plain = serde_json::to_value(&old).expect("plain data");
        for (name, value) in names.as_object().expect("fields") {
            assert!(name == "kind" || plain.get(name) != Some(value), "{name} is not changed by this test");
        }
    }
}

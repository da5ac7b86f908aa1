//! The checks of a task's fields, one error for each that is wrong.

use std::collections::{BTreeMap, BTreeSet};

use agentflow_core::ids::TaskId;
use agentflow_core::limits;
use agentflow_core::spec::{Payload, Resources, RetryPolicy, Spec, Worktree};

use super::{
    Priority, ResourcesBody, RetryBody, Sources, TaskBody, TaskRef, WorktreeBody, check_idempotency_key,
    check_name,
};
use crate::problem::FieldError;

/// Whether a path stays within the directory that it counts from.
///
/// # Errors
/// Says what is allowed.
pub(crate) fn check_inner_path(path: &str) -> Result<(), String> {
    let steps_out = path.split('/').any(|step| matches!(step, "." | ".." | ""));
    if path.len() > limits::PATH_BYTES || path.chars().any(char::is_control) || steps_out {
        let most = limits::PATH_BYTES;
        return Err(format!(
            "allowed: 1 to {most} bytes, relative, with '/' between names, without '.', '..' and control characters"
        ));
    }
    Ok(())
}

/// Wrong fields that are named in one answer. A list may have ten thousand of them.
const ERRORS: usize = 100;

/// Collects the errors of one body.
pub(crate) struct Check<'a> {
    pub(crate) at: &'a str,
    pub(crate) errors: Vec<FieldError>,
}

impl Check<'_> {
    pub(crate) fn wrong(&mut self, field: &str, detail: impl Into<String>) {
        let slash = if field.is_empty() { "" } else { "/" };
        self.errors.push(FieldError { pointer: format!("{}{slash}{field}", self.at), detail: detail.into() });
    }

    /// Whether so much is wrong that looking on says no more.
    pub(crate) fn is_enough(&self) -> bool {
        self.errors.len() >= ERRORS
    }

    /// PostgreSQL stores no NUL in text, and no process takes one in its arguments.
    pub(crate) fn clean(&mut self, field: &str, text: &str) {
        if text.contains('\0') {
            self.wrong(field, "holds a NUL character");
        }
    }

    pub(crate) fn name(&mut self, field: &str, name: &str) {
        if let Err(why) = check_name(name) {
            self.wrong(field, why);
        }
    }

    /// 50 when absent.
    pub(crate) fn priority(&mut self, priority: Option<&Priority>) -> u8 {
        match priority.map_or(Ok(50), Priority::number) {
            Ok(number) => number,
            Err(why) => {
                self.wrong("priority", why);
                0
            }
        }
    }

    pub(super) fn path(&mut self, field: &str, path: &str) {
        if path.is_empty() {
            self.wrong(field, "is empty");
        }
        self.clean(field, path);
    }

    pub(crate) fn idempotency_key(&mut self, key: &str) {
        if let Err(why) = check_idempotency_key(key) {
            self.wrong("idempotency_key", why);
        }
    }

    pub(super) fn names<'k>(&mut self, field: &str, keys: impl ExactSizeIterator<Item = &'k String>) {
        if keys.len() > limits::ENTRIES {
            self.wrong(field, format!("has more than {} entries", limits::ENTRIES));
            return;
        }
        for key in keys {
            if let Err(why) = check_name(key) {
                self.wrong(&format!("{field}/{key}"), why);
            }
        }
    }

    pub(super) fn map_values(&mut self, field: &str, map: &BTreeMap<String, String>) {
        for (key, value) in map {
            if value.len() > limits::NAME_BYTES || value.contains('\0') {
                let why = format!("allowed: up to {} bytes without NUL", limits::NAME_BYTES);
                self.wrong(&format!("{field}/{key}"), why);
            }
        }
    }

    pub(super) fn environment(&mut self, env: &BTreeMap<String, String>) {
        self.names("env", env.keys());
        for (key, value) in env {
            if key.contains('=') || key.starts_with("AGENTFLOW_") {
                self.wrong(&format!("env/{key}"), "a name has no '=' and does not begin with AGENTFLOW_");
            }
            self.clean(&format!("env/{key}"), value);
        }
    }

    pub(super) fn timeout(&mut self, field: &str, ms: Option<u64>) -> Option<u64> {
        if ms.is_some_and(|ms| ms == 0 || ms > limits::TIMEOUT_MS) {
            self.wrong(field, format!("allowed: 1 to {}", limits::TIMEOUT_MS));
        }
        ms
    }

    pub(super) fn resources(&mut self, body: ResourcesBody) -> Resources {
        if !(0.0..=100_000.0).contains(&body.cpus) {
            self.wrong("resources/cpus", "allowed: 0 to 100000");
        }
        self.names("resources/custom", body.custom.keys());
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked above")]
        let cpus_milli = (body.cpus.clamp(0.0, 100_000.0) * 1_000.0).round() as u32;
        Resources { cpus_milli, memory_mb: body.memory_mb, gpus: body.gpus, custom: body.custom }
    }

    pub(super) fn retry(&mut self, body: RetryBody) -> RetryPolicy {
        let usual = RetryPolicy::default();
        let policy = RetryPolicy {
            max: body.max.unwrap_or(usual.max),
            backoff_ms: body.backoff_ms.unwrap_or(usual.backoff_ms),
            factor: body.factor.unwrap_or(usual.factor),
            jitter: body.jitter.unwrap_or(usual.jitter),
            on: body.on.unwrap_or_default(),
            max_lost: body.max_lost.unwrap_or(usual.max_lost),
        };
        if policy.max > limits::RETRIES {
            self.wrong("retry/max", format!("allowed: 0 to {}", limits::RETRIES));
        }
        if policy.max_lost > limits::RETRIES {
            self.wrong("retry/max_lost", format!("allowed: 0 to {}", limits::RETRIES));
        }
        if policy.backoff_ms > limits::TIMEOUT_MS {
            self.wrong("retry/backoff_ms", format!("allowed: 0 to {}", limits::TIMEOUT_MS));
        }
        if !(1.0..=100.0).contains(&policy.factor) {
            self.wrong("retry/factor", "allowed: 1 to 100");
        }
        if !(0.0..=1.0).contains(&policy.jitter) {
            self.wrong("retry/jitter", "allowed: 0 to 1");
        }
        policy
    }

    /// Finds the payload, and names every payload field that belongs to another kind.
    pub(super) fn payload(&mut self, body: &TaskBody) -> Payload {
        let given: Vec<&str> = [
            ("command", body.command.is_some()),
            ("argv", body.argv.is_some()),
            ("path", body.path.is_some()),
            ("args", body.args.is_some()),
            ("name", body.name.is_some()),
        ]
        .into_iter()
        .filter_map(|(field, present)| present.then_some(field))
        .collect();
        let kind = match (body.kind.as_deref(), given.as_slice()) {
            (Some(kind), _) => kind,
            (None, []) => return self.short_form(body.description.as_deref()),
            (None, [first, ..]) => match *first {
                "command" => "shell",
                "argv" => "exec",
                "path" | "args" => "script",
                _ => "handler",
            },
        };
        let allowed: &[&str] = match kind {
            "shell" => &["command"],
            "exec" => &["argv"],
            "script" => &["path", "args"],
            "handler" => &["name"],
            "noop" => &[],
            "agent" | "skill" => {
                self.wrong("kind", format!("'{kind}' is not served by this version yet"));
                return Payload::Milestone;
            }
            _ => {
                self.wrong(
                    "kind",
                    format!("'{kind}' is unknown; allowed: shell, exec, script, handler, noop"),
                );
                return Payload::Milestone;
            }
        };
        for field in given.iter().filter(|field| !allowed.contains(field)) {
            self.wrong(field, format!("does not belong to kind '{kind}'"));
        }
        match kind {
            "shell" => Payload::Shell { command: self.text("command", body.command.as_deref()) },
            "exec" => Payload::Exec { argv: self.argv(body.argv.as_deref()) },
            "script" => {
                let args = body.args.clone().unwrap_or_default();
                for (i, arg) in args.iter().enumerate() {
                    self.clean(&format!("args/{i}"), arg);
                }
                Payload::Script { path: self.text("path", body.path.as_deref()), args }
            }
            "handler" => {
                let name = self.text("name", body.name.as_deref());
                self.name("name", &name);
                Payload::Handler { name }
            }
            _ => Payload::Noop,
        }
    }

    pub(super) fn keys(&mut self, mut keys: Vec<String>) -> Vec<String> {
        if keys.len() > limits::KEYS_PER_TASK {
            let (count, most) = (keys.len(), limits::KEYS_PER_TASK);
            self.wrong("concurrency_keys", format!("{count} keys; at most {most}"));
        }
        for (at, key) in keys.iter().enumerate().take(limits::KEYS_PER_TASK) {
            self.name(&format!("concurrency_keys/{at}"), key);
        }
        keys.sort_unstable();
        keys.dedup();
        keys
    }

    pub(super) fn needs(&mut self, needs: &[TaskRef]) -> Vec<TaskId> {
        if needs.len() > limits::NEEDS {
            self.wrong("needs", format!("{} tasks; at most {}", needs.len(), limits::NEEDS));
        }
        let mut ids = BTreeSet::new();
        for (at, need) in needs.iter().take(limits::NEEDS).enumerate() {
            match need.id() {
                Ok(id) => drop(ids.insert(id)),
                Err(why) => self.wrong(&format!("needs/{at}"), why),
            }
        }
        ids.into_iter().collect()
    }

    pub(super) fn worktree(&mut self, body: WorktreeBody, payload: &Payload) -> Option<Worktree> {
        let worktree = match body {
            WorktreeBody::Plain(false) => return None,
            WorktreeBody::Plain(true) => Worktree::default(),
            WorktreeBody::At(at) => Worktree { base: at.base },
        };
        if !matches!(payload, Payload::Shell { .. } | Payload::Exec { .. } | Payload::Script { .. }) {
            self.wrong("worktree", "is for tasks with a process of their own: shell, exec, script");
        }
        let is_name = |base: &str| {
            !base.is_empty()
                && base.len() <= limits::PATH_BYTES
                && !base.starts_with('-')
                && !base.chars().any(char::is_control)
        };
        if worktree.base.as_deref().is_some_and(|base| !is_name(base)) {
            self.wrong("worktree/base", "allowed: a branch, tag or commit, without '-' before it");
        }
        Some(worktree)
    }

    pub(super) fn artifacts(&mut self, paths: Vec<String>) -> Vec<String> {
        if paths.len() > limits::ARTIFACT_ENTRIES {
            let (count, most) = (paths.len(), limits::ARTIFACT_ENTRIES);
            self.wrong("artifacts", format!("has {count} entries; at most {most}"));
        }
        for (at, path) in paths.iter().enumerate().take(limits::ARTIFACT_ENTRIES) {
            let field = format!("artifacts/{at}");
            if let Err(why) = check_inner_path(path) {
                self.wrong(&field, why);
            } else if let Err(error) = glob::Pattern::new(path) {
                self.wrong(&field, format!("is no pattern: {} at character {}", error.msg, error.pos + 1));
            }
        }
        paths
    }

    pub(super) fn sources(&mut self, sources: Sources) -> BTreeMap<String, TaskId> {
        const FIELD: &str = "artifacts_from";
        let mut from = BTreeMap::new();
        match sources {
            Sources::Numbered(tasks) => {
                for (at, task) in tasks.iter().enumerate() {
                    match task.id() {
                        Ok(id) => drop(from.insert(id.to_string(), id)),
                        Err(why) => self.wrong(&format!("{FIELD}/{at}"), why),
                    }
                }
            }
            Sources::Named(tasks) => {
                for (name, task) in tasks {
                    let at = format!("{FIELD}/{name}");
                    if let Err(why) = check_inner_path(&name).and_then(|()| check_name(&name)) {
                        self.wrong(&at, why);
                    } else if name.contains('/') {
                        self.wrong(&at, "is the name of one directory, without '/'");
                    }
                    match task.id() {
                        Ok(id) => drop(from.insert(name, id)),
                        Err(why) => self.wrong(&at, why),
                    }
                }
            }
        }
        if from.len() > limits::ARTIFACT_ENTRIES {
            self.wrong(FIELD, format!("names {} tasks; at most {}", from.len(), limits::ARTIFACT_ENTRIES));
        }
        from
    }

    /// The input has a limit of its own: it is put aside if it is large.
    pub(super) fn size(&mut self, spec: &Spec) {
        let all = spec.canonical().len();
        if all <= limits::INPUT_BYTES {
            return;
        }
        let input = spec.input.as_ref().map_or(0, |input| input.to_string().len());
        if input as u64 > limits::VALUE_BYTES {
            self.wrong("input", format!("has {input} bytes; at most {}", limits::VALUE_BYTES));
        }
        if all - input > limits::SPEC_BYTES {
            self.wrong("", format!("the task is larger than {} bytes", limits::SPEC_BYTES));
        }
    }

    pub(super) fn text(&mut self, field: &str, text: Option<&str>) -> String {
        let text = text.unwrap_or_default();
        if text.trim().is_empty() {
            self.wrong(field, "is missing or empty");
        }
        self.clean(field, text);
        text.to_owned()
    }

    pub(super) fn argv(&mut self, argv: Option<&[String]>) -> Vec<String> {
        let argv = argv.unwrap_or_default();
        if argv.first().is_none_or(String::is_empty) {
            self.wrong("argv", "is missing or empty; the first entry is the program");
        }
        for (i, arg) in argv.iter().enumerate() {
            self.clean(&format!("argv/{i}"), arg);
        }
        argv.to_vec()
    }

    pub(super) fn short_form(&mut self, description: Option<&str>) -> Payload {
        let Some(text) = description.map(str::trim).filter(|text| !text.is_empty()) else {
            return Payload::Milestone;
        };
        if let Some(command) = text.strip_prefix("shell:") {
            return Payload::Shell { command: self.text("description", Some(command.trim())) };
        }
        if let Some(path) = text.strip_prefix("script:") {
            return Payload::Script { path: self.text("description", Some(path.trim())), args: Vec::new() };
        }
        let skill = text.strip_prefix('/').and_then(|rest| rest.split_whitespace().next());
        let is_skill = skill.is_some_and(|word| word.chars().all(|c| c.is_ascii_alphanumeric() || c == '-'));
        if text.starts_with("agent:") || (is_skill && !text.contains(['|', ';', '&', '>'])) {
            self.wrong("description", "agents and skills are not served by this version yet");
        }
        Payload::Shell { command: text.to_owned() }
    }
}

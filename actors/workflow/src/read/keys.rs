//! The keys of workflow files.

/// Keys of a workflow.
pub const FILE: [&str; 10] = [
    "version",
    "name",
    "mode",
    "vars",
    "defaults",
    "max_parallel",
    "fail_fast",
    "continue_on_failure",
    "items",
    "tasks",
];

/// Keys of a task that say when, how often and what around it; everything else is in its body.
pub(super) const TASK: [&str; 13] = [
    "needs",
    "artifacts_from",
    "when",
    "on_failure",
    "foreach",
    "max_parallel",
    "collect",
    "loop",
    "approval",
    "workflow",
    "vars",
    "run",
    "handler",
];

/// Fields of a task's body, as it would be posted. Whether a server knows them all is for
/// [`crate::CheckTask`] to say.
pub(super) const BODY: [&str; 41] = [
    "title",
    "description",
    "group",
    "priority",
    "labels",
    "resources",
    "concurrency_keys",
    "locks",
    "retry",
    "queue_timeout_ms",
    "timeout_ms",
    "idle_timeout_ms",
    "cancel_grace_ms",
    "idempotency_key",
    "not_before",
    "env",
    "workdir",
    "on_disconnect",
    "sandbox",
    "network",
    "allow_hosts",
    "writable",
    "limits",
    "artifacts",
    "checkpoint_file",
    "worktree",
    "keep_checkpoints",
    "continue_from",
    "kind",
    "command",
    "argv",
    "path",
    "args",
    "name",
    "input",
    "runner",
    "prompt",
    "session",
    "model",
    "budget_usd",
    "max_turns",
];

/// Keys by which a task says what kind of work it is.
const SELECTORS: [&str; 9] =
    ["run", "handler", "kind", "command", "argv", "path", "runner", "prompt", "description"];

/// Keys that go with one kind of work.
const PAYLOAD: [&str; 14] = [
    "kind",
    "command",
    "argv",
    "path",
    "args",
    "name",
    "input",
    "runner",
    "prompt",
    "session",
    "model",
    "budget_usd",
    "max_turns",
    "description",
];

/// Whether the key makes a task of what would be a milestone.
pub(super) fn is_work(key: &str) -> bool {
    SELECTORS.contains(&key)
}

/// Whether the key belongs to one kind of work.
pub(super) fn is_payload(key: &str) -> bool {
    PAYLOAD.contains(&key)
}

/// Whether the key's maps are merged with those of `defaults`.
pub(super) fn is_merged(key: &str) -> bool {
    matches!(key, "env" | "labels" | "resources" | "retry" | "limits")
}

/// Why that is no name, if it is none.
pub(super) fn bad_name(name: &str) -> Option<String> {
    let allowed = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.');
    if !name.is_empty() && name.len() <= crate::limits::NAME_BYTES && name.chars().all(allowed) {
        return None;
    }
    let bytes = crate::limits::NAME_BYTES;
    let name: String = name.chars().take(40).flat_map(char::escape_debug).collect();
    Some(format!("'{name}' is no name; allowed: 1 to {bytes} bytes of letters, digits, '_', '-' and '.'"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    /// The keys of that part of the schema are exactly these.
    fn check(pointer: &str, expect: &[&[&str]]) {
        let schema: Value = serde_json::from_str(crate::schema()).expect("JSON");
        let properties = schema.pointer(pointer).and_then(Value::as_object).expect(pointer);
        let mut have: Vec<&str> = properties.keys().map(String::as_str).collect();
        let mut expect: Vec<&str> = expect.concat();
        have.sort_unstable();
        expect.sort_unstable();
        assert_eq!(have, expect, "{pointer}");
    }

    #[test]
    fn the_schema_knows_the_same_keys() {
        check("/properties", &[&FILE]);
        check("/$defs/child/properties", &[&FILE]);
        check("/$defs/task/properties", &[&TASK, &BODY]);
        check("/$defs/defaults/properties", &[&BODY]);
    }
}

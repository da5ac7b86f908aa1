//! The lines that the agent prints (`--output-format stream-json`), and reading their results again.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};

use super::script::Tool;
use crate::harness::Failure;

/// What each line has of its session.
#[derive(Debug)]
pub(super) struct Session {
    /// Like a UUID.
    pub(super) id: String,
    /// Lines so far.
    lines: u32,
}

impl Session {
    pub(super) fn new(id: String) -> Self {
        Self { id, lines: 0 }
    }

    /// Prints a line of that type.
    fn line(&mut self, kind: &str, mut fields: Value) {
        self.lines += 1;
        fields["type"] = json!(kind);
        fields["session_id"] = json!(self.id);
        fields["uuid"] = json!(format!("{}-{}", self.id, self.lines));
        println!("{fields}");
    }

    pub(super) fn begins(&mut self, cwd: &Path) {
        let fields = json!({
            "subtype": "init", "cwd": cwd, "model": "fake", "tools": ["Bash", "Edit", "Write"],
            "mcp_servers": [], "permissionMode": "acceptEdits", "slash_commands": [], "agents": [],
            "skills": [], "plugins": [], "apiKeySource": "none", "claude_code_version": "0.0.0-fake",
        });
        self.line("system", fields);
    }

    pub(super) fn calls(&mut self, id: &str, tool: &Tool, input: &Value) {
        let message = json!({
            "id": format!("msg_{id}"), "type": "message", "role": "assistant", "model": "fake",
            "content": [{ "type": "tool_use", "id": id, "name": tool.name(), "input": input }],
            "stop_reason": "tool_use", "usage": { "input_tokens": 0, "output_tokens": 0 },
        });
        self.line("assistant", json!({ "message": message, "parent_tool_use_id": null }));
    }

    pub(super) fn hears(&mut self, id: &str, outcome: &Outcome) {
        let content = json!([{
            "type": "tool_result", "tool_use_id": id, "content": outcome.said, "is_error": outcome.is_error,
        }]);
        let message = json!({ "role": "user", "content": content });
        self.line("user", json!({ "message": message, "parent_tool_use_id": null }));
    }

    pub(super) fn ends(&mut self, error: Option<&str>, turns: usize, denials: &[Value]) {
        let subtype = if error.is_some() { "error_during_execution" } else { "success" };
        let fields = json!({
            "subtype": subtype, "is_error": error.is_some(), "result": error.unwrap_or("done"),
            "errors": error.into_iter().collect::<Vec<_>>(), "num_turns": turns, "duration_ms": 0,
            "duration_api_ms": 0, "total_cost_usd": 0.0, "usage": {}, "modelUsage": {},
            "permission_denials": denials, "stop_reason": "end_turn",
        });
        self.line("result", fields);
    }
}

/// What became of a call.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Outcome {
    /// It was refused, or failed.
    pub is_error: bool,
    /// What the agent reads.
    pub said: String,
}

/// The outcome of each call in a session's lines, by the call's id. Lines of types that are not known are
/// left out.
///
/// # Errors
/// When a line is no JSON.
pub fn outcomes(lines: &str) -> Result<BTreeMap<String, Outcome>, Failure> {
    let mut found = BTreeMap::new();
    for line in lines.lines() {
        let value: Value = serde_json::from_str(line).map_err(|error| format!("{error}: {line}"))?;
        let blocks = value.pointer("/message/content").and_then(Value::as_array);
        for block in blocks.into_iter().flatten().filter(|block| block["type"] == "tool_result") {
            let text = |name: &str| block[name].as_str().unwrap_or_default().to_owned();
            let outcome = Outcome { is_error: block["is_error"] == true, said: text("content") };
            found.insert(text("tool_use_id"), outcome);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_read_by_their_id() {
        let lines = r#"{"type":"system","subtype":"init"}
{"type":"assistant","message":{"content":[{"type":"tool_use","id":"a","name":"Bash"}]}}
{"type":"user","message":{"content":[{"type":"tool_result","tool_use_id":"a","content":"no","is_error":true}]}}
{"type":"result","subtype":"success"}"#;
        let found = outcomes(lines).expect("lines");
        let no = Outcome { is_error: true, said: "no".to_owned() };
        assert_eq!(found, BTreeMap::from([("a".to_owned(), no)]));
        assert!(outcomes("text").is_err());
    }
}

//! What the agent does, in the place of a model that decides it.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// The calls of a session, one after another.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Script {
    /// In this order.
    pub calls: Vec<Call>,
}

/// One call of a tool.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Call {
    /// By which its result is known; one is made up where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Without it there is no point in going on: where it is refused or fails, the agent gives up.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub required: bool,
    /// What is called.
    #[serde(flatten)]
    pub tool: Tool,
}

/// A tool with its input.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "tool")]
pub enum Tool {
    /// Writes a whole file.
    Write {
        /// From the working directory, or absolute.
        file_path: String,
        /// All of it.
        content: String,
    },
    /// Puts one text in the place of another, which must be there once.
    Edit {
        /// From the working directory, or absolute.
        file_path: String,
        /// What is there.
        old_string: String,
        /// What will be.
        new_string: String,
    },
    /// Runs a line of the shell.
    Bash {
        /// The line.
        command: String,
    },
}

impl Tool {
    /// As hooks and results call it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Write { .. } => "Write",
            Self::Edit { .. } => "Edit",
            Self::Bash { .. } => "Bash",
        }
    }

    /// `tool_input`, where paths are absolute.
    pub(super) fn input(&self, cwd: &Path) -> Value {
        let whole = |path: &str| cwd.join(path).display().to_string();
        match self {
            Self::Write { file_path, content } => {
                json!({ "file_path": whole(file_path), "content": content })
            }
            Self::Edit { file_path, old_string, new_string } => json!({
                "file_path": whole(file_path), "old_string": old_string, "new_string": new_string,
                "replace_all": false,
            }),
            Self::Bash { command } => json!({ "command": command }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_is_json() {
        let text = r#"{"calls": [
            {"tool": "Write", "file_path": "a", "content": "x"},
            {"tool": "Edit", "file_path": "/b", "old_string": "x", "new_string": "y", "required": true},
            {"tool": "Bash", "command": "true", "id": "toolu_1"}]}"#;
        let script: Script = serde_json::from_str(text).expect("a script");
        let names: Vec<&str> = script.calls.iter().map(|call| call.tool.name()).collect();
        assert_eq!(names, ["Write", "Edit", "Bash"]);
        let input = |at: usize| script.calls[at].tool.input(Path::new("/r"));
        assert_eq!((&input(0)["file_path"], &input(1)["file_path"]), (&json!("/r/a"), &json!("/b")));
        let again: Script = serde_json::from_value(json!(script)).expect("a script");
        assert_eq!(json!(again), json!(script));
    }
}

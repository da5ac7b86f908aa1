//! A tool call of an agent CLI, as its hooks are told of it: which files it is about to change.
//!
//! Claude Code, Codex and Gemini CLI write `tool_name`, `tool_input`, `cwd` and `hook_event_name`; others
//! differ in spelling. What a tool does is known by its name.

use std::path::PathBuf;

use serde_json::Value;

use super::patch;

/// Bytes of a call: what agents write into one file at once is far smaller.
pub(crate) const CALL_BYTES: u64 = 10 << 20;

/// Tools that write the files which they name, in small letters and without `_`.
const WRITERS: &[&str] = &[
    "create",
    "delete",
    "edit",
    "editnotebook",
    "multiedit",
    "notebookedit",
    "replace",
    "searchreplace",
    "strreplace",
    "tabwrite",
    "write",
];

/// Those of them that MCP servers have too, where `create` may make anything.
const FILE_WRITERS: &[&str] = &[
    "createfile",
    "deletefile",
    "editfile",
    "movefile",
    "strreplacebasededittool",
    "strreplaceeditor",
    "writefile",
];

/// Tools that take a patch.
const PATCHERS: &[&str] = &["applypatch", "patch"];

/// Tools that run a command in a shell.
const SHELLS: &[&str] = &[
    "bash",
    "execcommand",
    "localshell",
    "runshellcommand",
    "runterminalcmd",
    "shell",
    "shellcommand",
    "terminal",
];

/// Fields that name a file.
const FILES: &[&str] = &[
    "file_path",
    "notebook_path",
    "absolute_path",
    "path",
    "filePath",
    "notebookPath",
    "file",
    "filename",
    "target_file",
    "target_notebook",
    "source",
    "destination",
    "old_path",
    "new_path",
];

/// Fields that hold a patch.
const PATCHES: &[&str] = &["command", "input", "patch", "patchText"];

/// What an agent is about to do.
#[derive(Debug)]
pub(crate) struct ToolCall {
    /// Where, if it says so.
    pub(crate) directory: Option<PathBuf>,
    /// The hook's name with this agent CLI.
    pub(crate) event: String,
    /// The files that it changes, or why they are not known.
    pub(crate) files: Result<Vec<PathBuf>, String>,
}

impl ToolCall {
    /// Reads a call.
    ///
    /// # Errors
    /// When it is none.
    pub(crate) fn of(call: &Value) -> Result<Self, String> {
        let text_of = |names: &[&str]| names.iter().find_map(|name| call.get(name)?.as_str());
        let tool = text_of(&["tool_name", "toolName"]).ok_or("the tool call does not name its tool")?;
        let roots = call.get("workspace_roots").and_then(|roots| roots.get(0)?.as_str());
        let directory = text_of(&["cwd"]).or(roots).filter(|cwd| !cwd.is_empty()).map(PathBuf::from);
        let event = text_of(&["hook_event_name", "hookEventName"]).unwrap_or_default().to_owned();
        let input = ["tool_input", "toolInput", "toolArgs"].iter().find_map(|name| call.get(*name));
        // Some write it as a text of its own.
        let input = match input {
            Some(Value::String(text)) => {
                serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.clone()))
            }
            Some(other) => other.clone(),
            None => Value::Null,
        };
        Ok(Self { directory, event, files: files(tool, &input) })
    }
}

/// The files that a tool changes.
fn files(tool: &str, input: &Value) -> Result<Vec<PathBuf>, String> {
    let (name, is_foreign) = match tool.rsplit_once("__").or_else(|| tool.rsplit_once(':')) {
        Some((_, name)) => (name, true),
        None => (tool, false),
    };
    let name: String =
        name.chars().filter(|c| c.is_ascii_alphanumeric()).map(|c| c.to_ascii_lowercase()).collect();
    let is_in = |names: &[&str]| names.contains(&name.as_str());
    let unknown =
        || format!("the tool {tool} writes files, and its call does not say which in a way that is known");
    if is_in(PATCHERS) {
        let files = match text_in(input, PATCHES) {
            Some(patch) => patch::files(&patch),
            None => named(input)?,
        };
        return if files.is_empty() { Err(unknown()) } else { Ok(files) };
    }
    if is_in(SHELLS) {
        return shell(input);
    }
    if is_in(FILE_WRITERS) || (is_in(WRITERS) && !is_foreign) {
        // One tool that reads as well.
        if input.get("command").and_then(Value::as_str) == Some("view") {
            return Ok(Vec::new());
        }
        let files = named(input)?;
        return if files.is_empty() { Err(unknown()) } else { Ok(files) };
    }
    Ok(Vec::new())
}

/// The files that a call names in its fields, and in those of a list of edits.
fn named(input: &Value) -> Result<Vec<PathBuf>, String> {
    let mut files = Vec::new();
    let lists =
        ["edits", "files", "changes"].iter().filter_map(|list| input.get(*list)?.as_array()).flatten();
    for object in std::iter::once(input).chain(lists) {
        for field in FILES {
            match object.get(*field) {
                None | Some(Value::Null) => {}
                Some(Value::String(path)) if !path.is_empty() => files.push(PathBuf::from(path)),
                Some(other) => return Err(format!("the tool call names the file {other} as its {field}")),
            }
        }
    }
    Ok(files)
}

/// The files that a shell command patches. What else it writes is not seen here.
fn shell(input: &Value) -> Result<Vec<PathBuf>, String> {
    let within = text_in(input, &["workdir", "cwd", "directory", "dir_path"]).unwrap_or_default();
    let files = match input.get("command").or_else(|| input.get("cmd")) {
        Some(Value::String(command)) => patch::files_of_command(command)?,
        Some(Value::Array(words)) => {
            let words: Vec<&str> = words.iter().filter_map(Value::as_str).collect();
            match words.split_first() {
                // The patch is an argument, or a shell reads a line that has it.
                Some((program, rest)) if program.ends_with("apply_patch") => {
                    rest.iter().flat_map(|word| patch::files(word)).collect()
                }
                Some((_, rest)) => {
                    let lists: Result<Vec<_>, _> =
                        rest.iter().map(|word| patch::files_of_command(word)).collect();
                    lists?.concat()
                }
                None => Vec::new(),
            }
        }
        _ => Vec::new(),
    };
    Ok(files.into_iter().map(|file| PathBuf::from(&within).join(file)).collect())
}

fn text_in(input: &Value, fields: &[&str]) -> Option<String> {
    match input {
        Value::String(text) => Some(text.clone()),
        _ => fields.iter().find_map(|field| input.get(*field)?.as_str()).map(str::to_owned),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn files_of(call: &Value) -> Result<Vec<String>, String> {
        let call = ToolCall::of(call)?;
        Ok(call.files?.into_iter().map(|file| file.display().to_string()).collect())
    }

    #[test]
    fn tools_that_write_name_their_files() {
        for (tool, input, expected) in [
            ("Edit", json!({"file_path": "/r/a", "old_string": "x"}), vec!["/r/a"]),
            ("Write", json!({"file_path": "/r/a b", "content": "x"}), vec!["/r/a b"]),
            ("MultiEdit", json!({"file_path": "/r/a", "edits": [{"old_string": "x"}]}), vec!["/r/a"]),
            ("NotebookEdit", json!({"notebook_path": "/r/n.ipynb"}), vec!["/r/n.ipynb"]),
            ("write_file", json!({"file_path": "src/a"}), vec!["src/a"]),
            ("replace", json!({"absolute_path": "/r/a"}), vec!["/r/a"]),
            ("StrReplace", json!({"path": "/r/a"}), vec!["/r/a"]),
            ("str_replace_editor", json!({"command": "create", "path": "/r/a"}), vec!["/r/a"]),
            ("mcp__files__move_file", json!({"source": "a", "destination": "b"}), vec!["a", "b"]),
            ("patch", json!({"patchText": "*** Add File: a\n+x"}), vec!["a"]),
            (
                "apply_patch",
                json!({"command": "*** Begin Patch\n*** Update File: a\n*** Move to: b\n"}),
                vec!["a", "b"],
            ),
            ("apply_patch", json!("*** Begin Patch\n*** Delete File: a\n"), vec!["a"]),
            (
                "Bash",
                json!({"command": "cd b && apply_patch <<E\n*** Begin Patch\n*** Add File: a\nE"}),
                vec!["b/a"],
            ),
            (
                "shell",
                json!({"command": ["apply_patch", "*** Begin Patch\n*** Add File: a\n"], "workdir": "w"}),
                vec!["w/a"],
            ),
            (
                "shell",
                json!({"command": ["bash", "-lc", "apply_patch <<E\n*** Begin Patch\n*** Add File: a\nE"]}),
                vec!["a"],
            ),
        ] {
            let call = json!({"tool_name": tool, "tool_input": input, "cwd": "/r"});
            assert_eq!(files_of(&call), Ok(expected.into_iter().map(str::to_owned).collect()), "{call}");
        }
        let other = json!({"toolName": "create", "toolArgs": "{\"path\": \"/r/a\"}"});
        assert_eq!(files_of(&other), Ok(vec!["/r/a".to_owned()]));
    }

    #[test]
    fn tools_that_write_no_files_pass() {
        for (tool, input) in [
            ("Read", json!({"file_path": "/r/a"})),
            ("Bash", json!({"command": "make && cat apply_patch"})),
            ("read_file", json!({"absolute_path": "/r/a"})),
            ("str_replace_editor", json!({"command": "view", "path": "/r/a"})),
            ("mcp__tickets__create", json!({"title": "a"})),
            ("WebFetch", json!({})),
        ] {
            let call = json!({"tool_name": tool, "tool_input": input});
            assert_eq!(files_of(&call), Ok(Vec::new()), "{call}");
        }
    }

    #[test]
    fn what_is_not_understood_is_said() {
        for call in [
            json!({"tool_name": "Edit", "tool_input": {"where": "/r/a"}}),
            json!({"tool_name": "Edit"}),
            json!({"tool_name": "Write", "tool_input": {"file_path": 5}}),
            json!({"tool_name": "apply_patch", "tool_input": {"command": "no patch"}}),
            json!({"tool_name": "Bash", "tool_input": {"command": "cd $X && apply_patch <<E\n*** Begin Patch\nE"}}),
            json!({"tool_input": {"file_path": "/r/a"}}),
            json!([1]),
        ] {
            assert!(files_of(&call).is_err(), "{call}");
        }
    }

    #[test]
    fn it_says_where_it_is() {
        let call = json!({"tool_name": "Edit", "workspace_roots": ["/w"], "hook_event_name": "preToolUse"});
        let call = ToolCall::of(&call).expect("a call");
        assert_eq!((call.directory, call.event.as_str()), (Some(PathBuf::from("/w")), "preToolUse"));
    }
}

//! The tools themselves.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use super::script::Tool;

/// What a tool prints or reports; `Err` is what the agent reads of a failure.
pub(super) fn call(tool: &Tool, cwd: &Path) -> Result<String, String> {
    match tool {
        Tool::Write { file_path, content } => write(&cwd.join(file_path), content),
        Tool::Edit { file_path, old_string, new_string } => {
            edit(&cwd.join(file_path), old_string, new_string)
        }
        Tool::Bash { command } => bash(command, cwd),
    }
}

fn write(path: &Path, content: &str) -> Result<String, String> {
    let failed = |error: std::io::Error| format!("{}: {error}", path.display());
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory).map_err(failed)?;
    }
    fs::write(path, content).map_err(failed)?;
    Ok(format!("File created successfully at: {}", path.display()))
}

fn edit(path: &Path, old: &str, new: &str) -> Result<String, String> {
    let failed = |error: std::io::Error| format!("{}: {error}", path.display());
    let text = fs::read_to_string(path).map_err(failed)?;
    match text.matches(old).count() {
        1 => {}
        0 => return Err("String to replace not found in file.".to_owned()),
        many => return Err(format!("Found {many} matches of the string to replace.")),
    }
    fs::write(path, text.replacen(old, new, 1)).map_err(failed)?;
    Ok(format!("The file {} has been updated.", path.display()))
}

/// By the shell that is there everywhere.
fn bash(command: &str, cwd: &Path) -> Result<String, String> {
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", command]).current_dir(cwd).stdin(Stdio::null());
    let output = shell.output().map_err(|error| error.to_string())?;
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let said = [out.trim_end(), err.trim_end()].join("\n").trim().to_owned();
    match output.status.code() {
        Some(0) => Ok(said),
        Some(code) => Err(format!("Exit code {code}\n{said}")),
        None => Err(format!("{}\n{said}", output.status)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tools_do_what_they_say() {
        let directory = tempfile::tempdir().expect("a directory");
        let cwd = directory.path();
        let text = |name: &str| fs::read_to_string(cwd.join(name)).expect("a file");
        let write = Tool::Write { file_path: "deep/a".into(), content: "one\ntwo\n".into() };
        call(&write, cwd).expect("written");
        let edit = |old: &str, new: &str| {
            let tool = Tool::Edit {
                file_path: cwd.join("deep/a").display().to_string(),
                old_string: old.into(),
                new_string: new.into(),
            };
            call(&tool, cwd)
        };
        edit("two", "three").expect("edited");
        assert_eq!(text("deep/a"), "one\nthree\n");
        assert!(edit("two", "x").is_err() && edit("e", "x").is_err());
        let bash = |command: &str| call(&Tool::Bash { command: command.into() }, cwd);
        assert_eq!(bash("cat deep/a"), Ok("one\nthree".to_owned()));
        assert_eq!(bash("echo no >&2; exit 7"), Err("Exit code 7\nno".to_owned()));
    }
}

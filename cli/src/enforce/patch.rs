//! The patches that Codex applies: which files they change.
//!
//! ```text
//! *** Begin Patch
//! *** Update File: src/a.rs
//! *** Move to: src/b.rs
//! @@
//! -one
//! +two
//! *** End Patch
//! ```

use std::path::{Path, PathBuf};

/// What every patch begins with.
const BEGIN: &str = "*** Begin Patch";

/// What stands before the name of a file.
const FILES: [&str; 4] = ["*** Add File: ", "*** Update File: ", "*** Delete File: ", "*** Move to: "];

/// The program that reads patches, in both of its spellings.
const PROGRAMS: [&str; 2] = ["apply_patch", "applypatch"];

/// The files that a patch names. A line of its text that looks like a name counts as one too: too many
/// are asked for rather than too few.
pub(super) fn files(patch: &str) -> Vec<PathBuf> {
    let lines = patch.lines().map(str::trim);
    let name = |line: &str| FILES.iter().find_map(|start| line.strip_prefix(start)).map(str::to_owned);
    lines.filter_map(name).map(|name| PathBuf::from(name.trim())).collect()
}

/// The files that a shell command patches, if it does, as they are seen from the directory in which it
/// is called.
///
/// # Errors
/// When it goes elsewhere before, in a way that is not understood.
pub(super) fn files_of_command(command: &str) -> Result<Vec<PathBuf>, String> {
    if !command.contains(BEGIN) {
        return Ok(Vec::new());
    }
    let Some(at) = PROGRAMS.iter().filter_map(|program| command.find(program)).min() else {
        return Ok(Vec::new());
    };
    let directory = directory_before(command[..at].trim()).ok_or_else(|| {
        "apply_patch is a part of a longer command, so that it is not seen which files it changes: call it \
         by itself"
            .to_owned()
    })?;
    Ok(files(command).into_iter().map(|file| directory.join(file)).collect())
}

/// Where a command is after this: nothing, or `cd DIRECTORY &&`.
fn directory_before(before: &str) -> Option<&Path> {
    if before.is_empty() {
        return Some(Path::new(""));
    }
    let word = before.strip_prefix("cd ")?.trim_start().strip_suffix("&&")?.trim_end();
    let inner = ["'", "\""].iter().find_map(|quote| word.strip_prefix(quote)?.strip_suffix(quote));
    let special = |c: char| "'\"\\$`!*?[]{}()<>|&;#~\n".contains(c);
    match inner {
        Some(inner) => (!inner.contains(special)).then(|| Path::new(inner)),
        None => (!word.contains(special) && !word.contains(char::is_whitespace)).then(|| Path::new(word)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATCH: &str = "*** Begin Patch\n*** Update File: src/a.rs\n*** Move to: src/b c.rs\n@@\n-x\n+*** Add File: no\n\
                         *** Add File: new.rs\r\n+text\n*** Delete File: old.rs\n*** End Patch\n";

    fn of_command(command: &str) -> Result<Vec<String>, String> {
        let files = files_of_command(command)?;
        Ok(files.into_iter().map(|file| file.display().to_string()).collect())
    }

    #[test]
    fn a_patch_names_files() {
        let names: Vec<PathBuf> = ["src/a.rs", "src/b c.rs", "new.rs", "old.rs"].map(PathBuf::from).into();
        assert_eq!(files(PATCH), names);
        assert!(files("+*** Add File: a\n").is_empty(), "a line of a file's text");
    }

    #[test]
    fn a_shell_command_may_patch() {
        let names = ["src/a.rs", "src/b c.rs", "new.rs", "old.rs"].map(str::to_owned);
        assert_eq!(of_command(&format!("apply_patch <<'EOF'\n{PATCH}EOF\n")), Ok(names.to_vec()));
        let within = names.clone().map(|name| format!("sub dir/{name}")).to_vec();
        assert_eq!(of_command(&format!("cd 'sub dir' && apply_patch <<'EOF'\n{PATCH}EOF\n")), Ok(within));
        assert_eq!(of_command("grep apply_patch src"), Ok(Vec::new()));
        assert_eq!(of_command("echo '*** Begin Patch'"), Ok(Vec::new()));
        for before in ["cd $HOME &&", "cd a b &&", "cd 'a' 'b' &&", "cd a;", "set -e\n", "true &&"] {
            assert!(of_command(&format!("{before} apply_patch <<EOF\n{PATCH}EOF")).is_err(), "{before}");
        }
    }
}

//! `hooks`: those of git that keep to the locks of files.

use std::path::{Path, PathBuf};

use serde_json::json;

use crate::args::HooksAct;
use crate::enforce::git::Git;
use crate::enforce::hooks_dir::{HooksDir, Standing, State};
use crate::enforce::script::{LOCAL, Script};
use crate::error::{Error, exit};
use crate::output::{Cell, Output, Paint};
use crate::working_copy::WorkingCopy;

pub(super) fn hooks(act: &HooksAct, output: Output) -> Result<u8, Error> {
    let here =
        std::env::current_dir().map_err(|error| Error::io("cannot tell the current directory", error))?;
    let git = top(&here)?;
    let directory = directory(&git)?;
    let standings = match act {
        HooksAct::Install { shared } => {
            if !shared {
                refuse_shared(&git, &directory, "agentflow hooks install --shared")?;
            }
            warn(&git, &directory);
            let program = program()?;
            let install = |name| directory.install(&Script::local(name, program.as_os_str()));
            LOCAL.into_iter().map(install).collect::<Result<Vec<_>, _>>()?
        }
        HooksAct::Uninstall => take_away(&directory, &LOCAL)?,
        HooksAct::Status => {
            LOCAL.iter().map(|name| directory.standing(name)).collect::<Result<Vec<_>, _>>()?
        }
    };
    tell(&directory, &standings, output)
}

/// Git at the top of the working copy, where it runs its hooks.
fn top(here: &Path) -> Result<Git, Error> {
    let git = Git::at(here);
    if git.run(&["rev-parse", "--is-bare-repository"])?.trim_ascii() == b"true" {
        return Err(Error::Usage(
            "nobody commits in a bare repository; for what is pushed to it: agentflow guard install"
                .to_owned(),
        ));
    }
    Ok(Git::at(&git.place(&["--show-toplevel"])?))
}

/// The directory of the hooks, which the worktrees of a repository share.
///
/// # Errors
/// When git does not name it.
pub(super) fn directory(git: &Git) -> Result<HooksDir, Error> {
    let directory = git.path("hooks")?;
    let common = git.place(&["--git-common-dir"])?;
    let is_in_worktree = directory.starts_with(git.directory()) && !directory.starts_with(&common);
    Ok(HooksDir::at(directory, is_in_worktree))
}

/// Refuses to touch the hooks of other repositories.
///
/// # Errors
/// When the hooks are not this repository's alone.
pub(super) fn refuse_shared(git: &Git, hooks: &HooksDir, otherwise: &str) -> Result<(), Error> {
    let set = git.ask(&["config", "--show-scope", "--get", "core.hooksPath"])?.unwrap_or_default();
    if set.starts_with(b"global\t") || set.starts_with(b"system\t") {
        return Err(Error::Usage(format!(
            "the hooks of this repository are those of others too: core.hooksPath is {} for all of them. Give \
             it hooks of its own with `git config core.hooksPath .git/hooks`, or change those of all: {otherwise}",
            hooks.directory.display()
        )));
    }
    Ok(())
}

/// What people should know who install hooks here.
fn warn(git: &Git, hooks: &HooksDir) {
    if let Err(error) = WorkingCopy::around(git.directory()) {
        eprintln!("agentflow: until this is mended, nothing can be checked here: {error}");
    }
    if hooks.is_in_worktree {
        let directory = hooks.directory.display();
        eprintln!(
            "agentflow: {directory} is part of the working copy, so that git may show its hooks as changed"
        );
    }
}

/// This program, as a script is to find it.
///
/// # Errors
/// When the system does not say where it is.
pub(super) fn program() -> Result<PathBuf, Error> {
    std::env::current_exe().map_err(|error| Error::io("cannot tell where this program is", error))
}

/// Takes hooks away, and puts back what was there.
///
/// # Errors
/// When a file cannot be moved.
pub(super) fn take_away(hooks: &HooksDir, names: &[&'static str]) -> Result<Vec<Standing>, Error> {
    let standings = names.iter().map(|name| hooks.uninstall(name)).collect::<Result<Vec<_>, _>>()?;
    hooks.tidy()?;
    Ok(standings)
}

/// Says how it stands with hooks.
///
/// # Errors
/// When that cannot be written.
pub(super) fn tell(hooks: &HooksDir, standings: &[Standing], output: Output) -> Result<u8, Error> {
    for standing in standings {
        standing.notes.iter().for_each(|note| eprintln!("agentflow: {}: {note}", standing.name));
    }
    if output.json {
        let one = |standing: &Standing| {
            json!({
                "name": standing.name,
                "state": standing.state.word(),
                "chains": standing.chains.as_ref().map(|path| path.display().to_string()),
                "notes": standing.notes,
            })
        };
        let all: Vec<_> = standings.iter().map(one).collect();
        output.json(&json!({ "directory": hooks.directory.display().to_string(), "hooks": all }))?;
        return Ok(exit::DONE);
    }
    let row = |standing: &Standing| -> Vec<Cell> {
        let paint = match standing.state {
            State::Installed => Some(Paint::Good),
            State::Edited => Some(Paint::Odd),
            State::Absent | State::Foreign => None,
        };
        let chains =
            standing.chains.as_ref().map_or_else(|| "-".to_owned(), |path| path.display().to_string());
        vec![standing.name.into(), Cell::painted(standing.state.word(), paint), chains.into()]
    };
    output.table(&["HOOK", "STATE", "RUNS FIRST"], &standings.iter().map(row).collect::<Vec<_>>())?;
    Ok(exit::DONE)
}

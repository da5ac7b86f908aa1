//! The directory of git's hooks: ours come and go, and what was there stays.
//!
//! A hook that is there already is moved aside whole, with its mode, and comes back as it is. What people
//! have changed meanwhile is never thrown away: it keeps its place, or gets a name of its own, and is said.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::chain::{aside, link_neighbours, link_to};
use super::script::{Script, is_ours, is_untouched};
use crate::error::Error;

/// What a hook of git's is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum State {
    /// There is none.
    Absent,
    /// Ours, as it was made.
    Installed,
    /// Ours, and somebody has changed it.
    Edited,
    /// Somebody else's.
    Foreign,
}

impl State {
    /// In one word.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Absent => "absent",
            Self::Installed => "installed",
            Self::Edited => "edited",
            Self::Foreign => "foreign",
        }
    }
}

/// How it stands with one hook.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Standing {
    /// As git calls it.
    pub(crate) name: &'static str,
    /// What it is.
    pub(crate) state: State,
    /// The hook that made room for it, and runs first.
    pub(crate) chains: Option<PathBuf>,
    /// What people should know.
    pub(crate) notes: Vec<String>,
}

/// The directory.
#[derive(Clone, Debug)]
pub(crate) struct HooksDir {
    pub(crate) directory: PathBuf,
    aside: PathBuf,
    /// Whether it lies among the files of a working copy, as Husky's does.
    pub(crate) is_in_worktree: bool,
}

impl HooksDir {
    /// That one, which need not be there yet.
    pub(crate) fn at(directory: PathBuf, is_in_worktree: bool) -> Self {
        let aside = aside(&directory);
        Self { directory, aside, is_in_worktree }
    }

    /// How it stands with a hook.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(crate) fn standing(&self, name: &'static str) -> Result<Standing, Error> {
        let chained = self.aside.join(name);
        // A link to a neighbour is no hook that made room.
        let chains = is_there(&chained) && !self.is_link_back(&chained, name);
        Ok(Standing { name, state: self.state(name)?, chains: chains.then_some(chained), notes: Vec::new() })
    }

    fn state(&self, name: &str) -> Result<State, Error> {
        let path = self.directory.join(name);
        match fs::read(&path) {
            Ok(text) if is_untouched(&text) => Ok(State::Installed),
            Ok(text) if is_ours(&text) => Ok(State::Edited),
            Ok(_) => Ok(State::Foreign),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                // A link that leads nowhere is somebody's all the same.
                Ok(if is_there(&path) { State::Foreign } else { State::Absent })
            }
            Err(error) => Err(Error::io(format!("cannot read {}", path.display()), error)),
        }
    }

    fn is_link_back(&self, path: &Path, name: &str) -> bool {
        path.read_link().is_ok_and(|target| target == link_to(&self.aside, OsStr::new(name)))
    }

    /// Puts a script in its place. Done twice it changes nothing more.
    ///
    /// # Errors
    /// When a file cannot be moved or written.
    pub(crate) fn install(&self, script: &Script) -> Result<Standing, Error> {
        let place = self.directory.join(script.name);
        let mut notes = Vec::new();
        fs::create_dir_all(&self.directory).map_err(|error| cannot("make", &self.directory, error))?;
        let state = self.state(script.name)?;
        match state {
            State::Installed | State::Absent => {}
            State::Edited => {
                notes.push(format!("{} was changed by hand, and stays as it is", place.display()))
            }
            State::Foreign => self.set_aside(script.name, &mut notes)?,
        }
        if state != State::Edited {
            self.write(script)?;
        }
        Ok(Standing { notes, ..self.standing(script.name)? })
    }

    /// Moves a hook to where it is chained.
    fn set_aside(&self, name: &str, notes: &mut Vec<String>) -> Result<(), Error> {
        let (place, chained) = (self.directory.join(name), self.aside.join(name));
        fs::create_dir_all(&self.aside).map_err(|error| cannot("make", &self.aside, error))?;
        if self.is_in_worktree {
            let ignore = self.aside.join(".gitignore");
            fs::write(&ignore, "*\n").map_err(|error| cannot("write", &ignore, error))?;
        }
        if self.is_link_back(&chained, name) {
            fs::remove_file(&chained).map_err(|error| cannot("take away", &chained, error))?;
        } else if is_there(&chained) && !is_same(&place, &chained) {
            // Somebody has put another one over ours: the newer one is meant, and the older one stays.
            let kept = free(&self.aside, &format!("{name}.older"));
            rename(&chained, &kept)?;
            notes.push(format!("an older hook is not run any more; it is kept as {}", kept.display()));
        }
        rename(&place, &chained)?;
        if let Err(error) = link_neighbours(&self.directory, &self.aside) {
            notes.push(format!("what lies in {} is not linked: {error}", self.directory.display()));
        }
        Ok(())
    }

    /// Whoever runs the hook meanwhile runs the old one or the new one.
    fn write(&self, script: &Script) -> Result<(), Error> {
        let place = self.directory.join(script.name);
        let is_executable = fs::metadata(&place).is_ok_and(|data| data.mode() & 0o111 != 0);
        if is_executable && fs::read(&place).is_ok_and(|text| text == script.text) {
            return Ok(());
        }
        let partial = self.directory.join(format!("{}.agentflow-{}", script.name, std::process::id()));
        let write = || -> io::Result<()> {
            let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o755).open(&partial)?;
            file.write_all(&script.text)?;
            fs::rename(&partial, &place)
        };
        write().map_err(|error| {
            // It is no use to anybody.
            let _gone = fs::remove_file(&partial);
            cannot("write", &place, error)
        })
    }

    /// Takes a script away, and puts back what was there.
    ///
    /// # Errors
    /// When a file cannot be moved.
    pub(crate) fn uninstall(&self, name: &'static str) -> Result<Standing, Error> {
        let place = self.directory.join(name);
        let before = self.standing(name)?;
        let mut notes = Vec::new();
        match before.state {
            State::Absent => {}
            State::Installed => {
                fs::remove_file(&place).map_err(|error| cannot("take away", &place, error))?
            }
            State::Edited => {
                let kept = free(&self.directory, &format!("{name}.agentflow-edited"));
                rename(&place, &kept)?;
                notes.push(format!("it was changed by hand, and is kept as {}", kept.display()));
            }
            State::Foreign => {
                if let Some(chained) = &before.chains {
                    notes.push(match is_same(&place, chained) {
                        true => "it is there again already".to_owned(),
                        false => {
                            format!("another one is there; the one before is kept as {}", chained.display())
                        }
                    });
                }
            }
        }
        match &before.chains {
            Some(chained) if before.state != State::Foreign => rename(chained, &place)?,
            Some(chained) if is_same(&place, chained) => {
                fs::remove_file(chained).map_err(|error| cannot("take away", chained, error))?;
            }
            _ => {}
        }
        Ok(Standing { notes, ..self.standing(name)? })
    }

    /// Takes the directory of what was chained away, if nothing of anybody's is left in it.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(crate) fn tidy(&self) -> Result<(), Error> {
        let entries = match fs::read_dir(&self.aside) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(cannot("read", &self.aside, error)),
        };
        let names: Result<Vec<_>, _> = entries.map(|entry| entry.map(|entry| entry.file_name())).collect();
        let names = names.map_err(|error| cannot("read", &self.aside, error))?;
        let (made, left): (Vec<_>, Vec<_>) = names.into_iter().partition(|name| {
            let path = self.aside.join(name);
            let text = name.to_string_lossy();
            self.is_link_back(&path, &text)
                || (text == ".gitignore" && fs::read(&path).is_ok_and(|text| text == b"*\n"))
        });
        if !left.is_empty() {
            return Ok(());
        }
        for name in made {
            let path = self.aside.join(name);
            fs::remove_file(&path).map_err(|error| cannot("take away", &path, error))?;
        }
        fs::remove_dir(&self.aside).map_err(|error| cannot("take away", &self.aside, error))
    }
}

/// Whether anything is there, even a link that leads nowhere.
fn is_there(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

/// Whether two files are the same, mode and all.
fn is_same(one: &Path, other: &Path) -> bool {
    let look = |path: &Path| -> io::Result<_> { Ok((fs::read(path)?, fs::symlink_metadata(path)?.mode())) };
    matches!((look(one), look(other)), (Ok(one), Ok(other)) if one == other)
}

/// A name that nothing has yet.
fn free(directory: &Path, name: &str) -> PathBuf {
    let numbered = (2_u32..).map(|number| format!("{name}.{number}"));
    let mut paths = std::iter::once(name.to_owned()).chain(numbered).map(|name| directory.join(name));
    paths.find(|path| !is_there(path)).unwrap_or_else(|| directory.join(name))
}

fn rename(from: &Path, to: &Path) -> Result<(), Error> {
    fs::rename(from, to)
        .map_err(|error| Error::io(format!("cannot move {} to {}", from.display(), to.display()), error))
}

fn cannot(what: &str, path: &Path, error: io::Error) -> Error {
    Error::io(format!("cannot {what} {}", path.display()), error)
}

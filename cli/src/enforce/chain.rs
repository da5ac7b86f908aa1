//! The hook that was there before ours: it runs first, with the same arguments and the same standard
//! input, under the same name and with the same neighbours.
//!
//! Hooks look at `$0`: Husky's find by its name what they are, and by its directory what they share. So
//! one that makes room keeps its name, in a directory beside that of the hooks, and what else is there is
//! linked to.

use std::ffi::{OsStr, OsString};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::{fs, thread};

use super::script::{ASIDE, is_ours};
use crate::error::Error;

/// The system's word for a program that is none: a script without its first line.
const NO_PROGRAM: i32 = 8;

/// The directory beside that of the hooks. Where a link leads to them, it is beside the real one, which
/// others may have linked to as well.
pub(crate) fn aside(directory: &Path) -> PathBuf {
    let real = directory.read_link().ok().and_then(|_| directory.canonicalize().ok());
    let directory = real.as_deref().unwrap_or(directory);
    let mut name = directory.file_name().unwrap_or_default().to_owned();
    name.push(ASIDE);
    directory.with_file_name(name)
}

/// What a hook reads.
pub(crate) enum Input {
    /// What this process reads.
    Ours,
    /// This, which was read already.
    Read(Vec<u8>),
}

/// Runs the hook that made room for that script, if there is one: its exit code unless that is 0.
///
/// # Errors
/// When it cannot be run.
pub(crate) fn run(script: &Path, arguments: &[OsString], input: Input) -> Result<Option<u8>, Error> {
    let (Some(directory), Some(name)) = (script.parent(), script.file_name()) else { return Ok(None) };
    let aside = aside(directory);
    let chained = aside.join(name);
    // As git does, one that may not be run is left out.
    if !fs::metadata(&chained).is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0) {
        return Ok(None);
    }
    if let Err(error) = link_neighbours(directory, &aside) {
        log::debug!("what lies beside {} is not linked: {error}", chained.display());
    }
    let failed = |error| Error::io(format!("cannot run {}", chained.display()), error);
    let status = match start(chained.as_os_str(), &[], arguments, &input) {
        Err(error) if error.raw_os_error() == Some(NO_PROGRAM) => {
            start(OsStr::new("/bin/sh"), &[chained.as_os_str()], arguments, &input)
        }
        other => other,
    };
    Ok(Some(code(status.map_err(failed)?)).filter(|code| *code != 0))
}

fn start(program: &OsStr, first: &[&OsStr], arguments: &[OsString], input: &Input) -> io::Result<ExitStatus> {
    let mut command = Command::new(program);
    command.args(first).args(arguments);
    let Input::Read(text) = input else { return command.status() };
    let mut child = command.stdin(Stdio::piped()).spawn()?;
    let stdin = child.stdin.take();
    thread::scope(|scope| {
        // It need not read what it is given.
        scope.spawn(move || stdin.map(|mut stdin| stdin.write_all(text)));
        child.wait()
    })
}

/// As the shell tells it.
fn code(status: ExitStatus) -> u8 {
    let signal = status.signal().map(|signal| 128 + signal);
    u8::try_from(status.code().or(signal).unwrap_or(1)).unwrap_or(1)
}

/// Lets whatever lies beside the hooks lie beside the one that made room as well.
pub(crate) fn link_neighbours(directory: &Path, aside: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name();
        let is_sample = name.as_encoded_bytes().ends_with(b".sample");
        if is_sample || begins(&directory.join(&name)).is_ok_and(|text| is_ours(&text)) {
            continue;
        }
        match symlink(link_to(aside, &name), aside.join(&name)) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// What a link in the directory beside that of the hooks says, to lead to one of these.
pub(crate) fn link_to(aside: &Path, name: &OsStr) -> PathBuf {
    let beside = aside.file_name().unwrap_or_default().as_encoded_bytes();
    let hooks = OsStr::from_bytes(beside.strip_suffix(ASIDE.as_bytes()).unwrap_or(beside));
    Path::new("..").join(hooks).join(name)
}

/// As much of a file as tells whose it is.
fn begins(path: &Path) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    fs::File::open(path)?.take(200).read_to_end(&mut text)?;
    Ok(text)
}

//! Runs git for what is enforced: the changes of commits and of the index.
//!
//! It inherits the environment, because git tells its hooks by it which index and which objects are
//! meant. Nothing is put together for a shell, and names come separated by NUL.

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;

use crate::error::Error;

/// Bytes of an answer: the paths of a million changes.
const ANSWER_BYTES: u64 = 256 << 20;

/// Git in one directory.
#[derive(Clone, Debug)]
pub(crate) struct Git {
    directory: PathBuf,
}

/// How a command ended, and what it said.
struct Ended {
    status: ExitStatus,
    out: Vec<u8>,
    err: String,
}

impl Git {
    /// In that directory.
    pub(crate) fn at(directory: &Path) -> Self {
        Self { directory: directory.to_owned() }
    }

    /// What a command prints.
    ///
    /// # Errors
    /// What git says when it fails.
    pub(crate) fn run<S: AsRef<OsStr>>(&self, words: &[S]) -> Result<Vec<u8>, Error> {
        self.feed(words, Vec::new())
    }

    /// What a command prints that reads this.
    ///
    /// # Errors
    /// What git says when it fails.
    pub(crate) fn feed<S: AsRef<OsStr>>(&self, words: &[S], input: Vec<u8>) -> Result<Vec<u8>, Error> {
        let ended = self.end(words, input)?;
        if ended.status.success() { Ok(ended.out) } else { Err(failed(words, &ended)) }
    }

    /// What a command prints that says with exit code 1 that there is nothing.
    ///
    /// # Errors
    /// What git says when it fails.
    pub(crate) fn ask<S: AsRef<OsStr>>(&self, words: &[S]) -> Result<Option<Vec<u8>>, Error> {
        let ended = self.end(words, Vec::new())?;
        match ended.status.code() {
            Some(0) => Ok(Some(ended.out)),
            Some(1) => Ok(None),
            _ => Err(failed(words, &ended)),
        }
    }

    /// Which of these names git ignores here.
    ///
    /// # Errors
    /// What git says when it fails.
    pub(crate) fn ignored(&self, names: &[&[u8]]) -> Result<Vec<Vec<u8>>, Error> {
        let words = ["check-ignore", "-z", "--stdin"];
        // A name that begins with a colon is no pattern then.
        let input = names.iter().flat_map(|name| [b"./", *name, b"\0"].concat()).collect();
        let ended = self.end(&words, input)?;
        // 1 is none of them.
        if !matches!(ended.status.code(), Some(0 | 1)) {
            return Err(failed(&words, &ended));
        }
        Ok(names_in(&ended.out).filter_map(|name| name.strip_prefix(b"./")).map(<[u8]>::to_vec).collect())
    }

    /// Where it works.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Where git keeps something.
    ///
    /// # Errors
    /// What git says when it fails.
    pub(crate) fn path(&self, name: &str) -> Result<PathBuf, Error> {
        self.place(&["--git-path", name])
    }

    /// A directory that `rev-parse` names.
    ///
    /// # Errors
    /// What git says when it fails.
    pub(crate) fn place(&self, words: &[&str]) -> Result<PathBuf, Error> {
        let line = self.run(&[&["rev-parse"], words].concat())?;
        let line = line.strip_suffix(b"\n").unwrap_or(&line);
        Ok(self.directory.join(OsStr::from_bytes(line)))
    }

    /// The commit of a name, if git knows it.
    ///
    /// # Errors
    /// What git says when it fails.
    pub(crate) fn commit(&self, name: &str) -> Result<Option<String>, Error> {
        let name = format!("{name}^{{commit}}");
        let id = self.ask(&["rev-parse", "--verify", "--quiet", "--end-of-options", &name])?;
        Ok(id.map(|id| String::from_utf8_lossy(id.trim_ascii()).into_owned()))
    }

    fn end<S: AsRef<OsStr>>(&self, words: &[S], input: Vec<u8>) -> Result<Ended, Error> {
        let lost = |error| Error::io("git was lost", error);
        let mut child = self.start(words)?;
        // Read and written at once, so that neither side waits for the other.
        let (stdin, stderr) = (child.stdin.take(), child.stderr.take());
        let writer = thread::spawn(move || stdin.map(|mut stdin| stdin.write_all(&input)));
        let reader = thread::spawn(move || {
            let mut text = Vec::new();
            let read = stderr.map(|stderr| stderr.take(64 << 10).read_to_end(&mut text));
            read.map(|_| String::from_utf8_lossy(&text).into_owned()).unwrap_or_default()
        });
        let mut out = Vec::new();
        let stdout = child.stdout.take();
        if let Some(stdout) = stdout {
            stdout.take(ANSWER_BYTES + 1).read_to_end(&mut out).map_err(lost)?;
        }
        let status = child.wait().map_err(lost)?;
        // What git did not want to read is not missed: how it ended says more.
        let _written = writer.join();
        let err = reader.join().unwrap_or_default();
        if out.len() as u64 > ANSWER_BYTES {
            let most = ANSWER_BYTES >> 20;
            return Err(Error::Usage(format!(
                "git names more than {most} MiB of changes: check fewer at once"
            )));
        }
        Ok(Ended { status, out, err })
    }

    fn start<S: AsRef<OsStr>>(&self, words: &[S]) -> Result<Child, Error> {
        let mut command = Command::new("git");
        // Whoever pushes can push replacements of objects too.
        command.args(["--no-pager", "--no-replace-objects"]);
        command.args(["-c", "trailer.separators=:"]).args(words).current_dir(&self.directory);
        command.env("LC_ALL", "C");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound if self.directory.exists() => {
                Error::Usage("git is needed for this, and is not in the PATH".to_owned())
            }
            _ => Error::io("cannot start git", error),
        })
    }
}

fn failed<S: AsRef<OsStr>>(words: &[S], ended: &Ended) -> Error {
    let word = words.first().map(|word| word.as_ref().to_string_lossy()).unwrap_or_default();
    let why = ended.err.trim();
    let why = if why.is_empty() { ended.status.to_string() } else { why.to_owned() };
    Error::Usage(format!("git {word}: {why}"))
}

/// Names that were printed with NUL after each.
pub(crate) fn names_in(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes.split(|byte| *byte == 0).filter(|name| !name.is_empty())
}

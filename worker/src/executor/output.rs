//! What is kept of a process's output: the last of its standard output as result, and the file
//! that it may have written.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use agentflow_core::limits::{RESULT_BYTES, VALUE_BYTES};
use serde_json::value::RawValue;

/// The last bytes of a stream, and all of it in a file once it has more than [`RESULT_BYTES`] and as
/// long as it has at most [`VALUE_BYTES`].
#[derive(Debug, Default)]
pub(crate) struct Tail {
    last: Vec<u8>,
    total: u64,
    path: PathBuf,
    whole: Whole,
}

/// Everything that a stream has had.
#[derive(Debug, Default)]
enum Whole {
    /// It is all in [`Tail::last`].
    #[default]
    Here,
    /// It is in this file, which has no name.
    File(File),
    /// It is too much, or the disk does not take it.
    Lost,
}

impl Tail {
    /// Begins anew; `path` is where a file may be made for a moment.
    pub(crate) fn begin(&mut self, path: PathBuf) {
        self.clear();
        self.path = path;
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        self.last.clear();
        self.last.shrink_to(RESULT_BYTES);
        self.total = 0;
        self.whole = Whole::Here;
    }

    /// All of it, if it is more than [`Tail::text`] holds and was kept.
    pub(crate) fn whole(&mut self) -> Option<File> {
        match std::mem::take(&mut self.whole) {
            Whole::File(file) => Some(file),
            Whole::Here | Whole::Lost => None,
        }
    }

    fn push_whole(&mut self, bytes: &[u8]) {
        self.total += bytes.len() as u64;
        if self.total <= RESULT_BYTES as u64 {
            return;
        }
        let written = match &mut self.whole {
            Whole::Lost => return,
            _ if self.total > VALUE_BYTES => Err(None),
            Whole::File(file) => file.write_all(bytes).map_err(Some),
            Whole::Here => unnamed(&self.path)
                .and_then(|mut file| {
                    // What came before is still here: the end of it is not dropped before twice the size.
                    file.write_all(&self.last)?;
                    file.write_all(bytes)?;
                    self.whole = Whole::File(file);
                    Ok(())
                })
                .map_err(Some),
        };
        if let Err(error) = written {
            if let Some(error) = error {
                log::warn!("only the end of a result is kept: {error}");
            }
            self.whole = Whole::Lost;
        }
    }

    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.push_whole(bytes);
        let bytes = &bytes[bytes.len().saturating_sub(RESULT_BYTES)..];
        // Twice the size before anything moves: each byte is moved at most once more.
        if self.last.len() + bytes.len() > 2 * RESULT_BYTES {
            let keep = RESULT_BYTES - bytes.len();
            self.last.drain(..self.last.len().saturating_sub(keep));
        }
        self.last.extend_from_slice(bytes);
    }

    /// The last bytes as text of at most [`RESULT_BYTES`]; `None` if there are none.
    pub(crate) fn text(&self) -> Option<Box<str>> {
        let bytes = &self.last[self.last.len().saturating_sub(RESULT_BYTES)..];
        if bytes.is_empty() {
            return None;
        }
        let text = String::from_utf8_lossy(bytes);
        // Replacing broken characters makes the text longer.
        let from = text.ceil_char_boundary(text.len().saturating_sub(RESULT_BYTES));
        Some(text[from..].into())
    }
}

/// A file that goes with its handle.
fn unnamed(path: &Path) -> io::Result<File> {
    let file = File::options().read(true).write(true).create(true).truncate(true).open(path)?;
    std::fs::remove_file(path)?;
    Ok(file)
}

/// Reads what the process left in `AGENTFLOW_OUTPUT`: a JSON object, or lines `key=value`. Gives a
/// JSON object as text; `None` if there is no such file or nothing in it.
pub(crate) fn read_outputs(path: &Path) -> Result<Option<Box<str>>, String> {
    // A pipe in the file's place must not hold this thread.
    let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let file = match File::options().read(true).custom_flags(flags).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(format!("AGENTFLOW_OUTPUT cannot be read: {error}")),
    };
    let mut bytes = Vec::new();
    file.take(VALUE_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| format!("AGENTFLOW_OUTPUT cannot be read: {error}"))?;
    if bytes.len() as u64 > VALUE_BYTES {
        return Err(format!("AGENTFLOW_OUTPUT has more than {VALUE_BYTES} bytes"));
    }
    let text = String::from_utf8(bytes).map_err(|_| "AGENTFLOW_OUTPUT is no UTF-8 text".to_owned())?;
    parse_outputs(text.trim())
}

fn parse_outputs(text: &str) -> Result<Option<Box<str>>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let outputs = if text.starts_with('{') {
        let object = serde_json::from_str::<BTreeMap<String, Box<RawValue>>>(text)
            .map_err(|error| format!("AGENTFLOW_OUTPUT begins with '{{' and is no JSON object: {error}"))?;
        serde_json::to_string(&object)
    } else {
        let mut object = BTreeMap::new();
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.trim();
            if line.is_empty() {
                continue;
            }
            let (key, value) = line.split_once('=').filter(|(key, _)| !key.is_empty()).ok_or_else(|| {
                format!(
                    "AGENTFLOW_OUTPUT is neither a JSON object nor lines of key=value: line {number} has no '='"
                )
            })?;
            object.insert(key, value);
        }
        serde_json::to_string(&object)
    };
    let outputs = outputs.map_err(|error| format!("AGENTFLOW_OUTPUT cannot be kept: {error}"))?;
    if outputs.len() as u64 > VALUE_BYTES {
        return Err(format!("AGENTFLOW_OUTPUT has more than {VALUE_BYTES} bytes as JSON"));
    }
    Ok(Some(outputs.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_end_is_kept() {
        let mut tail = Tail::default();
        assert_eq!(tail.text(), None);
        tail.push(b"hello\n");
        assert_eq!(tail.text().as_deref(), Some("hello\n"));
        for n in 0..100_000_u32 {
            tail.push(format!("{n:06}\n").as_bytes());
        }
        let text = tail.text().expect("text");
        assert_eq!(text.len(), RESULT_BYTES);
        assert!(text.ends_with("\n099999\n"));
        tail.push(&[0xff; 3 * RESULT_BYTES]);
        let text = tail.text().expect("text");
        assert!(text.len() <= RESULT_BYTES && text.chars().all(|c| c == '\u{fffd}'));
        assert!(tail.last.len() <= 2 * RESULT_BYTES);
    }

    #[test]
    fn all_of_a_longer_output_is_in_a_file() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut tail = Tail::default();
        tail.begin(directory.path().join("x"));
        tail.push(b"short");
        assert!(tail.whole().is_none());
        let text = vec![b'a'; RESULT_BYTES];
        tail.push(&text);
        tail.push(b"end");
        let mut file = tail.whole().expect("a file");
        let mut all = Vec::new();
        io::Seek::rewind(&mut file).expect("a file");
        file.read_to_end(&mut all).expect("readable");
        assert_eq!(all.len(), 5 + RESULT_BYTES + 3);
        assert!(all.starts_with(b"shorta") && all.ends_with(b"aend"));
        assert_eq!(std::fs::read_dir(directory.path()).expect("a directory").count(), 0);
        tail.begin(directory.path().join("x"));
        assert!(tail.whole().is_none());
    }

    #[test]
    fn outputs_are_an_object_or_pairs() {
        assert_eq!(parse_outputs(""), Ok(None));
        assert_eq!(parse_outputs("{\"a\": 1.50}").as_ref().map(Option::as_deref), Ok(Some("{\"a\":1.50}")));
        let pairs = parse_outputs("a=1\n\nb=x=y\n").expect("pairs");
        assert_eq!(pairs.as_deref(), Some("{\"a\":\"1\",\"b\":\"x=y\"}"));
        assert!(parse_outputs("{\"a\": }").is_err());
        assert!(parse_outputs("hello").expect_err("no pair").contains("key=value"));
    }
}

//! What is kept of a process's output: the last of its standard output as result, and the file
//! that it may have written.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use agentflow_core::limits::{OUTPUTS_BYTES, RESULT_BYTES};
use serde_json::value::RawValue;

/// The last bytes of a stream.
#[derive(Debug, Default)]
pub(crate) struct Tail(Vec<u8>);

impl Tail {
    pub(crate) fn clear(&mut self) {
        self.0.clear();
        self.0.shrink_to(RESULT_BYTES);
    }

    pub(crate) fn push(&mut self, bytes: &[u8]) {
        let bytes = &bytes[bytes.len().saturating_sub(RESULT_BYTES)..];
        // Twice the size before anything moves: each byte is moved at most once more.
        if self.0.len() + bytes.len() > 2 * RESULT_BYTES {
            let keep = RESULT_BYTES - bytes.len();
            self.0.drain(..self.0.len().saturating_sub(keep));
        }
        self.0.extend_from_slice(bytes);
    }

    /// The last bytes as text of at most [`RESULT_BYTES`]; `None` if there are none.
    pub(crate) fn text(&self) -> Option<Box<str>> {
        let bytes = &self.0[self.0.len().saturating_sub(RESULT_BYTES)..];
        if bytes.is_empty() {
            return None;
        }
        let text = String::from_utf8_lossy(bytes);
        // Replacing broken characters makes the text longer.
        let from = text.ceil_char_boundary(text.len().saturating_sub(RESULT_BYTES));
        Some(text[from..].into())
    }
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
    file.take(OUTPUTS_BYTES as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| format!("AGENTFLOW_OUTPUT cannot be read: {error}"))?;
    if bytes.len() > OUTPUTS_BYTES {
        return Err(format!("AGENTFLOW_OUTPUT has more than {OUTPUTS_BYTES} bytes"));
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
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let (key, value) = line
                .split_once('=')
                .filter(|(key, _)| !key.is_empty())
                .ok_or("AGENTFLOW_OUTPUT is neither a JSON object nor lines of key=value")?;
            object.insert(key, value);
        }
        serde_json::to_string(&object)
    };
    let outputs = outputs.map_err(|error| format!("AGENTFLOW_OUTPUT cannot be kept: {error}"))?;
    if outputs.len() > OUTPUTS_BYTES {
        return Err(format!("AGENTFLOW_OUTPUT has more than {OUTPUTS_BYTES} bytes as JSON"));
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
        assert!(tail.0.len() <= 2 * RESULT_BYTES);
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

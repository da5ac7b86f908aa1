//! One attempt's output as a file that is only ever appended to.
//!
//! Frames name offsets in the attempt's stream. Where a stretch of the stream is missing (the worker
//! cut it, or the disk refused it), the file has a line that says how much, and from there on offsets
//! in the file differ from offsets in the stream. The difference is kept in a second file, one line
//! per gap, written before the gap's own line: after a crash between the two, the gap is taken back.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::path::Path;

use agentflow_core::ids::{Attempt, TaskId};
use agentflow_core::limits;

use super::{gaps_path, log_path};

/// Bytes of one file. The worker keeps [`limits::LOG_BYTES`]; what it says beside the output itself
/// fits into a mebibyte.
pub(super) const LIMIT: u64 = limits::LOG_BYTES + (1 << 20);

/// Gaps of one file. A worker makes one; more come only from a disk that is full again and again.
const GAPS: usize = 1_000;

/// Stands for "everything that is still to come".
const ALL: u64 = u64::MAX;

/// An open file and what is known of it.
#[derive(Debug)]
pub(super) struct LogFile {
    file: File,
    /// Its length.
    bytes: u64,
    /// Where its end is in the stream.
    stream_end: u64,
    gaps: Vec<Gap>,
}

/// Something that is missing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Gap {
    /// Where its line begins in the file.
    at: u64,
    /// Bytes of its line.
    line: u64,
    /// Bytes of the stream that are missing.
    cut: u64,
}

impl LogFile {
    /// Opens an attempt's file, or makes it.
    pub(super) fn open(logs: &Path, task: TaskId, attempt: Attempt) -> io::Result<Self> {
        let path = log_path(logs, task, attempt);
        let open = || OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let file = match open() {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                if let Some(parent) = path.parent() {
                    std::fs::create_dir_all(parent)?;
                }
                open()?
            }
            other => other?,
        };
        let mut bytes = file.metadata()?.len();
        let mut gaps = if bytes == 0 { Vec::new() } else { read_gaps(&gaps_path(logs, task, attempt))? };
        // Taken down, but its own line was not written whole.
        while let Some(last) = gaps.pop_if(|gap| gap.at + gap.line > bytes) {
            bytes = bytes.min(last.at);
            file.set_len(bytes)?;
        }
        let mut log = Self { file, bytes, stream_end: bytes, gaps: Vec::new() };
        for gap in gaps {
            log.add(gap);
        }
        Ok(log)
    }

    fn add(&mut self, gap: Gap) {
        self.stream_end = self.stream_end.saturating_sub(gap.line).saturating_add(gap.cut);
        self.gaps.push(gap);
    }

    /// Appends what of `frame`, which begins at `offset` of the stream, is not there yet. Returns
    /// the offset up to which the stream needs not be sent again.
    pub(super) fn append(
        &mut self,
        logs: &Path,
        (task, attempt): (TaskId, Attempt),
        offset: u64,
        frame: &[u8],
    ) -> io::Result<u64> {
        let end = offset.saturating_add(frame.len() as u64);
        if end <= self.stream_end {
            return Ok(if self.stream_end == ALL { end } else { self.stream_end });
        }
        let known = usize::try_from(self.stream_end.saturating_sub(offset)).unwrap_or(usize::MAX);
        let fresh = frame.get(known..).unwrap_or_default();
        let missing = offset.saturating_sub(self.stream_end);
        let length_before = self.bytes;
        let written = self.write(logs, (task, attempt), missing, fresh);
        if written.is_err() {
            // Half a frame must not count as one.
            self.file.set_len(length_before)?;
            self.bytes = length_before;
        }
        written.map(|()| end)
    }

    fn write(&mut self, logs: &Path, key: (TaskId, Attempt), missing: u64, fresh: &[u8]) -> io::Result<()> {
        let mut text = Vec::new();
        let mut gaps = self.gaps.clone();
        let mut gap = |line: String, cut: u64| {
            gaps.push(Gap { at: self.bytes, line: line.len() as u64, cut });
            text.extend_from_slice(line.as_bytes());
        };
        let is_full = self.bytes.saturating_add(fresh.len() as u64) > LIMIT || self.gaps.len() >= GAPS;
        if is_full {
            gap(format!("\n[agentflow: more than {LIMIT} bytes; the rest is cut]\n"), ALL);
        } else if missing > 0 {
            gap(format!("\n[agentflow: {missing} bytes cut]\n"), missing);
        }
        let added = gaps.get(self.gaps.len()).copied();
        if added.is_some() {
            write_gaps(&gaps_path(logs, key.0, key.1), &gaps)?;
        }
        if !is_full {
            text.extend_from_slice(fresh);
        }
        self.file.write_all_at(&text, self.bytes)?;
        self.bytes += text.len() as u64;
        self.stream_end = self.stream_end.saturating_add(text.len() as u64);
        if let Some(gap) = added {
            self.add(gap);
        }
        Ok(())
    }
}

fn read_gaps(path: &Path) -> io::Result<Vec<Gap>> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let gap = |line: &str| {
        let mut numbers = line.split(' ').map(str::parse);
        match (numbers.next(), numbers.next(), numbers.next()) {
            (Some(Ok(at)), Some(Ok(line)), Some(Ok(cut))) => Some(Gap { at, line, cut }),
            _ => None,
        }
    };
    // The last line may be half written; its gap is then not in the file either.
    Ok(text.split_inclusive('\n').filter_map(|line| gap(line.strip_suffix('\n')?)).collect())
}

fn write_gaps(path: &Path, gaps: &[Gap]) -> io::Result<()> {
    let mut text = String::new();
    for Gap { at, line, cut } in gaps {
        text.push_str(&format!("{at} {line} {cut}\n"));
    }
    std::fs::write(path, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: (TaskId, Attempt) = (TaskId(7), Attempt(1));

    fn text(logs: &Path) -> String {
        std::fs::read_to_string(log_path(logs, KEY.0, KEY.1)).expect("there")
    }

    #[test]
    fn what_is_sent_twice_is_written_once() {
        let logs = tempfile::tempdir().expect("a directory");
        let mut file = LogFile::open(logs.path(), KEY.0, KEY.1).expect("made");
        assert_eq!(file.append(logs.path(), KEY, 0, b"hello ").expect("written"), 6);
        assert_eq!(file.append(logs.path(), KEY, 0, b"hello ").expect("known"), 6);
        assert_eq!(file.append(logs.path(), KEY, 3, b"lo world").expect("half known"), 11);
        assert_eq!(text(logs.path()), "hello world");
    }

    #[test]
    fn offsets_stay_right_after_a_gap_and_a_restart() {
        let logs = tempfile::tempdir().expect("a directory");
        let mut file = LogFile::open(logs.path(), KEY.0, KEY.1).expect("made");
        file.append(logs.path(), KEY, 0, b"head").expect("written");
        assert_eq!(file.append(logs.path(), KEY, 104, b"tail").expect("written"), 108);
        let mut again = LogFile::open(logs.path(), KEY.0, KEY.1).expect("opened");
        assert_eq!(again.stream_end, file.stream_end);
        assert_eq!(again.append(logs.path(), KEY, 104, b"tail").expect("known"), 108);
        assert_eq!(again.append(logs.path(), KEY, 108, b"!").expect("written"), 109);
        assert_eq!(text(logs.path()), "head\n[agentflow: 100 bytes cut]\ntail!");
    }

    #[test]
    fn a_gap_whose_line_was_not_written_is_taken_back() {
        let logs = tempfile::tempdir().expect("a directory");
        let mut file = LogFile::open(logs.path(), KEY.0, KEY.1).expect("made");
        file.append(logs.path(), KEY, 0, b"head").expect("written");
        file.append(logs.path(), KEY, 104, b"tail").expect("written");
        file.file.set_len(10).expect("as after a crash");
        let mut again = LogFile::open(logs.path(), KEY.0, KEY.1).expect("opened");
        assert_eq!(again.stream_end, 4);
        again.append(logs.path(), KEY, 104, b"tail").expect("written");
        assert_eq!(text(logs.path()), "head\n[agentflow: 100 bytes cut]\ntail");
    }

    #[test]
    fn a_file_has_a_limit() {
        let logs = tempfile::tempdir().expect("a directory");
        let mut file = LogFile::open(logs.path(), KEY.0, KEY.1).expect("made");
        let frame = vec![b'x'; 1 << 20];
        let mut offset = 0;
        for _ in 0..20 {
            offset = file.append(logs.path(), KEY, offset, &frame).expect("taken");
        }
        assert_eq!(offset, 20 << 20);
        assert!(file.bytes < LIMIT + 100, "{}", file.bytes);
        let again = LogFile::open(logs.path(), KEY.0, KEY.1).expect("opened");
        assert_eq!(again.stream_end, ALL);
        assert!(text(logs.path()).ends_with("the rest is cut]\n"));
    }
}

//! The output of one attempt on its way to the master.
//!
//! Owns: the bytes that were written and not yet acknowledged, and where they lie. Shared by the
//! thread that reads the process's pipes and the one that sends frames; never blocks on the
//! network. Knows no sockets and no processes.
//!
//! ```text
//! 0 … acked … sent … loaded          head cap          total - tail cap … total
//!       [---- window ----][-- spill file --]   (cut)   [------ ring file ------]
//!            memory            disk                              disk
//! ```
//!
//! Invariants: the window holds at most [`LOG_WINDOW_BYTES`], which is also what may be on the
//! wire; the two files are made only when needed, have no name, and are bounded by the cap; the
//! process never waits for a reader.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use agentflow_core::limits::{LOG_FRAME_BYTES, LOG_WINDOW_BYTES};
use agentflow_protocol::log_frame::{self, Header, Stream};
use agentflow_protocol::worker::AttemptKey;

use crate::guarded::Guarded;

/// Pieces of the window; a process that alternates between its two outputs byte by byte would
/// otherwise cost more in headers than in bytes.
const PIECES: usize = 512;

/// How much output is kept, and where its files are made.
#[derive(Debug)]
pub(crate) struct Policy {
    head_bytes: u64,
    tail_bytes: u64,
    dir: PathBuf,
    files: AtomicU64,
}

impl Policy {
    /// Keeps `cap_bytes` of each attempt: one half of them head, the other tail.
    pub(crate) fn new(cap_bytes: u64, dir: &Path) -> Arc<Self> {
        let head_bytes = cap_bytes / 2;
        let tail_bytes = (cap_bytes - head_bytes).max(1);
        Arc::new(Self { head_bytes, tail_bytes, dir: dir.to_owned(), files: AtomicU64::new(0) })
    }

    /// A file without a name: it goes when it is closed, whatever happens to this process.
    fn nameless_file(&self) -> io::Result<File> {
        let n = self.files.fetch_add(1, Ordering::Relaxed);
        let path = self.dir.join(format!("{}.{n}", std::process::id()));
        let file = File::options().read(true).write(true).create_new(true).open(&path)?;
        std::fs::remove_file(&path)?;
        Ok(file)
    }
}

#[derive(Debug)]
struct Piece {
    stream: Stream,
    offset: u64,
    bytes: Vec<u8>,
}

impl Piece {
    fn end(&self) -> u64 {
        self.offset + self.bytes.len() as u64
    }
}

/// How much there was, and how much of it was cut.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Totals {
    pub(crate) bytes: u64,
    pub(crate) cut: u64,
}

#[derive(Debug)]
struct State {
    policy: Arc<Policy>,
    /// Where the head ends; smaller than the policy's after a full disk.
    head_end: u64,
    total: u64,
    window: VecDeque<Piece>,
    window_bytes: usize,
    /// Pieces at the window's start that are on the wire.
    sent: usize,
    /// Where the window ends.
    loaded: u64,
    spill: Option<File>,
    ring: Option<File>,
    ring_broken: bool,
    ended: bool,
    /// Whether the sender knows that there is something to send.
    queued: bool,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct LogStream(Guarded<State>);

impl LogStream {
    pub(crate) fn new(policy: &Arc<Policy>) -> Self {
        Self(Guarded::new(State {
            policy: Arc::clone(policy),
            head_end: policy.head_bytes,
            total: 0,
            window: VecDeque::new(),
            window_bytes: 0,
            sent: 0,
            loaded: 0,
            spill: None,
            ring: None,
            ring_broken: false,
            ended: false,
            queued: false,
        }))
    }

    /// Takes what the process wrote, or what is said to it; nothing once it has ended. Whether the sender
    /// must be told.
    pub(crate) fn append(&self, stream: Stream, bytes: &[u8]) -> bool {
        let mut state = self.0.lock();
        if state.ended {
            return false;
        }
        state.append(stream, bytes);
        state.must_queue()
    }

    /// Nothing more comes. Whether the sender must be told.
    pub(crate) fn end(&self) -> bool {
        let mut state = self.0.lock();
        state.ended = true;
        state.refill();
        state.must_queue()
    }

    /// The next frame that may be sent. `None` takes the stream out of the sender's queue.
    pub(crate) fn next_frame(&self, key: AttemptKey) -> Option<Vec<u8>> {
        let mut state = self.0.lock();
        let Some(piece) = state.window.get(state.sent) else {
            state.queued = false;
            return None;
        };
        let header = Header { key, stream: piece.stream, offset: piece.offset };
        let frame = log_frame::encode(header, &piece.bytes);
        state.sent += 1;
        Some(frame)
    }

    /// The master has written everything below `offset`. Whether the sender must be told.
    pub(crate) fn acknowledge(&self, offset: u64) -> bool {
        let mut state = self.0.lock();
        state.acknowledge(offset);
        state.must_queue()
    }

    /// On a new socket everything in the window is sent again. Whether there is anything; the
    /// sender's queue was emptied.
    pub(crate) fn rewind(&self) -> bool {
        let mut state = self.0.lock();
        state.sent = 0;
        state.queued = false;
        state.must_queue()
    }

    /// The totals, once everything that is kept was acknowledged.
    pub(crate) fn settled(&self) -> Option<Totals> {
        let state = self.0.lock();
        let settled = state.ended && state.window.is_empty() && state.loaded >= state.total;
        settled.then(|| state.totals())
    }

    /// The totals if nothing more were ever acknowledged: what is still here counts as cut.
    pub(crate) fn abandoned(&self) -> Totals {
        let state = self.0.lock();
        let waiting = state.window_bytes as u64 + state.on_disk();
        let totals = state.totals();
        Totals { bytes: totals.bytes, cut: totals.cut + waiting }
    }
}

impl State {
    fn append(&mut self, stream: Stream, bytes: &[u8]) {
        let head_left = self.head_end.saturating_sub(self.total);
        let (head, tail) = bytes.split_at(bytes.len().min(usize::try_from(head_left).unwrap_or(usize::MAX)));
        let mut rest = head;
        if self.loaded == self.total {
            let room = head.len().min(LOG_WINDOW_BYTES - self.window_bytes);
            let taken = if self.window.len() < PIECES { room } else { 0 };
            let (now, later) = head.split_at(taken);
            self.load(stream, now);
            self.total += now.len() as u64;
            rest = later;
        }
        if !rest.is_empty() {
            if self.write_spill(rest) {
                self.total += rest.len() as u64;
            } else {
                // The disk is full: the head ends here, and the rest counts as tail.
                self.head_end = self.total;
                self.write_ring(rest);
            }
        }
        self.write_ring(tail);
    }

    /// Puts bytes at the window's end.
    fn load(&mut self, stream: Stream, mut bytes: &[u8]) {
        self.window_bytes += bytes.len();
        let unsent = self.window.len() > self.sent;
        if let Some(last) = self.window.back_mut().filter(|_| unsent)
            && last.stream == stream
            && last.end() == self.loaded
        {
            let (fits, rest) = bytes.split_at(bytes.len().min(LOG_FRAME_BYTES - last.bytes.len()));
            last.bytes.extend_from_slice(fits);
            self.loaded += fits.len() as u64;
            bytes = rest;
        }
        for chunk in bytes.chunks(LOG_FRAME_BYTES) {
            self.window.push_back(Piece { stream, offset: self.loaded, bytes: chunk.to_vec() });
            self.loaded += chunk.len() as u64;
        }
    }

    fn write_spill(&mut self, bytes: &[u8]) -> bool {
        let file = match self.spill.take().map_or_else(|| self.policy.nameless_file(), Ok) {
            Ok(file) => file,
            Err(error) => return broken("made", &error),
        };
        let written = file.write_all_at(bytes, self.total);
        self.spill = Some(file);
        match written {
            Ok(()) => true,
            Err(error) => broken("written", &error),
        }
    }

    /// Counts bytes past the head, and keeps the last of them.
    fn write_ring(&mut self, bytes: &[u8]) {
        let size = self.policy.tail_bytes;
        if bytes.is_empty() {
            return;
        }
        if self.ring.is_none() && !self.ring_broken {
            match self.policy.nameless_file() {
                Ok(file) => self.ring = Some(file),
                Err(error) => self.ring_broken = !broken("made", &error),
            }
        }
        let mut offset = self.total;
        let mut rest = bytes;
        self.total += bytes.len() as u64;
        // More than a whole ring overwrites itself: only its last part is written.
        if let Some(skip) = (rest.len() as u64).checked_sub(size) {
            offset += skip;
            rest = &rest[usize::try_from(skip).unwrap_or(0)..];
        }
        while let Some(file) = self.ring.as_ref().filter(|_| !rest.is_empty()) {
            let at = offset % size;
            let room = usize::try_from(size - at).unwrap_or(usize::MAX);
            let (now, later) = rest.split_at(rest.len().min(room));
            if let Err(error) = file.write_all_at(now, at) {
                self.ring_broken = !broken("written", &error);
                self.ring = None;
            }
            offset += now.len() as u64;
            rest = later;
        }
    }

    /// Where the kept tail begins.
    fn tail_start(&self) -> u64 {
        if self.ring_broken || self.total <= self.head_end {
            return self.total;
        }
        self.head_end.max(self.total.saturating_sub(self.policy.tail_bytes))
    }

    fn totals(&self) -> Totals {
        let head = self.total.min(self.head_end);
        Totals { bytes: self.total, cut: self.tail_start().saturating_sub(head) }
    }

    /// Kept bytes that are not yet in the window.
    fn on_disk(&self) -> u64 {
        let head = self.total.min(self.head_end).saturating_sub(self.loaded);
        head + self.total.saturating_sub(self.tail_start().max(self.loaded))
    }

    /// Fills the window from the disk.
    fn refill(&mut self) {
        loop {
            let head = self.total.min(self.head_end);
            if self.ended && self.loaded >= head && self.loaded < self.tail_start() {
                self.loaded = self.tail_start();
            }
            let room = LOG_WINDOW_BYTES - self.window_bytes;
            let end = if self.loaded < head { head } else { self.total };
            let mut wanted = usize::try_from(end - self.loaded).unwrap_or(usize::MAX).min(LOG_FRAME_BYTES);
            let (file, at) = if self.loaded < head {
                (&self.spill, self.loaded)
            } else {
                let at = self.loaded % self.policy.tail_bytes;
                let room = usize::try_from(self.policy.tail_bytes - at).unwrap_or(usize::MAX);
                wanted = wanted.min(room);
                (&self.ring, at)
            };
            // Half a window is waited for, so that the disk is not read byte by byte.
            let tail_waits = self.loaded >= head && !self.ended;
            if tail_waits || wanted == 0 || wanted > room || self.window.len() >= PIECES {
                return;
            }
            let mut bytes = vec![0; wanted];
            let read = match file {
                Some(file) => file.read_exact_at(&mut bytes, at),
                None => Err(io::ErrorKind::NotFound.into()),
            };
            if let Err(error) = read {
                broken("read", &error);
                // What cannot be read is gone: go on behind it.
                if self.loaded < head {
                    self.head_end = self.loaded;
                } else {
                    self.ring_broken = true;
                }
                continue;
            }
            self.load(Stream::Out, &bytes);
        }
    }

    fn acknowledge(&mut self, offset: u64) {
        while let Some(piece) = self.window.front_mut().filter(|piece| piece.offset < offset) {
            if piece.end() <= offset {
                self.window_bytes -= piece.bytes.len();
                self.window.pop_front();
                self.sent = self.sent.saturating_sub(1);
                continue;
            }
            let gone = usize::try_from(offset - piece.offset).unwrap_or(0);
            piece.bytes.drain(..gone);
            piece.offset = offset;
            self.window_bytes -= gone;
        }
        self.refill();
    }

    fn must_queue(&mut self) -> bool {
        let must = !self.queued && self.window.len() > self.sent;
        self.queued |= must;
        must
    }
}

/// Says so in the log; always `false`.
fn broken(what: &str, error: &io::Error) -> bool {
    log::warn!("output of an attempt is cut: its file cannot be {what}: {error}");
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use agentflow_core::ids::{Attempt, Fence, TaskId};

    const KEY: AttemptKey = AttemptKey { task: TaskId(1), attempt: Attempt(1), fence: Fence(1) };

    fn stream(cap: u64) -> (LogStream, tempfile::TempDir) {
        let dir = tempfile::tempdir().expect("a directory");
        (LogStream::new(&Policy::new(cap, dir.path())), dir)
    }

    fn pattern(from: usize, len: usize) -> Vec<u8> {
        (from..from + len).map(|n| (n % 251) as u8).collect()
    }

    /// Receives and acknowledges everything; gives (offset, bytes) of each frame.
    fn receive(log: &LogStream) -> Vec<(u64, Vec<u8>)> {
        let mut all = Vec::new();
        while let Some(frame) = log.next_frame(KEY) {
            let (header, bytes) = log_frame::decode(&frame).expect("a frame");
            all.push((header.offset, bytes.to_vec()));
            log.acknowledge(header.offset + bytes.len() as u64);
        }
        all
    }

    #[test]
    fn short_output_stays_in_memory() {
        let (log, dir) = stream(1 << 20);
        assert!(log.append(Stream::Out, b"a"));
        assert!(!log.append(Stream::Out, b"b"), "told once");
        log.append(Stream::Err, b"c");
        assert_eq!(receive(&log), [(0, b"ab".to_vec()), (2, b"c".to_vec())]);
        assert_eq!(log.settled(), None);
        log.end();
        assert_eq!(log.settled(), Some(Totals { bytes: 3, cut: 0 }));
        assert_eq!(std::fs::read_dir(dir.path()).expect("the directory").count(), 0);
    }

    #[test]
    fn the_window_is_bounded_and_the_rest_follows_from_disk() {
        let (log, _dir) = stream(8 << 20);
        let whole = pattern(0, 1 << 20);
        for chunk in whole.chunks(10_000) {
            log.append(Stream::Out, chunk);
        }
        let mut unacknowledged = 0;
        while let Some(frame) = log.next_frame(KEY) {
            unacknowledged += frame.len() - log_frame::HEADER_BYTES;
        }
        assert_eq!(unacknowledged, LOG_WINDOW_BYTES);
        assert!(log.rewind());
        log.end();
        let got: Vec<u8> = receive(&log).into_iter().flat_map(|(_, bytes)| bytes).collect();
        assert!(got == whole);
        assert_eq!(log.settled(), Some(Totals { bytes: 1 << 20, cut: 0 }));
    }

    #[test]
    fn the_middle_is_cut_and_the_gap_says_so() {
        let (log, _dir) = stream(1_000);
        let whole = pattern(0, 10_000);
        for chunk in whole.chunks(333) {
            log.append(Stream::Out, chunk);
        }
        let head = receive(&log);
        assert_eq!(head.iter().map(|(_, bytes)| bytes.len()).sum::<usize>(), 500);
        assert!(log.end());
        let tail = receive(&log);
        assert_eq!(tail[0].0, 9_500);
        let bytes: Vec<u8> = tail.into_iter().flat_map(|(_, bytes)| bytes).collect();
        assert!(bytes == whole[9_500..]);
        assert_eq!(log.settled(), Some(Totals { bytes: 10_000, cut: 9_000 }));
    }

    #[test]
    fn a_tail_that_fits_leaves_no_gap() {
        let (log, _dir) = stream(1_000);
        let whole = pattern(0, 900);
        log.append(Stream::Out, &whole);
        log.end();
        assert_eq!(log.abandoned(), Totals { bytes: 900, cut: 900 });
        let got: Vec<u8> = receive(&log).into_iter().flat_map(|(_, bytes)| bytes).collect();
        assert!(got == whole);
        assert_eq!(log.settled(), Some(Totals { bytes: 900, cut: 0 }));
    }

    #[test]
    fn without_a_disk_the_head_ends_and_nothing_blocks() {
        let dir = tempfile::tempdir().expect("a directory");
        let log = LogStream::new(&Policy::new(8 << 20, &dir.path().join("absent")));
        let whole = pattern(0, 1 << 20);
        log.append(Stream::Out, &whole);
        log.end();
        let got: Vec<u8> = receive(&log).into_iter().flat_map(|(_, bytes)| bytes).collect();
        assert!(got == whole[..LOG_WINDOW_BYTES]);
        let cut = (whole.len() - LOG_WINDOW_BYTES) as u64;
        assert_eq!(log.settled(), Some(Totals { bytes: 1 << 20, cut }));
    }

    #[test]
    fn part_of_a_piece_may_be_acknowledged() {
        let (log, _dir) = stream(1_000);
        log.append(Stream::Out, b"hello");
        assert!(log.next_frame(KEY).is_some());
        log.acknowledge(2);
        assert!(log.rewind());
        assert_eq!(receive(&log), [(2, b"llo".to_vec())]);
    }
}

//! Log bytes on the wire: a binary frame of a 32-byte header and at most
//! [`LOG_FRAME_BYTES`] bytes.
//!
//! ```text
//! 0        8        16   20  21      24       32
//! | task   | fence  | att |str| zero | offset | bytes …
//! ```
//!
//! All numbers are little-endian. `offset` counts from the start of the attempt's combined
//! stream; a gap between one frame's end and the next one's offset is output that was cut.

use agentflow_core::ids::{Attempt, Fence, TaskId};
use agentflow_core::limits::LOG_FRAME_BYTES;

use crate::worker::AttemptKey;

/// Bytes before the log bytes.
pub const HEADER_BYTES: usize = 32;

/// Where the bytes came from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Stream {
    /// Standard output.
    Out = 1,
    /// Standard error.
    Err = 2,
}

/// A frame's header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// Whose output.
    pub key: AttemptKey,
    /// Which of the two.
    pub stream: Stream,
    /// Of the first byte.
    pub offset: u64,
}

/// Why a binary frame is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FrameError {
    /// Shorter than a header.
    #[error("a log frame has at least {HEADER_BYTES} bytes")]
    Short,
    /// Longer than allowed.
    #[error("a log frame carries at most {LOG_FRAME_BYTES} bytes")]
    Long,
    /// Neither output nor error.
    #[error("a log frame's stream is 1 (output) or 2 (error)")]
    Stream,
}

/// Puts a frame together.
#[must_use]
pub fn encode(header: Header, bytes: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(HEADER_BYTES + bytes.len());
    frame.extend_from_slice(&header.key.task.0.to_le_bytes());
    frame.extend_from_slice(&header.key.fence.0.to_le_bytes());
    frame.extend_from_slice(&header.key.attempt.0.to_le_bytes());
    frame.extend_from_slice(&[header.stream as u8, 0, 0, 0]);
    frame.extend_from_slice(&header.offset.to_le_bytes());
    frame.extend_from_slice(bytes);
    frame
}

/// Takes a frame apart.
///
/// # Errors
/// When the frame is not one of ours.
pub fn decode(frame: &[u8]) -> Result<(Header, &[u8]), FrameError> {
    let (head, bytes) = frame.split_first_chunk::<HEADER_BYTES>().ok_or(FrameError::Short)?;
    if bytes.len() > LOG_FRAME_BYTES {
        return Err(FrameError::Long);
    }
    let u64_at = |at: usize| {
        let mut raw = [0; 8];
        raw.copy_from_slice(&head[at..at + 8]);
        u64::from_le_bytes(raw)
    };
    let mut attempt = [0; 4];
    attempt.copy_from_slice(&head[16..20]);
    let stream = match head[20] {
        1 => Stream::Out,
        2 => Stream::Err,
        _ => return Err(FrameError::Stream),
    };
    let key = AttemptKey {
        task: TaskId(u64_at(0)),
        fence: Fence(u64_at(8)),
        attempt: Attempt(u32::from_le_bytes(attempt)),
    };
    Ok((Header { key, stream, offset: u64_at(24) }, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_survives_the_wire() {
        let key = AttemptKey { task: TaskId(1 << 40), attempt: Attempt(3), fence: Fence(9) };
        let header = Header { key, stream: Stream::Err, offset: 1 << 33 };
        let frame = encode(header, b"hello");
        assert_eq!(decode(&frame), Ok((header, &b"hello"[..])));
    }

    #[test]
    fn foreign_frames_are_refused() {
        assert_eq!(decode(&[0; 31]), Err(FrameError::Short));
        assert_eq!(decode(&[0; 32]), Err(FrameError::Stream));
        assert_eq!(decode(&vec![1; 33 + LOG_FRAME_BYTES]), Err(FrameError::Long));
    }
}

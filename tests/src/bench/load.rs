//! The native load client: one thread, many connections, each with one request under way.

use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};

use super::line::Line;
use crate::harness::Failure;

/// What the load came to.
pub(super) struct Load {
    /// From the first byte sent to the last answer.
    pub(super) elapsed: Duration,
    /// Milliseconds of each request.
    pub(super) latencies_ms: Vec<f64>,
}

/// Sends the same request `total` times over so many connections. Every answer must be 201.
pub(super) fn send(port: u16, request: &[u8], connections: usize, total: usize) -> Result<Load, Failure> {
    let mut lines = (0..connections.min(total)).map(|_| Line::open(port)).collect::<Result<Vec<_>, _>>()?;
    for line in &lines {
        line.stream.set_nonblocking(true)?;
    }
    let mut latencies_ms = Vec::with_capacity(total);
    let begun = Instant::now();
    let mut asked_at = vec![begun; lines.len()];
    let mut asked = 0;
    for (line, at) in lines.iter_mut().zip(&mut asked_at) {
        *at = Instant::now();
        line.begin(request)?;
        asked += 1;
    }
    while latencies_ms.len() < total {
        for at in ready(&lines)? {
            let Some(reply) = lines[at].go_on(request)? else { continue };
            if reply.status != 201 {
                return Err(format!("{}: {}", reply.status, String::from_utf8_lossy(&reply.body)).into());
            }
            latencies_ms.push(asked_at[at].elapsed().as_secs_f64() * 1e3);
            if asked < total {
                asked_at[at] = Instant::now();
                lines[at].begin(request)?;
                asked += 1;
            }
        }
    }
    Ok(Load { elapsed: begun.elapsed(), latencies_ms })
}

/// The lines on which something can be done.
fn ready(lines: &[Line]) -> Result<Vec<usize>, Failure> {
    let mut fds: Vec<PollFd<'_>> = lines
        .iter()
        .map(|line| {
            let wanted = if line.is_sending() { PollFlags::OUT } else { PollFlags::IN };
            PollFd::new(&line.stream, wanted)
        })
        .collect();
    poll(&mut fds, None)?;
    Ok(fds.iter().enumerate().filter(|(_, fd)| !fd.revents().is_empty()).map(|(at, _)| at).collect())
}

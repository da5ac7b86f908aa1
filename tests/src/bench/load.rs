//! The native load client: one thread, many connections, each with one request under way.

use std::borrow::Cow;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};

use super::line::{Line, Reply};
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
    let connections = connections.min(total);
    let mut asked = 0;
    converse(port, connections, |_, answer| {
        if let Some(reply) = answer {
            reply.expect(201)?;
        }
        asked += 1;
        Ok((asked <= total).then_some(Cow::Borrowed(request)))
    })
}

/// Speaks over so many connections. `next` is told the number of a connection and what came over it,
/// nothing at the beginning, and gives what is to be sent there, or nothing when that one is done.
pub(super) fn converse<'a>(
    port: u16,
    connections: usize,
    mut next: impl FnMut(usize, Option<Reply>) -> Result<Option<Cow<'a, [u8]>>, Failure>,
) -> Result<Load, Failure> {
    let mut lines = (0..connections).map(|_| Line::open(port)).collect::<Result<Vec<_>, _>>()?;
    for line in &lines {
        line.stream.set_nonblocking(true)?;
    }
    let mut latencies_ms = Vec::new();
    let begun = Instant::now();
    let mut asked: Vec<Asked<'a>> = Vec::with_capacity(lines.len());
    for (number, line) in lines.iter_mut().enumerate() {
        asked.push(ask(line, next(number, None)?)?);
    }
    while asked.iter().any(Option::is_some) {
        for at in ready(&lines, &asked)? {
            let Some((since, request)) = &asked[at] else { continue };
            let Some(reply) = lines[at].go_on(request)? else { continue };
            latencies_ms.push(since.elapsed().as_secs_f64() * 1e3);
            asked[at] = ask(&mut lines[at], next(at, Some(reply))?)?;
        }
    }
    Ok(Load { elapsed: begun.elapsed(), latencies_ms })
}

type Asked<'a> = Option<(Instant, Cow<'a, [u8]>)>;

fn ask<'a>(line: &mut Line, request: Option<Cow<'a, [u8]>>) -> Result<Asked<'a>, Failure> {
    let Some(request) = request else { return Ok(None) };
    let since = Instant::now();
    line.begin(&request)?;
    Ok(Some((since, request)))
}

/// The lines on which something can be done, of those that were asked something.
fn ready(lines: &[Line], asked: &[Asked<'_>]) -> Result<Vec<usize>, Failure> {
    let busy: Vec<usize> = (0..lines.len()).filter(|at| asked[*at].is_some()).collect();
    let mut fds: Vec<PollFd<'_>> = busy
        .iter()
        .map(|at| {
            let line = &lines[*at];
            let wanted = if line.is_sending() { PollFlags::OUT } else { PollFlags::IN };
            PollFd::new(&line.stream, wanted)
        })
        .collect();
    poll(&mut fds, None)?;
    Ok(busy.iter().zip(&fds).filter(|(_, fd)| !fd.revents().is_empty()).map(|(at, _)| *at).collect())
}

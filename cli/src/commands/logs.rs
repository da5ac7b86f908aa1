//! `logs`: a task's output, to its end if asked, through restarts of the master.
//!
//! The position is the byte offset; whatever breaks, the stream is opened again from there. A
//! stream that ends by itself is the end only if the task had settled before it was opened:
//! otherwise a stopping master may have closed it.

use std::io::{ErrorKind, Read};
use std::sync::Arc;
use std::time::{Duration, Instant};

use agentflow_protocol::api::TaskView;
use serde_json::json;

use crate::args::Logs;
use crate::client::{Client, with_query};
use crate::error::{Error, exit};
use crate::interrupt::{Ended, guarded};
use crate::output::Output;
use crate::settle::task_path;

/// Bytes read at once.
const CHUNK: usize = 64 << 10;

/// Between two streams of a task that prints nothing, at least.
const PAUSE: Duration = Duration::from_millis(200);

pub(super) fn logs(logs: &Logs, client: Client, output: Output) -> Result<u8, Error> {
    let (id, offset, follow) = (logs.task.id.0, logs.offset, logs.follow);
    let client = Arc::new(client);
    let again = move |offset| format!("go on with `agentflow logs -f {id} --offset {offset}`");
    let position = Arc::new(std::sync::atomic::AtomicU64::new(offset));
    let reached = Arc::clone(&position);
    let ended = guarded(None, move || {
        let mut sink = Sink { id, output, position: reached, held: Vec::new() };
        if follow { to_the_end(&client, &mut sink) } else { once(&client, &mut sink) }
    })?;
    match ended {
        Ended::Done(result) => result.map(|()| exit::DONE),
        Ended::Interrupted | Ended::TimedOut => {
            if follow {
                eprintln!("interrupted; {}", again(position.load(std::sync::atomic::Ordering::Relaxed)));
            }
            Ok(exit::INTERRUPTED)
        }
    }
}

fn once(client: &Client, sink: &mut Sink) -> Result<(), Error> {
    let path = with_query(&logs_path(sink.id), &[("offset", sink.offset().to_string())]);
    let mut stream = client.stream(&path, "text/plain")?;
    match sink.copy(&mut stream)? {
        Copied::All => sink.finish(),
        Copied::Broken(cause) => Err(Error::Broken { at: client.address(), cause }),
    }
}

fn to_the_end(client: &Client, sink: &mut Sink) -> Result<(), Error> {
    loop {
        let asked = Instant::now();
        let view: TaskView = client.get(&task_path(sink.id))?;
        let settled = view.status.is_settled();
        let offset = sink.offset();
        let path =
            with_query(&logs_path(sink.id), &[("follow", "1".to_owned()), ("offset", offset.to_string())]);
        let mut stream = client.stream(&path, "text/plain")?;
        match sink.copy(&mut stream)? {
            Copied::All if settled => return sink.finish(),
            Copied::All => {}
            Copied::Broken(cause) => log::debug!("the stream broke: {cause}"),
        }
        if sink.offset() == offset {
            std::thread::sleep(PAUSE.saturating_sub(asked.elapsed()));
        }
    }
}

fn logs_path(id: u64) -> String {
    format!("{}/logs", task_path(id))
}

/// How a stream ended.
enum Copied {
    All,
    Broken(String),
}

/// Where the bytes go.
struct Sink {
    id: u64,
    output: Output,
    position: Arc<std::sync::atomic::AtomicU64>,
    /// Bytes of a line that is not complete, for JSON.
    held: Vec<u8>,
}

impl Sink {
    fn offset(&self) -> u64 {
        self.position.load(std::sync::atomic::Ordering::Relaxed)
    }

    fn copy(&mut self, stream: &mut impl Read) -> Result<Copied, Error> {
        let mut buffer = vec![0; CHUNK];
        loop {
            match stream.read(&mut buffer) {
                Ok(0) => return Ok(Copied::All),
                Ok(count) => {
                    self.write(buffer.get(..count).unwrap_or_default())?;
                    self.position.fetch_add(count as u64, std::sync::atomic::Ordering::Relaxed);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Ok(Copied::Broken(error.to_string())),
            }
        }
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        if !self.output.json {
            return self.output.bytes(bytes);
        }
        self.held.extend_from_slice(bytes);
        let lines = self.held.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
        let whole = if lines == 0 && self.held.len() >= CHUNK { self.held.len() } else { lines };
        let rest = self.held.split_off(whole);
        let lines = std::mem::replace(&mut self.held, rest);
        self.json_lines(&lines)
    }

    fn finish(&mut self) -> Result<(), Error> {
        let rest = std::mem::take(&mut self.held);
        self.json_lines(&rest)
    }

    fn json_lines(&self, bytes: &[u8]) -> Result<(), Error> {
        String::from_utf8_lossy(bytes)
            .lines()
            .try_for_each(|line| self.output.json_line(&json!({ "task_id": self.id, "line": line })))
    }
}

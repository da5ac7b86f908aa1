//! `logs`: a task's output, to its end if asked, through restarts of the master.
//!
//! The position is an attempt and a byte offset in its output; whatever breaks, the stream is
//! opened again from there. A stream that ends by itself is the attempt's end only if the attempt
//! was over before the stream was opened: otherwise a stopping master may have closed it.

use std::io::{ErrorKind, Read};
use std::sync::{Arc, Mutex, PoisonError};
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

/// Streams in a row that broke soon after they were opened and brought nothing: the master is
/// there but cannot read the output. At [`PAUSE`] each this is 20 s.
const BREAKS: u32 = 100;

/// A stream that breaks later than this was idle, not broken.
const SOON: Duration = Duration::from_secs(10);

/// Where in the output we are.
#[derive(Clone, Copy, Default)]
struct Position {
    /// `None` until it is known which attempt is the latest.
    attempt: Option<u32>,
    offset: u64,
}

pub(super) fn logs(logs: &Logs, client: Client, output: Output) -> Result<u8, Error> {
    let (id, follow) = (logs.task.id.0, logs.follow);
    let position = Arc::new(Mutex::new(Position { attempt: logs.attempt, offset: logs.offset }));
    let mut sink = Sink { id, output, position: Arc::clone(&position), held: Vec::new() };
    let only_this = logs.attempt.is_some();
    let ended = guarded(None, move || {
        if follow { to_the_end(&client, &mut sink, only_this) } else { once(&client, &mut sink) }
    })?;
    match ended {
        Ended::Done(result) => result.map(|()| exit::DONE),
        Ended::Interrupted | Ended::TimedOut => {
            let Position { attempt, offset } = *position.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(attempt) = attempt.filter(|_| follow) {
                eprintln!(
                    "interrupted; go on with `agentflow logs -f {id} --attempt {attempt} --offset {offset}`"
                );
            }
            Ok(exit::INTERRUPTED)
        }
    }
}

fn once(client: &Client, sink: &mut Sink) -> Result<(), Error> {
    let mut stream = client.stream(&path(sink.id, sink.position(), false), "text/plain")?;
    match sink.copy(&mut stream)? {
        Copied::All => sink.finish(),
        Copied::Broken(cause) => Err(Error::Broken { at: client.address(), cause }),
    }
}

fn to_the_end(client: &Client, sink: &mut Sink, only_this: bool) -> Result<(), Error> {
    let mut breaks = 0;
    loop {
        let asked = Instant::now();
        let view: TaskView = client.get(&task_path(sink.id))?;
        let before = sink.position();
        let attempt = before.attempt.unwrap_or(view.attempt.max(1));
        sink.move_to(attempt, before.offset);
        let is_over = view.status.is_settled() || view.attempt > attempt;
        let mut stream = client.stream(&path(sink.id, sink.position(), true), "text/plain")?;
        let copied = sink.copy(&mut stream)?;
        let progressed = sink.position().offset > before.offset;
        match copied {
            Copied::All if is_over && view.attempt > attempt && !only_this => {
                sink.finish()?;
                sink.move_to(attempt + 1, 0);
                eprintln!("-- attempt {} --", attempt + 1);
                continue;
            }
            Copied::All if is_over => return sink.finish(),
            Copied::All => breaks = 0,
            Copied::Broken(cause) => {
                log::debug!("the stream broke: {cause}");
                breaks = if progressed || asked.elapsed() > SOON { 0 } else { breaks + 1 };
                if breaks > BREAKS {
                    return Err(Error::Broken { at: client.address(), cause });
                }
            }
        }
        if !progressed {
            std::thread::sleep(PAUSE.saturating_sub(asked.elapsed()));
        }
    }
}

fn path(id: u64, position: Position, follow: bool) -> String {
    with_query(
        &format!("{}/logs", task_path(id)),
        &[
            ("follow", if follow { "1".to_owned() } else { String::new() }),
            ("attempt", position.attempt.map(|attempt| attempt.to_string()).unwrap_or_default()),
            ("offset", position.offset.to_string()),
        ],
    )
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
    /// Also read when Ctrl-C ends the command.
    position: Arc<Mutex<Position>>,
    /// Bytes of a line that is not complete, for JSON.
    held: Vec<u8>,
}

impl Sink {
    fn position(&self) -> Position {
        *self.position.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn move_to(&self, attempt: u32, offset: u64) {
        *self.position.lock().unwrap_or_else(PoisonError::into_inner) =
            Position { attempt: Some(attempt), offset };
    }

    fn copy(&mut self, stream: &mut impl Read) -> Result<Copied, Error> {
        let mut buffer = vec![0; CHUNK];
        loop {
            match stream.read(&mut buffer) {
                Ok(0) => return Ok(Copied::All),
                Ok(count) => {
                    self.write(buffer.get(..count).unwrap_or_default())?;
                    self.position.lock().unwrap_or_else(PoisonError::into_inner).offset += count as u64;
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

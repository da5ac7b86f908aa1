//! The way from inside an attempt to its worker: one line of JSON to a Unix socket, one line back.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use agentflow_protocol::Problem;
use agentflow_protocol::inside::{Line, Said};

use crate::error::Error;

/// Bytes of an answer: all of a memory, and what surrounds it.
const ANSWER_BYTES: u64 = 8 << 20;

/// The attempt that this command runs in.
pub(crate) struct Inside {
    socket: PathBuf,
    key: String,
}

impl Inside {
    /// If there is one.
    pub(crate) fn here() -> Option<Self> {
        let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let socket = variable("AGENTFLOW_SOCKET")?.into();
        let key = variable("AGENTFLOW_ATTEMPT_KEY")?.into_string().ok()?;
        Some(Self { socket, key })
    }

    /// As [`Inside::here`], for commands that make sense only there.
    pub(crate) fn required(what: &str) -> Result<Self, Error> {
        Self::here().ok_or_else(|| Error::Usage(format!("{what}: this works inside a task only")))
    }

    /// The line with the operation and the attempt's key.
    pub(crate) fn line(&self, op: &str) -> Line {
        Line { op: op.to_owned(), key: self.key.clone(), ..Line::default() }
    }

    /// Says something and waits for the answer: as long as it takes until it is durable.
    pub(crate) fn say(&self, line: &Line) -> Result<Said, Error> {
        let failed =
            |source| Error::io(format!("the worker does not answer at {}", self.socket.display()), source);
        let mut stream = UnixStream::connect(&self.socket).map_err(failed)?;
        let mut text = serde_json::to_vec(line).map_err(|error| Error::Usage(error.to_string()))?;
        text.push(b'\n');
        stream.write_all(&text).map_err(failed)?;
        let mut answer = Vec::new();
        BufReader::new(stream.take(ANSWER_BYTES)).read_until(b'\n', &mut answer).map_err(failed)?;
        let said: Said = serde_json::from_slice(&answer).map_err(|error| Error::Answer {
            at: self.socket.display().to_string(),
            cause: error.to_string(),
        })?;
        match (said.ok, said.error) {
            (true, error) => Ok(Said { error, ..said }),
            (false, Some(problem)) => Err(Error::Problem(Box::new(problem))),
            (false, None) => {
                Err(Error::Problem(Box::new(Problem::new(500, "internal", "no reason was given"))))
            }
        }
    }
}

/// The task that this command runs in.
pub(crate) fn own_task() -> Option<u64> {
    std::env::var("AGENTFLOW_TASK_ID").ok()?.parse().ok()
}

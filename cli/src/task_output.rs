//! The output of a task, to be shown below its line.

use std::io::Read;

use crate::client::Client;
use crate::error::Error;
use crate::output::{Output, Paint};
use crate::settle::task_path;

/// Bytes of one task's output that `--logs` prints; the rest is there for `agentflow logs`.
const LOG_BYTES: u64 = 1 << 20;

/// What a task has printed, as lines.
///
/// # Errors
/// Those of the client.
pub(crate) fn log_lines(client: &Client, id: u64, output: Output) -> Result<Vec<String>, Error> {
    let mut bytes = Vec::new();
    let stream = client.stream(&format!("{}/logs", task_path(id)), "text/plain")?;
    stream
        .take(LOG_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| Error::io(format!("cannot read the output of task {id}"), error))?;
    let cut = bytes.len() as u64 > LOG_BYTES;
    let text = String::from_utf8_lossy(&bytes);
    let bar = output.paint(Paint::Faint, "|");
    let mut lines: Vec<String> = text.lines().map(|line| format!("    {bar} {line}")).collect();
    if cut {
        lines.push(format!("    {bar} … the rest: agentflow logs {id}"));
    }
    Ok(lines)
}

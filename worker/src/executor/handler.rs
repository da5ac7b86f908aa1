//! Warm processes: one JSON line in, one JSON line out, and the process stays for the next task.
//!
//! Owns: the idle processes of every handler, at most as many as there are slots. Processes are
//! apart by name, directory and variables, so that one task's secrets never reach another's.
//! Invariants: a process has at most one task; one that was stopped, timed out, died, or answered
//! with anything but one line is killed and never used again.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use agentflow_core::batch::Outcome;
use agentflow_core::limits::VALUE_BYTES;
use agentflow_core::spec::{RetryOn, Spec};
use agentflow_protocol::log_frame::Stream;
use agentflow_protocol::worker::End;
use rustix::process::{Pid, Signal};
use serde_json::Value;

use super::deadlines::Deadlines;
use super::process::explain;
use super::watch::{self, Exit, Ready};
use super::{Ending, Executor, Scratch};
use crate::config::Handler;
use crate::control::signal_group;
use crate::guarded::Guarded;
use crate::slots::Job;

/// See the module.
#[derive(Debug)]
pub(super) struct Pools {
    declared: BTreeMap<String, Handler>,
    idle: Guarded<Vec<Warm>>,
    limit: usize,
}

/// Bytes of one answer.
const LINE_BYTES: usize = VALUE_BYTES as usize;

/// How long one that closed its output may take to end, so that its exit can be told.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// What tells one pool from another.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Kind {
    name: String,
    workdir: Option<String>,
    env: BTreeMap<String, String>,
}

#[derive(Debug)]
struct Warm {
    kind: Kind,
    child: Child,
    group: Pid,
    exit: Exit,
    input: ChildStdin,
    out: ChildStdout,
    err: Option<ChildStderr>,
}

/// How a conversation with a process ended.
enum Talk {
    /// With a line, and nothing after it.
    Answer(Vec<u8>),
    /// With that error; the process is not to be used again.
    Failed(String),
}

impl Pools {
    pub(super) fn new(declared: BTreeMap<String, Handler>, slots: u32) -> Self {
        let limit = usize::try_from(slots).unwrap_or(usize::MAX);
        Self { declared, idle: Guarded::default(), limit }
    }

    /// Hands the input to a warm process and waits for its answer.
    pub(super) fn run(&self, executor: &Executor, job: &Job, scratch: &mut Scratch, name: &str) -> Ending {
        let Some(handler) = self.declared.get(name) else {
            return Ending::failed(RetryOn::Spawn, self.unknown(name));
        };
        let kind =
            Kind { name: name.to_owned(), workdir: job.spec.workdir.clone(), env: job.spec.env.clone() };
        let mut warm = match self.take(executor, &kind) {
            Some(warm) => warm,
            None => match Warm::start(executor, handler, kind, &job.spec) {
                Ok(warm) => warm,
                Err(error) => return Ending::failed(RetryOn::Spawn, error),
            },
        };
        let line = match executor.watch(job).and_then(|()| executor.input(job)).and_then(line_of) {
            Ok(line) => line,
            Err(error) => {
                self.put(executor, warm);
                return match job.control.stopped() {
                    Some(stop) => Ending::stopped(stop, Outcome::default()),
                    None => Ending::failed(RetryOn::Spawn, error),
                };
            }
        };
        job.control.begin(warm.group);
        let mut deadlines = Deadlines::new(&job.spec, Instant::now());
        let talk = warm.talk(executor, job, scratch, &line, &mut deadlines);
        // From here no signal reaches the process; one that was sent before has set `stopped`.
        job.control.end();
        let stopped = job.control.stopped();
        let reusable = stopped.is_none() && deadlines.error().is_none();
        let talk = match talk {
            Ok(Talk::Answer(line)) if reusable => {
                self.put(executor, warm);
                Ok(line)
            }
            Ok(Talk::Answer(line)) => {
                warm.end(executor);
                Ok(line)
            }
            Ok(Talk::Failed(error)) => {
                let cause = warm.exit_within(LAST_WORDS);
                warm.end(executor);
                Err(format!("handler '{name}' {error}{cause}"))
            }
            Err(error) => {
                warm.end(executor);
                Err(format!("handler '{name}' was lost: {error}"))
            }
        };
        if let Some(stop) = stopped {
            return Ending::stopped(stop, Outcome::default());
        }
        if let Some(error) = deadlines.error() {
            return Ending::failed(RetryOn::Timeout, error);
        }
        match talk {
            Ok(line) => executor.keep(job, executor.refuse_strays(job, judge(name, &line)), None),
            Err(error) => Ending::failed(RetryOn::Error, error),
        }
    }

    fn unknown(&self, name: &str) -> String {
        let known: Vec<_> = self.declared.keys().map(String::as_str).collect();
        if known.is_empty() {
            return format!("this worker has no handler '{name}'; its configuration declares none");
        }
        format!("this worker has no handler '{name}'; it has: {}", known.join(", "))
    }

    /// An idle process that is still alive and silent.
    fn take(&self, executor: &Executor, kind: &Kind) -> Option<Warm> {
        loop {
            let mut warm = {
                let mut idle = self.idle.lock();
                let at = idle.iter().rposition(|warm| warm.kind == *kind)?;
                idle.remove(at)
            };
            let now = Some(Duration::ZERO);
            let ready = watch::wait(Some(&warm.exit), Some(&warm.out), None::<&ChildStderr>, NO_INPUT, now);
            match ready {
                Ok(ready) if !ready.exited && !ready.out => return Some(warm),
                Ok(_) | Err(_) => {
                    log::warn!("handler '{}' died or spoke while it was idle; it is replaced", kind.name);
                    warm.end(executor);
                }
            }
        }
    }

    fn put(&self, executor: &Executor, warm: Warm) {
        let mut idle = self.idle.lock();
        idle.push(warm);
        let oldest = (idle.len() > self.limit).then(|| idle.remove(0));
        drop(idle);
        if let Some(mut oldest) = oldest {
            oldest.end(executor);
        }
    }
}

const NO_INPUT: Option<&'static ChildStdin> = None;

impl Warm {
    fn start(executor: &Executor, handler: &Handler, kind: Kind, spec: &Spec) -> Result<Self, String> {
        let (program, args) = handler.argv.split_first().ok_or("the handler's argv is empty")?;
        let mut command = Command::new(program);
        command.args(args).process_group(0);
        executor.environment.apply_base(&mut command, spec, executor.environment.mark());
        if let Some(workdir) = &spec.workdir {
            command.current_dir(workdir);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|error| explain(spec, &command, &error))?;
        let group = Pid::from_child(&child);
        executor.groups.add(group);
        let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (Some(input), Some(out), err @ Some(_)) = pipes else {
            return Err(format!("handler '{}' has no pipes", kind.name));
        };
        // A handler that does not read must not hold this thread.
        let nonblocking = rustix::io::ioctl_fionbio(&input, true);
        let warm = Self { kind, child, group, exit: Exit::of(group), input, out, err };
        nonblocking.map(|()| warm).map_err(|error| format!("cannot speak with the handler: {error}"))
    }

    fn talk(
        &mut self,
        executor: &Executor,
        job: &Job,
        scratch: &mut Scratch,
        line: &str,
        deadlines: &mut Deadlines,
    ) -> io::Result<Talk> {
        let mut unwritten = line.as_bytes();
        let mut answer = Vec::new();
        loop {
            let now = Instant::now();
            if let Some(signal) = deadlines.due(now) {
                signal_group(self.group, signal);
            }
            let writing = (!unwritten.is_empty()).then_some(&self.input);
            let timeout = deadlines.wait(now);
            let ready = watch::wait(Some(&self.exit), Some(&self.out), self.err.as_ref(), writing, timeout)?;
            if ready.err && self.read_err(executor, job, scratch)? {
                deadlines.active(Instant::now());
            }
            if ready.input {
                match rustix::io::write(&self.input, unwritten) {
                    Ok(count) => unwritten = &unwritten[count..],
                    Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
                    // It does not want to read; it may still answer.
                    Err(rustix::io::Errno::PIPE) => unwritten = &[],
                    Err(error) => return Err(error.into()),
                }
            }
            if ready.out {
                let count = rustix::io::read(&self.out, &mut *scratch.read)?;
                answer.extend_from_slice(&scratch.read[..count]);
                let new = answer.len() - count;
                if let Some(end) = answer[new..].iter().position(|byte| *byte == b'\n').map(|at| new + at) {
                    let clean = end + 1 == answer.len() && end <= LINE_BYTES && unwritten.is_empty();
                    answer.truncate(end);
                    self.finish_err(executor, job, scratch)?;
                    return Ok(if clean { Talk::Answer(answer) } else { Talk::Failed(unclean(end)) });
                }
                if answer.len() > LINE_BYTES {
                    return Ok(Talk::Failed(unclean(answer.len())));
                }
                if count == 0 {
                    self.finish_err(executor, job, scratch)?;
                    return Ok(Talk::Failed("closed its output before it answered".to_owned()));
                }
            } else if ready.exited {
                self.finish_err(executor, job, scratch)?;
                return Ok(Talk::Failed("died before it answered".to_owned()));
            }
        }
    }

    fn read_err(&mut self, executor: &Executor, job: &Job, scratch: &mut Scratch) -> io::Result<bool> {
        let Some(err) = &self.err else { return Ok(false) };
        let count = rustix::io::read(err, &mut *scratch.read)?;
        executor.log(job, Stream::Err, &scratch.read[..count]);
        if count == 0 {
            self.err = None;
        }
        Ok(count > 0)
    }

    /// Reads what was written to standard error before the answer.
    fn finish_err(&mut self, executor: &Executor, job: &Job, scratch: &mut Scratch) -> io::Result<()> {
        // Bounded, so that one that never stops writing does not keep its task.
        for _ in 0..64 {
            let now = Some(Duration::ZERO);
            let Ready { err, .. } =
                watch::wait(None, None::<&ChildStdout>, self.err.as_ref(), NO_INPUT, now)?;
            if !err || !self.read_err(executor, job, scratch)? {
                break;
            }
        }
        Ok(())
    }

    /// How it has ended by itself, in brackets; nothing if it has not.
    fn exit_within(&self, patience: Duration) -> String {
        let (out, err) = (None::<&ChildStdout>, None::<&ChildStderr>);
        match watch::wait(Some(&self.exit), out, err, NO_INPUT, Some(patience)) {
            Ok(Ready { exited: true, .. }) => self.exit.cause(),
            Ok(_) | Err(_) => String::new(),
        }
    }

    /// Kills the process and its group.
    fn end(&mut self, executor: &Executor) {
        executor.groups.remove(self.group);
        self.stop();
    }

    fn stop(&mut self) {
        signal_group(self.group, Signal::KILL);
        if let Err(error) = self.child.wait() {
            log::warn!("handler '{}' cannot be waited for: {error}", self.kind.name);
        }
    }
}

impl Drop for Pools {
    fn drop(&mut self) {
        for warm in self.idle.lock().iter_mut() {
            warm.stop();
        }
    }
}

fn unclean(bytes: usize) -> String {
    if bytes > LINE_BYTES {
        return format!("answered with more than {LINE_BYTES} bytes");
    }
    "answered before it had read its input, or with more than one line".to_owned()
}

/// Turns a handler's answer into the attempt's end.
fn judge(name: &str, line: &[u8]) -> Ending {
    let text = String::from_utf8_lossy(line);
    let answer: Value = match serde_json::from_str(&text) {
        Ok(answer) => answer,
        Err(error) => {
            let error = format!("handler '{name}' answered with something that is no JSON: {error}");
            return Ending::failed(RetryOn::Error, error);
        }
    };
    match answer.get("error") {
        None | Some(Value::Null) => {}
        Some(Value::String(error)) => return Ending::failed(RetryOn::Error, error.as_str()),
        Some(error) => return Ending::failed(RetryOn::Error, error.to_string()),
    }
    let trimmed = text.trim();
    let (result, outputs) = match &answer {
        Value::String(text) => (text.as_str(), None),
        Value::Object(_) => (trimmed, Some(trimmed.into())),
        _ => (trimmed, None),
    };
    let result = Some(result.into());
    Ending { end: End::Completed, outcome: Outcome { result, outputs, ..Outcome::default() } }
}

/// An input as the one line that a handler reads.
fn line_of(input: Option<String>) -> Result<String, String> {
    let mut line = input.unwrap_or_else(|| "null".to_owned());
    if line.contains('\n') {
        // Outputs are kept as they were written, blanks and all.
        let value: Value =
            serde_json::from_str(&line).map_err(|error| format!("its input is no JSON: {error}"))?;
        line = value.to_string();
    }
    line.push('\n');
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_judged() {
        let ending = judge("h", br#" {"a": 1} "#);
        assert_eq!(ending.end, End::Completed);
        assert_eq!(ending.outcome.outputs.as_deref(), Some(r#"{"a": 1}"#));
        assert_eq!(ending.outcome.result, ending.outcome.outputs);
        assert_eq!(judge("h", br#""hello""#).outcome.result.as_deref(), Some("hello"));
        assert_eq!(judge("h", b"[1]").outcome.result.as_deref(), Some("[1]"));
        let ending = judge("h", br#"{"error": "no luck"}"#);
        assert_eq!(ending.end, End::Failed(RetryOn::Error));
        assert_eq!(ending.outcome.error.as_deref(), Some("no luck"));
        let ending = judge("h", b"hello");
        assert!(ending.outcome.error.expect("an error").contains("no JSON"));
    }
}

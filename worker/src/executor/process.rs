//! One process for one attempt: `shell`, `exec` and `script`.
//!
//! The path stays on `posix_spawn`: its own group by `process_group(0)`, nothing run between fork
//! and exec. The leader is not reaped before the rest of its group was killed and its output was
//! read, so that no number in use can mean a stranger.

use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use agentflow_core::batch::Outcome;
use agentflow_core::spec::{Payload, RetryOn, Spec};
use agentflow_protocol::log_frame::Stream;
use agentflow_protocol::worker::End;
use rustix::process::{Pid, Signal};

use super::deadlines::Deadlines;
use super::output::read_outputs;
use super::own_file::OwnFile;
use super::watch::{self, Exit};
use super::{Ending, Executor, Scratch, bounded};
use crate::control::signal_group;
use crate::slots::Job;

/// How long output is still read after the leader has ended: a process that left the group may
/// hold the pipe open for ever.
const DRAIN: Duration = Duration::from_secs(1);

/// Runs the attempt's process to its end, and has kept what it leaves.
pub(super) fn run(executor: &Executor, job: &Job, scratch: &mut Scratch) -> Ending {
    let ending = run_process(executor, job, scratch);
    if ending.end == End::Completed {
        job.place.close();
    }
    scratch.tail.clear();
    job.locks.end();
    executor.environment.clean(job);
    ending
}

fn run_process(executor: &Executor, job: &Job, scratch: &mut Scratch) -> Ending {
    let (mut child, mut own_file) = match start(executor, job) {
        Ok(started) => started,
        Err(error) => {
            if let Some(stop) = job.control.stopped() {
                return Ending::stopped(stop, Outcome::default());
            }
            return Ending::failed(RetryOn::Spawn, error);
        }
    };
    let group = Pid::from_child(&child);
    executor.groups.add(group);
    job.control.begin(group);

    scratch.tail.begin(executor.environment.scratch(job.key));
    let mut pipes = Pipes { out: child.stdout.take(), err: child.stderr.take() };
    let mut deadlines = Deadlines::new(&job.spec, Instant::now());
    let watched = pipes.until_exit(executor, job, scratch, group, (&mut deadlines, own_file.as_mut()));
    let stopped = job.control.stopped();
    // Dead or not to be watched: in both cases nothing of the group may stay.
    signal_group(group, Signal::KILL);
    let drained = watched.and_then(|()| pipes.drain(executor, job, scratch));
    if let Some(own_file) = &mut own_file {
        own_file.look(executor, job);
    }
    executor.groups.remove(group);
    job.control.end();
    let status = child.wait();

    let outputs = read_outputs(&executor.environment.output(job.key));
    let status = match drained.and(status) {
        Ok(status) => status,
        Err(error) => return Ending::failed(RetryOn::Error, format!("the process was lost: {error}")),
    };
    let result = scratch.tail.text();
    let whole = scratch.tail.whole();
    let outcome = Outcome { exit_code: status.code(), signal: status.signal(), result, ..Outcome::default() };
    if let Some(stop) = stopped {
        return Ending::stopped(stop, outcome);
    }
    let ending = executor.refuse_strays(job, judge(status, deadlines.error(), outputs, outcome));
    let whole = whole.filter(|_| ending.end == End::Completed);
    executor.keep(job, ending, whole)
}

fn judge(
    status: ExitStatus,
    timeout: Option<&str>,
    outputs: Result<Option<Box<str>>, String>,
    mut outcome: Outcome,
) -> Ending {
    let (outputs, outputs_error) = match outputs {
        Ok(outputs) => (outputs, None),
        Err(error) => (None, Some(error)),
    };
    outcome.outputs = outputs;
    let (end, error) = if let Some(error) = timeout {
        (End::Failed(RetryOn::Timeout), Some(error.to_owned()))
    } else if let Some(signal) = status.signal() {
        (End::Failed(RetryOn::Error), Some(format!("killed by signal {signal}{}", signal_name(signal))))
    } else if !status.success() {
        (End::Failed(RetryOn::Error), Some(format!("exit code {}", status.code().unwrap_or(-1))))
    } else if outputs_error.is_some() {
        (End::Failed(RetryOn::Error), outputs_error)
    } else {
        (End::Completed, None)
    };
    outcome.error = error.map(|error| bounded(error).into());
    Ending { end, outcome }
}

/// Starts the process. What its own file is before that is no change: the first that it writes is one.
fn start(executor: &Executor, job: &Job) -> Result<(Child, Option<OwnFile>), String> {
    let spec = &*job.spec;
    if let Some(worktree) = &spec.worktree {
        let cancelled = || job.control.stopped().is_some();
        let opened = job.place.open(spec, worktree, &executor.worktrees, job.key, &cancelled);
        opened.map_err(|why| format!("worktree: {why}"))?;
    }
    let directory = job.place.directory(spec);
    let mut command = command(spec, directory)?;
    if let Some(input) = executor.input(job)? {
        executor.environment.write_input(job, &input)?;
    }
    executor.fetch(job)?;
    executor.resume(job)?;
    executor.watch(job)?;
    let locks = job.locks.begin(executor.environment.locks(job.key));
    locks.map_err(|error| format!("AGENTFLOW_LOCKS cannot be written: {error}"))?;
    let own_file = OwnFile::of(job, Instant::now());
    prepare(executor, job, &mut command);
    let mut spawned = command.spawn();
    // A script that may be run but does not say by what.
    if let (Err(error), Payload::Script { path, args }) = (&spawned, &spec.payload)
        && error.raw_os_error() == Some(rustix::io::Errno::NOEXEC.raw_os_error())
    {
        command = through_shell(&script_path(directory, path)?, args);
        prepare(executor, job, &mut command);
        spawned = command.spawn();
    }
    let child = spawned.map_err(|error| explain(spec, &command, &error))?;
    Ok((child, own_file))
}

fn prepare(executor: &Executor, job: &Job, command: &mut Command) {
    executor.environment.apply(command, job);
    if let Some(directory) = job.place.directory(&job.spec) {
        command.current_dir(directory);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
}

/// Says what could not be started, and whether the directory is to blame.
pub(super) fn explain(spec: &Spec, command: &Command, error: &io::Error) -> String {
    if let Some(workdir) = spec.workdir.as_deref().filter(|dir| !Path::new(dir).is_dir()) {
        return format!("cannot start in workdir '{workdir}': it is no directory on this worker");
    }
    let hint = match error.raw_os_error() == Some(rustix::io::Errno::TOOBIG.raw_os_error()) {
        true => "; its arguments or one variable of env are too large: put them into input",
        false => "",
    };
    format!("cannot start '{}': {error}{hint}", command.get_program().to_string_lossy())
}

fn command(spec: &Spec, directory: Option<&Path>) -> Result<Command, String> {
    match &spec.payload {
        Payload::Shell { command: line } => {
            let mut command = Command::new("/bin/sh");
            command.arg("-c").arg(line);
            Ok(command)
        }
        Payload::Exec { argv } => {
            let (program, args) = argv.split_first().ok_or("argv is empty: it names the program first")?;
            let mut command = Command::new(program);
            command.args(args);
            Ok(command)
        }
        Payload::Script { path, args } => {
            let path = script_path(directory, path)?;
            if let Err(error) = std::fs::metadata(&path) {
                return Err(format!("cannot start '{}': {error}", path.display()));
            }
            if rustix::fs::access(&path, rustix::fs::Access::EXEC_OK).is_err() {
                return Ok(through_shell(&path, args));
            }
            let mut command = Command::new(path);
            command.args(args);
            Ok(command)
        }
        other => Err(format!("a {} has no process", other.kind())),
    }
}

fn through_shell(path: &Path, args: &[String]) -> Command {
    let mut command = Command::new("/bin/sh");
    command.arg(path).args(args);
    command
}

/// A script's path counts from the task's directory, never from `PATH`.
fn script_path(directory: Option<&Path>, path: &str) -> Result<PathBuf, String> {
    let path = directory.unwrap_or(Path::new("")).join(path);
    std::path::absolute(&path).map_err(|error| format!("cannot start '{}': {error}", path.display()))
}

/// The two pipes of a process; `None` at their end.
struct Pipes {
    out: Option<ChildStdout>,
    err: Option<ChildStderr>,
}

impl Pipes {
    fn until_exit(
        &mut self,
        executor: &Executor,
        job: &Job,
        scratch: &mut Scratch,
        group: Pid,
        (deadlines, mut own_file): (&mut Deadlines, Option<&mut OwnFile>),
    ) -> io::Result<()> {
        let exit = Exit::of(group);
        loop {
            let now = Instant::now();
            if let Some(signal) = deadlines.due(now) {
                signal_group(group, signal);
            }
            let mut timeout = deadlines.wait(now);
            if let Some(own_file) = own_file.as_deref_mut() {
                own_file.look_in_time(executor, job, now);
                let wait = own_file.wait(now);
                timeout = Some(timeout.map_or(wait, |timeout| timeout.min(wait)));
            }
            let (out, err) = (self.out.as_ref(), self.err.as_ref());
            let ready = watch::wait(Some(&exit), out, err, None::<&ChildStdout>, timeout)?;
            if self.read(executor, job, scratch, ready)? {
                deadlines.active(Instant::now());
            }
            if ready.exited {
                return Ok(());
            }
        }
    }

    /// Reads what is still in the pipes, until their end.
    fn drain(&mut self, executor: &Executor, job: &Job, scratch: &mut Scratch) -> io::Result<()> {
        let until = Instant::now() + DRAIN;
        while self.out.is_some() || self.err.is_some() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let (out, err) = (self.out.as_ref(), self.err.as_ref());
            let ready = watch::wait(None, out, err, None::<&ChildStdout>, Some(left))?;
            self.read(executor, job, scratch, ready)?;
        }
        Ok(())
    }

    /// Reads once from each pipe that is ready. Whether there was anything.
    fn read(
        &mut self,
        executor: &Executor,
        job: &Job,
        scratch: &mut Scratch,
        ready: watch::Ready,
    ) -> io::Result<bool> {
        let mut any = false;
        if let Some(out) = self.out.as_ref().filter(|_| ready.out) {
            let count = read(out, &mut scratch.read)?;
            let bytes = &scratch.read[..count];
            scratch.tail.push(bytes);
            executor.log(job, Stream::Out, bytes);
            any |= count > 0;
            if count == 0 {
                self.out = None;
            }
        }
        if let Some(err) = self.err.as_ref().filter(|_| ready.err) {
            let count = read(err, &mut scratch.read)?;
            executor.log(job, Stream::Err, &scratch.read[..count]);
            any |= count > 0;
            if count == 0 {
                self.err = None;
            }
        }
        Ok(any)
    }
}

fn read(fd: &impl std::os::fd::AsFd, buffer: &mut [u8]) -> io::Result<usize> {
    Ok(rustix::io::retry_on_intr(|| rustix::io::read(fd, &mut *buffer))?)
}

/// The usual name of a signal, in brackets.
fn signal_name(signal: i32) -> &'static str {
    match signal {
        1 => " (SIGHUP)",
        2 => " (SIGINT)",
        3 => " (SIGQUIT)",
        4 => " (SIGILL)",
        6 => " (SIGABRT)",
        7 => " (SIGBUS)",
        8 => " (SIGFPE)",
        9 => " (SIGKILL)",
        10 => " (SIGUSR1)",
        11 => " (SIGSEGV)",
        12 => " (SIGUSR2)",
        13 => " (SIGPIPE)",
        14 => " (SIGALRM)",
        15 => " (SIGTERM)",
        24 => " (SIGXCPU)",
        25 => " (SIGXFSZ)",
        31 => " (SIGSYS)",
        _ => "",
    }
}

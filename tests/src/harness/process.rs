//! One process of a program under test, and what the system says about it.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::{Failure, wait_for};

/// Linux shows times in hundredths of a second to every program, whatever the kernel counts in.
const TICK_MS: u64 = 10;

/// A running program. It is killed when this is dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    /// When it was started.
    pub started: Instant,
}

impl Process {
    /// Starts a program; what it writes on standard error is appended to a file. The caller says
    /// where standard output goes.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(name: &str, command: &mut Command, log: &Path) -> Result<Self, Failure> {
        let file = File::options().create(true).append(true).open(log)?;
        // Nothing of the surroundings may configure it.
        for (variable, _) in std::env::vars_os() {
            if variable.to_str().is_some_and(|variable| variable.starts_with("AGENTFLOW_")) {
                command.env_remove(variable);
            }
        }
        command.stdin(Stdio::null()).stderr(file);
        let started = Instant::now();
        let child = command.spawn().map_err(|error| format!("{name} cannot be started: {error}"))?;
        Ok(Self { name: name.to_owned(), child, log: log.to_owned(), started })
    }

    /// The first line on standard output; what follows goes to nobody.
    ///
    /// # Errors
    /// When the program ends before; the message ends with what it logged last.
    pub fn first_line(&mut self) -> Result<String, Failure> {
        let output = self.child.stdout.take().ok_or("its output was read already")?;
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line)?;
        if line.is_empty() {
            let status = self.child.wait()?;
            return Err(format!("{} ended ({status}): {}", self.name, self.last_log()).into());
        }
        Ok(line.trim_end().to_owned())
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// When it is not there any more.
    pub fn signal(&self, signal: Signal) -> Result<(), Failure> {
        let pid = i32::try_from(self.pid()).ok().and_then(Pid::from_raw).ok_or("no process id")?;
        Ok(kill_process(pid, signal)?)
    }

    /// `kill -9`, and waits until it is gone.
    pub fn kill(&mut self) {
        // It may have ended; then there is nothing to kill and nothing to wait for.
        let _killed = self.child.kill();
        let _reaped = self.child.wait();
    }

    /// How it ended, if it has.
    ///
    /// # Errors
    /// What the system says.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>, Failure> {
        Ok(self.child.try_wait()?)
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When it has not ended in time.
    pub fn wait(&mut self, patience: Duration) -> Result<ExitStatus, Failure> {
        let what = format!("{} ends", self.name);
        wait_for(&what, patience, || self.child.try_wait().ok().flatten())
    }

    /// Resident bytes.
    ///
    /// # Errors
    /// When it is not there any more.
    pub fn resident(&self) -> Result<u64, Failure> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()))?;
        Ok(number_after(&status, "VmRSS:")? << 10)
    }

    /// The last lines that it logged.
    #[must_use]
    pub fn last_log(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

fn number_after(text: &str, name: &str) -> Result<u64, Failure> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)).ok_or_else(|| format!("no {name}"))?;
    Ok(line.split_whitespace().next().unwrap_or_default().parse()?)
}

/// Processor time that a process has used, its children not counted.
///
/// # Errors
/// When it is not there any more.
pub fn cpu_time(pid: u32) -> Result<Duration, Failure> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The program's name may hold anything; it ends with the last parenthesis.
    let rest = stat.rsplit(')').next().unwrap_or_default();
    let ticks = |at: usize| rest.split_whitespace().nth(at).and_then(|text| text.parse::<u64>().ok());
    let ticks = ticks(11).zip(ticks(12)).map(|(user, system)| user + system).ok_or("no times")?;
    Ok(Duration::from_millis(ticks * TICK_MS))
}

/// Bytes that a process has caused to be sent to the disk, as the system counts them: whole pages,
/// when they become dirty.
///
/// # Errors
/// When it is not there any more, or not ours to look at.
pub fn written_bytes(pid: u32) -> Result<u64, Failure> {
    number_after(&std::fs::read_to_string(format!("/proc/{pid}/io"))?, "write_bytes:")
}

/// A process's children, as far as they can be seen.
#[must_use]
pub fn children(pid: u32) -> Vec<u32> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    let parent = |pid: &u32| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        number_after(&status, "PPid:").unwrap_or(0)
    };
    pids.filter(|child| parent(child) == u64::from(pid)).collect()
}

/// Resident bytes of a process's children, as far as they can be seen.
#[must_use]
pub fn resident_children(pid: u32) -> u64 {
    let status = |pid| std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    children(pid).into_iter().map(|pid| number_after(&status(pid), "VmRSS:").unwrap_or(0) << 10).sum()
}

/// Whether a process lives and is no zombie.
#[must_use]
pub fn is_alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().next()).is_some_and(|state| state != "Z")
}

/// Processes whose environment has exactly that variable. Zombies have none.
#[must_use]
pub fn pids_with_environment(variable: &str, value: &str) -> Vec<u32> {
    let wanted = format!("{variable}={value}").into_bytes();
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|entry| entry == wanted)
    })
    .collect()
}

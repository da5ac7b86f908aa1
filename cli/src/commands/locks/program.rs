//! A program that runs under a lock: signals reach it, and it can be stopped with all that it started.

use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tokio::signal::unix::SignalKind;

use crate::descendants;
use crate::error::{Error, exit};
use crate::interrupt::watch_for;
use crate::who::OWNER;

/// What a shell says of a program that it does not find.
const NOT_FOUND: u8 = 127;

/// What a shell says of a program that it may not run.
const NOT_RUN: u8 = 126;

/// How long it may take until what was killed is gone.
const GONE: Duration = Duration::from_secs(5);

/// What comes while a program runs.
#[derive(Debug)]
pub(super) enum Happening<T> {
    /// It has ended.
    Ended(std::io::Result<ExitStatus>),
    /// This program got a signal.
    Signal(Signal),
    /// Something else.
    News(T),
}

/// A program at work.
pub(super) struct Program<T> {
    happenings: Receiver<Happening<T>>,
    sender: Sender<Happening<T>>,
}

/// Nothing was heard for so long.
pub(super) struct Silence;

impl<T: Send + 'static> Program<T> {
    /// Starts it. `owner` is the name under which it has a lock.
    ///
    /// # Errors
    /// When signals cannot be watched; with the exit code of a shell where it cannot be started.
    pub(super) fn start(argv: &[String], owner: Option<&str>) -> Result<Result<Self, u8>, Error> {
        let (sender, happenings) = channel();
        let signals = sender.clone();
        let kinds = [
            SignalKind::interrupt(),
            SignalKind::terminate(),
            SignalKind::hangup(),
            SignalKind::quit(),
            SignalKind::alarm(),
            SignalKind::user_defined1(),
            SignalKind::user_defined2(),
        ];
        watch_for(&kinds, move |kind| {
            let signal = Signal::from_named_raw(kind.as_raw_value());
            if signal.is_none_or(|signal| signals.send(Happening::Signal(signal)).is_err()) {
                // It has ended, and somebody is in a hurry.
                std::process::exit(i32::from(exit::INTERRUPTED));
            }
        })?;
        descendants::adopt();
        let (name, arguments) = argv.split_first().ok_or_else(|| Error::Usage("no program".to_owned()))?;
        let mut command = Command::new(name);
        // So that what it calls goes by the same name.
        command.args(arguments).envs(owner.map(|owner| (OWNER, owner)));
        let mut child = match command.spawn() {
            Ok(child) => child,
            Err(error) => {
                eprintln!("agentflow: cannot run {name}: {error}");
                let is_missing = error.kind() == std::io::ErrorKind::NotFound;
                return Ok(Err(if is_missing { NOT_FOUND } else { NOT_RUN }));
            }
        };
        let end = sender.clone();
        std::thread::Builder::new()
            .name("program".to_owned())
            .spawn(move || end.send(Happening::Ended(child.wait())))
            .map_err(|error| Error::io("cannot start a thread", error))?;
        Ok(Ok(Self { happenings, sender }))
    }

    /// For those who have news.
    pub(super) fn sender(&self) -> Sender<Happening<T>> {
        self.sender.clone()
    }

    /// What comes next. Signals are passed on.
    pub(super) fn next(&self, wait: Duration) -> Result<Happening<T>, Silence> {
        let happening = self.happenings.recv_timeout(wait).map_err(|_| Silence)?;
        if let Happening::Signal(signal) = happening {
            // What was typed has reached the program already.
            if !([Signal::INT, Signal::QUIT].contains(&signal) && is_at_the_terminal()) {
                descendants::signal(signal);
            }
        }
        Ok(happening)
    }

    /// Stops it and all that it started: asks first, and kills what is left after `grace`.
    pub(super) fn stop(self, grace: Duration) {
        descendants::signal(Signal::TERM);
        let has_ended = self.ends_within(grace);
        descendants::kill();
        if !has_ended && !self.ends_within(GONE) {
            eprintln!("agentflow: the program cannot be killed");
        }
    }

    fn ends_within(&self, limit: Duration) -> bool {
        let since = Instant::now();
        loop {
            match self.happenings.recv_timeout(limit.saturating_sub(since.elapsed())) {
                Ok(Happening::Ended(_)) => return true,
                Err(_) => return false,
                Ok(_) => {}
            }
        }
    }
}

/// Whether Ctrl-C reaches all of this program's group.
fn is_at_the_terminal() -> bool {
    let terminal = std::fs::File::open("/dev/tty");
    terminal.is_ok_and(|terminal| {
        rustix::termios::tcgetpgrp(&terminal).is_ok_and(|group| group == rustix::process::getpgrp())
    })
}

/// What a shell would say of its end.
pub(super) fn exit_code(status: &std::io::Result<ExitStatus>) -> Result<u8, Error> {
    match status {
        Ok(status) => {
            let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
            Ok(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(exit::FAILED))
        }
        Err(error) => Err(Error::Embedded(format!("the program was lost: {error}"))),
    }
}

/// Runs a program to its end.
///
/// # Errors
/// When signals cannot be watched.
pub(super) fn run_alone(argv: &[String]) -> Result<u8, Error> {
    let program = match Program::<()>::start(argv, None)? {
        Ok(program) => program,
        Err(code) => return Ok(code),
    };
    loop {
        if let Ok(Happening::Ended(status)) = program.next(Duration::MAX) {
            return exit_code(&status);
        }
    }
}

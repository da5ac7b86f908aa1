//! Why a command ended without doing its work, and the exit code that says so.

use std::io;

use agentflow_protocol::Problem;

/// The exit codes of `agentflow`.
pub(crate) mod exit {
    /// Done.
    pub(crate) const DONE: u8 = 0;
    /// The work failed, or the request could not be fulfilled.
    pub(crate) const FAILED: u8 = 1;
    /// The command or its input is wrong.
    pub(crate) const USAGE: u8 = 2;
    /// No master answers.
    pub(crate) const NO_MASTER: u8 = 3;
    /// The token is missing or does not allow it.
    pub(crate) const REFUSED: u8 = 4;
    /// The state of things forbids it.
    pub(crate) const CONFLICT: u8 = 5;
    /// The embedded master's store failed; starting again recovers.
    pub(crate) const STORE_FAILED: u8 = 70;
    /// The time that was given is over.
    pub(crate) const TIMEOUT: u8 = 124;
    /// Ctrl-C.
    pub(crate) const INTERRUPTED: u8 = 130;
}

/// Everything that can end a command early. `Display` says what is wrong and what to do next.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The command line or an input file is wrong.
    #[error("{0}")]
    Usage(String),
    /// A file is wrong: one line for each thing, beginning with the file's name.
    #[error("{0}")]
    Wrong(String),
    /// Nothing answers there.
    #[error("no master at {at}{}: start one with `agentflow up`, or name another with --master URL", because(.cause))]
    NoMaster {
        /// The addresses that were tried.
        at: String,
        /// What the last try said, where it says more than that nobody listens.
        cause: Option<String>,
    },
    /// The connection broke after the request may have arrived, and it cannot be sent twice.
    #[error(
        "the connection to {at} broke before the answer came ({cause}); the change may or may not have been made: look with `agentflow get` or `agentflow list`"
    )]
    Broken {
        /// The master.
        at: String,
        /// What the transport said.
        cause: String,
    },
    /// The master said no.
    #[error("{}", explain(.0))]
    Problem(Box<Problem>),
    /// The answer is not what this program understands.
    #[error(
        "{at} answered with something that is no AgentFlow answer ({cause}): is this address a master of this version?"
    )]
    Answer {
        /// What was asked.
        at: String,
        /// What is wrong with the answer.
        cause: String,
    },
    /// A file or the terminal.
    #[error("{what}: {source}")]
    Io {
        /// What was done to which file.
        what: String,
        /// The system's word.
        source: io::Error,
    },
    /// Standard output cannot be written.
    #[error("cannot write to standard output: {0}")]
    Output(#[from] io::Error),
    /// Another process is in the way.
    #[error("{0}")]
    Busy(String),
    /// What is meant is not there.
    #[error("{0}")]
    Gone(String),
    /// The master or worker inside this process.
    #[error("{0}")]
    Embedded(String),
}

impl Error {
    /// An error of the file system.
    pub(crate) fn io(what: impl Into<String>, source: io::Error) -> Self {
        Self::Io { what: what.into(), source }
    }

    /// Whether standard output was closed by its reader, as `agentflow list | head` does.
    pub(crate) fn is_closed_pipe(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }

    /// What is said of it on standard error.
    pub(crate) fn message(&self) -> String {
        match self {
            // Editors jump to what begins like this.
            Self::Wrong(lines) => lines.clone(),
            other => format!("agentflow: {other}"),
        }
    }

    /// Whether the master answered with that status.
    pub(crate) fn is_status(&self, status: u16) -> bool {
        matches!(self, Self::Problem(problem) if problem.status == status)
    }

    /// The exit code that tells scripts which kind of error it was.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) | Self::Wrong(_) => exit::USAGE,
            Self::NoMaster { .. } => exit::NO_MASTER,
            Self::Busy(_) => exit::CONFLICT,
            Self::Problem(problem) => match problem.status {
                401 | 403 => exit::REFUSED,
                409 => exit::CONFLICT,
                400 | 413 | 422 => exit::USAGE,
                _ => exit::FAILED,
            },
            Self::Broken { .. }
            | Self::Answer { .. }
            | Self::Io { .. }
            | Self::Output(_)
            | Self::Gone(_)
            | Self::Embedded(_) => exit::FAILED,
        }
    }
}

fn because(cause: &Option<String>) -> String {
    cause.as_ref().map(|cause| format!(" ({cause})")).unwrap_or_default()
}

fn explain(problem: &Problem) -> String {
    let mut text = if problem.detail.is_empty() { problem.title.clone() } else { problem.detail.clone() };
    // One error is already the detail; several are listed.
    if problem.errors.len() > 1 || problem.errors.first().is_some_and(|one| !text.contains(&one.detail)) {
        for error in &problem.errors {
            let pointer = if error.pointer.is_empty() { "the body" } else { &error.pointer };
            text.push_str(&format!("\n  {pointer}: {}", error.detail));
        }
    }
    match problem.status {
        401 => text.push_str("\nput a token into AGENTFLOW_TOKEN"),
        403 => text.push_str("\nthis token's role does not allow it; ask for another"),
        _ => {}
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use agentflow_protocol::problem::FieldError;

    #[test]
    fn every_field_error_is_shown() {
        let field =
            |pointer: &str| FieldError { pointer: pointer.into(), detail: "allowed: 0 to 100".into() };
        let error = Error::Problem(Box::new(Problem::invalid(vec![field("/priority"), field("/retry/max")])));
        let text = error.to_string();
        assert!(text.contains("/priority: allowed") && text.contains("/retry/max: allowed"), "{text}");
        let one = Error::Problem(Box::new(Problem::invalid(vec![field("/priority")]))).to_string();
        assert_eq!(one, "/priority: allowed: 0 to 100");
    }

    #[test]
    fn exit_codes_are_those_of_the_contract() {
        let code = |status| Error::Problem(Box::new(Problem::new(status, "x", "y"))).exit_code();
        assert_eq!([401, 403, 409, 422, 404].map(code), [4, 4, 5, 2, 1]);
        assert_eq!(Error::NoMaster { at: "here".into(), cause: None }.exit_code(), 3);
        assert_eq!(Error::Usage(String::new()).exit_code(), 2);
    }
}

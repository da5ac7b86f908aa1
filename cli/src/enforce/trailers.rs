//! The trailers of commits: under which grants something was changed.

use std::fs;
use std::path::Path;

use agentflow_core::limits;
use agentflow_core::lock::{LockId, LockPath};

use super::git::Git;
use super::own::{By, Own};
use crate::error::Error;

const TASK: &str = "AgentFlow-Task";
const ATTEMPT: &str = "AgentFlow-Attempt";
const LOCK: &str = "AgentFlow-Lock";
const FENCE: &str = "AgentFlow-Fence";

/// For git's pretty formats: our trailers, one on each line. Only those at the end of a message count.
pub(super) const FORMAT: &str =
    "%(trailers:only,unfold,key=AgentFlow-Task,key=AgentFlow-Attempt,key=AgentFlow-Lock,key=AgentFlow-Fence)";

/// The line below which an editor shows what is no part of a message.
const SCISSORS: &str = "------------------------ >8 ------------------------";

/// What a commit says of the grants under which it was made.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Trailers {
    /// The numbers of the grants.
    pub(crate) fences: Vec<u64>,
    /// What is wrong with a trailer.
    pub(crate) wrong: Option<String>,
}

impl Trailers {
    /// Reads what git prints with [`FORMAT`].
    pub(super) fn read(text: &str) -> Self {
        let mut trailers = Self::default();
        for line in text.lines() {
            let Some((name, value)) = line.split_once(':') else { continue };
            let (name, value) = (name.trim(), value.trim());
            let is = |other: &str| name.eq_ignore_ascii_case(other);
            if is(LOCK) {
                if value.parse::<LockId>().is_err() {
                    trailers.is_wrong(name, value, "the id of a lock");
                }
            } else if is(TASK) || is(ATTEMPT) || is(FENCE) {
                match number(value) {
                    Some(fence) if is(FENCE) => trailers.add(fence),
                    Some(_) => {}
                    None => trailers.is_wrong(name, value, "a number"),
                }
            }
        }
        trailers
    }

    fn add(&mut self, fence: u64) {
        if self.fences.contains(&fence) {
            return;
        }
        if self.fences.len() == limits::LOCK_REQUESTS {
            self.wrong = Some(format!("it has more than {} of the trailers {FENCE}", limits::LOCK_REQUESTS));
            return;
        }
        self.fences.push(fence);
    }

    fn is_wrong(&mut self, name: &str, value: &str, expected: &str) {
        self.wrong.get_or_insert_with(|| {
            format!("its trailer {name} is '{}', not {expected}", value.escape_debug())
        });
    }
}

/// A number as it is written by hand: digits and nothing else.
fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten().filter(|number| *number > 0)
}

/// What a commit that changes these files has to say.
pub(crate) fn lines(own: &Own, paths: &[LockPath]) -> Vec<String> {
    // Numbers only: the environment is not trusted to write a message.
    let variable = |name: &str| std::env::var(name).ok().and_then(|text| number(&text));
    let mut lines = Vec::new();
    if let Some(task) = variable("AGENTFLOW_TASK_ID") {
        lines.push(format!("{TASK}: {task}"));
        lines.extend(variable("AGENTFLOW_ATTEMPT").map(|attempt| format!("{ATTEMPT}: {attempt}")));
    }
    for grant in own.covering(paths) {
        if grant.by == By::Person {
            lines.push(format!("{LOCK}: {}", grant.id));
        }
        lines.push(format!("{FENCE}: {}", grant.fence));
    }
    lines
}

/// Adds trailers to a message that do not stand there yet. One without words stays so: the commit is to
/// be given up.
///
/// # Errors
/// When git does not do it.
pub(crate) fn add(git: &Git, file: &Path, lines: &[String]) -> Result<(), Error> {
    if lines.is_empty() || is_blank(git, file)? {
        return Ok(());
    }
    let mut words: Vec<&str> = vec!["interpret-trailers", "--in-place", "--no-divider", "--where", "end"];
    words.extend(["--if-exists", "addIfDifferent", "--if-missing", "add"]);
    words.extend(lines.iter().flat_map(|line| ["--trailer", line]));
    words.push("--");
    let mut words: Vec<&std::ffi::OsStr> = words.into_iter().map(AsRef::as_ref).collect();
    words.push(file.as_os_str());
    git.run(&words).map(drop)
}

/// Whether nothing is left of a message without comments.
fn is_blank(git: &Git, file: &Path) -> Result<bool, Error> {
    let text = fs::read(file).map_err(|error| Error::io(format!("cannot read {}", file.display()), error))?;
    let is_end = |line: &&[u8]| !line.trim_ascii_end().ends_with(SCISSORS.as_bytes());
    let lines: Vec<&[u8]> = text.split(|byte| *byte == b'\n').take_while(is_end).collect();
    Ok(git.feed(&["stripspace", "--strip-comments"], lines.join(&b'\n'))?.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trailers_are_numbers() {
        let read = Trailers::read(
            "AgentFlow-Task: 5\nAgentFlow-Attempt: 2\nagentflow-fence: 17\nAgentFlow-Fence: 18\nAgentFlow-Fence: 17\n",
        );
        assert_eq!(read, Trailers { fences: vec![17, 18], wrong: None });
        assert_eq!(Trailers::read(""), Trailers::default());
        let id = "a5".repeat(16);
        assert_eq!(Trailers::read(&format!("AgentFlow-Lock: {id}\nAgentFlow-Fence: 1")).wrong, None);
        for line in [
            "AgentFlow-Fence: x",
            "AgentFlow-Fence:",
            "AgentFlow-Fence: +5",
            "AgentFlow-Fence: -5",
            "AgentFlow-Fence: 0",
            "AgentFlow-Fence: 17 18",
            "AgentFlow-Fence: 99999999999999999999",
            "AgentFlow-Task: five",
            "AgentFlow-Lock: 5",
        ] {
            let name = line.split(':').next().expect("a name");
            let wrong = Trailers::read(&format!("AgentFlow-Fence: 1\n{line}\nAgentFlow-Fence: 2")).wrong;
            assert!(wrong.is_some_and(|wrong| wrong.contains(name)), "{line}");
        }
    }

    #[test]
    fn the_number_of_fences_has_a_bound() {
        let many: String =
            (1..=limits::LOCK_REQUESTS + 1).map(|fence| format!("AgentFlow-Fence: {fence}\n")).collect();
        assert!(Trailers::read(&many).wrong.is_some_and(|wrong| wrong.contains("more than")));
    }
}

//! The scripts that git runs as its hooks: tiny, and known again when they are to go.
//!
//! A script only finds `agentflow` and hands over to it. Where there is none any more, it says so; then it
//! refuses where every change needs a lock, and else does what was done before it came.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

/// The end of the name of the directory that keeps what was there before, beside that of the hooks.
pub(crate) const ASIDE: &str = ".agentflow-chained";

/// The hooks of a person's repository.
pub(crate) const LOCAL: [&str; 3] = ["pre-commit", "commit-msg", "pre-push"];

/// The hook of a server's.
pub(crate) const SERVER: &str = "pre-receive";

/// By this a script is known; a checksum follows of all the other lines.
const MARK: &[u8] = b"# agentflow hook ";

/// What the shell does where there is no `agentflow`, on a person's machine.
const WITHOUT: &str = r#"done
echo 'NAME: agentflow is not found, so that file locks are not checked; install it, or take this hook away' >&2
mode=${AGENTFLOW_LOCK_MODE-}
if [ -z "$mode" ] && [ -n "${AGENTFLOW_LOCKS-}" ] && [ -e "$AGENTFLOW_LOCKS" ]; then
    mode=enforce
elif [ -z "$mode" ] && grep -Eq '^[[:space:]]*mode[[:space:]]*=[[:space:]]*.enforce' .agentflow/repository.toml 2>/dev/null; then
    mode=enforce
fi
if [ "$mode" = enforce ]; then
    echo 'NAME: refused, as every change needs a lock here' >&2
    exit 1
fi
chained="$(cd "${0%/*}" && pwd -P).agentflow-chained/NAME"
[ ! -x "$chained" ] || exec "$chained" "$@"
"#;

/// The same on a server.
const REFUSED: &str = r#"done
echo 'NAME: agentflow is not found on the server, so that no change can be checked: refused' >&2
exit 1
"#;

/// Where a server keeps the master's token, for lack of an environment of its own.
const TOKEN: &str = r#"token="${GIT_DIR:-.}/agentflow/token"
if [ -z "${AGENTFLOW_TOKEN-}" ] && [ -r "$token" ]; then
    AGENTFLOW_TOKEN=$(cat "$token")
    export AGENTFLOW_TOKEN
fi
"#;

/// A hook of git's.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Script {
    /// As git calls it.
    pub(crate) name: &'static str,
    /// The file.
    pub(crate) text: Vec<u8>,
}

impl Script {
    /// One of [`LOCAL`], which hands over to that program, or to what the shell finds.
    pub(crate) fn local(name: &'static str, program: &OsStr) -> Self {
        let call = format!(r#"hook git --script "$0" {name} "$@""#);
        Self::new(name, program, "", call.as_bytes(), WITHOUT)
    }

    /// The hook of a server, with the words by which the program is told what to check.
    pub(crate) fn server(program: &OsStr, words: &[OsString]) -> Self {
        let words: Vec<Vec<u8>> = words.iter().map(|word| quoted(word)).collect();
        let call = [&words.join(&b' ')[..], br#" --script "$0""#].concat();
        Self::new(SERVER, program, TOKEN, &call, REFUSED)
    }

    fn new(name: &'static str, program: &OsStr, before: &str, call: &[u8], without: &str) -> Self {
        let about = format!(
            "# What was here before runs first: it is in the directory beside this one that ends with {ASIDE}.\n"
        );
        let body = [
            about.as_bytes(),
            before.as_bytes(),
            b"for agentflow in ",
            &quoted(program),
            b" agentflow; do\n    command -v \"$agentflow\" >/dev/null 2>&1 || continue\n    exec \"$agentflow\" ",
            call,
            b"\n",
            without.replace("NAME", name).as_bytes(),
        ]
        .concat();
        let mark = format!(
            "{:016x}; `agentflow hooks` and `agentflow guard` make it and take it away\n",
            sum(&body)
        );
        Self { name, text: [b"#!/bin/sh\n", MARK, mark.as_bytes(), &body].concat() }
    }
}

/// Whether a file is one of these scripts.
pub(crate) fn is_ours(text: &[u8]) -> bool {
    text.split(|byte| *byte == b'\n').nth(1).is_some_and(|line| line.starts_with(MARK))
}

/// Whether it is one as it was made: nobody has changed a line of it.
pub(crate) fn is_untouched(text: &[u8]) -> bool {
    let mut lines = text.splitn(3, |byte| *byte == b'\n');
    let (Some(b"#!/bin/sh"), Some(mark), Some(body)) = (lines.next(), lines.next(), lines.next()) else {
        return false;
    };
    let said = mark.strip_prefix(MARK).and_then(|rest| rest.get(..16));
    said == Some(format!("{:016x}", sum(body)).as_bytes())
}

/// FNV-1a: it tells an edited text from another, and is no secret.
fn sum(text: &[u8]) -> u64 {
    text.iter()
        .fold(0xcbf2_9ce4_8422_2325, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// A word that the shell takes as it is.
fn quoted(word: &OsStr) -> Vec<u8> {
    let parts: Vec<&[u8]> = word.as_bytes().split(|byte| *byte == b'\'').collect();
    [b"'", &parts.join(&br"'\''"[..])[..], b"'"].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_is_known_as_long_as_nobody_has_changed_it() {
        let script = Script::local("pre-commit", OsStr::new("/opt/it's here/agentflow"));
        assert!(is_ours(&script.text) && is_untouched(&script.text));
        let text = String::from_utf8(script.text).expect("text");
        assert!(text.contains(r"for agentflow in '/opt/it'\''s here/agentflow' agentflow; do"), "{text}");
        let edited = text.replace("exit 1", "exit 0");
        assert!(is_ours(edited.as_bytes()) && !is_untouched(edited.as_bytes()));
        for other in ["", "#!/bin/sh\n", "#!/bin/sh\nexit 0\n", "#!/bin/sh\n# agentflow hook \n"] {
            assert!(!is_untouched(other.as_bytes()), "{other}");
        }
        assert!(!is_ours(b"#!/bin/sh\nagentflow hook git pre-commit\n"));
    }

    #[test]
    fn a_word_does_nothing_to_the_shell() {
        assert_eq!(quoted(OsStr::new("a b$(c)`d`'e'")), br"'a b$(c)`d`'\''e'\'''");
        assert_eq!(quoted(OsStr::new("")), b"''");
    }
}

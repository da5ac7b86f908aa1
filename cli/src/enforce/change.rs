//! A file that is changed, by the name that git or an agent gives it: bytes that nobody has checked.

use agentflow_core::lock::LockPath;

/// One file.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct Change {
    name: Vec<u8>,
    /// What a lock calls it, or why no lock can be for it.
    pub(crate) path: Result<LockPath, String>,
}

impl Change {
    /// A file as git names it, from the root. A star in a name is a star in its lock too: what covers
    /// all that the pattern names covers the file.
    pub(crate) fn of(name: &[u8]) -> Self {
        Self { name: name.to_vec(), path: lock_path(name) }
    }

    /// A file whose path is known.
    pub(crate) fn at(path: LockPath) -> Self {
        Self { name: path.as_str().as_bytes().to_vec(), path: Ok(path) }
    }

    /// A file for which there can be no lock.
    pub(crate) fn beyond(name: &[u8], why: String) -> Self {
        Self { name: name.to_vec(), path: Err(why) }
    }

    /// Its name as git has it.
    pub(crate) fn name(&self) -> &[u8] {
        &self.name
    }

    /// Its name for people.
    pub(crate) fn shown(&self) -> String {
        shown(&self.name)
    }

    /// Where a lock of somebody else would be in its way; nothing is the whole repository. A file for
    /// which there can be no lock still lies in a directory.
    pub(crate) fn place(&self) -> Option<LockPath> {
        if let Ok(path) = &self.path {
            return Some(path.clone());
        }
        let above = |at: usize| LockPath::new(&format!("{}/", lock_path(&self.name[..at]).ok()?)).ok();
        let slashes = self.name.iter().enumerate().rev().filter(|(_, byte)| **byte == b'/');
        slashes.filter_map(|(at, _)| above(at)).next()
    }
}

/// What a lock calls a file of git's.
fn lock_path(name: &[u8]) -> Result<LockPath, String> {
    let text = std::str::from_utf8(name).map_err(|_| "its name is no Unicode".to_owned())?;
    // Git writes no such names, but a tree that somebody made by hand can have them.
    if text.split('/').any(|segment| matches!(segment, "" | "." | "..")) {
        return Err("its name is no path".to_owned());
    }
    LockPath::new(text).map_err(|error| error.to_string())
}

/// A name that cannot pass for another one, and does nothing to a terminal.
pub(crate) fn shown(name: &[u8]) -> String {
    match std::str::from_utf8(name) {
        Ok(text) if text.chars().all(is_plain) => text.to_owned(),
        Ok(text) => format!("\"{}\"", text.escape_debug()),
        Err(_) => format!("\"{}\"", name.escape_ascii()),
    }
}

/// Whether a character is neither a command nor one that turns the direction of writing.
fn is_plain(c: char) -> bool {
    let turns =
        matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}');
    !c.is_control() && !turns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_what_a_lock_calls_it() {
        let path = |name: &[u8]| Change::of(name).path.map(|path| path.to_string());
        assert_eq!(path(b"src/a b.rs"), Ok("src/a b.rs".to_owned()));
        assert_eq!(path("cafe\u{301}".as_bytes()), Ok("caf\u{e9}".to_owned()));
        assert_eq!(path(b"a*/b"), Ok("a*/b".to_owned()));
        for name in [&b"src/\xff"[..], b"a\nb", b"a\\b", b"../a", b"a//b", b"a/./b", b"", b"C:/a", b"*{a,b}"]
        {
            assert!(path(name).is_err(), "{}", name.escape_ascii());
        }
    }

    #[test]
    fn a_file_that_no_lock_can_be_for_lies_in_a_directory() {
        let place = |name: &[u8]| Change::of(name).place().map(|path| path.to_string());
        assert_eq!(place(b"src/a.rs").as_deref(), Some("src/a.rs"));
        assert_eq!(place(b"src/x/\xff").as_deref(), Some("src/x/**"));
        assert_eq!(place(b"src/\n/a").as_deref(), Some("src/**"));
        assert_eq!(place(b"\xff"), None);
    }

    #[test]
    fn a_name_does_nothing_to_a_terminal() {
        for (name, text) in [
            (&b"it's a \"file\""[..], "it's a \"file\""),
            ("übung".as_bytes(), "übung"),
            (b"a\x1b[31m\n", r#""a\u{1b}[31m\n""#),
            ("a\u{202e}b".as_bytes(), r#""a\u{202e}b""#),
            (b"a\xff", r#""a\xff""#),
        ] {
            assert_eq!(shown(name), text);
        }
    }
}

//! Which repository: the place that all its copies name as their origin, whatever the spelling.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::limits;

/// `host/path` in small letters up to the path, without credentials, port and `.git`; or a name of one's
/// own, from a marker that is committed.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
#[serde(transparent)]
pub struct Repository(Arc<str>);

/// Why a text names no repository.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "{0}; allowed: an origin such as https://example.com/team/app.git or git@example.com:team/app, or \
     example.com/team/app"
)]
pub struct RepositoryError(&'static str);

impl Repository {
    /// The repository of tasks that name none.
    pub const DEFAULT: &'static str = "default";

    /// Brings the address of an origin, or a name, into its normal form.
    ///
    /// # Errors
    /// When nothing is left of it, or it is a path of some machine.
    pub fn new(text: &str) -> Result<Self, RepositoryError> {
        let text = text.trim();
        if text.is_empty() {
            return Err(RepositoryError("it is empty"));
        }
        if text.len() > limits::PATH_BYTES {
            return Err(RepositoryError("it is too long"));
        }
        if text.chars().any(|c| c.is_control() || c.is_whitespace() || c == '\\') {
            return Err(RepositoryError("it has a space, a backslash or a control character"));
        }
        let (host, path) = match text.split_once("://") {
            Some((scheme, rest)) => {
                let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
                match (scheme.to_ascii_lowercase().as_str(), authority) {
                    ("file", "" | "localhost") => ("localhost".to_owned(), path),
                    ("http" | "https" | "ssh" | "git" | "git+ssh" | "ssh+git", _) => {
                        (host_of(authority), path)
                    }
                    _ => return Err(RepositoryError("its scheme is not one of git's")),
                }
            }
            None if text.starts_with(['/', '.', '~']) => {
                return Err(RepositoryError("it is a path of one machine"));
            }
            None => match text.split_once(':') {
                // As ssh is written by hand: user@host:path, but not host:port/path.
                Some((authority, path)) if !authority.contains('/') => match path.split_once('/') {
                    Some((port, rest)) if port.parse::<u16>().is_ok() => (host_of(authority), rest),
                    _ => (host_of(authority), path),
                },
                _ => {
                    let (host, path) = text.split_once('/').unwrap_or((text, ""));
                    (host_of(host), path)
                }
            },
        };
        let path = path.split(['?', '#']).next().unwrap_or_default();
        let segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
        if segments.iter().any(|segment| matches!(*segment, "." | "..")) {
            return Err(RepositoryError("it has '.' or '..' in its path"));
        }
        let path = segments.join("/");
        let path = path.trim_end_matches(".git").trim_end_matches('/');
        if host.is_empty() || host == "." || host == ".." {
            return Err(RepositoryError("it has no host"));
        }
        if path.is_empty() {
            return Ok(Self(host.trim_end_matches(".git").into()));
        }
        Ok(Self(format!("{host}/{path}").into()))
    }

    /// Whether git takes the address of an origin for a path of this machine.
    #[must_use]
    pub fn is_local(origin: &str) -> bool {
        match (origin.find(':'), origin.find('/')) {
            (Some(colon), Some(slash)) => slash < colon,
            (colon, _) => colon.is_none(),
        }
    }

    /// The one at a path of this machine, `localhost/path`. What means something in addresses is written
    /// as git's users write it there.
    ///
    /// # Errors
    /// When the path is empty or too long.
    pub fn at(path: &str) -> Result<Self, RepositoryError> {
        let mut url = "file://".to_owned();
        for character in path.chars() {
            if character.is_whitespace() || character.is_control() || "\\?#%".contains(character) {
                let mut bytes = [0; 4];
                url.extend(character.encode_utf8(&mut bytes).bytes().map(|byte| format!("%{byte:02X}")));
            } else {
                url.push(character);
            }
        }
        Self::new(&url)
    }

    /// Its text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its text, shared.
    #[must_use]
    pub fn text(&self) -> Arc<str> {
        Arc::clone(&self.0)
    }
}

impl Default for Repository {
    fn default() -> Self {
        Self(Self::DEFAULT.into())
    }
}

/// The host without user and port.
fn host_of(authority: &str) -> String {
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let host = match host.rsplit_once(':') {
        Some((name, port)) if !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    host.to_lowercase()
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Repository {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        Self::new(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_spellings_of_an_origin_are_one_repository() {
        for text in [
            "https://github.com/Acme/app.git",
            "https://user:token@GitHub.com:443/Acme/app/",
            "http://github.com/Acme/app",
            "git@github.com:Acme/app.git",
            "ssh://git@github.com:22/Acme/app.git",
            "ssh://git@github.com/Acme/app",
            "git://github.com/Acme/app.git?x=1#y",
            "github.com:22/Acme/app",
            "github.com/Acme//app/",
            " github.com/Acme/app ",
        ] {
            assert_eq!(
                Repository::new(text).map(|r| r.to_string()),
                Ok("github.com/Acme/app".into()),
                "{text}"
            );
        }
        let normal = |text: &str| Repository::new(text).map(|repository| repository.to_string());
        assert_eq!(normal("file:///srv/git/app.git"), Ok("localhost/srv/git/app".into()));
        assert_eq!(normal("app"), Ok("app".into()));
        assert_eq!(normal("App.git"), Ok("app".into()));
        assert_eq!(normal("https://[::1]:8080/a/b"), Ok("[::1]/a/b".into()));
    }

    #[test]
    fn what_is_no_repository_is_refused() {
        for text in [
            "",
            "  ",
            "/srv/app",
            "../app",
            "~/app",
            "a b",
            "https:///x",
            "ftp://x/y",
            "a/../b",
            "x\0y",
            "c:\\x",
        ] {
            assert!(Repository::new(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_path_is_told_from_an_address_as_git_does() {
        for local in ["/srv/app", "../app", "app", "./a:b"] {
            assert!(Repository::is_local(local), "{local}");
        }
        for address in ["https://h/a", "git@h:a/b", "h:a", "file:///srv/a"] {
            assert!(!Repository::is_local(address), "{address}");
        }
        let at = Repository::at("/srv/my app#1").map(|repository| repository.to_string());
        assert_eq!(at, Ok("localhost/srv/my%20app%231".into()));
    }

    #[test]
    fn the_normal_form_is_its_own() {
        for text in ["https://h/a/b.git", "x", "h/a.git.git"] {
            let normal = Repository::new(text).expect("a repository");
            let again = Repository::new(normal.as_str()).expect("still one");
            assert_eq!(again, normal, "{text}");
        }
    }
}

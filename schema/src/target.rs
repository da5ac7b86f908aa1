//! Which database, and how durable.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// Where the state is kept.
#[derive(Clone, PartialEq, Eq)]
pub enum Target {
    /// A SQLite file; made if it is not there.
    Sqlite(PathBuf),
    /// A PostgreSQL database, as a `postgres://` URL. It must exist.
    Postgres(String),
}

impl FromStr for Target {
    type Err = String;

    /// Accepts `postgres://…`, `postgresql://…` and a path.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.starts_with("postgres://") || text.starts_with("postgresql://") {
            return Ok(Self::Postgres(text.to_owned()));
        }
        if text.is_empty() {
            return Err("a database is a path or postgres://USER@HOST/NAME".to_owned());
        }
        if text.split_once("://").is_some_and(|(scheme, _)| scheme.chars().all(char::is_alphanumeric)) {
            return Err(format!("'{text}': only postgres:// URLs and paths are known"));
        }
        if text == ":memory:" {
            return Err("':memory:' gives each connection a database of its own; name a file".to_owned());
        }
        Ok(Self::Sqlite(PathBuf::from(text)))
    }
}

impl fmt::Display for Target {
    /// The URL is shown without its password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => path.display().fmt(f),
            Self::Postgres(url) => f.write_str(&without_password(url)),
        }
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    // A password may also stand among the parameters; none of them helps a reader of messages.
    let rest = rest.split_once('?').map_or(rest, |(before, _)| before);
    match rest.rsplit_once('@') {
        Some((user, host)) => {
            let user = user.split_once(':').map_or(user, |(name, _)| name);
            format!("{scheme}://{user}@{host}")
        }
        None => format!("{scheme}://{rest}"),
    }
}

/// What an acknowledged commit survives.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Durability {
    /// Loss of power: each commit waits for the disk.
    #[default]
    Full,
    /// The end of the process, but not a loss of power, which may take the last commits.
    Normal,
}

/// How the writer works.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Options {
    /// What a commit survives.
    pub durability: Durability,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_urls_are_told_apart() {
        assert_eq!("a/b.db".parse(), Ok(Target::Sqlite("a/b.db".into())));
        assert_eq!("postgresql://h/x".parse(), Ok(Target::Postgres("postgresql://h/x".into())));
        assert!("mysql://h/x".parse::<Target>().is_err());
        assert!(":memory:".parse::<Target>().is_err());
        assert!("".parse::<Target>().is_err());
    }

    #[test]
    fn no_password_is_shown() {
        let shown = |url: &str| Target::Postgres(url.to_owned()).to_string();
        assert_eq!(shown("postgres://me:se@cret@db:5432/x?password=y"), "postgres://me@db:5432/x");
        assert_eq!(shown("postgres://db/x"), "postgres://db/x");
    }
}

//! What can go wrong with a database, told apart by predicates.
//!
//! SQLite's result code and PostgreSQL's SQLSTATE do not pass through diesel, so the kinds that it
//! has no name for are read from the message. SQLite's messages are constants of its library, which
//! is built into this program. PostgreSQL's are taken from its English texts; a server that speaks
//! another language is asked to use English for this session (see [`crate::connection`]).

use std::error::Error as StdError;

use diesel::result::{ConnectionError, DatabaseErrorKind};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Fenced,
    Full,
    ReadOnly,
    Corrupt,
    Newer,
    Foreign,
    Busy,
    Unreachable,
    Conflict,
    Other,
}

/// A failed operation on the database. Nothing of the operation has been written, except after
/// [`Error::is_unreachable`]: the connection was lost, and a commit may or may not have happened.
#[derive(Debug, thiserror::Error)]
#[error("{context}")]
pub struct Error {
    kind: Kind,
    context: String,
    #[source]
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    pub(crate) fn new(kind: Kind, context: impl Into<String>) -> Self {
        Self { kind, context: context.into(), source: None }
    }

    /// A row that this program cannot have written.
    pub(crate) fn corrupt(context: impl Into<String>) -> Self {
        Self::new(Kind::Corrupt, context)
    }

    pub(crate) fn with_source(
        kind: Kind,
        context: impl Into<String>,
        source: impl Into<Box<dyn StdError + Send + Sync>>,
    ) -> Self {
        Self { kind, context: context.into(), source: Some(source.into()) }
    }

    /// The same error, said of a larger operation.
    pub(crate) fn during(self, context: impl Into<String>) -> Self {
        Self { kind: self.kind, context: context.into(), source: Some(Box::new(self)) }
    }

    /// Whether another master has taken office since: this one must stop.
    #[must_use]
    pub fn is_fenced(&self) -> bool {
        self.kind == Kind::Fenced
    }

    /// Whether the disk is full. The same commit may be tried again.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.kind == Kind::Full
    }

    /// Whether the database cannot be written to.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        self.kind == Kind::ReadOnly
    }

    /// Whether the file is damaged, or no database, or holds what no AgentFlow writes.
    #[must_use]
    pub fn is_corrupt(&self) -> bool {
        self.kind == Kind::Corrupt
    }

    /// Whether a newer AgentFlow has changed the tables.
    #[must_use]
    pub fn is_newer(&self) -> bool {
        self.kind == Kind::Newer
    }

    /// Whether the database belongs to another program.
    #[must_use]
    pub fn is_foreign(&self) -> bool {
        self.kind == Kind::Foreign
    }

    /// Whether another process has held the database for too long.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.kind == Kind::Busy
    }

    /// Whether the database could not be opened, or the connection to it was lost.
    #[must_use]
    pub fn is_unreachable(&self) -> bool {
        self.kind == Kind::Unreachable
    }

    /// Whether the database refused a row: a duplicate, a missing row, a violated CHECK. A mistake in
    /// this program.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        self.kind == Kind::Conflict
    }
}

impl From<diesel::result::Error> for Error {
    fn from(error: diesel::result::Error) -> Self {
        let kind = match &error {
            diesel::result::Error::DatabaseError(kind, information) => match kind {
                DatabaseErrorKind::UniqueViolation
                | DatabaseErrorKind::ForeignKeyViolation
                | DatabaseErrorKind::NotNullViolation
                | DatabaseErrorKind::CheckViolation => Kind::Conflict,
                DatabaseErrorKind::ClosedConnection | DatabaseErrorKind::UnableToSendCommand => {
                    Kind::Unreachable
                }
                DatabaseErrorKind::ReadOnlyTransaction => Kind::ReadOnly,
                DatabaseErrorKind::SerializationFailure => Kind::Busy,
                _ => of_message(information.message()),
            },
            diesel::result::Error::BrokenTransactionManager => Kind::Unreachable,
            diesel::result::Error::DeserializationError(_) => Kind::Corrupt,
            _ => Kind::Other,
        };
        Self { kind, context: error.to_string(), source: Some(Box::new(error)) }
    }
}

impl From<ConnectionError> for Error {
    fn from(error: ConnectionError) -> Self {
        let context = error.to_string();
        let kind = match of_message(&context) {
            Kind::Other => Kind::Unreachable,
            known => known,
        };
        Self { kind, context, source: Some(Box::new(error)) }
    }
}

/// The kind behind a message of SQLite or PostgreSQL.
fn of_message(message: &str) -> Kind {
    const KNOWN: [(&str, Kind); 15] = [
        ("database or disk is full", Kind::Full),
        ("No space left on device", Kind::Full),
        ("disk full", Kind::Full),
        ("Disk quota exceeded", Kind::Full),
        ("readonly database", Kind::ReadOnly),
        ("read-only transaction", Kind::ReadOnly),
        ("disk image is malformed", Kind::Corrupt),
        ("file is not a database", Kind::Corrupt),
        ("malformed database schema", Kind::Corrupt),
        ("database is locked", Kind::Busy),
        ("database table is locked", Kind::Busy),
        ("deadlock detected", Kind::Busy),
        ("unable to open database file", Kind::Unreachable),
        ("server closed the connection", Kind::Unreachable),
        ("terminating connection", Kind::Unreachable),
    ];
    KNOWN.iter().find(|(text, _)| message.contains(text)).map_or(Kind::Other, |(_, kind)| *kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_tell_their_kind() {
        let postgres = "could not extend file \"base/1/2\": No space left on device";
        assert_eq!(of_message(postgres), Kind::Full);
        assert_eq!(of_message("database or disk is full"), Kind::Full);
        assert_eq!(of_message("attempt to write a readonly database"), Kind::ReadOnly);
        assert_eq!(of_message("no such table: tasks"), Kind::Other);
    }

    #[test]
    fn a_larger_operation_keeps_the_kind_and_the_cause() {
        let error = Error::new(Kind::Full, "disk full").during("starting");
        assert!(error.is_full() && !error.is_fenced());
        assert_eq!(error.to_string(), "starting");
        assert_eq!(error.source().map(ToString::to_string).as_deref(), Some("disk full"));
    }
}

//! The statements of the write path, written by hand because diesel prepares every `UPDATE` and
//! every list insert anew. A statement here has an identity known to the compiler, so that each
//! connection prepares it once.
//!
//! A [`Row`] says what is written and where. SQLite gets it one row at a time ([`One`]; a call costs
//! about 2 µs), PostgreSQL all rows of a kind in one round trip, as arrays ([`Many`]).

mod locks;
pub(crate) mod plan;
mod rows;
mod runs;
mod saved;

use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::query_builder::{AstPass, QueryFragment, QueryId};
use diesel::sql_types::{BigInt, Binary, Integer, Nullable, Text};
use diesel::sqlite::Sqlite;
use diesel::{PgConnection, QueryResult, SqliteConnection};

use crate::error::{Error, Kind};

/// What is done with a row.
pub(crate) enum Verb {
    /// It is new.
    Insert {
        /// What follows the values: an `ON CONFLICT` clause, or nothing.
        conflict: &'static str,
    },
    /// It may be there already, and then stays as it is.
    Add,
    /// It is there. The first column is set by an expression, the last one is the key, those between
    /// are replaced.
    Update {
        /// Around the first placeholder; `?1` repeats it.
        sqlite: (&'static str, &'static str),
        /// The new value arrives in the row `u`.
        postgres: &'static str,
    },
    /// It goes, if it is there. All columns are the key.
    Remove,
    /// The same, if this holds of it.
    RemoveIf {
        /// In the words of both databases, about columns that only this table has.
        holds: &'static str,
    },
}

impl Verb {
    /// Whether a row for which there was nothing to do is a mistake.
    const fn must_take_effect(&self) -> bool {
        matches!(self, Self::Insert { .. } | Self::Update { .. })
    }

    /// What follows the values of a new row.
    const fn conflict(&self) -> &'static str {
        match self {
            Self::Insert { conflict } => conflict,
            Self::Add => "ON CONFLICT DO NOTHING",
            Self::Update { .. } | Self::Remove | Self::RemoveIf { .. } => "",
        }
    }
}

/// One row of one kind of write.
pub(crate) trait Row: Sized {
    /// The same values by column.
    type Columns;
    const TABLE: &'static str;
    const VERB: Verb;
    const NAMES: &'static [&'static str];
    /// PostgreSQL's names for the types of the columns.
    const TYPES: &'static [&'static str];

    fn bind<'b>(&'b self, column: usize, out: &mut AstPass<'_, 'b, Sqlite>) -> QueryResult<()>;
    fn columns(rows: Vec<Self>) -> Self::Columns;
    fn bind_columns<'b>(
        columns: &'b Self::Columns,
        column: usize,
        out: &mut AstPass<'_, 'b, Pg>,
    ) -> QueryResult<()>;
}

/// PostgreSQL's name of a type.
pub(crate) trait TypeName {
    const NAME: &'static str;
}

macro_rules! type_names {
    ($($sql:ty = $name:literal),*) => {
        $(impl TypeName for $sql { const NAME: &'static str = $name; })*
    };
}
type_names!(BigInt = "bigint", Integer = "integer", Text = "text", Binary = "bytea");

impl<T: TypeName + diesel::sql_types::SqlType> TypeName for Nullable<T>
where
    Nullable<T>: diesel::sql_types::SqlType,
{
    const NAME: &'static str = T::NAME;
}

/// A statement that writes one row.
pub(crate) struct One<R>(pub(crate) R);

/// A statement that writes many rows.
pub(crate) struct Many<R: Row>(pub(crate) R::Columns);

/// Declares a [`Row`]: a struct whose fields are named like the columns.
macro_rules! row {
    (
        $(#[$doc:meta])*
        $name:ident $(<$life:lifetime>)? in $table:literal, $verb:expr,
        { $($column:ident: $rust:ty => $sql:ty,)* }
    ) => {
        $(#[$doc])*
        pub(crate) struct $name $(<$life>)? { $(pub(crate) $column: $rust,)* }

        const _: () = {
            use diesel::pg::Pg;
            use diesel::query_builder::{AstPass, QueryId};
            use diesel::sqlite::Sqlite;
            use diesel::QueryResult;
            use $crate::hot::{Many, One, Row, TypeName, Verb};

            pub(crate) struct Columns $(<$life>)? { $($column: Vec<$rust>,)* }

            impl $(<$life>)? Row for $name $(<$life>)? {
                type Columns = Columns $(<$life>)?;
                const TABLE: &'static str = $table;
                const VERB: Verb = $verb;
                const NAMES: &'static [&'static str] = &[$(stringify!($column),)*];
                const TYPES: &'static [&'static str] = &[$(<$sql as TypeName>::NAME,)*];

                fn bind<'b>(
                    &'b self,
                    column: usize,
                    out: &mut AstPass<'_, 'b, Sqlite>,
                ) -> QueryResult<()> {
                    let mut at = 0;
                    $(
                        if column == at {
                            return out.push_bind_param::<$sql, $rust>(&self.$column);
                        }
                        at += 1;
                    )*
                    let _ = at;
                    Ok(())
                }

                fn columns(rows: Vec<Self>) -> Self::Columns {
                    let mut columns = Columns { $($column: Vec::with_capacity(rows.len()),)* };
                    for row in rows {
                        $(columns.$column.push(row.$column);)*
                    }
                    columns
                }

                fn bind_columns<'b>(
                    columns: &'b Self::Columns,
                    column: usize,
                    out: &mut AstPass<'_, 'b, Pg>,
                ) -> QueryResult<()> {
                    let mut at = 0;
                    $(
                        if column == at {
                            return out.push_bind_param::<diesel::sql_types::Array<$sql>, Vec<$rust>>(
                                &columns.$column,
                            );
                        }
                        at += 1;
                    )*
                    let _ = at;
                    Ok(())
                }
            }

            pub(crate) struct Id;
            impl $(<$life>)? QueryId for One<$name $(<$life>)?> {
                type QueryId = Id;
                const HAS_STATIC_QUERY_ID: bool = true;
            }
            impl $(<$life>)? QueryId for Many<$name $(<$life>)?> {
                type QueryId = Id;
                const HAS_STATIC_QUERY_ID: bool = true;
            }
        };
    };
}
pub(crate) use row;

impl<R: Row, C> RunQueryDsl<C> for One<R> {}
impl<R: Row, C> RunQueryDsl<C> for Many<R> {}

/// What else must hold of a row that goes.
fn push_condition<DB: diesel::backend::Backend>(out: &mut AstPass<'_, '_, DB>, verb: &Verb) {
    if let Verb::RemoveIf { holds } = verb {
        out.push_sql(" AND ");
        out.push_sql(holds);
    }
}

fn push_list<DB: diesel::backend::Backend>(out: &mut AstPass<'_, '_, DB>, names: &[&str]) {
    for (at, name) in names.iter().enumerate() {
        if at > 0 {
            out.push_sql(", ");
        }
        out.push_sql(name);
    }
}

impl<R: Row> QueryFragment<Sqlite> for One<R> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Sqlite>) -> QueryResult<()> {
        match R::VERB {
            Verb::Insert { .. } | Verb::Add => {
                out.push_sql("INSERT INTO ");
                out.push_sql(R::TABLE);
                out.push_sql(" (");
                push_list(&mut out, R::NAMES);
                out.push_sql(") VALUES (");
                for column in 0..R::NAMES.len() {
                    if column > 0 {
                        out.push_sql(", ");
                    }
                    self.0.bind(column, &mut out)?;
                }
                out.push_sql(") ");
                out.push_sql(R::VERB.conflict());
            }
            Verb::Update { sqlite: (before, after), .. } => {
                out.push_sql("UPDATE ");
                out.push_sql(R::TABLE);
                out.push_sql(" SET ");
                out.push_sql(before);
                self.0.bind(0, &mut out)?;
                out.push_sql(after);
                let key = R::NAMES.len() - 1;
                for (column, name) in R::NAMES.iter().enumerate().take(key).skip(1) {
                    out.push_sql(", ");
                    out.push_sql(name);
                    out.push_sql(" = ");
                    self.0.bind(column, &mut out)?;
                }
                out.push_sql(" WHERE ");
                out.push_sql(R::NAMES[key]);
                out.push_sql(" = ");
                self.0.bind(key, &mut out)?;
            }
            Verb::Remove | Verb::RemoveIf { .. } => {
                out.push_sql("DELETE FROM ");
                out.push_sql(R::TABLE);
                out.push_sql(" WHERE ");
                for (column, name) in R::NAMES.iter().enumerate() {
                    if column > 0 {
                        out.push_sql(" AND ");
                    }
                    out.push_sql(name);
                    out.push_sql(" = ");
                    self.0.bind(column, &mut out)?;
                }
                push_condition(&mut out, &R::VERB);
            }
        }
        Ok(())
    }
}

impl<R: Row> Many<R> {
    fn push_arrays<'b>(&'b self, out: &mut AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        out.push_sql("unnest(");
        for (column, name) in R::TYPES.iter().enumerate() {
            if column > 0 {
                out.push_sql(", ");
            }
            R::bind_columns(&self.0, column, out)?;
            out.push_sql("::");
            out.push_sql(name);
            out.push_sql("[]");
        }
        out.push_sql(")");
        Ok(())
    }
}

impl<R: Row> QueryFragment<Pg> for Many<R> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        match R::VERB {
            Verb::Insert { .. } | Verb::Add => {
                out.push_sql("INSERT INTO ");
                out.push_sql(R::TABLE);
                out.push_sql(" (");
                push_list(&mut out, R::NAMES);
                out.push_sql(") SELECT * FROM ");
                self.push_arrays(&mut out)?;
                out.push_sql(" ");
                out.push_sql(R::VERB.conflict());
            }
            Verb::Update { postgres, .. } => {
                out.push_sql("UPDATE ");
                out.push_sql(R::TABLE);
                out.push_sql(" SET ");
                out.push_sql(postgres);
                let key = R::NAMES.len() - 1;
                for name in &R::NAMES[1..key] {
                    out.push_sql(", ");
                    out.push_sql(name);
                    out.push_sql(" = u.");
                    out.push_sql(name);
                }
                out.push_sql(" FROM ");
                self.push_arrays(&mut out)?;
                out.push_sql(" AS u (");
                push_list(&mut out, R::NAMES);
                out.push_sql(") WHERE ");
                out.push_sql(R::TABLE);
                out.push_sql(".");
                out.push_sql(R::NAMES[key]);
                out.push_sql(" = u.");
                out.push_sql(R::NAMES[key]);
            }
            Verb::Remove | Verb::RemoveIf { .. } => {
                out.push_sql("DELETE FROM ");
                out.push_sql(R::TABLE);
                out.push_sql(" USING ");
                self.push_arrays(&mut out)?;
                out.push_sql(" AS u (");
                push_list(&mut out, R::NAMES);
                out.push_sql(") WHERE ");
                for (column, name) in R::NAMES.iter().enumerate() {
                    if column > 0 {
                        out.push_sql(" AND ");
                    }
                    out.push_sql(R::TABLE);
                    out.push_sql(".");
                    out.push_sql(name);
                    out.push_sql(" = u.");
                    out.push_sql(name);
                }
                push_condition(&mut out, &R::VERB);
            }
        }
        Ok(())
    }
}

/// Writes rows of one kind; every one of them must take effect, unless its verb says otherwise.
pub(crate) trait Write {
    fn write<R: Row>(&mut self, rows: Vec<R>) -> Result<(), Error>
    where
        One<R>: QueryId,
        Many<R>: QueryId;
}

impl Write for SqliteConnection {
    fn write<R: Row>(&mut self, rows: Vec<R>) -> Result<(), Error>
    where
        One<R>: QueryId,
        Many<R>: QueryId,
    {
        for row in rows {
            if One(row).execute(self)? != 1 && R::VERB.must_take_effect() {
                return Err(missing::<R>());
            }
        }
        Ok(())
    }
}

impl Write for PgConnection {
    fn write<R: Row>(&mut self, rows: Vec<R>) -> Result<(), Error>
    where
        One<R>: QueryId,
        Many<R>: QueryId,
    {
        let expected = rows.len();
        if expected == 0 {
            return Ok(());
        }
        let done = Many::<R>(R::columns(rows)).execute(self)?;
        if done != expected && R::VERB.must_take_effect() {
            return Err(missing::<R>());
        }
        Ok(())
    }
}

fn missing<R: Row>() -> Error {
    Error::new(Kind::Conflict, format!("a row to be changed is not in the table {}", R::TABLE))
}

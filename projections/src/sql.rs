//! What the read models' SQL shares: many rows written by one statement, sets
//! of keys bound, and words of a closed vocabulary read from text columns.

use std::collections::BTreeSet;
use std::str::FromStr;

use serde::Serialize;
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};

/// A table as it is written: whole rows, many at once, by their key.
///
/// The rows travel as one JSON array: one parameter instead of an array for
/// each column, and PostgreSQL casts each field to its column's type. The
/// table's name is not qualified, so the search path decides whether the live
/// table or that of a rebuild is meant.
pub(crate) struct Table {
    pub(crate) name: &'static str,
    pub(crate) key: &'static [&'static str],
    /// The other columns, but for `search`.
    pub(crate) columns: &'static [&'static str],
    /// Whether it has a column `search`, made of the field `words`.
    pub(crate) searchable: bool,
}

impl Table {
    /// Writes the rows; one that is there already is replaced.
    pub(crate) async fn upsert<R: Serialize>(
        &self,
        conn: &mut PgConnection,
        rows: &[R],
    ) -> anyhow::Result<()> {
        let replaced = self.columns.iter().copied();
        let replaced = replaced.chain(self.searchable.then_some("search"));
        let set: Vec<_> = replaced.map(|c| format!("{c} = excluded.{c}")).collect();
        let conflict = format!(
            "on conflict ({}) do update set {}",
            self.key.join(", "),
            set.join(", ")
        );
        self.write(conn, rows, &conflict).await
    }

    /// Writes rows that cannot be there yet; one that is there is an error.
    pub(crate) async fn insert<R: Serialize>(
        &self,
        conn: &mut PgConnection,
        rows: &[R],
    ) -> anyhow::Result<()> {
        self.write(conn, rows, "").await
    }

    async fn write<R: Serialize>(
        &self,
        conn: &mut PgConnection,
        rows: &[R],
        conflict: &str,
    ) -> anyhow::Result<()> {
        if rows.is_empty() {
            return Ok(());
        }
        let name = self.name;
        let columns = [self.key, self.columns].concat();
        let (search, vector) = match self.searchable {
            true => (
                ", search",
                ", to_tsvector('public.bitacora', e.row ->> 'words')",
            ),
            false => ("", ""),
        };
        let sql = format!(
            "insert into {name} ({}{search})
             select {}{vector}
             from json_array_elements($1::text::json) as e (row)
             cross join lateral json_populate_record(null::{name}, e.row) as r
             {conflict}",
            columns.join(", "),
            columns
                .iter()
                .map(|column| format!("r.{column}"))
                .collect::<Vec<_>>()
                .join(", "),
        );
        sqlx::query(&sql)
            .bind(serde_json::to_string(rows)?)
            .execute(conn)
            .await?;
        Ok(())
    }
}

/// Texts as they are bound to a query.
pub(crate) fn texts(set: &BTreeSet<String>) -> Vec<&str> {
    set.iter().map(String::as_str).collect()
}

/// A word of a closed vocabulary.
pub(crate) fn word<T: FromStr<Err = String>>(row: &PgRow, column: &str) -> sqlx::Result<T> {
    parse(row.try_get(column)?, column)
}

/// A word of a closed vocabulary, or null.
pub(crate) fn optional_word<T: FromStr<Err = String>>(
    row: &PgRow,
    column: &str,
) -> sqlx::Result<Option<T>> {
    let text: Option<&str> = row.try_get(column)?;
    text.map(|text| parse(text, column)).transpose()
}

fn parse<T: FromStr<Err = String>>(text: &str, column: &str) -> sqlx::Result<T> {
    text.parse()
        .map_err(|reason: String| sqlx::Error::ColumnDecode {
            index: column.to_owned(),
            source: reason.into(),
        })
}

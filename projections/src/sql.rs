//! What the read models' SQL shares: many rows written by one statement, sets
//! of keys bound, and words of a closed vocabulary read from text columns.

use std::collections::BTreeSet;
use std::str::FromStr;

use serde::Serialize;
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};

use crate::copy;

/// About how much is sent at a time to COPY.
const COPY_BYTES: usize = 128 * 1024;

/// A table as it is written: whole rows, many at once, by their key.
///
/// Rows travel as JSON, whose fields are the columns; PostgreSQL casts each to
/// its column's type. The table's name is not qualified, so the search path
/// decides whether the live table or that of a rebuild is meant.
pub(crate) struct Table {
    pub(crate) name: &'static str,
    pub(crate) key: &'static [&'static str],
    /// The other columns, but for `search`.
    pub(crate) columns: &'static [&'static str],
    /// Whether it has a column `search`; see [`crate::search`].
    pub(crate) searchable: bool,
}

impl Table {
    /// Writes the rows; one that is there already is replaced.
    pub(crate) async fn upsert<R: Serialize>(
        &self,
        conn: &mut PgConnection,
        rows: &[R],
    ) -> anyhow::Result<()> {
        if rows.is_empty() {
            return Ok(());
        }
        let name = self.name;
        let replaced = self.written().skip(self.key.len());
        let sql = format!(
            "insert into {name} ({})
             select {}
             from json_array_elements($1::text::json) as e (row)
             cross join lateral json_populate_record(null::{name}, e.row) as r
             on conflict ({}) do update set {}",
            self.written().collect::<Vec<_>>().join(", "),
            each(self.written(), |column| format!("r.{column}")),
            self.key.join(", "),
            each(replaced, |column| format!("{column} = excluded.{column}")),
        );
        sqlx::query(&sql)
            .bind(serde_json::to_string(rows)?)
            .execute(conn)
            .await?;
        Ok(())
    }

    /// Writes rows that cannot be there yet, in a fraction of the time; one
    /// that is there is an error.
    pub(crate) async fn insert<R: Serialize>(
        &self,
        conn: &mut PgConnection,
        rows: &[R],
    ) -> anyhow::Result<()> {
        if rows.is_empty() {
            return Ok(());
        }
        let columns = copy::columns(conn, self.name, self.written()).await?;
        let names = self.written().collect::<Vec<_>>().join(", ");
        let sql = format!("copy {} ({names}) from stdin (format binary)", self.name);
        let mut copy = conn.copy_in_raw(&sql).await?;
        let mut out = Vec::with_capacity(2 * COPY_BYTES);
        out.extend_from_slice(copy::HEADER);
        let mut encoder = copy::Encoder::new(columns);
        for row in rows {
            encoder.push(&mut out, row)?;
            // PostgreSQL stores these while we write the next.
            if out.len() > COPY_BYTES {
                copy.send(&*out).await?;
                out.clear();
            }
        }
        out.extend_from_slice(copy::TRAILER);
        copy.send(out).await?;
        copy.finish().await?;
        Ok(())
    }

    /// The columns that are written, the key first.
    fn written(&self) -> impl Iterator<Item = &'static str> {
        let rest = self.columns.iter().copied();
        let rest = rest.chain(self.searchable.then_some("search"));
        self.key.iter().copied().chain(rest)
    }
}

fn each<'a>(columns: impl Iterator<Item = &'a str>, term: impl Fn(&str) -> String) -> String {
    columns.map(term).collect::<Vec<_>>().join(", ")
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

//! The report of a rebuild: in which rows live folding and the rebuild differ.

use anyhow::bail;
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use sqlx::types::Json;

use super::Projection;

/// How many rows that differ are named, of each table.
const NAMED_ROWS_MAX: i64 = 20;

/// How many rows of a table differ between live folding and the rebuild.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// The table.
    pub table: String,
    /// Rows that live folding had, and the rebuild has not or otherwise.
    pub only_before: i64,
    /// Rows that the rebuild has, and live folding had not or otherwise.
    pub only_after: i64,
    /// The first of these rows, at most 20.
    pub rows: Vec<DifferentRow>,
}

/// A row that differs. Of its contents only the key is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DifferentRow {
    /// Its key; several columns are separated by `/`.
    pub key: String,
    /// Whether live folding had one.
    pub before: bool,
    /// Whether the rebuild has one.
    pub after: bool,
}

/// Both tables are read side by side in the order of their keys. Left to itself
/// the planner hashes or sorts whole rows, which of a million calls go to
/// temporary files.
const SIDE_BY_SIDE: &str = "select set_config('enable_hashjoin', 'off', true), \
    set_config('enable_sort', 'off', true), set_config('jit', 'off', true)";

/// Compares the two builds row by row, each as it is stored, within a
/// transaction.
pub(super) async fn compare(
    conn: &mut PgConnection,
    projection: &dyn Projection,
    schema: &str,
) -> anyhow::Result<Vec<Difference>> {
    sqlx::query(SIDE_BY_SIDE).execute(&mut *conn).await?;
    let mut found = Vec::new();
    for table in projection.tables() {
        let key = key_of(conn, table).await?;
        // `*=` compares rows byte for byte: `json` knows no equality. It is
        // null where there is only one of them.
        let sql = format!(
            "with different as materialized (
                 select concat_ws('/', {columns}) as key,
                     old.{first} is not null as before, new.{first} is not null as after
                 from public.{table} old full join {schema}.{table} new using ({columns})
                 where (old.* *= new.*) is not true
             )
             select count(*) filter (where before), count(*) filter (where after),
                 coalesce((select json_agg(named) from (
                     select * from different order by key limit {NAMED_ROWS_MAX}) as named), '[]')
             from different",
            columns = key.join(", "),
            first = key[0],
        );
        let (only_before, only_after, Json(rows)) =
            sqlx::query_as(&sql).fetch_one(&mut *conn).await?;
        if only_before + only_after > 0 {
            found.push(Difference {
                table: (*table).to_owned(),
                only_before,
                only_after,
                rows,
            });
        }
    }
    Ok(found)
}

/// The columns of a table's primary key, quoted.
async fn key_of(conn: &mut PgConnection, table: &str) -> anyhow::Result<Vec<String>> {
    let sql = "select quote_ident(attname) from pg_index, unnest(indkey) with ordinality as k (number, place)
                   join pg_attribute on attnum = k.number
               where indrelid = format('public.%I', $1)::regclass and indisprimary and attrelid = indrelid
               order by place";
    let key: Vec<String> = sqlx::query_scalar(sql).bind(table).fetch_all(conn).await?;
    if key.is_empty() {
        bail!("table {table} has no primary key");
    }
    Ok(key)
}

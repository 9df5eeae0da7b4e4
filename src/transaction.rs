//! Beginning a transaction so that nobody can cut the beginning short.

use sqlx::{PgPool, Postgres, Transaction};

/// Begins a transaction, to its end even if nobody waits for it any more.
///
/// A caller who goes away drops the future that serves it. sqlx 0.8 takes no
/// note of a `BEGIN` that was sent and whose answer nobody read: the connection
/// would go back to the pool in a transaction, and whoever got it next would
/// write into what nobody ever commits. So the beginning is a task of its own;
/// a [`Transaction`] that is dropped is rolled back.
///
/// # Errors
/// When the database does not begin one.
pub async fn begin(pool: &PgPool) -> sqlx::Result<Transaction<'static, Postgres>> {
    let pool = pool.clone();
    #[expect(clippy::disallowed_methods, reason = "the one place that may")]
    let beginning = tokio::spawn(async move { pool.begin().await });
    beginning.await.unwrap_or(Err(sqlx::Error::WorkerCrashed))
}

/// As [`begin`], for reading only, all of one moment.
///
/// # Errors
/// As [`begin`].
pub async fn begin_snapshot(pool: &PgPool) -> sqlx::Result<Transaction<'static, Postgres>> {
    let pool = pool.clone();
    let begin = "begin isolation level repeatable read read only";
    let beginning = tokio::spawn(async move { pool.begin_with(begin).await });
    beginning.await.unwrap_or(Err(sqlx::Error::WorkerCrashed))
}

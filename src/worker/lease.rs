//! Leases: work that one process does for all replicas. The only code that
//! touches `worker_leases`.

use std::time::Duration;

use uuid::Uuid;

use crate::app::App;

/// Takes or renews a lease; `false` while another process holds it.
///
/// # Errors
/// When the database does not answer.
pub async fn hold(app: &App, name: &str, holder: Uuid, how_long: Duration) -> sqlx::Result<bool> {
    let now = app.source.now();
    let taken = sqlx::query(
        "insert into worker_leases as lease (name, holder, until) values ($1, $2, $3)
         on conflict (name) do update set holder = excluded.holder, until = excluded.until
            where lease.until <= $4 or lease.holder = excluded.holder",
    )
    .bind(name)
    .bind(holder)
    .bind(now + how_long)
    .bind(now)
    .execute(&app.pool)
    .await?;
    Ok(taken.rows_affected() == 1)
}

//! What PostgreSQL's planner knows of the tables.
//!
//! Of a table at which it has never looked it believes that hardly a row
//! matches a filter, and none matches two: a list of the newest then reads
//! every row that there is. Its autovacuum looks after a minute or so, and
//! sessions went on with the plans that they had (most likely because it first
//! sets the count of the rows and then learns what is in them, and only the
//! count has them plan anew). So new tables are looked at here, as soon
//! as there is something to see. Afterwards autovacuum keeps up.

use std::sync::Arc;
use std::time::Duration;

use sqlx::PgPool;

use crate::app::App;

/// How often it is asked whether there are such tables.
const INTERVAL: Duration = Duration::from_secs(5);
/// From how many bytes on there is something to see; less is read whole in no
/// time.
const BYTES_MIN: i64 = 256 * 1024;

/// Has PostgreSQL look at every table that has come to have rows.
pub async fn keep(app: Arc<App>) {
    loop {
        match analyze_new(&app.pool).await {
            Ok(tables) if tables.is_empty() => {}
            Ok(tables) => tracing::info!(?tables, "analyzed tables that had no statistics"),
            Err(error) => {
                tracing::debug!(error = format!("{error:#}"), "could not analyze new tables")
            }
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

/// Analyzes the tables that have rows and no statistics. Which these were.
///
/// # Errors
/// When the database fails.
pub async fn analyze_new(pool: &PgPool) -> sqlx::Result<Vec<String>> {
    let sql = "select format('%I', relname) from pg_class
               where relnamespace = 'public'::regnamespace and relkind = 'r'
                 and pg_relation_size(oid) >= $1
                 and not exists (select from pg_stats
                                  where schemaname = 'public' and tablename = relname)
               order by relname";
    let mut conn = pool.acquire().await?;
    let tables: Vec<String> = sqlx::query_scalar(sql)
        .bind(BYTES_MIN)
        .fetch_all(&mut *conn)
        .await?;
    if !tables.is_empty() {
        // Another replica may be at it.
        let analyze = format!("analyze (skip_locked) {}", tables.join(", "));
        sqlx::query(&analyze)
            .persistent(false)
            .execute(&mut *conn)
            .await?;
    }
    Ok(tables)
}

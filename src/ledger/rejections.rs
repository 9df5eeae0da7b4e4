//! The quota of rejected deliveries that are kept.

use std::collections::HashMap;

use chrono::Duration;
use domain::Provider;
use sqlx::PgConnection;

use super::deliveries::first_id_at;
use super::prepared::Prepared;
use super::writer::Limits;

/// How many more rejections each provider may have kept in this hour. Counted
/// under the ledger lock, so the quota holds over all replicas.
pub(super) async fn rejections_left(
    conn: &mut PgConnection,
    limits: Limits,
    batch: &[Prepared],
) -> sqlx::Result<HashMap<Provider, i64>> {
    let mut left = HashMap::new();
    let rejected = batch.iter().filter(|prepared| prepared.is_rejected());
    for delivery in rejected.filter_map(|prepared| prepared.delivery.as_ref()) {
        if left.contains_key(&delivery.provider) {
            continue;
        }
        // Ids carry the time of receipt, so the index on (verdict, id) serves.
        let hour_ago = delivery.received_at - Duration::hours(1);
        let kept: i64 = sqlx::query_scalar(
            "select count(*) from (select from deliveries
              where verdict = 'rejected' and id >= $1 and provider = $2 limit $3) kept",
        )
        .bind(first_id_at(hour_ago))
        .bind(delivery.provider.as_str())
        .bind(limits.rejected_per_hour_max)
        .fetch_one(&mut *conn)
        .await?;
        left.insert(delivery.provider, limits.rejected_per_hour_max - kept);
    }
    Ok(left)
}

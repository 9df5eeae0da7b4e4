//! Looks at the provider whether an order of which no answer came has arrived.

use domain::batch::{Batch, ProviderStatus, Requested, Snapshot};

use super::Kind;
use crate::app::App;
use crate::providers::http::Error;

/// Pages of the workspace's list that are searched: an order is minutes old
/// and the newest come first.
const PAGES_MAX: usize = 20;

/// What the provider says of the batch, if the order has arrived.
///
/// # Errors
/// When the provider does not answer, or the ledger does not.
pub async fn find(
    app: &App,
    kind: Kind,
    batch_id: &str,
    batch: &Batch,
) -> anyhow::Result<Option<Snapshot>> {
    match (kind, batch.requested(), batch.provider_batch_id()) {
        (Kind::Submit, Some(order), _) => submitted(app, batch_id, order).await,
        (Kind::Cancel, _, Some(id)) => {
            let stopped =
                |it: &Snapshot| ProviderStatus::of(&it.status) == ProviderStatus::Cancelled;
            Ok(seen(app, id).await?.filter(stopped))
        }
        (Kind::Retry, _, Some(id)) => {
            let risen = |it: &Snapshot| it.retry_count > batch.retry_from();
            Ok(seen(app, id).await?.filter(risen))
        }
        _ => Ok(None),
    }
}

/// The batch, unless somebody deleted it.
async fn seen(app: &App, provider_batch_id: &str) -> anyhow::Result<Option<Snapshot>> {
    match app.elevenlabs.get_batch(provider_batch_id).await {
        Ok(seen) => Ok(Some(seen.batch)),
        Err(Error::Refused(refusal)) if refusal.status == 404 => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The batch that this order made: of the same name and agent, made since, with
/// the same recipients, and no other order's.
async fn submitted(
    app: &App,
    batch_id: &str,
    order: &Requested,
) -> anyhow::Result<Option<Snapshot>> {
    let mut last_doc = None;
    for _ in 0..PAGES_MAX {
        let page = app
            .elevenlabs
            .list_batches(Some(&order.agent_id), last_doc.as_deref())
            .await?;
        for candidate in page.batches.iter().filter(|it| order.resembles(it)) {
            let detail = match app.elevenlabs.get_batch(&candidate.id).await {
                Ok(detail) => detail,
                Err(Error::Refused(refusal)) if refusal.status == 404 => continue,
                Err(error) => return Err(error.into()),
            };
            if order.has_recipients(&detail.recipients)
                && !is_anothers(app, batch_id, &candidate.id).await?
            {
                return Ok(Some(detail.batch));
            }
        }
        last_doc = page.next_doc;
        if last_doc.is_none() {
            break;
        }
    }
    Ok(None)
}

/// Whether another order of ours is this batch. Asked of the ledger, for a read
/// model may be behind.
async fn is_anothers(app: &App, batch_id: &str, provider_batch_id: &str) -> anyhow::Result<bool> {
    let owner = crate::ledger::events::submitted_as(&app.pool, provider_batch_id).await?;
    Ok(owner.is_some_and(|owner| owner != batch_id))
}

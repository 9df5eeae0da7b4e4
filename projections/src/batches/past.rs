//! How batches stood: the fold over the events that there were then.

use std::collections::BTreeSet;

use sqlx::PgConnection;

use super::fold::{Tables, key};
use super::recipients::Enriched;
use super::row::Batch;
use super::{calls, recipients, row};
use crate::call_details::CallDetail;
use crate::keys::Opener;
use crate::past::{self, AsOf};
use crate::{feed, interaction, interaction_events};

/// The batch with this id, the provider's or ours, and its recipients, as
/// [`super::find`] and [`super::recipients()`] would have given them once the
/// ledger up to then was folded; `None` if there was none.
///
/// # Errors
/// When the database fails, or an event cannot be read.
pub async fn as_of(
    conn: &mut PgConnection,
    opener: &Opener,
    id: &str,
    then: AsOf,
) -> anyhow::Result<Option<(Batch, Vec<Enriched>)>> {
    let upto = then.position(conn).await?;
    let id = key(id);
    let positions = positions(conn, &id, upto).await?;
    let (mut batches, mut interactions) = (Tables::default(), interaction::Tables::default());
    past::fold(conn, opener, positions, |page| {
        batches.take_facts(page);
        batches.take_recipients(page);
        batches.settle(page);
        batches.written();
        for recorded in page {
            interactions.fold(recorded);
        }
    })
    .await?;
    Ok(found(&batches, &id).map(|batch| {
        let rows = batches.recipients.now.values();
        let mut rows: Vec<_> = rows.filter(|row| row.batch_key == batch.id).collect();
        rows.sort_by_key(|row| (row.place, &row.id));
        let enriched = rows.into_iter().map(|row| {
            let call = row.conversation_id.as_ref();
            Enriched::of(row, call.and_then(|id| interactions.calls.get(id)))
        });
        (batch.clone(), enriched.collect())
    }))
}

/// As [`row::find`] finds it.
fn found<'a>(tables: &'a Tables, id: &str) -> Option<&'a Batch> {
    let rows = tables.batches.now.values();
    let named = rows.filter(|row| row.id == id || row.batch_id.as_deref() == Some(id));
    let first = named.min_by_key(|row| (&row.duplicate_of, &row.id))?;
    let shown = first.duplicate_of.as_ref().unwrap_or(&first.id);
    tables.batches.now.get(shown)
}

/// Where everything is that may have said something of the batch. What was
/// joined to it is never parted from it again, so today's rows name it all.
async fn positions(conn: &mut PgConnection, id: &str, upto: i64) -> anyhow::Result<Vec<i64>> {
    let named = row::load(conn, &[id], &[id]).await?;
    let provider_ids: Vec<_> = named
        .iter()
        .filter_map(|row| row.batch_id.as_deref())
        .collect();
    // A discovered batch and the order that it turned out to be share the id.
    let batches = row::load(conn, &[id], &provider_ids).await?;
    let ids: Vec<_> = batches.iter().map(|row| row.id.as_str()).collect();
    let mut positions = feed::positions_of(conn, "batch", &ids, upto).await?;

    let listed = recipients::load_of(conn, &ids).await?;
    let claiming = calls::load_of_batches(conn, &provider_ids).await?;
    let listed = listed.iter().flat_map(|row| row.seen.conversations());
    let claiming = claiming.iter().map(|call| call.conversation_id.as_str());
    let conversations: BTreeSet<_> = listed.chain(claiming).collect();
    let conversations: Vec<_> = conversations.into_iter().collect();
    positions.extend(interaction_events::positions(conn, &conversations, upto).await?);

    let told = calls::load(conn, &conversations, &[]).await?;
    let legs = told.iter().filter_map(|call| call.call_sid.as_deref());
    let streams: Vec<_> = conversations.iter().copied().chain(legs).collect();
    positions.extend(feed::positions_of(conn, "call", &streams, upto).await?);
    Ok(positions)
}

impl Enriched {
    fn of(row: &recipients::Recipient, call: Option<&CallDetail>) -> Self {
        let report = call.filter(|call| call.provider_status.is_some());
        let turns = call.into_iter().flat_map(|call| &call.transcript);
        let spoken = turns.filter_map(|turn| {
            Some(recipients::Spoken {
                role: turn.role.to_string(),
                message: turn.message.clone()?,
            })
        });
        Self {
            id: row.id.clone(),
            phone_number: row.phone_number.clone(),
            client_id: row.client_id,
            status: row.status,
            conversation_id: row.conversation_id.clone(),
            called_at: row.called_at,
            call_duration: row.call_duration,
            attempts: row.attempts,
            variables: row.variables.clone(),
            created_at_unix: row.created_at_unix,
            updated_at_unix: row.updated_at_unix,
            has_report: report.is_some(),
            summary: call.and_then(|call| call.summary.clone()),
            duration_secs: report.and_then(|call| call.duration_secs),
            transcript: spoken.collect(),
            has_audio: call.is_some_and(|call| call.has_audio),
        }
    }
}

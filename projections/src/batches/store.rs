//! Fetches the rows that a batch of events touches, and puts back those that
//! it changed: a few statements for any number of events.

use std::collections::{BTreeMap, BTreeSet};

use domain::batch::Event;
use domain::event::Recorded;
use sqlx::PgConnection;

use super::fold::{RecipientKey, Tables, conversation, key, leg, of_batches, snapshot};
use super::{attempts, calls, recipients, row};

/// The batches, conversations and legs that events name, as they are.
pub(super) async fn load_named(
    conn: &mut PgConnection,
    batch: &[&Recorded],
) -> anyhow::Result<Tables> {
    let ids: BTreeSet<_> = of_batches(batch).map(|(id, ..)| id).collect();
    let provider_ids = of_batches(batch).filter_map(|(.., event)| snapshot(event));
    let provider_ids: BTreeSet<_> = provider_ids.map(|(said, _)| key(&said.id)).collect();
    let conversations: BTreeSet<_> = batch.iter().copied().filter_map(conversation).collect();
    let legs = batch.iter().copied().filter_map(leg);
    let legs: BTreeSet<_> = legs.map(|(call_sid, _)| call_sid).collect();

    let mut tables = Tables::default();
    load_batches(conn, &mut tables, &ids, &provider_ids).await?;
    load_calls_of(conn, &mut tables, &conversations, &legs).await?;
    load_legs(conn, &mut tables, &legs).await?;
    Ok(tables)
}

/// The recipients whose standing the events may change: those whom they name,
/// and those whose calls they tell of.
pub(super) async fn load_recipients(
    conn: &mut PgConnection,
    tables: &mut Tables,
    batch: &[&Recorded],
) -> anyhow::Result<()> {
    load_calls_of_new_names(conn, tables).await?;
    let conversations: Vec<_> = tables.calls.now.keys().map(String::as_str).collect();
    let mut wanted: BTreeSet<RecipientKey> = BTreeSet::new();
    if !conversations.is_empty() {
        wanted.extend(attempts::recipients_of(conn, &conversations).await?);
    }
    let ids = wanted.iter().map(|(batch, _)| batch.clone()).collect();
    let claimed = tables.calls.now.values().filter_map(|call| call.claim());
    let provider_ids = claimed.map(|(batch, _)| batch.to_owned()).collect();
    load_batches(conn, tables, &ids, &provider_ids).await?;
    wanted.extend(claimed_recipients(tables));
    for (id, _, event) in of_batches(batch) {
        if let Event::Observed(observed) = event {
            let seen = observed.recipients.iter();
            wanted.extend(seen.map(|seen| (id.clone(), key(&seen.id))));
        }
    }
    load_recipient_rows(conn, tables, &wanted).await?;
    load_recipients_of_settled_orders(conn, tables, batch).await?;
    load_strangers_by_phone(conn, tables, batch).await
}

/// Everything else that is known of the calls of those recipients.
pub(super) async fn load_calls(conn: &mut PgConnection, tables: &mut Tables) -> anyhow::Result<()> {
    let recipients: Vec<_> = tables.recipients.keys().map(pair).collect();
    if !recipients.is_empty() {
        let rows = attempts::load(conn, &recipients).await?;
        tables.attempts.load(rows, |row| {
            let key = (&row.batch_key, &row.recipient_id, &row.conversation_id);
            (key.0.clone(), key.1.clone(), key.2.clone())
        });
    }
    let rows = tables.recipients.now.values();
    let claimable: Vec<_> = rows
        .filter_map(|row| {
            let batch = tables.batches.now.get(&row.batch_key)?;
            Some((batch.batch_id.as_deref()?, row.id.as_str()))
        })
        .collect();
    if !claimable.is_empty() {
        let rows = calls::load_claiming(conn, &claimable).await?;
        tables.calls.load(rows, |row| row.conversation_id.clone());
    }
    let rows = tables.recipients.now.values();
    let listed = rows.flat_map(|row| row.seen.conversations().map(str::to_owned));
    let listed = listed.collect();
    load_calls_of(conn, tables, &listed, &BTreeSet::new()).await?;
    let rows = tables.calls.now.values();
    let legs = rows.filter_map(|row| row.call_sid.clone()).collect();
    load_legs(conn, tables, &legs).await
}

async fn load_batches(
    conn: &mut PgConnection,
    tables: &mut Tables,
    ids: &BTreeSet<String>,
    provider_ids: &BTreeSet<String>,
) -> anyhow::Result<()> {
    if ids.is_empty() && provider_ids.is_empty() {
        return Ok(());
    }
    let rows = row::load(conn, &texts(ids), &texts(provider_ids)).await?;
    tables.batches.load(rows, |row| row.id.clone());
    Ok(())
}

async fn load_calls_of(
    conn: &mut PgConnection,
    tables: &mut Tables,
    conversations: &BTreeSet<String>,
    legs: &BTreeSet<String>,
) -> anyhow::Result<()> {
    if conversations.is_empty() && legs.is_empty() {
        return Ok(());
    }
    let rows = calls::load(conn, &texts(conversations), &texts(legs)).await?;
    tables.calls.load(rows, |row| row.conversation_id.clone());
    Ok(())
}

async fn load_legs(
    conn: &mut PgConnection,
    tables: &mut Tables,
    legs: &BTreeSet<String>,
) -> anyhow::Result<()> {
    if legs.is_empty() {
        return Ok(());
    }
    let rows = calls::load_legs(conn, &texts(legs)).await?;
    tables.legs.load(rows, |row| row.call_sid.clone());
    Ok(())
}

/// Of a batch that has just got its provider's id, reports may have come
/// before.
async fn load_calls_of_new_names(
    conn: &mut PgConnection,
    tables: &mut Tables,
) -> anyhow::Result<()> {
    let rows = tables.batches.now.values();
    let named: BTreeSet<_> = rows
        .filter_map(|row| {
            let before = tables.batches.before(&row.id);
            let before = before.and_then(|before| before.batch_id.as_ref());
            row.batch_id.clone().filter(|now| before != Some(now))
        })
        .collect();
    if named.is_empty() {
        return Ok(());
    }
    let rows = calls::load_of_batches(conn, &texts(&named)).await?;
    tables.calls.load(rows, |row| row.conversation_id.clone());
    Ok(())
}

/// The recipients whom reports name, in the batches that are known.
fn claimed_recipients(tables: &Tables) -> Vec<RecipientKey> {
    let mut batches: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for row in tables.batches.now.values() {
        if let Some(batch_id) = &row.batch_id {
            batches.entry(batch_id).or_default().push(&row.id);
        }
    }
    let claims = tables.calls.now.values().filter_map(|call| call.claim());
    claims
        .flat_map(|(batch_id, recipient)| {
            let ids = batches.get(batch_id).into_iter().flatten();
            ids.map(move |id| ((*id).to_owned(), recipient.to_owned()))
        })
        .collect()
}

async fn load_recipient_rows(
    conn: &mut PgConnection,
    tables: &mut Tables,
    wanted: &BTreeSet<RecipientKey>,
) -> anyhow::Result<()> {
    if wanted.is_empty() {
        return Ok(());
    }
    let wanted: Vec<_> = wanted.iter().map(pair).collect();
    let rows = recipients::load(conn, &wanted).await?;
    tables
        .recipients
        .load(rows, |row| (row.batch_key.clone(), row.id.clone()));
    Ok(())
}

/// Everybody of the orders that were refused, or taken after they had been.
async fn load_recipients_of_settled_orders(
    conn: &mut PgConnection,
    tables: &mut Tables,
    batch: &[&Recorded],
) -> anyhow::Result<()> {
    let settled = of_batches(batch).filter(|(.., event)| match event {
        Event::SubmitFailed(refused) => !refused.retryable,
        Event::Submitted(_) => true,
        _ => false,
    });
    let settled: BTreeSet<_> = settled.map(|(id, ..)| id).collect();
    if settled.is_empty() {
        return Ok(());
    }
    let rows = recipients::load_of(conn, &texts(&settled)).await?;
    tables
        .recipients
        .load(rows, |row| (row.batch_key.clone(), row.id.clone()));
    Ok(())
}

/// Of those whom a list names by an id that nobody knows, those who were
/// ordered under the same number.
async fn load_strangers_by_phone(
    conn: &mut PgConnection,
    tables: &mut Tables,
    batch: &[&Recorded],
) -> anyhow::Result<()> {
    let mut wanted: BTreeSet<RecipientKey> = BTreeSet::new();
    for (id, _, event) in of_batches(batch) {
        if let Event::Observed(observed) = event {
            let strangers = observed.recipients.iter().filter(|seen| {
                let key = (id.clone(), key(&seen.id));
                !tables.recipients.now.contains_key(&key)
            });
            let phones = strangers.filter_map(|seen| seen.phone_number.clone());
            wanted.extend(phones.map(|phone| (id.clone(), phone)));
        }
    }
    if wanted.is_empty() {
        return Ok(());
    }
    let wanted: Vec<_> = wanted.iter().map(pair).collect();
    let rows = recipients::load_by_phone(conn, &wanted).await?;
    tables
        .recipients
        .load(rows, |row| (row.batch_key.clone(), row.id.clone()));
    Ok(())
}

fn texts(set: &BTreeSet<String>) -> Vec<&str> {
    set.iter().map(String::as_str).collect()
}

fn pair(key: &(String, String)) -> (&str, &str) {
    (&key.0, &key.1)
}

/// Writes the rows back that have changed.
pub(super) async fn save(conn: &mut PgConnection, tables: &Tables) -> anyhow::Result<()> {
    let gone = tables.recipients.gone();
    let gone: Vec<_> = gone
        .iter()
        .map(|row| (row.batch_key.as_str(), row.id.as_str()))
        .collect();
    recipients::remove(conn, &gone).await?;
    attempts::remove(conn, &tables.attempts.gone()).await?;
    row::save(conn, &tables.batches.changed()).await?;
    recipients::save(conn, &tables.recipients.changed()).await?;
    attempts::save(conn, &tables.attempts.changed()).await?;
    calls::save(conn, tables.calls.new_and_changed()).await?;
    calls::save_legs(conn, tables.legs.new_and_changed()).await
}

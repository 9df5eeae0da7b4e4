//! Fetches the rows that a batch of events touches, and puts back those that
//! it changed.

use std::collections::BTreeSet;

use domain::event::Recorded;
use domain::{Event, effect};
use sqlx::postgres::PgRow;
use sqlx::{FromRow, PgConnection, Row};

use super::Challenge;
use super::fold::{Concerned, Tables, TextMessage, concerned, key};
use crate::sql::{Table, optional_word, texts, word};

/// The rows that a batch of events touches.
pub(super) async fn load(conn: &mut PgConnection, batch: &[&Recorded]) -> anyhow::Result<Tables> {
    let (mut challenges, mut messages) = (BTreeSet::new(), BTreeSet::new());
    for recorded in batch {
        match concerned(recorded) {
            Concerned::Challenge(id) => _ = challenges.insert(id),
            Concerned::Message(id) => _ = messages.insert(id),
            Concerned::Nothing => {}
        }
        if let Event::Effect(effect::Event::Sent(sent)) = &recorded.event {
            messages.extend(sent.message_id.as_deref().map(key));
        }
    }
    let mut tables = Tables::default();
    let told_of = load_messages(conn, &texts(&messages)).await?;
    challenges.extend(told_of.iter().filter_map(|row| row.challenge_id.clone()));
    let rows = load_challenges(conn, &texts(&challenges)).await?;
    let sent = rows
        .iter()
        .filter_map(|row| row.provider_message_id.clone());
    let sent: BTreeSet<_> = sent.filter(|id| !messages.contains(id)).collect();
    let sent = load_messages(conn, &texts(&sent)).await?;
    for some in [told_of, sent] {
        tables.messages.load(some, |row| row.message_id.clone());
    }
    tables.challenges.load(rows, |row| row.challenge_id.clone());
    Ok(tables)
}

/// Writes the rows back that have changed.
pub(super) async fn save(conn: &mut PgConnection, tables: &Tables) -> anyhow::Result<()> {
    CHALLENGES
        .upsert(conn, &tables.challenges.changed())
        .await?;
    MESSAGES.upsert(conn, &tables.messages.changed()).await
}

pub(super) async fn load_challenges(
    conn: &mut PgConnection,
    ids: &[&str],
) -> sqlx::Result<Vec<Challenge>> {
    if ids.is_empty() {
        return Ok(vec![]);
    }
    let sql = "select * from otp_challenges where challenge_id = any($1)";
    sqlx::query_as(sql).bind(ids).fetch_all(conn).await
}

async fn load_messages(conn: &mut PgConnection, ids: &[&str]) -> sqlx::Result<Vec<TextMessage>> {
    if ids.is_empty() {
        return Ok(vec![]);
    }
    let sql = "select * from otp_messages where message_id = any($1)";
    sqlx::query_as(sql).bind(ids).fetch_all(conn).await
}

const CHALLENGES: Table = Table {
    name: "otp_challenges",
    key: &["challenge_id"],
    columns: &[
        "phone_number",
        "phone_key",
        "purpose",
        "status",
        "attempts",
        "attempts_max",
        "provider_message_id",
        "error_code",
        "requested_by",
        "created_at",
        "expires_at",
        "sent_at",
        "delivered_at",
        "failed_at",
        "verified_at",
        "sending",
    ],
    searchable: false,
};

const MESSAGES: Table = Table {
    name: "otp_messages",
    key: &["message_id"],
    columns: &[
        "challenge_id",
        "status",
        "error_code",
        "delivered_at",
        "failed_at",
    ],
    searchable: false,
};

impl FromRow<'_, PgRow> for Challenge {
    fn from_row(row: &PgRow) -> sqlx::Result<Self> {
        Ok(Self {
            challenge_id: row.try_get("challenge_id")?,
            phone_number: row.try_get("phone_number")?,
            phone_key: row.try_get("phone_key")?,
            purpose: row.try_get("purpose")?,
            status: word(row, "status")?,
            attempts: row.try_get("attempts")?,
            attempts_max: row.try_get("attempts_max")?,
            provider_message_id: row.try_get("provider_message_id")?,
            error_code: row.try_get("error_code")?,
            requested_by: row.try_get("requested_by")?,
            created_at: row.try_get("created_at")?,
            expires_at: row.try_get("expires_at")?,
            sent_at: row.try_get("sent_at")?,
            delivered_at: row.try_get("delivered_at")?,
            failed_at: row.try_get("failed_at")?,
            verified_at: row.try_get("verified_at")?,
            sending: word(row, "sending")?,
        })
    }
}

impl FromRow<'_, PgRow> for TextMessage {
    fn from_row(row: &PgRow) -> sqlx::Result<Self> {
        Ok(Self {
            message_id: row.try_get("message_id")?,
            challenge_id: row.try_get("challenge_id")?,
            status: optional_word(row, "status")?,
            error_code: row.try_get("error_code")?,
            delivered_at: row.try_get("delivered_at")?,
            failed_at: row.try_get("failed_at")?,
        })
    }
}

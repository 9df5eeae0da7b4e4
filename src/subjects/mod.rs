//! All that is held of a person, by their number: one JSON document, made part
//! by part, so that memory does not grow with it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use domain::PhoneIndex;
use futures_util::TryStreamExt;
use projections::Opener;
use projections::interactions::{self, Cursor, Filter};
use projections::subjects::streams;
use serde::Serialize;
use serde_json::{Map, Value, json};
use sqlx::PgPool;

use crate::export::{Made, Parts};
use crate::ledger::{deliveries, events, held};

/// Interactions that are read at once.
const INTERACTIONS: i64 = 50;
/// Events that are read at once.
const EVENTS: i64 = 200;
/// About so many bytes are handed on at once.
const PART_BYTES: usize = 256 << 10;

/// Tables with a row for a person: name, what finds the row ($1 is the number,
/// $2 its key, $3 the conversation with it), and the columns that are ours
/// alone.
const TABLES: &[(&str, &str, &[&str])] = &[
    (
        "conversation_state",
        "id = $3",
        &["phone_key", "told", "search"],
    ),
    (
        "conversation_messages",
        "conversation_id = $3",
        &["told", "words_key"],
    ),
    ("batch_recipients", "phone_number = $1", &["seen"]),
    ("call_attempts", "phone_number = $1", &["missing_since"]),
    ("group_clients", "phone_key = $2", &["phone_key"]),
    ("otp_challenges", "phone_key = $2", &["phone_key"]),
    (
        "effects",
        "lane = $3 or lane in (select challenge_id from otp_challenges where phone_key = $2)",
        &[],
    ),
];

/// A person.
pub struct Subject {
    /// The number, E.164. Personal.
    phone: String,
    phone_key: String,
    conversation_id: String,
}

impl Subject {
    /// Whoever has this number, in E.164.
    pub fn new(phone: &str, phones: &PhoneIndex) -> Self {
        Self {
            phone: phone.to_owned(),
            phone_key: phones.key(phone),
            conversation_id: domain::conversation::id(phone, phones),
        }
    }

    /// The key of the number: no personal data.
    pub fn key(&self) -> &str {
        &self.phone_key
    }
}

/// A document that grows: an object of arrays.
struct Document<'a> {
    parts: &'a Parts,
    made: &'a mut Made,
    text: Vec<u8>,
    is_first: bool,
}

impl Document<'_> {
    fn begin(&mut self, name: &str) {
        self.text
            .extend_from_slice(format!(",\"{name}\":[").as_bytes());
        self.is_first = true;
    }

    async fn add(&mut self, row: &impl Serialize) -> anyhow::Result<()> {
        if !std::mem::take(&mut self.is_first) {
            self.text.push(b',');
        }
        serde_json::to_writer(&mut self.text, row)?;
        self.made.rows += 1;
        match self.text.len() >= PART_BYTES {
            true => self.hand_on().await,
            false => Ok(()),
        }
    }

    fn end(&mut self) {
        self.text.push(b']');
    }

    async fn hand_on(&mut self) -> anyhow::Result<()> {
        self.made.bytes += self.text.len() as u64;
        self.parts.send(std::mem::take(&mut self.text)).await
    }
}

/// Writes all that is held of a person.
///
/// # Errors
/// When the database does not answer, or nobody reads the document any more.
pub async fn export(
    (pool, opener): (&PgPool, &Opener),
    subject: &Subject,
    parts: &Parts,
    made: &mut Made,
) -> anyhow::Result<()> {
    let head = json!({
        "phone_number": subject.phone,
        "position": events::head(pool).await?,
    });
    let mut text = head.to_string().into_bytes();
    // The arrays follow.
    text.pop();
    let mut document = Document {
        parts,
        made,
        text,
        is_first: true,
    };
    write_interactions((pool, opener), subject, &mut document).await?;
    let effects = write_tables(pool, subject, &mut document).await?;
    write_events((pool, opener), subject, effects, &mut document).await?;
    document.begin("deliveries");
    let streams = streams(&mut *pool.acquire().await?, &subject.phone_key).await?;
    for id in held::deliveries_of(pool, &subject.phone_key, &streams).await? {
        if let Some(delivery) = deliveries::get(pool, opener, id).await? {
            document.add(&shown(delivery)).await?;
        }
    }
    document.end();
    document.text.push(b'}');
    document.hand_on().await
}

/// Interactions with calls, messages, transcripts and events.
async fn write_interactions(
    (pool, opener): (&PgPool, &Opener),
    subject: &Subject,
    document: &mut Document<'_>,
) -> anyhow::Result<()> {
    let filter = Filter {
        phone_key: Some(subject.phone_key.clone()),
        ..Filter::default()
    };
    let mut after: Option<Cursor> = None;
    document.begin("interactions");
    loop {
        let mut conn = pool.acquire().await?;
        let rows = interactions::list(&mut conn, &filter, after.as_ref(), INTERACTIONS).await?;
        let Some(last) = rows.last() else { break };
        after = Some(last.cursor());
        for row in &rows {
            let Some(detail) = interactions::detail(&mut conn, opener, &row.id).await? else {
                continue;
            };
            document.add(&detail).await?;
        }
    }
    document.end();
    Ok(())
}

/// Rows of the read models. Gives the ids of the effects.
async fn write_tables(
    pool: &PgPool,
    subject: &Subject,
    document: &mut Document<'_>,
) -> anyhow::Result<Vec<String>> {
    let mut effects = Vec::new();
    for (table, found_by, ours) in TABLES {
        document.begin(table);
        // As text: JSON can hold a NUL, and the binary form of it cannot.
        let sql = format!(
            "select to_json(t)::text from {table} t
             where ({found_by}) and coalesce($1, $2, $3) is not null"
        );
        let mut rows = sqlx::query_scalar::<_, String>(&sql)
            .bind(&subject.phone)
            .bind(&subject.phone_key)
            .bind(&subject.conversation_id)
            .fetch(pool);
        while let Some(row) = rows.try_next().await? {
            let mut row: Map<String, Value> = serde_json::from_str(&row)?;
            row.retain(|column, _| !ours.contains(&column.as_str()));
            if let ("effects", Some(id)) = (*table, row.get("id").and_then(Value::as_str)) {
                effects.push(id.to_owned());
            }
            document.add(&row).await?;
        }
        document.end();
    }
    Ok(effects)
}

/// Events of the conversation and of what was owed; those of interactions are
/// with them.
async fn write_events(
    (pool, opener): (&PgPool, &Opener),
    subject: &Subject,
    effects: Vec<String>,
    document: &mut Document<'_>,
) -> anyhow::Result<()> {
    document.begin("events");
    let conversation = ("conversation", subject.conversation_id.clone());
    let effects = effects.into_iter().map(|id| ("effect", id));
    for (kind, id) in std::iter::once(conversation).chain(effects) {
        let mut filter = events::Filter {
            aggregate_type: Some(kind.to_owned()),
            aggregate_id: Some(id),
            ..events::Filter::default()
        };
        loop {
            let rows = events::list(pool, opener, &filter, EVENTS).await?;
            let Some(last) = rows.last() else { break };
            filter.after = last.position;
            for event in rows {
                let event = json!({
                    "position": event.position,
                    "type": event.event_type,
                    "occurred_at": event.occurred_at,
                    "recorded_at": event.recorded_at,
                    "payload": event.payload,
                });
                document.add(&event).await?;
            }
        }
    }
    document.end();
    Ok(())
}

fn shown(delivery: deliveries::Detail) -> Value {
    json!({
        "id": delivery.summary.id,
        "provider": delivery.summary.provider,
        "route": delivery.summary.route,
        "received_at": delivery.summary.received_at,
        "verdict": delivery.summary.verdict,
        "headers": delivery.headers,
        "body": String::from_utf8(delivery.body.clone()).ok(),
        "body_base64": STANDARD.encode(&delivery.body),
    })
}

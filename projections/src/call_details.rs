//! Read model `call_details`: what is known of a call beside its row in
//! `interactions`. What an event changes in it is in `interaction/call.rs`.

use std::collections::{BTreeMap, BTreeSet};

use domain::call::{Medium, Turn};
use serde::Serialize;
use serde_json::{Map, Value};
use sqlx::postgres::PgRow;
use sqlx::types::Json;
use sqlx::{FromRow, PgConnection, Row};
use uuid::Uuid;

use crate::interaction::Sources;
use crate::search::{Lexicon, Vector};
use crate::sql::Table;

/// A row of `call_details`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CallDetail {
    /// The interaction.
    pub interaction_id: String,
    /// How long it lasted, in seconds.
    pub duration_secs: Option<i64>,
    /// What was said, in order. Personal.
    pub transcript: Vec<Turn>,
    /// The provider's summary. Personal.
    pub summary: Option<String>,
    /// The summary's title. Personal.
    pub summary_title: Option<String>,
    /// Evaluation criteria and collected data. Personal.
    pub analysis: Map<String, Value>,
    /// The provider's verdict: `success`, `failure` or `unknown`.
    pub call_successful: Option<String>,
    /// Why it ended, in the provider's words.
    pub termination_reason: Option<String>,
    /// Why it could not be started: `busy`, `no-answer`, `unknown`, ….
    pub failure_reason: Option<String>,
    /// What went wrong, in the provider's or the carrier's words.
    pub error: Option<String>,
    /// Where the carrier keeps a recording. Personal.
    pub recording_url: Option<String>,
    /// Whether a recording exists, here or at the provider.
    pub has_audio: bool,
    /// The delivery that holds the recording.
    pub audio_delivery_id: Option<Uuid>,
    /// The recording's type, `audio/mpeg`.
    pub audio_content_type: Option<String>,
    /// The recording's size, in bytes.
    pub audio_bytes: Option<i64>,
    /// The language spoken (`es`).
    pub language: Option<String>,
    /// What it cost, in the provider's credits.
    pub cost_credits: Option<i64>,
    /// The agent's name.
    pub agent_name: Option<String>,
    /// The carrier of the telephone leg.
    pub carrier: Option<String>,
    /// How the telephone leg stands, in the carrier's word (`no-answer`, …).
    pub carrier_status: Option<String>,
    /// The SIP response of the telephone leg.
    pub sip_status: Option<i64>,
    /// The carrier's id of the telephone leg.
    pub call_sid: Option<String>,
    /// Our number.
    pub agent_number: Option<String>,
    /// The provider's id of our number.
    pub phone_number_id: Option<String>,
    /// The variables the agent was given. Personal.
    pub dynamic_variables: Map<String, Value>,
    /// The recipient of the batch that was called.
    pub batch_recipient_id: Option<String>,
    /// How it ended, in the provider's word (`done`, `failed`, …).
    pub provider_status: Option<String>,
    /// What each source said where they compete.
    #[serde(skip)]
    pub(crate) sources: Sources,
}

impl CallDetail {
    /// What the session was held over, once a report has said so.
    pub fn medium(&self) -> Option<Medium> {
        self.sources.medium()
    }
}

/// What is known of a call, by the interaction's own id.
///
/// # Errors
/// When the database fails.
pub async fn get(
    conn: &mut PgConnection,
    interaction_id: &str,
) -> sqlx::Result<Option<CallDetail>> {
    Ok(load(conn, &[interaction_id]).await?.pop())
}

/// The rows of these interactions that there are.
pub(crate) async fn load(
    conn: &mut PgConnection,
    interaction_ids: &[&str],
) -> sqlx::Result<Vec<CallDetail>> {
    if interaction_ids.is_empty() {
        return Ok(vec![]);
    }
    let sql = format!(
        "select interaction_id, {} from call_details where interaction_id = any($1)",
        TABLE.columns.join(", ")
    );
    sqlx::query_as(&sql)
        .bind(interaction_ids)
        .fetch_all(conn)
        .await
}

/// Writes rows, each with the words that it is found by. `known` are the
/// interactions that have one already.
pub(crate) async fn save(
    conn: &mut PgConnection,
    lexicon: &Lexicon,
    known: &BTreeSet<String>,
    rows: &BTreeMap<String, CallDetail>,
) -> anyhow::Result<()> {
    #[derive(Serialize)]
    struct Stored<'a> {
        #[serde(flatten)]
        row: &'a CallDetail,
        sources: &'a Sources,
        search: Vector<'a>,
    }
    let words = rows.values().map(CallDetail::spoken);
    let vectors = lexicon.vectors(conn, words).await?;
    let rows = rows
        .values()
        .zip(vectors.iter())
        .map(|(row, search)| Stored {
            row,
            sources: &row.sources,
            search,
        });
    let (there, new): (Vec<_>, Vec<_>) =
        rows.partition(|stored| known.contains(&stored.row.interaction_id));
    TABLE.upsert(conn, &there).await?;
    TABLE.insert(conn, &new).await
}

impl CallDetail {
    /// The texts that the call is found by.
    fn spoken(&self) -> impl Iterator<Item = &str> {
        let summary = self.summary_title.as_deref().into_iter();
        let summary = summary.chain(self.summary.as_deref());
        summary.chain(
            self.transcript
                .iter()
                .filter_map(|turn| turn.message.as_deref()),
        )
    }
}

const TABLE: Table = Table {
    name: "call_details",
    key: &["interaction_id"],
    columns: &[
        "duration_secs",
        "transcript",
        "summary",
        "summary_title",
        "analysis",
        "call_successful",
        "termination_reason",
        "failure_reason",
        "error",
        "recording_url",
        "has_audio",
        "audio_delivery_id",
        "audio_content_type",
        "audio_bytes",
        "language",
        "cost_credits",
        "agent_name",
        "carrier",
        "carrier_status",
        "sip_status",
        "call_sid",
        "agent_number",
        "phone_number_id",
        "dynamic_variables",
        "batch_recipient_id",
        "provider_status",
        "sources",
    ],
    searchable: true,
};

impl FromRow<'_, PgRow> for CallDetail {
    fn from_row(row: &PgRow) -> sqlx::Result<Self> {
        let Json(transcript) = row.try_get("transcript")?;
        let Json(analysis) = row.try_get("analysis")?;
        let Json(dynamic_variables) = row.try_get("dynamic_variables")?;
        let Json(sources) = row.try_get("sources")?;
        Ok(Self {
            interaction_id: row.try_get("interaction_id")?,
            duration_secs: row.try_get("duration_secs")?,
            transcript,
            summary: row.try_get("summary")?,
            summary_title: row.try_get("summary_title")?,
            analysis,
            call_successful: row.try_get("call_successful")?,
            termination_reason: row.try_get("termination_reason")?,
            failure_reason: row.try_get("failure_reason")?,
            error: row.try_get("error")?,
            recording_url: row.try_get("recording_url")?,
            has_audio: row.try_get("has_audio")?,
            audio_delivery_id: row.try_get("audio_delivery_id")?,
            audio_content_type: row.try_get("audio_content_type")?,
            audio_bytes: row.try_get("audio_bytes")?,
            language: row.try_get("language")?,
            cost_credits: row.try_get("cost_credits")?,
            agent_name: row.try_get("agent_name")?,
            carrier: row.try_get("carrier")?,
            carrier_status: row.try_get("carrier_status")?,
            sip_status: row.try_get("sip_status")?,
            call_sid: row.try_get("call_sid")?,
            agent_number: row.try_get("agent_number")?,
            phone_number_id: row.try_get("phone_number_id")?,
            dynamic_variables,
            batch_recipient_id: row.try_get("batch_recipient_id")?,
            provider_status: row.try_get("provider_status")?,
            sources,
        })
    }
}

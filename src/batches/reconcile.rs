//! Makes good webhooks that never came: ElevenLabs sends each once. What the
//! webhook would have brought is fetched, and kept as a delivery of its own.

use bytes::Bytes;
use chrono::{DateTime, TimeDelta};
use domain::delivery::Verdict;
use futures_util::StreamExt;
use projections::batches;

use super::drive::AT_ONCE;
use crate::app::App;
use crate::ledger::{Claim, Delivery, Entry};
use crate::providers::elevenlabs::client::ConversationState;
use crate::providers::{self, Normalised, Outcome, Webhook, http};

/// How long after its end a call is still searched for.
const SEARCHED_DAYS: i64 = 7;
/// Calls that are made good at a time; the rest waits for the next.
const CALLS_MAX: i64 = 500;

/// What became of a call that no webhook told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recovered {
    /// What it brought is on the ledger now.
    Now,
    /// It was on the ledger already.
    Before,
    /// The provider has nothing, or not all yet.
    NotYet,
}

/// Makes good what is missing of calls that ended a while ago. Gives the number
/// of webhooks that were.
///
/// # Errors
/// When the read models do not answer. A call that cannot be fetched harms no
/// other.
pub async fn reconcile(app: &App) -> anyhow::Result<usize> {
    let now = app.source.now();
    let grace = TimeDelta::from_std(app.config.reconcile_grace).unwrap_or_default();
    let (from, to) = (now - TimeDelta::days(SEARCHED_DAYS), now - grace);
    let mut conn = app.pool.acquire().await?;
    let calls = batches::missing_calls(&mut conn, from, to, CALLS_MAX).await?;
    let recordings = batches::missing_recordings(&mut conn, from, to, CALLS_MAX).await?;
    drop(conn);
    let calls = futures_util::stream::iter(calls).map(|call| async move {
        let id = call.conversation_id;
        counted(&id, recover_call(app, &id).await)
    });
    let calls: usize = calls
        .buffer_unordered(AT_ONCE)
        .fold(0, |n, one| async move { n + one })
        .await;
    let recordings = futures_util::stream::iter(recordings)
        .map(|id| async move { counted(&id, recover_recording(app, &id, None).await) });
    let recordings: usize = recordings
        .buffer_unordered(AT_ONCE)
        .fold(0, |n, one| async move { n + one })
        .await;
    Ok(calls + recordings)
}

fn counted(conversation_id: &str, outcome: anyhow::Result<Recovered>) -> usize {
    match outcome {
        Ok(Recovered::Now) => {
            metrics::counter!("bitacora_missing_webhooks_total").increment(1);
            1
        }
        Ok(Recovered::Before | Recovered::NotYet) => 0,
        Err(error) => {
            let error = format!("{error:#}");
            tracing::warn!(conversation_id, error, "could not fetch a call");
            0
        }
    }
}

/// Fetches what a call's webhooks would have brought: the report, and the
/// recording if there is one.
///
/// # Errors
/// When the provider or the ledger does not answer.
pub async fn recover_call(app: &App, conversation_id: &str) -> anyhow::Result<Recovered> {
    let document = match app.elevenlabs.get_conversation(conversation_id).await {
        Ok(document) => document,
        Err(error) if is_missing(&error) => return Ok(Recovered::NotYet),
        Err(error) => return Err(error.into()),
    };
    let state = ConversationState::of(&document)?;
    if !state.is_over() {
        return Ok(Recovered::NotYet);
    }
    let webhook = Webhook::ElevenlabsConversation;
    let read = providers::normalise(webhook, &document, None, &app.phone_index);
    let path = format!("/v1/convai/conversations/{conversation_id}");
    let recovered = keep(app, webhook, path, document, read).await?;
    if state.has_audio {
        // The report is kept: the recording alone is missed next time.
        if let Err(error) = recover_recording(app, conversation_id, Some(&state)).await {
            let error = format!("{error:#}");
            tracing::warn!(conversation_id, error, "could not fetch a recording");
        }
    }
    Ok(recovered)
}

async fn recover_recording(
    app: &App,
    conversation_id: &str,
    state: Option<&ConversationState>,
) -> anyhow::Result<Recovered> {
    let body = match app.elevenlabs.get_audio(conversation_id).await {
        Ok(body) if !body.is_empty() => body,
        Ok(_) => return Ok(Recovered::NotYet),
        Err(error) if is_missing(&error) => return Ok(Recovered::NotYet),
        Err(error) => return Err(error.into()),
    };
    let agent_id = state.and_then(|state| state.agent_id.as_deref());
    let ended_at = state.and_then(|state| DateTime::from_timestamp(state.ended_at_unix?, 0));
    let read = providers::recording(conversation_id, agent_id, ended_at, &body);
    let path = format!("/v1/convai/conversations/{conversation_id}/audio");
    keep(app, Webhook::ElevenlabsAudio, path, body, read).await
}

fn is_missing(error: &http::Error) -> bool {
    error.status() == Some(404)
}

/// Keeps what was fetched as a delivery.
async fn keep(
    app: &App,
    webhook: Webhook,
    path: String,
    body: Bytes,
    read: Normalised,
) -> anyhow::Result<Recovered> {
    let delivery = Delivery {
        id: app.source.id(),
        provider: webhook.provider(),
        route: webhook.name(),
        authentication: "fetched".to_owned(),
        received_at: app.source.now(),
        remote_addr: None,
        request_target: path,
        headers: "{}".to_owned(),
        body,
        reprocess_of: None,
    };
    let identity = read.identity;
    let claim = match read.outcome {
        Outcome::Facts(facts) => Claim::Facts { identity, facts },
        Outcome::Quarantined { reason } => Claim::Quarantined { identity, reason },
    };
    let receipt = app
        .writer
        .append(Entry::Delivery(Box::new(delivery), claim))
        .await?;
    Ok(match receipt.verdict {
        Some(Verdict::Accepted) => Recovered::Now,
        _ => Recovered::Before,
    })
}

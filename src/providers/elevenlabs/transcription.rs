//! `post_call_transcription`: the report of a finished session.

use domain::Direction;
use domain::call::{Completed, Medium, Outcome, Turn as DomainTurn};
use serde_json::{Map, Value};

use super::wire::{Analysis, Data, Metadata, PhoneCall, Turn};
use crate::providers::lenient::{self, Object, Text};
use crate::providers::text::{self, missing, unknown};

/// The tool that an agent calls when a machine has answered.
const VOICEMAIL_TOOL: &str = "voicemail_detection";

/// The report as an event.
///
/// # Errors
/// What is missing or unknown and cannot be done without.
pub(super) fn completed(conversation_id: String, data: Data<'_>) -> Result<Completed, String> {
    let agent_id = data.agent_id.0.ok_or_else(|| missing("agent_id"))?;
    let metadata = data.metadata.0.unwrap_or_default();
    let analysis = data.analysis.0.unwrap_or_default();
    let turns: Vec<Turn> = data
        .transcript
        .0
        .into_iter()
        .filter_map(|it| it.0)
        .collect();
    let outcome = outcome(&data.status, &metadata, &analysis, &turns)?;
    let medium = medium(&metadata);
    let line = Line::of(&metadata);
    let batch = metadata.batch_call.0.unwrap_or_default();
    let client_data = data.conversation_initiation_client_data.0;
    Ok(Completed {
        conversation_id,
        agent_id: text::word(&agent_id),
        agent_name: data.agent_name.0,
        outcome,
        provider_status: text::word(data.status.as_str()),
        medium,
        direction: line.direction,
        call_sid: line.call_sid,
        carrier: line.carrier,
        phone_number: line.phone_number,
        agent_number: line.agent_number,
        phone_number_id: line.phone_number_id,
        started_at: metadata.start_time_unix_secs.0,
        duration_secs: metadata.call_duration_secs.0.filter(|secs| *secs >= 0),
        cost_credits: metadata.cost.0,
        termination_reason: metadata.termination_reason.0.map(|it| text::remark(&it)),
        error: metadata.error.0.map(|it| text::remark(&it)),
        language: word(&metadata.main_language),
        has_audio: data.has_audio.0,
        call_successful: word(&analysis.call_successful),
        summary: analysis.transcript_summary.0,
        summary_title: analysis.call_summary_title.0,
        analysis: findings(
            analysis.evaluation_criteria_results,
            analysis.data_collection_results,
        ),
        batch_id: word(&batch.batch_call_id),
        batch_recipient_id: word(&batch.batch_call_recipient_id),
        dynamic_variables: client_data.map_or_else(Map::new, |it| map(it.dynamic_variables)),
        transcript: turns.into_iter().map(turn).collect(),
    })
}

/// How the session ended. The provider reports only sessions that it holds to
/// be over and analysed, so a status that is new to us counts as completed if
/// the analysis has a verdict, and is left to a person if it has none.
fn outcome(
    status: &Text,
    metadata: &Metadata,
    analysis: &Analysis,
    turns: &[Turn],
) -> Result<Outcome, String> {
    let result = call_result(metadata);
    let ended = || match result {
        "busy" | "no_answer" | "no-answer" | "failed" => Outcome::Failed,
        _ if reached_voicemail(result, metadata, turns) => Outcome::Voicemail,
        _ => Outcome::Completed,
    };
    match status.as_str() {
        "done" => Ok(ended()),
        "failed" => Ok(Outcome::Failed),
        "in-progress" | "in_progress" | "processing" => Ok(Outcome::InProgress),
        "initiated" => Ok(Outcome::Pending),
        _ if matches!(analysis.call_successful.as_str(), "success" | "failure") => Ok(ended()),
        "" => Err(missing("status")),
        other => Err(unknown("status", other)),
    }
}

/// How the carrier says the call went, in the provider's word.
fn call_result(metadata: &Metadata) -> &str {
    let phone = metadata.phone_call.0.as_ref();
    let whatsapp = metadata.whatsapp.0.as_ref();
    phone
        .map(|it| it.call_result.as_str())
        .or(whatsapp.map(|it| it.call_result.as_str()))
        .unwrap_or_default()
}

/// Whether a machine answered: the carrier, the agent's tool or the reason of
/// the end says so.
fn reached_voicemail(call_result: &str, metadata: &Metadata, turns: &[Turn]) -> bool {
    let reason = metadata.termination_reason.as_str().to_ascii_lowercase();
    let mut results = turns
        .iter()
        .flat_map(|turn| &turn.tool_results.0)
        .filter_map(|it| it.0.as_ref());
    call_result == "voicemail"
        || reason.contains("voicemail")
        || results.any(|it| match &it.result.0 {
            Some(result) => result.result_type.as_str() == "voicemail_detection_success",
            None => it.tool_name.as_str() == VOICEMAIL_TOOL && !it.is_error.0,
        })
}

/// What the session was held over: its own connection first, for a session
/// over WhatsApp is a text session as well.
fn medium(metadata: &Metadata) -> Medium {
    match metadata.conversation_initiation_source.as_str() {
        _ if metadata.phone_call.0.is_some() => Medium::Voice,
        _ if metadata.whatsapp.0.is_some() => Medium::Whatsapp,
        _ if metadata.sms.0.is_some() => Medium::Sms,
        "whatsapp" => Medium::Whatsapp,
        "twilio_sms" => Medium::Sms,
        _ if metadata.text_only.0 => Medium::Text,
        _ => Medium::Voice,
    }
}

/// Who was connected with whom.
#[derive(Default)]
struct Line {
    direction: Option<Direction>,
    call_sid: Option<String>,
    carrier: Option<String>,
    phone_number: Option<String>,
    agent_number: Option<String>,
    phone_number_id: Option<String>,
}

impl Line {
    fn of(metadata: &Metadata) -> Self {
        if let Some(phone) = &metadata.phone_call.0 {
            Self::of_phone(phone)
        } else if let Some(it) = &metadata.whatsapp.0 {
            Self {
                direction: direction(&it.direction),
                phone_number: address(&it.whatsapp_user_id),
                phone_number_id: word(&it.whatsapp_phone_number_id),
                ..Self::default()
            }
        } else if let Some(it) = &metadata.sms.0 {
            Self {
                direction: direction(&it.direction),
                phone_number: address(&it.sms_user_phone_number),
                agent_number: address(&it.agent_phone_number),
                phone_number_id: word(&it.phone_number_id),
                ..Self::default()
            }
        } else {
            Self::default()
        }
    }

    fn of_phone(phone: &PhoneCall) -> Self {
        Self {
            direction: direction(&phone.direction),
            call_sid: word(&phone.call_sid),
            carrier: word(&phone.kind),
            phone_number: address(&phone.external_number),
            agent_number: address(&phone.agent_number),
            phone_number_id: word(&phone.phone_number_id),
        }
    }
}

fn direction(text: &Text) -> Option<Direction> {
    text.as_str().parse().ok()
}

fn address(text: &Text) -> Option<String> {
    text.0.as_deref().map(text::address)
}

fn word(text: &Text) -> Option<String> {
    text.0.as_deref().map(text::word)
}

fn map(object: Object<Map<String, Value>>) -> Map<String, Value> {
    lenient::clean_map(object.0.unwrap_or_default())
}

/// Evaluations and collected data under the provider's names.
fn findings(
    criteria: Object<Map<String, Value>>,
    collected: Object<Map<String, Value>>,
) -> Map<String, Value> {
    [
        ("evaluation_criteria_results", map(criteria)),
        ("data_collection_results", map(collected)),
    ]
    .into_iter()
    .filter(|(_, results)| !results.is_empty())
    .map(|(name, results)| (name.to_owned(), Value::Object(results)))
    .collect()
}

fn turn(turn: Turn) -> DomainTurn {
    let called = turn.tool_calls.0.into_iter().filter_map(|it| it.0);
    let answered = turn.tool_results.0.into_iter().filter_map(|it| it.0);
    let names = called
        .map(|it| it.tool_name)
        .chain(answered.map(|it| it.tool_name));
    let mut tools: Vec<String> = Vec::new();
    for name in names.filter_map(|it| word(&it)) {
        if !tools.contains(&name) {
            tools.push(name);
        }
    }
    DomainTurn {
        role: text::word(turn.role.0.as_deref().unwrap_or("unknown")),
        message: turn.message.0,
        time_in_call_secs: turn.time_in_call_secs.0,
        tools,
    }
}

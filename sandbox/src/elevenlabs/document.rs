//! A conversation as ElevenLabs writes it: `GetConversationResponseModel`, which is also the
//! `data` of `post_call_transcription`, and the shorter one of the list.

use serde_json::{Value, json};

use super::conversation::{CallLeg, Conversation, Medium, Status, TextLeg};
use crate::{
    CallOutcome,
    script::{self, Dialogue, Turn},
    world::World,
};

/// The provider's price, in credits for a second.
const CREDITS_PER_SEC: u64 = 6;

/// `GET /v1/convai/conversations/{id}`
pub(super) fn detail(world: &World, conversation: &Conversation) -> Value {
    let dialogue = dialogue(world, conversation);
    let transcript: Vec<_> = transcript(conversation, &dialogue);
    let by = |agent: bool| {
        dialogue
            .turns
            .iter()
            .filter(|t| t.by_agent == agent)
            .count()
    };
    let has_audio = conversation.has_audio();
    json!({
        "agent_id": conversation.agent_id,
        "agent_name": world.elevenlabs.agent_name(&conversation.agent_id),
        "conversation_product": "agents",
        "status": conversation.status.as_str(),
        "user_id": conversation.user_id,
        "branch_id": null,
        "version_id": conversation.version_id,
        "environment": "production",
        "metadata": metadata(world, conversation),
        "analysis": (conversation.status == Status::Done).then(|| analysis(&dialogue)),
        "agent_message_count": by(true),
        "user_message_count": by(false),
        "visited_agents": [{"agent_id": conversation.agent_id, "branch_id": null}],
        "conversation_initiation_client_data": client_data(conversation),
        "conversation_id": conversation.id,
        "has_audio": has_audio,
        "has_user_audio": has_audio,
        "has_response_audio": has_audio,
        "has_auxiliary_audio": false,
        "transcript": transcript,
        "tag_ids": [],
    })
}

/// An item of `GET /v1/convai/conversations`
pub(super) fn summary(world: &World, conversation: &Conversation) -> Value {
    let dialogue = dialogue(world, conversation);
    let done = conversation.status == Status::Done;
    let by = |agent: bool| {
        dialogue
            .turns
            .iter()
            .filter(|t| t.by_agent == agent)
            .count()
    };
    json!({
        "agent_id": conversation.agent_id,
        "branch_id": null,
        "version_id": conversation.version_id,
        "agent_name": world.elevenlabs.agent_name(&conversation.agent_id),
        "conversation_id": conversation.id,
        "start_time_unix_secs": conversation.start_unix,
        "call_duration_secs": conversation.duration_secs,
        "cost": conversation.duration_secs * CREDITS_PER_SEC,
        "message_count": dialogue.turns.len(),
        "user_message_count": by(false),
        "agent_message_count": by(true),
        "status": conversation.status.as_str(),
        "termination_reason": conversation.termination_reason,
        "call_successful": if done { dialogue.successful } else { "unknown" },
        "transcript_summary": done.then_some(&dialogue.summary),
        "call_summary_title": done.then_some(dialogue.title),
        "main_language": "es",
        "conversation_initiation_source": source(conversation),
        "tool_names": [],
        "direction": conversation.call().map(|_| "outbound"),
        "rating": null,
        "tag_ids": [],
    })
}

/// What is said, and what is made of it. Nothing is said before the end of a call.
fn dialogue(world: &World, conversation: &Conversation) -> Dialogue {
    match &conversation.medium {
        Medium::Call(call) => {
            let draw = world.fate.draw("script", &conversation.name);
            let outcome = call.fate.outcome;
            let variables = &conversation.dynamic_variables;
            let mut told = script::call(draw, outcome, call.fate.talk_secs, variables);
            if !matches!(conversation.status, Status::Processing | Status::Done) {
                told.turns.clear();
            }
            told
        }
        Medium::Text(text) => written(text),
    }
}

fn written(text: &TextLeg) -> Dialogue {
    let asked = text.turns.iter().filter(|turn| !turn.by_agent).count();
    Dialogue {
        turns: text.turns.clone(),
        successful: if asked > 0 { "success" } else { "unknown" },
        title: "Conversación escrita",
        summary: format!("El cliente escribió {asked} mensajes y el agente los respondió."),
        interest: "desconocido",
    }
}

fn transcript(conversation: &Conversation, dialogue: &Dialogue) -> Vec<Value> {
    let text_only = conversation.call().is_none();
    let medium = if text_only { "text" } else { "audio" };
    let mut entries: Vec<_> = dialogue
        .turns
        .iter()
        .map(|turn| entry(turn, medium))
        .collect();
    if let Some(call) = conversation.call().filter(|_| !entries.is_empty()) {
        entries.push(last_tool(call, conversation.duration_secs));
    }
    entries
}

fn entry(turn: &Turn, medium: &str) -> Value {
    json!({
        "role": if turn.by_agent { "agent" } else { "user" },
        "message": turn.text,
        "time_in_call_secs": turn.at_secs,
        "agent_metadata": null,
        "multivoice_message": null,
        "tool_calls": [],
        "tool_results": [],
        "feedback": null,
        "llm_override": null,
        "conversation_turn_metrics": null,
        "rag_retrieval_info": null,
        "llm_usage": null,
        "interrupted": false,
        "original_message": null,
        "source_medium": (!turn.by_agent).then_some(medium),
    })
}

/// The system tool by which the agent ended the call: a turn without words.
fn last_tool(call: &CallLeg, at_secs: u64) -> Value {
    let (tool, result) = match call.fate.outcome {
        CallOutcome::Voicemail => ("voicemail_detection", "voicemail_detection_success"),
        _ => ("end_call", "end_call_success"),
    };
    let request_id = format!("call_{}", &call.call_sid[2..14]);
    let mut last = entry(
        &Turn {
            by_agent: true,
            text: String::new(),
            at_secs,
        },
        "audio",
    );
    last["message"] = Value::Null;
    last["tool_calls"] = json!([{
        "type": "system", "request_id": request_id, "tool_name": tool,
        "params_as_json": "{\"reason\": \"fin de la llamada\"}",
        "tool_has_been_called": true, "tool_details": null,
    }]);
    last["tool_results"] = json!([{
        "type": "system", "request_id": request_id, "tool_name": tool,
        "result_value": "Tool called successfully.", "is_error": false,
        "tool_has_been_called": true, "tool_latency_secs": 0.0,
        "error_type": "", "raw_error_message": null, "dynamic_variable_updates": [],
        "result": {"result_type": result, "status": "success"},
    }]);
    last
}

fn metadata(world: &World, conversation: &Conversation) -> Value {
    let secs = conversation.duration_secs;
    let authorization = match conversation.text() {
        Some(text) if text.signed => "signed_url",
        Some(_) => "public",
        None => "authorization_header",
    };
    json!({
        "start_time_unix_secs": conversation.start_unix,
        "accepted_time_unix_secs": conversation.accepted_unix,
        "call_duration_secs": secs,
        "cost": secs * CREDITS_PER_SEC,
        "cost_fiat": secs as f64 * 0.001,
        "deletion_settings": {
            "deletion_time_unix_secs": null,
            "deleted_logs_at_time_unix_secs": null,
            "deleted_audio_at_time_unix_secs": null,
            "deleted_transcript_at_time_unix_secs": null,
            "delete_transcript_and_pii": false,
            "delete_audio": false,
        },
        "feedback": {
            "type": null, "overall_score": null, "likes": 0, "dislikes": 0,
            "rating": null, "comment": null,
        },
        "authorization_method": authorization,
        "charging": {
            "dev_discount": false, "is_burst": false, "tier": "creator",
            "llm_price": 0.0, "llm_charge": 0, "call_charge": secs * CREDITS_PER_SEC,
        },
        "phone_call": conversation.call().map(phone_call),
        "batch_call": conversation.call().and_then(|call| batch_call(world, call)),
        "termination_reason": conversation.termination_reason,
        "error": null,
        "warnings": [],
        "main_language": "es",
        "rag_usage": null,
        "text_only": conversation.call().is_none(),
        "features_usage": {},
        "eleven_assistant": {"is_eleven_assistant": false},
        "initiator_id": null,
        "conversation_initiation_source": source(conversation),
        "conversation_initiation_source_version":
            conversation.text().and_then(|text| text.source_version.as_ref()),
        "timezone": null,
        "async_metadata": null,
        "whatsapp": null,
        "sms": null,
        "agent_created_from": "ui",
        "agent_last_updated_from": "api",
        "voice_rewards": [],
    })
}

fn source(conversation: &Conversation) -> &str {
    match &conversation.medium {
        Medium::Call(call) if call.sip_trunk => "sip_trunk",
        Medium::Call(_) => "twilio",
        Medium::Text(text) => text.source.as_deref().unwrap_or("unknown"),
    }
}

/// The provider spells a SIP trunk in three ways; here it is `sip_trunking`.
fn phone_call(call: &CallLeg) -> Value {
    let mut phone_call = json!({
        "direction": "outbound",
        "phone_number_id": call.phone_number_id,
        "agent_number": call.agent_number,
        "external_number": call.phone_number,
        "call_sid": call.call_sid,
        "call_result": call.fate.outcome.call_result(),
    });
    if call.sip_trunk {
        phone_call["type"] = "sip_trunking".into();
        phone_call["call_id"] = call.call_sid.as_str().into();
    } else {
        phone_call["type"] = "twilio".into();
        phone_call["stream_sid"] = call.stream_sid.as_str().into();
    }
    phone_call
}

fn batch_call(world: &World, call: &CallLeg) -> Option<Value> {
    let (batch, recipient) = call.batch?;
    let batch = world.elevenlabs.batches.get(batch)?;
    Some(json!({
        "batch_call_id": batch.id,
        "batch_call_recipient_id": batch.recipients.get(recipient)?.id,
        "campaign": null,
    }))
}

fn analysis(dialogue: &Dialogue) -> Value {
    let criterion = json!({
        "criteria_id": "objetivo",
        "result": dialogue.successful,
        "rationale": dialogue.summary,
    });
    let datum = json!({
        "data_collection_id": "interes",
        "value": dialogue.interest,
        "json_schema": {"type": "string", "description": "Nivel de interés del cliente"},
        "rationale": dialogue.summary,
    });
    json!({
        "evaluation_criteria_results": {"objetivo": criterion},
        "data_collection_results": {"interes": datum},
        "evaluation_criteria_results_list": [criterion],
        "data_collection_results_list": [datum],
        "call_successful": dialogue.successful,
        "call_success_score": null,
        "transcript_summary": dialogue.summary,
        "call_summary_title": dialogue.title,
        "scoped": [],
    })
}

/// What the client gave, echoed, and the provider's own `system__` variables.
fn client_data(conversation: &Conversation) -> Value {
    let mut variables = match &conversation.dynamic_variables {
        Value::Object(given) => given.clone(),
        _ => Default::default(),
    };
    variables.insert(
        "system__agent_id".into(),
        conversation.agent_id.as_str().into(),
    );
    variables.insert(
        "system__conversation_id".into(),
        conversation.id.as_str().into(),
    );
    if let Some(call) = conversation.call() {
        variables.insert("system__call_sid".into(), call.call_sid.as_str().into());
        variables.insert(
            "system__caller_id".into(),
            call.agent_number.as_str().into(),
        );
        variables.insert(
            "system__called_number".into(),
            call.phone_number.as_str().into(),
        );
    }
    let mut overrides = json!({
        "agent": null, "tts": null, "conversation": null, "asr": null, "turn": null
    });
    crate::merge::deep_merge(&mut overrides, &conversation.config_override);
    if overrides.is_null() {
        overrides = json!({});
    }
    json!({
        "conversation_config_override": overrides,
        "custom_llm_extra_body": {},
        "user_id": conversation.user_id,
        "source_info": {
            "source": conversation.text().and_then(|text| text.source.as_ref()),
            "version": conversation.text().and_then(|text| text.source_version.as_ref()),
        },
        "branch_id": null,
        "environment": null,
        "dynamic_variables": variables,
    })
}

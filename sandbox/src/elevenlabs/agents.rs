//! Agents: `GET` and `PATCH /v1/convai/agents/{id}`.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::errors::{self, Findings};
use crate::{
    fate::Fate,
    http::{Answer, Call, Reply},
    merge::deep_merge,
    options::Options,
    world::World,
};

/// An agent that anyone may talk to.
pub const AGENT_COLLECTIONS: &str = "agent_sandbox0collections0000000000";

/// An agent that asks for a signed URL.
pub const AGENT_SURVEY: &str = "agent_sandbox0survey000000000000000";

/// The longest conversation, unless the agent says otherwise. The provider's default.
pub(super) const MAX_DURATION_SECS: u64 = 600;

/// What a `PATCH` may change.
const MERGED: [&str; 3] = ["conversation_config", "platform_settings", "workflow"];
const REPLACED: [&str; 3] = ["name", "tags", "procedures"];

pub(super) fn all(options: &Options, fate: Fate, now_unix: u64) -> HashMap<String, Value> {
    let mut agents = HashMap::new();
    let mut add = |id: &str, name: &str, greeting: &str, auth: bool| {
        agents.insert(
            id.to_owned(),
            agent(id, name, greeting, auth, fate, now_unix),
        );
    };
    add(
        AGENT_COLLECTIONS,
        "Cobranzas",
        "Hola {{client_name}}, le escribe el asistente de Cobranzas. ¿En qué puedo ayudarle?",
        false,
    );
    add(
        AGENT_SURVEY,
        "Encuesta",
        "Hola, ¿tiene un minuto para una encuesta?",
        true,
    );
    for id in &options.agents {
        add(id, "Agente", "Hola, ¿en qué puedo ayudarle?", false);
    }
    agents
}

/// An agent with the provider's defaults, in Spanish.
pub(crate) fn agent(
    id: &str,
    name: &str,
    greeting: &str,
    auth: bool,
    fate: Fate,
    now_unix: u64,
) -> Value {
    let branch = fate.draw("agent branch", id).elevenlabs_id("agtbrch_");
    json!({
        "agent_id": id,
        "name": name,
        "conversation_config": {
            "asr": {"quality": "high", "provider": "elevenlabs", "keywords": []},
            "turn": {"turn_timeout": 7.0, "mode": "turn"},
            "tts": {"model_id": "eleven_flash_v2_5", "voice_id": "cjVigY5qzO86Huf0OWal"},
            "conversation": {
                "text_only": false,
                "max_duration_seconds": MAX_DURATION_SECS,
                "client_events": [
                    "audio", "interruption", "user_transcript", "agent_response",
                    "agent_response_correction", "agent_chat_response_part",
                ],
            },
            "language_presets": {},
            "vad": {},
            "agent": {
                "first_message": greeting,
                "language": "es",
                "dynamic_variables": {"dynamic_variable_placeholders": {"client_name": "cliente"}},
                "prompt": {
                    "prompt": "Eres un agente amable de un centro de contacto.",
                    "llm": "gemini-2.5-flash",
                    "tool_ids": [],
                },
            },
        },
        "metadata": {"created_at_unix_secs": now_unix, "updated_at_unix_secs": now_unix},
        "platform_settings": platform_settings(auth),
        "phone_numbers": [],
        "whatsapp_accounts": [],
        "workflow": null,
        "access_info": {
            "is_creator": true, "creator_name": "Sandbox",
            "creator_email": "sandbox@example.invalid", "role": "admin",
        },
        "tags": [],
        "version_id": version(fate, id, 0),
        "branch_id": branch,
        "main_branch_id": branch,
        "procedures": {},
        "default_hold_audio_url": null,
    })
}

fn platform_settings(auth: bool) -> Value {
    json!({
        "auth": {"enable_auth": auth, "allowlist": [], "require_origin_header": false, "shareable_token": null},
        "call_limits": {"agent_concurrency_limit": -1, "daily_limit": 100_000, "bursting_enabled": true},
        "overrides": {
            "conversation_config_override": {
                "conversation": {"text_only": true},
                "agent": {"first_message": true, "language": true, "prompt": {"prompt": true}},
            },
            "custom_llm_extra_body": false,
        },
        "workspace_overrides": {"webhooks": null},
        "privacy": {"record_voice": true, "retention_days": -1, "zero_retention_mode": false},
    })
}

fn version(fate: Fate, agent_id: &str, nth: u32) -> String {
    fate.draw("agent version", &format!("{agent_id} {nth}"))
        .elevenlabs_id("agtvrsn_")
}

/// The agent, or the 404.
pub(super) fn find<'a>(world: &'a mut World, id: &str) -> Result<&'a mut Value, Answer> {
    let request_id = world.request_id();
    let known = world.elevenlabs.agents.get_mut(id);
    known.ok_or_else(|| errors::not_found("agent", id, &request_id))
}

/// Where an override goes beyond what the agent's security settings permit, if it does.
pub(super) fn forbidden_override(agent: &Value, wanted: &Value) -> Option<String> {
    fn check(permitted: &Value, wanted: &Value, path: &str) -> Option<String> {
        let deeper = |(key, value): (&String, &Value)| {
            let path = if path.is_empty() {
                key.clone()
            } else {
                format!("{path}.{key}")
            };
            check(&permitted[key], value, &path)
        };
        match wanted {
            Value::Null => None,
            Value::Object(fields) => fields.iter().find_map(deeper),
            // The official SDK sends a stray top-level `text_only`, which the provider ignores.
            _ if permitted == true || path == "text_only" => None,
            _ => Some(path.to_owned()),
        }
    }
    let permitted = &agent["platform_settings"]["overrides"]["conversation_config_override"];
    check(permitted, wanted, "")
}

/// `GET /v1/convai/agents/{id}`
pub(super) fn fetch(world: &mut World, call: &Call) -> Reply {
    let agent = find(world, call.param("id"))?;
    Ok(Answer::json(200, agent))
}

/// `PATCH /v1/convai/agents/{id}`: what it names, deeply; the version moves.
pub(super) fn update(world: &mut World, call: &Call) -> Reply {
    let id = call.param("id");
    let patch = errors::object(&call.body)?;
    validate(&patch)?;
    find(world, id)?;
    let nth = world.nth(&format!("version of {id}")) + 1;
    let (fate, now) = (world.fate, world.clock.unix());
    let agent = find(world, id)?;
    for field in MERGED {
        if let Some(part) = patch.get(field).filter(|part| !part.is_null()) {
            deep_merge(&mut agent[field], part);
        }
    }
    for field in REPLACED {
        if let Some(whole) = patch.get(field).filter(|whole| !whole.is_null()) {
            agent[field] = whole.clone();
        }
    }
    agent["metadata"]["updated_at_unix_secs"] = now.into();
    agent["version_id"] = version(fate, id, nth).into();
    Ok(Answer::json(200, agent))
}

fn validate(patch: &Value) -> Result<(), Answer> {
    let mut findings = Findings::default();
    let may_be = |value: &Value, good: fn(&Value) -> bool| value.is_null() || good(value);
    for field in MERGED {
        if !may_be(&patch[field], Value::is_object) {
            let words = "Input should be a valid dictionary";
            findings.add(json!(["body", field]), words, "dict_type");
        }
    }
    if !may_be(&patch["name"], Value::is_string) {
        let words = "Input should be a valid string";
        findings.add(json!(["body", "name"]), words, "string_type");
    }
    if !may_be(&patch["tags"], Value::is_array) {
        let words = "Input should be a valid list";
        findings.add(json!(["body", "tags"]), words, "list_type");
    }
    findings.verdict()
}

//! The workspace's phone numbers: one of Twilio, one of a SIP trunk.

use serde_json::{Value, json};

use super::agents::AGENT_COLLECTIONS;
use crate::{
    http::{Answer, Call, Reply},
    world::World,
};

/// The Twilio number's id.
pub const PHONE_TWILIO: &str = "phnum_sandbox0twilio000000000000000";

/// The SIP trunk number's id.
pub const PHONE_SIP_TRUNK: &str = "phnum_sandbox0siptrunk0000000000000";

pub(super) fn all() -> Vec<Value> {
    vec![
        json!({
            "phone_number": "+14155550100",
            "label": "Línea principal",
            "supports_inbound": true,
            "supports_outbound": true,
            "phone_number_id": PHONE_TWILIO,
            "assigned_agent": {
                "agent_id": AGENT_COLLECTIONS, "agent_name": "Cobranzas",
                "environment": null, "branch_id": null,
            },
            "provider": "twilio",
        }),
        json!({
            "phone_number": "+576015550100",
            "label": "Troncal Bogotá",
            "supports_inbound": true,
            "supports_outbound": true,
            "phone_number_id": PHONE_SIP_TRUNK,
            "assigned_agent": null,
            "provider": "sip_trunk",
            "provider_config": null,
            "outbound_trunk": null,
            "inbound_trunk": null,
            "livekit_stack": "standard",
            "store_sip_messages": true,
        }),
    ]
}

/// The number with this id.
pub(super) fn find<'a>(world: &'a World, id: &str) -> Option<&'a Value> {
    let mut all = world.elevenlabs.phone_numbers.iter();
    all.find(|number| number["phone_number_id"] == id)
}

/// `GET /v1/convai/phone-numbers`: a bare array, without pages.
pub(super) fn list(world: &mut World, call: &Call) -> Reply {
    let matches = |number: &&Value| {
        let provider = call
            .query("provider")
            .is_none_or(|p| number["provider"] == p);
        let agent = |id| number["assigned_agent"]["agent_id"] == id;
        provider && call.query("agent_id").is_none_or(agent)
    };
    let numbers: Vec<_> = world
        .elevenlabs
        .phone_numbers
        .iter()
        .filter(matches)
        .collect();
    Ok(Answer::json(200, &json!(numbers)))
}

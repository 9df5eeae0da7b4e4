//! Signed URLs: the way into a text session with an agent that asks for authorization.

use serde_json::json;

use super::{agents, errors::Findings};
use crate::{
    http::{Answer, Call, Reply},
    world::World,
};

/// How long a signed URL opens a session. The provider's figure.
const VALID_SECS: u64 = 15 * 60;

/// What a signature is good for.
pub(super) struct SignedUrl {
    agent_id: String,
    expires_unix: u64,
    single_use: bool,
}

/// `GET /v1/convai/conversation/get-signed-url`
pub(super) fn create(world: &mut World, call: &Call) -> Reply {
    let Some(agent_id) = call.query("agent_id") else {
        let mut findings = Findings::default();
        findings.add(json!(["query", "agent_id"]), "Field required", "missing");
        findings.verdict()?;
        return Err(Answer::empty(422));
    };
    agents::find(world, agent_id)?;
    let nth = world.nth(&format!("signed url {agent_id}"));
    let name = format!("{agent_id}/{nth}");
    let signature = world.fate.draw("signed url", &name).elevenlabs_id("cvtkn_");
    let signed = SignedUrl {
        agent_id: agent_id.to_owned(),
        expires_unix: world.clock.unix() + VALID_SECS,
        single_use: call.query("include_conversation_id") == Some("true"),
    };
    let host = call.header("host").unwrap_or("127.0.0.1");
    let url = format!(
        "ws://{host}/v1/convai/conversation?agent_id={agent_id}&conversation_signature={signature}"
    );
    world.elevenlabs.signed_urls.insert(signature, signed);
    Ok(Answer::json(200, &json!({"signed_url": url})))
}

/// Checks a signature, and uses it up if it is for one session only.
pub(super) fn check(world: &mut World, signature: &str, agent_id: &str) -> Result<(), String> {
    let now = world.clock.unix();
    let known = &mut world.elevenlabs.signed_urls;
    let Some(signed) = known.get(signature).filter(|s| s.agent_id == agent_id) else {
        return Err("Invalid conversation signature.".to_owned());
    };
    if signed.expires_unix < now {
        return Err("The conversation signature has expired.".to_owned());
    }
    if signed.single_use {
        known.remove(signature);
    }
    Ok(())
}

//! ElevenLabs: agents that call people in batches, and that write with them.
//!
//! What is known of the real API, and how surely, is in `providers/PROVIDERS.md` §1 and §2.

use std::{collections::HashMap, sync::Arc};

use poem::{Endpoint, Response, Route, get, post};
use serde_json::Value;

use crate::{
    driver::Shared,
    fate::Fate,
    http::{Answer, Call, Provider, Work, operation},
    options::{Options, first_secret},
    truth::{BatchTruth, ConversationTruth},
    world::World,
};

pub(crate) mod agents;
mod audio;
pub(crate) mod batches;
pub(crate) mod calls;
mod conversation;
mod conversations;
mod document;
pub(crate) mod errors;
mod phone_numbers;
mod post_call;
mod session;
#[cfg(test)]
mod session_tests;
mod signed_urls;
mod submit;
mod text_session;

pub use agents::{AGENT_COLLECTIONS, AGENT_SURVEY};
pub use phone_numbers::{PHONE_SIP_TRUNK, PHONE_TWILIO};

use batches::Batch;
use conversation::Conversation;
use signed_urls::SignedUrl;

/// What ElevenLabs knows.
pub(crate) struct State {
    pub(crate) agents: HashMap<String, Value>,
    phone_numbers: Vec<Value>,
    batches: Vec<Batch>,
    batch_by_id: HashMap<String, usize>,
    conversations: Vec<Conversation>,
    conversation_by_id: HashMap<String, usize>,
    signed_urls: HashMap<String, SignedUrl>,
    /// How calls to some numbers must turn out, whatever chance says.
    pub(crate) forced: HashMap<String, crate::CallOutcome>,
}

impl State {
    pub(crate) fn new(options: &Options, fate: Fate, now_unix: u64) -> Self {
        Self {
            agents: agents::all(options, fate, now_unix),
            phone_numbers: phone_numbers::all(),
            batches: Vec::new(),
            batch_by_id: HashMap::new(),
            conversations: Vec::new(),
            conversation_by_id: HashMap::new(),
            signed_urls: HashMap::new(),
            forced: HashMap::new(),
        }
    }

    /// The agent's name, for the answers that repeat it.
    fn agent_name(&self, agent_id: &str) -> String {
        let name = self.agents.get(agent_id).and_then(|a| a["name"].as_str());
        name.unwrap_or_default().to_owned()
    }
}

/// The paths, below the root.
pub(crate) fn routes(shared: &Arc<Shared>) -> impl Endpoint<Output = Response> + use<> {
    let op = |name: &'static str, work: Work| operation(shared, Provider::ElevenLabs, name, work);
    let signed_url = || op("elevenlabs.signed_url", signed_urls::create);
    Route::new()
        .at(
            "/batch-calling/submit",
            post(op("elevenlabs.batch_submit", submit::submit)),
        )
        .at(
            "/batch-calling/workspace",
            get(op("elevenlabs.batch_list", batches::workspace)),
        )
        .at(
            "/batch-calling/:id",
            get(op("elevenlabs.batch_get", batches::fetch))
                .delete(op("elevenlabs.batch_delete", batches::delete)),
        )
        .at(
            "/batch-calling/:id/cancel",
            post(op("elevenlabs.batch_cancel", batches::cancel)),
        )
        .at(
            "/batch-calling/:id/retry",
            post(op("elevenlabs.batch_retry", batches::retry)),
        )
        .at(
            "/conversations",
            get(op("elevenlabs.conversation_list", conversations::list)),
        )
        .at(
            "/conversations/:id",
            get(op("elevenlabs.conversation_get", conversations::fetch)),
        )
        .at(
            "/conversations/:id/audio",
            get(op("elevenlabs.conversation_audio", conversations::audio)),
        )
        .at(
            "/phone-numbers",
            get(op("elevenlabs.phone_number_list", phone_numbers::list)),
        )
        .at(
            "/agents/:id",
            get(op("elevenlabs.agent_get", agents::fetch))
                .patch(op("elevenlabs.agent_update", agents::update)),
        )
        .at(
            "/twilio/outbound-call",
            post(op("elevenlabs.outbound_call", calls::outbound_call)),
        )
        .at("/conversation/get-signed-url", get(signed_url()))
        .at("/conversation/get_signed_url", get(signed_url()))
        .at("/conversation", get(text_session::endpoint(shared.clone())))
}

/// Any key is good unless the options name the only one.
pub(crate) fn authorise(options: &Options, call: &Call) -> Result<(), Answer> {
    let Some(key) = call.header("xi-api-key").filter(|key| !key.is_empty()) else {
        return Err(errors::missing_api_key());
    };
    match &options.elevenlabs_api_key {
        Some(good) if first_secret(good) != key => Err(errors::invalid_api_key()),
        _ => Ok(()),
    }
}

pub(crate) fn truth_of_batches(world: &World) -> Vec<BatchTruth> {
    let all = world.elevenlabs.batches.iter();
    all.map(|batch| batch.truth(&world.elevenlabs.conversations))
        .collect()
}

pub(crate) fn truth_of_conversations(world: &World) -> Vec<ConversationTruth> {
    let all = world.elevenlabs.conversations.iter();
    all.map(|conversation| conversation.truth(&world.elevenlabs.batches))
        .collect()
}

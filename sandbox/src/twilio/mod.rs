//! Twilio: messages by SMS and WhatsApp, with their status callbacks, and the people who write back.
//!
//! What is known of the real API, and how surely, is in `providers/PROVIDERS.md` §3.

use std::{collections::HashMap, sync::Arc};

use base64::{Engine, engine::general_purpose::STANDARD};
use poem::{Endpoint, Response, Route, get, post};

use crate::{
    driver::Shared,
    http::{Answer, Call, Provider, Work, operation},
    options::{Options, first_secret},
    truth::MessageTruth,
    world::World,
};

pub(crate) mod create;
pub(crate) mod delivery;
pub(crate) mod errors;
pub(crate) mod incoming;
mod message;
mod read;
pub(crate) mod voice;

use message::Message;
pub(crate) use message::Status;

/// What Twilio knows.
#[derive(Default)]
pub(crate) struct State {
    messages: Vec<Message>,
    by_sid: HashMap<String, usize>,
    /// Numbers to which every message ends with a certain error.
    pub(crate) forced: HashMap<String, u32>,
}

impl State {
    fn add(&mut self, message: Message) -> usize {
        let at = self.messages.len();
        self.by_sid.insert(message.sid.clone(), at);
        self.messages.push(message);
        at
    }
}

/// The paths below `/2010-04-01/Accounts`.
pub(crate) fn routes(shared: &Arc<Shared>) -> impl Endpoint<Output = Response> + use<> {
    let op = |name: &'static str, work: Work| operation(shared, Provider::Twilio, name, work);
    Route::new()
        .at("/:account", get(op("twilio.account_get", read::account)))
        .at(
            "/:account/Messages.json",
            post(op("twilio.message_create", create::create))
                .get(op("twilio.message_list", read::list)),
        )
        .at(
            "/:account/Messages/:sid",
            get(op("twilio.message_get", read::fetch)),
        )
        .at(
            "/:account/Messages/:sid/Media/:media",
            get(op("twilio.media_get", read::media)),
        )
}

/// Basic authentication with the account's sid and token, and only for the account's own paths.
pub(crate) fn authorise(options: &Options, call: &Call) -> Result<(), Answer> {
    let sid = &options.twilio_account_sid;
    let token = first_secret(&options.twilio_auth_token);
    let expected = STANDARD.encode(format!("{sid}:{token}"));
    let given = call.header("authorization").unwrap_or_default();
    let own = call.param("account").trim_end_matches(".json") == sid;
    match given.split_once(' ') {
        Some((scheme, credentials))
            if scheme.eq_ignore_ascii_case("basic") && credentials == expected && own =>
        {
            Ok(())
        }
        _ => Err(errors::of_code(20003, call)),
    }
}

pub(crate) fn truth_of_messages(world: &World) -> Vec<MessageTruth> {
    world.twilio.messages.iter().map(Message::truth).collect()
}

/// Whether an address is one of WhatsApp's.
pub(crate) fn is_whatsapp(address: &str) -> bool {
    address.starts_with(WHATSAPP)
}

/// The number in an address of any channel.
pub(crate) fn number_of(address: &str) -> &str {
    address.strip_prefix(WHATSAPP).unwrap_or(address)
}

const WHATSAPP: &str = "whatsapp:";

/// The service's WhatsApp sender, with its prefix whether or not the option has it.
pub(crate) fn whatsapp_sender(options: &Options) -> String {
    format!("{WHATSAPP}{}", number_of(&options.twilio_whatsapp_from))
}

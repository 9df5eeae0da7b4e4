//! A person's message on its way to the service.

use serde_json::json;

use super::{
    is_whatsapp,
    message::{Message, Status},
    number_of,
};
use crate::{
    phones,
    webhooks::{self, Content, Letter, WebhookKind},
    world::World,
};

/// The service's path for them.
const PATH: &str = "/webhook/twilio/incoming";

/// Takes a person's message and posts it to the service.
pub(crate) fn receive(world: &mut World, from: String, to: String, letter: &phones::Letter) {
    let key = format!("incoming {from}");
    let name = format!("{key}/{}", world.nth(&key));
    let prefix = if letter.media.is_some() { "MM" } else { "SM" };
    let message = Message {
        sid: world.fate.draw("message sid", &name).twilio_sid(prefix),
        account_sid: world.options.twilio_account_sid.clone(),
        inbound: true,
        body: letter.body.clone(),
        media_types: letter.media.iter().cloned().collect(),
        content_sid: None,
        messaging_service_sid: None,
        status_callback: None,
        status: Status::Received,
        failure: None,
        created_unix_ms: world.clock.unix_ms(),
        updated_unix: world.clock.unix(),
        sent_unix: Some(world.clock.unix()),
        from,
        to,
        name,
    };
    let params = if is_whatsapp(&message.from) {
        whatsapp(world, &message, letter)
    } else {
        sms(&message)
    };
    let letter = Letter {
        kind: WebhookKind::TwilioIncoming,
        entity: number_of(&message.from).to_owned(),
        label: message.sid.clone(),
        url: format!("{}{PATH}", world.options.public_base()),
        content: Content::Form(params),
        delay_ms: 0,
    };
    world.twilio.add(message);
    webhooks::post(world, letter);
}

type Params = Vec<(String, String)>;

fn common(message: &Message) -> Params {
    owned(&[
        ("SmsMessageSid", &message.sid),
        ("NumMedia", &message.media_types.len().to_string()),
        ("SmsSid", &message.sid),
        ("SmsStatus", "received"),
        ("Body", &message.body),
        ("To", &message.to),
        ("NumSegments", &message.segments().to_string()),
        ("MessageSid", &message.sid),
        ("AccountSid", &message.account_sid),
        ("From", &message.from),
        ("ApiVersion", "2010-04-01"),
    ])
}

fn sms(message: &Message) -> Params {
    let mut params = common(message);
    params.extend(owned(&[
        ("ToCountry", "US"),
        ("ToState", "CA"),
        ("ToCity", ""),
        ("ToZip", ""),
        ("FromCountry", "CO"),
        ("FromState", ""),
        ("FromCity", ""),
        ("FromZip", ""),
    ]));
    params
}

fn whatsapp(world: &World, message: &Message, letter: &phones::Letter) -> Params {
    let wa_id = number_of(&message.from).trim_start_matches('+');
    let profile = letter.profile_name.as_deref().unwrap_or("Cliente");
    let mut params = common(message);
    let mut add = |more: &[(&str, &str)]| params.extend(owned(more));
    add(&[
        ("ProfileName", profile),
        ("WaId", wa_id),
        ("ReferralNumMedia", "0"),
    ]);
    if let Some(media_type) = &letter.media {
        let kind = media_type.split('/').next().unwrap_or("document");
        let base = &world.base_url;
        let url = format!(
            "{base}/2010-04-01/Accounts/{}/Messages/{}/Media/{}",
            message.account_sid,
            message.sid,
            world.fate.draw("media sid", &message.name).twilio_sid("ME"),
        );
        add(&[
            ("MessageType", kind),
            ("MediaContentType0", media_type),
            ("MediaUrl0", &url),
        ]);
    } else if let Some((latitude, longitude)) = &letter.location {
        add(&[
            ("MessageType", "location"),
            ("Latitude", &latitude.to_string()),
            ("Longitude", &longitude.to_string()),
        ]);
    } else if let Some(payload) = &letter.button_payload {
        add(&[
            ("MessageType", "interactive"),
            ("ButtonText", &message.body),
            ("ButtonPayload", payload),
        ]);
    } else {
        let metadata = json!({
            "type": "whatsapp",
            "data": {"context": {"ProfileName": profile, "WaId": wa_id}},
        });
        add(&[
            ("MessageType", "text"),
            ("ChannelMetadata", &metadata.to_string()),
        ]);
    }
    if let Some(sid) = &letter.reply_to_sid {
        add(&[
            ("OriginalRepliedMessageSid", sid),
            ("OriginalRepliedMessageSender", &message.to),
        ]);
    }
    params
}

fn owned(params: &[(&str, &str)]) -> Params {
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    params.iter().map(owned).collect()
}

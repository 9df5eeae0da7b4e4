//! `POST /2010-04-01/Accounts/{sid}/Messages.json`

use super::{
    delivery, errors, is_whatsapp,
    message::{Message, Status},
    number_of, whatsapp_sender,
};
use crate::{
    http::{Answer, Call, Reply},
    world::World,
};

/// The longest body. The provider's limit.
const BODY_CHARS_MAX: usize = 1_600;

/// Twilio's own magic numbers, and the error that each `To` or `From` stands for.
const MAGIC_TO: [(&str, u32); 5] = [
    ("+15005550001", 21211),
    ("+15005550002", 21612),
    ("+15005550003", 21408),
    ("+15005550004", 21610),
    ("+15005550009", 21614),
];
const MAGIC_FROM: [(&str, u32); 3] = [
    ("+15005550001", 21212),
    ("+15005550007", 21606),
    ("+15005550008", 21611),
];

/// What the client sent, read.
struct Order {
    to: String,
    from: Option<String>,
    messaging_service_sid: Option<String>,
    body: Option<String>,
    media: Vec<String>,
    content_sid: Option<String>,
    content_variables: Option<String>,
    status_callback: Option<String>,
}

impl Order {
    fn of(call: &Call) -> Self {
        let form: Vec<(String, String)> = form_urlencoded::parse(&call.body).into_owned().collect();
        let field = |name: &str| {
            let mut all = form.iter();
            let found = all.find(|(n, value)| n == name && !value.is_empty());
            found.map(|(_, value)| value.clone())
        };
        let media = form.iter().filter(|(name, _)| name == "MediaUrl");
        Self {
            to: field("To").unwrap_or_default(),
            from: field("From"),
            messaging_service_sid: field("MessagingServiceSid"),
            body: field("Body"),
            media: media.map(|(_, url)| url.clone()).collect(),
            content_sid: field("ContentSid"),
            content_variables: field("ContentVariables"),
            status_callback: field("StatusCallback"),
        }
    }
}

pub(super) fn create(world: &mut World, call: &Call) -> Reply {
    let order = Order::of(call);
    if let Some(code) = refusal(world, &order) {
        return Err(errors::of_code(code, call));
    }
    let whatsapp = is_whatsapp(&order.to);
    let key = format!("message {}", order.to);
    let name = format!("{key}/{}", world.nth(&key));
    let prefix = if order.media.is_empty() { "SM" } else { "MM" };
    let own = if whatsapp {
        whatsapp_sender(&world.options)
    } else {
        world.options.twilio_from_number.clone()
    };
    let rendered = order.content_variables.as_deref().unwrap_or_default();
    let message = Message {
        sid: world.fate.draw("message sid", &name).twilio_sid(prefix),
        account_sid: world.options.twilio_account_sid.clone(),
        inbound: false,
        from: order.from.unwrap_or(own),
        body: order.body.unwrap_or_else(|| rendered.to_owned()),
        media_types: vec!["image/png".to_owned(); order.media.len()],
        status: match order.messaging_service_sid {
            Some(_) => Status::Accepted,
            None => Status::Queued,
        },
        failure: None,
        content_sid: order.content_sid,
        messaging_service_sid: order.messaging_service_sid,
        status_callback: order.status_callback,
        created_unix_ms: world.clock.unix_ms(),
        updated_unix: world.clock.unix(),
        sent_unix: None,
        to: order.to,
        name,
    };
    let document = message.document();
    let at = world.twilio.add(message);
    delivery::begin(world, at);
    Ok(Answer::json(201, &document))
}

/// Why the request is refused, if it is: Twilio's code.
fn refusal(world: &World, order: &Order) -> Option<u32> {
    addresses(world, order)
        .or_else(|| content(order))
        .or_else(|| reputation(world, order))
}

fn addresses(world: &World, order: &Order) -> Option<u32> {
    if order.to.is_empty() {
        return Some(21604);
    }
    if !is_e164(number_of(&order.to)) {
        return Some(21211);
    }
    if order.messaging_service_sid.is_some() {
        return None;
    }
    let Some(from) = &order.from else {
        return Some(21603);
    };
    if is_whatsapp(from) != is_whatsapp(&order.to) {
        return Some(21910);
    }
    if is_whatsapp(from) {
        return (*from != whatsapp_sender(&world.options)).then_some(63007);
    }
    (!is_sender(from)).then_some(21212)
}

fn content(order: &Order) -> Option<u32> {
    if let Some(sid) = &order.content_sid {
        if !is_content_sid(sid) {
            return Some(21655);
        }
        let variables = order.content_variables.as_deref();
        let bad = |text: &str| {
            !serde_json::from_str::<serde_json::Value>(text).is_ok_and(|v| v.is_object())
        };
        if variables.is_some_and(bad) {
            return Some(21656);
        }
    } else if order.body.is_none() && order.media.is_empty() {
        return Some(21602);
    }
    let chars = order.body.as_deref().map_or(0, |body| body.chars().count());
    if chars > BODY_CHARS_MAX {
        return Some(21617);
    }
    if !order.media.iter().all(|url| is_url(url)) {
        return Some(21620);
    }
    let callback = order.status_callback.as_deref();
    callback.is_some_and(|url| !is_url(url)).then_some(21609)
}

/// What the numbers' owners or the operator of the sandbox have decided.
fn reputation(world: &World, order: &Order) -> Option<u32> {
    let to = number_of(&order.to);
    let magic = |table: &[(&str, u32)], number: &str| {
        let found = table.iter().find(|(known, _)| *known == number);
        found.map(|(_, code)| *code)
    };
    let forced = world.twilio.forced.get(to).copied();
    magic(&MAGIC_TO, to)
        .or_else(|| magic(&MAGIC_FROM, order.from.as_deref()?))
        .or(forced.filter(|code| errors::refuses(*code)))
        .or(world.phones.has_opted_out(to).then_some(21610))
}

fn is_e164(number: &str) -> bool {
    let digits = number.strip_prefix('+').unwrap_or_default();
    (8..=15).contains(&digits.len())
        && !digits.starts_with('0')
        && digits.bytes().all(|b| b.is_ascii_digit())
}

/// A number, a short code, or a name of up to eleven letters.
fn is_sender(from: &str) -> bool {
    let short = (3..=8).contains(&from.len()) && from.bytes().all(|b| b.is_ascii_digit());
    let named = from.len() <= 11
        && from.bytes().any(|b| b.is_ascii_alphabetic())
        && from.bytes().all(|b| b.is_ascii_alphanumeric() || b == b' ');
    is_e164(from) || short || named
}

fn is_content_sid(sid: &str) -> bool {
    let tail = sid.strip_prefix("HX").unwrap_or_default();
    tail.len() == 32 && tail.bytes().all(|b| b.is_ascii_hexdigit())
}

/// An absolute URL whose host has no underscore, which Twilio refuses.
fn is_url(url: &str) -> bool {
    let rest = url.strip_prefix("https://").or(url.strip_prefix("http://"));
    let host = rest.and_then(|r| r.split(['/', '?', '#']).next());
    host.is_some_and(|host| !host.is_empty() && !host.contains('_'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_senders_and_urls_are_what_twilio_takes_for_such() {
        assert!(is_e164("+573001234567"));
        for bad in [
            "573001234567",
            "+0573001234",
            "+57300",
            "+57abc00123456",
            "",
        ] {
            assert!(!is_e164(bad), "{bad}");
        }
        for good in ["+14155550100", "72345", "Bitacora"] {
            assert!(is_sender(good), "{good}");
        }
        assert!(!is_sender("a name too long"));
        assert!(is_url("https://cc.example.com/x") && is_url("http://127.0.0.1:3000/x?y=1"));
        assert!(!is_url("https://bad_host/x") && !is_url("ftp://x") && !is_url("/x"));
        assert!(is_content_sid(&format!("HX{}", "0".repeat(32))) && !is_content_sid("HX1"));
    }
}

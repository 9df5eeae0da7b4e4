//! What can be read of Twilio: messages, one or many, their media, the account.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::json;

use super::{errors, message::Message};
use crate::{
    http::{Answer, Call, Reply},
    stamps::{DAY_SECS, Moment, parse_moment},
    world::World,
};

/// The provider's page, and the most of one page.
const PAGE_DEFAULT: usize = 50;
const PAGE_MAX: usize = 1_000;

/// A picture of one white pixel.
const PIXEL: &str =
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGP4DwABAQEAsTj4fQAAAABJRU5ErkJggg==";

fn find<'a>(world: &'a World, call: &Call) -> Result<&'a Message, Answer> {
    let sid = call.param("sid").trim_end_matches(".json");
    let known = world.twilio.by_sid.get(sid);
    let known = known.and_then(|at| world.twilio.messages.get(*at));
    known.ok_or_else(|| errors::of_code(20404, call))
}

/// `GET …/Messages/{sid}.json`
pub(super) fn fetch(world: &mut World, call: &Call) -> Reply {
    Ok(Answer::json(200, &find(world, call)?.document()))
}

/// `GET …/Messages/{sid}/Media/{media}`
pub(super) fn media(world: &mut World, call: &Call) -> Reply {
    let message = find(world, call)?;
    if message.media_types.is_empty() {
        return Err(errors::of_code(20404, call));
    }
    Ok(Answer::bytes(
        "image/png",
        STANDARD.decode(PIXEL).unwrap_or_default(),
    ))
}

/// `GET /2010-04-01/Accounts/{sid}.json`
pub(super) fn account(world: &mut World, _: &Call) -> Reply {
    let sid = &world.options.twilio_account_sid;
    let account = json!({
        "sid": sid, "owner_account_sid": sid, "friendly_name": "Sandbox", "status": "active",
        "type": "Full", "uri": format!("/2010-04-01/Accounts/{sid}.json"),
    });
    Ok(Answer::json(200, &account))
}

/// `GET …/Messages.json`: newest first; `To`, `From` and `DateSent` (`=`, `<`, `>`, inclusive).
pub(super) fn list(world: &mut World, call: &Call) -> Reply {
    let size = call.query("PageSize").and_then(|n| n.parse().ok());
    let size = size.unwrap_or(PAGE_DEFAULT).clamp(1, PAGE_MAX);
    let page: usize = call.query("Page").and_then(|n| n.parse().ok()).unwrap_or(0);
    let wanted = Wanted::of(call)?;
    let mut found: Vec<_> = world
        .twilio
        .messages
        .iter()
        .rev()
        .filter(|message| wanted.has(message))
        .collect();
    if let Some(token) = call.query("PageToken") {
        let last = found.iter().position(|m| token_of(m) == token);
        let last = last.ok_or_else(|| errors::of_code(20001, call))?;
        found.drain(..=last);
    }
    let more = found.len() > size;
    found.truncate(size);
    let next = found.last().filter(|_| more).map(|last| {
        let token = token_of(last);
        page_uri(
            call,
            size,
            &[("Page", &(page + 1).to_string()), ("PageToken", &token)],
        )
    });
    let start = page * size;
    let documents: Vec<_> = found.iter().map(|message| message.document()).collect();
    let body = json!({
        "messages": documents,
        "first_page_uri": page_uri(call, size, &[("Page", "0")]),
        "next_page_uri": next,
        "previous_page_uri": null,
        "page": page,
        "page_size": size,
        "start": start,
        "end": (start + found.len()).saturating_sub(1),
        "uri": call.path_and_query,
    });
    Ok(Answer::json(200, &body))
}

fn token_of(message: &Message) -> String {
    format!("PA{}", message.sid)
}

/// The path of this list, with the same filters and another page.
fn page_uri(call: &Call, size: usize, more: &[(&str, &str)]) -> String {
    let path = call.path_and_query.split('?').next().unwrap_or_default();
    let kept = call
        .query
        .iter()
        .filter(|(name, _)| !matches!(name.as_str(), "Page" | "PageToken" | "PageSize"));
    let query = form_urlencoded::Serializer::new(String::new())
        .extend_pairs(kept)
        .append_pair("PageSize", &size.to_string())
        .extend_pairs(more)
        .finish();
    format!("{path}?{query}")
}

/// The filters of a list.
struct Wanted {
    to: Option<String>,
    from: Option<String>,
    not_before: u64,
    not_after: u64,
}

impl Wanted {
    fn of(call: &Call) -> Result<Self, Answer> {
        let text = |name| call.query(name).map(str::to_owned);
        let moment = |name: &str| match call.query(name) {
            None => Ok(None),
            Some(given) => parse_moment(given)
                .map(Some)
                .ok_or_else(|| errors::of_code(20001, call)),
        };
        let mut wanted = Self {
            to: text("To"),
            from: text("From"),
            not_before: 0,
            not_after: u64::MAX,
        };
        match moment("DateSent")? {
            Some(Moment::Day(t)) => (wanted.not_before, wanted.not_after) = (t, t + DAY_SECS - 1),
            Some(Moment::Second(t)) => (wanted.not_before, wanted.not_after) = (t, t),
            None => {}
        }
        if let Some(Moment::Day(t) | Moment::Second(t)) = moment("DateSent>")? {
            wanted.not_before = wanted.not_before.max(t);
        }
        if let Some(Moment::Day(t) | Moment::Second(t)) = moment("DateSent<")? {
            wanted.not_after = wanted.not_after.min(t);
        }
        Ok(wanted)
    }

    /// A message that is not sent yet counts by when it was made.
    fn has(&self, message: &Message) -> bool {
        let at = message.sent_unix.unwrap_or(message.created_unix_ms / 1000);
        self.to.as_ref().is_none_or(|to| *to == message.to)
            && self.from.as_ref().is_none_or(|from| *from == message.from)
            && (self.not_before..=self.not_after).contains(&at)
    }
}

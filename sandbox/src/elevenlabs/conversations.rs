//! What can be asked of conversations: the reconciler's feed.

use serde_json::json;

use super::{
    audio, document,
    errors::{self, Findings, Problem},
};
use crate::{
    http::{Answer, Call, Reply},
    world::World,
};

/// The provider's page, and the most of one page.
const PAGE_DEFAULT: usize = 30;
const PAGE_MAX: usize = 100;

fn find(world: &mut World, id: &str) -> Result<usize, Answer> {
    let request_id = world.request_id();
    let known = world.elevenlabs.conversation_by_id.get(id).copied();
    known.ok_or_else(|| errors::not_found("conversation", id, &request_id))
}

/// `GET /v1/convai/conversations/{id}`
pub(super) fn fetch(world: &mut World, call: &Call) -> Reply {
    let at = find(world, call.param("id"))?;
    let conversation = &world.elevenlabs.conversations[at];
    Ok(Answer::json(200, &document::detail(world, conversation)))
}

/// `GET /v1/convai/conversations/{id}/audio`
pub(super) fn audio(world: &mut World, call: &Call) -> Reply {
    let request_id = world.request_id();
    let at = find(world, call.param("id"))?;
    let conversation = &world.elevenlabs.conversations[at];
    if conversation.has_audio() {
        return Ok(Answer::bytes(
            "audio/mpeg",
            audio::recording(&conversation.id),
        ));
    }
    Err(Problem {
        status: 404,
        kind: "not_found",
        code: "conversation_audio_not_found",
        message: "The conversation has no audio.",
        param: None,
        request_id: &request_id,
    }
    .answer())
}

/// `GET /v1/convai/conversations`: newest first unless `sort_direction=asc`.
pub(super) fn list(world: &mut World, call: &Call) -> Reply {
    let page_size = page_size(call)?;
    let number = |name: &str| call.query(name).and_then(|n| n.parse::<u64>().ok());
    let (after, before) = (
        number("call_start_after_unix"),
        number("call_start_before_unix"),
    );
    let agent_id = call.query("agent_id").filter(|id| !id.is_empty());
    let text_only = call.query("text_only").map(|flag| flag == "true");
    let state = &world.elevenlabs;
    let mut found: Vec<_> = state
        .conversations
        .iter()
        .enumerate()
        .filter(|(_, c)| {
            agent_id.is_none_or(|id| c.agent_id == id)
                && after.is_none_or(|t| c.start_unix >= t)
                && before.is_none_or(|t| c.start_unix <= t)
                && text_only.is_none_or(|flag| flag == c.call().is_none())
        })
        .collect();
    found.sort_by_key(|(at, c)| (c.start_unix, *at));
    if call.query("sort_direction") != Some("asc") {
        found.reverse();
    }
    if let Some(cursor) = call.query("cursor").filter(|c| !c.is_empty()) {
        let last = found.iter().position(|(_, c)| c.id == cursor);
        let last = last.ok_or_else(bad_cursor)?;
        found.drain(..=last);
    }
    let has_more = found.len() > page_size;
    found.truncate(page_size);
    let next_cursor = found.last().filter(|_| has_more).map(|(_, c)| &c.id);
    let summaries: Vec<_> = found
        .iter()
        .map(|(_, c)| document::summary(world, c))
        .collect();
    let page = json!({
        "conversations": summaries, "next_cursor": next_cursor, "has_more": has_more
    });
    Ok(Answer::json(200, &page))
}

fn page_size(call: &Call) -> Result<usize, Answer> {
    let Some(given) = call.query("page_size") else {
        return Ok(PAGE_DEFAULT);
    };
    let mut findings = Findings::default();
    let loc = json!(["query", "page_size"]);
    match given.parse::<usize>() {
        Ok(size @ 1..=PAGE_MAX) => return Ok(size),
        Ok(0) => findings.add(
            loc,
            "Input should be greater than or equal to 1",
            "greater_than_equal",
        ),
        Ok(_) => findings.add(
            loc,
            "Input should be less than or equal to 100",
            "less_than_equal",
        ),
        Err(_) => findings.add(
            loc,
            "Input should be a valid integer, unable to parse string as an integer",
            "int_parsing",
        ),
    }
    findings.verdict().map(|()| PAGE_DEFAULT)
}

fn bad_cursor() -> Answer {
    let mut findings = Findings::default();
    findings.add(json!(["query", "cursor"]), "Invalid cursor", "value_error");
    match findings.verdict() {
        Err(answer) => answer,
        Ok(()) => Answer::empty(422),
    }
}

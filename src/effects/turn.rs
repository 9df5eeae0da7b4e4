//! Asking the agent for its answer to what a client wrote.

use std::collections::HashSet;
use std::time::Duration;

use domain::conversation;
use domain::effect::{Answered, Part, Remedy, part_id, turn_of_part};
use domain::{Channel, Direction};
use projections::conversations::{self, Context, Message, MessageStatus};
use projections::effects::{self, Effect, Request};
use projections::interactions;
use serde_json::{Map, Value};

use super::attempt::Worker;
use super::outcome::{Failure, Outcome};
use super::sessions::Kept;
use crate::config::TextMode;
use crate::providers::elevenlabs::client::text::{Opening, TurnError};
use crate::providers::http;

/// How long to wait until the conversation can be read up to the message.
const READABLE_WITHIN: Duration = Duration::from_secs(5);
/// The newest messages of a conversation that a new session is told of.
const HISTORY_MESSAGES: i64 = 60;
/// Most characters of one message in what a session is told.
const HISTORY_CHARS_MAX: usize = 1_000;

/// What was written and what the agent must know to answer.
struct Question<'a> {
    effect: &'a Effect,
    said: &'a str,
    agent_id: String,
    context: Option<Context>,
}

/// Asks for the answer of a turn.
///
/// # Errors
/// When the database does not answer.
pub(super) async fn ask(
    worker: &Worker<'_>,
    effect: &Effect,
    attempt: u32,
) -> anyhow::Result<Outcome> {
    let Request::Turn { said, .. } = &effect.request else {
        let failure = Failure::ours(Remedy::DeadLetter, "there is nothing to answer");
        return Ok(Outcome::Failed(failure));
    };
    let context = read_context(worker, effect).await?;
    let Some(agent_id) = agent(worker, effect, context.as_ref()).await? else {
        let words =
            "no agent is known for this client: no call was made, and WHATSAPP_AGENT_ID is not set";
        return Ok(Outcome::Failed(Failure::ours(Remedy::DeadLetter, words)));
    };
    let question = Question {
        effect,
        said,
        agent_id,
        context,
    };
    let answer = match (worker.app.config.text_mode, question.call()) {
        (TextMode::Websocket, _) => in_session(worker, &question).await,
        (TextMode::Http, Some(call)) => by_http(worker, call, question.said).await,
        (TextMode::Http, None) => {
            let words =
                "no call with this client is known, and ELEVENLABS_TEXT_MODE=http goes on with one";
            return Ok(Outcome::Failed(Failure::ours(Remedy::DeadLetter, words)));
        }
    };
    Ok(match answer {
        Ok((answer, session_id)) => question.answered(attempt, &answer, session_id),
        Err(error) => Outcome::Failed(failed(&error)),
    })
}

/// By the provider's text-only session: the one that is open, or a new one
/// that is told what came before.
async fn in_session(
    worker: &Worker<'_>,
    question: &Question<'_>,
) -> Result<(String, Option<String>), TurnError> {
    let lane = &question.effect.lane;
    let mut kept = match worker.sessions.take(lane, &question.agent_id) {
        Some(mut kept) => {
            let missed = question.missed(&kept);
            if !missed.is_empty() {
                let words = format!("Mientras tanto, en la conversación:\n{missed}");
                kept.session.tell(&words).await?;
            }
            kept
        }
        None => open(worker, question).await?,
    };
    let answer = kept.session.ask(question.said).await?;
    let session_id = kept.session.conversation_id().to_owned();
    kept.known = question.effect.ord;
    kept.turns.insert(question.effect.id.clone());
    worker.sessions.keep(lane, kept);
    Ok((answer, Some(session_id)))
}

async fn open(worker: &Worker<'_>, question: &Question<'_>) -> Result<Kept, TurnError> {
    let opening = Opening {
        agent_id: question.agent_id.clone(),
        user_id: question.effect.lane.clone(),
        dynamic_variables: question.variables(),
        context: question.history(),
    };
    let client = &worker.app.elevenlabs;
    let timing = worker.policy().timing;
    let mut opened = client.open_text_session_within(&opening, timing).await;
    if let Err(TurnError::Http(http::Error::RateLimited { .. })) = opened {
        // It may be our own unused sessions that take the room.
        worker.sessions.let_go();
        opened = client.open_text_session_within(&opening, timing).await;
    }
    Ok(Kept {
        session: opened?,
        agent_id: question.agent_id.clone(),
        known: question.effect.ord,
        turns: HashSet::new(),
    })
}

/// By the call of the replaced system, which the provider does not offer
/// today (PROVIDERS.md, section 2.5).
async fn by_http(
    worker: &Worker<'_>,
    call: &str,
    said: &str,
) -> Result<(String, Option<String>), TurnError> {
    let answer = worker.app.elevenlabs.message(call, said).await?;
    Ok((answer, Some(call.to_owned())))
}

async fn read_context(worker: &Worker<'_>, effect: &Effect) -> anyhow::Result<Option<Context>> {
    let app = worker.app;
    let names = ["conversations"];
    app.engine
        .wait_for(&names, effect.ord, READABLE_WITHIN)
        .await?;
    let mut conn = app.pool.acquire().await?;
    let context = conversations::context(&mut conn, &effect.lane, HISTORY_MESSAGES).await?;
    let Some(mut context) = context else {
        return Ok(None);
    };
    // The report of a call comes when it has been analysed, often after we
    // first wrote.
    let conversation = &mut context.conversation;
    if let (None, Some(call)) = (
        &conversation.call_summary,
        &conversation.elevenlabs_conversation_id,
    ) {
        let call = interactions::get(&mut conn, call).await?;
        conversation.call_summary = call.and_then(|call| call.summary);
    }
    Ok(Some(context))
}

/// Who answers: the agent of the call that goes on, else of the last call with
/// this client, else the one that is set for everybody.
async fn agent(
    worker: &Worker<'_>,
    effect: &Effect,
    context: Option<&Context>,
) -> anyhow::Result<Option<String>> {
    let app = worker.app;
    let mut conn = app.pool.acquire().await?;
    let lane = effects::lane(&mut conn, &effect.lane).await?;
    let known = lane.and_then(|lane| lane.agent_id);
    let known = known.or_else(|| context?.conversation.agent_id.clone());
    if known.is_some() {
        return Ok(known);
    }
    let calls = interactions::Filter {
        channel: Some(Channel::Call),
        phone_key: Some(app.phone_index.key(effect.request.contact())),
        ..interactions::Filter::default()
    };
    let last = interactions::list(&mut conn, &calls, None, 1).await?;
    let of_call = last.into_iter().find_map(|call| call.agent_id);
    Ok(of_call.or_else(|| app.config.default_agent_id.clone()))
}

impl Question<'_> {
    /// The provider's id of the call that goes on.
    fn call(&self) -> Option<&str> {
        let conversation = &self.context.as_ref()?.conversation;
        conversation.elevenlabs_conversation_id.as_deref()
    }

    /// What the agent's prompt may use.
    fn variables(&self) -> Map<String, Value> {
        let Some(context) = &self.context else {
            return Map::new();
        };
        let conversation = &context.conversation;
        let known = [
            ("client_name", &conversation.client_name),
            ("call_summary", &conversation.call_summary),
        ];
        let known = known.into_iter();
        let known = known.filter_map(|(name, text)| Some((name.to_owned(), text.clone()?.into())));
        known.collect()
    }

    /// What a new session is told: the call, and the chat so far.
    fn history(&self) -> Option<String> {
        let context = self.context.as_ref()?;
        let call = context.conversation.call_summary.as_ref();
        let call = call.map(|summary| format!("Resumen de la llamada anterior: {summary}"));
        let chat = chat(self.before());
        let chat = (!chat.is_empty())
            .then(|| format!("La conversación por WhatsApp hasta ahora:\n{chat}"));
        let parts: Vec<_> = call.into_iter().chain(chat).collect();
        (!parts.is_empty()).then(|| parts.join("\n\n"))
    }

    /// What a session has not heard: what others wrote, and what it was not
    /// asked to answer.
    fn missed(&self, kept: &Kept) -> String {
        let own = |message: &Message| {
            turn_of_part(&message.id).is_some_and(|turn| kept.turns.contains(turn))
        };
        chat(
            self.before()
                .filter(|message| message.position > kept.known && !own(message)),
        )
    }

    fn before(&self) -> impl Iterator<Item = &Message> {
        let messages = self.context.iter().flat_map(|context| &context.messages);
        // What did not reach the client was not said.
        let said = |message: &&Message| {
            !matches!(
                message.status,
                MessageStatus::Dropped | MessageStatus::Failed | MessageStatus::Undelivered
            )
        };
        messages
            .filter(|message| message.position < self.effect.ord)
            .filter(said)
    }

    fn answered(&self, attempt: u32, answer: &str, session_id: Option<String>) -> Outcome {
        let parts = conversation::parts(answer);
        if parts.is_empty() {
            let words = "the agent answered without a word";
            return Outcome::Failed(Failure::ours(Remedy::Retry, words));
        }
        let parts = parts.into_iter().zip(1..).map(|(content, part)| Part {
            effect_id: part_id(&self.effect.id, part),
            content,
        });
        Outcome::Answered(Box::new(Answered {
            attempt,
            agent_id: self.agent_id.clone(),
            session_id,
            parts: parts.collect(),
        }))
    }
}

/// Messages as lines of a chat.
fn chat<'a>(messages: impl Iterator<Item = &'a Message>) -> String {
    let lines = messages.map(|message| {
        let who = match (message.direction, message.author.as_str()) {
            (Direction::Inbound, _) => "Cliente",
            (Direction::Outbound, "agent" | "first") => "Agente",
            (Direction::Outbound, _) => "Asesor",
        };
        let words: String = message.content.chars().take(HISTORY_CHARS_MAX).collect();
        let words = words.split_whitespace().collect::<Vec<_>>().join(" ");
        match words.is_empty() {
            true => format!("{who}: [{}]", message.kind),
            false => format!("{who}: {words}"),
        }
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn failed(error: &TurnError) -> Failure {
    let remedy = match error.is_passing() {
        true => Remedy::Retry,
        false => Remedy::DeadLetter,
    };
    Failure {
        retry_after: error.retry_after(),
        ..Failure::ours(remedy, &error.reason())
    }
}

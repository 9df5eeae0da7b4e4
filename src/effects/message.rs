//! Sending one message, and finding one that may have gone out.

use chrono::{DateTime, Duration, Utc};
use domain::conversation::Template;
use domain::effect::{Remedy, Sent};
use domain::{Channel, PhoneNumber, Provider, StreamId};
use projections::effects::{self, Effect, Request};

use super::attempt::Worker;
use super::outcome::{Failure, Outcome};
use crate::conversations::template;
use crate::ledger::events;
use crate::otp::Otp;
use crate::providers::http;
use crate::providers::twilio::client::{Accepted, Content, Outgoing};

/// How far the provider's clock may be behind ours.
const CLOCK_SKEW: Duration = Duration::seconds(30);

/// A message as it is to be sent.
struct Letter {
    channel: Channel,
    provider: Provider,
    contact: String,
    /// What goes out.
    words: String,
    /// What the ledger keeps: the words, without any code.
    kept: String,
    template: Option<Template>,
    interaction_id: String,
}

/// Sends the message of an effect. `at` is when the attempt was recorded.
///
/// # Errors
/// When the database does not answer.
pub(super) async fn send(
    worker: &Worker<'_>,
    effect: &Effect,
    attempt: u32,
    at: DateTime<Utc>,
) -> anyhow::Result<Outcome> {
    let Some(letter) = letter(worker, effect).await? else {
        let failure = Failure::ours(Remedy::DeadLetter, "there is no message to send");
        return Ok(Outcome::Failed(failure));
    };
    let error = match deliver(worker, &letter).await {
        Ok(accepted) => return Ok(Outcome::Sent(letter.sent(attempt, false, accepted))),
        Err(error) => error,
    };
    if !error.may_have_happened() {
        return Ok(Outcome::Failed(letter.failure(&error)));
    }
    // A provider that answered is done with the request: what its list does
    // not show now will not come.
    if error.status().is_some() && letter.provider == Provider::Twilio {
        match find(worker, effect, &letter, at).await {
            Ok(Some(accepted)) => {
                return Ok(Outcome::Sent(letter.sent(attempt, true, Some(accepted))));
            }
            Ok(None) => return Ok(Outcome::Failed(letter.failure(&error))),
            Err(_) => {}
        }
    }
    Ok(Outcome::Uncertain(error.to_string()))
}

/// The message of an effect's last attempt, if it went out after all.
///
/// # Errors
/// When the provider or the database does not answer.
pub(super) async fn look_up(
    worker: &Worker<'_>,
    effect: &Effect,
) -> anyhow::Result<Option<Box<Sent>>> {
    let (Some(letter), Some(at)) = (letter(worker, effect).await?, effect.attempted_at) else {
        return Ok(None);
    };
    let attempt = effect.attempts.cast_unsigned();
    if letter.provider == Provider::Builderbot {
        // It has no list; but its own webhook tells of what it sent.
        let (pool, opener) = (&worker.app.pool, &worker.app.opener);
        let chat = &letter.interaction_id;
        let told = events::was_mirrored(pool, opener, &effect.id, chat, &letter.words);
        return Ok(told.await?.then(|| letter.sent(attempt, true, None)));
    }
    let found = find(worker, effect, &letter, at).await?;
    Ok(found.map(|accepted| letter.sent(attempt, true, Some(accepted))))
}

async fn deliver(worker: &Worker<'_>, letter: &Letter) -> Result<Option<Accepted>, http::Error> {
    let app = worker.app;
    if letter.provider == Provider::Builderbot {
        let number = PhoneNumber::parse(&letter.contact)
            .map_err(|_| http::Error::NotSent("the number is none"))?;
        return app
            .builderbot
            .send(&number, &letter.words)
            .await
            .map(|()| None);
    }
    app.twilio.send(&letter.outgoing()).await.map(Some)
}

/// The provider's message that is like this one and nobody's yet.
async fn find(
    worker: &Worker<'_>,
    effect: &Effect,
    letter: &Letter,
    at: DateTime<Utc>,
) -> anyhow::Result<Option<Accepted>> {
    let app = worker.app;
    let found = app
        .twilio
        .find_sent(&letter.outgoing(), at - CLOCK_SKEW)
        .await?;
    if found.is_empty() {
        return Ok(None);
    }
    let ids: Vec<_> = found.iter().map(|it| it.message_id.clone()).collect();
    let mut conn = app.pool.acquire().await?;
    let known = effects::known_messages(&mut conn, &ids).await?;
    tracing::debug!(
        effect = effect.id,
        found = ids.len(),
        known = known.len(),
        "looked a message up"
    );
    Ok(found.into_iter().find(|it| !known.contains(&it.message_id)))
}

async fn letter(worker: &Worker<'_>, effect: &Effect) -> anyhow::Result<Option<Letter>> {
    let app = worker.app;
    let chat =
        |provider, contact: &str| StreamId::chat(provider, contact, &app.phone_index).aggregate_id;
    Ok(match &effect.request {
        Request::Turn { .. } => None,
        Request::Code {
            contact,
            challenge_id,
        } => Some(Letter {
            channel: Channel::Sms,
            provider: Provider::Twilio,
            contact: contact.clone(),
            words: Otp::text(&app.otp.code(challenge_id)),
            kept: Otp::masked_text(),
            template: None,
            interaction_id: challenge_id.clone(),
        }),
        Request::Message {
            contact,
            provider,
            channel,
            content,
            template,
        } => Some(Letter {
            channel: *channel,
            provider: *provider,
            contact: contact.clone(),
            words: content.clone(),
            kept: content.clone(),
            template: match template {
                None if effect.as_template => fallback(worker, effect).await?,
                template => template.clone(),
            },
            interaction_id: chat(*provider, contact),
        }),
    })
}

/// The template that goes where words were refused.
async fn fallback(worker: &Worker<'_>, effect: &Effect) -> anyhow::Result<Option<Template>> {
    let Some(content_sid) = worker.app.config.first_content_sid.clone() else {
        return Ok(None);
    };
    let mut conn = worker.app.pool.acquire().await?;
    let context = projections::conversations::context(&mut conn, &effect.lane, 0).await?;
    let name = context.and_then(|context| context.conversation.client_name);
    Ok(Some(template(content_sid, name.as_deref())))
}

impl Letter {
    fn outgoing(&self) -> Outgoing<'_> {
        Outgoing {
            channel: self.channel,
            to: &self.contact,
            content: match &self.template {
                Some(template) => Content::Template {
                    content_sid: &template.content_sid,
                    variables: &template.variables,
                },
                None => Content::Text(&self.words),
            },
        }
    }

    /// Why it was not sent. A provider's words may repeat ours, and of ours a
    /// code must not be kept.
    fn failure(&self, error: &http::Error) -> Failure {
        let failure = Failure::of(error);
        match self.words == self.kept {
            true => failure,
            false => Failure {
                message: error.to_string(),
                ..failure
            },
        }
    }

    fn sent(&self, attempt: u32, adopted: bool, accepted: Option<Accepted>) -> Box<Sent> {
        let (message_id, our_address) = match accepted {
            Some(accepted) => (Some(accepted.message_id), Some(accepted.our_address)),
            None => (None, None),
        };
        Box::new(Sent {
            attempt,
            adopted,
            provider: self.provider,
            channel: self.channel,
            message_id,
            interaction_id: self.interaction_id.clone(),
            contact: self.contact.clone(),
            our_address,
            content: self.kept.clone(),
            content_sid: self.template.as_ref().map(|it| it.content_sid.clone()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::providers::http::Refusal;

    #[test]
    fn a_providers_words_are_kept_unless_they_may_repeat_a_code() {
        let refusal = Refusal {
            status: 400,
            code: "21617".into(),
            message: "The message body 'Su código es 123456' is bad".into(),
            body: serde_json::Value::Null,
        };
        let error = http::Error::Refused(refusal);
        let letter = |kept: &str| Letter {
            channel: Channel::Sms,
            provider: Provider::Twilio,
            contact: "+573001234567".into(),
            words: "Su código es 123456".into(),
            kept: kept.into(),
            template: None,
            interaction_id: "otp_1".into(),
        };
        let told = letter("Su código es 123456").failure(&error);
        assert!(told.message.contains("123456"));
        let hidden = letter("Su código es ******").failure(&error);
        assert!(!hidden.message.contains("123456"), "{}", hidden.message);
        assert_eq!(hidden.code.as_deref(), Some("21617"));
    }
}

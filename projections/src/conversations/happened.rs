//! What became of our effects, and so of our messages.

use domain::Provider;
use domain::effect::{Answered, Event, Remedy, Sent, Standing, turn_position};
use domain::event::Recorded;
use serde_json::json;

use super::fold::{AGENT, Tables, ours};
use super::message::Message;
use super::progress::Told;
use crate::text;

impl Tables {
    pub(super) fn happened(&mut self, id: &str, recorded: &Recorded, event: &Event) {
        if let Event::Answered(answered) = event {
            return self.answered(id, recorded, answered);
        }
        let Some(row) = self.messages.now.get_mut(id) else {
            // A turn, or a text message that is none of a conversation.
            return;
        };
        let standing = match event {
            Event::Attempted(_) => Standing::Attempted,
            Event::Uncertain(_) => Standing::Uncertain,
            Event::Retried(_) => Standing::Waiting,
            Event::Sent(sent) => return self.sent(id, recorded, sent),
            Event::Failed(failed) => {
                let (code, words) = (failed.code.as_ref(), Some(&failed.message));
                row.refused(code, words, failed.remedy);
                return self.refused(id, failed.remedy);
            }
            Event::Bounced(bounced) => {
                row.refused(bounced.code.as_ref(), None, bounced.remedy);
                return self.refused(id, bounced.remedy);
            }
            Event::Duplicated(duplicated) => {
                let second = Some(duplicated.message_id.clone());
                row.metadata.duplicate_message_id = second;
                return;
            }
            Event::Dropped(dropped) => return row.drop_for(&dropped.reason),
            Event::Answered(_) => return,
        };
        if let Some(told) = &mut row.told {
            told.standing = standing;
        }
        if standing == Standing::Waiting {
            let conversation = row.conversation_id.clone();
            self.drop_silenced(&conversation);
        }
    }

    /// The provider took it.
    fn sent(&mut self, id: &str, recorded: &Recorded, sent: &Sent) {
        let Some(row) = self.messages.now.get_mut(id) else {
            return;
        };
        let Some(told) = &mut row.told else {
            return;
        };
        told.standing = Standing::Done;
        told.sent_at = Some(recorded.occurred_at);
        told.error = None;
        row.provider = Some(sent.provider);
        let message_id = sent
            .message_id
            .as_deref()
            .map(|id| text::key(id).into_owned());
        match sent.provider {
            Provider::Twilio => row.twilio_message_id = message_id,
            _ => row.metadata.provider_message_id = message_id,
        }
        if !sent.content.is_empty() {
            row.content.clone_from(&sent.content);
        }
        row.metadata.content_sid.clone_from(&sent.content_sid);
        let conversation = row.conversation_id.clone();
        if let Some(row) = self.conversations.now.get_mut(&conversation) {
            row.last_message_at = row.last_message_at.max(recorded.occurred_at);
        }
    }

    /// Who was silenced while it was under way is not tried again.
    fn refused(&mut self, id: &str, remedy: Remedy) {
        let Some(row) = self.messages.now.get(id) else {
            return;
        };
        let conversation = row.conversation_id.clone();
        match remedy {
            Remedy::OptOut => self.opt_out(&conversation),
            _ => self.drop_silenced(&conversation),
        }
    }

    /// The agent answered: each part is a message of ours.
    fn answered(&mut self, turn_id: &str, recorded: &Recorded, answered: &Answered) {
        let asked = turn_position(turn_id).and_then(|position| self.asked.get(&position));
        let Some(asked) = asked.and_then(|id| self.messages.now.get(id)).cloned() else {
            return;
        };
        if let Some(row) = self.conversations.now.get_mut(&asked.conversation_id) {
            let key = |id: &str| text::key(id).into_owned();
            row.agent_id.get_or_insert_with(|| key(&answered.agent_id));
            if let Some(session) = &answered.session_id {
                row.metadata.text_session_id = Some(key(session));
            }
        }
        for (part, number) in answered.parts.iter().zip(1..) {
            let place = (recorded.occurred_at, recorded.position, number);
            let conversation = &asked.conversation_id;
            let message = ours(&part.effect_id, conversation, AGENT, &part.content, place);
            self.owe(Message {
                provider: asked.provider,
                in_reply_to: Some(asked.id.clone()),
                elevenlabs_response: Some(json!({
                    "turn_id": turn_id,
                    "agent_id": answered.agent_id,
                    "conversation_id": answered.session_id,
                    "part": number,
                    "parts": answered.parts.len(),
                })),
                told: Some(Told {
                    asked_at: Some(asked.created_at),
                    ..Told::owed()
                }),
                ..message
            });
        }
    }
}

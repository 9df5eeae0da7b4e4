//! A conversation: a telephone call, or a text session.

use serde_json::Value;

use super::batches::Batch;
use crate::{outcome::CallFate, script::Turn, truth::ConversationTruth};

/// Where a conversation stands, in the provider's words (mind the hyphen).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    Initiated,
    InProgress,
    Processing,
    Done,
    Failed,
}

impl Status {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Initiated => "initiated",
            Self::InProgress => "in-progress",
            Self::Processing => "processing",
            Self::Done => "done",
            Self::Failed => "failed",
        }
    }

    /// Whether it is over, analysed or not.
    pub(super) fn is_over(self) -> bool {
        matches!(self, Self::Processing | Self::Done | Self::Failed)
    }
}

/// A conversation.
pub(super) struct Conversation {
    /// Its name for fate.
    pub(super) name: String,
    pub(super) id: String,
    pub(super) agent_id: String,
    pub(super) version_id: Value,
    pub(super) status: Status,
    pub(super) start_unix: u64,
    pub(super) accepted_unix: Option<u64>,
    pub(super) duration_secs: u64,
    pub(super) termination_reason: String,
    pub(super) user_id: Value,
    pub(super) dynamic_variables: Value,
    pub(super) config_override: Value,
    pub(super) medium: Medium,
}

/// What it was held over.
pub(super) enum Medium {
    Call(Box<CallLeg>),
    Text(TextLeg),
}

/// The telephone side of a call.
pub(super) struct CallLeg {
    pub(super) fate: CallFate,
    /// The batch and the recipient in it.
    pub(super) batch: Option<(usize, usize)>,
    pub(super) phone_number: String,
    pub(super) agent_number: String,
    pub(super) phone_number_id: String,
    pub(super) sip_trunk: bool,
    pub(super) call_sid: String,
    pub(super) stream_sid: String,
    /// Orders Twilio's voice callbacks.
    pub(super) sequence: u32,
}

/// The written side of a text session.
#[derive(Default)]
pub(super) struct TextLeg {
    pub(super) turns: Vec<Turn>,
    pub(super) context: Vec<String>,
    pub(super) source: Option<String>,
    pub(super) source_version: Option<String>,
    pub(super) signed: bool,
}

impl Conversation {
    pub(super) fn call(&self) -> Option<&CallLeg> {
        match &self.medium {
            Medium::Call(call) => Some(call),
            Medium::Text(_) => None,
        }
    }

    pub(super) fn text(&self) -> Option<&TextLeg> {
        match &self.medium {
            Medium::Text(text) => Some(text),
            Medium::Call(_) => None,
        }
    }

    pub(super) fn text_mut(&mut self) -> Option<&mut TextLeg> {
        match &mut self.medium {
            Medium::Text(text) => Some(text),
            Medium::Call(_) => None,
        }
    }

    /// A recording exists of answered calls only.
    pub(super) fn has_audio(&self) -> bool {
        self.status == Status::Done && self.call().is_some_and(|c| c.fate.outcome.connects())
    }

    pub(super) fn truth(&self, batches: &[Batch]) -> ConversationTruth {
        let call = self.call();
        let batch = call
            .and_then(|c| c.batch)
            .and_then(|(batch, recipient)| {
                let batch = batches.get(batch)?;
                Some((
                    batch.id.clone(),
                    batch.recipients.get(recipient)?.id.clone(),
                ))
            })
            .unzip();
        let said = |by_agent: bool| {
            let turns = self.text().map_or(&[][..], |text| &text.turns);
            let said = turns.iter().filter(|turn| turn.by_agent == by_agent);
            said.map(|turn| turn.text.clone()).collect()
        };
        ConversationTruth {
            id: self.id.clone(),
            agent_id: self.agent_id.clone(),
            status: self.status.as_str().to_owned(),
            batch_id: batch.0,
            recipient_id: batch.1,
            phone_number: call.map(|c| c.phone_number.clone()),
            call_sid: call.map(|c| c.call_sid.clone()),
            outcome: call.map(|c| c.fate.outcome),
            text_only: call.is_none(),
            start_unix: self.start_unix,
            duration_secs: self.duration_secs,
            user_messages: said(false),
            agent_messages: said(true),
            context: self.text().map(|t| t.context.clone()).unwrap_or_default(),
        }
    }
}

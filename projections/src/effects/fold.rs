//! The policy: what follows from the ledger for what we owe. Pure; it knows no
//! database and no setting, so that the same ledger always owes the same.

use std::collections::BTreeMap;

use chrono::{DateTime, Duration, Utc};
use domain::conversation::{self, Consent, Event as Decision, Started, Status, said};
use domain::effect::{self, Answered, Event as Outcome, Kind, Remedy};
use domain::event::Recorded;
use domain::message::{self, Received, StatusChanged};
use domain::sealed::is_erased;
use domain::{Channel, Event, PhoneIndex, Provider, otp};

use super::row::{Author, Callback, Effect, Lane, Request, State};
use crate::rows::Rows;

/// For how long a message is worth sending, and a client's message worth
/// answering: WhatsApp lets us write freely for so long after it.
const WORTH_HOURS: i64 = 24;

/// The rows that some events touch.
#[derive(Default)]
pub(super) struct Tables {
    pub(super) effects: Rows<String, Effect>,
    pub(super) lanes: Rows<String, Lane>,
    pub(super) callbacks: Rows<String, Callback>,
    /// The effect that sent a message.
    pub(super) senders: BTreeMap<String, String>,
}

impl Tables {
    /// What an event does to the rows. Events must come in their order.
    pub(super) fn fold(&mut self, recorded: &Recorded, phones: &PhoneIndex) {
        let id = &recorded.aggregate_id;
        match &recorded.event {
            Event::Message(message::Event::Received(received)) => {
                if let Some(lane) = conversation::of(received.channel, &received.contact, phones) {
                    self.received(lane, recorded, received);
                }
            }
            Event::Message(message::Event::StatusChanged(change)) => self.status(recorded, change),
            Event::Conversation(event) => self.decided(id, recorded, event),
            Event::Effect(event) => self.happened(id, recorded, event),
            Event::Otp(otp::Event::Requested(requested)) => self.asked_for(recorded, requested),
            Event::Otp(otp::Event::Verified(_)) => self.given_back(recorded),
            _ => {}
        }
    }

    fn received(&mut self, lane: String, recorded: &Recorded, received: &Received) {
        let provider = recorded.provider.unwrap_or(Provider::Twilio);
        let row = self.lane(&lane);
        row.status = row.status.after_message();
        row.provider = Some(provider);
        let consent = Consent::read(&received.content);
        let was_out = row.opted_out;
        row.opted_out = match consent {
            Some(consent) => consent == Consent::Out,
            None => was_out,
        };
        // START ends an opt-out; from anybody else it is a word like others.
        let is_owed = consent != Some(Consent::Out) && !was_out && row.status == Status::Active;
        if consent == Some(Consent::Out) {
            self.drop_silenced(&lane, recorded.recorded_at);
        }
        let Some(said) = said(received).filter(|_| is_owed) else {
            return;
        };
        let contact = received.contact.clone();
        let turn = Request::Turn {
            contact,
            provider,
            said,
        };
        let id = effect::turn_id(recorded.position);
        let place = (recorded.position, 0);
        self.owe(recorded, id, &lane, place, Author::Agent, turn);
    }

    fn decided(&mut self, lane: &str, recorded: &Recorded, event: &Decision) {
        let row = self.lane(lane);
        row.status = row.status.after(event);
        match event {
            Decision::Started(started) => {
                row.agent_id = Some(started.call.agent_id.clone());
                let request = first_message(started);
                let id = started.message.effect_id.clone();
                let place = (recorded.position, 0);
                self.owe(recorded, id, lane, place, Author::System, request);
            }
            Decision::MessageWritten(written) => {
                let request = Request::Message {
                    contact: written.phone_number.as_str().to_owned(),
                    provider: row.provider.unwrap_or(Provider::Twilio),
                    channel: Channel::Whatsapp,
                    content: written.content.clone(),
                    template: None,
                };
                let id = written.effect_id.clone();
                let place = (recorded.position, 0);
                self.owe(recorded, id, lane, place, Author::Person, request);
            }
            Decision::Escalated(_) | Decision::Closed(_) => {
                self.drop_silenced(lane, recorded.recorded_at);
            }
            Decision::Resumed(_) => {}
        }
    }

    /// A one-time code: in a lane of its own, for as long as it is good.
    fn asked_for(&mut self, recorded: &Recorded, requested: &otp::Requested) {
        let id = effect::code_id(&requested.challenge_id);
        let request = Request::Code {
            contact: requested.phone_number.as_str().to_owned(),
            challenge_id: requested.challenge_id.clone(),
        };
        let place = (recorded.position, 0);
        let lane = &requested.challenge_id;
        self.owe(recorded, id.clone(), lane, place, Author::System, request);
        if let Some(row) = self.effects.now.get_mut(&id) {
            row.expires_at = requested.expires_at;
        }
    }

    /// A code that was given back has come, whatever became of its sending.
    fn given_back(&mut self, recorded: &Recorded) {
        let id = effect::code_id(&recorded.aggregate_id);
        if let Some(row) = self.effects.now.get_mut(&id)
            && matches!(
                row.state,
                State::Waiting | State::Uncertain | State::Bounced
            )
        {
            row.state = State::Dropped;
            row.error_message = Some(GIVEN_BACK.to_owned());
            row.updated_at = recorded.recorded_at;
        }
    }

    fn happened(&mut self, id: &str, recorded: &Recorded, event: &Outcome) {
        self.outcome(id, recorded, event);
        if let Some(row) = self.effects.now.get_mut(id)
            && row.state.is_open()
            && is_erased(row.request.contact())
        {
            row.state = State::Dropped;
            row.error_message = Some(ERASED.to_owned());
        }
    }

    fn outcome(&mut self, id: &str, recorded: &Recorded, event: &Outcome) {
        let Some(row) = self.effects.now.get_mut(id) else {
            return;
        };
        row.updated_at = recorded.recorded_at;
        match event {
            Outcome::Attempted(attempted) => {
                row.state = State::Attempted;
                row.attempts = attempted.attempt.cast_signed();
                row.attempted_at = Some(attempted.at);
            }
            Outcome::Uncertain(_) => row.state = State::Uncertain,
            Outcome::Failed(failed) => {
                row.error_status = failed.status.map(i32::from);
                row.error_code.clone_from(&failed.code);
                row.error_message = Some(failed.message.clone());
                self.refused(id, recorded, failed.remedy, failed.retry_at);
            }
            Outcome::Bounced(bounced) => {
                row.error_code.clone_from(&bounced.code);
                row.error_message = None;
                self.refused(id, recorded, bounced.remedy, bounced.retry_at);
            }
            Outcome::Sent(sent) => {
                row.state = State::Done;
                row.provider = Some(sent.provider);
                row.provider_message_id.clone_from(&sent.message_id);
                if let Some(message_id) = &sent.message_id {
                    self.senders.insert(message_id.clone(), id.to_owned());
                    self.told_before(id, message_id);
                }
            }
            Outcome::Answered(answered) => self.answered(id, recorded, answered),
            Outcome::Duplicated(_) => {}
            Outcome::Dropped(dropped) => {
                row.state = State::Dropped;
                row.error_message = Some(dropped.reason.clone());
            }
            Outcome::Retried(_) => {
                row.state = State::Waiting;
                row.due_at = None;
                row.failures = 0;
                if !matches!(row.request, Request::Code { .. }) {
                    row.expires_at = recorded.occurred_at + worth();
                }
                let lane = row.lane.clone();
                self.drop_silenced(&lane, recorded.recorded_at);
            }
        }
    }

    /// The agent's answer goes out, unless a person has taken over meanwhile
    /// or the client wants to hear no more.
    fn answered(&mut self, id: &str, recorded: &Recorded, answered: &Answered) {
        let Some(turn) = self.effects.now.get_mut(id) else {
            return;
        };
        turn.state = State::Done;
        let Request::Turn {
            contact, provider, ..
        } = turn.request.clone()
        else {
            return;
        };
        let (lane, ord) = (turn.lane.clone(), turn.ord);
        for (part, number) in answered.parts.iter().zip(1..) {
            let request = Request::Message {
                contact: contact.clone(),
                provider,
                channel: Channel::Whatsapp,
                content: part.content.clone(),
                template: None,
            };
            let (id, place) = (part.effect_id.clone(), (ord, number));
            self.owe(recorded, id, &lane, place, Author::Agent, request);
        }
    }

    /// What a refusal leads to.
    fn refused(
        &mut self,
        id: &str,
        recorded: &Recorded,
        remedy: Remedy,
        retry_at: Option<DateTime<Utc>>,
    ) {
        let Some(row) = self.effects.now.get_mut(id) else {
            return;
        };
        row.due_at = retry_at;
        row.failures += 1;
        row.as_template |= remedy == Remedy::Template;
        row.state = match remedy {
            Remedy::Retry | Remedy::Template => State::Waiting,
            Remedy::OptOut | Remedy::DeadLetter => State::Dead,
        };
        let (lane, kind) = (row.lane.clone(), row.kind);
        if kind == Kind::Code {
            return;
        }
        if remedy == Remedy::OptOut {
            self.lane(&lane).opted_out = true;
        }
        // Who was silenced while it was under way is not tried again.
        self.drop_silenced(&lane, recorded.recorded_at);
    }

    /// The provider tells of a message that it could not deliver.
    fn status(&mut self, recorded: &Recorded, change: &StatusChanged) {
        if !change.status.is_failure() {
            return;
        }
        let sender = self.senders.get(&change.message_id);
        let row = sender.and_then(|id| self.effects.now.get_mut(id));
        // Of a message that was sent anew since, nothing follows any more.
        let last = |row: &&mut Effect| row.provider_message_id.as_ref() == Some(&change.message_id);
        match row.filter(last) {
            Some(row) if row.state == State::Done => {
                row.bounce(change.error_code.clone());
                row.updated_at = recorded.recorded_at;
            }
            Some(_) => {}
            None => {
                let callback = Callback {
                    provider_message_id: change.message_id.clone(),
                    code: change.error_code.clone(),
                };
                self.callbacks
                    .now
                    .insert(change.message_id.clone(), callback);
            }
        }
    }

    /// The failure of a message may have been told before its effect was known.
    fn told_before(&mut self, id: &str, message_id: &str) {
        let told = self.callbacks.now.get(message_id).cloned();
        if let (Some(callback), Some(row)) = (told, self.effects.now.get_mut(id)) {
            row.bounce(callback.code);
        }
    }

    fn owe(
        &mut self,
        recorded: &Recorded,
        id: String,
        lane: &str,
        (ord, part): (i64, i32),
        author: Author,
        request: Request,
    ) {
        // The same recipient may have been reported under another number.
        if self.effects.now.contains_key(&id) {
            return;
        }
        // A lane that is no conversation has nobody who speaks in it.
        let speaks = self.lanes.now.get(lane);
        let silenced = speaks.and_then(|lane| lane.silences(author));
        let silenced = silenced.or_else(|| is_erased(request.contact()).then_some(ERASED));
        let row = Effect {
            id: id.clone(),
            kind: request.kind(),
            lane: lane.to_owned(),
            ord,
            part,
            author,
            state: match silenced {
                Some(_) => State::Dropped,
                None => State::Waiting,
            },
            provider: Some(request.provider()),
            request,
            as_template: false,
            attempts: 0,
            failures: 0,
            attempted_at: None,
            due_at: None,
            expires_at: recorded.occurred_at + worth(),
            provider_message_id: None,
            error_status: None,
            error_code: None,
            error_message: silenced.map(str::to_owned),
            created_at: recorded.recorded_at,
            updated_at: recorded.recorded_at,
        };
        self.effects.now.insert(id, row);
    }

    /// Drops what waits in a lane and may not be said any more. What is being
    /// sent, or may have been, is left until it is known what became of it.
    ///
    /// So nothing that is silenced ever waits: whoever begins to wait comes
    /// through here or through `owe`, and whatever silences a lane does too.
    /// Only the latter needs the other rows of the lane; see `store`.
    fn drop_silenced(&mut self, lane: &str, at: DateTime<Utc>) {
        let Some(speaks) = self.lanes.now.get(lane) else {
            return;
        };
        let rows = self.effects.now.values_mut();
        for row in rows.filter(|row| row.lane == lane) {
            let reason = speaks.silences(row.author);
            if let (State::Waiting, Some(reason)) = (row.state, reason) {
                row.state = State::Dropped;
                row.error_message = Some(reason.to_owned());
                row.updated_at = at;
            }
        }
    }

    fn lane(&mut self, lane: &str) -> &mut Lane {
        let rows = &mut self.lanes.now;
        rows.entry(lane.to_owned()).or_insert_with(|| Lane {
            lane: lane.to_owned(),
            status: Status::Active,
            opted_out: false,
            agent_id: None,
            provider: None,
        })
    }
}

/// Why nothing is owed any more to whom nobody knows.
const ERASED: &str = "the client was erased";
/// Why a code is not owed any more.
const GIVEN_BACK: &str = "the code was given back";

impl Effect {
    fn bounce(&mut self, code: Option<String>) {
        self.state = State::Bounced;
        self.error_code = code;
        self.error_message = None;
    }
}

fn worth() -> Duration {
    Duration::hours(WORTH_HOURS)
}

fn first_message(started: &Started) -> Request {
    Request::Message {
        contact: started.phone_number.as_str().to_owned(),
        provider: Provider::Twilio,
        channel: Channel::Whatsapp,
        content: started.message.content.clone(),
        template: started.message.template.clone(),
    }
}

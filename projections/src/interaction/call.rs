//! What the events of calls do to the rows.
//!
//! Up to four sources tell of one call: the provider's report, its word that
//! the call could not be started, its recording, and the carrier's callbacks
//! about the telephone leg. What each said is kept apart in [`Sources`], and
//! the columns in which they compete follow from all of them by a fixed
//! precedence. Hence the order in which they come changes nothing.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use domain::call::{
    AudioReceived, Completed, Event, InitiationFailed, Medium, Outcome, Progressed,
};
use domain::event::Recorded;
use domain::{Channel, Direction, Provider};
use serde::{Deserialize, Serialize};

use crate::call_details::CallDetail;
use crate::interactions::Interaction;
use crate::{text, time};

/// What each source said of a call, the words and numbers in which they
/// compete. What only one of them knows is in the row's columns alone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Sources {
    span: Span,
    /// The provider's id of the session, once it has told us of one.
    session: Option<String>,
    report: Option<Report>,
    failure: Option<Failure>,
    audio: Option<Told>,
    /// The telephone legs, by the carrier's id. There is one, as a rule.
    legs: BTreeMap<String, Leg>,
}

/// Where an interaction's events lie in time and in the ledger.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Span {
    first_at: DateTime<Utc>,
    last_at: DateTime<Utc>,
    first_position: i64,
    last_position: i64,
}

/// When something was said, and of two things said at the same time, which
/// came first to the ledger. The greatest is the latest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Told {
    at: DateTime<Utc>,
    position: i64,
    provider: Option<Provider>,
}

/// The latest report of a finished session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Report {
    told: Told,
    outcome: Outcome,
    medium: Medium,
    agent_id: String,
    batch_id: Option<String>,
    direction: Option<Direction>,
    started_at: Option<DateTime<Utc>>,
    duration_secs: Option<i64>,
    error: Option<String>,
    contact: Contact,
}

/// The latest word that the call could not be started.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Failure {
    told: Told,
    agent_id: Option<String>,
    detail: Option<String>,
    sip_status: Option<i64>,
    contact: Contact,
}

/// Who was to be reached, and how.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Contact {
    phone_number: Option<String>,
    agent_number: Option<String>,
    call_sid: Option<String>,
    carrier: Option<String>,
}

/// What the carrier said of a telephone leg. Its callbacks agree on all but
/// the state; if they ever do not, the greater value stays, whatever the order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Leg {
    state: LegState,
    /// When it first was reported ended.
    ended_at: Option<DateTime<Utc>>,
    provider: Option<Provider>,
    direction: Option<Direction>,
    phone_number: Option<String>,
    agent_number: Option<String>,
    duration_secs: Option<i64>,
    sip_status: Option<i64>,
    recording_url: Option<String>,
}

/// How far a leg has come; the greatest counts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct LegState {
    rank: u8,
    sequence_number: Option<i64>,
    at: DateTime<Utc>,
    outcome: Outcome,
    provider_status: String,
}

impl Sources {
    /// Whether a provider has reported a session: then it is an interaction of
    /// its own and not only the leg of one.
    pub(crate) fn is_session(&self) -> bool {
        self.session.is_some()
    }

    /// What the session was held over.
    pub(crate) fn medium(&self) -> Option<Medium> {
        self.report.as_ref().map(|report| report.medium)
    }

    /// For tests that compare rows which different orders of events gave.
    #[cfg(test)]
    pub(super) fn forget_positions(&mut self) {
        (self.span.first_position, self.span.last_position) = (0, 0);
        let report = self.report.as_mut().map(|report| &mut report.told);
        let failure = self.failure.as_mut().map(|failure| &mut failure.told);
        for told in [report, failure, self.audio.as_mut()].into_iter().flatten() {
            told.position = 0;
        }
    }

    fn leg(&self) -> Option<(&String, &Leg)> {
        self.legs.iter().max_by_key(|(_, leg)| &leg.state)
    }

    /// How the call stands, and since when it has ended. The report knows
    /// best, then who tried to start it, then the carrier; a recording alone
    /// says that it was talked on.
    fn outcome(&self) -> (Outcome, Option<DateTime<Utc>>) {
        let leg = self.leg().map(|(_, leg)| leg);
        let leg_ended = leg.and_then(|leg| leg.ended_at);
        if let Some(report) = self
            .report
            .as_ref()
            .filter(|report| is_final(report.outcome))
        {
            let ended = report.ended_at().or(leg_ended).unwrap_or(report.told.at);
            return (report.outcome, Some(ended));
        }
        if let Some(failure) = &self.failure {
            return (Outcome::Failed, Some(failure.told.at));
        }
        if let Some(leg) = leg.filter(|leg| is_final(leg.state.outcome)) {
            return (leg.state.outcome, leg.ended_at);
        }
        if let Some(audio) = &self.audio {
            return (Outcome::Completed, Some(audio.at));
        }
        let report = self.report.as_ref().map(|report| report.outcome);
        let running = report.max(leg.map(|leg| leg.state.outcome));
        (running.unwrap_or(Outcome::Pending), None)
    }

    /// What the sources say of the contact, the most trusted first.
    fn contact(&self) -> Contact {
        let said = [
            self.report.as_ref().map(|report| report.contact.clone()),
            self.failure.as_ref().map(|failure| failure.contact.clone()),
            self.leg().map(|(sid, leg)| Contact {
                phone_number: leg.phone_number.clone(),
                agent_number: leg.agent_number.clone(),
                call_sid: Some(sid.clone()),
                carrier: leg.provider.map(|provider| provider.to_string()),
            }),
        ];
        said.into_iter()
            .flatten()
            .fold(Contact::default(), |known, next| Contact {
                phone_number: known.phone_number.or(next.phone_number),
                agent_number: known.agent_number.or(next.agent_number),
                call_sid: known.call_sid.or(next.call_sid),
                carrier: known.carrier.or(next.carrier),
            })
    }

    fn duration_secs(&self) -> Option<i64> {
        let report = self.report.as_ref().and_then(|report| report.duration_secs);
        report.or(self.leg().and_then(|(_, leg)| leg.duration_secs))
    }

    /// A provider's own name for the call goes before the carrier's.
    fn provider(&self) -> Option<Provider> {
        let session = [
            self.report.as_ref().map(|report| report.told),
            self.failure.as_ref().map(|failure| failure.told),
            self.audio,
        ];
        let session = session.into_iter().flatten().find_map(|told| told.provider);
        session.or(self.leg().and_then(|(_, leg)| leg.provider))
    }
}

impl CallDetail {
    /// A call at its first event.
    pub(super) fn begin(id: &str, recorded: &Recorded, event: &Event) -> Self {
        let empty = Self {
            interaction_id: id.to_owned(),
            duration_secs: None,
            transcript: vec![],
            summary: None,
            summary_title: None,
            analysis: Default::default(),
            call_successful: None,
            termination_reason: None,
            failure_reason: None,
            error: None,
            recording_url: None,
            has_audio: false,
            audio_delivery_id: None,
            audio_content_type: None,
            audio_bytes: None,
            language: None,
            cost_credits: None,
            agent_name: None,
            carrier: None,
            carrier_status: None,
            sip_status: None,
            call_sid: None,
            agent_number: None,
            phone_number_id: None,
            dynamic_variables: Default::default(),
            batch_recipient_id: None,
            provider_status: None,
            sources: Sources {
                span: Span::of(recorded),
                session: None,
                report: None,
                failure: None,
                audio: None,
                legs: BTreeMap::new(),
            },
        };
        empty.and(recorded, event)
    }

    /// The call after one more event.
    pub(super) fn and(mut self, recorded: &Recorded, event: &Event) -> Self {
        self.sources.span.widen(&Span::of(recorded));
        let told = Told {
            at: recorded.occurred_at,
            position: recorded.position,
            provider: recorded.provider,
        };
        match event {
            Event::Completed(report) => self.take_report(told, report),
            Event::InitiationFailed(failed) => self.take_failure(told, failed),
            Event::AudioReceived(audio) => self.take_audio(told, recorded, audio),
            Event::Progressed(progressed) => {
                let leg = Leg::of(told, progressed);
                self.take_leg(text::key(&progressed.call_sid).into_owned(), leg);
            }
        }
        self.settled()
    }

    /// The call with what a leg had gathered before it was known whose it is.
    pub(super) fn absorb(mut self, alone: Self) -> Self {
        self.sources.span.widen(&alone.sources.span);
        for (sid, leg) in alone.sources.legs {
            self.take_leg(sid, leg);
        }
        self.settled()
    }

    /// The same call as another interaction.
    pub(super) fn renamed(self, id: &str) -> Self {
        Self {
            interaction_id: id.to_owned(),
            ..self
        }
    }

    /// Its row in `interactions`.
    pub(super) fn interaction(&self) -> Interaction {
        let sources = &self.sources;
        let report = sources.report.as_ref();
        let (outcome, ended_at) = sources.outcome();
        let direction = report.and_then(|report| report.direction);
        let agent_id = report.map(|report| &report.agent_id);
        let agent_id = agent_id.or(sources.failure.as_ref().and_then(|f| f.agent_id.as_ref()));
        Interaction {
            id: self.interaction_id.clone(),
            channel: match sources.medium() {
                Some(Medium::Whatsapp) => Channel::Whatsapp,
                Some(Medium::Sms) => Channel::Sms,
                Some(Medium::Voice | Medium::Text) | None => Channel::Call,
            },
            provider: sources.provider(),
            direction: direction.or(sources.leg().and_then(|(_, leg)| leg.direction)),
            status: outcome.as_str().to_owned(),
            phone_number: sources.contact().phone_number,
            agent_id: agent_id.cloned(),
            batch_id: report.and_then(|report| report.batch_id.clone()),
            conversation_id: sources.session.clone(),
            call_sid: self.call_sid.clone(),
            started_at: report
                .and_then(|report| report.started_at)
                .unwrap_or(sources.span.first_at),
            ended_at,
            last_event_at: sources.span.last_at,
            duration_secs: self.duration_secs,
            summary: self.summary.clone(),
            message_count: self.spoken_turns(),
            first_position: sources.span.first_position,
            last_position: sources.span.last_position,
        }
    }

    fn spoken_turns(&self) -> i64 {
        let words = self
            .transcript
            .iter()
            .filter_map(|turn| turn.message.as_ref());
        words.filter(|words| !words.trim().is_empty()).count() as i64
    }

    fn take_report(&mut self, told: Told, report: &Completed) {
        self.sources.session = Some(report.conversation_id.clone());
        let known = self.sources.report.as_ref().map(|known| known.told);
        if known > Some(told) {
            return;
        }
        self.sources.report = Some(Report::of(told, report));
        self.transcript.clone_from(&report.transcript);
        self.summary.clone_from(&report.summary);
        self.summary_title.clone_from(&report.summary_title);
        self.analysis.clone_from(&report.analysis);
        self.call_successful.clone_from(&report.call_successful);
        self.termination_reason
            .clone_from(&report.termination_reason);
        self.language.clone_from(&report.language);
        self.cost_credits = report.cost_credits;
        self.agent_name.clone_from(&report.agent_name);
        self.phone_number_id.clone_from(&report.phone_number_id);
        self.dynamic_variables.clone_from(&report.dynamic_variables);
        self.batch_recipient_id
            .clone_from(&report.batch_recipient_id);
        self.provider_status = Some(report.provider_status.clone());
        self.has_audio = report.has_audio;
    }

    fn take_failure(&mut self, told: Told, failed: &InitiationFailed) {
        self.sources.session = Some(failed.conversation_id.clone());
        let known = self.sources.failure.as_ref().map(|known| known.told);
        if known > Some(told) {
            return;
        }
        self.sources.failure = Some(Failure::of(told, failed));
        self.failure_reason = Some(failed.reason.clone());
    }

    fn take_audio(&mut self, told: Told, recorded: &Recorded, audio: &AudioReceived) {
        self.sources.session = Some(audio.conversation_id.clone());
        if self.sources.audio > Some(told) {
            return;
        }
        self.sources.audio = Some(told);
        self.audio_delivery_id = recorded.delivery_id;
        self.audio_content_type = Some(audio.content_type.clone());
        self.audio_bytes = i64::try_from(audio.size_bytes).ok();
    }

    fn take_leg(&mut self, sid: String, leg: Leg) {
        match self.sources.legs.remove(&sid) {
            Some(known) => self.sources.legs.insert(sid, known.and(leg)),
            None => self.sources.legs.insert(sid, leg),
        };
    }

    /// Sets the columns in which the sources compete.
    fn settled(mut self) -> Self {
        let contact = self.sources.contact();
        self.call_sid = contact.call_sid;
        self.carrier = contact.carrier;
        self.agent_number = contact.agent_number;
        self.duration_secs = self.sources.duration_secs();
        self.has_audio |= self.sources.audio.is_some();
        let report = self.sources.report.as_ref();
        let failure = self.sources.failure.as_ref();
        let leg = self.sources.leg().map(|(_, leg)| leg);
        let error = report.and_then(|report| report.error.clone());
        self.error = error.or(failure.and_then(|failure| failure.detail.clone()));
        let sip_status = failure.and_then(|failure| failure.sip_status);
        self.sip_status = sip_status.or(leg.and_then(|leg| leg.sip_status));
        self.carrier_status = leg.map(|leg| leg.state.provider_status.clone());
        self.recording_url = leg.and_then(|leg| leg.recording_url.clone());
        self
    }
}

impl Report {
    fn of(told: Told, report: &Completed) -> Self {
        Self {
            told,
            outcome: report.outcome,
            medium: report.medium,
            agent_id: text::key(&report.agent_id).into_owned(),
            batch_id: report
                .batch_id
                .as_deref()
                .map(|id| text::key(id).into_owned()),
            direction: report.direction,
            started_at: report.started_at.and_then(time::plausible),
            duration_secs: report.duration_secs,
            error: report.error.clone(),
            contact: Contact {
                phone_number: report.phone_number.clone(),
                agent_number: report.agent_number.clone(),
                call_sid: report.call_sid.clone(),
                carrier: report.carrier.clone(),
            },
        }
    }

    fn ended_at(&self) -> Option<DateTime<Utc>> {
        let duration = TimeDelta::try_seconds(self.duration_secs?)?;
        time::plausible(self.started_at?.checked_add_signed(duration)?)
    }
}

impl Failure {
    fn of(told: Told, failed: &InitiationFailed) -> Self {
        Self {
            told,
            agent_id: failed
                .agent_id
                .as_deref()
                .map(|id| text::key(id).into_owned()),
            detail: failed.detail.clone(),
            sip_status: failed.sip_status,
            contact: Contact {
                phone_number: failed.phone_number.clone(),
                agent_number: failed.agent_number.clone(),
                call_sid: failed.call_sid.clone(),
                carrier: failed.carrier.clone(),
            },
        }
    }
}

impl Leg {
    fn of(told: Told, progressed: &Progressed) -> Self {
        let outcome = progressed.outcome;
        Self {
            state: LegState {
                rank: rank(outcome),
                sequence_number: progressed.sequence_number,
                at: told.at,
                outcome,
                provider_status: progressed.provider_status.clone(),
            },
            ended_at: is_final(outcome).then_some(told.at),
            provider: told.provider,
            direction: progressed.direction,
            phone_number: progressed.phone_number.clone(),
            agent_number: progressed.agent_number.clone(),
            duration_secs: progressed.duration_secs,
            sip_status: progressed.sip_status,
            recording_url: progressed.recording_url.clone(),
        }
    }

    fn and(self, other: Self) -> Self {
        Self {
            state: self.state.max(other.state),
            // `None` is less than any time: the earlier of those there are.
            ended_at: match (self.ended_at, other.ended_at) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            },
            provider: self.provider.max(other.provider),
            direction: self.direction.max(other.direction),
            phone_number: self.phone_number.max(other.phone_number),
            agent_number: self.agent_number.max(other.agent_number),
            duration_secs: self.duration_secs.max(other.duration_secs),
            sip_status: self.sip_status.max(other.sip_status),
            recording_url: self.recording_url.max(other.recording_url),
        }
    }
}

impl Span {
    fn of(recorded: &Recorded) -> Self {
        Self {
            first_at: recorded.occurred_at,
            last_at: recorded.occurred_at,
            first_position: recorded.position,
            last_position: recorded.position,
        }
    }

    fn widen(&mut self, other: &Self) {
        self.first_at = self.first_at.min(other.first_at);
        self.last_at = self.last_at.max(other.last_at);
        self.first_position = self.first_position.min(other.first_position);
        self.last_position = self.last_position.max(other.last_position);
    }
}

/// The order in which a leg passes through its states. Where a carrier reports
/// two ends, the one that says more counts.
fn rank(outcome: Outcome) -> u8 {
    match outcome {
        Outcome::Pending => 0,
        Outcome::InProgress => 1,
        Outcome::Cancelled => 2,
        Outcome::Failed => 3,
        Outcome::Completed => 4,
        Outcome::Voicemail => 5,
    }
}

fn is_final(outcome: Outcome) -> bool {
    rank(outcome) > rank(Outcome::InProgress)
}

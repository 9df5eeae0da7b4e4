//! What an event does to one row, and what a row is made of. Pure.

use chrono::{DateTime, Utc};
use cqrs_es::Aggregate;
use domain::batch::{
    self, Counts, Event, Order, RecipientSeen, Requested, Sighting, Sightings, Snapshot, Word,
    status,
};
use domain::call::{self, Outcome};
use domain::event::Recorded;

use super::attempts::Attempt;
use super::calls::Call;
use super::fold::{key, snapshot};
use super::recipients::Recipient;
use super::row::Batch;
use crate::time;

impl Batch {
    pub(super) fn begin(id: String, at: DateTime<Utc>) -> Self {
        Self {
            id,
            batch_id: None,
            call_name: String::new(),
            status: batch::Status::Pending,
            agent_id: String::new(),
            agent_name: None,
            phone_number_id: None,
            phone_provider: None,
            group_id: None,
            group_call_id: None,
            part: None,
            parts: None,
            requested_by: None,
            created_at: at,
            created_at_unix: None,
            scheduled_time_unix: None,
            last_updated_at_unix: None,
            total_calls_dispatched: 0,
            total_calls_scheduled: 0,
            total_calls_finished: None,
            retry_count: 0,
            counts: Counts::default(),
            has_open_order: false,
            is_unsettled: false,
            duplicate_of: None,
            state: batch::Batch::default(),
        }
    }

    pub(super) fn take(&mut self, event: &Event) {
        if let Event::Requested(requested) = event {
            self.take_order(requested);
        }
        self.state.apply(without_recipients(event));
        if let Some((snapshot, source)) = snapshot(event)
            && self.state.word() == Some(&Word::of(snapshot, source))
        {
            self.take_snapshot(snapshot);
        }
        self.batch_id = self.state.provider_batch_id().map(key);
    }

    fn take_order(&mut self, requested: &Requested) {
        self.call_name.clone_from(&requested.call_name);
        self.agent_id.clone_from(&requested.agent_id);
        self.phone_number_id = Some(requested.agent_phone_number_id.clone());
        let provider = requested.phone_provider;
        self.phone_provider = provider.map(|provider| provider.as_str().to_owned());
        if let Some(group) = &requested.group {
            self.group_id = Some(group.group_id);
            self.group_call_id = Some(group.call_id.clone());
            self.part = i32::try_from(group.part).ok();
            self.parts = i32::try_from(group.parts).ok();
        }
        self.requested_by = Some(requested.requested_by.clone());
        self.created_at = time::plausible(requested.requested_at).unwrap_or(self.created_at);
        self.scheduled_time_unix = requested.scheduled_time_unix;
        self.total_calls_scheduled = requested.recipients.len() as i64;
    }

    /// What the provider leaves out stays as it was.
    fn take_snapshot(&mut self, snapshot: &Snapshot) {
        let said = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        let is_ours = self.state.requested().is_some();
        if !is_ours && !snapshot.name.is_empty() {
            self.call_name.clone_from(&snapshot.name);
        }
        if !snapshot.agent_id.is_empty() {
            self.agent_id.clone_from(&snapshot.agent_id);
        }
        let made = (snapshot.created_at_unix > 0).then_some(snapshot.created_at_unix);
        self.created_at_unix = made.or(self.created_at_unix);
        if let (false, Some(made)) = (is_ours, made.and_then(at_unix)) {
            self.created_at = made;
        }
        self.agent_name = said(&snapshot.agent_name).or(self.agent_name.take());
        self.phone_number_id = said(&snapshot.phone_number_id).or(self.phone_number_id.take());
        self.phone_provider = said(&snapshot.phone_provider).or(self.phone_provider.take());
        self.scheduled_time_unix = snapshot.scheduled_time_unix.or(self.scheduled_time_unix);
        let updated = Some(snapshot.last_updated_at_unix).filter(|unix| *unix > 0);
        self.last_updated_at_unix = updated.or(self.last_updated_at_unix);
        self.total_calls_dispatched = snapshot.total_calls_dispatched;
        if snapshot.total_calls_scheduled > 0 {
            self.total_calls_scheduled = snapshot.total_calls_scheduled;
        }
        self.total_calls_finished = snapshot.total_calls_finished.or(self.total_calls_finished);
        self.retry_count = snapshot.retry_count;
    }

    pub(super) fn settle(&mut self) {
        let state = &self.state;
        let refused = matches!(state.submit(), Order::Failed(refused) if !refused.retryable);
        self.status = status::derive(state.word(), refused, &self.counts);
        let orders = [state.submit(), state.cancel(), state.retry()];
        self.has_open_order = orders.iter().any(|order| order.is_open());
        self.is_unsettled = self.batch_id.is_some() && !state.word().is_some_and(Word::is_settled);
    }
}

/// The event as the batch's state takes it: recipients have rows of their own.
fn without_recipients(event: &Event) -> Event {
    match event {
        Event::Requested(requested) => Event::Requested(Box::new(Requested {
            batch_id: requested.batch_id.clone(),
            call_name: requested.call_name.clone(),
            agent_id: requested.agent_id.clone(),
            agent_phone_number_id: requested.agent_phone_number_id.clone(),
            scheduled_time_unix: requested.scheduled_time_unix,
            phone_provider: requested.phone_provider,
            group: requested.group.clone(),
            requested_by: requested.requested_by.clone(),
            requested_at: requested.requested_at,
            recipients: vec![],
        })),
        Event::Observed(observed) => Event::Observed(Box::new(batch::Observed {
            batch: observed.batch.clone(),
            recipients: vec![],
        })),
        event => event.clone(),
    }
}

impl Recipient {
    pub(super) fn begin(batch: &str, id: &str, place: usize) -> Self {
        Self {
            batch_key: batch.to_owned(),
            id: id.to_owned(),
            place: i32::try_from(place).unwrap_or(i32::MAX),
            phone_number: None,
            client_id: None,
            variables: serde_json::Map::new(),
            status: Outcome::Pending,
            conversation_id: None,
            called_at: None,
            call_duration: None,
            attempts: 0,
            created_at_unix: None,
            updated_at_unix: None,
            seen: Sightings::default(),
        }
    }

    pub(super) fn take(&mut self, seen: &RecipientSeen, retry_count: i64) {
        let sighting = Sighting {
            updated_at_unix: seen.updated_at_unix,
            retry_count,
            status: seen.status,
        };
        let conversation = seen.conversation_id.as_deref().map(key);
        self.seen.see(conversation.as_deref(), sighting);
        if self.phone_number.is_none() {
            self.phone_number.clone_from(&seen.phone_number);
        }
        if self.variables.is_empty() {
            self.variables.clone_from(&seen.dynamic_variables);
        }
        self.created_at_unix = match (self.created_at_unix, seen.created_at_unix) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        self.updated_at_unix = self.updated_at_unix.max(Some(seen.updated_at_unix));
    }

    pub(super) fn stand(&mut self, standing: batch::Standing) {
        let current = standing.conversation_id.as_ref();
        let current = current.and_then(|_| standing.attempts.last());
        self.called_at = current
            .and_then(|call| call.began_at)
            .and_then(time::plausible);
        self.call_duration = current.and_then(|call| call.duration_secs);
        self.attempts = i32::try_from(standing.attempts.len()).unwrap_or(i32::MAX);
        self.status = standing.status;
        self.conversation_id = standing.conversation_id;
    }
}

impl Attempt {
    pub(super) fn of(
        batch: &Batch,
        recipient: &Recipient,
        n: usize,
        attempt: &batch::Attempt,
        is_told: bool,
    ) -> Self {
        // A call of which nobody knows a sensible time is as old as can be.
        let called_at = attempt.began_at.and_then(time::plausible);
        let called_at = called_at.unwrap_or(DateTime::UNIX_EPOCH);
        let ended_at = attempt.ended_at.and_then(time::plausible);
        let is_over = !matches!(attempt.status, Outcome::Pending | Outcome::InProgress);
        let listed = recipient.updated_at_unix.and_then(at_unix);
        Self {
            batch_key: recipient.batch_key.clone(),
            recipient_id: recipient.id.clone(),
            conversation_id: attempt.conversation_id.clone(),
            group_id: batch.group_id,
            attempt: i32::try_from(n + 1).unwrap_or(i32::MAX),
            phone_number: recipient.phone_number.clone(),
            client_id: recipient.client_id,
            status: attempt.status,
            called_at,
            ended_at,
            duration_secs: attempt.duration_secs,
            failure_reason: attempt.failure_reason.clone(),
            call_sid: attempt.call_sid.as_deref().map(key),
            missing_since: (is_over && !is_told).then(|| ended_at.or(listed).unwrap_or(called_at)),
        }
    }
}

impl Call {
    pub(super) fn take(&mut self, recorded: &Recorded) {
        match &recorded.event {
            domain::Event::Call(call::Event::Completed(report)) => {
                self.facts.report(recorded.occurred_at, report);
            }
            domain::Event::Call(call::Event::InitiationFailed(failed)) => {
                self.facts.failure(recorded.occurred_at, failed);
            }
            _ => {}
        }
        self.settle();
    }
}

fn at_unix(unix: i64) -> Option<DateTime<Utc>> {
    time::plausible(DateTime::from_timestamp(unix, 0)?)
}

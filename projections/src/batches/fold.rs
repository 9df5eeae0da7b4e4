//! What events do to the rows of batches. Pure: whoever calls this has loaded
//! the rows that the events touch.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use cqrs_es::Aggregate;
use domain::Direction;
use domain::batch::{
    self, Counts, Event, Leg, Order, RecipientSeen, Requested, Sighting, Sightings, Snapshot,
    Source, Told, Word, status,
};
use domain::call::{self, Outcome};
use domain::event::Recorded;

use super::attempts::Attempt;
use super::calls::{Call, LegRow};
use super::recipients::Recipient;
use super::row::Batch;
use super::rows::Rows;
use crate::{text, time};

/// Our id of a batch, and the provider's of a recipient.
pub(super) type RecipientKey = (String, String);

/// Rows of the tables, in memory.
#[derive(Debug, Default)]
pub(super) struct Tables {
    pub(super) batches: Rows<String, Batch>,
    pub(super) recipients: Rows<RecipientKey, Recipient>,
    /// By batch, recipient and conversation.
    pub(super) attempts: Rows<(String, String, String), Attempt>,
    pub(super) calls: Rows<String, Call>,
    pub(super) legs: Rows<String, LegRow>,
}

pub(super) fn key(id: &str) -> String {
    text::key(id).into_owned()
}

/// The provider's words in an event, and on what occasion they were said.
pub(super) fn snapshot(event: &Event) -> Option<(&Snapshot, Source)> {
    match event {
        Event::Submitted(event) => Some((&event.batch, Source::Submit)),
        Event::Cancelled(event) => Some((&event.batch, Source::Cancel)),
        Event::Retried(event) => Some((&event.batch, Source::Retry)),
        Event::Observed(event) => Some((&event.batch, Source::List)),
        Event::Discovered(event) => Some((&event.batch, Source::Discovery)),
        _ => None,
    }
}

/// The events of batches, each with our id of the batch.
pub(super) fn of_batches(batch: &[Recorded]) -> impl Iterator<Item = (String, &Recorded, &Event)> {
    batch.iter().filter_map(|recorded| match &recorded.event {
        domain::Event::Batch(event) => Some((key(&recorded.aggregate_id), recorded, event)),
        _ => None,
    })
}

/// The conversation that an event tells of, if it may be part of a batch. What
/// this says of an event must not depend on any other event.
pub(super) fn conversation(recorded: &Recorded) -> Option<String> {
    let may_be = match &recorded.event {
        domain::Event::Call(call::Event::Completed(report)) => {
            report.batch_id.is_some() || report.direction == Some(Direction::Outbound)
        }
        domain::Event::Call(call::Event::InitiationFailed(_)) => true,
        _ => false,
    };
    may_be.then(|| key(&recorded.aggregate_id))
}

/// The telephone leg that a callback tells of, if it may be part of a batch.
pub(super) fn leg(recorded: &Recorded) -> Option<(String, Leg)> {
    match &recorded.event {
        domain::Event::Call(call::Event::Progressed(progressed))
            if progressed.direction != Some(Direction::Inbound) =>
        {
            let leg = Leg::of(recorded.occurred_at, progressed);
            Some((key(&progressed.call_sid), leg))
        }
        _ => None,
    }
}

impl Tables {
    /// Takes in what is said of batches as a whole, of conversations and legs.
    pub(super) fn take_facts(&mut self, batch: &[Recorded]) {
        for recorded in batch {
            if let domain::Event::Batch(event) = &recorded.event {
                let id = key(&recorded.aggregate_id);
                let row = self.batches.now.entry(id.clone());
                row.or_insert_with(|| Batch::begin(id, recorded.occurred_at))
                    .take(event);
            }
            if let Some(id) = conversation(recorded) {
                let call = self.calls.now.entry(id.clone());
                call.or_insert_with(|| Call::new(id)).take(recorded);
            }
            if let Some((call_sid, leg)) = leg(recorded) {
                let known = self.legs.now.remove(&call_sid);
                let leg = match known {
                    Some(known) => known.leg.and(leg),
                    None => leg,
                };
                let row = LegRow {
                    call_sid: call_sid.clone(),
                    leg,
                };
                self.legs.now.insert(call_sid, row);
            }
        }
    }

    /// Takes in who was ordered to be called, and what the provider's list
    /// said of them.
    pub(super) fn take_recipients(&mut self, batch: &[Recorded]) {
        // How many recipients each batch has by now: the place of the next.
        let mut places: BTreeMap<String, usize> = BTreeMap::new();
        for (id, _, event) in of_batches(batch) {
            let before = self.batches.now.get(&id).map_or(0, |row| row.counts.total);
            let places = places
                .entry(id.clone())
                .or_insert_with(|| usize::try_from(before).unwrap_or_default());
            match event {
                Event::Requested(requested) => {
                    self.order(&id, requested);
                    *places = requested.recipients.len();
                }
                Event::Observed(observed) => {
                    self.recognise(&id, &observed.recipients);
                    for seen in &observed.recipients {
                        self.see(&id, seen, observed.batch.retry_count, places);
                    }
                }
                _ => {}
            }
        }
    }

    fn order(&mut self, batch: &str, requested: &Requested) {
        for (n, ordered) in requested.recipients.iter().enumerate() {
            let id = requested.recipient_id(n);
            let row = Recipient {
                phone_number: Some(ordered.phone_number.as_str().to_owned()),
                client_id: ordered.client_id,
                variables: ordered.dynamic_variables.clone(),
                ..Recipient::begin(batch, &id, n)
            };
            self.recipients.now.insert((batch.to_owned(), id), row);
        }
    }

    /// Gives those their provider's id whom the provider lists under one that
    /// is not ours: by the number, the first that was ordered and not listed.
    fn recognise(&mut self, batch: &str, listed: &[RecipientSeen]) {
        let is_known = |tables: &Self, id: &str| {
            let key = (batch.to_owned(), key(id));
            tables.recipients.now.contains_key(&key)
        };
        let strangers: Vec<_> = listed
            .iter()
            .filter(|seen| !is_known(self, &seen.id))
            .collect();
        if strangers.is_empty() {
            return;
        }
        let named: BTreeSet<_> = listed.iter().map(|seen| key(&seen.id)).collect();
        let mut unlisted: BTreeMap<String, BTreeSet<(i32, String)>> = BTreeMap::new();
        for ((_, id), row) in of_batch(&self.recipients.now, batch) {
            if let (Some(phone), false) = (&row.phone_number, named.contains(id))
                && row.seen == Sightings::default()
            {
                let same_number = unlisted.entry(phone.clone()).or_default();
                same_number.insert((row.place, id.clone()));
            }
        }
        for seen in strangers {
            let same_number = seen.phone_number.as_ref();
            let same_number = same_number.and_then(|phone| unlisted.get_mut(phone));
            let Some((_, ours)) = same_number.and_then(BTreeSet::pop_first) else {
                continue;
            };
            let ours = (batch.to_owned(), ours);
            if let Some(row) = self.recipients.now.remove(&ours) {
                let id = key(&seen.id);
                let row = Recipient {
                    id: id.clone(),
                    ..row
                };
                self.recipients.now.insert((ours.0, id), row);
            }
        }
    }

    fn see(&mut self, batch: &str, seen: &RecipientSeen, retry_count: i64, places: &mut usize) {
        let id = key(&seen.id);
        let row = self.recipients.now.entry((batch.to_owned(), id.clone()));
        let row = row.or_insert_with(|| {
            *places += 1;
            Recipient::begin(batch, &id, *places - 1)
        });
        row.take(seen, retry_count);
    }

    /// Works out how everybody stands, and so every batch.
    pub(super) fn settle(&mut self, batch: &[Recorded]) {
        self.settle_recipients();
        self.count();
        for row in self.batches.now.values_mut() {
            row.settle();
        }
        self.tell_duplicates(batch);
    }

    fn settle_recipients(&mut self) {
        let mut claims: BTreeMap<(&str, &str), Vec<&str>> = BTreeMap::new();
        for call in self.calls.now.values() {
            if let Some(claim) = call.claim() {
                claims.entry(claim).or_default().push(&call.conversation_id);
            }
        }
        // Those that still are will come again.
        self.attempts.now.clear();
        for row in self.recipients.now.values_mut() {
            let Some(batch) = self.batches.now.get(&row.batch_key) else {
                continue;
            };
            let mut seen = row.seen.clone();
            let claim = batch.batch_id.as_deref().map(|id| (id, row.id.as_str()));
            let claimed = claim.and_then(|claim| claims.get(&claim));
            for conversation in claimed.into_iter().flatten() {
                seen.claim(conversation);
            }
            let standing = seen.standing(|id| told(&self.calls.now, &self.legs.now, id));
            for (n, attempt) in standing.attempts.iter().enumerate() {
                let is_told = self.calls.now.contains_key(&attempt.conversation_id);
                let attempt = Attempt::of(batch, row, n, attempt, is_told);
                let key = (
                    attempt.batch_key.clone(),
                    attempt.recipient_id.clone(),
                    attempt.conversation_id.clone(),
                );
                self.attempts.now.insert(key, attempt);
            }
            row.stand(standing);
        }
    }

    /// Counts everybody in as they stand, and out as they stood.
    fn count(&mut self) {
        for key in self.recipients.keys() {
            let Some(batch) = self.batches.now.get_mut(&key.0) else {
                continue;
            };
            if let Some(before) = self.recipients.before(key) {
                batch.counts.remove(before.status);
            }
            if let Some(now) = self.recipients.now.get(key) {
                batch.counts.add(now.status);
            }
        }
    }

    /// Of several batches of one provider's id, the discovered one is the
    /// order's duplicate. All of them are here when an event names the id.
    fn tell_duplicates(&mut self, batch: &[Recorded]) {
        let named = of_batches(batch).filter_map(|(.., event)| snapshot(event));
        let named: BTreeSet<_> = named.map(|(snapshot, _)| key(&snapshot.id)).collect();
        let mut orders: BTreeMap<String, String> = BTreeMap::new();
        for row in self.batches.now.values() {
            if let (Some(batch_id), Some(_)) = (&row.batch_id, row.state.requested()) {
                orders
                    .entry(batch_id.clone())
                    .or_insert_with(|| row.id.clone());
            }
        }
        for row in self.batches.now.values_mut() {
            let batch_id = row.batch_id.as_ref().filter(|id| named.contains(*id));
            if let (Some(batch_id), None) = (batch_id, row.state.requested()) {
                row.duplicate_of = orders.get(batch_id).cloned();
            }
        }
    }
}

#[cfg(test)]
impl Tables {
    /// The rows are written, and nothing is touched yet.
    pub(super) fn written(&mut self) {
        self.batches.written();
        self.recipients.written();
        self.attempts.written();
        self.calls.written();
        self.legs.written();
    }
}

fn of_batch<'a>(
    recipients: &'a BTreeMap<RecipientKey, Recipient>,
    batch: &'a str,
) -> impl Iterator<Item = (&'a RecipientKey, &'a Recipient)> {
    let all = recipients.range((batch.to_owned(), String::new())..);
    all.take_while(move |((of, _), _)| of == batch)
}

fn told<'a>(
    calls: &'a BTreeMap<String, Call>,
    legs: &'a BTreeMap<String, LegRow>,
    conversation: &str,
) -> Told<'a> {
    let call = calls.get(conversation);
    let leg = call.and_then(|call| legs.get(call.call_sid.as_ref()?));
    Told {
        facts: call.map(|call| &call.facts),
        leg: leg.map(|row| &row.leg),
    }
}

impl Batch {
    fn begin(id: String, at: DateTime<Utc>) -> Self {
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

    fn take(&mut self, event: &Event) {
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

    fn settle(&mut self) {
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
    fn begin(batch: &str, id: &str, place: usize) -> Self {
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

    fn take(&mut self, seen: &RecipientSeen, retry_count: i64) {
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

    fn stand(&mut self, standing: batch::Standing) {
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
    fn of(
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
    fn take(&mut self, recorded: &Recorded) {
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

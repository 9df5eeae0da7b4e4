//! What events do to the rows of batches. Pure: whoever calls this has loaded
//! the rows that the events touch.

use std::collections::{BTreeMap, BTreeSet};

use domain::Direction;
use domain::batch::{Event, Leg, RecipientSeen, Requested, Sightings, Snapshot, Source, Told};
use domain::call::{self, Outcome};
use domain::event::Recorded;

use super::attempts::Attempt;
use super::calls::{Call, LegRow};
use super::recipients::Recipient;
use super::row::Batch;
use crate::rows::Rows;
use crate::text;

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
pub(super) fn of_batches<'a>(
    batch: &[&'a Recorded],
) -> impl Iterator<Item = (String, &'a Recorded, &'a Event)> {
    batch
        .iter()
        .copied()
        .filter_map(|recorded| match &recorded.event {
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
    pub(super) fn take_facts(&mut self, batch: &[&Recorded]) {
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
    pub(super) fn take_recipients(&mut self, batch: &[&Recorded]) {
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
    pub(super) fn settle(&mut self, batch: &[&Recorded]) {
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
            let mut standing = seen.standing(|id| told(&self.calls.now, &self.legs.now, id));
            if batch.state.is_refused() && standing.attempts.is_empty() {
                standing.status = Outcome::Failed;
            }
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
    fn tell_duplicates(&mut self, batch: &[&Recorded]) {
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

impl Tables {
    /// Where there is no table: the rows are taken for written, and nothing is
    /// touched yet.
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

//! What the events of a batch add up to.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    Command, Counts, Discovered, Error, Event, Observed, Order, Requested, Sighting, Sightings,
    Snapshot, Source, Status, Told, Word, status,
};
use crate::call::Outcome;

/// One batch, as its own stream tells it: webhooks are not part of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Batch {
    pub(super) requested: Option<Box<Requested>>,
    pub(super) discovered: Option<Box<Discovered>>,
    pub(super) submit: Order,
    pub(super) cancel: Order,
    pub(super) retry: Order,
    /// The provider's count of retries when the open retry was asked for.
    pub(super) retry_from: i64,
    pub(super) provider_batch_id: Option<String>,
    pub(super) word: Option<Word>,
    /// By the provider's id of the recipient.
    pub(super) recipients: BTreeMap<String, Sightings>,
}

impl Batch {
    /// The order, if it was us who gave it.
    pub fn requested(&self) -> Option<&Requested> {
        self.requested.as_deref()
    }

    /// Where submitting it stands.
    pub const fn submit(&self) -> &Order {
        &self.submit
    }

    /// Where cancelling it stands.
    pub const fn cancel(&self) -> &Order {
        &self.cancel
    }

    /// Where retrying it stands.
    pub const fn retry(&self) -> &Order {
        &self.retry
    }

    /// The provider's count of retries when the last retry was asked for.
    pub const fn retry_from(&self) -> i64 {
        self.retry_from
    }

    /// The provider's id, once it has one.
    pub fn provider_batch_id(&self) -> Option<&str> {
        self.provider_batch_id.as_deref()
    }

    /// The provider's latest word.
    pub const fn word(&self) -> Option<&Word> {
        self.word.as_ref()
    }

    /// How it stands, as far as the provider's answers and lists tell.
    pub fn status(&self) -> Status {
        status::derive(self.word.as_ref(), self.is_refused(), &self.counts())
    }

    /// How many recipients stand how, as far as the provider's lists tell.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for seen in self.recipients.values() {
            counts.add(seen.standing(|_| Told::default()).status);
        }
        let ordered = self.requested.as_ref().map_or(0, |r| r.recipients.len());
        let unlisted = if self.is_refused() {
            Outcome::Failed
        } else {
            Outcome::Pending
        };
        for _ in self.recipients.len()..ordered {
            counts.add(unlisted);
        }
        counts
    }

    /// Whether the provider refused it for good.
    pub fn is_refused(&self) -> bool {
        matches!(&self.submit, Order::Failed(refused) if !refused.retryable)
    }

    pub(super) fn heard(&self, batch: &Snapshot, source: Source) -> Word {
        let word = Word::of(batch, source);
        self.word.map_or(word, |known| known.max(word))
    }

    fn hear(&mut self, batch: &Snapshot, source: Source) {
        self.word = Some(self.heard(batch, source));
        self.provider_batch_id
            .get_or_insert_with(|| batch.id.clone());
    }

    fn observe(&mut self, observed: Observed) {
        self.hear(&observed.batch, Source::List);
        for seen in observed.recipients {
            let sighting = Sighting {
                updated_at_unix: seen.updated_at_unix,
                retry_count: observed.batch.retry_count,
                status: seen.status,
            };
            let known = self.recipients.entry(seen.id).or_default();
            known.see(seen.conversation_id.as_deref(), sighting);
        }
    }
}

impl cqrs_es::Aggregate for Batch {
    const TYPE: &'static str = "batch";
    type Command = Command;
    type Event = Event;
    type Error = Error;
    type Services = ();

    async fn handle(
        &mut self,
        command: Command,
        (): &(),
        sink: &cqrs_es::event_sink::EventSink<Self>,
    ) -> Result<(), Error> {
        for event in self.decide(command)? {
            sink.write(event, self).await;
        }
        Ok(())
    }

    fn apply(&mut self, event: Event) {
        match event {
            Event::Requested(requested) => {
                self.requested = Some(requested);
                self.submit = Order::Wanted;
            }
            Event::SubmitAttempted(event) => self.submit = Order::Attempted(event.attempt),
            Event::SubmitUncertain(event) => self.submit.uncertain(&event),
            Event::SubmitFailed(event) => self.submit.failed(event),
            Event::Submitted(event) => {
                self.submit = Order::Done;
                self.hear(&event.batch, Source::Submit);
            }
            Event::CancelRequested(_) => self.cancel = Order::Wanted,
            Event::CancelAttempted(event) => self.cancel = Order::Attempted(event.attempt),
            Event::CancelUncertain(event) => self.cancel.uncertain(&event),
            Event::CancelFailed(event) => self.cancel.failed(event),
            Event::Cancelled(event) => {
                self.cancel = Order::Done;
                self.hear(&event.batch, Source::Cancel);
            }
            Event::RetryRequested(event) => {
                self.retry = Order::Wanted;
                self.retry_from = event.retry_count;
            }
            Event::RetryAttempted(event) => self.retry = Order::Attempted(event.attempt),
            Event::RetryUncertain(event) => self.retry.uncertain(&event),
            Event::RetryFailed(event) => self.retry.failed(event),
            Event::Retried(event) => {
                self.retry = Order::Done;
                // What was stopped runs again and may be stopped again.
                self.cancel = Order::None;
                self.hear(&event.batch, Source::Retry);
            }
            Event::Observed(observed) => self.observe(*observed),
            Event::Discovered(discovered) => {
                self.hear(&discovered.batch, Source::Discovery);
                self.discovered = Some(discovered);
            }
        }
    }
}

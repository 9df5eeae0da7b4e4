//! What a batch does with a command.

use super::{
    Attempted, Batch, CancelRequested, Cancelled, Command, Discovered, Error, Event, Observed,
    Order, RECIPIENTS_MAX, RecipientSeen, Refused, Requested, Retried, RetryRequested, Sighting,
    Snapshot, Source, Status, Submitted, Uncertain,
};

type Decision = Result<Vec<Event>, Error>;

impl Batch {
    /// What follows from a command. No event where the work is already done.
    ///
    /// # Errors
    /// [`Error`] when the command must not be carried out.
    pub fn decide(&self, command: Command) -> Decision {
        match command {
            Command::Request(new) => self.request(new),
            Command::Discover(new) => self.discover(new),
            _ if self.requested.is_none() && self.discovered.is_none() => Err(Error::Unknown),
            Command::AttemptSubmit { looked_up } => self.attempt_submit(looked_up),
            Command::ReportSubmitted { adopted, batch } => self.report_submitted(adopted, batch),
            Command::ReportSubmitUncertain { attempt, reason } => {
                let news = self.submit.is_uncertain_now(attempt)?;
                let event = Event::SubmitUncertain(Uncertain { attempt, reason });
                Ok(when(news, event))
            }
            Command::ReportSubmitFailed(refused) => {
                let news = self.submit.has_failed_now(refused.attempt)?;
                Ok(when(news, Event::SubmitFailed(refused)))
            }
            Command::RequestCancel { requested_by } => self.request_cancel(requested_by),
            Command::AttemptCancel => self.attempt_cancel(),
            Command::ReportCancelled { batch } => self.report_cancelled(batch),
            Command::ReportCancelUncertain { attempt, reason } => {
                let news = self.cancel.is_uncertain_now(attempt)?;
                let event = Event::CancelUncertain(Uncertain { attempt, reason });
                Ok(when(news, event))
            }
            Command::ReportCancelFailed(refused) => {
                let news = self.cancel.has_failed_now(refused.attempt)?;
                Ok(when(news, Event::CancelFailed(refused)))
            }
            Command::RequestRetry { requested_by } => self.request_retry(requested_by),
            Command::AttemptRetry { looked_up } => self.attempt_retry(looked_up),
            Command::ReportRetried { batch } => self.report_retried(batch),
            Command::ReportRetryUncertain { attempt, reason } => {
                let news = self.retry.is_uncertain_now(attempt)?;
                let event = Event::RetryUncertain(Uncertain { attempt, reason });
                Ok(when(news, event))
            }
            Command::ReportRetryFailed(refused) => self.report_retry_failed(refused),
            Command::Observe { batch, recipients } => self.notice(batch, recipients),
        }
    }

    fn request(&self, new: Box<Requested>) -> Decision {
        match &self.requested {
            _ if self.discovered.is_some() => Err(Error::AlreadyRequested),
            None if !(1..=RECIPIENTS_MAX).contains(&new.recipients.len()) => {
                Err(Error::RecipientsOutOfRange)
            }
            None => Ok(vec![Event::Requested(new)]),
            Some(known) if *known == new => Ok(vec![]),
            Some(_) => Err(Error::AlreadyRequested),
        }
    }

    fn discover(&self, new: Discovered) -> Decision {
        match &self.discovered {
            _ if self.requested.is_some() => Err(Error::AlreadyRequested),
            None => Ok(vec![Event::Discovered(Box::new(new))]),
            // A webhook gave the id only; the workspace's list says more.
            Some(known) if known.batch.name.is_empty() && !new.batch.name.is_empty() => {
                Ok(vec![Event::Discovered(Box::new(new))])
            }
            Some(_) => Ok(vec![]),
        }
    }

    fn attempt_submit(&self, looked_up: Option<u32>) -> Decision {
        let (done, given_up) = (Error::AlreadySubmitted, Error::SubmitRefused);
        let attempt = self.submit.next_attempt(looked_up, done, given_up)?;
        Ok(vec![Event::SubmitAttempted(Attempted { attempt })])
    }

    fn report_submitted(&self, adopted: bool, batch: Snapshot) -> Decision {
        match &self.provider_batch_id {
            Some(known) if *known == batch.id => return Ok(vec![]),
            Some(known) => {
                return Err(Error::SubmittedAsAnother {
                    known: known.clone(),
                    claimed: batch.id,
                });
            }
            None => {}
        }
        match self.submit.attempt() {
            0 => Err(Error::NotAttempted),
            attempt => Ok(vec![Event::Submitted(Box::new(Submitted {
                attempt,
                adopted,
                batch,
            }))]),
        }
    }

    /// Refuses what needs a batch at the provider.
    fn at_the_provider(&self) -> Result<(), Error> {
        match self.provider_batch_id {
            Some(_) => Ok(()),
            None if self.is_refused() => Err(Error::AlreadyFinished),
            None => Err(Error::NotSubmitted),
        }
    }

    fn request_cancel(&self, requested_by: String) -> Decision {
        self.at_the_provider()?;
        match self.status() {
            Status::Cancelled => Err(Error::AlreadyCancelled),
            status if status.is_final() => Err(Error::AlreadyFinished),
            _ if self.cancel.is_open() => Ok(vec![]),
            _ => Ok(vec![Event::CancelRequested(CancelRequested {
                requested_by,
            })]),
        }
    }

    /// To stop what is stopped harms nobody, so an uncertain attempt is simply
    /// repeated.
    fn attempt_cancel(&self) -> Decision {
        let looked_up = Some(self.cancel.attempt());
        let (done, given_up) = (Error::AlreadyCancelled, Error::NotRequested);
        let attempt = self.cancel.next_attempt(looked_up, done, given_up)?;
        Ok(vec![Event::CancelAttempted(Attempted { attempt })])
    }

    fn report_cancelled(&self, batch: Snapshot) -> Decision {
        match &self.cancel {
            Order::Done => Ok(vec![]),
            order if order.attempt() == 0 => Err(Error::NotAttempted),
            _ => {
                let counts = self.counts();
                Ok(vec![Event::Cancelled(Box::new(Cancelled {
                    cancelled_count: count(counts.pending + counts.in_progress),
                    batch,
                }))])
            }
        }
    }

    fn request_retry(&self, requested_by: String) -> Decision {
        self.at_the_provider()?;
        if self.retry.is_open() {
            return Ok(vec![]);
        }
        let Some(word) = self.word.filter(|_| self.status().is_final()) else {
            return Err(Error::StillRunning);
        };
        if self.counts().failed == 0 {
            return Err(Error::NothingToRetry);
        }
        Ok(vec![Event::RetryRequested(RetryRequested {
            requested_by,
            retry_count: word.retry_count,
        })])
    }

    fn attempt_retry(&self, looked_up: Option<u32>) -> Decision {
        let (done, given_up) = (Error::NotRequested, Error::NotRequested);
        let attempt = self.retry.next_attempt(looked_up, done, given_up)?;
        Ok(vec![Event::RetryAttempted(Attempted { attempt })])
    }

    fn report_retried(&self, batch: Snapshot) -> Decision {
        match &self.retry {
            Order::Done => Ok(vec![]),
            order if order.attempt() == 0 => Err(Error::NotAttempted),
            _ => Ok(vec![Event::Retried(Box::new(Retried {
                retried_count: count(self.counts().failed),
                batch,
            }))]),
        }
    }

    fn report_retry_failed(&self, refused: Refused) -> Decision {
        let news = self.retry.has_failed_now(refused.attempt)?;
        Ok(when(news, Event::RetryFailed(refused)))
    }

    /// Keeps of the provider's list what is new.
    fn notice(&self, batch: Snapshot, recipients: Vec<RecipientSeen>) -> Decision {
        match &self.provider_batch_id {
            None => return Err(Error::NotSubmitted),
            Some(known) if *known != batch.id => {
                return Err(Error::SubmittedAsAnother {
                    known: known.clone(),
                    claimed: batch.id,
                });
            }
            Some(_) => {}
        }
        let retry_count = batch.retry_count;
        let recipients: Vec<_> = recipients
            .into_iter()
            .filter_map(|seen| self.news_of(seen, retry_count))
            .collect();
        let news = !recipients.is_empty() || Some(self.heard(&batch, Source::List)) != self.word;
        Ok(when(
            news,
            Event::Observed(Box::new(Observed { batch, recipients })),
        ))
    }

    fn news_of(&self, mut seen: RecipientSeen, retry_count: i64) -> Option<RecipientSeen> {
        let sighting = Sighting {
            updated_at_unix: seen.updated_at_unix,
            retry_count,
            status: seen.status,
        };
        let known = self.recipients.get(&seen.id);
        if known.is_some_and(|known| !known.is_news(seen.conversation_id.as_deref(), sighting)) {
            return None;
        }
        if known.is_some() || self.requested.is_some() {
            seen.dynamic_variables.clear();
        }
        Some(seen)
    }
}

fn when(news: bool, event: Event) -> Vec<Event> {
    if news { vec![event] } else { vec![] }
}

fn count(n: i64) -> u32 {
    u32::try_from(n).unwrap_or_default()
}

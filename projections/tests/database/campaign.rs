//! Campaigns as the ledger has them: what was ordered, what the provider's
//! list said, and the webhooks of the calls. Times are fixed; a campaign's
//! number makes its ids.

use domain::batch::{
    self, Attempted, GroupPart, Observed, Recipient, RecipientSeen, Requested, Retried,
    RetryRequested, Snapshot, Submitted,
};
use domain::call::{self, Completed, InitiationFailed, Outcome, Progressed};
use domain::{Direction, Event, Fact, PhoneNumber, Provider, StreamId};
use serde_json::json;

use crate::facts::{Told, at, completed};

/// Of a line of the provider's list: the call, by its retry, and the status.
type Line = (Option<i64>, &'static str);

/// A batch, and who it calls.
#[derive(Clone, Copy, Debug)]
pub struct Campaign {
    pub n: u32,
    pub recipients: usize,
    pub group_id: Option<i32>,
    /// Whether the provider keeps our ids of the recipients.
    pub keeps_ids: bool,
}

impl Campaign {
    pub fn new(n: u32, recipients: usize) -> Self {
        Self {
            n,
            recipients,
            group_id: Some(55),
            keeps_ids: true,
        }
    }

    /// Our id of it.
    pub fn id(&self) -> String {
        format!("0190a0b0-0000-7000-8000-{:012}", self.n)
    }

    /// The provider's.
    pub fn provider_id(&self) -> String {
        format!("btcal_{}", self.n)
    }

    /// The id under which the provider lists the `r`th recipient.
    pub fn recipient(&self, r: usize) -> String {
        match self.keeps_ids {
            true => self.order().recipient_id(r),
            false => format!("rcpt_theirs_{}_{r}", self.n),
        }
    }

    pub fn phone(&self, r: usize) -> String {
        format!("+57300{r:07}")
    }

    pub fn conversation(&self, r: usize, retry: i64) -> String {
        format!("conv_{}_{r}_{retry}", self.n)
    }

    fn sid(&self, r: usize, retry: i64) -> String {
        format!("CA{}x{r}x{retry}", self.n)
    }

    fn order(&self) -> Requested {
        Requested {
            batch_id: self.id(),
            call_name: format!("Campaña {}", self.n),
            agent_id: "agent_1".into(),
            agent_phone_number_id: "phnum_1".into(),
            scheduled_time_unix: None,
            phone_provider: None,
            group: self.group_id.map(|group_id| GroupPart {
                group_id,
                call_id: format!("call-{}", self.n),
                part: 0,
                parts: 1,
            }),
            requested_by: "user:7".into(),
            requested_at: at(i64::from(self.n)),
            recipients: vec![],
        }
    }

    /// The provider's words.
    pub fn snapshot(&self, status: &str, retry_count: i64, secs: i64) -> Snapshot {
        Snapshot {
            id: self.provider_id(),
            name: format!("Campaña {}", self.n),
            status: status.into(),
            agent_id: "agent_1".into(),
            agent_name: Some("Cobranzas".into()),
            phone_number_id: Some("phnum_1".into()),
            phone_provider: Some("twilio".into()),
            created_at_unix: at(2).timestamp(),
            last_updated_at_unix: at(secs).timestamp(),
            total_calls_scheduled: self.recipients as i64,
            retry_count,
            ..Snapshot::default()
        }
    }

    /// An event of its stream.
    pub fn event(&self, event: batch::Event, secs: i64) -> Told {
        self.event_of(self.id(), event, secs)
    }

    /// An event of another stream that tells of the same batch.
    pub fn event_of(&self, stream: String, event: batch::Event, secs: i64) -> Told {
        Told {
            fact: Fact {
                stream: StreamId::batch(stream),
                event: Event::Batch(event),
                occurred_at: Some(at(secs)),
            },
            provider: None,
        }
    }

    pub fn requested(&self) -> Told {
        let object = |value: serde_json::Value| value.as_object().cloned().unwrap_or_default();
        let recipient = |r: usize| Recipient {
            phone_number: PhoneNumber::parse(&self.phone(r)).unwrap(),
            dynamic_variables: object(json!({"name": format!("Cliente {r}")})),
            client_id: i32::try_from(r).ok(),
        };
        let order = Requested {
            recipients: (0..self.recipients).map(recipient).collect(),
            ..self.order()
        };
        self.event(batch::Event::Requested(Box::new(order)), 0)
    }

    /// Ordered, sent and taken.
    pub fn submitted(&self) -> Vec<Told> {
        let submitted = Submitted {
            attempt: 1,
            adopted: false,
            batch: self.snapshot("pending", 0, 2),
        };
        vec![
            self.requested(),
            self.event(batch::Event::SubmitAttempted(Attempted { attempt: 1 }), 1),
            self.event(batch::Event::Submitted(Box::new(submitted)), 2),
        ]
    }

    /// A line of the provider's list.
    pub fn seen(&self, r: usize, retry: Option<i64>, status: &str, secs: i64) -> RecipientSeen {
        RecipientSeen {
            conversation_id: retry.map(|retry| self.conversation(r, retry)),
            phone_number: Some(self.phone(r)),
            created_at_unix: Some(at(2).timestamp()),
            ..RecipientSeen::new(self.recipient(r), status, at(secs).timestamp())
        }
    }

    /// What the provider's list said.
    pub fn observed(
        &self,
        status: &str,
        retry_count: i64,
        secs: i64,
        recipients: Vec<RecipientSeen>,
    ) -> Told {
        let observed = Observed {
            batch: self.snapshot(status, retry_count, secs),
            recipients,
        };
        self.event(batch::Event::Observed(Box::new(observed)), secs)
    }

    /// The report of a call that began so many seconds after the beginning and
    /// lasted so many.
    pub fn reported(&self, r: usize, retry: i64, began: i64, lasted: i64) -> Told {
        let report = Completed {
            conversation_id: self.conversation(r, retry),
            call_sid: Some(self.sid(r, retry)),
            phone_number: Some(self.phone(r)),
            started_at: Some(at(began)),
            duration_secs: Some(lasted),
            batch_id: Some(self.provider_id()),
            batch_recipient_id: Some(self.recipient(r)),
            ..completed(0)
        };
        let event = call::Event::Completed(Box::new(report));
        self.call(self.conversation(r, retry), event, began + lasted + 5)
    }

    /// A call could not be started.
    pub fn not_started(&self, r: usize, retry: i64, secs: i64) -> Told {
        let event = call::Event::InitiationFailed(InitiationFailed {
            conversation_id: self.conversation(r, retry),
            agent_id: Some("agent_1".into()),
            reason: "no-answer".into(),
            call_sid: Some(self.sid(r, retry)),
            carrier: Some("twilio".into()),
            phone_number: Some(self.phone(r)),
            agent_number: None,
            sip_status: None,
            detail: None,
        });
        self.call(self.conversation(r, retry), event, secs)
    }

    /// A callback of the carrier.
    pub fn leg(&self, r: usize, retry: i64, outcome: Outcome, secs: i64) -> Told {
        let event = call::Event::Progressed(Progressed {
            call_sid: self.sid(r, retry),
            outcome,
            provider_status: outcome.as_str().into(),
            sequence_number: None,
            direction: Some(Direction::Outbound),
            phone_number: Some(self.phone(r)),
            agent_number: None,
            duration_secs: (outcome != Outcome::InProgress).then_some(31),
            sip_status: None,
            recording_url: None,
        });
        self.call(self.sid(r, retry), event, secs)
    }

    fn call(&self, stream: String, event: call::Event, secs: i64) -> Told {
        Told {
            fact: Fact {
                stream: StreamId::call(stream),
                event: Event::Call(event),
                occurred_at: Some(at(secs)),
            },
            provider: Some(Provider::Elevenlabs),
        }
    }

    /// What its own stream tells of a whole campaign, in its order. Of four
    /// recipients the first is talked with, the second at the second try only,
    /// the third's machine answers, and the last is never reached.
    pub fn stream(&self) -> Vec<Told> {
        let seen = |of: fn(usize) -> Option<Line>, secs: i64| {
            let lines = (0..self.recipients).filter_map(move |r| Some((r, of(r)?)));
            lines
                .map(|(r, (retry, status))| self.seen(r, retry, status, secs + r as i64 % 7))
                .collect::<Vec<_>>()
        };
        let first_end = |r: usize| match r % 4 {
            0 => Some((Some(0), "completed")),
            2 => Some((Some(0), "voicemail")),
            _ => Some((Some(0), "failed")),
        };
        let last_end = |r: usize| match r % 4 {
            1 => Some((Some(1), "completed")),
            3 => Some((Some(1), "failed")),
            _ => None,
        };
        let ask = batch::Event::RetryRequested(RetryRequested {
            requested_by: "user:7".into(),
            retry_count: 0,
        });
        let answer = Retried {
            retried_count: (self.recipients / 2) as u32,
            batch: self.snapshot("pending", 1, 81),
        };
        let mut facts = self.submitted();
        facts.extend([
            self.observed(
                "in_progress",
                0,
                20,
                seen(|_| Some((Some(0), "initiated")), 10),
            ),
            self.observed("completed", 0, 70, seen(first_end, 50)),
            self.event(ask, 80),
            self.event(batch::Event::RetryAttempted(Attempted { attempt: 1 }), 80),
            self.event(batch::Event::Retried(Box::new(answer)), 81),
            self.observed(
                "pending",
                1,
                82,
                seen(|r| (r % 2 == 1).then_some((None, "pending")), 81),
            ),
            self.observed("completed", 1, 150, seen(last_end, 120)),
        ]);
        facts
    }

    /// The webhooks of that campaign.
    pub fn webhooks(&self) -> Vec<Told> {
        let mut facts = Vec::new();
        for r in 0..self.recipients {
            let mut talk = |retry: i64, began: i64| {
                facts.push(self.leg(r, retry, Outcome::InProgress, began));
                facts.push(self.leg(r, retry, Outcome::Completed, began + 31));
                facts.push(self.reported(r, retry, began, 30));
            };
            match r % 4 {
                1 => talk(1, 90),
                3 => {}
                _ => talk(0, 20),
            }
            if r % 2 == 1 {
                facts.push(self.not_started(r, 0, 45));
                facts.push(self.leg(r, 0, Outcome::Failed, 44));
            }
            if r % 4 == 3 {
                facts.push(self.not_started(r, 1, 110));
            }
        }
        facts
    }
}

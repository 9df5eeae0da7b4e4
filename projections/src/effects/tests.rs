use chrono::{DateTime, Duration, Utc};
use domain::conversation::{
    self, Call, Changed, Event as Decision, FirstMessage, MessageWritten, Started,
};
use domain::effect::{
    Answered, Attempted, Event as Outcome, Failed, Part, Remedy, Retried, Sent, Uncertain, code_id,
    part_id, turn_id,
};
use domain::event::Recorded;
use domain::message::{self, Kind, Received, Status, StatusChanged};
use domain::{Channel, Event, PhoneIndex, PhoneNumber, Provider, otp};

use super::fold::Tables;
use super::row::{Effect, Request, State};

const ANA: &str = "+573001234567";

fn phones() -> PhoneIndex {
    PhoneIndex::new(b"a key")
}

fn lane() -> String {
    conversation::id(ANA, &phones())
}

/// A ledger that is folded as it grows.
#[derive(Default)]
struct Ledger {
    tables: Tables,
    head: i64,
}

impl Ledger {
    fn add(&mut self, kind: &str, id: &str, event: Event) -> i64 {
        self.head += 1;
        let at = DateTime::<Utc>::UNIX_EPOCH + Duration::seconds(self.head);
        self.tables.fold(
            &Recorded {
                position: self.head,
                aggregate_type: kind.into(),
                aggregate_id: id.into(),
                sequence: 1,
                event,
                occurred_at: at,
                recorded_at: at,
                delivery_id: None,
                provider: Some(Provider::Twilio),
            },
            &phones(),
        );
        self.head
    }

    /// Ana writes; gives the id of the turn that she is owed, if she is.
    fn hears(&mut self, content: &str) -> String {
        let received = Received {
            message_id: None,
            channel: Channel::Whatsapp,
            contact: ANA.into(),
            contact_name: None,
            our_address: None,
            kind: Kind::Text,
            content: content.into(),
            media: vec![],
            location: None,
            button: None,
            reply_to: None,
            forwarded: false,
        };
        let event = message::Event::Received(Box::new(received));
        turn_id(self.add("chat", "wa_1", Event::Message(event)))
    }

    fn decide(&mut self, event: Decision) {
        self.add("conversation", &lane(), Event::Conversation(event));
    }

    fn happens(&mut self, id: &str, event: Outcome) {
        self.add("effect", id, Event::Effect(event));
    }

    fn answers(&mut self, turn: &str, parts: usize) {
        let parts = (1..=parts).map(|n| Part {
            effect_id: part_id(turn, n),
            content: format!("parte {n}"),
        });
        self.happens(
            turn,
            Outcome::Answered(Box::new(Answered {
                attempt: 1,
                agent_id: "agent_1".into(),
                session_id: None,
                parts: parts.collect(),
            })),
        );
    }

    fn sends(&mut self, id: &str, sid: &str) {
        self.happens(
            id,
            Outcome::Sent(Box::new(Sent {
                attempt: 1,
                adopted: false,
                provider: Provider::Twilio,
                channel: Channel::Whatsapp,
                message_id: Some(sid.into()),
                interaction_id: "wa_1".into(),
                contact: ANA.into(),
                our_address: None,
                content: "…".into(),
                content_sid: None,
            })),
        );
    }

    fn fails(&mut self, id: &str, remedy: Remedy) {
        self.happens(
            id,
            Outcome::Failed(Failed {
                attempt: 1,
                status: Some(400),
                code: Some("21610".into()),
                message: "no".into(),
                remedy,
                retry_at: None,
            }),
        );
    }

    fn bounces(&mut self, sid: &str) {
        let change = StatusChanged {
            message_id: sid.into(),
            channel: Channel::Whatsapp,
            contact: ANA.into(),
            our_address: None,
            status: Status::Undelivered,
            error_code: Some("63016".into()),
            error_message: None,
        };
        let event = message::Event::StatusChanged(change);
        self.add("chat", "wa_1", Event::Message(event));
    }

    fn effect(&self, id: &str) -> &Effect {
        &self.tables.effects.now[id]
    }

    fn state(&self, id: &str) -> Option<State> {
        Some(self.tables.effects.now.get(id)?.state)
    }

    /// What is open, in the order in which the lane is worked through.
    fn queue(&self) -> Vec<String> {
        let mut open: Vec<_> = self.tables.effects.now.values().collect();
        open.retain(|effect| effect.state.is_open());
        open.sort_by_key(|effect| (effect.ord, effect.part));
        open.iter().map(|effect| effect.id.clone()).collect()
    }
}

fn changed() -> Changed {
    Changed {
        by: "user:7".into(),
        reason: None,
    }
}

fn started(recipient: &str) -> Decision {
    Decision::Started(Box::new(Started {
        phone_number: PhoneNumber::parse(ANA).unwrap(),
        call: Call {
            recipient_id: recipient.into(),
            agent_id: "agent_1".into(),
            ..Call::default()
        },
        message: FirstMessage {
            effect_id: domain::effect::first_message_id(recipient),
            content: "¡Hola Ana!".into(),
            template: None,
        },
        requested_by: "service".into(),
    }))
}

fn written(id: &str) -> Decision {
    Decision::MessageWritten(MessageWritten {
        effect_id: id.into(),
        phone_number: PhoneNumber::parse(ANA).unwrap(),
        content: "Le escribe Luis".into(),
        by: "user:7".into(),
    })
}

#[test]
fn an_answer_goes_out_before_the_next_message_is_answered() {
    let mut ledger = Ledger::default();
    let (first, second) = (ledger.hears("uno"), ledger.hears("dos"));
    assert_eq!(ledger.queue(), [first.clone(), second.clone()]);
    ledger.answers(&first, 2);
    let parts = [part_id(&first, 1), part_id(&first, 2)];
    assert_eq!(ledger.queue(), [&parts[..], &[second]].concat());
    ledger.sends(&parts[0], "SM1");
    assert_eq!(ledger.state(&parts[0]), Some(State::Done));
    let Request::Message { content, .. } = &ledger.effect(&parts[1]).request else {
        panic!("it is a message");
    };
    assert_eq!(content, "parte 2");
}

#[test]
fn an_answer_that_is_told_twice_is_owed_once() {
    let mut ledger = Ledger::default();
    let turn = ledger.hears("uno");
    ledger.answers(&turn, 1);
    ledger.sends(&part_id(&turn, 1), "SM1");
    ledger.answers(&turn, 1);
    assert!(ledger.queue().is_empty());
}

#[test]
fn the_agent_is_silent_while_a_person_has_taken_over() {
    let mut ledger = Ledger::default();
    let waiting = ledger.hears("uno");
    let asked = ledger.hears("dos");
    let attempted = Attempted {
        attempt: 1,
        at: DateTime::UNIX_EPOCH,
    };
    ledger.happens(&asked, Outcome::Attempted(attempted));
    ledger.decide(Decision::Escalated(changed()));
    assert_eq!(ledger.state(&waiting), Some(State::Dropped));
    assert_eq!(ledger.state(&asked), Some(State::Attempted));
    ledger.answers(&asked, 1);
    assert_eq!(ledger.state(&part_id(&asked, 1)), Some(State::Dropped));
    let silent = ledger.hears("tres");
    assert_eq!(ledger.state(&silent), None, "nobody owes her the agent");
    ledger.decide(written("written_1"));
    assert_eq!(ledger.queue(), ["written_1"], "the person speaks");
    ledger.decide(Decision::Resumed(changed()));
    let again = ledger.hears("cuatro");
    assert_eq!(ledger.queue(), ["written_1".to_owned(), again]);
}

#[test]
fn a_closed_conversation_opens_when_the_client_writes() {
    let mut ledger = Ledger::default();
    ledger.decide(Decision::Closed(changed()));
    let turn = ledger.hears("¿Siguen ahí?");
    assert_eq!(ledger.queue(), [turn]);
}

#[test]
fn a_code_that_was_given_back_is_sent_no_more() {
    let effect = code_id("otp_1");
    let failed = |ledger: &mut Ledger| ledger.fails(&effect, Remedy::Retry);
    let uncertain = |ledger: &mut Ledger| {
        let uncertain = Uncertain {
            attempt: 1,
            reason: "cut short".into(),
        };
        ledger.happens(&effect, Outcome::Uncertain(uncertain));
    };
    let bounced = |ledger: &mut Ledger| {
        ledger.sends(&effect, "SM1");
        ledger.bounces("SM1");
    };
    let sent = |ledger: &mut Ledger| ledger.sends(&effect, "SM1");
    type Happens<'a> = &'a dyn Fn(&mut Ledger);
    let after: [(Happens<'_>, State); 4] = [
        (&failed, State::Dropped),
        (&uncertain, State::Dropped),
        (&bounced, State::Dropped),
        (&sent, State::Done),
    ];
    for (happens, state) in after {
        let mut ledger = Ledger::default();
        let requested = otp::Requested {
            challenge_id: "otp_1".into(),
            phone_number: PhoneNumber::parse(ANA).unwrap(),
            purpose: "login".into(),
            expires_at: DateTime::<Utc>::UNIX_EPOCH + Duration::hours(1),
            attempts_max: 5,
            requested_by: "service".into(),
        };
        let requested = otp::Event::Requested(requested);
        ledger.add("otp", "otp_1", Event::Otp(requested));
        happens(&mut ledger);
        let verified = otp::Verified {
            attempt: 1,
            at: DateTime::<Utc>::UNIX_EPOCH,
        };
        ledger.add("otp", "otp_1", Event::Otp(otp::Event::Verified(verified)));
        assert_eq!(ledger.state(&effect), Some(state));
    }
}

#[test]
fn who_opts_out_is_written_to_no_more_until_opting_in() {
    let mut ledger = Ledger::default();
    let turn = ledger.hears("uno");
    let stop = ledger.hears("STOP");
    assert_eq!(ledger.state(&turn), Some(State::Dropped));
    assert_eq!(ledger.state(&stop), None);
    let silent = ledger.hears("Hola");
    assert_eq!(ledger.state(&silent), None);
    ledger.decide(written("written_1"));
    assert_eq!(ledger.state("written_1"), Some(State::Dropped));
    ledger.hears("START");
    let again = ledger.hears("Hola");
    assert_eq!(ledger.queue(), [again]);
}

#[test]
fn an_opt_out_that_the_provider_knows_of_counts_too() {
    let mut ledger = Ledger::default();
    ledger.decide(started("rcpt_1"));
    ledger.decide(written("written_1"));
    let first = domain::effect::first_message_id("rcpt_1");
    ledger.fails(&first, Remedy::OptOut);
    assert_eq!(ledger.state(&first), Some(State::Dead));
    assert_eq!(ledger.state("written_1"), Some(State::Dropped));
    ledger.decide(started("rcpt_2"));
    let second = domain::effect::first_message_id("rcpt_2");
    assert_eq!(ledger.state(&second), Some(State::Dropped));
}

#[test]
fn a_recipient_is_written_to_once_under_whatever_number() {
    let mut ledger = Ledger::default();
    ledger.decide(started("rcpt_1"));
    let first = domain::effect::first_message_id("rcpt_1");
    ledger.sends(&first, "SM1");
    ledger.decide(started("rcpt_1"));
    assert!(ledger.queue().is_empty());
}

#[test]
fn a_failure_that_comes_before_or_after_the_answer_is_looked_at_once() {
    for early in [true, false] {
        let mut ledger = Ledger::default();
        ledger.decide(written("written_1"));
        if early {
            ledger.bounces("SM1");
        }
        ledger.sends("written_1", "SM1");
        if !early {
            ledger.bounces("SM1");
        }
        assert_eq!(ledger.state("written_1"), Some(State::Bounced));
        ledger.fails("written_1", Remedy::Template);
        assert!(ledger.effect("written_1").as_template);
        ledger.sends("written_1", "SM2");
        ledger.bounces("SM1");
        assert_eq!(ledger.state("written_1"), Some(State::Done));
    }
}

#[test]
fn what_was_given_up_is_owed_again_when_a_person_says_so() {
    let mut ledger = Ledger::default();
    let turn = ledger.hears("uno");
    ledger.fails(&turn, Remedy::DeadLetter);
    assert!(ledger.queue().is_empty());
    let retried = Retried {
        retried_by: "user:7".into(),
    };
    ledger.happens(&turn, Outcome::Retried(retried));
    assert_eq!(ledger.queue(), [turn]);
}

#[test]
fn who_opts_out_while_a_message_is_under_way_is_not_tried_again() {
    for said in ["STOP", "escalate"] {
        let mut ledger = Ledger::default();
        let turn = ledger.hears("uno");
        ledger.answers(&turn, 2);
        let (sending, lost) = (part_id(&turn, 1), part_id(&turn, 2));
        let attempted = Attempted {
            attempt: 1,
            at: DateTime::UNIX_EPOCH,
        };
        ledger.happens(&sending, Outcome::Attempted(attempted.clone()));
        ledger.fails(&lost, Remedy::DeadLetter);
        match said {
            "STOP" => drop(ledger.hears(said)),
            _ => ledger.decide(Decision::Escalated(changed())),
        }
        assert_eq!(ledger.state(&sending), Some(State::Attempted));
        ledger.fails(&sending, Remedy::Retry);
        assert_eq!(ledger.state(&sending), Some(State::Dropped), "{said}");
        let retried = Retried {
            retried_by: "user:7".into(),
        };
        ledger.happens(&lost, Outcome::Retried(retried));
        assert_eq!(ledger.state(&lost), Some(State::Dropped), "{said}");
    }
}

#[test]
fn yes_is_an_answer_like_others_from_who_never_opted_out() {
    let mut ledger = Ledger::default();
    let turn = ledger.hears("YES");
    assert_eq!(ledger.queue(), [turn]);
}

#[test]
fn the_schedule_goes_by_failures_and_begins_anew_when_a_person_asks() {
    let mut ledger = Ledger::default();
    let turn = ledger.hears("uno");
    ledger.fails(&turn, Remedy::Retry);
    ledger.fails(&turn, Remedy::DeadLetter);
    assert_eq!(ledger.effect(&turn).failures, 2);
    let retried = Retried {
        retried_by: "user:7".into(),
    };
    ledger.happens(&turn, Outcome::Retried(retried));
    assert_eq!(ledger.effect(&turn).failures, 0);
}

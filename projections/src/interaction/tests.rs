//! The fold, without a database.

use chrono::TimeDelta;
use domain::call::{self, Completed, Medium, Outcome};
use domain::event::Recorded;
use domain::message::Status;
use domain::{Channel, Direction, Provider, effect};
use proptest::prelude::*;

use super::*;
use crate::facts::*;

/// The facts as the ledger has them when they come in this order, one a second.
fn ledger(facts: &[Told]) -> Vec<Recorded> {
    let record = |(n, told): (usize, &Told)| {
        let fact = told.fact.clone();
        let recorded_at = at(1_000 + n as i64);
        Recorded {
            position: n as i64 + 1,
            aggregate_type: fact.stream.aggregate_type.to_owned(),
            aggregate_id: fact.stream.aggregate_id,
            sequence: 1,
            event: fact.event,
            occurred_at: fact.occurred_at.unwrap_or(recorded_at),
            recorded_at,
            delivery_id: None,
            provider: told.provider,
        }
    };
    facts.iter().enumerate().map(record).collect()
}

fn fold(facts: &[Told]) -> Tables {
    let mut tables = Tables::default();
    for recorded in ledger(facts) {
        tables.fold(&recorded);
    }
    tables
}

/// The rows without what legitimately depends on the order of arrival.
fn timeless(mut tables: Tables) -> Tables {
    for row in tables.interactions.values_mut() {
        (row.first_position, row.last_position) = (0, 0);
    }
    for row in tables.calls.values_mut() {
        row.sources.forget_positions();
    }
    for row in tables.messages.values_mut() {
        row.first_position = 0;
    }
    for row in &mut tables.events {
        row.position = 0;
    }
    tables.events.sort_by_key(|row| format!("{row:?}"));
    tables.absorbed.clear();
    tables
}

#[test]
fn a_telephone_call_is_one_interaction() {
    let tables = fold(&whole_call(1));
    assert_eq!(tables.interactions.keys().collect::<Vec<_>>(), ["conv_1"]);
    assert_eq!(
        tables.interactions["conv_1"],
        Interaction {
            id: "conv_1".into(),
            channel: Channel::Call,
            provider: Some(Provider::Elevenlabs),
            direction: Some(Direction::Outbound),
            status: "completed".into(),
            phone_number: Some(CLIENT.into()),
            agent_id: Some("agent_1".into()),
            batch_id: Some("btcal_1".into()),
            conversation_id: Some("conv_1".into()),
            call_sid: Some("CA1".into()),
            started_at: at(10),
            ended_at: Some(at(104)),
            last_event_at: at(195),
            duration_secs: Some(94),
            summary: Some("El cliente acuerda pagar el 3 de noviembre.".into()),
            message_count: 2,
            first_position: 1,
            last_position: 6,
        }
    );
    let call = &tables.calls["conv_1"];
    assert_eq!(call.carrier_status.as_deref(), Some("completed"));
    assert_eq!((call.audio_bytes, call.has_audio), (Some(4_096), true));
    assert!(
        tables
            .events
            .iter()
            .all(|event| event.interaction_id == "conv_1")
    );
    assert_eq!(tables.aliases["CA1"], "conv_1");
}

#[test]
fn a_call_that_only_the_carrier_tells_of_stands_by_itself() {
    let tables = fold(&whole_call(1)[..4]);
    let row = &tables.interactions["CA1"];
    assert_eq!(
        (row.status.as_str(), row.provider),
        ("completed", Some(Provider::Twilio))
    );
    assert_eq!((row.started_at, row.ended_at), (at(1), Some(at(106))));
    assert_eq!(
        (row.duration_secs, row.conversation_id.as_ref()),
        (Some(96), None)
    );
    assert_eq!(row.call_sid.as_deref(), Some("CA1"));
}

#[test]
fn a_call_moves_on_as_its_callbacks_come() {
    let whole = whole_call(1);
    let status = |n| fold(&whole[..n]).interactions["CA1"].status.clone();
    assert_eq!(
        (status(1), status(2)),
        ("pending".into(), "in_progress".into())
    );
    assert_eq!(
        (status(3), status(4)),
        ("in_progress".into(), "completed".into())
    );
}

#[test]
fn a_call_that_could_not_be_started_has_failed_whatever_the_carrier_says() {
    let tables = fold(&[progressed(2, 2, "canceled", 30), failed(2, 31)]);
    let row = &tables.interactions["conv_2"];
    assert_eq!(
        (row.status.as_str(), row.ended_at),
        ("failed", Some(at(31)))
    );
    let call = &tables.calls["conv_2"];
    assert_eq!(call.failure_reason.as_deref(), Some("no-answer"));
    assert_eq!(
        (call.sip_status, call.error.as_deref()),
        (Some(487), Some("no answer"))
    );
}

#[test]
fn a_recording_alone_says_that_the_call_was_talked_on() {
    let tables = fold(&[audio(3, 60)]);
    assert_eq!(tables.interactions["conv_3"].status, "completed");
}

#[test]
fn a_later_analysis_replaces_the_earlier_one_even_if_it_comes_first() {
    let later = Completed {
        summary: Some("Otra cosa".into()),
        ..completed(1)
    };
    let both = [report(completed(1), 190), report(later, 500)];
    for order in [[0, 1], [1, 0]] {
        let tables = fold(&order.map(|n| both[n].clone()));
        assert_eq!(
            tables.interactions["conv_1"].summary.as_deref(),
            Some("Otra cosa")
        );
        assert_eq!(tables.events.len(), 2);
    }
}

#[test]
fn a_leg_that_two_sessions_claim_is_the_first_ones() {
    let thief = Completed {
        conversation_id: "conv_9".into(),
        ..completed(1)
    };
    let facts = [
        progressed(1, 0, "ringing", 1),
        report(completed(1), 190),
        report(thief, 191),
        progressed(1, 1, "completed", 106),
    ];
    let tables = fold(&facts);
    assert_eq!(tables.aliases["CA1"], "conv_1");
    assert_eq!(
        tables.calls["conv_1"].carrier_status.as_deref(),
        Some("completed")
    );
    assert_eq!(tables.calls["conv_9"].carrier_status, None);
}

#[test]
fn a_session_cannot_be_claimed_as_another_ones_leg() {
    let thief = Completed {
        call_sid: Some("conv_1".into()),
        ..completed(9)
    };
    for facts in [
        [report(completed(1), 1), report(thief.clone(), 2)],
        [report(thief, 2), report(completed(1), 1)],
    ] {
        let tables = fold(&facts);
        assert_eq!(tables.interactions.len(), 2);
        assert_eq!(
            tables.calls["conv_1"].batch_recipient_id.as_deref(),
            Some("rcpt_1")
        );
    }
}

#[test]
fn a_text_session_of_our_own_is_no_interaction() {
    let text = Completed {
        medium: Medium::Text,
        ..completed(4)
    };
    assert_eq!(fold(&[report(text, 9)]), Tables::default());
}

#[test]
fn the_turns_of_a_whatsapp_session_are_its_messages() {
    let whatsapp = Completed {
        medium: Medium::Whatsapp,
        call_sid: None,
        ..completed(4)
    };
    let (detail, _) = fold(&[report(whatsapp, 190)])
        .into_detail("conv_4")
        .unwrap();
    assert_eq!(detail.interaction.channel, Channel::Whatsapp);
    let said: Vec<_> = detail
        .messages
        .iter()
        .map(|m| (m.direction, m.content.as_deref(), m.created_at))
        .collect();
    assert_eq!(
        said,
        [
            (
                Direction::Outbound,
                Some("Hola Ana, ¿tienes un minuto?"),
                at(10)
            ),
            (Direction::Inbound, Some("Sí, decime."), at(13)),
        ]
    );
}

#[test]
fn a_chat_gathers_its_messages_and_their_furthest_status() {
    let mut facts = whole_chat(CLIENT);
    facts.reverse();
    let tables = fold(&facts);
    let id = chat_id(CLIENT);
    let row = &tables.interactions[&id];
    assert_eq!((row.status.as_str(), row.message_count), ("active", 2));
    assert_eq!(
        (row.direction, row.started_at),
        (Some(Direction::Inbound), at(20))
    );
    let answer = &tables.messages[&(id, "SMb573001234567".into())];
    assert_eq!(
        (answer.status, answer.direction),
        (Status::Read, Direction::Outbound)
    );
    assert_eq!(answer.content.as_deref(), Some("Mañana por la tarde."));
    assert_eq!(
        (answer.sent_at, answer.delivered_at, answer.read_at),
        (Some(at(25)), Some(at(27)), Some(at(40)))
    );
}

#[test]
fn messages_without_an_id_are_told_apart_by_their_position() {
    let tables = fold(&[
        received(CLIENT, None, "hola", 1),
        received(CLIENT, None, "hola", 1),
    ]);
    let ids: Vec<_> = tables.messages.keys().map(|(_, id)| id.as_str()).collect();
    assert_eq!(ids, ["ev-1", "ev-2"]);
}

#[test]
fn an_sms_is_an_interaction_of_one_message() {
    let tables = fold(&whole_sms("SM7"));
    let row = &tables.interactions["SM7"];
    assert_eq!(
        (row.channel, row.status.as_str(), row.message_count),
        (Channel::Sms, "undelivered", 1)
    );
    let message = &tables.messages[&("SM7".into(), "SM7".into())];
    assert_eq!(
        (message.content.as_ref(), message.error_code.as_deref()),
        (None, Some("63016"))
    );
    assert_eq!(
        (message.sent_at, message.failed_at),
        (Some(at(51)), Some(at(55)))
    );
    let late = fold(
        &[
            whole_sms("SM7"),
            vec![sms_status("SM7", Status::Delivered, 90)],
        ]
        .concat(),
    );
    assert_eq!(late.interactions["SM7"].status, "delivered");
    assert_eq!(
        late.messages[&("SM7".into(), "SM7".into())].error_code,
        None
    );
}

#[test]
fn a_code_its_sms_and_its_verification_are_one_interaction() {
    let tables = fold(&whole_code(1));
    assert_eq!(tables.interactions.keys().collect::<Vec<_>>(), ["otp_1"]);
    let row = &tables.interactions["otp_1"];
    assert_eq!(
        (row.channel, row.direction, row.provider),
        (
            Channel::Sms,
            Some(Direction::Outbound),
            Some(Provider::Twilio)
        )
    );
    assert_eq!((row.status.as_str(), row.message_count), ("verified", 1));
    assert_eq!((row.started_at, row.last_event_at), (at(60), at(75)));
    assert_eq!(row.phone_number.as_deref(), Some(CLIENT));
    let message = &tables.messages[&("otp_1".into(), "SMcode1".into())];
    assert_eq!(message.content.as_deref(), Some("Tu código es ******"));
    assert_eq!(
        (message.status, message.delivered_at),
        (Status::Delivered, Some(at(65)))
    );
    assert_eq!(tables.aliases["SMcode1"], "otp_1");
    let types: Vec<_> = tables.events.iter().map(|it| it.r#type).collect();
    assert_eq!(types.len(), 8);
    assert_eq!(
        types[5..],
        ["otp.attempted", "otp.attempted", "otp.verified"]
    );
}

#[test]
fn a_code_stands_as_its_sms_does_until_it_is_given_back() {
    let whole = whole_code(1);
    let status = |n| fold(&whole[..n]).interactions["otp_1"].status.clone();
    let stood: Vec<_> = (1..=8).map(status).collect();
    assert_eq!(
        stood,
        [
            "requested",
            "queued",
            "queued",
            "sent",
            "delivered",
            "delivered",
            "delivered",
            "verified"
        ]
    );
}

#[test]
fn callbacks_that_come_before_anybody_says_whose_they_are_become_the_codes() {
    let mut facts = whole_code(1);
    facts.swap(1, 4);
    let before = fold(&facts[..3]);
    assert_eq!(before.interactions.len(), 2);
    let after = fold(&facts);
    assert_eq!(timeless(after), timeless(fold(&whole_code(1))));
}

#[test]
fn what_we_wrote_by_whatsapp_has_its_words_once_the_provider_took_it() {
    let id = chat_id(CLIENT);
    let facts = [
        status(CLIENT, "SMours", Status::Delivered, 42),
        written(Provider::Twilio, CLIENT, "SMours", 41),
        written(Provider::Builderbot, CLIENT, "BB1", 43),
    ];
    let tables = fold(&facts);
    let message = &tables.messages[&(id.clone(), "SMours".into())];
    assert_eq!(message.content.as_deref(), Some("Tu código es ******"));
    assert_eq!(message.status, Status::Delivered);
    assert_eq!(tables.interactions[&id].message_count, 1);
    let other = tables.interactions.values().find(|row| row.id != id);
    let other = other.expect("that with builderbot");
    assert_eq!((other.status.as_str(), other.message_count), ("active", 0));
    assert_eq!(tables.messages.len(), 1, "builderbot tells of its own");
}

#[test]
fn nonsense_that_a_provider_sends_refuses_nothing() {
    let odd = Completed {
        started_at: chrono::DateTime::from_timestamp(-99_999_999_999, 0),
        duration_secs: Some(i64::MAX),
        agent_id: "a".repeat(10_000),
        ..completed(5)
    };
    let row = &fold(&[report(odd, 190)]).interactions["conv_5"];
    assert_eq!((row.started_at, row.ended_at), (at(190), Some(at(190))));
    assert!(row.agent_id.as_ref().unwrap().len() < 100);
}

/// Facts of one call, one chat and one SMS, of every kind and more than once.
fn tangle() -> Vec<Told> {
    let analysed_again = Completed {
        summary: Some("Otra cosa".into()),
        ..completed(1)
    };
    let unfinished = Completed {
        outcome: Outcome::InProgress,
        call_sid: None,
        ..completed(1)
    };
    let mut facts = whole_call(1);
    facts.extend([
        progressed(1, 3, "busy", 106),
        progressed(1, 4, "completed", 107),
        failed(1, 12),
        report(analysed_again, 400),
        report(unfinished, 100),
        audio(1, 401),
    ]);
    facts.extend(whole_chat(CLIENT));
    facts.push(status(CLIENT, "SMb573001234567", Status::Failed, 33));
    facts.push(status(CLIENT, "SMz", Status::Accepted, 20));
    facts.push(status(CLIENT, "SMz", Status::Scheduled, 19));
    facts.push(status(CLIENT, "SMz", Status::Receiving, 21));
    facts.extend(whole_sms("SM7"));
    facts.extend(whole_code(1));
    let twice = effect::Duplicated {
        message_id: "SMtwice".into(),
    };
    facts.extend([
        of_code(1, effect::Event::Duplicated(twice), 66),
        sms_status("SMtwice", Status::Undelivered, 67),
        written(Provider::Twilio, CLIENT, "SMours", 41),
        status(CLIENT, "SMours", Status::Sent, 42),
        written(Provider::Builderbot, CLIENT, "BB1", 43),
    ]);
    facts
}

proptest! {
    #[test]
    fn any_order_of_the_same_facts_ends_in_the_same_rows(
        facts in proptest::sample::subsequence(tangle(), 1..=tangle().len()),
        order in Just((0..tangle().len()).collect::<Vec<_>>()).prop_shuffle(),
    ) {
        let shuffled: Vec<_> = order.iter().filter_map(|&n| facts.get(n)).cloned().collect();
        prop_assert_eq!(timeless(fold(&facts)), timeless(fold(&shuffled)));
    }
}

#[test]
fn a_whole_call_ends_the_same_in_each_of_its_720_orders() {
    let expected = timeless(fold(&whole_call(1)));
    let mut orders = 0;
    each_order(&mut whole_call(1), 0, &mut |order| {
        orders += 1;
        assert_eq!(timeless(fold(order)), expected);
    });
    assert_eq!(orders, 720);
}

#[test]
fn a_code_ends_the_same_in_each_order_of_its_sending_and_its_callbacks() {
    let [start, sending @ .., _, _, _] = &whole_code(1)[..] else {
        panic!("a code has eight facts")
    };
    let expected = timeless(fold(&whole_code(1)[..5]));
    let mut orders = 0;
    each_order(&mut sending.to_vec(), 0, &mut |order| {
        orders += 1;
        let facts = [std::slice::from_ref(start), order].concat();
        assert_eq!(timeless(fold(&facts)), expected);
    });
    assert_eq!(orders, 24);
}

fn each_order(facts: &mut Vec<Told>, fixed: usize, check: &mut impl FnMut(&[Told])) {
    if fixed == facts.len() {
        return check(facts);
    }
    for n in fixed..facts.len() {
        facts.swap(fixed, n);
        each_order(facts, fixed + 1, check);
        facts.swap(fixed, n);
    }
}

#[test]
fn a_message_of_a_session_has_its_time_in_the_call() {
    let turn = call::Turn {
        role: "user".into(),
        message: Some("x".into()),
        time_in_call_secs: Some(i64::MAX),
        tools: vec![],
    };
    let odd = Completed {
        medium: Medium::Sms,
        call_sid: None,
        transcript: vec![turn],
        ..completed(4)
    };
    let (detail, _) = fold(&[report(odd, 190)]).into_detail("conv_4").unwrap();
    assert_eq!(detail.messages[0].created_at - at(10), TimeDelta::zero());
}

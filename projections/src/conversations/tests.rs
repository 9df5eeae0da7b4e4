//! The fold, without a database: all rows are in memory all the time.

use domain::conversation::{Event as Decision, Status as Speaker};
use domain::effect::{Duplicated, Event as Outcome, Remedy, Retried, Uncertain};
use domain::event::Recorded;
use domain::message::Status as Callback;
use domain::{Event, Provider};
use proptest::prelude::*;

use super::fold::Tables;
use super::message::Message;
use super::progress::Status;
use super::row::Conversation;
use super::stats::Quarter;
use crate::facts::*;
use crate::talk::written;
use crate::talk::*;

/// Folds facts in this order, so many at a time.
fn fold(facts: &[Told], at_a_time: usize) -> Tables {
    let mut tables = Tables::default();
    for few in ledger(facts).chunks(at_a_time) {
        for recorded in few {
            tables.take(recorded, &phones());
        }
        tables.settle();
        tables.tally();
        tables.written();
    }
    tables
}

fn ledger(facts: &[Told]) -> Vec<Recorded> {
    let record = |(n, told): (usize, &Told)| {
        let fact = told.fact.clone();
        Recorded {
            position: n as i64 + 1,
            aggregate_type: fact.stream.aggregate_type.to_owned(),
            aggregate_id: fact.stream.aggregate_id,
            sequence: 1,
            event: fact.event,
            occurred_at: fact.occurred_at.unwrap_or(at(0)),
            recorded_at: at(1_000_000),
            delivery_id: None,
            provider: told.provider,
        }
    };
    facts.iter().enumerate().map(record).collect()
}

fn talk(tables: &Tables) -> &Conversation {
    &tables.conversations.now[&talk_id(CLIENT)]
}

/// Author, words and status, as people see them.
fn shown(tables: &Tables) -> Vec<(&str, &str, Status)> {
    let mut rows: Vec<_> = tables.messages.now.values().collect();
    rows.sort_by_key(|row| row.place());
    rows.into_iter()
        .map(|row| (row.author.as_str(), row.content.as_str(), row.status))
        .collect()
}

fn numbers(tables: &Tables) -> Quarter {
    let all = tables.quarters.now.values();
    let mut sum = Quarter::empty(at(0));
    for row in all {
        sum.started += row.started;
        sum.opened += row.opened;
        sum.responded += row.responded;
        sum.sent += row.sent;
        sum.received += row.received;
        sum.response_count += row.response_count;
        sum.response_secs += row.response_secs;
    }
    sum
}

const FIRST: &str = "first_rcpt_1";

/// A call goes on, the client asks, the agent answers in two parts.
fn small_talk() -> Vec<Told> {
    vec![
        started(CLIENT, "rcpt_1", 0),
        attempted(FIRST, 1),
        taken(FIRST, Provider::Twilio, Some("SM1"), 2),
        status(CLIENT, "SM1", Callback::Delivered, 3),
        received(CLIENT, Some("SM2"), "¿Cuánto cuesta?", 60),
        answered(5, "a", &["Cien.", "¿Algo más?"], 64),
        attempted("a.1", 64),
        taken("a.1", Provider::Twilio, Some("SM3"), 65),
        attempted("a.2", 66),
        taken("a.2", Provider::Twilio, Some("SM4"), 67),
        status(CLIENT, "SM3", Callback::Read, 70),
    ]
}

#[test]
fn a_call_goes_on_in_writing() {
    let tables = fold(&small_talk(), 3);
    assert_eq!(
        shown(&tables),
        [
            ("first", "¡Hola Ana!", Status::Delivered),
            ("client", "¿Cuánto cuesta?", Status::Received),
            ("agent", "Cien.", Status::Read),
            ("agent", "¿Algo más?", Status::Sent),
        ]
    );
    let row = talk(&tables);
    assert_eq!(row.client_name.as_deref(), Some("Ana García"));
    assert_eq!(
        row.elevenlabs_conversation_id.as_deref(),
        Some("conv_rcpt_1")
    );
    assert_eq!(row.metadata.text_session_id.as_deref(), Some("conv_text_1"));
    assert_eq!((row.message_count, row.status), (4, Speaker::Active));
    assert_eq!((row.started_at, row.last_message_at), (at(0), at(67)));
    assert_eq!(row.last_inbound_at, Some(at(60)));
    let answer = &tables.messages.now["a.1"];
    assert_eq!(answer.in_reply_to.as_deref(), Some("SM2"));
    assert_eq!(answer.twilio_message_id.as_deref(), Some("SM3"));
    assert_eq!(
        answer.elevenlabs_response.as_ref().unwrap()["conversation_id"],
        "conv_text_1"
    );
}

#[test]
fn a_message_of_ours_is_there_as_soon_as_it_is_owed() {
    let facts = small_talk();
    for (so_far, status) in [
        (1, Status::Queued),
        (2, Status::Queued),
        (3, Status::Sent),
        (4, Status::Delivered),
    ] {
        let tables = fold(&facts[..so_far], 1);
        assert_eq!(tables.messages.now[FIRST].status, status, "{so_far}");
    }
}

#[test]
fn a_client_who_writes_by_himself_begins_a_conversation_and_a_group_does_not() {
    let group = "120363041234567890@g.us";
    let facts = [
        heard(CLIENT, "Hola", 5),
        heard(group, "Hola a todos", 6),
        echo(group, "Hola", 7),
        status("+573009999999", "SM9", Callback::Sent, 8),
    ];
    let tables = fold(&facts, 1);
    assert_eq!(tables.conversations.now.len(), 1);
    let row = talk(&tables);
    assert_eq!(row.client_name.as_deref(), Some("Ana 🌻"));
    assert_eq!(row.last_provider, Some(Provider::Builderbot));
    assert_eq!((row.agent_id.as_ref(), row.started_at), (None, at(5)));
    assert_eq!(numbers(&tables).started, 1);
    assert_eq!(numbers(&tables).opened, 0);
}

/// What becomes of the first message.
fn fate(facts: &[Told]) -> (Status, Option<String>) {
    let facts = [vec![started(CLIENT, "rcpt_1", 0)], facts.to_vec()].concat();
    let tables = fold(&facts, 2);
    let row = &tables.messages.now[FIRST];
    (row.status, row.error_code.clone())
}

fn told(event: Outcome) -> Told {
    effect(FIRST, event, 9)
}

#[test]
fn every_fate_of_a_message_has_its_status() {
    let out = |id: &str| taken(FIRST, Provider::Twilio, Some(id), 3);
    let says = |id: &str, word| status(CLIENT, id, word, 4);
    let refused = |remedy| refused(FIRST, "21211", remedy, 3);
    let bounced = |remedy| bounced(FIRST, "SM1", remedy, 5);
    let uncertain = Uncertain {
        attempt: 1,
        reason: "timed out".into(),
    };
    let uncertain = told(Outcome::Uncertain(uncertain));
    let retried = told(Outcome::Retried(Retried {
        retried_by: "user:7".into(),
    }));
    let code = |code: &str| Some(code.to_owned());
    for (facts, expected) in [
        (vec![attempted(FIRST, 2), uncertain], (Status::Queued, None)),
        (
            vec![refused(Remedy::Retry)],
            (Status::Queued, code("21211")),
        ),
        (
            vec![refused(Remedy::DeadLetter)],
            (Status::Failed, code("21211")),
        ),
        (
            vec![refused(Remedy::DeadLetter), retried],
            (Status::Queued, code("21211")),
        ),
        (
            vec![refused(Remedy::Retry), out("SM1")],
            (Status::Sent, None),
        ),
        (vec![dropped(FIRST, 3)], (Status::Dropped, None)),
        (
            vec![out("SM1"), says("SM1", Callback::Queued)],
            (Status::Sent, None),
        ),
        (
            vec![out("SM1"), says("SM1", Callback::Failed)],
            (Status::Failed, code("63016")),
        ),
        (
            vec![out("SM1"), says("SM1", Callback::Undelivered)],
            (Status::Undelivered, code("63016")),
        ),
        (
            vec![
                out("SM1"),
                says("SM1", Callback::Undelivered),
                says("SM1", Callback::Delivered),
            ],
            (Status::Delivered, None),
        ),
        (
            vec![
                out("SM1"),
                says("SM1", Callback::Undelivered),
                bounced(Remedy::Template),
            ],
            (Status::Queued, code("63016")),
        ),
        (
            vec![
                out("SM1"),
                says("SM1", Callback::Undelivered),
                bounced(Remedy::DeadLetter),
            ],
            (Status::Undelivered, code("63016")),
        ),
        (
            vec![
                out("SM1"),
                says("SM1", Callback::Failed),
                bounced(Remedy::Template),
                out("SM2"),
            ],
            (Status::Sent, None),
        ),
        (
            vec![
                out("SM1"),
                says("SM1", Callback::Failed),
                bounced(Remedy::Template),
                says("SM2", Callback::Read),
                out("SM2"),
            ],
            (Status::Read, None),
        ),
    ] {
        assert_eq!(fate(&facts), expected, "{facts:#?}");
    }
}

#[test]
fn a_second_message_at_the_provider_is_told() {
    let second = Duplicated {
        message_id: "SM8".into(),
    };
    let facts = [small_talk(), vec![told(Outcome::Duplicated(second))]].concat();
    let tables = fold(&facts, 100);
    let metadata = &tables.messages.now[FIRST].metadata;
    assert_eq!(metadata.duplicate_message_id.as_deref(), Some("SM8"));
}

#[test]
fn a_person_takes_over_and_what_the_agent_was_to_say_is_dropped() {
    let mut facts = small_talk();
    facts.truncate(8);
    facts.extend([
        changed(CLIENT, Decision::Escalated, 66),
        written(CLIENT, "w", "Le escribe Luis.", 67),
    ]);
    let tables = fold(&facts, 1);
    let row = talk(&tables);
    assert_eq!(row.status, Speaker::Escalated);
    assert_eq!(row.escalated_by.as_deref(), Some("user:7"));
    assert_eq!(
        shown(&tables)[2..],
        [
            ("agent", "Cien.", Status::Sent),
            ("agent", "¿Algo más?", Status::Dropped),
            ("person:user:7", "Le escribe Luis.", Status::Queued),
        ]
    );
    // What comes too late is not sent either.
    let mut late = small_talk();
    late.truncate(6);
    late.insert(5, changed(CLIENT, Decision::Closed, 61));
    let tables = fold(&late, 1);
    assert_eq!(talk(&tables).closed_at, Some(at(61)));
    assert_eq!(tables.messages.now["a.1"].status, Status::Dropped);

    late.push(received(CLIENT, Some("SM9"), "¿Y?", 90));
    let tables = fold(&late, 2);
    let row = talk(&tables);
    assert_eq!((row.status, row.closed_at), (Speaker::Active, None));
}

#[test]
fn who_wants_to_hear_no_more_is_sent_nothing() {
    let written = |n| written(CLIENT, &format!("w{n}"), "¿Sigue ahí?", n);
    let stop = received(CLIENT, Some("SM2"), " Stop. ", 10);
    let start = received(CLIENT, Some("SM3"), "ALTA", 30);
    let facts = [started(CLIENT, "rcpt_1", 0), written(5), stop, written(20)];
    let tables = fold(&facts, 1);
    assert!(talk(&tables).opted_out);
    let dropped = shown(&tables);
    let dropped = dropped.iter().filter(|row| row.2 == Status::Dropped);
    assert_eq!(dropped.count(), 3);
    let facts = [facts.to_vec(), vec![start, written(40)]].concat();
    let tables = fold(&facts, 1);
    assert!(!talk(&tables).opted_out);
    assert_eq!(tables.messages.now["w40"].status, Status::Queued);

    let refused = refused(FIRST, "21610", Remedy::OptOut, 6);
    let facts = [started(CLIENT, "rcpt_1", 0), written(5), refused];
    let tables = fold(&facts, 1);
    assert!(talk(&tables).opted_out);
    assert_eq!(tables.messages.now[FIRST].status, Status::Failed);
    assert_eq!(tables.messages.now["w5"].status, Status::Dropped);
}

/// A person writes by builderbot, which says so before or after us.
fn echoed(n: usize, echoes: &[Told]) -> Vec<Told> {
    let words = "Le escribe Luis.";
    let mut facts = vec![heard(CLIENT, "Hola", 0)];
    for n in 1..=n {
        let (id, secs) = (format!("w{n}"), n as i64 * 10);
        facts.push(written(CLIENT, &id, words, secs));
        facts.push(attempted(&id, secs + 1));
        facts.push(taken(&id, Provider::Builderbot, None, secs + 3));
    }
    facts.extend(echoes.iter().cloned());
    facts
}

#[test]
fn builderbots_word_that_a_message_went_out_is_that_message() {
    let echo = |secs| echo(CLIENT, "Le escribe Luis.", secs);
    let counts = |facts: &[Told]| {
        let tables = fold(facts, 1);
        let rows = shown(&tables);
        let external = rows.iter().filter(|row| row.0 == "external").count();
        assert_eq!(talk(&tables).message_count as usize, rows.len());
        assert_eq!(numbers(&tables).sent as usize, rows.len() - 1);
        (rows.len() - 1 - external, external)
    };
    assert_eq!(counts(&echoed(1, &[echo(14)])), (1, 0));
    assert_eq!(counts(&echoed(2, &[echo(14), echo(24)])), (2, 0));
    assert_eq!(counts(&echoed(1, &[echo(14), echo(24)])), (1, 1));
    assert_eq!(counts(&echoed(0, &[echo(14)])), (0, 1));
    // Before our own word of it, or before it was even attempted.
    for place in 1..=3 {
        let mut facts = echoed(1, &[]);
        facts.insert(place, echo(12));
        assert_eq!(counts(&facts), (1, 0), "{place}");
    }
}

#[test]
fn an_attempt_of_which_nobody_knows_is_sent_once_builderbot_says_so() {
    let mut facts = echoed(1, &[]);
    facts.truncate(3);
    let tables = fold(&facts, 1);
    assert_eq!(tables.messages.now["w1"].status, Status::Queued);
    facts.push(echo(CLIENT, "Le escribe\n Luis. ", 12));
    let tables = fold(&facts, 1);
    let row = &tables.messages.now["w1"];
    assert_eq!((row.status, row.sent_at), (Status::Sent, Some(at(12))));
}

#[test]
fn the_numbers_are_those_of_the_rows() {
    let tables = fold(&small_talk(), 4);
    let sum = numbers(&tables);
    assert_eq!((sum.started, sum.opened, sum.responded), (1, 1, 1));
    assert_eq!((sum.sent, sum.received), (3, 1));
    assert_eq!((sum.response_count, sum.response_secs), (1, 5));
    assert_eq!(tables.totals.now["active"].count, 1);

    // Whoever does not answer has not; a second call is begun anew.
    let silent = [
        started(CLIENT, "rcpt_1", 0),
        started(CLIENT, "rcpt_2", 5_000),
    ];
    let sum = numbers(&fold(&silent, 1));
    assert_eq!((sum.started, sum.opened, sum.responded), (2, 2, 0));
    let answered = [silent.to_vec(), vec![heard(CLIENT, "Hola", 6_000)]].concat();
    let tables = fold(&answered, 1);
    assert_eq!(numbers(&tables).responded, 2);
    assert_eq!(talk(&tables).started_at, at(5_000));
    let first = &tables.quarters.now[&Quarter::bucket(at(0))];
    assert_eq!((first.opened, first.responded), (1, 1));
}

/// Facts, each with those that must come before it.
fn tangled() -> Vec<(Told, Vec<usize>)> {
    let mut facts: Vec<(Told, Vec<usize>)> = Vec::new();
    let mut add = |fact: Told, after: &[usize]| {
        facts.push((fact, after.to_vec()));
        facts.len() - 1
    };
    let begun = add(started(CLIENT, "rcpt_1", 0), &[]);
    let tried = add(attempted(FIRST, 1), &[begun]);
    let out = add(taken(FIRST, Provider::Twilio, Some("SM1"), 2), &[tried]);
    let bounce = add(bounced(FIRST, "SM1", Remedy::Template, 5), &[out]);
    let again = add(attempted(FIRST, 6), &[bounce]);
    add(taken(FIRST, Provider::Twilio, Some("SM1b"), 7), &[again]);
    add(status(CLIENT, "SM1", Callback::Undelivered, 4), &[]);
    add(status(CLIENT, "SM1", Callback::Sent, 3), &[]);
    add(status(CLIENT, "SM1b", Callback::Delivered, 8), &[]);
    add(status(CLIENT, "SM1b", Callback::Read, 9), &[]);
    let asked = add(
        received(CLIENT, Some("SM2"), "¿Cuánto cuesta?", 60),
        &[begun],
    );
    let answer = add(answered(-1, "a", &["Cien.", "¿Algo más?"], 64), &[asked]);
    let one = add(attempted("a.1", 64), &[answer]);
    let one = add(taken("a.1", Provider::Twilio, Some("SM3"), 65), &[one]);
    let two = add(attempted("a.2", 66), &[answer]);
    let two = add(refused("a.2", "63018", Remedy::DeadLetter, 67), &[two]);
    add(status(CLIENT, "SM3", Callback::Delivered, 66), &[]);
    let over = add(changed(CLIENT, Decision::Escalated, 70), &[asked, one, two]);
    let asked = add(heard(CLIENT, "¿Hola?", 80), &[over]);
    for n in 1..=3 {
        let (id, secs) = (format!("w{n}"), 90 + 10 * n);
        let wrote = add(written(CLIENT, &id, "Le escribe Luis.", secs), &[asked]);
        let tried = add(attempted(&id, secs + 1), &[wrote]);
        add(taken(&id, Provider::Builderbot, None, secs + 2), &[tried]);
        add(echo(CLIENT, "Le escribe Luis.", secs + 3), &[]);
    }
    add(echo(CLIENT, "Le escribe Luis.", 500), &[]);
    add(echo(CLIENT, "Otra cosa.", 90), &[]);
    let resumed = add(changed(CLIENT, Decision::Resumed, 200), &[asked]);
    let begun = add(started(CLIENT, "rcpt_2", 2_000), &[resumed]);
    add(dropped("first_rcpt_2", 2_001), &[begun]);
    facts
}

/// One of the orders that are possible, by the dice that each fact has.
fn in_order(facts: &[(Told, Vec<usize>)], dice: &[u32]) -> Vec<Told> {
    let mut done: Vec<usize> = Vec::new();
    while done.len() < facts.len() {
        let next = (0..facts.len())
            .filter(|n| !done.contains(n) && facts[*n].1.iter().all(|it| done.contains(it)))
            .min_by_key(|n| dice[*n]);
        done.push(next.unwrap());
    }
    let asked = done.iter().position(|n| is_question(&facts[*n].0)).unwrap();
    let turn = domain::effect::turn_id(asked as i64 + 1);
    let told = |n: usize| {
        let mut told = facts[n].0.clone();
        if told.fact.stream.aggregate_id == domain::effect::turn_id(-1) {
            told.fact.stream.aggregate_id.clone_from(&turn);
        }
        told
    };
    done.into_iter().map(told).collect()
}

fn is_question(told: &Told) -> bool {
    matches!(&told.fact.event, Event::Message(domain::message::Event::Received(received))
        if received.message_id.as_deref() == Some("SM2"))
}

/// The rows without what is their place on the ledger.
fn rows(tables: &Tables) -> (Vec<Conversation>, Vec<Message>) {
    let conversations = tables.conversations.now.values().cloned().map(|mut row| {
        if let Some((_, position)) = &mut row.told.last_inbound {
            *position = 0;
        }
        if let Some((_, position, _)) = &mut row.told.contact_name {
            *position = 0;
        }
        row
    });
    let mut messages: Vec<_> = tables.messages.now.values().cloned().collect();
    messages.sort_by_key(Message::place);
    for row in &mut messages {
        row.position = 0;
        if row.id.starts_with("ev-") {
            row.id = "ev".to_owned();
        }
        if let Some(response) = &mut row.elevenlabs_response {
            response["turn_id"].take();
        }
    }
    (conversations.collect(), messages)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn any_order_of_the_same_facts_ends_in_the_same_rows(
        dice in proptest::collection::vec(any::<u32>(), tangled().len()), at_a_time in 1..20_usize,
    ) {
        let facts = tangled();
        let as_it_happened: Vec<u32> = (0..).take(facts.len()).collect();
        let expected = fold(&in_order(&facts, &as_it_happened), 1_000);
        let tables = fold(&in_order(&facts, &dice), at_a_time);
        let (conversations, messages) = rows(&tables);
        let (expected_conversations, expected_messages) = rows(&expected);
        prop_assert_eq!(messages, expected_messages);
        prop_assert_eq!(conversations, expected_conversations);
        prop_assert_eq!(&tables.quarters.now, &expected.quarters.now);
        prop_assert_eq!(&tables.totals.now, &expected.totals.now);
        prop_assert_eq!(&tables.callbacks.now, &expected.callbacks.now);
    }
}

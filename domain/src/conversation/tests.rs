use cqrs_es::Aggregate;
use proptest::prelude::*;

use super::*;
use crate::PhoneNumber;

fn ana() -> PhoneNumber {
    PhoneNumber::parse("+573001234567").unwrap()
}

fn start(recipient_id: &str) -> Command {
    Command::Start(Box::new(Started {
        phone_number: ana(),
        call: Call {
            recipient_id: recipient_id.into(),
            agent_id: "agent_1".into(),
            ..Call::default()
        },
        message: FirstMessage {
            effect_id: crate::effect::first_message_id(recipient_id),
            content: "¡Hola!".into(),
            template: None,
        },
        requested_by: "service".into(),
    }))
}

fn write(effect_id: &str, content: &str) -> Command {
    Command::Write(MessageWritten {
        effect_id: effect_id.into(),
        phone_number: ana(),
        content: content.into(),
        by: "user:7".into(),
    })
}

fn tell(conversation: &mut Conversation, command: Command) -> Result<usize, Error> {
    let events = conversation.decide(command)?;
    let news = events.len();
    events
        .into_iter()
        .for_each(|event| conversation.apply(event));
    Ok(news)
}

#[test]
fn a_recipient_is_written_to_once() {
    let mut conversation = Conversation::default();
    assert_eq!(tell(&mut conversation, start("rcpt_1")), Ok(1));
    assert_eq!(tell(&mut conversation, start("rcpt_1")), Ok(0));
    assert_eq!(tell(&mut conversation, start("rcpt_2")), Ok(1));
}

#[test]
fn a_person_writes_what_fits_one_message_once() {
    let mut conversation = Conversation::default();
    assert_eq!(tell(&mut conversation, write("w1", "Hola")), Ok(1));
    assert_eq!(tell(&mut conversation, write("w1", "Hola")), Ok(0));
    for bad in ["", "  ", &"x".repeat(1_601), &"😀".repeat(801)] {
        let refused = tell(&mut conversation, write("w2", bad));
        assert_eq!(refused, Err(Error::InvalidContent));
    }
    assert_eq!(
        tell(&mut conversation, write("w2", &"ñ".repeat(1_600))),
        Ok(1)
    );
}

#[test]
fn a_person_who_has_taken_over_stays_and_what_was_closed_opens_again() {
    let by = || Changed {
        by: "user:7".into(),
        reason: None,
    };
    let started = match start("rcpt_1") {
        Command::Start(started) => Event::Started(started),
        _ => unreachable!(),
    };
    let (active, escalated, closed) = (Status::Active, Status::Escalated, Status::Closed);
    assert_eq!(active.after(&Event::Escalated(by())), escalated);
    assert_eq!(escalated.after_message(), escalated);
    assert_eq!(escalated.after(&started), escalated);
    assert_eq!(escalated.after(&Event::Resumed(by())), active);
    assert_eq!(active.after(&Event::Closed(by())), closed);
    assert_eq!(closed.after_message(), active);
    assert_eq!(closed.after(&started), active);
}

#[test]
fn a_long_answer_is_cut_where_people_pause() {
    assert_eq!(parts("  Hola.  "), ["Hola."]);
    assert!(parts(" \n ").is_empty());
    let sentence = format!("{}. ", "a".repeat(1_000));
    assert_eq!(
        parts(&sentence.repeat(2)),
        [sentence.trim(), sentence.trim()]
    );
    let paragraphs = format!("{}\n\n{}", "b ".repeat(500), "c ".repeat(500));
    let cut = parts(&paragraphs);
    assert!(cut[0].starts_with('b') && cut[0].ends_with('b') && cut[1].starts_with('c'));
    assert_eq!(parts(&"x".repeat(1_601)).len(), 2);
    assert_eq!(parts(&"x".repeat(100_000)).len(), PARTS_MAX);
}

proptest! {
    #[test]
    fn every_part_fits_and_no_word_is_lost(text in "([a-zñ😀]{1,30}[ .\n]{1,2}){0,400}") {
        let parts = parts(&text);
        for part in &parts {
            prop_assert!(part.encode_utf16().count() <= MESSAGE_UNITS_MAX);
            prop_assert!(!part.trim().is_empty());
        }
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let said: Vec<_> = parts.iter().flat_map(|part| words(part)).collect();
        prop_assert_eq!(said, words(&text));
    }
}

#[test]
fn words_are_the_same_whatever_blanks_there_are() {
    assert_eq!(
        normalised(" Le  escribe\n\tLuis.\u{a0}"),
        "Le escribe Luis."
    );
    assert_ne!(normalised("Le escribe"), normalised("Leescribe"));
    assert_eq!(normalised(" \n"), "");
}

use super::super::MasterKeys;
use super::*;
use crate::Event;

const SECRET: &str = "Angélica 4567890";

fn key() -> Arc<SubjectKey> {
    let (key, _) = MasterKeys::new(["m"]).fresh(Uuid::from_u128(9), &[5; 32]);
    Arc::new(key)
}

fn phones() -> PhoneIndex {
    PhoneIndex::new(b"phones")
}

fn seal(name: &str, stream: (&str, &str), payload: &str) -> (String, Vec<Subject>) {
    let mut asked = Vec::new();
    let whose = Subject::Stream(format!("{}/{}", stream.0, stream.1));
    let sealed = seal_payload(name, stream, payload, &phones(), &whose, &mut |subject| {
        asked.push(subject.clone());
        key()
    });
    (sealed.unwrap(), asked)
}

#[test]
fn a_call_is_read_as_it_was_and_erased_as_one_of_nobody() {
    let payload = format!(
        r#"{{"type":"call.completed","conversation_id":"conv_1","agent_id":"a","outcome":"completed","provider_status":"done","medium":"voice","phone_number":"+573001234567","has_audio":true,"summary":"{SECRET}","analysis":{{"k":"{SECRET}"}},"duration_secs":12,"transcript":[{{"role":"user","message":"{SECRET}"}}]}}"#
    );
    let (sealed, asked) = seal("call.completed", ("call", "conv_1"), &payload);
    assert_eq!(asked, [Subject::Person(phones().key("+573001234567"))]);
    assert!(
        !sealed.contains("3001234567") && !sealed.contains("4567890"),
        "{sealed}"
    );
    assert!(!sealed.contains(&phones().key("+573001234567")));
    assert_eq!(key_ids("call.completed", &sealed), [Uuid::from_u128(9)]);
    let key = key();
    let read = |payload: &str| Event::read("call.completed", "1", payload).unwrap();
    let opened = open_payload("call.completed", &sealed, |_| Some(&*key)).unwrap();
    assert_eq!(read(&opened), read(&payload));
    let erased = open_payload("call.completed", &sealed, |_| None).unwrap();
    let Event::Call(crate::call::Event::Completed(erased)) = read(&erased) else {
        panic!("{erased}")
    };
    assert_eq!((erased.phone_number, erased.transcript.len()), (None, 0));
    assert_eq!(erased.duration_secs, Some(12));
}

#[test]
fn what_is_not_sealed_is_read_as_it_stands() {
    for payload in [
        r#"{"type":"call.audio_received","conversation_id":"c"}"#,
        r#"{"sealed":"1.nothing","type":"x"}"#,
        r#"{"sealed":"2.","type":"x"}"#,
    ] {
        let read = open_payload("call.audio_received", payload, |_| None).unwrap();
        assert_eq!(read, payload);
    }
}

#[test]
fn an_erased_chat_is_still_one_conversation() {
    let contact = "+573001234567";
    let payload = format!(
        r#"{{"type":"message.received","channel":"whatsapp","contact":"{contact}","kind":"text","content":"{SECRET}"}}"#
    );
    let (sealed, _) = seal("message.received", ("chat", "wa_1"), &payload);
    let erased = open_payload("message.received", &sealed, |_| None).unwrap();
    let Event::Message(crate::message::Event::Received(erased)) =
        Event::read("message.received", "1", &erased).unwrap()
    else {
        panic!("{erased}")
    };
    assert!(super::super::is_erased(&erased.contact));
    assert_eq!(phones().key(&erased.contact), phones().key(contact));
    assert_eq!(erased.content, ERASED_WORDS);
}

#[test]
fn each_recipient_is_sealed_under_a_key_of_their_own() {
    let payload = r#"{"type":"batch.observed","batch":{"id":"b"},"recipients":[{"id":"r1","phone_number":"+573001234567","status":"pending","updated_at_unix":1},{"id":"r2","phone_number":"+573001234568","status":"pending","updated_at_unix":1,"dynamic_variables":{"a":"b"}}]}"#;
    let (sealed, asked) = seal("batch.observed", ("batch", "b1"), payload);
    assert_eq!(
        asked,
        [
            Subject::Person(phones().key("+573001234567")),
            Subject::Person(phones().key("+573001234568")),
        ]
    );
    let key = key();
    let opened = open_payload("batch.observed", &sealed, |_| Some(&*key)).unwrap();
    let value = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
    assert_eq!(value(&opened), value(payload));
    let erased = value(&open_payload("batch.observed", &sealed, |_| None).unwrap());
    let numbers: Vec<_> = (0..2)
        .map(|n| erased["recipients"][n]["phone_number"].as_str().unwrap())
        .collect();
    assert!(
        numbers[0].starts_with("erased-") && numbers[0] != numbers[1],
        "{numbers:?}"
    );
    assert_eq!(erased["recipients"][1]["id"], "r2");
}

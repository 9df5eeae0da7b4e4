//! What holds of every webhook, whatever comes.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::fixtures::{ALL, index};
use super::{Normalised, Outcome, Webhook, audio, normalise};

/// The deliveries that end in quarantine though they are fixtures.
const UNKNOWN: &[&str] = &["elevenlabs/unknown_type.json"];

/// Normalises and checks what must hold of every outcome.
fn checked(webhook: Webhook, body: &[u8], content_type: Option<&str>) -> Normalised {
    let normalised = normalise(webhook, body, content_type, &index());
    match &normalised.outcome {
        Outcome::Facts(facts) => {
            assert!(!facts.is_empty(), "neither a fact nor a reason");
            for fact in facts {
                let stored = serde_json::to_string(&fact.event).unwrap();
                assert!(!stored.contains("\\u0000"), "{stored}");
                let id = &fact.stream.aggregate_id;
                assert!(super::text::is_id(id), "{id}");
                let read = domain::Event::read(fact.event.name(), fact.event.version(), &stored);
                assert_eq!(read.unwrap(), fact.event, "what is stored can be read");
            }
        }
        Outcome::Quarantined { reason } => {
            assert!((1..=200).contains(&reason.len()), "{reason}");
            assert!(
                reason.bytes().all(|it| (b' '..=b'~').contains(&it)),
                "{reason}"
            );
        }
    }
    let _ = audio(webhook, body);
    normalised
}

#[test]
fn every_fixture_is_understood_and_no_two_webhooks_share_an_identity() {
    for (webhook, path, body) in ALL {
        let normalised = checked(*webhook, body, None);
        let understood = matches!(normalised.outcome, Outcome::Facts(_));
        assert_eq!(understood, !UNKNOWN.contains(path), "{path}");
        for other in Webhook::ALL.iter().filter(|it| *it != webhook) {
            let elsewhere = checked(*other, body, None);
            assert_ne!(elsewhere.identity, normalised.identity, "{path}");
        }
    }
}

#[test]
fn a_webhook_is_found_by_the_name_it_is_stored_under() {
    for &webhook in Webhook::ALL {
        assert_eq!(Webhook::named(webhook.name()), Some(webhook));
    }
    assert_eq!(Webhook::named("elevenlabs"), None);
}

/// JSON fixtures with their webhooks.
fn json_fixtures() -> Vec<(Webhook, Value)> {
    let read = |body: &[u8]| serde_json::from_slice(body).ok();
    ALL.iter()
        .filter_map(|(webhook, _, body)| Some((*webhook, read(body)?)))
        .collect()
}

fn any_fixture() -> impl Strategy<Value = (Webhook, Value)> {
    proptest::sample::select(json_fixtures())
}

fn any_form() -> impl Strategy<Value = (Webhook, &'static str)> {
    let form = |body: &'static [u8]| {
        std::str::from_utf8(body)
            .ok()
            .filter(|it| !it.starts_with('{'))
    };
    let forms = ALL
        .iter()
        .filter_map(move |(webhook, _, body)| Some((*webhook, form(body)?)));
    proptest::sample::select(forms.collect::<Vec<_>>())
}

/// What a field may turn into; `None`: it is gone.
fn any_replacement() -> impl Strategy<Value = Option<Value>> {
    prop_oneof![
        Just(None),
        Just(Some(Value::Null)),
        any::<bool>().prop_map(|it| Some(json!(it))),
        any::<i64>().prop_map(|it| Some(json!(it))),
        any::<u64>().prop_map(|it| Some(json!(it))),
        // Quarters survive serde_json's fast reading of fractions; not all do.
        any::<i32>().prop_map(|it| Some(json!(f64::from(it) / 4.0))),
        Just(Some(json!(1e300))),
        "\\PC{0,12}".prop_map(|it| Some(json!(it))),
        Just(Some(json!("\0"))),
        Just(Some(json!([]))),
        Just(Some(json!({}))),
        Just(Some(json!([null, 1, "x", {"url": 1}, ["y"]]))),
        Just(Some(json!({"a\0": {"b": [1, null]}}))),
    ]
}

/// How many parts a value has, itself not counted.
fn parts(value: &Value) -> usize {
    match value {
        Value::Array(list) => list.iter().map(|it| 1 + parts(it)).sum(),
        Value::Object(map) => map.values().map(|it| 1 + parts(it)).sum(),
        _ => 0,
    }
}

/// Replaces the part at a place, counted through the whole tree.
fn replace(value: &mut Value, place: &mut usize, replacement: &Option<Value>) -> bool {
    let mut gone = None;
    let children: Vec<(String, &mut Value)> = match value {
        Value::Array(list) => list.iter_mut().map(|it| (String::new(), it)).collect(),
        Value::Object(map) => map.iter_mut().map(|(key, it)| (key.clone(), it)).collect(),
        _ => return false,
    };
    for (key, child) in children {
        if *place == 0 {
            match replacement {
                Some(other) => *child = other.clone(),
                None => gone = Some(key),
            }
            *place = usize::MAX;
        } else {
            *place -= 1;
            if replace(child, place, replacement) {
                return true;
            }
        }
        if *place == usize::MAX {
            break;
        }
    }
    if let (Some(key), Value::Object(map)) = (gone, value) {
        map.remove(&key);
    }
    *place == usize::MAX
}

/// The same value with its fields in another order and other white space.
fn rewritten(value: &Value, reversed: bool) -> String {
    match value {
        Value::Array(list) => {
            let items: Vec<_> = list.iter().map(|it| rewritten(it, reversed)).collect();
            format!("[ {}\n]", items.join(" ,"))
        }
        Value::Object(map) => {
            let field = |(key, it): (&String, &Value)| {
                format!("{}\t: {}", json!(key), rewritten(it, reversed))
            };
            let mut fields: Vec<_> = map.iter().map(field).collect();
            if reversed {
                fields.reverse();
            }
            format!("{{\r\n{} }}", fields.join(" , "))
        }
        other => other.to_string(),
    }
}

proptest! {
    #[test]
    fn any_bytes_give_facts_or_a_reason(body in proptest::collection::vec(any::<u8>(), 0..300)) {
        for &webhook in Webhook::ALL {
            checked(webhook, &body, None);
            checked(webhook, &body, Some("application/json"));
        }
    }

    #[test]
    fn a_fixture_of_which_any_part_is_changed_gives_facts_or_a_reason(
        (webhook, mut value) in any_fixture(),
        changes in proptest::collection::vec((any::<proptest::sample::Index>(), any_replacement()), 1..6)
    ) {
        for (place, replacement) in &changes {
            let parts = parts(&value);
            if parts > 0 {
                replace(&mut value, &mut place.index(parts), replacement);
            }
        }
        checked(webhook, value.to_string().as_bytes(), None);
    }

    #[test]
    fn a_fixture_of_which_any_byte_is_changed_gives_facts_or_a_reason(
        (webhook, _, body) in proptest::sample::select(ALL), place in any::<proptest::sample::Index>(),
        byte in any::<u8>(), cut in any::<proptest::sample::Index>()
    ) {
        let mut body = body.to_vec();
        let at = place.index(body.len());
        body[at] = byte;
        checked(webhook, &body, None);
        checked(webhook, &body[..cut.index(body.len())], None);
    }

    #[test]
    fn any_form_gives_facts_or_a_reason(
        fields in proptest::collection::vec((
            proptest::sample::select(vec![
                "MessageSid", "MessageStatus", "ErrorCode", "From", "To", "Body", "NumMedia", "MediaUrl0",
                "MessageType", "Latitude", "Longitude", "ButtonText", "CallSid", "CallStatus",
                "SequenceNumber", "Timestamp", "Direction", "CallDuration", "ErrorMessage",
            ]),
            prop_oneof!["\\PC{0,12}", "[A-Z]{2}[0-9]{3}", "whatsapp:\\+[0-9]{6,16}", "sent|read|busy|completed", Just("\0".to_owned())],
        ), 0..12)
    ) {
        let form = form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        for &webhook in Webhook::ALL {
            checked(webhook, form.as_bytes(), Some("application/x-www-form-urlencoded"));
        }
    }

    #[test]
    fn a_delivery_with_ids_is_the_same_in_any_order_and_spacing((webhook, value) in any_fixture()) {
        let plain = checked(webhook, value.to_string().as_bytes(), None);
        for reversed in [false, true] {
            let other = checked(webhook, rewritten(&value, reversed).as_bytes(), None);
            prop_assert_eq!(&plain.outcome, &other.outcome);
            if let domain::fact::Identity::Lasting(_) = plain.identity {
                prop_assert_eq!(plain.identity.clone(), other.identity);
            }
        }
    }

    #[test]
    fn a_form_is_the_same_in_any_order((webhook, form) in any_form(), turns in 0..40_usize) {
        let mut fields: Vec<&str> = form.split('&').collect();
        let turns = turns % fields.len();
        fields.rotate_left(turns);
        prop_assert_eq!(
            checked(webhook, form.as_bytes(), None),
            checked(webhook, fields.join("&").as_bytes(), None)
        );
    }
}

//! Each code by the way on which it really comes: as the answer to a request,
//! or later, in the status of a message that was taken.

use std::collections::BTreeMap;

use chrono::DateTime;
use sandbox::{Control, Fault, Scripted};

use super::*;
use crate::providers::twilio::client::tests::{Pair, sms};

const ANA: &str = "+573001234567";

/// What answers a request. PROVIDERS.md, 3.6, rows one to four.
const AT_ONCE: &[(u32, Remedy)] = &[
    (20003, DeadLetter),
    (20404, DeadLetter),
    (20429, Retry),
    (20500, Retry),
    (20503, Retry),
    (21211, DeadLetter),
    (21212, DeadLetter),
    (21214, DeadLetter),
    (21604, DeadLetter),
    (21614, DeadLetter),
    (21617, DeadLetter),
    (21620, DeadLetter),
    (21408, DeadLetter),
    (21608, DeadLetter),
    (21606, DeadLetter),
    (21612, DeadLetter),
    (21610, OptOut),
    (21611, Retry),
    (21703, DeadLetter),
    (21704, DeadLetter),
    (21910, DeadLetter),
    (21654, DeadLetter),
    (21655, DeadLetter),
    (21656, DeadLetter),
    (63007, DeadLetter),
    (63038, DeadLetter),
];

/// What comes later, in a status. The same, the next two rows.
const LATER: &[(u32, Remedy)] = &[
    (30001, Retry),
    (30002, DeadLetter),
    (30003, DeadLetter),
    (30004, DeadLetter),
    (30005, DeadLetter),
    (30006, DeadLetter),
    (30007, DeadLetter),
    (30008, DeadLetter),
    (30032, DeadLetter),
    (30034, DeadLetter),
    (30410, Retry),
    (30450, DeadLetter),
    (63003, DeadLetter),
    (63005, DeadLetter),
    (63013, DeadLetter),
    (63015, DeadLetter),
    (63016, Template),
    (63018, Retry),
    (63019, DeadLetter),
    (63020, DeadLetter),
    (63021, DeadLetter),
    (63024, DeadLetter),
    (63027, DeadLetter),
    (63028, DeadLetter),
    (63030, DeadLetter),
    (63032, DeadLetter),
    (63033, DeadLetter),
    (63041, DeadLetter),
    (63049, DeadLetter),
    (63051, DeadLetter),
];

#[test]
fn every_code_that_we_know_of_is_in_the_table_once() {
    let expected: BTreeMap<_, _> = AT_ONCE.iter().chain(LATER).copied().collect();
    let table: BTreeMap<_, _> = REFUSALS.iter().map(|it| (it.0, it.1)).collect();
    assert_eq!(table, expected);
    assert_eq!(table.len(), REFUSALS.len(), "one is there twice");
    assert_eq!(expected.len(), AT_ONCE.len() + LATER.len());
    assert!(REFUSALS.iter().all(|(.., why)| !why.is_empty()));
}

#[test]
fn what_nobody_knows_is_for_a_person() {
    for unknown in ["", "99999", "nonsense", "-1", "21610x"] {
        assert_eq!(remedy(unknown), DeadLetter, "{unknown:?}");
    }
    assert_eq!(remedy(" 21610 "), OptOut);
}

#[tokio::test]
async fn each_code_that_answers_a_request_has_its_remedy() {
    let pair = Pair::start().await;
    for (code, expected) in AT_ONCE {
        let script = vec![Scripted {
            operation: "twilio.message_create".to_owned(),
            times: 1,
            fault: Fault::TwilioCode(*code),
        }];
        pair.control(Control {
            script,
            ..Control::default()
        })
        .await;
        let error = pair.client.send(&sms(ANA, "hola")).await.unwrap_err();
        let refusal = error.refusal().unwrap();
        assert_eq!(refusal.code, code.to_string());
        assert!(!refusal.message.is_empty() && refusal.message != "Unknown error");
        assert_eq!(remedy(&refusal.code), *expected, "{code}");
        // What Twilio surely did not carry out may be sent again unseen.
        let broke = matches!(code, 20500 | 20503);
        assert_eq!(error.may_have_happened(), broke, "{code}");
    }
    assert_eq!(pair.sandbox.truth().messages.len(), 0);
}

#[tokio::test]
async fn the_numbers_that_twilio_keeps_for_tests_are_refused_as_they_say() {
    let pair = Pair::start().await;
    for (to, code, expected) in [
        ("+15005550001", "21211", DeadLetter),
        ("+15005550002", "21612", DeadLetter),
        ("+15005550003", "21408", DeadLetter),
        ("+15005550004", "21610", OptOut),
        ("+15005550009", "21614", DeadLetter),
        ("", "21604", DeadLetter),
        ("123", "21211", DeadLetter),
    ] {
        let error = pair.client.send(&sms(to, "hola")).await.unwrap_err();
        let refusal = error.refusal().unwrap();
        assert_eq!(refusal.code, code, "{to}");
        assert_eq!(remedy(&refusal.code), expected, "{to}");
    }
    let long = "a".repeat(1_601);
    let error = pair.client.send(&sms(ANA, &long)).await.unwrap_err();
    assert_eq!(error.refusal().unwrap().code, "21617");
}

#[tokio::test]
async fn each_code_that_comes_later_has_its_remedy() {
    let pair = Pair::start().await;
    for (code, expected) in LATER {
        pair.control(Control {
            messages: [(ANA.to_owned(), Some(*code))].into(),
            ..Control::default()
        })
        .await;
        let words = format!("hola {code}");
        let message = sms(ANA, &words);
        let sent = pair.client.send(&message).await.unwrap();
        assert_eq!(sent.error_code, None, "{code}: it is taken first");
        pair.sandbox.settle().await;
        let since = DateTime::UNIX_EPOCH;
        let found = pair.client.find_sent(&message, since).await.unwrap();
        assert_eq!(found[0].message_id, sent.message_id);
        assert!(found[0].status.is_failure(), "{code}");
        let came = found[0].error_code.as_deref().unwrap();
        assert_eq!(came, code.to_string());
        assert_eq!(remedy(came), *expected, "{code}");
    }
}

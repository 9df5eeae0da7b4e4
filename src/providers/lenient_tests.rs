use super::*;
use serde_json::json;

fn instant(value: Value) -> Option<i64> {
    Scalar::from(&value)
        .instant()
        .map(|it| it.timestamp_millis())
}

#[test]
fn the_same_instant_is_the_same_however_it_is_written() {
    for written in [
        json!(1_761_694_190),
        json!(1_761_694_190.0),
        json!("1761694190"),
        json!(" 1761694190 "),
        json!("1761694190.0"),
        json!(1_761_694_190_000_i64),
        json!("2025-10-28T23:29:50Z"),
        json!("2025-10-28T20:29:50-03:00"),
    ] {
        assert_eq!(
            instant(written.clone()),
            Some(1_761_694_190_000),
            "{written}"
        );
    }
}

#[test]
fn what_is_no_plausible_instant_is_none() {
    for written in [
        json!(null),
        json!(0),
        json!(-5),
        json!(""),
        json!("soon"),
        json!("NaN"),
        json!("inf"),
        json!(1e300),
        json!(i64::MAX),
        json!(u64::MAX),
        json!("12026-01-01T00:00:00Z"),
        json!([1_761_694_190]),
        json!(true),
    ] {
        assert_eq!(instant(written.clone()), None, "{written}");
    }
}

#[test]
fn numbers_may_be_texts_and_texts_numbers() {
    let whole = |value: Value| Scalar::from(&value).whole();
    assert_eq!(whole(json!("94")), Some(94));
    assert_eq!(whole(json!("94.4")), Some(94));
    assert_eq!(whole(json!(94.6)), Some(95));
    assert_eq!(whole(json!(1e300)), None);
    assert_eq!(whole(json!(null)), None);
    let text = |value: Value| Scalar::from(&value).into_text();
    assert_eq!(
        text(json!(5_491_112_345_678_i64)),
        Some("5491112345678".into())
    );
    assert_eq!(text(json!("")), None);
    assert_eq!(text(json!({"a": 1})), None);
}

#[test]
fn what_cannot_be_used_counts_as_missing() {
    #[derive(Default, serde::Deserialize)]
    #[serde(default)]
    struct Sample {
        text: Text,
        whole: Whole,
        flag: Flag,
        object: Object<Map<String, Value>>,
        list: List<Text>,
    }
    for odd in [
        "null",
        "[1,[2],{}]",
        "{\"a\":[{}]}",
        "false",
        "\"\"",
        "\"\\n\"",
    ] {
        let json = format!("{{\"list\":{odd},\"whole\":{odd},\"object\":{odd}}}");
        let sample: Sample = object(json.as_bytes()).unwrap();
        assert_eq!(sample.whole.0, None, "{odd}");
        assert_eq!(sample.object.0.is_some(), odd.starts_with('{'), "{odd}");
        assert_eq!(sample.list.0.is_empty(), !odd.starts_with('['), "{odd}");
        let json = format!("{{\"text\":{odd},\"flag\":{odd},\"other\":{odd}}}");
        let sample: Sample = object(json.as_bytes()).unwrap();
        assert!(!sample.flag.0, "{odd}");
        assert_ne!(sample.text.as_str(), "1", "{odd}");
    }
}

#[test]
fn half_a_surrogate_pair_is_mended_and_a_whole_one_is_left() {
    let read = |json: &str| object::<Map<String, Value>>(json.as_bytes()).unwrap()["a"].clone();
    assert_eq!(read(r#"{"a":"hola \ud83d"}"#), "hola \u{fffd}");
    assert_eq!(
        read(r#"{"a":"\ude00\ud83d\ude00\ud83d!"}"#),
        "\u{fffd}😀\u{fffd}!"
    );
    assert_eq!(
        read(r#"{"a":"\\ud83d"}"#),
        "\\ud83d",
        "an escaped backslash"
    );
}

#[test]
fn an_error_repeats_nothing_of_the_body() {
    for (body, reason) in [
        (
            &b"{\"secret\": tru"[..],
            "the body is not readable as JSON at line 1 column 14",
        ),
        (b"[\"secret\"]", "the body is not a JSON object"),
        (b"", "the body is not readable as JSON at line 1 column 0"),
    ] {
        assert_eq!(
            object::<Map<String, Value>>(body).unwrap_err(),
            reason.to_owned()
        );
    }
}

#[test]
fn nul_is_replaced_in_every_depth() {
    let value = json!({"a\0": ["x\0y", {"b": "\0"}], "c": 1});
    assert_eq!(
        clean(value),
        json!({"a\u{fffd}": ["x\u{fffd}y", {"b": "\u{fffd}"}], "c": 1})
    );
}

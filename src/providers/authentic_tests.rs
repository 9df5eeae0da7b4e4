use super::*;
use crate::providers::fixtures;
use chrono::{DateTime, Utc};
use proptest::prelude::*;

const PUBLIC_URL: &str = "https://cc.example.com";
const BODY: &[u8] = br#"{"a":1}"#;
const TIME: i64 = 1_739_537_297;
const KEY: &str = "wsec_test_0123456789";
const RIGHT: &str =
    "t=1739537297,v0=ae3f20590a388695d89368b75891ed230ec862be8ccc0c27e92c566a14e3709a";
const WRONG: &str =
    "t=1739537297,v0=0000000000000000000000000000000000000000000000000000000000000000";

fn credentials(tokens: &[&str], keys: &[&str]) -> Credentials {
    let owned = |secrets: &[&str]| {
        secrets
            .iter()
            .map(|it| (*it).to_owned())
            .collect::<Vec<_>>()
    };
    Credentials::new(owned(tokens), owned(keys))
}

fn everywhere(tokens: &[&str], keys: &[&str]) -> Secrets {
    let it = credentials(tokens, keys);
    Secrets {
        elevenlabs: it.clone(),
        twilio: it.clone(),
        builderbot: it,
    }
}

fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(seconds, 0).unwrap()
}

fn ask(
    webhook: Webhook,
    secrets: &Secrets,
    headers: &[(&str, &str)],
    path_and_query: &str,
) -> Result<Authentication, Rejection> {
    let headers: Vec<(&str, &[u8])> = headers.iter().map(|(n, v)| (*n, v.as_bytes())).collect();
    let request = Request {
        headers: &headers,
        path_and_query,
        body: BODY,
        public_url: PUBLIC_URL,
        received_at: at(TIME),
    };
    let verdict = authenticate(webhook, secrets, &request);
    // What is refused early would be refused late, for the same reason.
    if let Err(early) = may_be_authentic(webhook, secrets, &request) {
        assert_eq!(verdict, Err(early));
    }
    verdict
}

#[test]
fn every_signature_of_the_official_sdks_is_right_and_no_changed_one_is() {
    let vectors: serde_json::Value = serde_json::from_str(fixtures::SIGNATURE_VECTORS).unwrap();
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    let secrets = Secrets {
        twilio: credentials(&[], &[&text(&vectors["twilio_auth_token"])]),
        elevenlabs: credentials(&[], &[&text(&vectors["elevenlabs_secret"])]),
        builderbot: Credentials::default(),
    };
    let received_at = at(vectors["elevenlabs_t"].as_i64().unwrap() + 60);
    let vectors = vectors["vectors"].as_array().unwrap();
    assert_eq!(vectors.len(), 17);
    for vector in vectors {
        let file = text(&vector["file"]);
        let (header, value) = (text(&vector["header"]), text(&vector["value"]));
        let webhook = fixtures::ALL
            .iter()
            .find(|(_, path, _)| *path == file)
            .unwrap()
            .0;
        let url = vector["url"].as_str();
        let path = url.map_or("/webhooks/elevenlabs/call", |url| &url[PUBLIC_URL.len()..]);
        let verdict = |header: &str, value: &str, path: &str, body: &[u8]| {
            let headers = [(header, value.as_bytes())];
            let request = Request {
                headers: &headers,
                path_and_query: path,
                body,
                public_url: PUBLIC_URL,
                received_at,
            };
            authenticate(webhook, &secrets, &request)
        };
        let body = fixtures::body(&file);
        assert_eq!(
            verdict(&header, &value, path, body),
            Ok(Authentication::Signature),
            "{file}"
        );
        assert_eq!(
            verdict(&header.to_lowercase(), &value, path, body),
            Ok(Authentication::Signature)
        );
        let longer = [body, b"&x"].concat();
        let mut changed = body.to_vec();
        *changed.last_mut().unwrap() ^= 1;
        for other in [&longer, &changed] {
            assert_eq!(
                verdict(&header, &value, path, other),
                Err(Rejection::WrongSignature),
                "{file}"
            );
        }
        if url.is_some() {
            let elsewhere = verdict(&header, &value, &format!("{path}?a=1"), body);
            assert_eq!(elsewhere, Err(Rejection::WrongSignature), "{file}");
        }
    }
}

#[test]
fn a_token_or_a_signature_will_do_but_a_wrong_signature_never_does() {
    use Authentication::{Signature, Token};
    use Rejection::*;
    let (token, other) = (("x-webhook-token", "secret"), ("x-webhook-token", "guess"));
    let (right, wrong) = (
        ("elevenlabs-signature", RIGHT),
        ("elevenlabs-signature", WRONG),
    );
    let nothing = everywhere(&[], &[]);
    let tokens = everywhere(&["secret"], &[]);
    let keys = everywhere(&[], &[KEY]);
    let both = everywhere(&["secret"], &[KEY]);
    for (secrets, headers, verdict) in [
        (&nothing, &[][..], Err(NothingConfigured)),
        (&nothing, &[token], Err(NothingConfigured)),
        (&nothing, &[right], Err(NothingConfigured)),
        (&tokens, &[], Err(MissingCredential)),
        (&tokens, &[token], Ok(Token)),
        (&tokens, &[other], Err(WrongToken)),
        (&tokens, &[right], Err(MissingCredential)),
        (&tokens, &[token, wrong], Ok(Token)),
        (&tokens, &[other, right], Err(WrongToken)),
        (&keys, &[], Err(MissingCredential)),
        (&keys, &[token], Err(WrongToken)),
        (&keys, &[right], Ok(Signature)),
        (&keys, &[wrong], Err(WrongSignature)),
        (&both, &[], Err(MissingCredential)),
        (&both, &[token], Ok(Token)),
        (&both, &[other], Err(WrongToken)),
        (&both, &[right], Ok(Signature)),
        (&both, &[wrong], Err(WrongSignature)),
        (&both, &[token, right], Ok(Signature)),
        (&both, &[other, right], Ok(Signature)),
        (&both, &[token, wrong], Err(WrongSignature)),
        (
            &both,
            &[token, ("elevenlabs-signature", "")],
            Err(MalformedSignature),
        ),
        (&both, &[right, right], Err(MalformedSignature)),
        // The signature of another provider says nothing here.
        (&both, &[token, ("x-twilio-signature", "x")], Ok(Token)),
    ] {
        let verdict_now = ask(
            Webhook::ElevenlabsCall,
            secrets,
            headers,
            "/webhooks/elevenlabs/call",
        );
        assert_eq!(verdict_now, verdict, "{secrets:?} {headers:?}");
    }
}

#[test]
fn a_wrong_twilio_signature_is_refused_whatever_the_token() {
    let secrets = everywhere(&["secret"], &["auth"]);
    for signature in ["AAAAAAAAAAAAAAAAAAAAAAAAAAA=", "short", ""] {
        let headers = [
            ("X-Webhook-Token", "secret"),
            ("X-Twilio-Signature", signature),
        ];
        let verdict = ask(Webhook::TwilioIncoming, &secrets, &headers, "/");
        assert!(verdict.is_err(), "{signature}");
    }
}

#[test]
fn only_builderbot_may_send_its_token_in_the_address() {
    let secrets = everywhere(&["a/b+c"], &[]);
    let path = "/webhooks/builderbot/whatsapp?x=1&token=a%2Fb%2Bc";
    for &webhook in Webhook::ALL {
        let verdict = ask(webhook, &secrets, &[], path);
        let expected = match webhook {
            Webhook::BuilderbotWhatsapp => Ok(Authentication::Token),
            _ => Err(Rejection::MissingCredential),
        };
        assert_eq!(verdict, expected, "{webhook:?}");
    }
    let builderbot = |headers: &[(&str, &str)], path: &str| {
        ask(Webhook::BuilderbotWhatsapp, &secrets, headers, path)
    };
    assert_eq!(builderbot(&[], "/w?token=no"), Err(Rejection::WrongToken));
    assert_eq!(builderbot(&[], "/w?token="), Err(Rejection::WrongToken));
    assert_eq!(
        builderbot(&[("x-webhook-token", "a/b+c")], "/w?token=no"),
        Ok(Authentication::Token)
    );
    // It signs nothing, so a signature is only noise.
    assert_eq!(
        builderbot(&[("elevenlabs-signature", WRONG)], path),
        Ok(Authentication::Token)
    );
}

#[test]
fn an_early_answer_refuses_who_shows_nothing_and_lets_a_signature_wait() {
    let secrets = everywhere(&["secret"], &[KEY]);
    let early = |webhook, headers: &[(&str, &[u8])]| {
        let unread = Request {
            headers,
            path_and_query: "/webhooks/elevenlabs/call",
            body: &[],
            public_url: PUBLIC_URL,
            received_at: at(TIME),
        };
        may_be_authentic(webhook, &secrets, &unread)
    };
    let webhook = Webhook::ElevenlabsCall;
    assert_eq!(early(webhook, &[]), Err(Rejection::MissingCredential));
    assert_eq!(
        early(webhook, &[("x-webhook-token", b"guess")]),
        Err(Rejection::WrongToken)
    );
    assert_eq!(early(webhook, &[("x-webhook-token", b"secret")]), Ok(()));
    assert_eq!(
        early(webhook, &[("elevenlabs-signature", WRONG.as_bytes())]),
        Ok(())
    );
    for (webhook, name, signature, refusal) in [
        (
            webhook,
            "elevenlabs-signature",
            "x",
            Rejection::MalformedSignature,
        ),
        (
            webhook,
            "elevenlabs-signature",
            "t=1,v0=00",
            Rejection::SignatureTooOld,
        ),
        (
            Webhook::TwilioIncoming,
            "x-twilio-signature",
            "x",
            Rejection::MalformedSignature,
        ),
    ] {
        assert_eq!(
            early(webhook, &[(name, signature.as_bytes())]),
            Err(refusal)
        );
    }
}

#[test]
fn a_signature_can_be_checked_again_years_later() {
    let secrets = everywhere(&[], &["wsec_newer", KEY]);
    let stored = [("ElevenLabs-Signature", RIGHT)];
    // `ask` passes the time of receipt, which is stored as well.
    let verdict = ask(Webhook::ElevenlabsCall, &secrets, &stored, "/");
    assert_eq!(verdict, Ok(Authentication::Signature));
}

#[test]
fn an_empty_secret_opens_nothing() {
    let secrets = everywhere(&["", ""], &[""]);
    let headers = [("x-webhook-token", "")];
    for &webhook in Webhook::ALL {
        assert_eq!(
            ask(webhook, &secrets, &headers, "/?token="),
            Err(Rejection::NothingConfigured)
        );
    }
}

#[test]
fn secrets_are_never_printed() {
    let secrets = everywhere(&["hunter2"], &["wsec_1"]);
    let printed = format!("{secrets:?} {:?}", secrets.twilio);
    assert!(!printed.contains("hunter2") && !printed.contains("wsec_1"));
    assert!(
        printed.contains("Credentials(1 tokens, 1 signing keys)"),
        "{printed}"
    );
}

proptest! {
    #[test]
    fn a_token_is_right_exactly_when_it_is_one_of_ours(
        ours in proptest::collection::vec("[a-c]{1,3}", 1..4), guess in "[a-c]{0,3}"
    ) {
        let tokens: Vec<&str> = ours.iter().map(String::as_str).collect();
        let secrets = everywhere(&tokens, &[]);
        let headers = [("x-webhook-token", guess.as_str())];
        let verdict = ask(Webhook::TwilioIncoming, &secrets, &headers, "/");
        let expected = if ours.contains(&guess) {
            Ok(Authentication::Token)
        } else {
            Err(Rejection::WrongToken)
        };
        prop_assert_eq!(verdict, expected);
    }

    #[test]
    fn no_header_and_no_address_can_break_the_check(
        header in proptest::collection::vec(any::<u8>(), 0..80),
        path in "\\PC{0,40}", url in "\\PC{0,40}", body in proptest::collection::vec(any::<u8>(), 0..80)
    ) {
        let secrets = everywhere(&["secret"], &[KEY]);
        for &webhook in Webhook::ALL {
            for name in ["x-webhook-token", "elevenlabs-signature", "x-twilio-signature"] {
                let headers = [(name, header.as_slice())];
                let request = Request {
                    headers: &headers, path_and_query: &path, body: &body, public_url: &url,
                    received_at: at(TIME),
                };
                prop_assert!(authenticate(webhook, &secrets, &request).is_err());
            }
        }
    }
}

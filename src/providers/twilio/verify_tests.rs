use super::*;
use chrono::DateTime;

const TOKEN: &str = "12345";
const PUBLIC_URL: &str = "https://mycompany.com";
const PATH: &str = "/myapp.php?foo=1&bar=2";
const FORM: &[u8] = b"Digits=1234&From=%2B14158675309&To=%2B18005551212&CallSid=CA1234567890ABCDE&Caller=%2B14158675309";
/// Made with both official SDKs.
const SIGNATURE: &str = "RSOYDt4T1cUTdK1PDd93/VVr8B8=";

fn check_with(
    signature: &str,
    keys: &[&str],
    public_url: &str,
    path_and_query: &str,
    body: &[u8],
) -> Result<(), Rejection> {
    let keys: Vec<String> = keys.iter().map(|&key| key.to_owned()).collect();
    let request = Request {
        headers: &[],
        path_and_query,
        body,
        public_url,
        received_at: DateTime::UNIX_EPOCH,
    };
    verify(signature.as_bytes(), &keys, &request)
}

fn check(public_url: &str, path: &str, body: &[u8]) -> Result<(), Rejection> {
    check_with(SIGNATURE, &[TOKEN], public_url, path, body)
}

#[test]
fn the_sdks_signature_is_right_and_a_tampered_request_is_not() {
    assert_eq!(check(PUBLIC_URL, PATH, FORM), Ok(()));
    let fewer = FORM.strip_prefix(b"Digits=1234&").unwrap();
    let more = [FORM, b"&New="].concat();
    for (url, path, body) in [
        (PUBLIC_URL, PATH, fewer),
        (PUBLIC_URL, PATH, &more),
        (PUBLIC_URL, "/myapp.php?foo=1&bar=3", FORM),
        ("http://mycompany.com", PATH, FORM),
        ("https://mycompany.org", PATH, FORM),
    ] {
        assert_eq!(check(url, path, body), Err(Rejection::WrongSignature));
    }
    let other_key = check_with(SIGNATURE, &["54321"], PUBLIC_URL, PATH, FORM);
    assert_eq!(other_key, Err(Rejection::WrongSignature));
}

#[test]
fn while_a_key_is_rotated_the_old_and_the_new_are_right() {
    for keys in [["new", TOKEN], [TOKEN, "new"]] {
        assert_eq!(check_with(SIGNATURE, &keys, PUBLIC_URL, PATH, FORM), Ok(()));
    }
}

#[test]
fn the_order_of_parameters_and_how_they_are_escaped_do_not_matter() {
    let form = b"To=%2b18005551212&Caller=%2B14158675309&%43allSid=CA1234567890ABCDE&&From=%2B14158675309&Digits=1234&";
    assert_eq!(check(PUBLIC_URL, PATH, form), Ok(()));
}

#[test]
fn the_default_port_may_be_signed_or_not() {
    for url in [
        PUBLIC_URL,
        "https://mycompany.com:443",
        "https://mycompany.com/",
        "https://mycompany.com#rc=3&rp=5xx",
    ] {
        assert_eq!(check(url, PATH, FORM), Ok(()), "{url}");
    }
    // Made with the SDK for `https://mycompany.com:443/…`.
    let with_port = "HxH9ZXlOqNv0rQ/scbRqXza4E/8=";
    let form = b"b=2&a=&b=1&B=x&b=2";
    for url in [PUBLIC_URL, "https://mycompany.com:443"] {
        let verdict = check_with(with_port, &[TOKEN], url, PATH, form);
        assert_eq!(verdict, Ok(()), "{url}");
    }
}

#[test]
fn every_spelling_of_the_address_that_the_sdks_try_is_tried() {
    let tried = |public_url: &str, path: &str| urls(public_url, path);
    for (public_url, expected) in [
        ("https://a.b", ["https://a.b/p?q", "https://a.b:443/p?q"]),
        ("http://a.b", ["http://a.b/p?q", "http://a.b:80/p?q"]),
        (
            "https://a.b:8443",
            ["https://a.b:8443/p?q", "https://a.b/p?q"],
        ),
        (
            "https://a.b/base/",
            ["https://a.b/base/p?q", "https://a.b:443/base/p?q"],
        ),
        (
            "https://u:1x@a.b",
            ["https://u:1x@a.b/p?q", "https://u:1x@a.b:443/p?q"],
        ),
        (
            "https://[::1]",
            ["https://[::1]/p?q", "https://[::1]:443/p?q"],
        ),
        (
            "https://[::1]:3000",
            ["https://[::1]:3000/p?q", "https://[::1]/p?q"],
        ),
    ] {
        assert_eq!(tried(public_url, "/p?q#rc=3"), expected, "{public_url}");
    }
}

#[test]
fn repeated_names_count_once_a_value_and_empty_values_by_their_name() {
    // Made with the SDK for {"b": ["2", "1", "2"], "a": "", "B": "x"}.
    let signature = "aFXMy0SzxQvxrsOBOk1gUGfX1a0=";
    let verdict = |form: &[u8]| check_with(signature, &[TOKEN], PUBLIC_URL, PATH, form);
    assert_eq!(verdict(b"b=2&a=&b=1&B=x&b=2"), Ok(()));
    assert_eq!(verdict(b"a&B=x&b=1&b=2"), Ok(()));
    assert_eq!(verdict(b"b=2&b=1&B=x&b=3"), Err(Rejection::WrongSignature));
}

#[test]
fn a_json_body_is_right_when_both_the_signature_and_the_digest_hold() {
    // The vector of the SDK's own tests.
    let path = "/myapp.php?foo=1&bar=2&bodySHA256=0a1ff7634d9ab3b95db5c9a2dfe9416e41502b283a80c7cf19632632f96e6620";
    let body = br#"{"property": "value", "boolean": true}"#;
    let signature = "a9nBmqA0ju/hNViExpshrM61xv4=";
    let verdict = |signature: &str, path: &str, body: &[u8]| {
        check_with(signature, &[TOKEN], PUBLIC_URL, path, body)
    };
    assert_eq!(verdict(signature, path, body), Ok(()));
    assert_eq!(
        verdict(signature, path, b"{}"),
        Err(Rejection::WrongBodyDigest)
    );
    assert_eq!(
        verdict(signature, path, b""),
        Err(Rejection::WrongBodyDigest)
    );
    let other = path.replace("0a1ff", "1a1ff");
    assert_eq!(
        verdict(signature, &other, body),
        Err(Rejection::WrongSignature)
    );
    assert_eq!(
        verdict(SIGNATURE, PATH, body),
        Err(Rejection::WrongSignature),
        "JSON without a signed digest"
    );
}

#[test]
fn what_has_not_the_length_of_a_signature_is_malformed() {
    for signature in ["", "x", &SIGNATURE[..27], &format!("{SIGNATURE}=")] {
        let verdict = check_with(signature, &[TOKEN], PUBLIC_URL, PATH, FORM);
        assert_eq!(verdict, Err(Rejection::MalformedSignature), "{signature}");
    }
}

//! The webhooks that are sent: ElevenLabs post-call transcriptions of an exact
//! size, each of a conversation of its own, signed as the provider signs them.

use bytes::Bytes;
use hmac::{Hmac, Mac};
use serde_json::{Value, json};
use sha2::Sha256;

/// The signing secret that the service under load is started with.
pub const SECRET: &str = "wsec_benchmark_0123456789abcdef0123456789abcdef";
/// Where the webhook goes.
pub const PATH: &str = "/webhooks/elevenlabs/call";

/// No turn takes more.
const TURN_BYTES_MAX: usize = 120;

/// The conversation of the webhook with this number.
pub fn conversation_id(number: u64) -> String {
    format!("conv_bench{number:020}")
}

/// A body of exactly `bytes` bytes. What fills it up is talk.
///
/// # Panics
/// When `bytes` is too few for what every report has.
pub fn body(number: u64, at: i64, bytes: usize) -> Vec<u8> {
    let with_talk = |talk: &[String]| {
        let turns = talk.iter().enumerate().map(|(n, words)| turn(n, words));
        let report = json!({
            "type": "post_call_transcription",
            "event_timestamp": at,
            "data": {
                "agent_id": format!("agent_bench{:02}", number % 20),
                "agent_name": "Cobranza amable",
                "conversation_id": conversation_id(number),
                "status": "done",
                "transcript": turns.collect::<Vec<_>>(),
                "metadata": {
                    "start_time_unix_secs": at - 95,
                    "call_duration_secs": 95,
                    "cost": 296,
                    "phone_call": {
                        "type": "twilio",
                        "direction": "outbound",
                        "phone_number_id": "phnum_bench",
                        "agent_number": "+576015550100",
                        "external_number": format!("+5730{:08}", number * 7919 % 100_000_000),
                        "call_sid": format!("CA{number:032x}"),
                    },
                    "termination_reason": "end_call tool was called.",
                    "main_language": "es",
                },
                "analysis": {
                    "call_successful": "success",
                    "transcript_summary": "El cliente confirma el pago de la cuota y pide la constancia por WhatsApp.",
                },
                "has_audio": true,
            },
        });
        serde_json::to_vec(&report).unwrap_or_default()
    };
    let empty = with_talk(&[]).len();
    assert!(
        empty + TURN_BYTES_MAX <= bytes,
        "a report has at least {} bytes",
        empty + TURN_BYTES_MAX
    );
    let mut talk: Vec<String> = Vec::new();
    let mut missing = bytes - empty;
    // A turn, while one fits; then as many letters as are missing on the last.
    while missing >= TURN_BYTES_MAX {
        let mut words = String::new();
        push_words(&mut words, 40, number + talk.len() as u64);
        missing -= turn(talk.len(), &words).to_string().len() + usize::from(!talk.is_empty());
        talk.push(words);
    }
    if let Some(last) = talk.last_mut() {
        push_words(last, missing, number);
    }
    with_talk(&talk)
}

/// The turn with this number.
fn turn(number: usize, words: &str) -> Value {
    let role = if number.is_multiple_of(2) {
        "agent"
    } else {
        "user"
    };
    json!({"role": role, "message": words, "time_in_call_secs": number * 7})
}

/// Words that differ from conversation to conversation, so that neither
/// compression nor the index of words has it too easy.
fn push_words(text: &mut String, letters: usize, number: u64) {
    const WORDS: [&str; 16] = [
        "quiero ",
        "pagar ",
        "la ",
        "cuota ",
        "mañana ",
        "por favor ",
        "gracias ",
        "señora ",
        "cuenta ",
        "factura ",
        "recibo ",
        "enero ",
        "banco ",
        "puede ",
        "llamar ",
        "tarde ",
    ];
    let end = text.len() + letters;
    let mut seed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    while text.len() < end {
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let word = WORDS[(seed >> 60) as usize];
        if text.len() + word.len() <= end {
            text.push_str(word);
        } else {
            text.push('a');
        }
    }
}

/// The whole HTTP request with this body, signed.
pub fn request(body: &[u8], at: i64) -> Bytes {
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).expect("any length is a key");
    mac.update(format!("{at}.").as_bytes());
    mac.update(body);
    let signature = hex::encode(mac.finalize().into_bytes());
    let mut request = format!(
        "POST {PATH} HTTP/1.1\r\nhost: bitacora.example.com\r\nuser-agent: ElevenLabs/1.0\r\n\
         content-type: application/json\r\nelevenlabs-signature: t={at},v0={signature}\r\ncontent-length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    request.extend_from_slice(body);
    request.into()
}

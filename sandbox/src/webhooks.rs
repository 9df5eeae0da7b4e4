//! The misbehaving postman: webhooks that come late, twice, out of order, or never.
//!
//! A webhook's misfortune is drawn from what it is about (`conversation`, `message` and what it
//! says), never from when it was posted. It is signed when it is handed over, not when it is
//! planned: a late one is late, not forged.

use std::collections::HashMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{
    fate::Fate,
    options::first_secret,
    rates::{Misbehaviour, Span},
    signatures::{elevenlabs_signature, twilio_signature},
    world::{Step, World},
};

/// A webhook to be overtaken waits at most so long for the next one.
const HELD_BACK_MS: u64 = 60_000;

/// The second of two deliveries comes so much later.
const SECOND_COPY_MS: Span = Span::new(0, 30_000);

/// ElevenLabs' retry schedule, from the first attempt, when retries are on.
const ELEVENLABS_RETRY_SECS: [u64; 4] = [30, 120, 480, 1_800];

/// ElevenLabs delays a retry by up to this share more.
const ELEVENLABS_JITTER: f64 = 0.10;

/// Twilio's retries all happen at once, within its 15 seconds.
const TWILIO_RETRY_MS: u64 = 500;

/// What a webhook is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum WebhookKind {
    /// ElevenLabs `post_call_transcription`.
    #[serde(rename = "elevenlabs.transcription")]
    Transcription,
    /// ElevenLabs `post_call_audio`.
    #[serde(rename = "elevenlabs.audio")]
    Audio,
    /// ElevenLabs `call_initiation_failure`.
    #[serde(rename = "elevenlabs.failure")]
    CallFailure,
    /// A Twilio message's status.
    #[serde(rename = "twilio.status")]
    MessageStatus,
    /// A message to the service's Twilio number.
    #[serde(rename = "twilio.incoming")]
    TwilioIncoming,
    /// A Twilio call's progress.
    #[serde(rename = "twilio.voice")]
    VoiceStatus,
    /// builderbot `message.incoming`.
    #[serde(rename = "builderbot.incoming")]
    BuilderbotIncoming,
    /// builderbot `message.outgoing`.
    #[serde(rename = "builderbot.outgoing")]
    BuilderbotOutgoing,
}

impl WebhookKind {
    fn is_twilio(self) -> bool {
        matches!(
            self,
            Self::MessageStatus | Self::TwilioIncoming | Self::VoiceStatus
        )
    }
}

/// One sending of a webhook.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// When.
    pub at_unix_ms: u64,
    /// The HTTP status of the service's answer; none if there was no answer.
    pub status: Option<u16>,
    /// Why there was none: `connect`, `timeout` or `other`.
    pub error: Option<String>,
}

/// A webhook that was due, and what became of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct WebhookTruth {
    /// What it is.
    pub kind: WebhookKind,
    /// What it is about: a conversation id, a message sid, a call sid, a number.
    pub entity: String,
    /// What it says of it: a `type`, a status.
    pub label: String,
    /// Where it goes.
    pub url: String,
    /// SHA-256 of its body, in hexadecimal.
    pub body_sha256: String,
    /// It is never sent.
    pub never: bool,
    /// It is sent twice.
    pub twice: bool,
    /// It is late by so much.
    pub late_ms: u64,
    /// The next one about the same entity overtakes it.
    pub out_of_order: bool,
    /// What was sent.
    pub attempts: Vec<Attempt>,
}

impl WebhookTruth {
    /// Whether the service has said 200 to it.
    pub fn delivered(&self) -> bool {
        self.attempts.iter().any(|a| a.status == Some(200))
    }
}

/// What a webhook carries.
pub(crate) enum Content {
    Json(Bytes),
    Form(Vec<(String, String)>),
}

impl Content {
    fn bytes(&self) -> Bytes {
        match self {
            Self::Json(body) => body.clone(),
            Self::Form(params) => form_urlencoded::Serializer::new(String::new())
                .extend_pairs(params)
                .finish()
                .into(),
        }
    }
}

/// A webhook to post. `url` is the service's public address of the hook, which Twilio signs.
pub(crate) struct Letter {
    pub(crate) kind: WebhookKind,
    pub(crate) entity: String,
    pub(crate) label: String,
    pub(crate) url: String,
    pub(crate) content: Content,
    pub(crate) delay_ms: u64,
}

/// A webhook ready to go.
#[derive(Debug)]
pub(crate) struct Parcel {
    pub(crate) webhook: usize,
    /// What it is about.
    pub(crate) entity: String,
    /// It waits for earlier ones about the same; a second copy does not.
    pub(crate) in_order: bool,
    pub(crate) url: String,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Bytes,
    /// Without a Content-Length.
    pub(crate) chunked: bool,
}

struct Webhook {
    truth: WebhookTruth,
    signed_url: String,
    content: Option<Content>,
    /// Whether each copy is still to be sent.
    copies: Vec<bool>,
    retries: usize,
}

/// Everything that was posted.
#[derive(Default)]
pub(crate) struct Postman {
    webhooks: Vec<Webhook>,
    /// The webhook that the next one about the same entity overtakes.
    held_back: HashMap<String, usize>,
    misbehaviour: HashMap<WebhookKind, Misbehaviour>,
    paused: bool,
    parked: Vec<(usize, usize)>,
}

impl Postman {
    pub(crate) fn truth(&self) -> Vec<WebhookTruth> {
        self.webhooks.iter().map(|w| w.truth.clone()).collect()
    }

    /// How many deliveries wait for the end of a pause.
    pub(crate) fn parked(&self) -> usize {
        self.parked.len()
    }

    pub(crate) fn pause(&mut self) {
        self.paused = true;
    }

    /// Lets one kind misbehave differently from the rest.
    pub(crate) fn set_misbehaviour(&mut self, kind: WebhookKind, how: Misbehaviour) {
        self.misbehaviour.insert(kind, how);
    }
}

/// Ends a pause; what was parked is due now.
pub(crate) fn resume(world: &mut World) {
    world.postman.paused = false;
    for (webhook, copy) in std::mem::take(&mut world.postman.parked) {
        world.plan_in(0, Step::Deliver { webhook, copy });
    }
}

/// Posts a letter: draws its misfortune and plans its deliveries.
pub(crate) fn post(world: &mut World, letter: Letter) {
    let rates = &world.options.rates;
    let how = world.postman.misbehaviour.get(&letter.kind);
    let how = how.copied().unwrap_or_else(|| rates.misbehaviour());
    let late_ms = rates.late_secs.times(1000);
    let mut draw = world.fate.draw("webhook", &name(&letter));
    let never = draw.chance(how.never);
    let twice = draw.chance(how.twice);
    let second_ms = draw.within(SECOND_COPY_MS.times(1));
    let is_late = draw.chance(how.late);
    let late_ms = draw.within(late_ms) * u64::from(is_late);
    let out_of_order = draw.chance(how.out_of_order);

    let id = world.postman.webhooks.len();
    let now = world.clock.now_ms();
    let mut due = now + letter.delay_ms + late_ms;
    if !never {
        if out_of_order {
            due += HELD_BACK_MS;
            world.postman.held_back.insert(letter.entity.clone(), id);
        } else if let Some(held) = world.postman.held_back.remove(&letter.entity) {
            world.plan_at(
                due + 1,
                Step::Deliver {
                    webhook: held,
                    copy: 0,
                },
            );
        }
        world.plan_at(
            due,
            Step::Deliver {
                webhook: id,
                copy: 0,
            },
        );
        if twice {
            world.plan_at(
                due + second_ms,
                Step::Deliver {
                    webhook: id,
                    copy: 1,
                },
            );
        }
    }
    let body = letter.content.bytes();
    let truth = WebhookTruth {
        kind: letter.kind,
        entity: letter.entity,
        label: letter.label,
        url: without_token(letter.kind, world.options.reachable(&letter.url)),
        body_sha256: hex::encode(Sha256::digest(&body)),
        never,
        twice,
        late_ms,
        out_of_order,
        attempts: Vec::new(),
    };
    world.postman.webhooks.push(Webhook {
        truth,
        signed_url: letter.url,
        content: (!never).then_some(letter.content),
        copies: vec![!never; 1 + usize::from(twice)],
        retries: 0,
    });
}

/// builderbot's URLs carry a secret, which the truth must not.
fn without_token(kind: WebhookKind, mut url: String) -> String {
    use WebhookKind::{BuilderbotIncoming, BuilderbotOutgoing};
    if matches!(kind, BuilderbotIncoming | BuilderbotOutgoing) {
        url.truncate(url.find('?').unwrap_or(url.len()));
    }
    url
}

fn name(letter: &Letter) -> String {
    format!("{:?} {} {}", letter.kind, letter.entity, letter.label)
}

/// A delivery is due: returns the parcel, unless it went already or the postman is resting.
pub(crate) fn hand_over(world: &mut World, webhook: usize, copy: usize) -> Option<Parcel> {
    let unix = world.clock.unix();
    let postman = &mut world.postman;
    let known = postman.webhooks.get_mut(webhook)?;
    let waiting = known.copies.get_mut(copy).filter(|waiting| **waiting)?;
    if postman.paused {
        postman.parked.push((webhook, copy));
        return None;
    }
    *waiting = false;
    let content = known.content.as_ref()?;
    let body = content.bytes();
    let mut headers = Vec::new();
    match content {
        Content::Json(_) => headers.push(("Content-Type", "application/json".to_owned())),
        Content::Form(params) => {
            let form = "application/x-www-form-urlencoded; charset=UTF-8";
            let token = first_secret(&world.options.twilio_auth_token);
            let url = known.signed_url.split('#').next().unwrap_or_default();
            let signature = twilio_signature(token, url, params);
            headers.push(("Content-Type", form.to_owned()));
            headers.push(("X-Twilio-Signature", signature));
            headers.push((
                "I-Twilio-Idempotency-Token",
                token_of(world.fate, &known.truth),
            ));
        }
    }
    if is_elevenlabs(known.truth.kind) {
        let secret = first_secret(&world.options.elevenlabs_webhook_secret);
        let signature = elevenlabs_signature(secret, unix, &body);
        headers.push(("ElevenLabs-Signature", signature));
    }
    Some(Parcel {
        webhook,
        entity: known.truth.entity.clone(),
        in_order: copy == 0,
        url: world.options.reachable(&known.signed_url),
        headers,
        body,
        chunked: known.truth.kind == WebhookKind::Audio,
    })
}

fn is_elevenlabs(kind: WebhookKind) -> bool {
    use WebhookKind::{Audio, CallFailure, Transcription};
    matches!(kind, Transcription | Audio | CallFailure)
}

fn token_of(fate: Fate, truth: &WebhookTruth) -> String {
    let name = format!("{} {}", truth.entity, truth.label);
    fate.draw("idempotency", &name).uuid()
}

/// Notes what the service said to a parcel, and plans the provider's retry if it has one.
pub(crate) fn handed_over(world: &mut World, parcel: &Parcel, result: Result<u16, &'static str>) {
    let at_unix_ms = world.clock.unix_ms();
    let retry_ms = retry_delay(world, parcel, result);
    let Some(known) = world.postman.webhooks.get_mut(parcel.webhook) else {
        return;
    };
    known.truth.attempts.push(Attempt {
        at_unix_ms,
        status: result.ok(),
        error: result.err().map(str::to_owned),
    });
    if let Some(delay_ms) = retry_ms {
        known.retries += 1;
        known.copies.push(true);
        let copy = known.copies.len() - 1;
        let webhook = parcel.webhook;
        world.plan_in(delay_ms, Step::Deliver { webhook, copy });
    } else if known.copies.iter().all(|waiting| !waiting) {
        known.content = None;
    }
}

/// How long the provider waits before it tries again, if it does.
fn retry_delay(world: &World, parcel: &Parcel, result: Result<u16, &'static str>) -> Option<u64> {
    let known = world.postman.webhooks.get(parcel.webhook)?;
    let kind = known.truth.kind;
    if kind.is_twilio() {
        let policy = TwilioRetries::of(&known.signed_url);
        return (known.retries < policy.count && policy.covers(result)).then_some(TWILIO_RETRY_MS);
    }
    let retried = matches!(result, Err(_) | Ok(408 | 429 | 500..=599));
    if kind != WebhookKind::Transcription || !world.options.elevenlabs_retries || !retried {
        return None;
    }
    let before = match known.retries {
        0 => 0,
        n => *ELEVENLABS_RETRY_SECS.get(n - 1)?,
    };
    let after = *ELEVENLABS_RETRY_SECS.get(known.retries)?;
    let name = format!("{} retry {}", known.truth.entity, known.retries);
    let jitter = world.fate.draw("webhook", &name).unit() * ELEVENLABS_JITTER;
    Some(((after - before) as f64 * 1000.0 * (1.0 + jitter)) as u64)
}

/// Twilio's connection overrides, written behind the URL's `#`: `#rc=3&rp=5xx,ct,rt`.
struct TwilioRetries {
    count: usize,
    policies: Vec<String>,
}

impl TwilioRetries {
    /// The most that Twilio allows.
    const COUNT_MAX: usize = 5;

    fn of(url: &str) -> Self {
        let mut policy = Self {
            count: 1,
            policies: vec!["ct".into()],
        };
        let fragment = url.split_once('#').map_or("", |(_, fragment)| fragment);
        for (name, value) in form_urlencoded::parse(fragment.as_bytes()) {
            match &*name {
                "rc" => policy.count = value.parse().unwrap_or(1).min(Self::COUNT_MAX),
                "rp" => policy.policies = value.split(',').map(str::to_owned).collect(),
                _ => {}
            }
        }
        policy
    }

    fn covers(&self, result: Result<u16, &'static str>) -> bool {
        let has = |name: &str| self.policies.iter().any(|p| p == name || p == "all");
        match result {
            Err("connect") => has("ct"),
            Err(_) => has("rt"),
            Ok(400..=499) => has("4xx"),
            Ok(500..=599) => has("5xx"),
            Ok(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twilio_retries_once_and_only_a_failed_connection_unless_the_url_says_otherwise() {
        let usual = TwilioRetries::of("https://x/y");
        assert_eq!(usual.count, 1);
        assert!(usual.covers(Err("connect")));
        assert!(!usual.covers(Ok(500)) && !usual.covers(Err("timeout")));
        let asked = TwilioRetries::of("https://x/y#rc=9&rp=5xx,rt");
        assert_eq!(asked.count, 5);
        assert!(asked.covers(Ok(503)) && asked.covers(Err("timeout")));
        assert!(!asked.covers(Ok(404)) && !asked.covers(Ok(200)));
    }
}

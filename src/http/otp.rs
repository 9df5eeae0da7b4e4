//! One-time codes: asking for one, and giving it back. Contract, section 7.
//!
//! No code is in an answer, an audit record or a log line; what is given back
//! is not repeated in what is said about it.

use std::sync::Arc;

use domain::{PhoneNumber, otp};
use poem::Request;
use poem::web::Data;
use poem_openapi::param::Header;
use poem_openapi::payload::{Json, Response};
use poem_openapi::types::Example;
use poem_openapi::{ApiResponse, Object, OpenApi};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::auth::{Access, Auth, Caller};
use super::batch_calling::metadata;
use super::body::Body;
use super::error::Failure;
use super::idempotency::order_id;
use super::reply::{self, Commanded, Success};
use super::time::Time;
use super::{Tag, audit, params};
use crate::app::App;
use crate::otp::{DIGITS, Made, Order, READ_MODELS, RequestError, VerifyError, Which};

/// Longest purpose that is taken.
const PURPOSE_CHARS_MAX: usize = 64;

/// Who is to be sent a code.
#[derive(Deserialize, Object)]
#[oai(rename = "OtpRequest", example)]
struct RequestBody {
    /// In E.164.
    phone_number: String,
    /// What for: 1 to 64 of the characters a-z, 0-9, `_` and `-`, in any case.
    purpose: String,
}

impl Example for RequestBody {
    fn example() -> Self {
        Self {
            phone_number: "+573001234567".to_owned(),
            purpose: "login".to_owned(),
        }
    }
}

/// A code, given back.
#[derive(Deserialize, Object)]
#[oai(rename = "OtpVerification", example)]
struct VerifyBody {
    /// The challenge; else `phone_number` and `purpose`.
    challenge_id: Option<String>,
    /// In E.164, with `purpose`: the latest challenge of these two is meant.
    phone_number: Option<String>,
    /// What for, with `phone_number`.
    purpose: Option<String>,
    /// Six digits.
    #[serde(deserialize_with = "text_or_nothing")]
    code: String,
}

impl Example for VerifyBody {
    fn example() -> Self {
        Self {
            challenge_id: Some(CHALLENGE_EXAMPLE.to_owned()),
            phone_number: None,
            purpose: None,
            code: "123456".to_owned(),
        }
    }
}

const CHALLENGE_EXAMPLE: &str = "otp_3f2c9d1e-8a4b-4c6d-9e0f-1a2b3c4d5e6f";

/// What is no text becomes none: serde would quote it, and it may be a code.
fn text_or_nothing<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    Ok(match Value::deserialize(from)? {
        Value::String(text) => text,
        _ => String::new(),
    })
}

/// A code that was asked for.
#[derive(Debug, Object)]
#[oai(rename = "OtpChallenge", example)]
struct ChallengeView {
    /// The challenge, and the interaction that its SMS is part of.
    challenge_id: String,
    /// From when on the code is good for nothing.
    expires_at: Time,
    /// When another may be asked for.
    resend_after: Time,
}

impl Example for ChallengeView {
    fn example() -> Self {
        let at = |unix| Time(chrono::DateTime::from_timestamp(unix, 0).unwrap_or_default());
        Self {
            challenge_id: CHALLENGE_EXAMPLE.to_owned(),
            expires_at: at(1_761_694_490),
            resend_after: at(1_761_694_220),
        }
    }
}

impl From<Made> for ChallengeView {
    fn from(made: Made) -> Self {
        Self {
            challenge_id: made.challenge_id,
            expires_at: made.expires_at.into(),
            resend_after: made.resend_after.into(),
        }
    }
}

/// The code was right.
#[derive(Debug, Object)]
#[oai(rename = "OtpVerified")]
struct VerifiedView {
    /// Always `true`.
    verified: bool,
}

/// What asking for a code answers.
#[derive(ApiResponse)]
enum Accepted {
    /// The code is on its way, whether or not anybody has the number.
    #[oai(status = 202)]
    Accepted(Json<Success<ChallengeView>>),
}

/// Routes for one-time codes.
pub struct Api;

#[OpenApi(tag = "Tag::Otp")]
impl Api {
    /// Send a one-time code
    ///
    /// By SMS. 429 `otp_rate_limited` when too many were asked for: for the number and purpose, for its block of
    /// numbers, or altogether. 400 where the number's country is none that codes are sent to, or has no such number.
    /// 410 `otp_expired` where an `Idempotency-Key` is used again when its answer is forgotten and its code too old.
    #[oai(path = "/api/otp", method = "post", operation_id = "request_otp")]
    async fn request(
        &self,
        app: Data<&Arc<App>>,
        auth: Auth,
        request: &Request,
        /// The same key with the same body gets the first answer again.
        #[oai(name = "Idempotency-Key")]
        idempotency_key: Header<Option<String>>,
        body: Body<RequestBody>,
    ) -> Result<Response<Accepted>, Failure> {
        let caller = Caller::from(auth);
        let challenge_id = match idempotency_key.0 {
            // A repeat of what was cut short finds its own challenge.
            Some(key) => otp::id(order_id(&app, &caller, request.uri().path(), Some(key))),
            None => app.otp.fresh_id(),
        };
        let act = async {
            let order = order(challenge_id, &body.0)?;
            let made = app.otp.request(order, metadata(&caller)).await;
            made.map_err(Failure::from)
        };
        let target = |made: Option<&Made>| made.map(|made| made.challenge_id.clone());
        let (made, audited_at) =
            audit::recorded_of(&app, &caller, Access::Operate, "request_otp", target, act).await?;
        let position = made.position.max(audited_at);
        app.readable(&READ_MODELS, position).await;
        let body = reply::success(ChallengeView::from(made));
        Ok(Response::new(Accepted::Accepted(body))
            .header("X-Ledger-Position", position.to_string()))
    }

    /// Give a one-time code back
    ///
    /// A code is good once, in its time, and for so many guesses. 400 `otp_invalid` with `attempts_left` where it is
    /// wrong, 410 `otp_expired`, 409 `otp_already_used`, 429 `otp_attempts_exceeded`. What is not six digits is no
    /// guess. An `Idempotency-Key` means nothing here: nothing that a code could be computed from is kept.
    #[oai(path = "/api/otp/verify", method = "post", operation_id = "verify_otp")]
    async fn verify(
        &self,
        app: Data<&Arc<App>>,
        auth: Auth,
        body: Body<VerifyBody>,
    ) -> Result<Commanded<VerifiedView>, Failure> {
        let caller = Caller::from(auth);
        let found = match meant(&body.0) {
            Ok(which) => app.otp.find(which).await.map_err(Failure::from),
            Err(failure) => Err(failure),
        };
        let target = found.as_ref().ok().cloned();
        let act = async {
            let id = found?;
            let verified = app.otp.verify(&id, &body.0.code, metadata(&caller));
            verified.await.map_err(Failure::from)
        };
        let (position, audited_at) =
            audit::recorded(&app, &caller, Access::Operate, "verify_otp", target, act).await?;
        let position = position.max(audited_at);
        app.readable(&READ_MODELS, position).await;
        let verified = VerifiedView { verified: true };
        Ok(reply::commanded(verified, None, position))
    }
}

/// Reads an order.
///
/// # Errors
/// 400 that names every wrong field.
fn order(challenge_id: String, body: &RequestBody) -> Result<Order, Failure> {
    let (phone_number, purpose) = person(&body.phone_number, &body.purpose)?;
    Ok(Order {
        challenge_id,
        phone_number,
        purpose,
    })
}

fn person(phone_number: &str, purpose: &str) -> Result<(PhoneNumber, String), Failure> {
    let mut wrong = vec![];
    let phone_number = PhoneNumber::parse(phone_number);
    if let Err(invalid) = &phone_number {
        wrong.push(("phone_number".to_owned(), invalid.to_string()));
    }
    let purpose = purpose.to_ascii_lowercase();
    let is_letter = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-".contains(&b);
    if !(1..=PURPOSE_CHARS_MAX).contains(&purpose.len()) || !purpose.bytes().all(is_letter) {
        let message =
            format!("must have 1 to {PURPOSE_CHARS_MAX} of the characters a-z, 0-9, _ and -");
        wrong.push(("purpose".to_owned(), message));
    }
    match phone_number {
        Ok(phone_number) if wrong.is_empty() => Ok((phone_number, purpose)),
        _ => Err(Failure::fields(wrong)),
    }
}

/// The challenge that is meant, if it is a code that is given back.
///
/// # Errors
/// 400 that names the field.
fn meant(body: &VerifyBody) -> Result<Which, Failure> {
    let is_code = body.code.len() == DIGITS && body.code.bytes().all(|b| b.is_ascii_digit());
    if !is_code {
        return Err(Failure::field("code", format!("must be {DIGITS} digits")));
    }
    if let Some(id) = params::text("challenge_id", body.challenge_id.clone())? {
        return Ok(Which::Challenge(id));
    }
    let (Some(phone_number), Some(purpose)) = (&body.phone_number, &body.purpose) else {
        return Err(Failure::field(
            "challenge_id",
            "is required, or else phone_number and purpose",
        ));
    };
    let (phone_number, purpose) = person(phone_number, purpose)?;
    Ok(Which::Latest(phone_number, purpose))
}

impl From<RequestError> for Failure {
    fn from(error: RequestError) -> Self {
        match error {
            RequestError::Country => {
                Self::field("phone_number", "is of a country that no codes are sent to")
            }
            RequestError::Number => Self::field(
                "phone_number",
                "is no number of its country: write it in E.164, without a trunk 0",
            ),
            RequestError::Limited(retry_after_secs) => Self::limited(
                "otp_rate_limited",
                "Se pidieron demasiados códigos, intenta más tarde",
                retry_after_secs,
            ),
            RequestError::Busy => Self::unavailable("Overloaded, try again"),
            RequestError::Taken => Self::conflict(
                "idempotency_key_reused",
                "This Idempotency-Key was used for another request: take a new one",
            ),
            RequestError::Expired => Self::gone("otp_expired", "El código ha vencido, pide otro"),
            RequestError::Internal(error) => error.into(),
        }
    }
}

impl From<VerifyError> for Failure {
    fn from(error: VerifyError) -> Self {
        match error {
            VerifyError::Unknown => Self::not_found("Código no encontrado"),
            VerifyError::Wrong { attempts_left } => {
                Self::wrong_code("El código no es correcto", attempts_left)
            }
            VerifyError::Expired => Self::gone("otp_expired", "El código ha vencido"),
            VerifyError::AlreadyUsed => {
                Self::conflict("otp_already_used", "El código ya fue usado")
            }
            VerifyError::AttemptsExceeded(retry_after_secs) => Self::limited(
                "otp_attempts_exceeded",
                "Demasiados intentos, pide otro código",
                retry_after_secs,
            ),
            VerifyError::Internal(error) => error.into(),
        }
    }
}

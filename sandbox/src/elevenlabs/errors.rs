//! ElevenLabs' error bodies: `detail` is an object, except for 422, where it is an array.

use serde_json::{Value, json};

use crate::http::Answer;

/// An error with an object.
pub(super) struct Problem<'a> {
    pub(super) status: u16,
    pub(super) kind: &'a str,
    pub(super) code: &'a str,
    pub(super) message: &'a str,
    pub(super) param: Option<&'a str>,
    pub(super) request_id: &'a str,
}

impl Problem<'_> {
    pub(super) fn answer(&self) -> Answer {
        let detail = json!({
            "type": self.kind,
            "code": self.code,
            "message": self.message,
            "status": self.code,
            "request_id": self.request_id,
            "param": self.param,
        });
        Answer::json(self.status, &json!({ "detail": detail }))
    }
}

/// What the provider says with a status, when nothing more is known.
pub(crate) fn of_status(status: u16, request_id: &str) -> Answer {
    let (kind, code, message) = match status {
        400 => (
            "invalid_request",
            "invalid_request",
            "The request is invalid.",
        ),
        401 => ("authentication_error", "invalid_api_key", "Invalid API key"),
        402 => (
            "payment_required",
            "insufficient_credits",
            "You have insufficient credits for this request.",
        ),
        403 => (
            "authorization_error",
            "missing_permissions",
            "The API key is missing a permission to execute this operation.",
        ),
        404 => (
            "not_found",
            "not_found",
            "The requested resource was not found.",
        ),
        409 => (
            "conflict",
            "conflict",
            "The resource was changed meanwhile.",
        ),
        429 => (
            "rate_limit_error",
            "rate_limit_exceeded",
            "Too many requests. Please try again later.",
        ),
        503 => (
            "service_unavailable",
            "service_unavailable",
            "The service is temporarily unavailable. Please try again later.",
        ),
        _ => (
            "internal_error",
            "internal_error",
            "An unexpected error occurred. Please try again later.",
        ),
    };
    Problem {
        status,
        kind,
        code,
        message,
        param: None,
        request_id,
    }
    .answer()
}

/// Something that does not exist.
pub(super) fn not_found(what: &str, id: &str, request_id: &str) -> Answer {
    Problem {
        status: 404,
        kind: "not_found",
        code: &format!("{what}_not_found"),
        message: &format!("{} with ID {id} was not found.", what.replace('_', " ")),
        param: None,
        request_id,
    }
    .answer()
}

/// The older shape: only a status and a message.
fn legacy(status: u16, code: &str, message: &str) -> Answer {
    let detail = json!({"status": code, "message": message});
    Answer::json(status, &json!({ "detail": detail }))
}

pub(super) fn missing_api_key() -> Answer {
    let message = "Neither authorization header nor xi-api-key received, please provide one.";
    legacy(401, "needs_authorization", message)
}

pub(super) fn invalid_api_key() -> Answer {
    legacy(401, "invalid_api_key", "Invalid API key")
}

/// The findings of a validation, which is a 422.
#[derive(Default)]
pub(super) struct Findings(Vec<Value>);

impl Findings {
    pub(super) fn add(&mut self, loc: Value, msg: impl Into<String>, kind: &str) {
        self.0
            .push(json!({"loc": loc, "msg": msg.into(), "type": kind}));
    }

    /// Refuses, if anything was found.
    pub(super) fn verdict(self) -> Result<(), Answer> {
        if self.0.is_empty() {
            return Ok(());
        }
        Err(Answer::json(422, &json!({"detail": self.0})))
    }
}

/// The body as a JSON object, or the 422 that says why not.
pub(super) fn object(body: &[u8]) -> Result<Value, Answer> {
    let mut findings = Findings::default();
    match serde_json::from_slice::<Value>(body) {
        Ok(value) if value.is_object() => return Ok(value),
        Ok(_) => findings.add(
            json!(["body"]),
            "Input should be a valid dictionary or object to extract fields from",
            "model_attributes_type",
        ),
        Err(_) if body.is_empty() => findings.add(json!(["body"]), "Field required", "missing"),
        Err(error) => findings.add(
            json!(["body", error.column()]),
            "JSON decode error",
            "json_invalid",
        ),
    }
    findings.verdict().map(|()| Value::Null)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(answer: &Answer) -> Value {
        serde_json::from_slice(&answer.body).unwrap()
    }

    #[test]
    fn every_status_has_an_object_with_its_type_and_code() {
        for (status, kind) in [
            (400, "invalid_request"),
            (401, "authentication_error"),
            (402, "payment_required"),
            (403, "authorization_error"),
            (404, "not_found"),
            (409, "conflict"),
            (429, "rate_limit_error"),
            (500, "internal_error"),
            (503, "service_unavailable"),
        ] {
            let answer = of_status(status, "0123");
            let detail = &parsed(&answer)["detail"];
            assert_eq!((answer.status, &detail["type"]), (status, &json!(kind)));
            assert_eq!(detail["code"], detail["status"]);
            assert_eq!(detail["request_id"], "0123");
            assert!(detail["message"].is_string() && detail["param"].is_null());
        }
    }

    #[test]
    fn a_missing_and_a_wrong_key_have_the_older_shape() {
        assert_eq!(
            parsed(&missing_api_key())["detail"]["status"],
            "needs_authorization"
        );
        assert_eq!(
            parsed(&invalid_api_key())["detail"]["status"],
            "invalid_api_key"
        );
    }

    #[test]
    fn a_body_that_is_no_object_is_a_422_with_an_array() {
        for (body, kind) in [
            (&b""[..], "missing"),
            (b"{", "json_invalid"),
            (b"[]", "model_attributes_type"),
        ] {
            let answer = object(body).unwrap_err();
            assert_eq!(answer.status, 422);
            assert_eq!(parsed(&answer)["detail"][0]["type"], kind);
        }
    }
}

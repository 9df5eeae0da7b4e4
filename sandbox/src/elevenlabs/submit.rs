//! `POST /v1/convai/batch-calling/submit`

use serde_json::{Value, json};

use super::{
    agents,
    batches::{Batch, BatchStatus, Recipient, RecipientStatus},
    calls,
    errors::{self, Findings},
    phone_numbers,
};
use crate::{
    http::{Answer, Call, Reply},
    world::World,
};

/// The most people in one batch. The provider's limit.
const RECIPIENTS_MAX: usize = 10_000;

/// How long a telephone rings, unless the batch says otherwise. The provider's default.
const RINGING_TIMEOUT_SECS: u64 = 60;

/// The longest that a telephone may ring. The provider's limit.
const RINGING_TIMEOUT_SECS_MAX: u64 = 999;

/// Settings that are echoed as they came.
const ECHOED: [&str; 5] = [
    "timezone",
    "branch_id",
    "environment",
    "whatsapp_params",
    "target_concurrency_limit",
];

pub(super) fn submit(world: &mut World, call: &Call) -> Reply {
    let body = errors::object(&call.body)?;
    validate(&body)?;
    let agent_id = text(&body["agent_id"]);
    let agent = agents::find(world, &agent_id)?.clone();
    let number = match body["agent_phone_number_id"].as_str() {
        None => Value::Null,
        Some(id) => {
            let request_id = world.request_id();
            let found = phone_numbers::find(world, id).cloned();
            found.ok_or_else(|| errors::not_found("phone_number", id, &request_id))?
        }
    };
    let at = world.elevenlabs.batches.len();
    let batch = make(world, &body, agent_id, &number);
    let document = batch.document(agent["name"].as_str().unwrap_or_default());
    let scheduled_unix = batch.scheduled_unix;
    let overreaches = overreaches(&agent, &batch.recipients);
    world.elevenlabs.batch_by_id.insert(batch.id.clone(), at);
    world.elevenlabs.batches.push(batch);
    if overreaches {
        calls::fail_batch(world, at);
    } else {
        calls::plan_start(world, at, scheduled_unix);
    }
    Ok(Answer::json(200, &document))
}

fn make(world: &mut World, body: &Value, agent_id: String, number: &Value) -> Batch {
    let name = text(&body["call_name"]);
    let key = format!("{name}/{}", world.nth(&format!("batch {name}")));
    let now = world.clock.unix();
    let config = &body["telephony_call_config"];
    let ringing = config["ringing_timeout_secs"].as_u64();
    let ringing_timeout_secs = ringing.unwrap_or(RINGING_TIMEOUT_SECS);
    let mut settings = json!({"telephony_call_config": {
        "ringing_timeout_secs": ringing_timeout_secs,
        "twilio_call_recording_enabled": config["twilio_call_recording_enabled"] == true,
    }});
    for name in ECHOED {
        settings[name] = body[name].clone();
    }
    let target = body["target_concurrency_limit"].as_u64();
    let target = target.and_then(|n| usize::try_from(n).ok());
    let recipients = body["recipients"].as_array().into_iter().flatten();
    Batch {
        id: world.fate.draw("batch id", &key).elevenlabs_id("btcal_"),
        name,
        agent_id,
        phone_number_id: number["phone_number_id"].clone(),
        phone_provider: number["provider"].clone(),
        agent_number: text(&number["phone_number"]),
        settings,
        ringing_timeout_secs,
        concurrency: target.unwrap_or(world.options.concurrency).max(1),
        created_unix: now,
        scheduled_unix: body["scheduled_time_unix"].as_u64().unwrap_or(now),
        updated_unix: now,
        status: BatchStatus::Pending,
        retry_count: 0,
        deleted: false,
        recipients: recipients
            .enumerate()
            .map(|(nth, recipient)| make_recipient(world, &key, nth, recipient))
            .collect(),
        next: 0,
        active: 0,
        key,
    }
}

fn make_recipient(world: &World, batch_key: &str, nth: usize, given: &Value) -> Recipient {
    let now = world.clock.unix();
    let id = given["id"].as_str().map(str::to_owned);
    let drawn = || {
        let name = format!("{batch_key}/{nth}");
        world
            .fate
            .draw("recipient id", &name)
            .elevenlabs_id("rcpt_")
    };
    Recipient {
        id: id.unwrap_or_else(drawn),
        phone_number: given["phone_number"].as_str().map(str::to_owned),
        whatsapp_user_id: given["whatsapp_user_id"].clone(),
        client_data: given["conversation_initiation_client_data"].clone(),
        status: RecipientStatus::Pending,
        created_unix: now,
        updated_unix: now,
        conversation: None,
        attempt: 1,
        placed: 0,
    }
}

/// Overrides that the agent's security settings do not permit make the whole batch fail.
fn overreaches(agent: &Value, recipients: &[Recipient]) -> bool {
    recipients.iter().any(|recipient| {
        let wanted = &recipient.client_data["conversation_config_override"];
        agents::forbidden_override(agent, wanted).is_some()
    })
}

fn validate(body: &Value) -> Result<(), Answer> {
    let mut findings = Findings::default();
    for name in ["call_name", "agent_id"] {
        required_string(&mut findings, body, name);
    }
    match &body["recipients"] {
        Value::Null => missing(&mut findings, json!(["body", "recipients"])),
        Value::Array(recipients) => {
            let count = recipients.len();
            if count > RECIPIENTS_MAX {
                let words = format!(
                    "List should have at most {RECIPIENTS_MAX} items after validation, not {count}"
                );
                findings.add(json!(["body", "recipients"]), words, "too_long");
            }
            for (nth, recipient) in recipients.iter().enumerate() {
                validate_recipient(&mut findings, nth, recipient);
            }
        }
        _ => findings.add(
            json!(["body", "recipients"]),
            "Input should be a valid list",
            "list_type",
        ),
    }
    validate_numbers(&mut findings, body);
    findings.verdict()
}

fn required_string(findings: &mut Findings, body: &Value, name: &str) {
    match &body[name] {
        Value::Null if body.get(name).is_none() => missing(findings, json!(["body", name])),
        Value::String(_) => {}
        _ => findings.add(
            json!(["body", name]),
            "Input should be a valid string",
            "string_type",
        ),
    }
}

fn missing(findings: &mut Findings, loc: Value) {
    findings.add(loc, "Field required", "missing");
}

fn validate_recipient(findings: &mut Findings, nth: usize, recipient: &Value) {
    let at = |field: &str| json!(["body", "recipients", nth, field]);
    if !recipient.is_object() {
        let words = "Input should be a valid dictionary or object to extract fields from";
        findings.add(
            json!(["body", "recipients", nth]),
            words,
            "model_attributes_type",
        );
        return;
    }
    for field in ["id", "phone_number", "whatsapp_user_id"] {
        if !(recipient[field].is_null() || recipient[field].is_string()) {
            findings.add(at(field), "Input should be a valid string", "string_type");
        }
    }
    if recipient["phone_number"].is_null() && recipient["whatsapp_user_id"].is_null() {
        let words = "Value error, either phone_number or whatsapp_user_id must be provided";
        findings.add(json!(["body", "recipients", nth]), words, "value_error");
    }
    let variables = &recipient["conversation_initiation_client_data"]["dynamic_variables"];
    for (name, value) in variables.as_object().into_iter().flatten() {
        if value.is_array() || value.is_object() {
            let loc = json!([
                "body",
                "recipients",
                nth,
                "conversation_initiation_client_data",
                "dynamic_variables",
                name
            ]);
            findings.add(loc, "Input should be a valid string", "string_type");
        }
    }
}

fn validate_numbers(findings: &mut Findings, body: &Value) {
    let whole = |value: &Value| value.is_null() || value.is_u64();
    for name in ["scheduled_time_unix", "target_concurrency_limit"] {
        if !whole(&body[name]) {
            let words = "Input should be a valid integer";
            findings.add(json!(["body", name]), words, "int_type");
        }
    }
    let ringing = &body["telephony_call_config"]["ringing_timeout_secs"];
    let loc = json!(["body", "telephony_call_config", "ringing_timeout_secs"]);
    match ringing.as_u64() {
        Some(1..=RINGING_TIMEOUT_SECS_MAX) => {}
        Some(0) => findings.add(
            loc,
            "Input should be greater than or equal to 1",
            "greater_than_equal",
        ),
        Some(_) => findings.add(
            loc,
            "Input should be less than or equal to 999",
            "less_than_equal",
        ),
        None if ringing.is_null() => {}
        None => findings.add(loc, "Input should be a valid integer", "int_type"),
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(body: Value) -> Vec<(Value, String)> {
        let Err(answer) = validate(&body) else {
            return Vec::new();
        };
        assert_eq!(answer.status, 422);
        let body: Value = serde_json::from_slice(&answer.body).unwrap();
        let each = |f: &Value| (f["loc"].clone(), f["type"].as_str().unwrap().to_owned());
        body["detail"]
            .as_array()
            .unwrap()
            .iter()
            .map(each)
            .collect()
    }

    fn body() -> Value {
        json!({"call_name": "x", "agent_id": "a", "recipients": [{"phone_number": "+573001234567"}]})
    }

    #[test]
    fn everything_that_is_wrong_is_found_at_once_and_named_by_its_place() {
        assert_eq!(found(body()), []);
        let all = found(json!({"call_name": 7}));
        let kinds: Vec<_> = all.iter().map(|(_, kind)| kind.as_str()).collect();
        assert_eq!(kinds, ["string_type", "missing", "missing"]);
        assert_eq!(all[2].0, json!(["body", "recipients"]));
    }

    #[test]
    fn a_recipient_needs_a_number_and_plain_variables() {
        let mut wrong = body();
        wrong["recipients"] = json!([
            {}, 7, {"phone_number": 3},
            {"phone_number": "+1", "conversation_initiation_client_data": {"dynamic_variables": {"a": []}}}
        ]);
        let kinds: Vec<_> = found(wrong).into_iter().map(|(_, kind)| kind).collect();
        let expected = [
            "value_error",
            "model_attributes_type",
            "string_type",
            "string_type",
        ];
        assert_eq!(kinds, expected);
    }

    #[test]
    fn numbers_stay_within_the_providers_limits() {
        for (secs, kind) in [
            (json!(0), "greater_than_equal"),
            (json!(1000), "less_than_equal"),
            (json!("x"), "int_type"),
        ] {
            let mut wrong = body();
            wrong["telephony_call_config"] = json!({"ringing_timeout_secs": secs});
            assert_eq!(found(wrong)[0].1, kind);
        }
        let mut many = body();
        many["recipients"] = vec![json!({"phone_number": "+1"}); RECIPIENTS_MAX + 1].into();
        assert_eq!(found(many)[0].1, "too_long");
        let mut late = body();
        late["scheduled_time_unix"] = json!("tomorrow");
        assert_eq!(found(late)[0].1, "int_type");
    }
}

//! The OpenAPI document is committed, so that a change of the interface is
//! seen in a review.

use std::collections::BTreeSet;

use serde_json::{Value, json};

#[test]
fn the_committed_document_is_what_the_program_says() {
    let committed = include_str!("../../openapi/bitacora.json");
    assert!(
        committed == bitacora::http::openapi(),
        "openapi/bitacora.json is not up to date: run `make openapi`"
    );
}

/// Nobody need be known; a provider's token or signature; a person or a service; a service alone; a person in a stream's query too.
const PUBLIC: &[&str] = &[];
const ELEVENLABS: &[&str] = &["webhook_token", "elevenlabs_signature"];
const BUILDERBOT: &[&str] = &["webhook_token", "builderbot_token"];
const TWILIO: &[&str] = &["webhook_token", "twilio_signature"];
const KNOWN: &[&str] = &["person", "service"];
const SERVICE: &[&str] = &["service"];
const STREAM: &[&str] = &["person", "person_in_query", "service"];

/// The routes of the contract's sections 0, 1, 2, 4, 6 and 8, and those for people.
#[rustfmt::skip]
const ROUTES: &[(&str, &str, &[&str], &str)] = &[
    ("get", "/health", PUBLIC, "200"),
    ("get", "/api/health", PUBLIC, "200"),
    ("get", "/livez", PUBLIC, "200"),
    ("get", "/readyz", PUBLIC, "200"),
    ("get", "/metrics", SERVICE, "200"),
    ("get", "/api/docs", PUBLIC, "200"),
    ("get", "/api/openapi.json", PUBLIC, "200"),
    ("post", "/api/auth/login", PUBLIC, "200"),
    ("post", "/api/users", KNOWN, "201"),
    ("get", "/api/users", KNOWN, "200"),
    ("post", "/api/groups", KNOWN, "201"),
    ("get", "/api/groups", KNOWN, "200"),
    ("get", "/api/groups/{id}", KNOWN, "200"),
    ("patch", "/api/groups/{id}", KNOWN, "200"),
    ("get", "/api/groups/{id}/clients", KNOWN, "200"),
    ("post", "/api/groups/{id}/clients", KNOWN, "201"),
    ("post", "/api/groups/{id}/prepare-agent", KNOWN, "200"),
    ("post", "/api/groups/{id}/call", KNOWN, "200"),
    ("get", "/api/groups/{id}/batch-status", KNOWN, "200"),
    ("get", "/api/groups/{id}/batch-status/{batchId}", KNOWN, "200"),
    ("get", "/api/groups/{id}/call-history", KNOWN, "200"),
    ("get", "/api/groups/{id}/call-stats", KNOWN, "200"),
    ("post", "/api/otp", KNOWN, "202"),
    ("post", "/api/otp/verify", KNOWN, "200"),
    ("post", "/webhooks/elevenlabs/call", ELEVENLABS, "200"),
    ("post", "/webhooks/builderbot/whatsapp", BUILDERBOT, "200"),
    ("post", "/webhooks/twilio/sms/status", TWILIO, "200"),
    ("post", "/webhook/twilio/incoming", TWILIO, "200"),
    ("post", "/webhooks/twilio/incoming", TWILIO, "200"),
    ("post", "/webhooks/twilio/voice/status", TWILIO, "200"),
    ("get", "/api/interactions", KNOWN, "200"),
    ("get", "/api/interactions/{id}", KNOWN, "200"),
    ("get", "/api/interactions/{id}/audio", KNOWN, "200"),
    ("post", "/api/call-completed", KNOWN, "200"),
    ("get", "/api/conversations", KNOWN, "200"),
    ("get", "/api/conversations/{phoneNumber}", KNOWN, "200"),
    ("post", "/api/conversations/{phoneNumber}/close", KNOWN, "200"),
    ("post", "/api/conversations/{phoneNumber}/escalate", KNOWN, "200"),
    ("post", "/api/conversations/{phoneNumber}/resume", KNOWN, "200"),
    ("post", "/api/conversations/{phoneNumber}/messages", KNOWN, "200"),
    ("get", "/api/stats", KNOWN, "200"),
    ("get", "/api/ledger/events", KNOWN, "200"),
    ("get", "/api/ledger/stream", STREAM, "200"),
    ("get", "/api/deliveries", KNOWN, "200"),
    ("get", "/api/deliveries/{id}", KNOWN, "200"),
    ("post", "/api/deliveries/{id}/reprocess", KNOWN, "200"),
    ("get", "/api/ledger/log", KNOWN, "200"),
    ("get", "/api/ledger/checkpoint", KNOWN, "200"),
    ("get", "/api/ledger/checkpoints", KNOWN, "200"),
    ("get", "/api/ledger/consistency", KNOWN, "200"),
    ("get", "/api/ledger/events/{position}/proof", KNOWN, "200"),
    ("get", "/api/deliveries/{id}/proof", KNOWN, "200"),
    ("get", "/api/interactions/{id}/proof", KNOWN, "200"),
    ("get", "/tlog/checkpoint", PUBLIC, "200"),
    ("get", "/tlog/tile/{level}/{index}", PUBLIC, "200"),
    ("get", "/tlog/tile/entries/{index}", &["person"], "200"),
    ("get", "/api/audit-log", KNOWN, "200"),
    ("get", "/api/export", KNOWN, "200"),
    ("get", "/api/subjects/{phone}/export", KNOWN, "200"),
    ("get", "/api/projections", KNOWN, "200"),
    ("post", "/api/projections/{name}/replay", KNOWN, "202"),
];

/// What answers without any handler of ours that could fail: nothing to tell.
const NEVER_FAIL: [&str; 3] = ["/livez", "/api/docs", "/api/openapi.json"];

#[test]
fn every_route_is_documented_with_its_answers_and_its_credentials() {
    let document: Value = serde_json::from_str(&bitacora::http::openapi()).unwrap();
    for &(method, path, schemes, success) in ROUTES {
        let what = format!("{method} {path}");
        let operation = &document["paths"][path][method];
        assert!(operation.is_object(), "{what} is not documented");
        for text in ["summary", "operationId"] {
            assert!(
                operation[text].as_str().is_some_and(|it| !it.is_empty()),
                "{what} has no {text}"
            );
        }
        let answers = operation["responses"].as_object().unwrap();
        let good = &answers[success];
        assert!(good["description"].is_string(), "{what}: {success}");
        let schemas = |answer: &Value| -> Vec<Value> {
            let content = answer["content"].as_object().into_iter().flatten();
            content.map(|(_, body)| body["schema"].clone()).collect()
        };
        assert!(
            schemas(good).iter().any(Value::is_object),
            "{what}: {success} has no schema"
        );
        let mut errors = answers
            .iter()
            .filter(|(status, _)| status.as_str() >= "400")
            .peekable();
        assert!(
            errors.peek().is_some() || NEVER_FAIL.contains(&path),
            "{what} has no errors"
        );
        for (status, answer) in
            errors.filter(|_| path.starts_with("/api/") || path.starts_with("/webhook"))
        {
            // A range beyond a recording's end has no body; health has its own.
            let own = status == "416" || path == "/api/health";
            let envelope = json!({"$ref": "#/components/schemas/Error"});
            assert!(
                own || schemas(answer) == [envelope],
                "{what}: {status}: {answer}"
            );
        }
        let mut needed: Vec<&str> = vec![];
        for either in operation["security"].as_array().into_iter().flatten() {
            needed.extend(either.as_object().unwrap().keys().map(String::as_str));
        }
        assert_eq!(needed, schemes, "{what}");
        for scheme in needed {
            assert!(
                document["components"]["securitySchemes"][scheme].is_object(),
                "{scheme}"
            );
        }
        if !schemes.is_empty() || path.starts_with("/webhook") {
            assert!(answers.contains_key("401"), "{what}");
        }
    }
}

#[test]
fn answers_have_examples() {
    let document: Value = serde_json::from_str(&bitacora::http::openapi()).unwrap();
    for name in [
        "Ack",
        "Conversation",
        "ConversationBegun",
        "Error",
        "Interaction",
        "Reprocessed",
        "User",
    ] {
        let schema = &document["components"]["schemas"][name];
        let (fields, example) = (&schema["properties"], &schema["example"]);
        assert!(example.is_object(), "{name}");
        let required = schema["required"].as_array().unwrap();
        for field in required {
            assert!(
                !example[field.as_str().unwrap()].is_null(),
                "{name} {field}"
            );
        }
        for (field, _) in example.as_object().unwrap() {
            assert!(fields[field].is_object(), "{name} has no {field}");
        }
    }
}

/// What keeps `value` from being of `schema`, as far as null, what is required
/// and types go.
fn fault(document: &Value, schema: &Value, value: &Value, at: &str) -> Option<String> {
    if value.is_null() {
        let any = schema["type"].is_null() && schema["allOf"].is_null() && schema["$ref"].is_null();
        return (!any && schema["nullable"] != true).then(|| format!("{at} is null"));
    }
    if let Some(name) = schema["$ref"].as_str() {
        let target = &document["components"]["schemas"][name.rsplit('/').next()?];
        return fault(document, target, value, at);
    }
    let mut all = schema["allOf"].as_array().into_iter().flatten();
    if let Some(fault) = all.find_map(|it| fault(document, it, value, at)) {
        return Some(fault);
    }
    let is_of_type = match schema["type"].as_str() {
        Some("string") => value.is_string(),
        Some("integer") => value.is_i64() || value.is_u64(),
        Some("number") => value.is_number(),
        Some("boolean") => value.is_boolean(),
        Some("array") => value.is_array(),
        Some("object") => value.is_object(),
        _ => true,
    };
    if !is_of_type {
        return Some(format!("{at} is no {}: {value}", schema["type"]));
    }
    let mut required = schema["required"].as_array().into_iter().flatten();
    if let Some(missing) = required.find(|name| value.get(name.as_str().unwrap()).is_none()) {
        return Some(format!("{at} has no {missing}"));
    }
    let mut items = value.as_array().into_iter().flatten();
    let mut properties = schema["properties"].as_object().into_iter().flatten();
    items
        .find_map(|item| fault(document, &schema["items"], item, &format!("{at}[]")))
        .or_else(|| {
            properties.find_map(|(name, schema)| {
                fault(document, schema, value.get(name)?, &format!("{at}.{name}"))
            })
        })
}

/// Every example below `node`, with the schema that it is of.
fn examples<'a>(node: &'a Value, found: &mut Vec<(&'a Value, &'a Value)>) {
    // Of a media type, and of a schema.
    if node["schema"].is_object() && !node["example"].is_null() {
        found.push((&node["schema"], &node["example"]));
    } else if node["type"].is_string() && !node["example"].is_null() {
        found.push((node, &node["example"]));
    }
    let within = node.as_object().into_iter().flatten();
    let within = within.filter(|(name, _)| *name != "example");
    within.for_each(|(_, node)| examples(node, found));
    let items = node.as_array().into_iter().flatten();
    items.for_each(|node| examples(node, found));
}

#[test]
fn every_example_is_of_its_schema() {
    let document: Value = serde_json::from_str(&bitacora::http::openapi()).unwrap();
    let mut found = Vec::new();
    examples(&document, &mut found);
    assert!(found.len() > 25, "{}", found.len());
    let faults = found
        .iter()
        .filter_map(|(schema, example)| fault(&document, schema, example, "it"));
    let faults: Vec<_> = faults.collect();
    assert!(faults.is_empty(), "{faults:#?}");

    // The checker sees what it should.
    let schema = json!({"$ref": "#/components/schemas/User"});
    let told = |value| fault(&document, &schema, &value, "it");
    assert!(told(json!({})).is_some());
    let mut user = document["components"]["schemas"]["User"]["example"].clone();
    assert_eq!(told(user.clone()), None);
    user["name"] = Value::Null;
    assert_eq!(told(user), Some("it.name is null".to_owned()));
}

#[test]
fn every_body_to_send_has_an_example() {
    let document: Value = serde_json::from_str(&bitacora::http::openapi()).unwrap();
    let paths = document["paths"].as_object().unwrap();
    let operations = paths.values().flat_map(|it| it.as_object().unwrap());
    let mut bodies = 0;
    for (_, operation) in operations {
        let content = operation["requestBody"]["content"].as_object();
        for (_, body) in content.into_iter().flatten() {
            let schema = body["schema"]["$ref"].as_str().unwrap();
            let name = schema.rsplit('/').next().unwrap();
            let example = &document["components"]["schemas"][name]["example"];
            assert!(example.is_object(), "{name}");
            bodies += 1;
        }
    }
    assert!(bodies > 10, "{bodies}");
}

#[test]
fn every_operation_has_an_id_of_its_own() {
    let document: Value = serde_json::from_str(&bitacora::http::openapi()).unwrap();
    let mut ids = BTreeSet::new();
    for operation in document["paths"]
        .as_object()
        .unwrap()
        .values()
        .flat_map(|it| it.as_object().unwrap().values())
    {
        let id = operation["operationId"].as_str().unwrap();
        assert!(ids.insert(id), "{id} is there twice");
    }
    assert!(ids.len() >= ROUTES.len());
}

//! The OpenAPI document and Swagger UI. Both come with the binary: no request
//! of a reader's browser leaves the host.

use poem::web::Html;
use poem::{Endpoint, Response, endpoint::make_sync};
use poem_openapi::{OpenApi, OpenApiService};
use serde_json::{Value, json};

use super::log;

/// How webhooks prove themselves, which poem-openapi cannot know: by any of
/// these, checked in `http::webhooks`. Name, place, parameter, description.
const WEBHOOK_SCHEMES: [(&str, &str, &str, &str); 4] = [
    (
        "webhook_token",
        "header",
        "X-Webhook-Token",
        "`ELEVENLABS_WEBHOOK_TOKEN`, `BUILDERBOT_WEBHOOK_TOKEN` or `TWILIO_WEBHOOK_TOKEN`.",
    ),
    (
        "builderbot_token",
        "query",
        "token",
        "`BUILDERBOT_WEBHOOK_TOKEN`.",
    ),
    (
        "elevenlabs_signature",
        "header",
        "ElevenLabs-Signature",
        "`t=<unix seconds>,v0=<hex>`: HMAC-SHA256 of `<t>.<body>` under `ELEVENLABS_WEBHOOK_SECRET`.",
    ),
    (
        "twilio_signature",
        "header",
        "X-Twilio-Signature",
        "Base64 of the HMAC-SHA1 of URL and parameters under `TWILIO_AUTH_TOKEN`.",
    ),
];

/// The document as it is served and committed: pretty, so that a diff can be
/// read.
pub fn document<T: OpenApi>(service: &OpenApiService<T, ()>) -> String {
    let spec = service.spec();
    serde_json::from_str::<Value>(&spec)
        .map(with_webhook_schemes)
        .map(with_documentation)
        .map(with_tiles)
        .map(with_proofs)
        .map(with_nulls)
        .and_then(|value| serde_json::to_string_pretty(&value))
        .unwrap_or(spec)
        + "\n"
}

fn with_webhook_schemes(mut document: Value) -> Value {
    for (name, place, parameter, description) in WEBHOOK_SCHEMES {
        document["components"]["securitySchemes"][name] = json!({
            "type": "apiKey", "in": place, "name": parameter, "description": description,
        });
    }
    let paths = document["paths"].as_object_mut().into_iter().flatten();
    for (path, operations) in paths.filter(|(path, _)| path.starts_with("/webhook")) {
        let own = match path.split('/').nth(2) {
            Some("elevenlabs") => "elevenlabs_signature",
            Some("builderbot") => "builderbot_token",
            _ => "twilio_signature",
        };
        operations["post"]["security"] = json!([{"webhook_token": []}, {own: []}]);
    }
    document
}

/// The two routes that are no operations of poem-openapi's: these.
fn with_documentation(mut document: Value) -> Value {
    for (path, id, summary, content_type, schema) in [
        (
            "/api/docs",
            "get_docs",
            "This documentation, for a browser",
            "text/html; charset=utf-8",
            json!({"type": "string"}),
        ),
        (
            "/api/openapi.json",
            "get_openapi",
            "This documentation, for programs",
            "application/json; charset=utf-8",
            json!({"type": "object"}),
        ),
    ] {
        document["paths"][path]["get"] = json!({
            "tags": ["Operations"],
            "summary": summary,
            "operationId": id,
            "responses": {"200": {
                "description": "The documentation.",
                "content": {content_type: {"schema": schema}},
            }},
        });
    }
    document
}

/// The static files of the transparency log: their names have slashes.
fn with_tiles(mut document: Value) -> Value {
    let bytes =
        json!({"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}});
    let error = json!({"application/json; charset=utf-8": {"schema": {"$ref": "#/components/schemas/Error"}}});
    let path = |name: &str, description: &str| {
        json!({"name": name, "in": "path", "required": true, "description": description,
               "schema": {"type": "string"}, "example": if name == "level" {"0"} else {"x001/234.p/5"}})
    };
    let index = path(
        "index",
        "Which tile, in threes of digits: `x001/234`; a partial one ends in `.p/<width>`.",
    );
    document["paths"]["/tlog/checkpoint"]["get"] = json!({
        "tags": ["Ledger"],
        "summary": "The signed head, for standard clients",
        "description": "C2SP tlog-tiles: everybody may read it.",
        "operationId": "get_tlog_checkpoint",
        "responses": {
            "200": {"description": "A C2SP tlog-checkpoint.", "content": {"text/plain; charset=utf-8": {"schema": {"type": "string"}}}},
            "404": {"description": "Nothing is sealed yet.", "content": error},
        },
    });
    document["paths"]["/tlog/tile/{level}/{index}"]["get"] = json!({
        "tags": ["Ledger"],
        "summary": "A tile of hashes",
        "description": "C2SP tlog-tiles: up to 256 hashes of a level. Everybody may read it.",
        "operationId": "get_tlog_tile",
        "parameters": [path("level", "0 is that of the leaves."), index],
        "responses": {
            "200": {"description": "The hashes, one behind another.", "content": bytes},
            "404": {"description": "There is no such tile.", "content": error},
        },
    });
    document["paths"]["/tlog/tile/entries/{index}"]["get"] = json!({
        "tags": ["Ledger"],
        "summary": "A bundle of entries",
        "description": "C2SP tlog-tiles: what 256 leaves are the hashes of, each behind its length in two bytes. For the roles `auditor` and `admin`.",
        "operationId": "get_tlog_entries",
        "parameters": [index],
        "security": [{"person": []}],
        "responses": {
            "200": {"description": "The entries.", "content": bytes},
            "401": {"description": "The credential is missing or wrong.", "content": error},
            "403": {"description": "The caller may not do this.", "content": error},
            "404": {"description": "There is no such bundle.", "content": error},
            "409": {"description": "The ledger is not what was sealed.", "content": error},
        },
    });
    document
}

/// Examples of what is text.
fn with_proofs(mut document: Value) -> Value {
    let proof = log::example_proof();
    for (path, example) in [
        ("/api/ledger/checkpoint", log::EXAMPLE_CHECKPOINT),
        ("/tlog/checkpoint", log::EXAMPLE_CHECKPOINT),
        ("/api/ledger/events/{position}/proof", &proof),
        ("/api/deliveries/{id}/proof", &proof),
    ] {
        let content = document["paths"][path]["get"]["responses"]["200"]["content"].as_object_mut();
        for (_, body) in content.into_iter().flatten() {
            body["example"] = json!(example);
        }
    }
    document
}

/// What need not be there may be null, in answers and in bodies to send:
/// poem-openapi leaves that out.
fn with_nulls(mut document: Value) -> Value {
    let schemas = document["components"]["schemas"].as_object_mut();
    for (_, schema) in schemas.into_iter().flatten() {
        let required = schema["required"].as_array().cloned().unwrap_or_default();
        let properties = schema["properties"].as_object_mut().into_iter().flatten();
        for (_, property) in properties.filter(|(name, _)| !required.contains(&json!(name))) {
            // Beside a bare `$ref` nothing else counts.
            if property["$ref"].is_string() {
                *property = json!({"allOf": [property.take()]});
            }
            property["nullable"] = json!(true);
        }
    }
    document
}

/// Serves the document.
pub fn endpoint(document: String) -> impl Endpoint {
    make_sync(move |_| {
        Response::builder()
            .content_type("application/json; charset=utf-8")
            .body(document.clone())
    })
}

/// Swagger UI, which the binary contains, of the document.
pub fn swagger_ui<T: OpenApi + 'static>(
    service: &OpenApiService<T, ()>,
    document: &str,
) -> impl Endpoint + use<T> {
    let html = service.swagger_ui_html();
    let html = html.replace(&service.spec(), document);
    make_sync(move |_| Html(html.clone()))
}

//! The OpenAPI document and Swagger UI. Both come with the binary: no request
//! of a reader's browser leaves the host.

use poem::web::Html;
use poem::{Endpoint, Response, endpoint::make_sync};
use poem_openapi::{OpenApi, OpenApiService};

/// The document as it is served and committed: pretty, so that a diff can be
/// read.
pub fn document<T: OpenApi>(service: &OpenApiService<T, ()>) -> String {
    let spec = service.spec();
    serde_json::from_str::<serde_json::Value>(&spec)
        .and_then(|value| serde_json::to_string_pretty(&value))
        .unwrap_or(spec)
        + "\n"
}

/// Serves the document.
pub fn endpoint(document: String) -> impl Endpoint {
    make_sync(move |_| {
        Response::builder()
            .content_type("application/json; charset=utf-8")
            .body(document.clone())
    })
}

/// Swagger UI, which the binary contains.
pub fn swagger_ui<T: OpenApi + 'static>(service: &OpenApiService<T, ()>) -> impl Endpoint + use<T> {
    let html = service.swagger_ui_html();
    make_sync(move |_| Html(html.clone()))
}

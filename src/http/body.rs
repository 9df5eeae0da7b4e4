//! JSON bodies of requests. As poem-openapi's `Json`, but what is wrong is
//! told by the name of the field.

use poem::{Request, RequestBody};
use poem_openapi::error::ContentTypeError;
use poem_openapi::payload::{Json, ParsePayload, Payload};
use poem_openapi::registry::{MetaMediaType, MetaRequest, MetaSchemaRef, Registry};
use poem_openapi::types::Type;
use poem_openapi::{ApiExtractor, ApiExtractorType, ExtractParamOptions};
use serde::de::DeserializeOwned;

use super::error::Failure;

/// A JSON body of the shape `T`.
pub struct Body<T>(pub T);

/// As [`Body`], but what is wrong with it is not told before the handler asks:
/// whoever may not is refused first.
pub struct Deferred<T>(pub Result<T, Failure>);

impl<T: Type> Payload for Body<T> {
    const CONTENT_TYPE: &'static str = <Json<T> as Payload>::CONTENT_TYPE;

    fn check_content_type(content_type: &str) -> bool {
        <Json<T> as Payload>::check_content_type(content_type)
    }

    fn schema_ref() -> MetaSchemaRef {
        T::schema_ref()
    }

    fn register(registry: &mut Registry) {
        T::register(registry);
    }
}

impl<T: Type + DeserializeOwned> ParsePayload for Body<T> {
    const IS_REQUIRED: bool = true;

    async fn from_request(_: &Request, body: &mut RequestBody) -> poem::Result<Self> {
        let bytes = body.take()?.into_bytes().await?;
        Ok(Self(read(&bytes)?))
    }
}

impl<'a, T: Type + DeserializeOwned> ApiExtractor<'a> for Body<T> {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::RequestObject];
    type ParamType = ();
    type ParamRawType = ();

    fn register(registry: &mut Registry) {
        <Self as Payload>::register(registry);
    }

    fn request_meta() -> Option<MetaRequest> {
        Some(MetaRequest {
            description: None,
            content: vec![MetaMediaType {
                content_type: Self::CONTENT_TYPE,
                schema: Self::schema_ref(),
            }],
            required: true,
        })
    }

    async fn from_request(
        request: &'a Request,
        body: &mut RequestBody,
        _: ExtractParamOptions<()>,
    ) -> poem::Result<Self> {
        Ok(Self(take(request, body).await?))
    }
}

impl<'a, T: Type + DeserializeOwned> ApiExtractor<'a> for Deferred<T> {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::RequestObject];
    type ParamType = ();
    type ParamRawType = ();

    fn register(registry: &mut Registry) {
        <Body<T> as ApiExtractor>::register(registry);
    }

    fn request_meta() -> Option<MetaRequest> {
        <Body<T> as ApiExtractor>::request_meta()
    }

    async fn from_request(
        request: &'a Request,
        body: &mut RequestBody,
        _: ExtractParamOptions<()>,
    ) -> poem::Result<Self> {
        Ok(Self(take(request, body).await))
    }
}

async fn take<T: Type + DeserializeOwned>(
    request: &Request,
    body: &mut RequestBody,
) -> Result<T, Failure> {
    let unsupported =
        |error: ContentTypeError| Err(Failure::unsupported_media_type(&error.to_string()));
    let content_type = request.content_type();
    if let Some(other) = content_type.filter(|it| !Body::<T>::check_content_type(it)) {
        let content_type = other.to_owned();
        return unsupported(ContentTypeError::NotSupported { content_type });
    }
    let bytes = match body.take() {
        Ok(body) => body.into_bytes().await.ok(),
        Err(_) => None,
    };
    let bytes = bytes.ok_or_else(|| Failure::field("body", "ended before its end"))?;
    match content_type {
        Some(_) => read(&bytes),
        // Whoever sends nothing need not say what it is: every field is missing.
        None if bytes.is_empty() => read(b"{}"),
        None => unsupported(ContentTypeError::ExpectContentType),
    }
}

const NO_OBJECT: &str = "must be a JSON object";

fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Failure> {
    // serde would take the elements of an array for the fields, in order.
    if bytes.trim_ascii_start().starts_with(b"[") {
        return Err(Failure::field("body", NO_OBJECT));
    }
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = error.path().to_string();
        wrong_field(&path, error.inner())
    })?;
    let whole = json.end();
    whole.map_err(|error| wrong_field(".", &error))?;
    Ok(value)
}

/// Names the field: `recipients[2].phone_number`, or `body` where it is the
/// whole that is wrong.
fn wrong_field(path: &str, error: &serde_json::Error) -> Failure {
    if !error.is_data() {
        return Failure::field("body", format!("is no JSON: {error}"));
    }
    let words = error.to_string();
    // " at line 1 column 9" is of use to no program that made the body.
    let words = words.split(" at line ").next().unwrap_or_default();
    let within = (path != ".").then_some(path);
    let missing = words.strip_prefix("missing field `");
    if let Some(name) = missing.and_then(|rest| rest.strip_suffix('`')) {
        let field = within.map_or_else(|| name.to_owned(), |path| format!("{path}.{name}"));
        return Failure::field(&field, "is required");
    }
    match within {
        Some(path) => Failure::field(path, words),
        None => Failure::field("body", NO_OBJECT),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Order {
        #[allow(dead_code, reason = "only read")]
        agent_id: String,
        #[allow(dead_code, reason = "only read")]
        recipients: Vec<Recipient>,
    }

    #[derive(Debug, Deserialize)]
    struct Recipient {
        #[allow(dead_code, reason = "only read")]
        phone: String,
    }

    #[test]
    fn what_is_wrong_is_told_by_the_fields_name() {
        for (body, field, message) in [
            ("{}", "agentId", "is required"),
            (r#"{"agentId":"a"}"#, "recipients", "is required"),
            (
                r#"{"agentId":"a","recipients":[{"phone":"1"},{}]}"#,
                "recipients[1].phone",
                "is required",
            ),
            (
                r#"{"agentId":7}"#,
                "agentId",
                "invalid type: integer `7`, expected a string",
            ),
            ("7", "body", NO_OBJECT),
            (r#"["a",[]]"#, "body", NO_OBJECT),
            (
                "",
                "body",
                "is no JSON: EOF while parsing a value at line 1 column 0",
            ),
            (
                r#"{"agentId":"a","recipients":[]}{"#,
                "body",
                "is no JSON: trailing characters at line 1 column 32",
            ),
        ] {
            let Err(Failure::BadRequest(error)) = read::<Order>(body.as_bytes()) else {
                panic!("{body} was taken")
            };
            let expected = serde_json::json!([{"field": field, "message": message}]);
            assert_eq!(error.0.details(), Some(&expected), "{body}");
        }
    }
}

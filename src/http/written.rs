//! JSON answers that are long and often asked for.

use std::marker::PhantomData;

use poem::http::header;
use poem::{IntoResponse, Response};
use poem_openapi::ApiResponse;
use poem_openapi::payload::{Json, Payload};
use poem_openapi::registry::{MetaMediaType, MetaResponse, MetaResponses, MetaSchemaRef, Registry};
use poem_openapi::types::Type;
use serde::Serialize;

/// A JSON answer of the shape of `T`, that serde wrote straight from what was
/// read. poem-openapi's [`Json`] makes a tree of every row first, which for a
/// list costs more than all else that the service does for it.
pub struct Written<T> {
    json: Vec<u8>,
    shape: PhantomData<fn() -> T>,
}

impl<T> Written<T> {
    /// Writes an answer; the caller sees to it that it has the shape of `T`.
    ///
    /// # Errors
    /// When it cannot be written, which is a fault of the program.
    pub fn of(answer: &impl Serialize) -> anyhow::Result<Self> {
        let mut json = Vec::with_capacity(USUAL_BYTES);
        serde_json::to_writer(&mut json, answer)?;
        Ok(Self {
            json,
            shape: PhantomData,
        })
    }
}

/// What a page of fifty rows takes.
const USUAL_BYTES: usize = 32 << 10;

impl<T: Type> Payload for Written<T> {
    const CONTENT_TYPE: &'static str = Json::<T>::CONTENT_TYPE;

    fn check_content_type(content_type: &str) -> bool {
        Json::<T>::check_content_type(content_type)
    }

    fn schema_ref() -> MetaSchemaRef {
        T::schema_ref()
    }

    fn register(registry: &mut Registry) {
        T::register(registry);
    }
}

impl<T> IntoResponse for Written<T> {
    fn into_response(self) -> Response {
        Response::builder()
            .header(header::CONTENT_TYPE, "application/json; charset=utf-8")
            .body(self.json)
    }
}

impl<T: Type> ApiResponse for Written<T> {
    fn meta() -> MetaResponses {
        MetaResponses {
            responses: vec![MetaResponse {
                description: "",
                status: Some(200),
                status_range: None,
                content: vec![MetaMediaType {
                    content_type: Self::CONTENT_TYPE,
                    schema: Self::schema_ref(),
                }],
                headers: vec![],
            }],
        }
    }

    fn register(registry: &mut Registry) {
        T::register(registry);
    }
}

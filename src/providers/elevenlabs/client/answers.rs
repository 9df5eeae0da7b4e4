//! The provider's answers, read leniently: what is missing, null or of another
//! kind counts as not said. Only what makes an answer useless is an error.

use domain::batch::{RecipientSeen, Snapshot};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{BatchDetail, BatchPage, ConversationState, PhoneLine};
use crate::providers::http::Error;
use crate::providers::lenient::{self, Flag, Instant, List, Object, Scalar, Text, Whole};
use crate::providers::text;

/// Sentences of a validation that are repeated, at most.
const FINDINGS_MAX: usize = 5;

/// `BatchCallResponse`, and `BatchCallDetailedResponse` with its recipients.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Batch {
    id: Text,
    name: Text,
    status: Text,
    agent_id: Text,
    agent_name: Text,
    phone_number_id: Text,
    phone_provider: Text,
    created_at_unix: Whole,
    scheduled_time_unix: Whole,
    last_updated_at_unix: Whole,
    total_calls_dispatched: Whole,
    total_calls_scheduled: Whole,
    total_calls_finished: Whole,
    retry_count: Whole,
    recipients: List<Object<Recipient>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Recipient {
    id: Text,
    phone_number: Text,
    status: Text,
    conversation_id: Text,
    created_at_unix: Whole,
    updated_at_unix: Whole,
    conversation_initiation_client_data: Object<ClientData>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ClientData {
    dynamic_variables: Object<Map<String, Value>>,
}

/// `WorkspaceBatchCallsResponse`
#[derive(Default, Deserialize)]
#[serde(default)]
struct Page {
    batch_calls: List<Object<Batch>>,
    next_doc: Text,
    has_more: Flag,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Phone {
    phone_number_id: Text,
    phone_number: Text,
    provider: Text,
    supports_outbound: Option<Flag>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Conversation {
    status: Text,
    has_audio: Flag,
    agent_id: Text,
    metadata: Object<ConversationMetadata>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ConversationMetadata {
    start_time_unix_secs: Instant,
    call_duration_secs: Whole,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct SignedUrl {
    signed_url: Text,
}

/// A batch without its recipients.
pub(super) fn batch(body: &[u8]) -> Result<Snapshot, Error> {
    snapshot(&read::<Batch>(body)?)
}

/// A batch with its recipients.
pub(super) fn batch_detail(body: &[u8]) -> Result<BatchDetail, Error> {
    let mut read = read::<Batch>(body)?;
    let recipients = std::mem::take(&mut read.recipients).0;
    Ok(BatchDetail {
        batch: snapshot(&read)?,
        recipients: recipients
            .into_iter()
            .filter_map(|it| recipient(it.0?))
            .collect(),
    })
}

/// A page of the workspace's batches.
pub(super) fn batch_page(body: &[u8]) -> Result<BatchPage, Error> {
    let page = read::<Page>(body)?;
    let batches = page.batch_calls.0.iter().filter_map(|it| it.0.as_ref());
    Ok(BatchPage {
        // One that cannot be read harms no other.
        batches: batches.filter_map(|batch| snapshot(batch).ok()).collect(),
        next_doc: page.next_doc.0.filter(|_| page.has_more.0),
    })
}

/// The bare list of numbers; later, perhaps, one with pages.
pub(super) fn phone_lines(body: &[u8]) -> Result<Vec<PhoneLine>, Error> {
    let list: List<Object<Phone>> = serde_json::from_slice(body).map_err(|_| UNREADABLE)?;
    let line = |phone: Phone| {
        Some(PhoneLine {
            phone_number_id: phone.phone_number_id.0.filter(|id| text::is_id(id))?,
            phone_number: phone.phone_number.0.unwrap_or_default(),
            provider: phone
                .provider
                .0
                .map(|it| text::word(&it))
                .unwrap_or_default(),
            supports_outbound: phone.supports_outbound.is_none_or(|flag| flag.0),
        })
    };
    Ok(list.0.into_iter().filter_map(|it| line(it.0?)).collect())
}

/// Any object.
pub(super) fn object(body: &[u8]) -> Result<Value, Error> {
    let object: Value = serde_json::from_slice(body).map_err(|_| UNREADABLE)?;
    if object.is_object() {
        Ok(object)
    } else {
        Err(UNREADABLE)
    }
}

/// The way into a session.
pub(super) fn signed_url(body: &[u8]) -> Result<String, Error> {
    let url = read::<SignedUrl>(body)?.signed_url.0;
    let is_socket = |url: &String| url.starts_with("wss://") || url.starts_with("ws://");
    url.filter(is_socket).ok_or(UNREADABLE)
}

/// How far a conversation is.
pub(super) fn conversation_state(body: &[u8]) -> Result<ConversationState, Error> {
    let read = read::<Conversation>(body)?;
    let metadata = read.metadata.0.unwrap_or_default();
    let lasted = metadata.call_duration_secs.0.unwrap_or_default();
    let began = metadata.start_time_unix_secs.0;
    Ok(ConversationState {
        status: read.status.0.unwrap_or_default(),
        has_audio: read.has_audio.0,
        ended_at_unix: began.map(|began| began.timestamp().saturating_add(lasted)),
        agent_id: read.agent_id.0.map(|it| text::word(&it)),
    })
}

/// The code and sentence of a refusal, whose `detail` is an object, an older
/// and smaller object, or for 422 a list of findings.
pub(in crate::providers) fn words(body: &Value) -> (String, String) {
    let said = |value: &Value| Scalar::from(value).into_text();
    match body.get("detail") {
        Some(Value::Array(findings)) => {
            let sentences: Vec<_> = findings
                .iter()
                .take(FINDINGS_MAX)
                .filter_map(finding)
                .collect();
            ("validation_error".to_owned(), sentences.join("; "))
        }
        Some(detail @ Value::Object(_)) => {
            let code = said(&detail["code"])
                .or(said(&detail["status"]))
                .or(said(&detail["type"]));
            (
                code.unwrap_or_default(),
                said(&detail["message"]).unwrap_or_default(),
            )
        }
        Some(detail) => (String::new(), said(detail).unwrap_or_default()),
        None => (
            String::new(),
            said(&body["message"]).or(said(body)).unwrap_or_default(),
        ),
    }
}

/// `{"loc":["body","recipients",0,"phone_number"],"msg":"Field required"}`
fn finding(finding: &Value) -> Option<String> {
    let words = Scalar::from(&finding["msg"]).into_text()?;
    let place = finding["loc"].as_array().into_iter().flatten();
    let place: Vec<_> = place
        .filter_map(|part| Scalar::from(part).into_text())
        .collect();
    if place.is_empty() {
        return Some(words);
    }
    Some(format!("{}: {words}", place.join(".")))
}

const UNREADABLE: Error = Error::Uncertain("the answer is not readable");

fn read<T: serde::de::DeserializeOwned>(body: &[u8]) -> Result<T, Error> {
    lenient::object(body).map_err(|_| UNREADABLE)
}

/// What is said of a batch; one without a usable id is of no use.
fn snapshot(batch: &Batch) -> Result<Snapshot, Error> {
    let id = batch
        .id
        .0
        .clone()
        .filter(|id| text::is_id(id))
        .ok_or(UNREADABLE)?;
    let word = |it: &Text| it.0.as_deref().map(text::word);
    Ok(Snapshot {
        id,
        name: batch.name.0.clone().unwrap_or_default(),
        status: word(&batch.status).unwrap_or_default(),
        agent_id: word(&batch.agent_id).unwrap_or_default(),
        agent_name: batch.agent_name.0.clone(),
        phone_number_id: word(&batch.phone_number_id),
        phone_provider: word(&batch.phone_provider),
        created_at_unix: batch.created_at_unix.0.unwrap_or_default(),
        scheduled_time_unix: batch.scheduled_time_unix.0,
        last_updated_at_unix: batch.last_updated_at_unix.0.unwrap_or_default(),
        total_calls_dispatched: batch.total_calls_dispatched.0.unwrap_or_default(),
        total_calls_scheduled: batch.total_calls_scheduled.0.unwrap_or_default(),
        total_calls_finished: batch.total_calls_finished.0,
        retry_count: batch.retry_count.0.unwrap_or_default(),
    })
}

fn recipient(it: Recipient) -> Option<RecipientSeen> {
    let id = it.id.0.filter(|id| text::is_id(id))?;
    let status = text::word(it.status.as_str());
    let updated_at = it
        .updated_at_unix
        .0
        .or(it.created_at_unix.0)
        .unwrap_or_default();
    let variables = it.conversation_initiation_client_data.0.unwrap_or_default();
    Some(RecipientSeen {
        phone_number: it.phone_number.0.map(|it| text::address(&it)),
        conversation_id: it.conversation_id.0.filter(|id| text::is_id(id)),
        created_at_unix: it.created_at_unix.0,
        dynamic_variables: lenient::clean_map(variables.dynamic_variables.0.unwrap_or_default()),
        ..RecipientSeen::new(id, &status, updated_at)
    })
}

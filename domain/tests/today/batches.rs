//! One event of each kind of batches and groups, with every field that it may
//! have.

use bitacora_domain::batch::{self, Event as Batch};
use bitacora_domain::call::Outcome;
use bitacora_domain::group::{self, Event as Group};
use bitacora_domain::{Event, PhoneNumber};
use chrono::DateTime;
use serde_json::{Map, Value, json};

pub fn today() -> Vec<Event> {
    let batches = batches().into_iter().map(Event::Batch);
    batches
        .chain(groups().into_iter().map(Event::Group))
        .collect()
}

fn text(text: &str) -> Option<String> {
    Some(text.to_owned())
}

fn map(value: Value) -> Map<String, Value> {
    value.as_object().cloned().unwrap_or_default()
}

fn phone() -> PhoneNumber {
    PhoneNumber::parse("+573001234567").expect("it is one")
}

fn requested() -> batch::Requested {
    batch::Requested {
        batch_id: "019a2d28-30c0-7000-8000-000000000001".into(),
        call_name: "Llamada Médicos Test - 24/08/2025".into(),
        agent_id: "agent_0001".into(),
        agent_phone_number_id: "phnum_0001".into(),
        scheduled_time_unix: Some(1_761_697_600),
        phone_provider: Some(batch::PhoneProvider::SipTrunk),
        group: Some(batch::GroupPart {
            group_id: 55,
            call_id: "019a2d28-30c0-7000-8000-000000000002".into(),
            part: 0,
            parts: 2,
        }),
        requested_by: "user:7".into(),
        requested_at: DateTime::from_timestamp(1_761_694_074, 0).expect("it is a time"),
        recipients: vec![batch::Recipient {
            phone_number: phone(),
            dynamic_variables: map(json!({"name": "Dr. García"})),
            client_id: Some(3),
        }],
    }
}

fn snapshot(status: &str) -> batch::Snapshot {
    batch::Snapshot {
        id: "btcal_0001".into(),
        name: "Llamada Médicos Test - 24/08/2025".into(),
        status: status.into(),
        agent_id: "agent_0001".into(),
        agent_name: text("Cobranzas"),
        phone_number_id: text("phnum_0001"),
        phone_provider: text("twilio"),
        created_at_unix: 1_761_694_075,
        scheduled_time_unix: Some(1_761_697_600),
        last_updated_at_unix: 1_761_694_080,
        total_calls_dispatched: 1,
        total_calls_scheduled: 2,
        total_calls_finished: Some(1),
        retry_count: 1,
    }
}

fn batches() -> Vec<Batch> {
    let attempted = batch::Attempted { attempt: 1 };
    let uncertain = batch::Uncertain {
        attempt: 1,
        reason: "timed out after 30 s".into(),
    };
    let refused = batch::Refused {
        attempt: 2,
        status: Some(422),
        message: "agent_id: not found".into(),
        retryable: false,
    };
    let requested_by = || "user:7".to_owned();
    vec![
        Batch::Requested(Box::new(requested())),
        Batch::SubmitAttempted(attempted.clone()),
        Batch::Submitted(Box::new(batch::Submitted {
            attempt: 1,
            adopted: true,
            batch: snapshot("pending"),
        })),
        Batch::SubmitUncertain(uncertain.clone()),
        Batch::SubmitFailed(refused.clone()),
        Batch::CancelRequested(batch::CancelRequested {
            requested_by: requested_by(),
        }),
        Batch::CancelAttempted(attempted.clone()),
        Batch::Cancelled(Box::new(batch::Cancelled {
            cancelled_count: 8,
            batch: snapshot("cancelled"),
        })),
        Batch::CancelUncertain(uncertain.clone()),
        Batch::CancelFailed(refused.clone()),
        Batch::RetryRequested(batch::RetryRequested {
            requested_by: requested_by(),
            retry_count: 0,
        }),
        Batch::RetryAttempted(attempted),
        Batch::Retried(Box::new(batch::Retried {
            retried_count: 3,
            batch: snapshot("pending"),
        })),
        Batch::RetryUncertain(uncertain),
        Batch::RetryFailed(refused),
        Batch::Observed(Box::new(batch::Observed {
            batch: snapshot("in_progress"),
            recipients: vec![batch::RecipientSeen {
                id: "rcpt_0001".into(),
                phone_number: text("+573001234567"),
                status: Outcome::InProgress,
                provider_status: text("dispatched"),
                conversation_id: text("conv_0001"),
                created_at_unix: Some(1_761_694_075),
                updated_at_unix: 1_761_694_080,
                dynamic_variables: map(json!({"name": "Dr. García"})),
            }],
        })),
        Batch::Discovered(Box::new(batch::Discovered {
            through: "workspace".into(),
            batch: snapshot("in_progress"),
        })),
    ]
}

fn groups() -> Vec<Group> {
    let settings = group::Settings {
        name: "Médicos Test".into(),
        agent_id: text("agent_0001"),
        phone_number_id: text("phnum_0001"),
        prefix: "+57".into(),
        variables: map(json!({"especialidad": "Medicina General"})),
    };
    vec![
        Group::Created(group::Created {
            group_id: 55,
            created_by: "user:7".into(),
            settings: settings.clone(),
        }),
        Group::Updated(group::Updated {
            group_id: 55,
            updated_by: "service".into(),
            settings,
        }),
        Group::ClientsAdded(group::ClientsAdded {
            group_id: 55,
            clients: vec![group::Client {
                id: 3,
                name: "Dr. García".into(),
                phone_number: phone(),
                email: text("garcia@hospital.com"),
                empresa: text("Hospital Central"),
                cargo: text("Cardiólogo"),
                variables: map(json!({"ciudad": "Barranquilla"})),
            }],
        }),
    ]
}

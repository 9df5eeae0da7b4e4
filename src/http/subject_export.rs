//! All that is held of a person. See `crate::subjects`.

use std::sync::Arc;

use domain::PhoneNumber;
use poem::Body;
use poem::web::Data;
use poem_openapi::param::Path;
use poem_openapi::payload::Binary;
use poem_openapi::{ApiResponse, OpenApi};
use serde_json::json;

use super::auth::{Access, Auth, Caller};
use super::error::Failure;
use super::export::coming;
use super::{Tag, audit, params};
use crate::app::App;
use crate::export::{self, Made};
use crate::subjects::{self, Subject};

/// A document.
#[derive(ApiResponse)]
enum Document {
    /// An object of arrays: `interactions` (with calls, transcripts, messages and events), `conversation_state`,
    /// `conversation_messages`, `batch_recipients`, `call_attempts`, `group_clients`, `otp_challenges`, `effects`,
    /// `events`, `deliveries`.
    #[oai(status = 200, content_type = "application/json")]
    Whole(
        Binary<Body>,
        /// A name for it.
        #[oai(header = "Content-Disposition")]
        String,
    ),
}

/// Routes for the auditor.
pub struct Api;

#[OpenApi(tag = "Tag::Ledger")]
impl Api {
    /// All that is held of a person
    ///
    /// For whoever asks what is known of them (GDPR art. 15 and 20, Colombian law 1581 art. 8). Nothing in it is
    /// masked, so it is on record with its end. For the roles `admin` and `auditor`.
    #[oai(
        path = "/api/subjects/:phone/export",
        method = "get",
        operation_id = "export_subject"
    )]
    async fn export(
        &self,
        app: Data<&Arc<App>>,
        auth: Auth,
        /// The person's number in E.164, with its `+` or without.
        phone: Path<String>,
    ) -> Result<Document, Failure> {
        let caller = Caller::from(auth);
        let read = subject(&app, phone.0);
        let (access, action) = (Access::Auditor, "export_subject");
        let subject = audit::readable(&app, &caller, access, action, read).await?;
        let act = audit::Act {
            caller: Some(&caller),
            action,
            target: Some(format!("subject:{}", subject.key())),
            outcome: "begun",
        };
        let recorded = act.recorded();
        let begun = caller.require(access).and_then(|()| {
            let turn = app.exporting.clone().try_acquire_owned();
            turn.map_err(|_| Failure::unavailable("Too many exports are being made"))
        });
        let turn = match begun {
            Ok(turn) => turn,
            Err(failure) => {
                let outcome = failure.code().to_owned();
                audit::append(
                    &app,
                    domain::audit::Recorded {
                        outcome,
                        ..recorded
                    },
                )
                .await?;
                return Err(failure);
            }
        };
        audit::append(&app, recorded.clone()).await?;
        let (parts, receiver) = export::parts();
        let app = app.0.clone();
        tokio::spawn(async move {
            let mut made = Made::default();
            let ended =
                subjects::export((&app.pool, &app.opener), &subject, &parts, &mut made).await;
            if let Err(error) = &ended {
                let error = format!("{error:#}");
                tracing::warn!(error, "an export of a person was cut short");
            }
            let outcome = if ended.is_ok() { "ok" } else { "cut_short" };
            let recorded = domain::audit::Recorded {
                outcome: outcome.to_owned(),
                detail: Some(json!({"rows": made.rows, "bytes": made.bytes}).to_string()),
                ..recorded
            };
            let told = audit::append(&app, recorded).await;
            match ended.is_ok() && told.is_ok() {
                true => drop(parts),
                false => parts.cut_short().await,
            }
            drop(turn);
        });
        let body = Binary(Body::from_bytes_stream(coming(receiver)));
        let name = "attachment; filename=\"bitacora-subject.json\"".to_owned();
        Ok(Document::Whole(body, name))
    }
}

fn subject(app: &App, given: String) -> Result<Subject, Failure> {
    let given = params::id(given)?;
    let given = given.trim();
    let number = PhoneNumber::parse(given).or_else(|_| PhoneNumber::from_digits(given));
    let number = number.map_err(|error| Failure::field("phone", error.to_string()))?;
    Ok(Subject::new(number.as_str(), &app.phone_index))
}

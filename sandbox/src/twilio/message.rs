//! A message, and its document.

use serde_json::{Value, json};

use super::{errors, is_whatsapp};
use crate::{stamps::rfc2822, truth::MessageTruth};

/// Where a message stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    Accepted,
    Queued,
    Sent,
    Delivered,
    Read,
    Undelivered,
    Failed,
    Received,
}

impl Status {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Queued => "queued",
            Self::Sent => "sent",
            Self::Delivered => "delivered",
            Self::Read => "read",
            Self::Undelivered => "undelivered",
            Self::Failed => "failed",
            Self::Received => "received",
        }
    }

    pub(super) fn is_failure(self) -> bool {
        matches!(self, Self::Undelivered | Self::Failed)
    }
}

/// A message of either direction.
pub(super) struct Message {
    /// Its name for fate.
    pub(super) name: String,
    pub(super) sid: String,
    pub(super) account_sid: String,
    pub(super) inbound: bool,
    pub(super) from: String,
    pub(super) to: String,
    pub(super) body: String,
    pub(super) media_types: Vec<String>,
    pub(super) content_sid: Option<String>,
    pub(super) messaging_service_sid: Option<String>,
    pub(super) status_callback: Option<String>,
    pub(super) status: Status,
    /// How it is going to fail, if it is.
    pub(super) failure: Option<(Status, u32)>,
    pub(super) created_unix_ms: u64,
    pub(super) updated_unix: u64,
    pub(super) sent_unix: Option<u64>,
}

impl Message {
    pub(super) fn is_whatsapp(&self) -> bool {
        is_whatsapp(&self.to)
    }

    /// The error, once it has happened.
    pub(super) fn error_code(&self) -> Option<u32> {
        self.failure
            .filter(|_| self.status.is_failure())
            .map(|(_, code)| code)
    }

    /// `api.v2010.account.message`
    pub(super) fn document(&self) -> Value {
        let path = format!(
            "/2010-04-01/Accounts/{}/Messages/{}",
            self.account_sid, self.sid
        );
        let charged = matches!(self.status, Status::Sent | Status::Delivered | Status::Read);
        json!({
            "account_sid": self.account_sid,
            "api_version": "2010-04-01",
            "body": self.body,
            "date_created": rfc2822(self.created_unix_ms / 1000),
            "date_sent": self.sent_unix.map(rfc2822),
            "date_updated": rfc2822(self.updated_unix),
            "direction": if self.inbound { "inbound" } else { "outbound-api" },
            "error_code": self.error_code(),
            "error_message": self.error_code().and_then(errors::words),
            // With a messaging service the sender is not known before it is chosen.
            "from": (self.status != Status::Accepted).then_some(&self.from),
            "messaging_service_sid": self.messaging_service_sid,
            "num_media": self.media_types.len().to_string(),
            "num_segments": self.segments().to_string(),
            "price": charged.then_some("-0.00500"),
            "price_unit": "USD",
            "sid": self.sid,
            "status": self.status.as_str(),
            "subresource_uris": {"media": format!("{path}/Media.json")},
            "to": self.to,
            "uri": format!("{path}.json"),
        })
    }

    /// How many parts a message is cut into on the air; WhatsApp has no such thing.
    pub(super) fn segments(&self) -> usize {
        let units = self.body.encode_utf16().count();
        let (whole, part) = if self.body.is_ascii() {
            (160, 153)
        } else {
            (70, 67)
        };
        match units {
            _ if self.is_whatsapp() => 1,
            n if n <= whole => 1,
            n => n.div_ceil(part),
        }
    }

    pub(super) fn truth(&self) -> MessageTruth {
        MessageTruth {
            provider: "twilio".to_owned(),
            sid: Some(self.sid.clone()),
            channel: if self.is_whatsapp() {
                "whatsapp"
            } else {
                "sms"
            }
            .to_owned(),
            direction: if self.inbound { "inbound" } else { "outbound" }.to_owned(),
            from: self.from.clone(),
            to: self.to.clone(),
            body: self.body.clone(),
            content_sid: self.content_sid.clone(),
            status: self.status.as_str().to_owned(),
            error_code: self.error_code(),
            created_at_unix_ms: self.created_unix_ms,
        }
    }
}

//! A stateful stand-in for ElevenLabs, Twilio and builderbot.cloud.
//!
//! It speaks the three providers' HTTP and WebSocket protocols, places the calls and delivers the
//! messages it is asked for (in a world of its own), and calls back with signed webhooks: late,
//! twice, out of order, or never. What befalls each call, message and webhook is drawn from a seed
//! and from that thing's own name, so a run can be told again; [`Truth`] says what really happened.
//!
//! It must not know anything about the service it talks to: it depends on none of Bitácora's other
//! crates, so that the two sides cannot share a mistake.
//!
//! ```no_run
//! # async fn example() -> Result<(), bitacora_sandbox::Error> {
//! use bitacora_sandbox::{Options, Sandbox};
//! let sandbox = Sandbox::start(Options { manual_clock: true, ..Options::default() }).await?;
//! println!("ELEVENLABS_BASE_URL={}", sandbox.url());
//! // … the service submits a batch …
//! sandbox.settle().await;
//! assert_eq!(sandbox.truth().batches.len(), 1);
//! sandbox.stop().await;
//! # Ok(())
//! # }
//! ```

mod builderbot;
mod clock;
mod control;
mod driver;
mod elevenlabs;
mod fate;
mod http;
mod merge;
mod options;
mod outcome;
mod phones;
mod rates;
mod requests;
mod script;
mod server;
mod signatures;
mod stamps;
mod truth;
mod twilio;
mod webhooks;
mod world;

pub use control::{Control, Inbound, Report, Scripted};
pub use elevenlabs::{AGENT_COLLECTIONS, AGENT_SURVEY, PHONE_SIP_TRUNK, PHONE_TWILIO};
pub use options::Options;
pub use outcome::CallOutcome;
pub use phones::Channel;
pub use rates::{Misbehaviour, Rates, Span};
pub use requests::Fault;
pub use server::{Error, Sandbox, serve};
pub use signatures::{elevenlabs_signature, twilio_signature};
pub use truth::{
    BatchTruth, ConversationTruth, MessageTruth, OperationTruth, RecipientTruth, RequestTruth,
    Truth,
};
pub use webhooks::{Attempt, WebhookKind, WebhookTruth};

//! ElevenLabs: voice agents. Post-call webhooks of its workspace, and a
//! client of its API.
//! Source: `elevenlabs.io/docs/eleven-agents/workflows/post-call-webhooks`.

pub mod client;
mod normalise;
#[cfg(test)]
mod tests;
mod transcription;
mod verify;
mod wire;

pub(super) use normalise::{audio, normalise, normalise_conversation, normalise_recording};
pub(super) use verify::{SIGNATURE_HEADER, check_header, verify};

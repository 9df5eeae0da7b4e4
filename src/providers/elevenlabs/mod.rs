//! ElevenLabs: voice agents. Post-call webhooks of its workspace.
//! Source: `elevenlabs.io/docs/eleven-agents/workflows/post-call-webhooks`.

mod normalise;
#[cfg(test)]
mod tests;
mod transcription;
mod verify;
mod wire;

pub(super) use normalise::{audio, normalise};
pub(super) use verify::{SIGNATURE_HEADER, verify};

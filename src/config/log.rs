//! The keys of the transparency log.

use anyhow::Context;
use domain::log::{Signer, Verifiers};

use super::{LogSettings, checks};

/// Who signs the transparency log, if anybody does, and who is believed.
#[derive(Clone, Default)]
pub struct LogKeys {
    /// Signs.
    pub signer: Option<Signer>,
    /// Every key that is believed, the signer's first.
    pub verifiers: Verifiers,
}

impl LogKeys {
    /// Checks the settings.
    ///
    /// # Errors
    /// When a key is none; the message names the variable, and not the key.
    pub fn new(settings: &LogSettings) -> anyhow::Result<Self> {
        let origin = settings.log_origin.as_deref().map(str::trim);
        let origin = origin.filter(|origin| !origin.is_empty());
        let signer = |key: &String| Signer::new(key, origin).context("LOG_SIGNING_KEY");
        let keys = checks::secrets(&settings.log_signing_key);
        let signers: Vec<Signer> = keys.iter().map(signer).collect::<Result<_, _>>()?;
        let own = signers
            .iter()
            .map(|signer| signer.verifier_key().to_owned());
        let others = settings
            .log_verifier_keys
            .iter()
            .map(|key| key.trim().to_owned());
        let others = others.filter(|key| !key.is_empty());
        let verifiers = Verifiers::new(own.chain(others)).context("LOG_VERIFIER_KEYS")?;
        Ok(Self {
            signer: signers.into_iter().next(),
            verifiers,
        })
    }
}

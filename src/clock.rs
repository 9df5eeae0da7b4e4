//! Time, ids and randomness, passed in so that tests can hold them still.
//! The ambient ones are banned by `clippy.toml`.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use chrono::{DateTime, Utc};
use rand::rngs::StdRng;
use rand::{RngCore, SeedableRng};
use uuid::Uuid;

/// Where time and randomness come from.
#[derive(Clone)]
pub struct Source {
    now: Arc<dyn Fn() -> DateTime<Utc> + Send + Sync>,
    rng: Arc<Mutex<StdRng>>,
}

impl Source {
    /// The machine's clock and the operating system's randomness.
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place where the real ones enter"
    )]
    pub fn system() -> Self {
        Self::new(Utc::now, StdRng::from_os_rng())
    }

    /// A clock and a generator of the caller's.
    pub fn new(now: impl Fn() -> DateTime<Utc> + Send + Sync + 'static, rng: StdRng) -> Self {
        Self {
            now: Arc::new(now),
            rng: Arc::new(Mutex::new(rng)),
        }
    }

    /// The time.
    pub fn now(&self) -> DateTime<Utc> {
        (self.now)()
    }

    /// A new id (UUID version 7): later ones sort after earlier ones.
    pub fn id(&self) -> Uuid {
        let millis = u64::try_from(self.now().timestamp_millis()).unwrap_or_default();
        let mut random = [0; 10];
        self.fill(&mut random);
        uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid()
    }

    /// A secret of `bytes` random bytes, in hex.
    pub fn secret(&self, bytes: usize) -> String {
        let mut random = vec![0; bytes];
        self.fill(&mut random);
        hex::encode(random)
    }

    /// A pause, longer by up to a share of itself: those who were refused
    /// together do not come back together.
    pub fn jittered(&self, pause: Duration, share: f64) -> Duration {
        let mut random = [0; 2];
        self.fill(&mut random);
        let part = f64::from(u16::from_be_bytes(random)) / f64::from(u16::MAX);
        pause.mul_f64(1.0 + part * share)
    }

    /// Fills a buffer with random bytes. `StdRng` is a CSPRNG (ChaCha12).
    pub fn fill(&self, buffer: &mut [u8]) {
        let mut rng = self
            .rng
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        rng.fill_bytes(buffer);
    }
}

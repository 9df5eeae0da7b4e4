//! What befalls each thing, from the seed.
//!
//! A draw belongs to a *name*: "the call to the third recipient of the first batch called X, second
//! attempt". It never depends on when a request arrived or on what was drawn before, so two runs
//! with the same seed tell the same story even if the service under test is slower in one.

use std::ops::RangeInclusive;

use rand_chacha::{
    ChaCha8Rng,
    rand_core::{RngCore, SeedableRng},
};
use sha2::{Digest, Sha256};

/// The seed, ready to be asked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fate {
    seed: u64,
}

impl Fate {
    pub(crate) fn new(seed: u64) -> Self {
        Self { seed }
    }

    /// The stream of chance that belongs to `name` in the matter of `what`.
    pub(crate) fn draw(&self, what: &str, name: &str) -> Draw {
        let mut hash = Sha256::new();
        hash.update(self.seed.to_le_bytes());
        hash.update(what.as_bytes());
        hash.update([0]);
        hash.update(name.as_bytes());
        Draw(ChaCha8Rng::from_seed(hash.finalize().into()))
    }
}

/// One stream of chance.
pub(crate) struct Draw(ChaCha8Rng);

impl Draw {
    /// A number in `0.0..1.0`.
    pub(crate) fn unit(&mut self) -> f64 {
        const BITS: u32 = 53;
        (self.0.next_u64() >> (64 - BITS)) as f64 / (1u64 << BITS) as f64
    }

    /// True with probability `p`. Draws always, so that changing `p` changes nothing else.
    pub(crate) fn chance(&mut self, p: f64) -> bool {
        self.unit() < p
    }

    /// A number of the range.
    pub(crate) fn within(&mut self, range: RangeInclusive<u64>) -> u64 {
        let (min, max) = range.into_inner();
        min + self.0.next_u64() % (max.saturating_sub(min).saturating_add(1))
    }

    /// One of the items, none of which are the last resort of an empty list.
    pub(crate) fn pick<'a, T: ?Sized>(&mut self, items: &[&'a T]) -> Option<&'a T> {
        let last = items.len().checked_sub(1)?;
        items.get(self.within(0..=last as u64) as usize).copied()
    }

    /// An id in ElevenLabs' way: `prefix` and 28 small letters and figures.
    pub(crate) fn elevenlabs_id(&mut self, prefix: &str) -> String {
        const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
        const LENGTH: usize = 28;
        let tail = (0..LENGTH).map(|_| ALPHABET[(self.0.next_u32() % 32) as usize] as char);
        prefix.chars().chain(tail).collect()
    }

    /// An id in Twilio's way: `prefix` and 32 hexadecimal figures.
    pub(crate) fn twilio_sid(&mut self, prefix: &str) -> String {
        format!("{prefix}{}", self.hex())
    }

    /// 32 hexadecimal figures.
    pub(crate) fn hex(&mut self) -> String {
        let mut bytes = [0; 16];
        self.0.fill_bytes(&mut bytes);
        hex::encode(bytes)
    }

    /// A UUID of version 4, as far as anyone can tell.
    pub(crate) fn uuid(&mut self) -> String {
        let h = self.hex();
        let (a, b, c, d, e) = (&h[..8], &h[8..12], &h[13..16], &h[17..20], &h[20..]);
        format!("{a}-{b}-4{c}-8{d}-{e}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_name_has_the_same_fate_and_another_name_another() {
        let fate = Fate::new(7);
        let ids = |what: &str, name: &str| fate.draw(what, name).elevenlabs_id("conv_");
        assert_eq!(ids("call", "a"), ids("call", "a"));
        assert_ne!(ids("call", "a"), ids("call", "b"));
        assert_ne!(ids("call", "a"), ids("message", "a"));
        assert_ne!(
            ids("call", "a"),
            Fate::new(8).draw("call", "a").elevenlabs_id("conv_")
        );
    }

    #[test]
    fn chances_and_ranges_keep_their_word() {
        let mut draw = Fate::new(1).draw("test", "chance");
        let hits = (0..10_000).filter(|_| draw.chance(0.25)).count();
        assert!((2_300..2_700).contains(&hits), "{hits}");
        assert!((0..1_000).all(|_| (3..=5).contains(&draw.within(3..=5))));
        assert!(!draw.chance(0.0) && draw.chance(1.0));
        assert_eq!(draw.pick::<str>(&[]), None);
    }

    #[test]
    fn ids_look_like_the_providers_own() {
        let mut draw = Fate::new(1).draw("test", "ids");
        assert_eq!(draw.elevenlabs_id("conv_").len(), 33);
        assert_eq!(draw.twilio_sid("SM").len(), 34);
        let uuid = draw.uuid();
        assert_eq!((uuid.len(), uuid.as_bytes()[14]), (36, b'4'));
    }
}

//! When what failed is tried again.

use std::time::Duration;

use crate::clock;

/// The pauses after the first, second, … attempt. After the last it is a dead
/// letter.
#[derive(Clone, Copy, Debug)]
pub(super) struct Schedule(&'static [u64]);

/// Of a WhatsApp message: long enough to outlast a provider's bad half hour.
pub(super) const MESSAGE: Schedule = Schedule(&[1, 4, 15, 60, 300, 900]);
/// Of a one-time code: it is of no use after some minutes.
pub(super) const CODE: Schedule = Schedule(&[1, 3, 10, 30]);
/// Of a turn of the agent: the client waits, and so does what was written next.
pub(super) const TURN: Schedule = Schedule(&[1, 3, 10, 30, 60]);

impl Schedule {
    /// The pause after an attempt, from 1, and never less than the provider
    /// wants; `None` where there is to be no other.
    pub(super) fn pause(
        self,
        attempt: u32,
        wanted: Option<Duration>,
        source: &clock::Source,
    ) -> Option<Duration> {
        let at = usize::try_from(attempt).ok()?.checked_sub(1)?;
        let planned = Duration::from_secs(*self.0.get(at)?);
        // A provider may name any number.
        let wanted = wanted.unwrap_or_default().min(WANTED_MAX);
        Some(source.jittered(planned.max(wanted), JITTER))
    }
}

/// The longest pause that a provider may ask for: nothing is owed for longer.
const WANTED_MAX: Duration = Duration::from_secs(24 * 3600);
/// By how much of itself a pause may grow, by chance.
const JITTER: f64 = 0.5;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_end_and_heed_the_provider() {
        let source = clock::Source::system();
        let pause = |attempt, wanted| MESSAGE.pause(attempt, wanted, &source);
        for (attempt, secs) in [(1, 1), (2, 4), (6, 900)] {
            let pause = pause(attempt, None).unwrap();
            let planned = Duration::from_secs(secs);
            assert!(pause >= planned && pause <= planned.mul_f64(1.5));
        }
        assert_eq!(pause(7, None), None);
        assert_eq!(pause(0, None), None, "nothing was attempted");
        let wanted = Duration::from_secs(40);
        assert!(pause(1, Some(wanted)).unwrap() >= wanted);
        let endless = pause(1, Some(Duration::MAX)).unwrap();
        assert!(endless <= WANTED_MAX.mul_f64(1.5));
    }
}

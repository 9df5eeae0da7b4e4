//! The one source of time.
//!
//! Two readings, because delays and timestamps must not be confused. [`Clock::now_ms`] is the
//! world's own time, by which calls ring and webhooks are late: `speed` makes it run faster.
//! [`Clock::unix_ms`] is what is written into answers, webhooks and signatures: it stays the real
//! time at any speed, because the service refuses a signature from the future. With a manual clock
//! both are the same, and move only when told to.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, SystemTime},
};

use tokio::{sync::watch, time::Instant};

/// The world's clock.
pub(crate) struct Clock {
    base_unix_ms: u64,
    /// How far the world has been moved by hand, in milliseconds.
    moved_ms: AtomicU64,
    jumps: watch::Sender<()>,
    pace: Pace,
}

enum Pace {
    Scaled { started: Instant, speed: f64 },
    Manual,
}

impl Clock {
    /// A clock that runs `speed` times as fast as ours.
    #[expect(clippy::disallowed_methods, reason = "this is the one source of time")]
    pub(crate) fn scaled(speed: f64) -> Self {
        let started = Instant::now();
        Self::new(real_unix_ms(), Pace::Scaled { started, speed })
    }

    /// A clock that stands at `start_unix` (now when absent) until it is moved.
    pub(crate) fn manual(start_unix: Option<u64>) -> Self {
        Self::new(
            start_unix.map_or_else(real_unix_ms, |s| s * 1000),
            Pace::Manual,
        )
    }

    fn new(base_unix_ms: u64, pace: Pace) -> Self {
        Self {
            base_unix_ms,
            moved_ms: AtomicU64::new(0),
            jumps: watch::Sender::new(()),
            pace,
        }
    }

    pub(crate) fn is_manual(&self) -> bool {
        matches!(self.pace, Pace::Manual)
    }

    /// Milliseconds of the world's time since it began.
    pub(crate) fn now_ms(&self) -> u64 {
        let moved = self.moved_ms.load(Ordering::Acquire);
        match self.pace {
            Pace::Manual => moved,
            Pace::Scaled { started, speed } => {
                moved + (started.elapsed().as_secs_f64() * 1000.0 * speed) as u64
            }
        }
    }

    /// The time to write down, in Unix milliseconds.
    pub(crate) fn unix_ms(&self) -> u64 {
        match self.pace {
            Pace::Manual => self.base_unix_ms + self.moved_ms.load(Ordering::Acquire),
            Pace::Scaled { started, .. } => {
                self.base_unix_ms + started.elapsed().as_millis() as u64
            }
        }
    }

    /// The time to write down, in Unix seconds.
    pub(crate) fn unix(&self) -> u64 {
        self.unix_ms() / 1000
    }

    /// The world's time at which the written time will be `unix_secs`; now if that has passed.
    pub(crate) fn when_unix(&self, unix_secs: u64) -> u64 {
        let wait_ms = (unix_secs.saturating_mul(1000)).saturating_sub(self.unix_ms());
        let wait_ms = match self.pace {
            Pace::Manual => wait_ms,
            Pace::Scaled { speed, .. } => (wait_ms as f64 * speed) as u64,
        };
        self.now_ms().saturating_add(wait_ms)
    }

    /// Moves the world to `at_ms`, never back.
    pub(crate) fn jump_to(&self, at_ms: u64) {
        let ahead = at_ms.saturating_sub(self.now_ms());
        if ahead > 0 {
            self.moved_ms.fetch_add(ahead, Ordering::AcqRel);
            self.jumps.send_replace(());
        }
    }

    /// Returns once the world's time is `at_ms` or later.
    #[expect(clippy::disallowed_methods, reason = "this is the one place to wait")]
    pub(crate) async fn wait_until(&self, at_ms: u64) {
        let mut jumps = self.jumps.subscribe();
        loop {
            let now = self.now_ms();
            if now >= at_ms {
                return;
            }
            // The sender lives in `self`, so `changed` cannot fail.
            match self.pace {
                Pace::Manual => drop(jumps.changed().await),
                Pace::Scaled { speed, .. } => {
                    let rest = Duration::from_secs_f64((at_ms - now) as f64 / 1000.0 / speed);
                    tokio::select! {
                        _ = jumps.changed() => {}
                        () = tokio::time::sleep(rest + Duration::from_millis(1)) => {}
                    }
                }
            }
        }
    }

    /// Waits real time, whatever the speed; not at all with a manual clock.
    #[expect(clippy::disallowed_methods, reason = "this is the one place to wait")]
    pub(crate) async fn real_pause(&self, pause_ms: u64) {
        if !self.is_manual() && pause_ms > 0 {
            tokio::time::sleep(Duration::from_millis(pause_ms)).await;
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "this is the one source of time")]
fn real_unix_ms() -> u64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_manual_clock_moves_only_forward_and_only_by_hand() {
        let clock = Clock::manual(Some(1_000));
        assert_eq!((clock.now_ms(), clock.unix()), (0, 1_000));
        clock.jump_to(5_000);
        clock.jump_to(2_000);
        assert_eq!((clock.now_ms(), clock.unix()), (5_000, 1_005));
        clock.wait_until(5_000).await;
        assert_eq!(clock.when_unix(1_010), 10_000);
        assert_eq!(clock.when_unix(900), 5_000);
    }

    #[tokio::test(start_paused = true)]
    async fn a_fast_clock_hastens_the_world_and_not_the_calendar() {
        let clock = Clock::scaled(60.0);
        let began = clock.unix_ms();
        clock.wait_until(60_000).await;
        assert!(clock.now_ms() >= 60_000);
        assert!((1_000..1_100).contains(&(clock.unix_ms() - began)));
    }
}

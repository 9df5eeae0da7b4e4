//! What waits to be written, taken batch by batch.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

/// How long a batch gathers while much is going on, and how often, until there
/// is enough in it. Each has its price, whatever is in it: at 3,000 webhooks a
/// second four times instead of one save an eighth of PostgreSQL's time, and cost
/// full load nothing (docs/adr/0016).
const GATHERING: Duration = Duration::from_millis(1);
const GATHERINGS_MAX: u32 = 4;
/// A batch of so many is worth what it costs: it does not wait for more.
const ENOUGH: usize = 16;
/// For how long after a batch of several there is thought to be much going on.
/// Whoever comes alone does not wait.
const BUSY: Duration = Duration::from_millis(20);

/// A queue that is read in batches.
pub(super) struct Incoming<T> {
    queue: mpsc::Receiver<T>,
    entries_max: usize,
    bytes_max: usize,
    bytes: fn(&T) -> usize,
    /// When the last batch of several was taken.
    busy_at: Option<Instant>,
}

impl<T> Incoming<T> {
    /// Batches of so many entries and bytes at most; one entry may have more.
    pub(super) fn new(
        queue: mpsc::Receiver<T>,
        (entries_max, bytes_max): (usize, usize),
        bytes: fn(&T) -> usize,
    ) -> Self {
        Self {
            queue,
            entries_max,
            bytes_max,
            bytes,
            busy_at: None,
        }
    }

    /// Waits for an entry, and takes with it what else is there, or will be in
    /// a moment; `None` at the end.
    pub(super) async fn next_batch(&mut self) -> Option<Vec<T>> {
        let mut batch = vec![self.queue.recv().await?];
        self.take(&mut batch);
        let is_busy = self.busy_at.is_some_and(|at| at.elapsed() < BUSY);
        for _ in 0..GATHERINGS_MAX {
            if !is_busy || batch.len() >= ENOUGH {
                break;
            }
            sleep(GATHERING).await;
            self.take(&mut batch);
        }
        if batch.len() > 1 {
            self.busy_at = Some(Instant::now());
        }
        Some(batch)
    }

    fn take(&mut self, batch: &mut Vec<T>) {
        let mut bytes: usize = batch.iter().map(self.bytes).sum();
        while batch.len() < self.entries_max && bytes < self.bytes_max {
            let Ok(next) = self.queue.try_recv() else {
                break;
            };
            bytes += (self.bytes)(&next);
            batch.push(next);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    /// Entries of so many bytes wait.
    fn incoming(waiting: &[usize]) -> (mpsc::Sender<usize>, Incoming<usize>) {
        let (queue, receiver) = mpsc::channel(100);
        for bytes in waiting {
            queue.try_send(*bytes).unwrap();
        }
        (queue, Incoming::new(receiver, (20, 1000), |bytes| *bytes))
    }

    #[tokio::test]
    async fn what_is_there_is_taken_together_up_to_the_limits() {
        let (_queue, mut incoming) = incoming(&[1; 25]);
        assert_eq!(incoming.next_batch().await, Some(vec![1; 20]));
        let (_queue, mut incoming) = self::incoming(&[600, 600, 2000, 7]);
        assert_eq!(incoming.next_batch().await, Some(vec![600, 600]));
        assert_eq!(incoming.next_batch().await, Some(vec![2000]));
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_comes_alone_does_not_wait() {
        let (queue, mut incoming) = incoming(&[1]);
        let begun = Instant::now();
        assert_eq!(incoming.next_batch().await, Some(vec![1]));
        queue.try_send(2).unwrap();
        assert_eq!(incoming.next_batch().await, Some(vec![2]));
        assert_eq!(begun.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn while_much_goes_on_a_small_batch_gathers_and_a_large_one_goes() {
        let (queue, mut incoming) = incoming(&[1, 1]);
        assert_eq!(incoming.next_batch().await, Some(vec![1, 1]));
        queue.try_send(2).unwrap();
        let later = async {
            advance(GATHERING / 2).await;
            queue.try_send(3).unwrap();
            advance(GATHERING * 2).await;
            queue.try_send(4).unwrap();
        };
        let (batch, ()) = tokio::join!(incoming.next_batch(), later);
        assert_eq!(batch, Some(vec![2, 3, 4]));
        for _ in 0..ENOUGH {
            queue.try_send(4).unwrap();
        }
        let begun = Instant::now();
        assert_eq!(incoming.next_batch().await, Some(vec![4; ENOUGH]));
        assert_eq!(begun.elapsed(), Duration::ZERO);
        // It is over.
        advance(BUSY).await;
        queue.try_send(5).unwrap();
        let begun = Instant::now();
        assert_eq!(incoming.next_batch().await, Some(vec![5]));
        assert_eq!(begun.elapsed(), Duration::ZERO);
    }

    #[tokio::test]
    async fn at_the_end_there_is_nothing_more() {
        let (queue, mut incoming) = incoming(&[1]);
        drop(queue);
        assert_eq!(incoming.next_batch().await, Some(vec![1]));
        assert_eq!(incoming.next_batch().await, None);
    }
}

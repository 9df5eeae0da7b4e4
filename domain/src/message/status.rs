//! How far a message has come.

use crate::words::vocabulary;

vocabulary! {
    /// How far a message has come, in Twilio's words.
    /// Source: Twilio's `message_enum_status`.
    Status {
        /// Taken by the provider, no sender chosen yet.
        Accepted = "accepted",
        /// To be sent later.
        Scheduled = "scheduled",
        /// Waiting at the provider.
        Queued = "queued",
        /// Being handed to the carrier.
        Sending = "sending",
        /// Handed to the carrier.
        Sent = "sent",
        /// Some of its recipients have it.
        PartiallyDelivered = "partially_delivered",
        /// Withdrawn before it was sent.
        Canceled = "canceled",
        /// The provider could not send it.
        Failed = "failed",
        /// The carrier could not deliver it.
        Undelivered = "undelivered",
        /// The client's device has it.
        Delivered = "delivered",
        /// The client has read it.
        Read = "read",
        /// It is coming in.
        Receiving = "receiving",
        /// It came in.
        Received = "received",
    }
}

impl Status {
    /// The place of a status in a message's life. Callbacks come in any order
    /// and a status never goes back, so the highest rank seen is the status:
    /// a failure is final unless a delivery follows (contract, section 1).
    pub const fn rank(self) -> i16 {
        match self {
            Self::Accepted | Self::Scheduled | Self::Receiving => 0,
            Self::Queued => 1,
            Self::Sending => 2,
            Self::Sent => 3,
            Self::PartiallyDelivered => 4,
            Self::Canceled => 5,
            Self::Undelivered => 6,
            Self::Failed => 7,
            Self::Received => 8,
            Self::Delivered => 9,
            Self::Read => 10,
        }
    }

    /// The one of two that counts.
    pub fn later(self, other: Self) -> Self {
        if other.rank() > self.rank() {
            other
        } else {
            self
        }
    }

    /// Whether it says that the message did not arrive.
    pub const fn is_failure(self) -> bool {
        matches!(self, Self::Failed | Self::Undelivered | Self::Canceled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_status_never_goes_back() {
        use Status::*;
        assert_eq!(Read.later(Delivered), Read);
        assert_eq!(Delivered.later(Sent), Delivered);
        assert_eq!(Failed.later(Sent), Failed);
        assert_eq!(Undelivered.later(Queued), Undelivered);
        assert_eq!(
            Undelivered.later(Delivered),
            Delivered,
            "a failure is final unless a delivery follows"
        );
    }

    proptest! {
        #[test]
        fn any_order_of_the_same_statuses_ends_the_same(
            mut seen in proptest::collection::vec(0..Status::ALL.len(), 1..8), seed in any::<u64>()
        ) {
            let fold = |order: &[usize]| order.iter().map(|&i| Status::ALL[i]).reduce(Status::later).map(Status::rank);
            let before = fold(&seen);
            let turns = (seed as usize) % seen.len();
            seen.rotate_left(turns);
            seen.reverse();
            prop_assert_eq!(before, fold(&seen));
        }
    }
}

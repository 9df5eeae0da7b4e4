//! The past: which events a question about it folds. What they add up to is
//! said by the same folds that keep the read models.

use chrono::{DateTime, Utc};
use domain::event::Recorded;
use sqlx::PgConnection;

use crate::feed;
use crate::keys::Opener;

/// Up to where the past is asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AsOf {
    /// The ledger up to this position.
    Position(i64),
    /// The ledger as it was recorded up to this time.
    Time(DateTime<Utc>),
}

impl AsOf {
    /// The last position that belongs to it.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn position(self, conn: &mut PgConnection) -> anyhow::Result<i64> {
        match self {
            Self::Position(position) => Ok(position),
            Self::Time(at) => feed::position_at(conn, at).await,
        }
    }
}

/// How many events are in memory at once while the past is folded.
const PAGE: usize = 500;

/// Gives the events at these positions to a fold, page by page, in their order
/// and each once.
pub(crate) async fn fold(
    conn: &mut PgConnection,
    opener: &Opener,
    mut positions: Vec<i64>,
    mut take: impl FnMut(&[&Recorded]),
) -> anyhow::Result<()> {
    positions.sort_unstable();
    positions.dedup();
    for page in positions.chunks(PAGE) {
        let events = feed::read_positions(conn, opener, page).await?;
        take(&events.iter().collect::<Vec<_>>());
    }
    Ok(())
}

//! Bodies of requests while they come in: how long that may take, and what
//! becomes of the rest of one that is refused.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, TryStreamExt};
use poem::http::{HeaderMap, header};
use tokio::time::timeout;

/// How long a body may take to arrive.
pub const TIMEOUT: Duration = Duration::from_secs(60);
/// How long we read from whoever is refused.
pub const REFUSED_TIMEOUT: Duration = Duration::from_secs(5);

/// Whether a body says of itself that it is larger.
pub fn is_larger(headers: &HeaderMap, bytes_max: usize) -> bool {
    declared_bytes(headers).is_some_and(|bytes| bytes > bytes_max as u64)
}

/// Reads the rest of a body that is refused, and forgets it: a client that
/// still sends while we close the connection never reads our answer. It goes
/// no further than twice what is allowed. A client that asks before it sends
/// (`Expect: 100-continue`) has its answer at once.
pub async fn discard<E>(
    headers: &HeaderMap,
    mut rest: impl Stream<Item = Result<Bytes, E>> + Unpin,
    bytes_max: usize,
) {
    let bytes_max = bytes_max.saturating_mul(2);
    if headers.contains_key(header::EXPECT) || is_larger(headers, bytes_max) {
        return;
    }
    let reading = async {
        let mut bytes = 0;
        while let Ok(Some(chunk)) = rest.try_next().await {
            bytes += chunk.len();
            if bytes > bytes_max {
                return;
            }
        }
    };
    // The answer is the same whether or not it ended in time.
    let _ = timeout(REFUSED_TIMEOUT, reading).await;
}

fn declared_bytes(headers: &HeaderMap) -> Option<u64> {
    headers
        .get(header::CONTENT_LENGTH)?
        .to_str()
        .ok()?
        .parse()
        .ok()
}

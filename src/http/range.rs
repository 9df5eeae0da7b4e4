//! Range requests (RFC 9110, section 14), so that a player can seek. One range
//! at a time: of several asked for, the whole is a legitimate answer.

use std::ops::{Bound, Range};

use poem::Request;
use poem::web::headers::{HeaderMapExt, Range as RangeHeader};

/// What part of something was asked for.
#[derive(Debug, PartialEq, Eq)]
pub enum Requested {
    /// All of it.
    Whole,
    /// Some bytes of it, at least one.
    Part(Range<usize>),
    /// Bytes that it does not have.
    Nothing,
}

/// What part of `size` bytes a request asks for.
pub fn requested(request: &Request, size: usize) -> Requested {
    let Some(header) = request.headers().typed_get::<RangeHeader>() else {
        return Requested::Whole;
    };
    let mut ranges = header.satisfiable_ranges(size as u64);
    match (ranges.next(), ranges.next()) {
        (Some(range), None) => part(range, size),
        (None, _) => Requested::Nothing,
        (Some(_), Some(_)) => Requested::Whole,
    }
}

fn part((start, end): (Bound<u64>, Bound<u64>), size: usize) -> Requested {
    let at = |bound: u64| usize::try_from(bound).unwrap_or(usize::MAX);
    let start = match start {
        Bound::Included(start) => at(start),
        Bound::Excluded(start) => at(start).saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match end {
        Bound::Included(end) => at(end).saturating_add(1).min(size),
        Bound::Excluded(end) => at(end).min(size),
        Bound::Unbounded => size,
    };
    if start < end {
        Requested::Part(start..end)
    } else {
        Requested::Nothing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_range_is_cut_to_what_there_is() {
        for (asked, expected) in [
            (None, Requested::Whole),
            (Some("bytes=0-3"), Requested::Part(0..4)),
            (Some("bytes=4-"), Requested::Part(4..10)),
            (Some("bytes=-3"), Requested::Part(7..10)),
            (Some("bytes=8-99"), Requested::Part(8..10)),
            (Some("bytes=10-"), Requested::Nothing),
            (Some("bytes=0-1,4-5"), Requested::Whole),
            (Some("chapters=1-2"), Requested::Whole),
        ] {
            let mut request = Request::builder();
            if let Some(asked) = asked {
                request = request.header("range", asked);
            }
            assert_eq!(requested(&request.finish(), 10), expected, "{asked:?}");
        }
    }
}

//! How much time a caller gives (`grpc-timeout`).

use std::{future::Future, time::Duration};

use http::HeaderName;
use tokio::time::timeout;
use tonic::{Status, metadata::MetadataMap};

use crate::broker::Error;

/// What callers write, as the gRPC protocol has it: one to eight digits and a unit.
const FIELD: &str = "grpc-timeout";
const NAME: HeaderName = HeaderName::from_static(FIELD);
const MOST_DIGITS: usize = 8;

/// What the field says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Deadline {
    /// There is so much time; `None`: no end to it.
    Ahead(Option<Duration>),
    /// There was none from the beginning.
    Over,
    /// Nobody can tell.
    Malformed,
}

/// Reads the field.
pub(super) fn of(metadata: &MetadataMap) -> Deadline {
    let mut values = metadata.as_ref().get_all(NAME).iter().map(|value| value.to_str().ok().and_then(time));
    match values.next() {
        None => Deadline::Ahead(None),
        // Two of them would leave it to chance which one counts.
        Some(_) if values.next().is_some() => Deadline::Malformed,
        Some(None) => Deadline::Malformed,
        Some(Some(Duration::ZERO)) => Deadline::Over,
        Some(Some(left)) => Deadline::Ahead(Some(left)),
    }
}

/// Waits for an answer for as long as its caller does. What was begun for it is dropped then.
pub(super) async fn within<A>(
    left: Option<Duration>,
    answer: impl Future<Output = Result<A, Status>>,
) -> Result<A, Status> {
    match left {
        None => answer.await,
        Some(left) => timeout(left, answer).await.unwrap_or_else(|_| Err(exceeded())),
    }
}

/// The status for a deadline that is over. It has no reason of ours: clients have this error from their own clocks.
pub(super) fn exceeded() -> Status {
    Status::deadline_exceeded("the caller's time for this request is over")
}

/// The error for a field that cannot be read.
pub(super) fn malformed() -> Error {
    Error::InvalidRequest { field: FIELD, problem: "write one to eight digits and one of H, M, S, m, u, n".to_owned() }
}

/// The time that a value leaves; `None` if it is malformed.
fn time(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let is_number = (1..=MOST_DIGITS).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit());
    let number = digits.parse().ok().filter(|_| is_number)?;
    match unit {
        "H" => Some(Duration::from_secs(3600 * number)),
        "M" => Some(Duration::from_secs(60 * number)),
        "S" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_millis(number)),
        "u" => Some(Duration::from_micros(number)),
        "n" => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use tonic::metadata::AsciiMetadataValue;

    use super::*;

    #[test]
    fn every_form_is_read_or_refused() {
        use Deadline::{Ahead, Malformed, Over};
        for (values, expected) in [
            (&[][..], Ahead(None)),
            (&["1n"], Ahead(Some(Duration::from_nanos(1)))),
            (&["00000001u"], Ahead(Some(Duration::from_micros(1)))),
            (&["99999999H"], Ahead(Some(Duration::from_secs(99_999_999 * 3600)))),
            (&["20m"], Ahead(Some(Duration::from_millis(20)))),
            (&["5S"], Ahead(Some(Duration::from_secs(5)))),
            (&["5M"], Ahead(Some(Duration::from_secs(300)))),
            (&["0n"], Over),
            (&["00000000H"], Over),
            (&[""], Malformed),
            (&["n"], Malformed),
            (&["5"], Malformed),
            (&["5s"], Malformed),
            (&["100000000n"], Malformed),
            (&["-1S"], Malformed),
            (&["+1S"], Malformed),
            (&["1.5S"], Malformed),
            (&[" 1S"], Malformed),
            (&["1 S"], Malformed),
            (&["1S, 2S"], Malformed),
            (&["5\u{b5}"], Malformed),
            (&["1S", "2S"], Malformed),
            (&["18446744073709551616S"], Malformed),
        ] {
            let mut metadata = MetadataMap::new();
            for value in values {
                metadata.append(FIELD, AsciiMetadataValue::try_from(*value).unwrap());
            }
            assert_eq!(of(&metadata), expected, "{values:?}");
        }
    }
}

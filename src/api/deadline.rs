//! How much time a caller gives (`grpc-timeout`), as far as that decides whether its request is taken on.

use http::HeaderName;
use tonic::{Status, metadata::MetadataMap};

use crate::broker::Error;

/// What callers write, as the gRPC protocol has it: one to eight digits and a unit.
const FIELD: &str = "grpc-timeout";
const NAME: HeaderName = HeaderName::from_static(FIELD);
const UNITS: &str = "HMSmun";
const MOST_DIGITS: usize = 8;

/// What the field says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Deadline {
    /// There is time, or no end to it; the server's own timer does the rest.
    Ahead,
    /// There was none from the beginning.
    Over,
    /// Nobody can tell.
    Malformed,
}

/// Reads the field. The server's timer takes what it cannot read for no limit at all, and lets work begin before it looks
/// at the time for once, so that a refresh would be made for somebody who has long gone.
pub(super) fn of(metadata: &MetadataMap) -> Deadline {
    let mut values = metadata.as_ref().get_all(NAME).iter().map(|value| value.to_str().ok().and_then(has_time));
    match values.next() {
        None => Deadline::Ahead,
        // Two of them would leave it to chance which one counts.
        Some(_) if values.next().is_some() => Deadline::Malformed,
        Some(None) => Deadline::Malformed,
        Some(Some(false)) => Deadline::Over,
        Some(Some(true)) => Deadline::Ahead,
    }
}

/// The status for a deadline that was over from the beginning. It has no reason of ours, like that of any other deadline.
pub(super) fn exceeded() -> Status {
    Status::deadline_exceeded("there was no time for this request when it came")
}

/// The error for a field that cannot be read.
pub(super) fn malformed() -> Error {
    Error::InvalidRequest { field: FIELD, problem: "write one to eight digits and one of H, M, S, m, u, n".to_owned() }
}

/// Whether a value leaves any time; `None` if it is malformed.
fn has_time(text: &str) -> Option<bool> {
    let digits = text.strip_suffix(|unit| UNITS.contains(unit))?;
    let is_number = (1..=MOST_DIGITS).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| digits.bytes().any(|byte| byte != b'0'))
}

#[cfg(test)]
mod tests {
    use tonic::metadata::AsciiMetadataValue;

    use super::*;

    #[test]
    fn every_form_is_read_or_refused() {
        use Deadline::{Ahead, Malformed, Over};
        for (values, expected) in [
            (&[][..], Ahead),
            (&["1n"], Ahead),
            (&["00000001u"], Ahead),
            (&["99999999H"], Ahead),
            (&["20m"], Ahead),
            (&["5S"], Ahead),
            (&["5M"], Ahead),
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

//! Moments as RFC 3339 writes them, to the microsecond. Records come many in a second, so that all but the digits behind the
//! point are the same as in the one before.

use std::{
    cell::RefCell,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

thread_local! {
    /// The last second that was written, and how.
    static SECOND: RefCell<(u64, String)> = const { RefCell::new((u64::MAX, String::new())) };
}

/// Writes a moment in quotes.
pub(super) fn write(into: &mut Vec<u8>, moment: SystemTime) {
    let since = moment.duration_since(UNIX_EPOCH).unwrap_or_default();
    SECOND.with_borrow_mut(|(second, text)| {
        if *second != since.as_secs() {
            let whole = UNIX_EPOCH + Duration::from_secs(since.as_secs());
            *text = humantime::format_rfc3339_seconds(whole).to_string().trim_end_matches('Z').to_owned();
            *second = since.as_secs();
        }
        into.push(b'"');
        into.extend_from_slice(text.as_bytes());
        into.push(b'.');
        into.extend_from_slice(&digits(since.subsec_micros()));
        into.extend_from_slice(b"Z\"");
    });
}

fn digits(mut number: u32) -> [u8; 6] {
    let mut digits = [b'0'; 6];
    for digit in digits.iter_mut().rev() {
        // The rest of a division by ten is a digit.
        *digit += u8::try_from(number % 10).unwrap_or_default();
        number /= 10;
    }
    digits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_what_the_library_would_write() {
        for nanos in [0, 999, 1_000, 999_999_999, 1_000_000_000, 1_795_449_600_000_001_000, 1_795_449_600_123_456_789] {
            let moment = UNIX_EPOCH + Duration::from_nanos(nanos);
            for _ in 0..2 {
                let mut written = Vec::new();
                write(&mut written, moment);
                let expected = format!("\"{}\"", humantime::format_rfc3339_micros(moment));
                assert_eq!(String::from_utf8(written).unwrap(), expected);
            }
        }
    }
}

//! The moment at which a token ends, in the forms that providers write: seconds or milliseconds since 1970, and ISO 8601.

use std::time::{Duration, SystemTime};

/// A number above this is one of milliseconds: as seconds it would be a year beyond 5000.
const MOST_SECONDS: f64 = 1e11;

/// A number since 1970.
pub(super) fn of_number(number: f64) -> Option<SystemTime> {
    let seconds = if number > MOST_SECONDS { number / 1e3 } else { number };
    let since = Duration::try_from_secs_f64(seconds).ok()?;
    SystemTime::UNIX_EPOCH.checked_add(since)
}

/// A date and a time of day, of UTC if no zone is written (ISO 8601, RFC 3339).
pub(super) fn of_text(text: &str) -> Option<SystemTime> {
    let (date, time) = text.trim().split_once(['T', 't', ' '])?;
    let mut date = date.split('-').map(digits);
    let (year, month, day) = (date.next()??, date.next()??, date.next()??);
    let zone_at = time.find(['Z', 'z', '+', '-', ' ']).unwrap_or(time.len());
    let (time, zone) = time.split_at_checked(zone_at)?;
    let (time, _fraction) = time.split_once(['.', ',']).unwrap_or((time, ""));
    let mut time = time.split(':').map(digits);
    let (hour, minute, second) = (time.next()??, time.next()??, time.next().unwrap_or(Some(0))?);
    let is_real = (1970..=9999).contains(&year) && (1..=12).contains(&month) && (1..=31).contains(&day);
    if !is_real || hour > 24 || minute > 59 || second > 60 {
        return None;
    }
    let seconds = days(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second - offset(zone)?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(u64::try_from(seconds).ok()?))
}

fn digits(text: &str) -> Option<i64> {
    let is_number = (1..=4).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().ok()).flatten()
}

/// How far a zone is ahead of UTC, in seconds.
fn offset(zone: &str) -> Option<i64> {
    let zone = zone.trim();
    let sign = match zone.chars().next() {
        None | Some('Z' | 'z') => return Some(0),
        Some('+') => 1,
        Some('-') => -1,
        Some(_) => return None,
    };
    let figures: String = zone.chars().skip(1).filter(|character| *character != ':').collect();
    let number = digits(&figures)?;
    let (hours, minutes) = if figures.len() <= 2 { (number, 0) } else { (number / 100, number % 100) };
    Some(sign * (hours * 3_600 + minutes * 60))
}

/// The days from 1970-01-01 to a date of the Gregorian calendar.
fn days(year: i64, month: i64, day: i64) -> i64 {
    // A year that begins in March has its odd day at its end.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let leap_days = year / 4 - year / 100 + year / 400;
    // 719,468 days went from 0000-03-01 to 1970-01-01.
    year * 365 + leap_days + (153 * month + 2) / 5 + day - 1 - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    /// P-K10, row 28.
    #[test]
    fn a_moment_is_read_in_each_form() {
        let at = |seconds| Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        for (text, expected) in [
            ("2016-07-11T22:14:10Z", at(1_468_275_250)),
            ("2016-07-11 22:14:10", at(1_468_275_250)),
            ("2016-07-11T22:14:10.123456Z", at(1_468_275_250)),
            ("2016-07-12T00:14:10+02:00", at(1_468_275_250)),
            ("2016-07-11T18:14:10-0400", at(1_468_275_250)),
            ("2024-02-29T00:00Z", at(1_709_164_800)),
            ("1970-01-01T00:00:00Z", at(0)),
            ("2016-07-11", None),
            ("2016-13-11T22:14:10Z", None),
            ("soon", None),
            ("9".repeat(40).as_str(), None),
        ] {
            assert_eq!(of_text(text), expected, "{text}");
        }
        assert_eq!(of_number(1_468_275_250.0), at(1_468_275_250));
        assert_eq!(of_number(1_468_275_250_000.0), at(1_468_275_250));
        assert_eq!(of_number(-1.0), None);
        assert_eq!(of_number(f64::NAN), None);
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(text: String, number: f64) {
            of_text(&text);
            of_number(number);
        }
    }
}

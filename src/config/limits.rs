//! `[limits]`: how much is taken on.

use super::{
    key::Key,
    reader::{Reader, Value},
    value::{Wrong, bytes, number},
};
use crate::limit::LimitConfig;

pub(super) const KEYS: &[Key] = &[
    Key::new("requests_per_second"),
    Key::new("burst"),
    Key::new("max_in_flight"),
    Key::new("max_in_flight_per_caller"),
    Key::new("failed_proofs_per_second"),
    Key::new("max_call_body_bytes"),
    Key::new("max_call_body_bytes_per_caller"),
];

/// What no caller reaches that means well: tokens are good for minutes.
const REQUESTS_PER_SECOND: u32 = 10_000;

const MAX_IN_FLIGHT: u32 = 10_000;

/// A caller whose token was replaced fails a few times; only guesses fail without end.
const FAILED_PROOFS_PER_SECOND: u32 = 10;

/// A quarter of the memory that the manifests give a pod. A body can be there twice while it is decoded or encoded.
const MAX_CALL_BODY_BYTES: usize = 64 * 1024 * 1024;

/// Reads the table.
pub(super) fn read(reader: &Reader<'_>) -> LimitConfig {
    let requests_per_second = reader.optional("requests_per_second", up_to(1_000_000)).unwrap_or(REQUESTS_PER_SECOND);
    let max_in_flight = reader.optional("max_in_flight", up_to(1_000_000)).unwrap_or(MAX_IN_FLIGHT);
    let per_caller = reader.optional("max_in_flight_per_caller", up_to(1_000_000));
    let bodies = reader.optional("max_call_body_bytes", bytes(1024..=u32::MAX)).unwrap_or(MAX_CALL_BODY_BYTES);
    let bodies_per_caller = reader.optional("max_call_body_bytes_per_caller", bytes(1024..=u32::MAX));
    LimitConfig {
        failed_proofs_per_second: reader
            .optional("failed_proofs_per_second", up_to(1_000_000))
            .unwrap_or(FAILED_PROOFS_PER_SECOND),
        max_call_body_bytes: bodies,
        max_call_body_bytes_per_caller: bodies_per_caller.unwrap_or(bodies.div_ceil(2)),
        requests_per_second,
        burst: reader.optional("burst", up_to(10_000_000)).unwrap_or(requests_per_second),
        max_in_flight: places(max_in_flight),
        // Half, so that one caller that hangs leaves as much to all others.
        max_in_flight_per_caller: places(per_caller.unwrap_or(max_in_flight.div_ceil(2))),
    }
}

fn places(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

fn up_to(most: u32) -> impl Fn(&Value<'_>) -> Result<u32, Wrong> {
    move |value| number(1..=u64::from(most))(value).map(|number| u32::try_from(number).unwrap_or(most))
}

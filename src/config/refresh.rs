//! `[refresh]`: the times within which one replica refreshes and the others wait.

use std::time::Duration;

use super::{key::Key, reader::Reader, value::some_time};
use crate::broker::Timing;

pub(super) const KEYS: &[Key] =
    &[Key::new("http_timeout"), Key::new("commit_budget"), Key::new("lease"), Key::new("max_wait")];

/// What callers of gRPC services usually wait.
const CALLERS_DEADLINE: Duration = Duration::from_secs(30);

/// Reads the table.
pub(super) fn read(reader: &Reader<'_>) -> Timing {
    let time = |key, seconds| reader.optional(key, some_time).unwrap_or(Duration::from_secs(seconds));
    let refresh = Timing {
        http_timeout: time("http_timeout", 10),
        commit_budget: time("commit_budget", 3),
        lease: time("lease", 20),
        max_wait: time("max_wait", 25),
    };
    fit(reader, &refresh);
    refresh
}

fn fit(reader: &Reader<'_>, refresh: &Timing) {
    let Timing { http_timeout, commit_budget, lease, max_wait } = *refresh;
    let request = http_timeout + commit_budget;
    let order = [
        (
            request,
            lease,
            ["lease", "http_timeout", "commit_budget"],
            "http_timeout + commit_budget must be under lease",
        ),
        (lease, max_wait, ["max_wait", "lease", "lease"], "lease must be under max_wait"),
        (max_wait, CALLERS_DEADLINE, ["max_wait"; 3], "max_wait must be under 30s, which callers usually wait"),
    ];
    for (short, long, keys, rule) in order {
        if short >= long {
            let key = keys.into_iter().find(|key| reader.value(key).is_some()).unwrap_or(keys[0]);
            let (short, long) = (humantime::format_duration(short), humantime::format_duration(long));
            reader.misfit(key, "does not fit the other times", &format!("{rule}; here {short} is not under {long}"));
        }
    }
}

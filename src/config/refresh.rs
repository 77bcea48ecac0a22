//! `[refresh]`: the times within which one replica refreshes and the others wait.

use std::time::Duration;

use super::{key::Key, reader::Reader, value::some_time};

pub(super) const KEYS: &[Key] =
    &[Key::new("http_timeout"), Key::new("commit_budget"), Key::new("lease"), Key::new("max_wait")];

/// What callers of gRPC services usually wait.
const CALLERS_DEADLINE: Duration = Duration::from_secs(30);

/// The times of a refresh: `http_timeout + commit_budget < lease < max_wait < 30s`.
#[derive(Clone, Copy, Debug)]
pub struct Refresh {
    /// How long a request to a provider may take.
    pub http_timeout: Duration,
    /// How long it may take to write what the provider answered.
    pub commit_budget: Duration,
    /// How long one replica alone works on a grant. It must outlast its request and the writing of the answer, or
    /// another replica would begin beside it.
    pub lease: Duration,
    /// How long a caller waits for a refresh. It must outlast a lease, so that somebody takes over while it waits.
    pub max_wait: Duration,
}

/// Reads the table.
pub(super) fn read(reader: &Reader<'_>) -> Refresh {
    let time = |key, seconds| reader.optional(key, some_time).unwrap_or(Duration::from_secs(seconds));
    let refresh = Refresh {
        http_timeout: time("http_timeout", 10),
        commit_budget: time("commit_budget", 3),
        lease: time("lease", 20),
        max_wait: time("max_wait", 25),
    };
    fit(reader, &refresh);
    refresh
}

fn fit(reader: &Reader<'_>, refresh: &Refresh) {
    let Refresh { http_timeout, commit_budget, lease, max_wait } = *refresh;
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

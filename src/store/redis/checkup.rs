//! Whether a server is one to keep grants in, judged by what it says of itself. Pure: its words come in.

use std::collections::HashMap;

use redis::{Value, from_redis_value_ref};

use super::address::Kind;

/// The oldest major version that the tests run against.
const OLDEST_TESTED: u32 = 7;

/// What the operator of a server should know.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Finding {
    /// Refresh tokens, or the leases that guard them, would be lost as a matter of course: nothing is kept there.
    Refused(String),
    /// It works, at a risk.
    Warning(String),
}

/// Why a server is not the one to use.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unfit {
    /// Somebody has to change the configuration.
    Always(String),
    /// Whoever named it will name another one soon.
    Now(String),
}

/// Whether the server that answered `HELLO` takes writes; else what it is. Every ACL user may ask this, so it can be
/// asked on each new connection.
pub(super) fn takes_writes(hello: &HashMap<String, Value>, kind: &Kind) -> Result<(), Unfit> {
    is_of(hello, kind)?;
    let role = match word(hello, "role") {
        // A server that does not tell its role is found out at the first write.
        role if role == "master" || role.is_empty() => return Ok(()),
        role => role,
    };
    let what = format!("this server is a {role} and takes no writes");
    match kind {
        Kind::Server => Err(Unfit::Always(format!("{what}; store.url must be the primary's"))),
        Kind::Sentinel { .. } | Kind::Cluster => Err(Unfit::Now(what)),
    }
}

/// Whether the server that answered `HELLO` is of this kind, and stands alone or in a cluster as the address says.
pub(super) fn is_of(hello: &HashMap<String, Value>, kind: &Kind) -> Result<(), Unfit> {
    let why = match (word(hello, "mode").as_str(), kind) {
        ("sentinel", _) => "this is a Redis Sentinel; write redis+sentinel://host/name-of-the-primary in store.url",
        ("cluster", Kind::Server | Kind::Sentinel { .. }) => {
            "this is a node of a Redis Cluster; write redis+cluster:// in store.url"
        }
        ("cluster", Kind::Cluster) | (_, Kind::Server | Kind::Sentinel { .. }) => return Ok(()),
        (_, Kind::Cluster) => "this server is no node of a Redis Cluster; write redis:// in store.url",
    };
    Err(Unfit::Always(why.into()))
}

fn word(hello: &HashMap<String, Value>, name: &str) -> String {
    hello.get(name).and_then(|value| from_redis_value_ref(value).ok()).unwrap_or_default()
}

/// What the text of `INFO` gives to say about a server.
pub(super) fn settings(info: &str) -> Vec<Finding> {
    [version(info), eviction(info), persistence(info)].into_iter().flatten().collect()
}

/// What is said where the server does not answer `INFO`.
pub(super) fn unchecked(why: &str) -> Finding {
    let remedy = if why.contains("unknown command") {
        "INFO is renamed or switched off there, so see to maxmemory-policy noeviction and appendonly yes yourself"
    } else {
        "grant the ACL user +info"
    };
    Finding::Warning(format!("whether it evicts keys and writes to disk could not be checked ({why}); {remedy}"))
}

/// What is said where the server does not know or does not allow what durable writes need.
pub(super) fn unable(why: &str) -> Finding {
    let remedy = if why.contains("unknown command") {
        "store.wait_fsync needs Redis 7.2 or Valkey"
    } else if why.contains("appendonly") {
        "store.wait_fsync needs appendonly yes"
    } else {
        "store.wait_replicas needs the command WAIT, and store.wait_fsync WAITAOF"
    };
    Finding::Refused(format!("{remedy} ({why})"))
}

fn version(info: &str) -> Option<Finding> {
    let version = field(info, "redis_version")?;
    let major: u32 = version.split('.').next()?.parse().ok()?;
    let text = format!("it is version {version}; versions before {OLDEST_TESTED}.0 are not tested");
    (major < OLDEST_TESTED).then_some(Finding::Warning(text))
}

fn eviction(info: &str) -> Option<Finding> {
    let (Some(limit), Some(policy)) = (field(info, "maxmemory"), field(info, "maxmemory_policy")) else {
        return Some(Finding::Warning("it does not tell whether it evicts keys; it must not".into()));
    };
    if limit == "0" || policy == "noeviction" {
        return None;
    }
    let lost = match policy.starts_with("volatile-") {
        true => "leases, without which two replicas use one refresh token, and access tokens",
        false => "any key, refresh tokens included, whose owners must then log in again",
    };
    Some(Finding::Refused(format!(
        "its maxmemory-policy is {policy}: when memory is full it deletes {lost}; set maxmemory-policy noeviction"
    )))
}

/// Snapshots alone do not do: a refresh token that was rotated since the last one is gone with the process.
fn persistence(info: &str) -> Option<Finding> {
    let text = match field(info, "aof_enabled") {
        Some("0") => {
            "it writes no append-only file: a restart of Redis loses every refresh token that was stored since the last \
             snapshot, and all of them where it takes none; set appendonly yes"
        }
        Some(_) => return None,
        None => "it does not tell whether it writes an append-only file; it should",
    };
    Some(Finding::Warning(text.into()))
}

fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.trim_end().strip_prefix(name)?.strip_prefix(':'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(version: &str, maxmemory: &str, policy: &str, aof: &str) -> String {
        format!(
            "# Server\r\nredis_version:{version}\r\n# Memory\r\nmaxmemory:{maxmemory}\r\nmaxmemory_human:0B\r\n\
             maxmemory_policy:{policy}\r\n# Persistence\r\naof_enabled:{aof}\r\naof_rewrite_in_progress:0\r\n"
        )
    }

    fn text(finding: &Finding) -> (bool, &str) {
        match finding {
            Finding::Refused(text) => (true, text),
            Finding::Warning(text) => (false, text),
        }
    }

    #[test]
    fn settings_are_judged() {
        let fine: &[(bool, &str)] = &[];
        for (info, expected) in [
            (info("7.0.15", "0", "noeviction", "1"), fine),
            (info("10.2.0", "1048576", "noeviction", "1"), fine),
            // Without a limit nothing is evicted.
            (info("7.0.15", "0", "allkeys-lru", "1"), fine),
            (
                info("7.0.15", "1048576", "volatile-lru", "1"),
                &[(true, "is volatile-lru: when memory is full it deletes leases")],
            ),
            (
                info("7.0.15", "1048576", "volatile-ttl", "1"),
                &[(true, "is volatile-ttl: when memory is full it deletes leases")],
            ),
            (info("7.0.15", "1", "allkeys-random", "1"), &[(true, "deletes any key, refresh tokens included")]),
            (info("7.0.15", "1", "of-the-future", "1"), &[(true, "set maxmemory-policy noeviction")]),
            (info("7.0.15", "0", "noeviction", "0"), &[(false, "a restart of Redis loses every refresh token")]),
            (info("6.2.14", "0", "noeviction", "1"), &[(false, "version 6.2.14; versions before 7.0 are not tested")]),
            (
                info("6.0.0", "9", "allkeys-lfu", "0"),
                &[(false, "version 6.0.0"), (true, "allkeys-lfu"), (false, "append-only file")],
            ),
            (String::new(), &[(false, "whether it evicts"), (false, "whether it writes an append-only file")]),
            ("maxmemory:\r\nmaxmemory_policy\r\naof_enabled:1".into(), &[(false, "whether it evicts")]),
        ] {
            let found = settings(&info);
            assert_eq!(found.len(), expected.len(), "{info}\n{found:?}");
            for (found, (refused, words)) in found.iter().map(text).zip(expected) {
                assert!(found.0 == *refused && found.1.contains(words), "{info}\n{found:?}");
            }
        }
    }

    #[test]
    fn only_a_primary_of_the_right_kind_takes_writes() {
        use Unfit::{Always, Now};
        let (server, sentinel, cluster) = (Kind::Server, Kind::Sentinel { primary: "mymaster".into() }, Kind::Cluster);
        let text = str::to_owned;
        for (mode, role, kind, expected) in [
            ("standalone", "master", &server, None),
            ("standalone", "", &server, None),
            ("standalone", "replica", &server, Some(Always(text("is a replica and takes no writes; store.url must")))),
            ("standalone", "slave", &server, Some(Always(text("is a slave and takes no writes")))),
            ("cluster", "master", &server, Some(Always(text("write redis+cluster://")))),
            ("sentinel", "", &server, Some(Always(text("write redis+sentinel://")))),
            ("standalone", "master", &sentinel, None),
            // It was demoted since the Sentinels were asked, or is not promoted yet.
            ("standalone", "replica", &sentinel, Some(Now(text("is a replica and takes no writes")))),
            ("cluster", "master", &sentinel, Some(Always(text("write redis+cluster://")))),
            ("cluster", "master", &cluster, None),
            ("cluster", "replica", &cluster, Some(Now(text("is a replica and takes no writes")))),
            ("standalone", "master", &cluster, Some(Always(text("is no node of a Redis Cluster")))),
            ("sentinel", "", &cluster, Some(Always(text("write redis+sentinel://")))),
        ] {
            let words = [("mode", mode), ("role", role)].into_iter().filter(|(_, word)| !word.is_empty());
            let mut hello: HashMap<String, Value> =
                words.map(|(name, word)| (name.to_owned(), Value::BulkString(word.into()))).collect();
            hello.insert("id".into(), Value::Int(5));
            hello.insert("modules".into(), Value::Array(Vec::new()));
            match (takes_writes(&hello, kind), expected) {
                (Ok(()), None) => {}
                (Err(Always(why)), Some(Always(words))) | (Err(Now(why)), Some(Now(words))) if why.contains(&words) => {
                }
                (got, _) => panic!("{mode} {role} {kind:?}: {got:?}"),
            }
        }
    }
}

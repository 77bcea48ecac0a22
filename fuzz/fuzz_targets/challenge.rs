//! `WWW-Authenticate` fields of an upstream, one a line, and what they are taken to mean.
#![no_main]

use std::sync::LazyLock;

use bearerd::rejection::{
    Evidence, Rules,
    challenge::{self, MAX_CHALLENGES, MAX_PARAMS},
};
use libfuzzer_sys::fuzz_target;

static RULES: LazyLock<Rules> =
    LazyLock::new(|| Rules::parse(&["401 invalid_token", "403 expired", "500 body ~ (?i)session.*expired"]).unwrap());

fuzz_target!(|text: &str| {
    let lines = || text.split('\n');
    let challenges = challenge::parse(lines());
    assert!(challenges.len() <= MAX_CHALLENGES);
    for challenge in &challenges {
        assert!(!challenge.scheme().is_empty() && text.contains(challenge.scheme()));
        assert!(challenge.params().count() <= MAX_PARAMS);
        for (name, value) in challenge.params() {
            assert!(value.len() <= text.len());
            assert!(challenge.token68().is_none(), "parameters beside a token68");
            // A name that stands twice has no value that anybody may rely on.
            assert!(challenge.param(name).is_none_or(|found| found == value));
        }
    }
    for status in [200, 401, 403, 407, 500] {
        let evidence = Evidence { status, www_authenticate: lines().collect(), body: text.as_bytes() };
        for rules in [&*RULES, &Rules::default()] {
            assert!(!format!("{:?}", rules.judge(&evidence)).is_empty());
        }
    }
});

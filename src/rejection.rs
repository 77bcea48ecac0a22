//! What does an upstream's refusal of a request mean? Pure.
//!
//! Only one question matters: would a new token help? Refreshing for anything else costs a provider's patience and,
//! with rotating refresh tokens, risks the grant. So the default is the one answer that the standard defines (RFC 6750
//! §3.1), a credential's `rejected_when` replaces it with what its API really says, and some answers are never taken
//! for a rejection, whatever is configured, because there the upstream itself says that something else is wrong.

use std::fmt;

pub mod challenge;

use challenge::Challenge;

use crate::{
    name::Scopes,
    rule::{Rule, RuleError},
};

/// How many bytes of a body are looked at; whoever collects evidence need not keep more.
pub const BODY_LIMIT: usize = 64 * 1024;

/// The longest list of scopes, in bytes, that is repeated to people.
const MAX_SCOPE: usize = 1024;

/// What an upstream answered.
#[derive(Clone, Default)]
pub struct Evidence<'a> {
    /// The HTTP status.
    pub status: u16,
    /// All values of the `WWW-Authenticate` header, in order.
    pub www_authenticate: Vec<&'a str>,
    /// The body or its beginning; empty if [`Rules::reads_body`] says that it does not matter.
    pub body: &'a [u8],
}

/// Shows how much body there is, never what it says: it can hold anything.
impl fmt::Debug for Evidence<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { status, www_authenticate, body } = self;
        let (headers, bytes) = (www_authenticate.len(), body.len());
        write!(f, "Evidence {{ status: {status}, www_authenticate: {headers} values, body: {bytes} bytes }}")
    }
}

/// What a refusal means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The upstream does not take this token (any more): a new one is worth asking for.
    TokenRejected,
    /// A new token would not help, or nothing says that it would.
    NotTokenRejected(Why),
}

/// Why an answer is not taken for a token rejection; the text is one sentence for people.
///
/// Nothing of the answer is repeated but its status and, in [`Why::InsufficientScope`], well-formed scopes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Why {
    /// `insufficient_scope` (RFC 6750 §3.1); no rule overrides this.
    #[error("{}", insufficient_scope(scope.as_deref()))]
    InsufficientScope {
        /// The scopes that the upstream asks for, if it says so: sorted, separated by spaces, at most 1024 bytes.
        scope: Option<String>,
    },
    /// `use_dpop_nonce` (RFC 9449 §9); no rule overrides this.
    #[error("the upstream wants a DPoP proof with its nonce, the token itself is not rejected (RFC 9449 §9)")]
    DpopNonceWanted,
    /// 407 (RFC 9110 §15.5.8); no rule overrides this.
    #[error("a proxy on the way wants to be authenticated to, the upstream has not seen the token (407)")]
    ProxyAuthentication,
    /// `invalid_request` (RFC 6750 §3.1), and no rule takes it.
    #[error("the upstream calls the request itself malformed (invalid_request), a new token would not change that")]
    InvalidRequest,
    /// A `Bearer` or `DPoP` challenge with an error that the rules do not name, or not with this status.
    #[error(
        "the upstream answered {status} with an error in its challenge that no rule in the credential's `rejected_when` takes for a token rejection"
    )]
    OtherError {
        /// The answer's status.
        status: u16,
    },
    /// 401 with a `Bearer` or `DPoP` challenge that names no error.
    #[error(
        "the upstream's challenge names no error, as if no token had been sent (RFC 6750 §3.1); `rejected_when = [\"401\"]` in the credential's configuration would take it for a token rejection"
    )]
    NoErrorNamed,
    /// 401 without any challenge that can be read.
    #[error(
        "the answer is a 401 without a readable Bearer challenge; `rejected_when = [\"401\"]` in the credential's configuration would take it for a token rejection"
    )]
    NoChallenge,
    /// 401 with readable challenges, none of them `Bearer` or `DPoP`.
    #[error(
        "the upstream asks for another authentication scheme than Bearer or DPoP; `rejected_when = [\"401\"]` in the credential's configuration would take it for a token rejection all the same"
    )]
    OtherScheme,
    /// Nothing of the above, and no rule takes it.
    #[error("no rule takes an answer like this one, with status {status}, for a token rejection")]
    NoRuleMatched {
        /// The answer's status.
        status: u16,
    },
}

fn insufficient_scope(scope: Option<&str>) -> String {
    match scope {
        Some(scope) => format!("the upstream wants the scope \"{scope}\", a new token would not have it"),
        None => "the upstream wants a wider scope, a new token would not have it".to_owned(),
    }
}

/// A credential's rules; the first that matches makes an answer a token rejection.
///
/// The default is the rule `401 invalid_token` alone, which is RFC 6750 §3.1.
#[derive(Clone, Debug)]
pub struct Rules(Vec<Rule>);

impl Default for Rules {
    fn default() -> Self {
        Self(vec![Rule::of_word(401, "invalid_token")])
    }
}

impl Rules {
    /// Reads the rules of `rejected_when`, each `STATUS [ERROR_WORD] [body ~ REGEX]`. They replace the default: whoever
    /// wants both lists `401 invalid_token` too. No rules at all are the default.
    ///
    /// An error comes with the index of its rule.
    pub fn parse<S: AsRef<str>>(rules: &[S]) -> Result<Self, (usize, RuleError)> {
        if rules.is_empty() {
            return Ok(Self::default());
        }
        let rules = Rule::parse_all(rules)?;
        match rules.iter().position(is_about_something_else) {
            Some(at) => Err((at, RuleError::NeverARejection)),
            None => Ok(Self(rules)),
        }
    }

    /// Whether some rule looks at the body, so that it, or its first [`BODY_LIMIT`] bytes, must be in the evidence.
    pub fn reads_body(&self) -> bool {
        self.0.iter().any(Rule::reads_body)
    }

    /// Says what an answer means. What no rule overrides is looked at first, then the rules in order.
    pub fn judge(&self, evidence: &Evidence<'_>) -> Verdict {
        let all = challenge::parse(evidence.www_authenticate.iter().copied());
        let for_tokens: Vec<&Challenge<'_>> =
            all.iter().filter(|c| c.is_scheme("Bearer") || c.is_scheme("DPoP")).collect();
        if let Some(why) = never_a_rejection(evidence.status, &for_tokens) {
            return Verdict::NotTokenRejected(why);
        }
        let body = evidence.body.get(..BODY_LIMIT).unwrap_or(evidence.body);
        let says = |error: &str| for_tokens.iter().any(|challenge| challenge.param("error") == Some(error));
        if self.0.iter().any(|rule| rule.matches(evidence.status, says, body)) {
            return Verdict::TokenRejected;
        }
        Verdict::NotTokenRejected(unmatched(evidence.status, &for_tokens, all.is_empty()))
    }
}

/// Whether a rule names an answer that [`never_a_rejection`] decides.
fn is_about_something_else(rule: &Rule) -> bool {
    rule.status() == 407 || matches!(rule.error_word(), Some("insufficient_scope" | "use_dpop_nonce"))
}

/// The answers in which the upstream itself says that it is not about the token.
fn never_a_rejection(status: u16, challenges: &[&Challenge<'_>]) -> Option<Why> {
    if status == 407 {
        return Some(Why::ProxyAuthentication);
    }
    challenges.iter().find_map(|challenge| match challenge.param("error")? {
        "insufficient_scope" => {
            Some(Why::InsufficientScope { scope: challenge.param("scope").and_then(readable_scope) })
        }
        "use_dpop_nonce" => Some(Why::DpopNonceWanted),
        _ => None,
    })
}

/// The well-formed scopes of a list, as far as they fit: this text goes on to people and logs.
fn readable_scope(list: &str) -> Option<String> {
    let mut room = MAX_SCOPE;
    let words = list.split(' ').take_while(|word| {
        let fits = word.len() < room;
        room = room.saturating_sub(word.len() + 1);
        fits
    });
    let scopes = Scopes::granted(words);
    (!scopes.is_empty()).then(|| scopes.to_parameter())
}

/// The best reason for an answer that no rule takes.
fn unmatched(status: u16, for_tokens: &[&Challenge<'_>], no_challenge: bool) -> Why {
    let errors = || for_tokens.iter().filter_map(|challenge| challenge.param("error"));
    if errors().any(|error| error == "invalid_request") {
        Why::InvalidRequest
    } else if errors().next().is_some() {
        Why::OtherError { status }
    } else if status != 401 {
        Why::NoRuleMatched { status }
    } else if no_challenge {
        Why::NoChallenge
    } else if for_tokens.is_empty() {
        Why::OtherScheme
    } else {
        Why::NoErrorNamed
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const INVALID_TOKEN: &str = "Bearer realm=\"api\", error=\"invalid_token\", error_description=\"expired, sorry\"";

    fn judge(rules: &[&str], status: u16, headers: &[&str], body: &str) -> Verdict {
        let evidence = Evidence { status, www_authenticate: headers.to_vec(), body: body.as_bytes() };
        Rules::parse(rules).unwrap().judge(&evidence)
    }

    /// `None` stands for a token rejection.
    fn why(rules: &[&str], status: u16, headers: &[&str], body: &str) -> Option<Why> {
        match judge(rules, status, headers, body) {
            Verdict::TokenRejected => None,
            Verdict::NotTokenRejected(why) => Some(why),
        }
    }

    fn wants(scope: &str) -> Option<Why> {
        Some(Why::InsufficientScope { scope: Some(scope.to_owned()) })
    }

    #[test]
    fn the_default_is_the_standard_and_nothing_else() {
        let other_error = |status| Some(Why::OtherError { status });
        for (status, headers, expected) in [
            (401, &[INVALID_TOKEN][..], None),
            (401, &["DPoP algs=\"ES256\", error=\"invalid_token\""], None),
            (401, &["bearer ERROR=invalid_token"], None),
            (401, &["Basic realm=\"x\"", "Negotiate YII=", INVALID_TOKEN], None),
            (401, &["Bearer realm=\"a, b\", error=\"invalid_token\", Basic realm=\"x\""], None),
            (401, &["Bearer, DPoP error=\"invalid_token\""], None),
            (403, &[INVALID_TOKEN], other_error(403)),
            (200, &[INVALID_TOKEN], other_error(200)),
            (401, &["Bearer error=\"expired_token\""], other_error(401)),
            (401, &["Bearer error=\"INVALID_TOKEN\""], other_error(401)),
            (400, &["Bearer error=\"invalid_request\""], Some(Why::InvalidRequest)),
            (401, &["Bearer realm=\"api\""], Some(Why::NoErrorNamed)),
            (401, &["Bearer realm=\"error=invalid_token\""], Some(Why::NoErrorNamed)),
            (401, &["Bearer realm=\"x\", Basic error=\"invalid_token\""], Some(Why::NoErrorNamed)),
            (401, &[], Some(Why::NoChallenge)),
            (401, &["Bearer error=\"invalid_token\", error=\"invalid_token\""], Some(Why::NoChallenge)),
            (401, &["Basic realm=\"x\""], Some(Why::OtherScheme)),
            (401, &["Negotiate, NTLM"], Some(Why::OtherScheme)),
            (401, &["Basic realm=\"x\", error=\"invalid_token\""], Some(Why::OtherScheme)),
            (403, &[], Some(Why::NoRuleMatched { status: 403 })),
            (500, &["Basic realm=\"x\""], Some(Why::NoRuleMatched { status: 500 })),
            (200, &["Negotiate oRQw="], Some(Why::NoRuleMatched { status: 200 })),
        ] {
            assert_eq!(why(&[], status, headers, "invalid_token"), expected, "{status} {headers:?}");
        }
    }

    #[test]
    fn no_rule_overrides_what_the_upstream_says_itself() {
        let rules = ["401", "403", "401 invalid_token", "403 body ~ ."];
        for (status, headers, expected) in [
            (401, &["Bearer error=\"insufficient_scope\""][..], Some(Why::InsufficientScope { scope: None })),
            (403, &["Bearer error=\"insufficient_scope\", scope=\"write read\""], wants("read write")),
            (403, &[INVALID_TOKEN, "DPoP error=insufficient_scope, scope=a"], wants("a")),
            (401, &["DPoP error=\"use_dpop_nonce\""], Some(Why::DpopNonceWanted)),
            (407, &[INVALID_TOKEN], Some(Why::ProxyAuthentication)),
            (401, &["Basic error=\"insufficient_scope\""], None),
            (403, &["Bearer error=\"other\", Basic error=\"use_dpop_nonce\""], None),
        ] {
            assert_eq!(why(&rules, status, headers, "x"), expected, "{status} {headers:?}");
        }
    }

    #[test]
    fn configured_rules_replace_the_default() {
        for (rules, status, headers, body, rejected) in [
            (&["500 body ~ INVALID_SESSION_ID"][..], 500, &[][..], "<c>INVALID_SESSION_ID</c>", true),
            (&["500 body ~ INVALID_SESSION_ID"], 500, &[], "broken", false),
            (&["500 body ~ INVALID_SESSION_ID"], 401, &[INVALID_TOKEN], "", false),
            (&["401 invalid_token", "500 body ~ X"], 401, &[INVALID_TOKEN], "", true),
            (&["401 invalid_token", "500 body ~ X"], 500, &[], "X", true),
            (&["401"], 401, &[], "{\"error\":\"unauthorized\"}", true),
            (&["401"], 401, &["Basic realm=\"x\""], "", true),
            (&["401"], 401, &["Bearer"], "", true),
            (&["401"], 403, &[INVALID_TOKEN], "", false),
            (&["401 body ~ expired"], 401, &["Negotiate"], "token expired", true),
            (&["400 expired_token"], 400, &["Bearer error=\"expired_token\""], "", true),
            (&["400 expired_token"], 400, &["Basic error=\"expired_token\""], "", false),
            (&["400 invalid_request"], 400, &["Bearer error=\"invalid_request\""], "", true),
            (&["200 body ~ \"code\":602"], 200, &[], "{\"code\":602}", true),
            (&["200 body ~ \"code\":602"], 200, &[], "{\"code\":0}", false),
        ] {
            assert_eq!(judge(rules, status, headers, body) == Verdict::TokenRejected, rejected, "{rules:?} {status}");
        }
    }

    #[test]
    fn the_beginning_of_a_body_is_enough() {
        let early = "x".repeat(BODY_LIMIT - 7) + "EXPIRED";
        assert_eq!(judge(&["200 body ~ EXPIRED"], 200, &[], &early), Verdict::TokenRejected);
        assert_ne!(judge(&["200 body ~ EXPIRED"], 200, &[], &format!("x{early}")), Verdict::TokenRejected);
    }

    #[test]
    fn the_rules_say_whether_they_read_bodies() {
        assert!(!Rules::default().reads_body());
        assert!(!Rules::parse(&["401"]).unwrap().reads_body());
        assert!(Rules::parse(&["401", "500 body ~ X"]).unwrap().reads_body());
    }

    #[test]
    fn a_wrong_rule_is_named_by_its_index() {
        assert_eq!(Rules::parse(&["401", "abc"]).err(), Some((1, RuleError::Status)));
        assert_eq!(Rules::parse(&["401"; 33]).err(), Some((32, RuleError::TooMany)));
        assert!(Rules::parse(&["401"; 32]).is_ok());
        for rule in ["407", "407 invalid_token", "403 insufficient_scope", "401 use_dpop_nonce"] {
            assert_eq!(Rules::parse(&["401", rule]).err(), Some((1, RuleError::NeverARejection)), "{rule}");
        }
    }

    #[test]
    fn people_are_told_why_in_one_line() {
        let text = |status, headers: &[&str]| why(&[], status, headers, "").unwrap().to_string();
        assert_eq!(
            text(403, &["Bearer error=insufficient_scope, scope=x"]),
            "the upstream wants the scope \"x\", a new token would not have it"
        );
        assert!(text(401, &[]).contains("`rejected_when = [\"401\"]`"), "the way out is named");
        let many: Vec<String> = (0..4000).map(|i| format!("a-rather-long-scope-{i}")).collect();
        let hostile = format!("Bearer error=insufficient_scope, scope=\"{}\"", many.join(" "));
        assert!((1000..1200).contains(&text(403, &[&hostile]).len()), "cut, but not away");
        let hostile = "Bearer error=insufficient_scope, scope=\"ok é <\\\"\\\\>\"";
        assert_eq!(why(&[], 403, &[hostile], ""), wants("ok"));
    }

    #[test]
    fn debug_shows_no_header_and_no_body() {
        let evidence = Evidence { status: 401, www_authenticate: vec!["Bearer canary"], body: b"canary" };
        assert!(!format!("{evidence:?}").contains("canary"));
    }

    proptest! {
        #[test]
        fn nothing_panics(status in any::<u16>(), header in any::<String>(), body in any::<Vec<u8>>()) {
            let rules = Rules::parse(&["401 invalid_token", "500 body ~ x"]).unwrap();
            rules.judge(&Evidence { status, www_authenticate: vec![&header], body: &body });
        }

        #[test]
        fn no_rule_text_panics(rule in "([0-9]{3} ?)?[a-z ~]{0,9}( ?body ?~ ?.{0,9})?") {
            let parsed = Rules::parse(&[rule]);
            prop_assert!(parsed.is_ok() || parsed.is_err_and(|(at, _)| at == 0));
        }
    }
}

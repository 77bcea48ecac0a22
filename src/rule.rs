//! One rule about an HTTP answer, as `rejected_when` and `refused_when` have them: `STATUS [ERROR_WORD] [body ~ REGEX]`.
//! Pure.
//!
//! | rule | an answer matches it that has |
//! |--|--|
//! | `401` | this status, whatever else it says |
//! | `401 invalid_token` | this status and this error word |
//! | `500 body ~ INVALID_SESSION_ID` | this status and a body in which the expression is found |
//! | `403 expired body ~ "code":602` | all three |
//!
//! - `STATUS` is 100 to 599. One below 400 needs more, or the rule would match every success.
//! - `ERROR_WORD` is compared byte for byte, because such values are case sensitive (RFC 6749 §1.9). An API says its error
//!   word in a challenge, a token endpoint in the member `error`. The word begins with a letter and has letters, digits,
//!   `_`, `-`, `.`, `:` and `/`; the word `body` always begins the next part.
//! - `REGEX` is the rest of the rule without the blanks around it, in the syntax of the `regex` crate. It is searched
//!   for, unanchored, in the beginning of the body, in linear time and bounded memory. A body is bytes.

use regex::bytes::{Regex, RegexBuilder};

/// The longest expression, in bytes.
const MAX_PATTERN: usize = 512;

/// The most memory, in bytes, that a compiled expression may take, and again the automaton made from it.
const MAX_COMPILED: usize = 1 << 20;

/// The most rules of one list.
pub const MAX_RULES: usize = 32;

/// What is wrong with a rule. The text says what would be right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// It does not start with a status.
    #[error("a rule starts with the answer's status, 100 to 599, as in \"401 invalid_token\"")]
    Status,
    /// What follows the status is neither an error word nor `body`.
    #[error("after the status comes an error word without quotes, or `body ~ REGEX`: \"401 invalid_token\"")]
    ErrorWord,
    /// Something else follows the error word.
    #[error("after the error word only `body ~ REGEX` can follow: \"403 expired body ~ SESSION\"; one rule, one word")]
    Trailing,
    /// `body` without `~` and an expression of a sensible length.
    #[error("after `body` come `~` and a regular expression of 1 to 512 bytes: \"500 body ~ INVALID_SESSION_ID\"")]
    Pattern,
    /// The expression does not compile; holds the reason.
    #[error("after `body ~` comes a regular expression in the syntax of Rust's regex crate; in this one: {0}")]
    Regex(String),
    /// The expression needs too much memory.
    #[error("the expression after `body ~` takes more than 1 MiB when compiled: use smaller repetitions")]
    TooLarge,
    /// The rule would match every success.
    #[error("a status below 400 needs an error word or a body pattern, or the rule would match every success")]
    EverySuccess,
    /// The rule can never match.
    #[error("407, insufficient_scope and use_dpop_nonce never mean a rejected token: leave this rule out")]
    NeverARejection,
    /// Too many rules.
    #[error("there are at most {MAX_RULES} rules")]
    TooMany,
}

/// One checked rule.
#[derive(Clone, Debug)]
pub struct Rule {
    status: u16,
    error: Option<Box<str>>,
    body: Option<Regex>,
}

impl Rule {
    /// A rule without a pattern for the body.
    pub fn of_word(status: u16, error: &str) -> Self {
        Self { status, error: Some(error.into()), body: None }
    }

    /// Reads a list of rules. An error comes with the index of its rule.
    pub fn parse_all<S: AsRef<str>>(rules: &[S]) -> Result<Vec<Self>, (usize, RuleError)> {
        if rules.len() > MAX_RULES {
            return Err((MAX_RULES, RuleError::TooMany));
        }
        let read = |(at, rule): (usize, &S)| Self::parse(rule.as_ref()).map_err(|error| (at, error));
        rules.iter().enumerate().map(read).collect()
    }

    /// Reads a rule.
    pub fn parse(text: &str) -> Result<Self, RuleError> {
        let (status, rest) = first_word(text.trim());
        let status = read_status(status)?;
        let (error, body) = if let Some(body) = body_part(rest) {
            (None, Some(body))
        } else {
            let (word, after) = first_word(rest);
            let body = body_part(after);
            if body.is_none() && !after.is_empty() {
                return Err(RuleError::Trailing);
            }
            (read_error_word(word)?, body)
        };
        if status < 400 && error.is_none() && body.is_none() {
            return Err(RuleError::EverySuccess);
        }
        Ok(Self { status, error, body: body.map(read_pattern).transpose()? })
    }

    /// Whether an answer matches; `says` tells whether the answer has an error word.
    pub fn matches(&self, status: u16, says: impl Fn(&str) -> bool, body: &[u8]) -> bool {
        self.status == status
            && self.error.as_deref().is_none_or(says)
            && self.body.as_ref().is_none_or(|regex| regex.is_match(body))
    }

    /// The status that an answer must have.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// The error word that an answer must have, if the rule names one.
    pub fn error_word(&self) -> Option<&str> {
        self.error.as_deref()
    }

    /// Whether the body is needed to judge an answer.
    pub fn reads_body(&self) -> bool {
        self.body.is_some()
    }
}

fn read_status(word: &str) -> Result<u16, RuleError> {
    let digits = word.len() == 3 && word.bytes().all(|byte| byte.is_ascii_digit());
    match word.parse() {
        Ok(status @ 100..=599) if digits => Ok(status),
        Ok(_) | Err(_) => Err(RuleError::Status),
    }
}

fn read_error_word(word: &str) -> Result<Option<Box<str>>, RuleError> {
    let first = word.bytes().next().is_none_or(|byte| byte.is_ascii_alphabetic());
    let rest = word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.:/".contains(&byte));
    match word {
        _ if !(first && rest) => Err(RuleError::ErrorWord),
        "" => Ok(None),
        word => Ok(Some(word.into())),
    }
}

/// What follows the word `body`, if this text begins with it.
fn body_part(text: &str) -> Option<&str> {
    let after = text.strip_prefix("body")?;
    (after.is_empty() || after.starts_with([' ', '\t', '~'])).then_some(after)
}

fn read_pattern(text: &str) -> Result<Regex, RuleError> {
    let pattern = text.trim_start().strip_prefix('~').ok_or(RuleError::Pattern)?.trim();
    if pattern.is_empty() || pattern.len() > MAX_PATTERN {
        return Err(RuleError::Pattern);
    }
    let built = RegexBuilder::new(pattern).size_limit(MAX_COMPILED).dfa_size_limit(MAX_COMPILED).nest_limit(32).build();
    built.map_err(|error| {
        let too_large = matches!(error, regex::Error::CompiledTooBig(_));
        if too_large { RuleError::TooLarge } else { RuleError::Regex(reason(&error.to_string())) }
    })
}

/// The last line of the crate's drawing of the mistake, which is the reason in words.
fn reason(drawing: &str) -> String {
    let last = drawing.lines().next_back().unwrap_or_default();
    last.trim_start_matches("error: ").to_owned()
}

fn first_word(text: &str) -> (&str, &str) {
    text.split_once([' ', '\t']).map_or((text, ""), |(word, rest)| (word, rest.trim_start()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether an answer with this error word matches; an empty one is none.
    fn matches(rule: &str, status: u16, word: &str, body: &[u8]) -> bool {
        Rule::parse(rule).unwrap().matches(status, |error| !word.is_empty() && error == word, body)
    }

    #[test]
    fn each_part_must_hold() {
        for (rule, status, word, body, expected) in [
            ("401", 401, "", "", true),
            ("401", 403, "", "", false),
            ("  401  ", 401, "", "", true),
            ("401 invalid_token", 401, "invalid_token", "", true),
            ("401 invalid_token", 401, "Invalid_Token", "", false),
            ("401 invalid_token", 400, "invalid_token", "", false),
            ("401 invalid_token", 401, "", "", false),
            ("400\texpired_token", 400, "expired_token", "", true),
            ("500 body ~ INVALID_SESSION_ID", 500, "", "<code>INVALID_SESSION_ID</code>", true),
            ("500 body ~ INVALID_SESSION_ID", 500, "", "INVALID_SESSION", false),
            ("500 body ~ INVALID_SESSION_ID", 401, "", "INVALID_SESSION_ID", false),
            ("200 body ~ \"code\":602", 200, "", "{\"code\":602}", true),
            ("500 body\t~\tX", 500, "", "X", true),
            ("200 body~a b", 200, "", "xa bx", true),
            ("200 body ~ ~", 200, "", "a~b", true),
            ("200 body ~ (?i)expired|revoked", 200, "", "Token REVOKED", true),
            ("403 expired body ~ x", 403, "expired", "x", true),
            ("403 expired body ~ x", 403, "expired", "y", false),
            ("403 expired body ~ x", 403, "other", "x", false),
            ("401 bodyless", 401, "bodyless", "", true),
        ] {
            assert_eq!(matches(rule, status, word, body.as_bytes()), expected, "{rule} / {status} {word} {body}");
        }
        assert!(matches(r"200 body ~ (?-u)\xff\x00expired", 200, "", b"\xff\x00expired"), "a body is bytes");
    }

    #[test]
    fn a_wrong_rule_is_refused() {
        for (rule, error) in [
            ("", RuleError::Status),
            ("invalid_token", RuleError::Status),
            ("99", RuleError::Status),
            ("099", RuleError::Status),
            ("600", RuleError::Status),
            ("+401", RuleError::Status),
            ("4011", RuleError::Status),
            ("401,403", RuleError::Status),
            ("401 403", RuleError::ErrorWord),
            ("401 error=\"invalid_token\"", RuleError::ErrorWord),
            ("401 \"invalid_token\"", RuleError::ErrorWord),
            ("401 invalid_token expired", RuleError::Trailing),
            ("500 ~ X", RuleError::Trailing),
            ("500 body", RuleError::Pattern),
            ("500 body X", RuleError::Pattern),
            ("500 body ~  ", RuleError::Pattern),
            ("500 word body", RuleError::Pattern),
            ("500 body ~ (", RuleError::Regex("unclosed group".to_owned())),
            ("500 body ~ \\w{100}", RuleError::TooLarge),
            ("200", RuleError::EverySuccess),
            ("302", RuleError::EverySuccess),
        ] {
            assert_eq!(Rule::parse(rule).err(), Some(error), "{rule}");
        }
        assert_eq!(Rule::parse(&format!("500 body ~ {}", "a".repeat(513))).err(), Some(RuleError::Pattern));
        assert!(Rule::parse(&format!("500 body ~ {}", "a".repeat(512))).is_ok());
    }

    #[test]
    fn only_a_body_pattern_needs_the_body() {
        for (rule, expected) in [("401", false), ("401 invalid_token", false), ("500 body ~ X", true)] {
            assert_eq!(Rule::parse(rule).unwrap().reads_body(), expected, "{rule}");
        }
    }
}

//! Cutting the token out of an answer: careless APIs echo requests in error pages and headers.

use super::UpstreamAnswer;
use crate::{secret::ExposeSecret, token::Token};

const REPLACEMENT: &str = "[redacted]";

/// A shorter secret would be found by chance.
const SHORTEST: usize = 6;

/// The answer without the token.
pub(super) fn answer(mut answer: UpstreamAnswer, token: &Token) -> UpstreamAnswer {
    let secret = token.value.expose_secret();
    if secret.len() < SHORTEST {
        return answer;
    }
    for (_, value) in &mut answer.headers {
        if value.contains(secret) {
            *value = value.replace(secret, REPLACEMENT);
        }
    }
    if let Some(clean) = without(&answer.body, secret.as_bytes()) {
        answer.body = clean.into();
    }
    answer
}

/// The text without the secret; `None` if it was not in there.
fn without(text: &[u8], secret: &[u8]) -> Option<Vec<u8>> {
    let finder = memchr::memmem::Finder::new(secret);
    let mut rest = text;
    let mut clean = Vec::new();
    let mut found = false;
    while let Some(at) = finder.find(rest) {
        found = true;
        let (before, after) = rest.split_at_checked(at)?;
        clean.extend_from_slice(before);
        clean.extend_from_slice(REPLACEMENT.as_bytes());
        rest = after.get(secret.len()..)?;
    }
    clean.extend_from_slice(rest);
    found.then_some(clean)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        name::Scopes,
        token::{Generation, TokenType},
    };

    #[test]
    fn the_token_is_cut_out_wherever_it_stands() {
        let token = Token {
            value: "tok-canary".into(),
            kind: TokenType::Bearer,
            generation: Generation::new(1),
            scopes: Scopes::default(),
            expiry: None,
        };
        let echoed = UpstreamAnswer {
            status: 200,
            headers: vec![("x-echo".into(), "Bearer tok-canary".into()), ("x".into(), "y".into())],
            body: "tok-canary, tok-canary and tok-canar".into(),
        };
        let clean = answer(echoed, &token);
        assert_eq!(clean.headers[0].1, "Bearer [redacted]");
        assert_eq!(clean.headers[1].1, "y");
        assert_eq!(clean.body, "[redacted], [redacted] and tok-canar");
    }
}

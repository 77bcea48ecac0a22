//! An upstream's answer that repeats its token: the first line is the token, the rest the body and a header.
#![no_main]

use bearerd::{
    name::Scopes,
    token::{Generation, Token, TokenType},
    upstream::{UpstreamAnswer, scrub::Scrubber},
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let at = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
    let (secret, body) = (&bytes[..at], bytes.get(at + 1..).unwrap_or_default());
    let Ok(secret) = std::str::from_utf8(secret) else { return };
    let fits = |byte| matches!(byte, 0x20..=0x7e);
    // A short or wordlike secret is cut out only where it is a whole value.
    if secret.len() < 20 || !secret.bytes().all(fits) || "[redacted]".contains(secret) {
        return;
    }
    for kind in [TokenType::Bearer, TokenType::Basic, TokenType::ApiKey { header: "x-api-key".to_owned() }] {
        let (generation, scopes) = (Generation::new(1), Scopes::default());
        let token = Token { value: secret.into(), kind, generation, scopes, expiry: None };
        let text = String::from_utf8_lossy(body).into_owned();
        let (headers, challenges) = (vec![("x".to_owned(), text.clone())], vec![text]);
        let echoed = body.to_vec().into();
        let answer = UpstreamAnswer { status: 200, headers, challenges, body: echoed, ..UpstreamAnswer::default() };
        let clean = Scrubber::of(&token).answer(answer);
        for text in [clean.headers[0].1.as_bytes(), clean.challenges[0].as_bytes(), &clean.body[..]] {
            // The replacement may complete a token that was made of its letters.
            if !secret.contains(['[', ']']) && !"redacted".contains(secret) {
                assert!(!text.windows(secret.len()).any(|window| window == secret.as_bytes()));
            }
        }
        if !clean.body.windows(10).any(|window| window == b"[redacted]") {
            assert_eq!(clean.body, body);
        }
    }
});

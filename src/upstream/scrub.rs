//! Cutting the token out of an answer: careless APIs echo requests in error pages, debug pages and headers.
//!
//! The token is looked for as it is and in the forms that such pages give it: base64, base32 and hexadecimal, each of these
//! escaped for a URL, for JSON or for HTML, spread over lines, or in UTF-16 or UTF-32. Bytes are searched, whatever the
//! answer says of its type and character set. Where the token is escaped several times over, the whole text is withheld.
//! An API that means to give the token away in some other form cannot be stopped; `base_url` decides whom to trust.

use std::sync::{Arc, Weak};

use bytes::Bytes;
use quick_cache::sync::Cache;

use super::UpstreamAnswer;
use crate::token::Token;

mod escape;
mod forms;

use self::{
    escape::Escape,
    forms::{Form, Forms},
};

const REPLACEMENT: &[u8] = b"[redacted]";

/// What takes the place of a field's name.
const NAME: &str = "redacted";

/// How many escapes inside of one another are looked into.
const NESTED: usize = 4;

/// How many comparisons a text may cost, for each of its bytes. An ordinary text costs fewer than two; one that costs
/// more was made for it, and is withheld.
const COMPARISONS: usize = 32;

/// How many tokens' scrubbers are kept: as many as may be in use at a time. Each takes a few kilobytes.
const KEPT: usize = 512;

/// Cuts one token out of answers.
pub struct Scrubber {
    forms: Forms,
}

/// The scrubbers of the tokens that were used last: to make one costs more than to use it a hundred times.
///
/// A token is known by its address. Nothing else can come to be there while its weak reference is kept.
pub struct Scrubbers {
    known: Cache<usize, (Weak<Token>, Arc<Scrubber>)>,
}

impl Default for Scrubbers {
    fn default() -> Self {
        Self { known: Cache::new(KEPT) }
    }
}

impl Scrubbers {
    /// The scrubber of this token.
    pub fn of(&self, token: &Arc<Token>) -> Arc<Scrubber> {
        let address = Arc::as_ptr(token).addr();
        if let Some((_, scrubber)) = self.known.get(&address) {
            return scrubber;
        }
        let scrubber = Arc::new(Scrubber::of(token));
        self.known.insert(address, (Arc::downgrade(token), Arc::clone(&scrubber)));
        scrubber
    }
}

impl Scrubber {
    /// Makes it.
    pub fn of(token: &Token) -> Self {
        Self { forms: Forms::of(token) }
    }

    /// Whether a text holds the token.
    pub(super) fn finds(&self, text: &[u8]) -> bool {
        without(text, &self.forms).is_some()
    }

    /// The answer without the token, in all of its texts.
    pub fn answer(&self, mut answer: UpstreamAnswer) -> UpstreamAnswer {
        for (name, _) in answer.headers.iter_mut().chain(&mut answer.trailers) {
            if self.forms.iter().any(|form| form.is_in_name(name)) {
                NAME.clone_into(name);
            }
        }
        let fields = answer.headers.iter_mut().chain(&mut answer.trailers);
        for text in fields.map(|(_, value)| value).chain(&mut answer.challenges) {
            if let Some(clean) = without(text.as_bytes(), &self.forms) {
                *text = String::from_utf8_lossy(&clean).into_owned();
            }
        }
        if let Some(clean) = without(&answer.body, &self.forms) {
            answer.body = clean.into();
        }
        answer
    }
}

/// What takes the place of a body that cannot be given in part.
pub(super) fn withheld() -> Bytes {
    Bytes::from_static(REPLACEMENT)
}

/// The text without any form of the secret; `None` if none was in there.
fn without(text: &[u8], forms: &Forms) -> Option<Vec<u8>> {
    let mut clean = cut(text, &plain(text, forms));
    for escape in Escape::ALL {
        let text = clean.as_deref().unwrap_or(text);
        if escape.occurs_in(text) {
            let places = escaped(text, forms, escape);
            clean = places.map_or_else(|| Some(REPLACEMENT.to_vec()), |places| cut(text, &places)).or(clean);
        }
    }
    if is_nested_in(clean.as_deref().unwrap_or(text), forms) { Some(REPLACEMENT.to_vec()) } else { clean }
}

/// Whether a form is escaped several times over, or in several ways.
fn is_nested_in(text: &[u8], forms: &Forms) -> bool {
    let mut decoded: Option<Vec<u8>> = None;
    for _ in 0..NESTED {
        let text = decoded.as_deref().unwrap_or(text);
        if !Escape::ALL.iter().any(|escape| escape.occurs_in(text)) {
            return false;
        }
        let plainer = Escape::all_undone(text);
        if !plain(&plainer, forms).is_empty() {
            return true;
        }
        if plainer.len() == text.len() {
            return false;
        }
        decoded = Some(plainer);
    }
    false
}

/// Where something begins, and how long it is.
type Place = (usize, usize);

/// Where the forms stand as they are.
fn plain(text: &[u8], forms: &Forms) -> Vec<Place> {
    let mut places: Vec<Place> = Vec::new();
    for form in forms.iter() {
        let found = form.places_in(text).map(|at| (at, form.text().len()));
        places.extend(found.filter(|place| may_cut(form, text, *place)));
    }
    places.sort_unstable();
    places
}

/// Where the forms stand escaped, in order; `None` if that costs too much to find out.
fn escaped(text: &[u8], forms: &Forms, escape: Escape) -> Option<Vec<Place>> {
    let mut places = Vec::new();
    let mut left = text.len().saturating_mul(COMPARISONS).saturating_add(64 * 1024);
    let mut at = 0;
    while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
        let (first, _) = escape.read(rest);
        let mut longest = 0;
        for form in forms.beginning_with(first).into_iter().flatten() {
            let (compared, length) = matches(rest, form.text(), escape);
            left = left.checked_sub(compared)?;
            let found = length.filter(|length| may_cut(form, text, (at, *length)));
            longest = longest.max(found.unwrap_or(0));
        }
        if longest > 0 {
            places.push((at, longest));
        }
        at += longest.max(1);
    }
    Some(places)
}

/// How many bytes were compared, and how many bytes of the text are the form, if they are.
fn matches(text: &[u8], form: &[u8], escape: Escape) -> (usize, Option<usize>) {
    let mut rest = text;
    for (compared, wanted) in form.iter().enumerate() {
        let (byte, length) = escape.read(rest);
        match rest.get(length..) {
            Some(behind) if length > 0 && escape.is_same(byte, *wanted) => rest = behind,
            Some(_) | None => return (compared + 1, None),
        }
    }
    (form.len(), Some(text.len() - rest.len()))
}

/// Whether a form that was found is the secret, and not only the same word.
fn may_cut(form: &Form, text: &[u8], (at, length): Place) -> bool {
    if !form.is_word {
        return true;
    }
    let (before, after) = (text.get(..at).unwrap_or_default(), text.get(at + length..).unwrap_or_default());
    let begins = matches!(before.last(), None | Some(b'"' | b'\'' | b'=' | b':' | b'>' | b';'));
    let ends = matches!(after.first(), None | Some(b'"' | b'\'' | b'&' | b'<' | b';' | b',' | b'\\' | b'\r' | b'\n'));
    // The name of a member is no value.
    let behind = after.trim_ascii_start();
    let behind = behind.strip_prefix(b"\\").unwrap_or(behind);
    let is_name = matches!(behind, [b'"' | b'\'', rest @ ..] if rest.trim_ascii_start().first() == Some(&b':'));
    begins && ends && !is_name
}

/// The text with these places, which are in order and may overlap, replaced; `None` if there are none.
fn cut(text: &[u8], places: &[Place]) -> Option<Vec<u8>> {
    let mut clean = Vec::new();
    let mut end = 0;
    for (at, length) in places {
        if *at >= end {
            clean.extend_from_slice(text.get(end..*at)?);
            clean.extend(replacement(text.get(*at..at + length)?));
        }
        end = end.max(at + length);
    }
    clean.extend_from_slice(text.get(end..)?);
    (!places.is_empty()).then_some(clean)
}

/// The replacement, in UTF-16 or UTF-32 where the text is, so that what follows stays readable.
fn replacement(place: &[u8]) -> Vec<u8> {
    let zeros = |text: &[u8]| text.iter().take_while(|byte| **byte == 0).count();
    let between = zeros(place.get(1..).unwrap_or_default());
    let last = place.iter().rev().take_while(|byte| **byte == 0).count();
    let mut wide: Vec<u8> =
        REPLACEMENT.iter().flat_map(|byte| std::iter::once(*byte).chain(std::iter::repeat_n(0, between))).collect();
    wide.truncate(wide.len() - between + last.min(between));
    wide
}

#[cfg(test)]
mod tests {
    use base64::{
        Engine,
        engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
    };
    use proptest::prelude::*;

    use super::*;
    use crate::{
        name::Scopes,
        token::{Generation, TokenType},
    };

    fn token(value: &str, kind: TokenType) -> Token {
        let (generation, scopes) = (Generation::new(1), Scopes::default());
        Token { value: value.into(), kind, generation, scopes, expiry: None }
    }

    fn scrubbed(token: &Token, text: &[u8]) -> Vec<u8> {
        without(text, &Forms::of(token)).unwrap_or_else(|| text.to_vec())
    }

    #[track_caller]
    fn gone(token: &Token, text: &str, expected: &str) {
        assert_eq!(String::from_utf8_lossy(&scrubbed(token, text.as_bytes())), expected, "{text}");
    }

    #[test]
    fn e011_the_token_is_cut_out_of_headers_challenges_and_body() {
        let echoed = UpstreamAnswer {
            status: 200,
            headers: vec![("x-echo".into(), "Bearer tok-canary".into()), ("x".into(), "y".into())],
            challenges: vec!["Bearer realm=\"tok-canary\"".into()],
            body: "tok-canary, tok-canary and tok-canar".into(),
            ..UpstreamAnswer::default()
        };
        let clean = Scrubber::of(&token("tok-canary", TokenType::Bearer)).answer(echoed);
        assert_eq!(clean.headers[0].1, "Bearer [redacted]");
        assert_eq!(clean.headers[1].1, "y");
        assert_eq!(clean.challenges, ["Bearer realm=\"[redacted]\""]);
        assert_eq!(clean.body, "[redacted], [redacted] and tok-canar");
    }

    #[test]
    fn each_token_has_a_scrubber_of_its_own_which_is_made_once() {
        let scrubbers = Scrubbers::default();
        let bearer = |value: &str| Arc::new(token(value, TokenType::Bearer));
        let said = |token: &Arc<Token>, text: &str| without(text.as_bytes(), &scrubbers.of(token).forms);
        let first = bearer("tok-first");
        assert!(Arc::ptr_eq(&scrubbers.of(&first), &scrubbers.of(&first)));
        drop(first);
        // What is freed may be given to the next one, so a token of a hundred would have the scrubber of another.
        for number in 0..100 {
            let (token, name) = (bearer(&format!("tok-{number:03}")), format!("tok-{number:03}"));
            assert_eq!(said(&token, &name).as_deref(), Some(REPLACEMENT), "{name}");
            assert_eq!(said(&token, "tok-first"), None);
        }
    }

    #[test]
    fn e011_escaped_forms_are_cut_out() {
        let bearer = token("ya29/a+b=c~d", TokenType::Bearer);
        for text in [
            "ya29/a+b=c~d",
            // For a URL: with either case of letters, and more or less of it escaped.
            "ya29%2Fa%2Bb%3Dc~d",
            "ya29%2fa%2bb%3dc%7ed",
            "%79%61%32%39%2F%61%2B%62%3D%63%7E%64",
            // For JSON.
            "ya29\\/a+b=c~d",
            "ya29/a\\u002Bb\\u003dc~d",
            "\\u0079a29/a+b=c~d",
            // For HTML.
            "ya29&#x2F;a&#43;b&#61;c~d",
            "ya29&#47;a&plus;b&equals;c~d",
            // In hexadecimal.
            "796132392f612b623d637e64",
            "796132392F612B623D637E64",
        ] {
            gone(&bearer, &format!("<{text}>"), "<[redacted]>");
        }
        let key = token("Token \"a&b'<c>\" x", TokenType::ApiKey { header: "x-key".to_owned() });
        for text in [
            "Token+%22a%26b%27%3Cc%3E%22+x",
            "Token%20\"a&b'%3cc%3e\"%20x",
            "Token \\\"a\\u0026b'\\u003cc\\u003e\\\" x",
            "Token &quot;a&amp;b&#39;&lt;c&gt;&quot; x",
            "Token &#34;a&AMP;b&apos;&lt;c&gt;&#x22; x",
        ] {
            gone(&key, text, "[redacted]");
        }
    }

    #[test]
    fn e011_base64_is_found_at_every_alignment() {
        let bearer = token("tok-canary-0123456789", TokenType::Bearer);
        for before in ["", "a", "ab", "Bearer ", "{\"authorization\":\"Bearer "] {
            for after in ["", "\"", "\"}", "..."] {
                let text = format!("{before}tok-canary-0123456789{after}");
                for coded in [STANDARD.encode(&text), URL_SAFE_NO_PAD.encode(&text)] {
                    let clean = scrubbed(&bearer, coded.as_bytes());
                    assert!(clean.windows(10).any(|window| window == REPLACEMENT), "{text}");
                    // What is left of it, at either end, are fewer than six bits.
                    assert!(clean.len() <= coded.len() - 26 + REPLACEMENT.len(), "{text}");
                }
            }
        }
    }

    #[test]
    fn e011_a_password_is_cut_out_of_basic_credentials() {
        let basic = token(&STANDARD.encode("user:open?sesame"), TokenType::Basic);
        gone(&basic, "Basic dXNlcjpvcGVuP3Nlc2FtZQ==", "Basic [redacted]");
        gone(&basic, "user \"user\", password \"open?sesame\"", "user \"user\", password \"[redacted]\"");
        gone(&basic, "open%3Fsesame", "[redacted]");
        let key = token("Token abcdef0123456789", TokenType::ApiKey { header: "authorization".to_owned() });
        gone(&key, "invalid token abcdef0123456789", "invalid token [redacted]");
    }

    /// S11.
    #[test]
    fn e011_a_token_is_found_in_wide_characters_and_across_lines() {
        let bearer = token("tok-canary-0123456789", TokenType::Bearer);
        let text = "{\"a\":\"tok-canary-0123456789\"}";
        let clean = "{\"a\":\"[redacted]\"}";
        for (width, big) in [(2, false), (2, true), (4, false), (4, true)] {
            let wide = |text: &str| -> Vec<u8> {
                let zeros = std::iter::repeat_n(0, width - 1).collect::<Vec<u8>>();
                let unit = |byte| if big { [&zeros[..], &[byte]].concat() } else { [&[byte], &zeros[..]].concat() };
                text.bytes().flat_map(unit).collect()
            };
            assert_eq!(scrubbed(&bearer, &wide(text)), wide(clean), "{width} {big}");
            // At the end of a text, too.
            assert_eq!(scrubbed(&bearer, &wide("tok-canary-0123456789")), wide("[redacted]"), "{width} {big}");
        }
        let base64 = STANDARD.encode("Authorization: Bearer tok-canary-0123456789 and so on");
        let lines: Vec<&str> = base64.as_bytes().chunks(16).map(|line| str::from_utf8(line).unwrap()).collect();
        for end in ["\n", "\r\n", "\\n"] {
            let clean = scrubbed(&bearer, lines.join(end).as_bytes());
            assert!(clean.windows(10).any(|window| window == REPLACEMENT), "{end:?}");
        }
        gone(&bearer, "tok-canary-0123\r\n456789", "[redacted]");
    }

    /// S11.
    #[test]
    fn e011_base32_is_found_at_every_alignment() {
        let bearer = token("tok-canary-0123456789", TokenType::Bearer);
        for text in [
            "ORXWWLLDMFXGC4TZFUYDCMRTGQ2TMNZYHE======",
            "MF2G62ZNMNQW4YLSPEWTAMJSGM2DKNRXHA4SAYQ=",
            "orxwwlldmfxgc4tzfuydcmrtgq2tmnzyhe",
        ] {
            assert!(scrubbed(&bearer, text.as_bytes()).windows(10).any(|window| window == REPLACEMENT), "{text}");
        }
    }

    /// S11.
    #[test]
    fn e011_a_text_with_nested_escapes_is_withheld() {
        let bearer = token("ya29/a+b=c~d", TokenType::Bearer);
        for text in [
            // A URL in a URL, JSON in JSON, a URL in JSON in HTML.
            "x?u=ya29%252Fa%252Bb%253Dc~d",
            "%25252579a29%2525252Fa%2525252Bb=c~d",
            "{\"body\":\"{\\\"t\\\":\\\"ya29\\\\/a+b=c~d\\\"}\"}",
            "ya29\\\\u002fa+b=c~d",
            "ya29&amp;#x2F;a&amp;#43;b=c~d",
            "ya29&#37;2Fa\\u00252Bb=c~d",
        ] {
            gone(&bearer, text, "[redacted]");
        }
        gone(&bearer, "100%25 \\u0041 &amp;amp; %252F", "100%25 \\u0041 &amp;amp; %252F");
    }

    /// S11.
    #[test]
    fn e011_names_of_fields_and_trailers_are_searched() {
        let bearer = token("Tok-Canary-0123", TokenType::Bearer);
        let field = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let answer = UpstreamAnswer {
            headers: vec![field("x-tok-canary-0123", "1"), field("etag", "2")],
            trailers: vec![field("546f6b2d43616e6172792d30313233", "3"), field("x-t", "Tok-Canary-0123")],
            ..UpstreamAnswer::default()
        };
        let clean = Scrubber::of(&bearer).answer(answer);
        assert_eq!(clean.headers, [field("redacted", "1"), field("etag", "2")]);
        assert_eq!(clean.trailers, [field("redacted", "3"), field("x-t", "[redacted]")]);
    }

    /// C-K17, row 34.
    #[test]
    fn a_wordlike_secret_is_cut_out_only_where_it_is_a_whole_value() {
        let basic = token(&STANDARD.encode("user:password"), TokenType::Basic);
        let text = "{\"password_policy\": \"password must be long\", \"password\": true, \"passwords\": 1}";
        gone(&basic, text, text);
        for (text, clean) in [
            ("{\"secret\":\"password\"}", "{\"secret\":\"[redacted]\"}"),
            ("user=user&pass=password&x=1", "user=user&pass=[redacted]&x=1"),
            ("<p>password</p>", "<p>[redacted]</p>"),
            ("password", "[redacted]"),
            ("{\\\"secret\\\":\\\"password\\\"}", "{\\\"secret\\\":\\\"[redacted]\\\"}"),
            ("70617373776f7264", "[redacted]"),
        ] {
            gone(&basic, text, clean);
        }
        for (secret, word) in [
            ("Summer2024", true),
            ("changeme", true),
            ("x7$kq2!", true),
            ("abcdef0123456789", false),
            ("open?sesame", false),
            ("camelCaseSecret", false),
            ("AKIAIOSFODNN7EXAMPLE", false),
        ] {
            let text = format!("a {secret} b");
            let expected = if word { text.as_str() } else { "a [redacted] b" };
            gone(&token(secret, TokenType::Bearer), &text, expected);
        }
    }

    #[test]
    fn a_short_secret_is_not_looked_for() {
        gone(&token("abcde", TokenType::Bearer), "abcde", "abcde");
    }

    #[test]
    fn e011_a_text_that_was_made_to_be_expensive_is_withheld() {
        let secret = "a".repeat(4000);
        let text = format!("%{}", "a".repeat(3999).repeat(100).replacen('a', "b", 1));
        let text = text.replace(&"a".repeat(3999), &format!("{}b", "a".repeat(3998)));
        let clean = scrubbed(&token(&secret, TokenType::Bearer), text.as_bytes());
        assert_eq!(clean, REPLACEMENT);
    }

    proptest! {
        #[test]
        fn nothing_else_is_touched(before in "[ -~]{0,40}", after in "[ -~]{0,40}") {
            let bearer = token("tok\u{1}canary", TokenType::Bearer);
            prop_assert_eq!(scrubbed(&bearer, before.as_bytes()), before.as_bytes());
            let text = format!("{before}tok\u{1}canary{after}");
            let expected = format!("{before}[redacted]{after}");
            prop_assert_eq!(scrubbed(&bearer, text.as_bytes()), expected.as_bytes());
        }

        #[test]
        fn no_form_of_a_token_stays(secret in "[!-~]{8,60}", before in ".{0,20}", after in ".{0,20}", form in 0_usize..6) {
            let bearer = token(&secret, TokenType::Bearer);
            let coded = match form {
                0 => secret.clone(),
                1 => secret.bytes().map(|byte| format!("%{byte:02X}")).collect(),
                2 => serde_json::to_string(&secret).unwrap().strip_prefix('"').unwrap().strip_suffix('"').unwrap().to_owned(),
                3 => url::form_urlencoded::byte_serialize(secret.as_bytes()).collect(),
                4 => secret.bytes().map(|byte| format!("&#{byte};")).collect(),
                _ => secret.bytes().map(|byte| format!("\\u{:04x}", u16::from(byte))).collect(),
            };
            let clean = scrubbed(&bearer, format!("{before} {coded} {after}").as_bytes());
            prop_assert!(!clean.windows(coded.len()).any(|window| window == coded.as_bytes()));
            prop_assert!(clean.windows(REPLACEMENT.len()).any(|window| window == REPLACEMENT));
        }
    }
}

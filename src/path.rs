//! Whether a text is a path, with or without a query, that means the same to everybody who reads it. Pure.
//!
//! Between bearerd and the handler that answers stand proxies, servers and frameworks, and some decode a path once more
//! than the others. What they would disagree about is refused: separators, dots and control characters in any disguise.

use std::borrow::Cow;

/// The longest path with its query, in bytes.
const LONGEST: usize = 8 * 1024;

/// How often a server and what stands before it may decode a path; one that would still change then is refused.
const DECODINGS: usize = 3;

/// Characters that a URL holds only encoded, though parsers take some of them (RFC 3986 §2).
const MUST_BE_ENCODED: [char; 8] = ['\\', '#', '<', '>', '"', '`', '{', '}'];

/// One more in a query: URL parsers encode it there (WHATWG URL, special-query percent-encode set).
const QUOTE: char = '\'';

/// Checks a path.
///
/// # Errors
///
/// A few words on what is wrong with it.
pub fn check(path: &str) -> Result<(), Cow<'static, str>> {
    if path.len() > LONGEST {
        return Err("longer than 8 KiB".into());
    }
    let (plain, query) = path.split_once('?').unwrap_or((path, ""));
    if !plain.starts_with('/') {
        return Err("has to begin with \"/\"".into());
    }
    let unencoded = path.chars().find(|character| !may_stand(*character));
    if let Some(character) = unencoded.or_else(|| query.chars().find(|character| *character == QUOTE)) {
        return Err(must_be_encoded(character).into());
    }
    if plain.split('%').skip(1).any(|after| hex(after.as_bytes()).is_none()) {
        return Err("has a \"%\" without two hexadecimal digits behind it".into());
    }
    let mut text = plain.as_bytes().to_vec();
    for _ in 0..=DECODINGS {
        judge(plain, &text)?;
        let decoded = decode(&text);
        if decoded == text {
            return Ok(());
        }
        text = decoded;
    }
    Err("has a character that is percent-encoded again and again".into())
}

/// Whether it has only characters that a URL may hold, in a path or a query.
pub fn is_encoded(path: &str) -> bool {
    path.chars().all(may_stand)
}

fn may_stand(character: char) -> bool {
    matches!(character, '\x21'..='\x7e') && !MUST_BE_ENCODED.contains(&character)
}

/// Which character, and how it is written.
fn must_be_encoded(character: char) -> String {
    let mut utf8 = [0; 4];
    let encoded: String = character.encode_utf8(&mut utf8).bytes().map(|byte| format!("%{byte:02X}")).collect();
    format!("has the character {character:?}, which must be written {encoded}")
}

/// Judges a path as those see it who have decoded it, so often or not at all.
fn judge(plain: &str, text: &[u8]) -> Result<(), &'static str> {
    if text.windows(2).any(|pair| pair == b"//") || text.split(|byte| *byte == b'/').any(is_dots) {
        return Err("has an empty or dot segment");
    }
    if hides_a_separator(plain, text) {
        return Err("has an encoded separator or control character");
    }
    if is_overlong(text) {
        return Err("has a character in a form that UTF-8 does not allow");
    }
    Ok(())
}

/// Decodes percent signs once (RFC 3986 §2.1). What became a sign by an earlier decoding and is no escape stays.
fn decode(text: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, after @ ..] = rest {
        let escaped = hex(after).filter(|_| *first == b'%');
        decoded.push(escaped.unwrap_or(*first));
        rest = if escaped.is_some() { after.get(2..).unwrap_or_default() } else { after };
    }
    decoded
}

/// A path as a server reads it that decodes it as often as any, and has no regard to case.
pub fn decoded(path: &str) -> Vec<u8> {
    let decoded = (0..DECODINGS).fold(path.as_bytes().to_vec(), |text, _| decode(&text));
    decoded.to_ascii_lowercase()
}

fn hex(text: &[u8]) -> Option<u8> {
    let [high, low, ..] = text else { return None };
    let digit = |byte: &u8| char::from(*byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    Some(digit(high)? << 4 | digit(low)?)
}

/// `.` and `..`, also with parameters behind (`..;x`), which some servers cut off before they look, or with spaces.
fn is_dots(segment: &[u8]) -> bool {
    let name = segment.split(|byte| *byte == b';').next().unwrap_or_default();
    matches!(name.trim_ascii(), b"." | b"..")
}

/// Separators stand in a path as they are or not at all, and control characters never do.
fn hides_a_separator(plain: &str, decoded: &[u8]) -> bool {
    let slashes = |text: &[u8]| text.iter().filter(|byte| **byte == b'/').count();
    slashes(plain.as_bytes()) != slashes(decoded)
        || decoded.iter().any(|byte| *byte == b'\\' || byte.is_ascii_control())
}

/// A longer form than needed (RFC 3629 §3), which careless decoders take for `/` and `.` all the same.
fn is_overlong(decoded: &[u8]) -> bool {
    decoded
        .windows(2)
        .any(|pair| matches!(pair, [0xc0 | 0xc1, 0x80..=0xbf] | [0xe0, 0x80..=0x9f] | [0xf0, 0x80..=0x8f]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refused(paths: &[&str]) {
        for path in paths {
            assert!(check(path).is_err(), "{path:?}");
        }
    }

    #[test]
    fn e003_a_path_that_would_be_another_host_is_refused() {
        refused(&["", "users", "//evil.example", "/\\evil.example", "\\\\evil.example", " https://evil.example"]);
        refused(&[
            "https://evil.example/",
            "http:evil.example",
            "\t//evil.example",
            "/\t/evil.example",
            "/\n/evil.example",
        ]);
        refused(&["*", "?x", "evil.example:443", "/a//b", "//", "/\u{2f}\u{2f}", "/ä", "/\u{2215}evil"]);
    }

    #[test]
    fn e004_a_path_that_would_leave_the_prefix_is_refused() {
        refused(&["/..", "/.", "/../admin", "/a/../../admin", "/./a", "/a/.", "/a/..?x"]);
        refused(&["/%2e%2e/admin", "/.%2E/admin", "/%2e./admin", "/%2e/a", "/a/%2E%2e"]);
        refused(&["/..%2fadmin", "/a%2Fb", "/a%5cb", "/a%5C..%5Cb", "/a%00", "/a%0d%0aX:%20y", "/a%7f", "/%09"]);
        // For whoever decodes twice, or three times.
        refused(&["/%252e%252e/admin", "/%25252e%25252E/", "/..%252fadmin", "/a%255cb", "/a%2500", "/%25%32%65/"]);
        refused(&["/%2525252525252e./x", "/%25%32%35%32%65./x", "/a%25252525"]);
        // For whoever cuts off parameters, or spaces.
        refused(&["/..;/admin", "/..;a=b/admin", "/%2e%2e;/x", "/..%3b/x", "/..%20/x", "/%20../x"]);
        // For whoever takes overlong forms.
        refused(&["/%c0%ae%c0%ae/admin", "/%c0%afadmin", "/%e0%80%af", "/%f0%80%80%af", "/%C1%9C"]);
        // No escapes at all.
        refused(&["/%", "/%2", "/%zz", "/%u002f", "/a%2"]);
    }

    #[test]
    fn e005_what_looks_like_an_authority_stays_out_of_it() {
        // Behind a base_url these are but strange names of resources; `target` shows that they stay that.
        for path in ["/@evil.example/", "/:443@evil.example", "/:@/"] {
            assert_eq!(check(path), Ok(()), "{path}");
        }
        refused(&[
            "@evil.example/",
            ":443@evil.example",
            ".evil.example/",
            "#@evil.example/",
            "/a#b",
            "%2eevil.example",
        ]);
    }

    /// "What surprised a user" 7.
    #[test]
    fn the_character_that_must_be_encoded_is_named_with_its_escape() {
        for (path, named) in [
            ("/a b", "' ', which must be written %20"),
            ("/{id}", "'{', which must be written %7B"),
            ("/a?q=\"x\"", "'\"', which must be written %22"),
            ("/ä", "'ä', which must be written %C3%A4"),
            ("/a\u{1b}[", "'\\u{1b}', which must be written %1B"),
            ("/a?name='x'", "'\\'', which must be written %27"),
        ] {
            let problem = check(path).unwrap_err();
            assert!(problem.contains(named), "{path:?}: {problem}");
        }
    }

    #[test]
    fn ordinary_paths_pass() {
        for path in [
            "/",
            "/a",
            "/a/",
            "/a.b/..c/d..",
            "/a%20b",
            "/a;v=1",
            "/%E2%82%AC",
            "/a%2525",
            "/~x/-_",
            "/a?b=//../%2f%0a",
            "/Products('7')",
        ] {
            assert_eq!(check(path), Ok(()), "{path}");
        }
        assert_eq!(check(&format!("/{}", "a".repeat(LONGEST - 1))), Ok(()));
        assert!(check(&format!("/{}", "a".repeat(LONGEST))).is_err());
    }
}

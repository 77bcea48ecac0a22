//! The provider's own words about a failure, fit for operators: short, in printable characters and without a secret.

use http::{HeaderMap, header::LOCATION};
use url::Url;

use super::{Reading, body::Members};
use crate::{
    failure::ProviderReport,
    secret::{ExposeSecret, SecretString},
};

/// The most characters of an error code.
const LONGEST_ERROR: usize = 64;

/// The most characters of a description, of a path and of a problem.
const LONGEST_TEXT: usize = 256;

/// How much of a text is looked at, in characters.
const LOOKED_AT: usize = 4_096;

/// Stands where a secret was.
const CUT: &str = "[redacted]";

/// A part of a secret that is not shorter is cut out as well.
const SHORTEST_PART: usize = 8;

/// A run of letters and digits that is not shorter may be a token of some kind.
const SHORTEST_TOKEN: usize = 20;

/// Members that hold secrets, whatever else is wrong with an answer.
const SECRET_MEMBERS: [&str; 5] = ["access_token", "refresh_token", "id_token", "client_secret", "device_code"];

/// What an answer says for itself.
pub(super) fn report(
    reading: &Reading,
    status: u16,
    headers: &HeaderMap,
    members: &Members,
    problem: Option<String>,
) -> ProviderReport {
    let own = SECRET_MEMBERS.iter().filter_map(|name| members.text(name)).map(SecretString::from);
    let secrets: Vec<SecretString> = own.chain(reading.secrets.iter().cloned()).collect();
    let say = |text: &str, longest| shown(text, &secrets, longest);
    ProviderReport {
        endpoint: reading.endpoint.clone(),
        status: Some(status),
        error: members.error_text().map(|text| say(text, LONGEST_ERROR)),
        description: members.description().map(|text| say(&text, LONGEST_TEXT)),
        location: location(reading, headers).filter(|_| (300..400).contains(&status)).map(|l| say(&l, LONGEST_TEXT)),
        problem,
    }
}

/// Host and path of a URL: its query and its user can hold secrets.
pub fn place(url: &Url) -> String {
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    bounded(&format!("{}{port}{}", url.host_str().unwrap_or_default(), url.path()), LONGEST_TEXT)
}

/// Where a redirect leads, with its scheme where that differs.
fn location(reading: &Reading, headers: &HeaderMap) -> Option<String> {
    let text = headers.get(LOCATION)?.to_str().ok()?;
    let base = reading.url.as_ref()?;
    let url = base.join(text).ok()?;
    let scheme = if url.scheme() == base.scheme() { String::new() } else { format!("{}://", url.scheme()) };
    Some(format!("{scheme}{}", place(&url)))
}

/// A text as people may see it.
fn shown(text: &str, secrets: &[SecretString], longest: usize) -> String {
    let beginning: String = text.chars().take(LOOKED_AT).collect();
    bounded(&without_tokens(&without(&beginning, secrets), secrets), longest)
}

/// Cuts out each secret as it is.
fn without(text: &str, secrets: &[SecretString]) -> String {
    let whole = secrets.iter().map(ExposeSecret::expose_secret).filter(|secret| secret.chars().count() >= 4);
    whole.fold(text.to_owned(), |text, secret| text.replace(secret, CUT))
}

/// Cuts out what is part of a secret, and what looks like a token.
fn without_tokens(text: &str, secrets: &[SecretString]) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut run = String::new();
    for character in text.chars() {
        if is_of_token(character) {
            run.push(character);
            continue;
        }
        keep(&mut kept, &run, secrets);
        run.clear();
        kept.push(character);
    }
    keep(&mut kept, &run, secrets);
    kept
}

fn is_of_token(character: char) -> bool {
    character.is_ascii_alphanumeric() || "-_.~+/=%!|".contains(character)
}

fn keep(kept: &mut String, run: &str, secrets: &[SecretString]) {
    let is_part = run.len() >= SHORTEST_PART && secrets.iter().any(|secret| secret.expose_secret().contains(run));
    kept.push_str(if is_part || looks_like_token(run) { CUT } else { run });
}

/// Long, and of letters and digits mixed as no word is. An identifier in the form of a UUID names a request, and the
/// provider's support asks for it.
fn looks_like_token(run: &str) -> bool {
    let core = run.trim_end_matches(['.', '!', '=']);
    let digits = core.bytes().filter(u8::is_ascii_digit).count();
    let is_uuid = core.len() == 36 && core.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
    let capitals_inside = core.bytes().skip(1).filter(u8::is_ascii_uppercase).count();
    core.len() >= SHORTEST_TOKEN && !is_uuid && (digits >= 2 || (capitals_inside >= 4 && !core.contains(['_', '.'])))
}

/// At most this many characters, in one line, without characters that a terminal acts upon or that hide others.
fn bounded(text: &str, longest: usize) -> String {
    let mut shown = String::new();
    for (number, character) in text.chars().enumerate() {
        if number == longest {
            shown.push('…');
            break;
        }
        if character.is_control() || is_invisible(character) {
            shown.extend(character.escape_unicode());
        } else {
            shown.push(character);
        }
    }
    shown
}

/// Characters that change the direction of a text, or take no place in it.
fn is_invisible(character: char) -> bool {
    matches!(character, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
        | '\u{feff}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secrets() -> Vec<SecretString> {
        ["rt/secret value", "s3cr", "0123456789abcdefghij"].map(SecretString::from).into()
    }

    #[test]
    fn a_secret_that_the_provider_repeats_is_cut_out() {
        for (text, expected) in [
            ("unknown token rt/secret value here", "unknown token [redacted] here"),
            ("bad secret s3cr", "bad secret [redacted]"),
            // Only a part of it.
            ("token 0123456789abc… is unknown", "token [redacted]… is unknown"),
            ("hash 9f86d081884c7d659a2feaa0c55ad015", "hash [redacted]"),
            ("eyJhbGciOiJub25lIn0.eyJzdWIiOiJhIn0.", "[redacted]"),
            ("ya29A0ARrdaM_abcDEFghiJKL.", "[redacted]"),
        ] {
            assert_eq!(shown(text, &secrets(), 256), expected);
        }
    }

    #[test]
    fn what_helps_an_operator_stays() {
        for text in [
            "AADSTS65001: The user has not consented. Trace ID: 1b0c3a0e-7c4f-4f0e-9a53-0f4e6d2b8a00",
            "Token doesn't have offline_access",
            "client_credentials_grant_is_not_enabled for this application",
            "expired authorization code",
        ] {
            assert_eq!(shown(text, &secrets(), 256), text);
        }
    }

    #[test]
    fn a_text_is_short_and_stays_in_its_line() {
        assert_eq!(
            shown("a\r\nWARN forged\u{1b}[2J\u{202e}x", &[], 256),
            "a\\u{d}\\u{a}WARN forged\\u{1b}[2J\\u{202e}x"
        );
        assert_eq!(shown(&"ä ".repeat(300), &[], 5), "ä ä ä…");
        // A secret is cut out before the text is cut to its length.
        assert_eq!(shown("ab rt/secret value", &secrets(), 6), "ab [re…");
    }
}

//! Reads single values: texts, words, numbers, durations, URLs.

use std::{fmt::Display, ops::RangeInclusive, time::Duration};

use url::{Host, Url};

use super::{reader::Value, report::Span};

/// What is wrong with a value, without repeating the value, and what would be right.
pub(super) struct Wrong {
    /// The value, or the part of it.
    pub span: Span,
    /// What is wrong, as the end of a sentence that begins with the setting's name.
    pub what: String,
    /// What would be right.
    pub right: String,
}

impl Wrong {
    pub fn new(value: &Value<'_>, what: impl Into<String>, right: impl Into<String>) -> Self {
        Self { span: value.span(), what: what.into(), right: right.into() }
    }

    /// A value of another kind than `wanted`.
    pub fn kind(value: &Value<'_>, wanted: &str, right: impl Into<String>) -> Self {
        Self::new(value, format!("must be {wanted}, and this is {}", kind(value)), right)
    }
}

fn kind(value: &Value<'_>) -> &'static str {
    match value.get_ref().type_str() {
        "string" => "a string",
        "integer" => "an integer",
        "float" => "a float",
        "boolean" => "a boolean",
        "datetime" => "a date or time",
        "array" => "an array",
        _ => "a table",
    }
}

/// A text that is not empty and has no control characters.
pub(super) fn text<'v>(value: &'v Value<'_>) -> Result<&'v str, Wrong> {
    let text = value.get_ref().as_str().ok_or_else(|| Wrong::kind(value, "a string", "write it in quotes: \"…\""))?;
    if text.is_empty() {
        return Err(Wrong::new(value, "is empty", "write a text, or leave the setting out"));
    }
    if text.chars().any(char::is_control) {
        return Err(Wrong::new(value, "has control characters", "write a text of one line"));
    }
    Ok(text)
}

/// The same as [`text`], owned.
pub(super) fn string(value: &Value<'_>) -> Result<String, Wrong> {
    text(value).map(str::to_owned)
}

/// A text that another type reads; its error says what would be right and shows nothing of the text.
pub(super) fn parsed<T, E: Display>(
    value: &Value<'_>,
    what: &str,
    parse: impl FnOnce(&str) -> Result<T, E>,
) -> Result<T, Wrong> {
    parse(text(value)?).map_err(|error| Wrong::new(value, what, error.to_string()))
}

/// One of a few words.
pub(super) fn word<T>(value: &Value<'_>, words: &'static [(&'static str, T)]) -> Result<&'static str, Wrong> {
    let names = || words.iter().map(|(word, _)| *word);
    let given = text(value).map_err(|wrong| Wrong { right: format!("one of {}", quoted(names())), ..wrong })?;
    names().find(|word| *word == given).ok_or_else(|| {
        let near = nearest(given, names()).or_else(|| only_with(given, names()));
        let hint = match (given, near) {
            ("authorization_code", _) => {
                "a user's grant is a \"refresh_token\", which `bearerd grant import` brings in. ".to_owned()
            }
            (_, Some(word)) => format!("did you mean \"{word}\"? "),
            (_, None) => String::new(),
        };
        Wrong::new(value, "is not a recognized value", format!("{hint}It is one of {}", quoted(names())))
    })
}

/// `true` or `false`.
pub(super) fn boolean(value: &Value<'_>) -> Result<bool, Wrong> {
    value.get_ref().as_bool().ok_or_else(|| Wrong::kind(value, "a boolean", "write true or false"))
}

/// A whole number in this range; its unit is the setting's.
pub(super) fn number(range: RangeInclusive<u64>) -> impl Fn(&Value<'_>) -> Result<u64, Wrong> {
    move |value| {
        let right = format!("write a whole number from {} to {}", range.start(), range.end());
        let integer = value.get_ref().as_integer().ok_or_else(|| Wrong::kind(value, "an integer", right.clone()))?;
        let number = u64::from_str_radix(integer.as_str(), integer.radix()).ok();
        number.filter(|number| range.contains(number)).ok_or_else(|| Wrong::new(value, "is out of range", right))
    }
}

/// A size in bytes in this range.
pub(super) fn bytes(range: RangeInclusive<u32>) -> impl Fn(&Value<'_>) -> Result<usize, Wrong> {
    let read = number(u64::from(*range.start())..=u64::from(*range.end()));
    move |value| read(value).map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX))
}

/// The longest duration that is taken: anything beyond is a slip, and sums of times must not overflow.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// A duration in words, for example `"30s"`; zero is allowed.
pub(super) fn duration(value: &Value<'_>) -> Result<Duration, Wrong> {
    let right = "write a number with its unit, for example \"30s\", \"5m\" or \"1h 30m\"";
    let text = value.get_ref().as_str().ok_or_else(|| Wrong::kind(value, "a duration", right))?;
    let duration = humantime::parse_duration(text).map_err(|_| Wrong::new(value, "is not a duration", right))?;
    if duration > LONGEST {
        return Err(Wrong::new(value, "is too long", "write at most \"366days\""));
    }
    Ok(duration)
}

/// A duration that is not zero.
pub(super) fn some_time(value: &Value<'_>) -> Result<Duration, Wrong> {
    let duration = duration(value)?;
    if duration.is_zero() {
        return Err(Wrong::new(value, "is no time at all", "write at least \"1ms\""));
    }
    Ok(duration)
}

/// An absolute `https` URL without user information and fragment (RFC 6749 §3.2). Plain `http` is taken for a loopback
/// host, or for any if `allow_http`.
pub(super) fn url(value: &Value<'_>, allow_http: bool) -> Result<Url, Wrong> {
    let example = "write it in the form \"https://host/path\"";
    let written = text(value)?;
    if let Some((what, right)) = no_uri(written) {
        return Err(Wrong::new(value, what, right));
    }
    let url = Url::parse(written).map_err(|_| Wrong::new(value, "is not an absolute URL", example))?;
    if let Some(host) = url.host_str().filter(|_| !shows_its_host(written)) {
        return Err(Wrong::new(value, "has another host than it seems", format!("write the host as \"{host}\"")));
    }
    let wrong = match (url.scheme(), url.host()) {
        ("https", Some(_)) => None,
        ("http", Some(host)) if allow_http || is_loopback(&host) => None,
        ("http", Some(_)) => Some((
            "would send secrets unencrypted",
            "write https, or allow_http = true in this credential if the network is trusted",
        )),
        _ => Some(("is not an https URL", example)),
    };
    let wrong = wrong
        .or_else(|| url.fragment().map(|_| ("has a fragment", "leave out the part from '#' on")))
        .or_else(|| has_user(&url).then_some(("holds a user name or password", "leave out the part before '@'")));
    wrong.map_or(Ok(url), |(what, right)| Err(Wrong::new(value, what, right)))
}

/// What the parser of URLs mends in silence, and a URI may not have (RFC 3986 §2): it is a slip, or a place to fill in.
fn no_uri(text: &str) -> Option<(&'static str, &'static str)> {
    if text.contains(char::is_whitespace) {
        return Some(("has a blank", "take it out, or write %20 if it belongs there"));
    }
    if text.contains(['{', '}', '<', '>']) {
        return Some(("has a place that is not filled in", "write the URL itself: nothing is put into it here"));
    }
    let stray = text.contains(['"', '^', '`', '|']);
    stray.then_some(("has a character that no URL has", "write it in the form \"https://host/path\""))
}

/// Whether the host follows the scheme and `//`; the parser takes other slashes, and none, for the same.
fn shows_its_host(text: &str) -> bool {
    let rest = text.split_once("://").map(|(_, rest)| rest);
    rest.is_some_and(|rest| !rest.starts_with(['/', '\\']))
}

/// A text without blanks at its ends: they are invisible, and nobody means them.
pub(super) fn unpadded(value: &Value<'_>) -> Result<String, Wrong> {
    let text = text(value)?;
    if text.trim() == text {
        return Ok(text.to_owned());
    }
    Err(Wrong::new(value, "begins or ends with a blank", "take the blank away"))
}

/// Whether a user name or password stands in a URL.
pub(super) fn has_user(url: &Url) -> bool {
    !url.username().is_empty() || url.password().is_some()
}

fn is_loopback(host: &Host<&str>) -> bool {
    match host {
        Host::Domain(name) => *name == "localhost" || name.ends_with(".localhost"),
        Host::Ipv4(address) => address.is_loopback(),
        Host::Ipv6(address) => address.is_loopback(),
    }
}

/// Words in quotes, as a list that people read.
pub(super) fn quoted<'w>(words: impl Iterator<Item = &'w str>) -> String {
    let words: Vec<String> = words.map(|word| format!("\"{word}\"")).collect();
    match words.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        Some((last, _)) => last.clone(),
        None => String::new(),
    }
}

/// The known word that somebody most likely meant, if one is near.
pub(super) fn nearest<'w>(given: &str, words: impl Iterator<Item = &'w str>) -> Option<&'w str> {
    let given: String = given.chars().take(64).collect();
    let near = words.map(|word| (distance(&given, word), word)).min()?;
    (near.0 <= 1 + near.1.len() / 4).then_some(near.1)
}

/// The one known word that holds what was given, as `client_secret_post` holds `post`.
fn only_with<'w>(given: &str, words: impl Iterator<Item = &'w str>) -> Option<&'w str> {
    let mut holding = words.filter(|word| given.len() > 3 && word.contains(given));
    holding.next().filter(|_| holding.next().is_none())
}

/// How many characters must be put in, taken out or changed (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut left = i + 1;
        let mut next = vec![left];
        for (y, pair) in b.chars().zip(row.windows(2)) {
            let [diagonal, above] = *pair else { break };
            left = (diagonal + usize::from(x != y)).min(above + 1).min(left + 1);
            next.push(left);
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use toml::de::DeValue;

    use super::*;

    #[test]
    fn the_nearest_word_is_suggested_only_if_near() {
        for (given, word) in
            [("lisen", Some("listen")), ("client_secert", Some("client_secret")), ("zzz", None), ("", None)]
        {
            assert_eq!(nearest(given, ["listen", "client_secret"].into_iter()), word, "{given}");
        }
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
    }

    #[test]
    fn durations_have_units_and_an_end() {
        for (text, seconds) in [
            ("\"90s\"", Some(90)),
            ("\"1h 30m\"", Some(5400)),
            ("\"0s\"", Some(0)),
            ("\"400days\"", None),
            ("\"90\"", None),
            ("90", None),
            ("\"-1s\"", None),
        ] {
            let value = DeValue::parse(text).unwrap();
            assert_eq!(duration(&value).ok(), seconds.map(Duration::from_secs), "{text}");
        }
        assert!(some_time(&DeValue::parse("\"0s\"").unwrap()).is_err());
    }

    #[test]
    fn numbers_keep_to_their_range() {
        for (text, number_read) in
            [("4_096", Some(4096)), ("0x10", Some(16)), ("-1", None), ("1", None), ("99999999999999999999", None)]
        {
            assert_eq!(number(2..=5000)(&DeValue::parse(text).unwrap()).ok(), number_read, "{text}");
        }
    }

    #[test]
    fn only_encrypted_or_local_urls_are_taken() {
        for (text, good, good_with_http) in [
            ("https://a.example/token?x=1", true, true),
            ("http://a.example/token", false, true),
            ("http://localhost:8080/token", true, true),
            ("http://127.0.0.9/token", true, true),
            ("http://[::1]/token", true, true),
            ("http://localhost.example/token", false, true),
            ("https://a.example/#f", false, false),
            ("https://me@a.example/", false, false),
            ("https://:pw@a.example/", false, false),
            ("ftp://a.example/", false, false),
            ("/token", false, false),
            ("https://", false, false),
            ("https:///a.example/token", false, false),
            ("https:a.example", false, false),
            ("https://a.example/to ken", false, false),
            (" https://a.example/token", false, false),
            ("https://{tenant}.example/token", false, false),
            ("https://a.example/{subject}", false, false),
            ("https://${HOST}/token", false, false),
            ("https://a.example/<tenant>/token", false, false),
            ("https://a.example/a|b", false, false),
            ("https://müller.example/token", true, true),
        ] {
            let source = format!("\"{text}\"");
            let value = DeValue::parse(&source).unwrap();
            assert_eq!(url(&value, false).is_ok(), good, "{text}");
            assert_eq!(url(&value, true).is_ok(), good_with_http, "{text}");
        }
    }
}

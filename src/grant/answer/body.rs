//! The members of an answer, from JSON or from a form, with whatever types a provider gave them.

use std::{borrow::Cow, fmt};

use http::{HeaderMap, header::CONTENT_TYPE};
use serde::de::{DeserializeSeed, Deserializer, MapAccess, Visitor};
use serde_json::{Map, Value};
use url::form_urlencoded;

use super::{Body, Extent, MAX_BODY, Unusable};
use crate::{name::Scopes, secret::SecretString};

/// What an answer says, by name. Of a member that is there twice the last counts.
pub(super) struct Members(Map<String, Value>);

/// What was read of a body.
pub(super) struct Read {
    /// The members that were found.
    pub(super) members: Members,
    /// Why these are not a whole answer.
    pub(super) problem: Option<Unusable>,
}

/// Reads a body. What looks like a JSON object is read as one whatever the content type says; a form has to be
/// announced, or at least called plain text, and has to answer the question. Of an object that breaks off the members
/// before that are read.
pub(super) fn read(headers: &HeaderMap, body: Body<'_>) -> Read {
    let (bytes, extent) = match body.bytes.get(..MAX_BODY) {
        Some(beginning) if body.bytes.len() > MAX_BODY => (beginning, Extent::TooLarge),
        Some(_) | None => (body.bytes, body.extent),
    };
    // A stray byte in some description must not cost the token; in the token itself it is noticed later.
    let text = String::from_utf8_lossy(bytes);
    let text = text.trim_start_matches('\u{feff}').trim();
    let (members, is_whole) = if text.starts_with('{') {
        object(text)
    } else if extent == Extent::Whole && may_be_form(headers) {
        form(text).map_or_else(|| (Map::new(), false), |members| (members, true))
    } else {
        (Map::new(), false)
    };
    let problem = match extent {
        Extent::TooLarge => Some(Unusable::TooLarge),
        Extent::Whole | Extent::Broken | Extent::Coded if is_whole => None,
        Extent::Whole => Some(Unusable::Unreadable),
        Extent::Broken => Some(Unusable::Broken),
        Extent::Coded => Some(Unusable::Coded),
    };
    Read { members: Members(members), problem }
}

/// The members of a JSON object up to where it ends or breaks, and whether it ends there and nothing follows.
fn object(text: &str) -> (Map<String, Value>, bool) {
    let mut members = Map::new();
    let mut reader = serde_json::Deserializer::from_str(text);
    let read = Collect(&mut members).deserialize(&mut reader);
    let is_whole = read.is_ok() && reader.end().is_ok();
    (members, is_whole)
}

/// Collects the members of an object one by one, so that those before a mistake are not lost.
struct Collect<'a>(&'a mut Map<String, Value>);

impl<'de> DeserializeSeed<'de> for Collect<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Collect<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some((name, value)) = map.next_entry()? {
            self.0.insert(name, value);
        }
        Ok(())
    }
}

fn may_be_form(headers: &HeaderMap) -> bool {
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media_type = content_type.split(';').next().unwrap_or_default().trim();
    ["application/x-www-form-urlencoded", "text/plain"].iter().any(|form| media_type.eq_ignore_ascii_case(form))
}

/// Any text can be taken for a form, so only one that answers the question counts.
fn form(text: &str) -> Option<Map<String, Value>> {
    let pairs = form_urlencoded::parse(text.as_bytes());
    let members: Map<_, _> = pairs.map(|(name, value)| (name.into_owned(), Value::from(value))).collect();
    (members.contains_key("access_token") || members.contains_key("error")).then_some(members)
}

impl Members {
    /// A member that is a text with something in it.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.as_str().filter(|text| !text.is_empty())
    }

    /// The member `error`, if it is a text.
    pub(super) fn error_text(&self) -> Option<&str> {
        self.text("error").map(str::trim).filter(|text| !text.is_empty())
    }

    /// What the provider says in a sentence: `error_description` (RFC 6749 §5.2), or what others call it.
    pub(super) fn description(&self) -> Option<Cow<'_, str>> {
        let names = ["error_description", "message", "error_message", "detail", "title"];
        let text = names.iter().find_map(|name| self.text(name)).map(Cow::Borrowed);
        // Some answer with an object or a list of errors, whose shape is each provider's own.
        let nested = ["error", "errors"].iter().filter_map(|name| self.0.get(*name));
        text.or_else(|| {
            nested.filter(|value| value.is_object() || value.is_array()).map(|v| Cow::Owned(v.to_string())).next()
        })
    }

    /// Takes a text out, so that no copy of it stays behind.
    pub(super) fn take_secret(&mut self, name: &str) -> Option<SecretString> {
        self.text(name)?;
        match self.0.remove(name)? {
            Value::String(text) => Some(text.into()),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => None,
        }
    }

    /// A member that is a number, or a number in quotes.
    pub(super) fn number(&self, name: &str) -> Option<f64> {
        let value = self.0.get(name)?;
        value.as_f64().or_else(|| value.as_str()?.trim().parse().ok())
    }

    /// A member that is a list of scopes, or a text that holds them between spaces or commas. None of them is as good
    /// as nothing said.
    pub(super) fn scopes(&self, name: &str) -> Option<Scopes> {
        let texts: Vec<&str> = match self.0.get(name)? {
            Value::String(text) => vec![text],
            Value::Array(items) => items.iter().filter_map(Value::as_str).collect(),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => return None,
        };
        let scopes = Scopes::granted(texts.iter().flat_map(|text| text.split([' ', ',', '\t', '\n'])));
        (!scopes.is_empty()).then_some(scopes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::ExposeSecret;

    const JSON: &str = "application/json";
    const FORM: &str = "Application/X-WWW-Form-Urlencoded; charset=utf-8";

    fn members(content_type: &str, body: impl AsRef<[u8]>) -> Result<Members, Unusable> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, content_type.parse().unwrap());
        let Read { members, problem } = read(&headers, Body::whole(body.as_ref()));
        problem.map_or(Ok(members), Err)
    }

    #[test]
    fn json_is_read_whatever_surrounds_it() {
        for (content_type, body) in [
            (JSON, "{\"access_token\":\"a\"}"),
            (JSON, "\u{feff}{\"access_token\":\"a\"}"),
            (JSON, " \r\n{\"access_token\":\"a\"}\n"),
            (JSON, "{\"access_token\":\"old\",\"access_token\":\"a\"}"),
            (JSON, "{\"access_token\":\"a\",\"ok\":true,\"x\":{\"y\":[1]}}"),
            ("text/html", "{\"access_token\":\"a\"}"),
            (FORM, "{\"access_token\":\"a\"}"),
        ] {
            assert_eq!(members(content_type, body).unwrap().text("access_token"), Some("a"), "{body}");
        }
    }

    #[test]
    fn bytes_that_are_no_utf_8_do_not_cost_the_token() {
        let read = members(JSON, b"{\"access_token\":\"a\",\"name\":\"J\xf6rg\"}").unwrap();
        assert_eq!(read.text("access_token"), Some("a"));
    }

    #[test]
    fn a_form_is_read_like_json() {
        for content_type in [FORM, "text/plain"] {
            let mut read = members(content_type, "access_token=gho_1%2B2&expires_in=28800&scope=repo%2Cgist").unwrap();
            assert_eq!(read.number("expires_in"), Some(28_800.0));
            assert_eq!(read.scopes("scope"), Some(Scopes::new(["gist", "repo"]).unwrap()));
            assert_eq!(read.take_secret("access_token").unwrap().expose_secret(), "gho_1+2");
            assert_eq!(read.text("access_token"), None);
        }
    }

    #[test]
    fn scopes_are_read_however_they_are_written() {
        let two = Some(Scopes::new(["a", "b"]).unwrap());
        for (written, scopes) in [
            (r#""b a""#, &two),
            (r#""a,b""#, &two),
            (r#""a, b""#, &two),
            (r#"["b","a"]"#, &two),
            (r#"["a b", 7]"#, &two),
            (r#""""#, &None),
            ("[]", &None),
            ("null", &None),
            ("7", &None),
        ] {
            let read = members(JSON, format!(r#"{{"scope":{written}}}"#)).unwrap();
            assert_eq!(&read.scopes("scope"), scopes, "{written}");
        }
    }

    #[test]
    fn what_cannot_be_understood_is_said_so() {
        let nested = format!("{{\"a\":{}", "[".repeat(100_000));
        for (content_type, body) in [
            (JSON, ""),
            (JSON, "[]"),
            (JSON, "\"access_token\""),
            (JSON, "{\"access_token\":\"a\""),
            (JSON, "{\"access_token\":\"a\"} tail"),
            (JSON, nested.as_str()),
            (JSON, "access_token=a"),
            ("text/html", "access_token=a"),
            ("text/plain", "try again later"),
            (FORM, "foo=bar"),
        ] {
            assert_eq!(members(content_type, body).err(), Some(Unusable::Unreadable), "{body:.40}");
        }
    }

    #[test]
    fn an_answer_has_a_limit() {
        let body = |length: usize| format!("{{\"access_token\":\"a\"{}}}", " ".repeat(length - 20));
        assert_eq!(body(MAX_BODY).len(), MAX_BODY);
        assert!(members(JSON, body(MAX_BODY)).is_ok());
        assert_eq!(members(JSON, body(MAX_BODY + 1)).err(), Some(Unusable::TooLarge));
    }
}

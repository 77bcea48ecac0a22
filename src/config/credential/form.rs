//! A static secret and how it goes on a request.

use http::HeaderName;

use crate::{
    config::{
        reader::{Reader, Value},
        value::{Wrong, string, text},
    },
    grant::{Grant, StaticForm, static_secret},
};

#[derive(Clone, Copy)]
enum Scheme {
    ApiKey,
    Basic,
    Bearer,
}

const SCHEMES: &[(&str, Scheme)] = &[("api_key", Scheme::ApiKey), ("basic", Scheme::Basic), ("bearer", Scheme::Bearer)];

/// Headers that the connection itself needs.
const OWN_HEADERS: &[&str] =
    &["host", "content-length", "transfer-encoding", "connection", "upgrade", "te", "trailer", "expect"];

/// Reads the secret and its form. Without a secret, one must be imported for each subject.
pub(super) fn read(reader: &Reader<'_>) -> Option<Grant> {
    let first = reader.secret("secret");
    let form = match reader.choose("scheme", SCHEMES, None)? {
        Scheme::ApiKey => StaticForm::ApiKey { header: reader.required("header", "\"X-Api-Key\"", header)? },
        Scheme::Basic => StaticForm::Basic { username: reader.required("username", "\"user\"", username)? },
        Scheme::Bearer => StaticForm::Bearer,
    };
    if let Some((secret, value)) = first.as_ref().zip(reader.value("secret"))
        && let Err(error) = static_secret::present(&form, secret)
    {
        reader.wrong("secret", Wrong::new(value, "refers to a text that fits no header", error.to_string()));
    }
    Some(Grant::Static { form, first })
}

fn header(value: &Value<'_>) -> Result<HeaderName, Wrong> {
    let wrong = |what| Wrong::new(value, what, "write a header's name, for example \"X-Api-Key\"");
    let header = HeaderName::try_from(text(value)?).map_err(|_| wrong("is not a header's name"))?;
    if OWN_HEADERS.contains(&header.as_str()) {
        return Err(wrong("is a header that the connection itself needs"));
    }
    Ok(header)
}

fn username(value: &Value<'_>) -> Result<String, Wrong> {
    let username = string(value)?;
    if username.contains(':') {
        return Err(Wrong::new(value, "has a ':'", "write a user-id without ':' (RFC 7617 §2)"));
    }
    Ok(username)
}

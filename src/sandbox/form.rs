//! The form that a token request is, and the credentials in it and in its `Authorization` header (RFC 6749 §2.3, §3.2).

use std::collections::HashMap;

use base64::{Engine, engine::general_purpose::STANDARD};
use http::{
    HeaderMap,
    header::{AUTHORIZATION, CONTENT_TYPE},
};
use url::form_urlencoded;

use super::refusal::{ErrorWord, Refusal};

/// The parameters of a request.
#[derive(Debug, Default)]
pub(super) struct Form(HashMap<String, String>);

impl Form {
    /// Reads a request body.
    pub fn read(headers: &HeaderMap, body: &[u8]) -> Result<Self, Refusal> {
        let media_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let essence = media_type.split(';').next().unwrap_or_default().trim();
        if !essence.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
            return Err(ErrorWord::InvalidRequest.because("the body is not application/x-www-form-urlencoded"));
        }
        let mut form = HashMap::new();
        for (name, value) in form_urlencoded::parse(body).into_owned() {
            // Only resource indicators may be repeated (RFC 8707 §2), and they play no part here.
            if name != "resource" && form.insert(name, value).is_some() {
                return Err(ErrorWord::InvalidRequest.because("a parameter is repeated (RFC 6749 section 3.2)"));
            }
        }
        Ok(Self(form))
    }

    /// A parameter. One without a value counts as omitted (RFC 6749 §3.2).
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// A parameter that must be there.
    pub fn required(&self, name: &str) -> Result<&str, Refusal> {
        self.get(name).ok_or(ErrorWord::InvalidRequest.because("a required parameter is missing"))
    }
}

/// How a client names or proves itself.
#[derive(Debug)]
pub(super) enum Credentials {
    /// `client_secret_basic` or `client_secret_post`.
    Secret { id: String, secret: String },
    /// `private_key_jwt` (RFC 7523 §2.2).
    Assertion { id: Option<String>, jwt: String },
    /// `none`: only the identifier.
    Named { id: String },
    /// Not at all.
    Absent,
}

impl Credentials {
    /// Finds the credentials of a request; there must not be two (RFC 6749 §2.3).
    pub fn read(headers: &HeaderMap, form: &Form) -> Result<Self, Refusal> {
        let id = form.get("client_id").map(str::to_owned);
        let secret = form.get("client_secret").map(str::to_owned);
        let assertion = assertion(form)?;
        match (basic(headers)?, secret, assertion) {
            (None, None, None) => Ok(id.map_or(Self::Absent, |id| Self::Named { id })),
            (None, None, Some(jwt)) => Ok(Self::Assertion { id, jwt }),
            (None, Some(secret), None) => {
                let id = id.ok_or(ErrorWord::InvalidClient.because("client_secret came without client_id"))?;
                Ok(Self::Secret { id, secret })
            }
            (Some((name, secret)), None, None) if id.as_ref().is_none_or(|id| *id == name) => {
                Ok(Self::Secret { id: name, secret })
            }
            (Some(_), None, None) => Err(ErrorWord::InvalidRequest.because("two different clients are named")),
            (Some(_), Some(_), _) | (Some(_), _, Some(_)) | (_, Some(_), Some(_)) => {
                Err(ErrorWord::InvalidRequest.because("more than one way of client authentication is used"))
            }
        }
    }

    /// The client that is named, proven or not.
    pub fn claimed_id(&self) -> Option<&str> {
        match self {
            Self::Secret { id, .. } | Self::Named { id } => Some(id),
            Self::Assertion { id, .. } => id.as_deref(),
            Self::Absent => None,
        }
    }
}

fn assertion(form: &Form) -> Result<Option<String>, Refusal> {
    match (form.get("client_assertion"), form.get("client_assertion_type")) {
        (None, None) => Ok(None),
        (Some(jwt), Some("urn:ietf:params:oauth:client-assertion-type:jwt-bearer")) => Ok(Some(jwt.to_owned())),
        (Some(_) | None, Some(_)) | (Some(_), None) => {
            Err(ErrorWord::InvalidClient.because("client_assertion and client_assertion_type do not fit (RFC 7521)"))
        }
    }
}

/// Reads `Authorization: Basic`. Identifier and secret are form-encoded inside of it (RFC 6749 §2.3.1), which is more
/// than RFC 7617 asks for and often forgotten.
fn basic(headers: &HeaderMap) -> Result<Option<(String, String)>, Refusal> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (first, second) = (values.next(), values.next());
    let Some(value) = first else { return Ok(None) };
    let unreadable = ErrorWord::InvalidClient.because("the Authorization header is not readable as Basic");
    if second.is_some() {
        return Err(unreadable);
    }
    basic_pair(value.as_bytes())
        .and_then(|(id, secret)| Some((form_decode(&id)?, form_decode(&secret)?)))
        .map(Some)
        .ok_or(unreadable)
}

/// The user-id and the password of a `Basic` header (RFC 7617 §2).
pub(super) fn basic_pair(header: &[u8]) -> Option<(String, String)> {
    let (scheme, encoded) = std::str::from_utf8(header).ok()?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let pair = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
    pair.split_once(':').map(|(id, secret)| (id.to_owned(), secret.to_owned()))
}

fn form_decode(text: &str) -> Option<String> {
    if text.contains('&') {
        return None;
    }
    let pair = format!("v={text}");
    form_urlencoded::parse(pair.as_bytes()).next().map(|(_, value)| value.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(authorization: Option<&str>, body: &str) -> Result<Credentials, Refusal> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, "application/x-www-form-urlencoded;charset=UTF-8".parse().unwrap());
        if let Some(pair) = authorization {
            headers.insert(AUTHORIZATION, format!("bAsIc {}", STANDARD.encode(pair)).parse().unwrap());
        }
        Credentials::read(&headers, &Form::read(&headers, body.as_bytes())?)
    }

    #[test]
    fn basic_is_form_decoded() {
        let Ok(Credentials::Secret { id, secret }) = request(Some("a%3Ab:p+q%2Br%25:=s"), "") else {
            panic!("not a secret")
        };
        assert_eq!((id.as_str(), secret.as_str()), ("a:b", "p q+r%:=s"));
    }

    #[test]
    fn ambiguous_credentials_are_refused() {
        let jwt = "client_assertion=j&client_assertion_type=urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
        for (authorization, body, word) in [
            (Some("a:s"), "client_id=a&client_secret=s", ErrorWord::InvalidRequest),
            (Some("a:s"), "client_id=b", ErrorWord::InvalidRequest),
            (Some("a:s"), jwt, ErrorWord::InvalidRequest),
            (None, &format!("client_id=a&client_secret=s&{jwt}"), ErrorWord::InvalidRequest),
            (None, "client_id=a&client_id=a", ErrorWord::InvalidRequest),
            (None, "client_secret=s", ErrorWord::InvalidClient),
            (None, "client_assertion=j", ErrorWord::InvalidClient),
            (Some("no-colon"), "", ErrorWord::InvalidClient),
            (Some("a:s&t"), "", ErrorWord::InvalidClient),
        ] {
            assert_eq!(request(authorization, body).unwrap_err().error, word, "{authorization:?} {body}");
        }
        assert!(matches!(request(None, "client_id=&client_secret="), Ok(Credentials::Absent)));
        assert!(request(None, "resource=a&resource=b").is_ok());
    }

    #[test]
    fn only_a_form_is_read() {
        for media_type in ["application/json", "", "text/plain; x=application/x-www-form-urlencoded"] {
            let headers = HeaderMap::from_iter([(CONTENT_TYPE, media_type.parse().unwrap())]);
            assert_eq!(Form::read(&headers, b"grant_type=x").unwrap_err().error, ErrorWord::InvalidRequest);
        }
    }
}

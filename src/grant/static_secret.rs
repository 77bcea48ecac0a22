//! Static secrets in the form of a token.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use zeroize::Zeroizing;

use crate::{
    grant::{StaticForm, is_bearer_text},
    secret::{self, ExposeSecret, SecretString},
    token::TokenType,
};

/// Why a static secret cannot go on a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StaticError {
    /// The user-id is not one.
    #[error("a user-id has no ':' and no control characters (RFC 7617 §2)")]
    Username,
    /// The secret is empty or has characters that its place in the request does not allow.
    #[error(
        "the secret must not be empty; an API key is printable ASCII without space at its ends, a bearer token has no \
         space at all, a password no control characters"
    )]
    Secret,
}

/// Gives a static secret the form of a token: its value as [`crate::token::Token::header`] expects it, and its type.
///
/// An empty secret is refused in every form, even though RFC 7617 allows an empty password: it is rather a file that
/// somebody forgot to fill.
///
/// # Errors
///
/// [`StaticError`], when the secret does not fit in a header.
pub fn present(form: &StaticForm, secret: &SecretString) -> Result<(SecretString, TokenType), StaticError> {
    match form {
        StaticForm::ApiKey { header } => {
            let kind = TokenType::ApiKey { header: header.as_str().to_owned() };
            fitting(secret, is_field_value).map(|value| (value, kind))
        }
        StaticForm::Basic { username } => basic(username, secret).map(|value| (value, TokenType::Basic)),
        StaticForm::Bearer => fitting(secret, is_bearer_text).map(|value| (value, TokenType::Bearer)),
    }
}

fn fitting(secret: &SecretString, fits: fn(&str) -> bool) -> Result<SecretString, StaticError> {
    if fits(secret.expose_secret()) { Ok(secret.clone()) } else { Err(StaticError::Secret) }
}

/// RFC 9110 §5.5: visible characters, with spaces and tabs between them only. Bytes above ASCII are left out because
/// nobody says in which encoding they are.
fn is_field_value(text: &str) -> bool {
    let legal = text.bytes().all(|b| matches!(b, b'\t' | 0x20..=0x7e));
    legal && !text.is_empty() && text.trim_matches([' ', '\t']) == text
}

/// RFC 7617 §2 and §2.1, in UTF-8.
fn basic(username: &str, secret: &SecretString) -> Result<SecretString, StaticError> {
    let password = secret.expose_secret();
    if username.chars().any(|c| c == ':' || c.is_control()) {
        return Err(StaticError::Username);
    }
    if password.is_empty() || password.chars().any(char::is_control) {
        return Err(StaticError::Secret);
    }
    let pair = secret::joined([username, ":", password]);
    Ok(Zeroizing::new(STANDARD.encode(pair.expose_secret())).as_str().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn presented(form: &StaticForm, secret: &str) -> Result<(String, TokenType), StaticError> {
        present(form, &secret.into()).map(|(value, kind)| (value.expose_secret().to_owned(), kind))
    }

    #[test]
    fn basic_is_that_of_rfc_7617() {
        for (username, password, value) in [
            ("Aladdin", "open sesame", "QWxhZGRpbjpvcGVuIHNlc2FtZQ=="),
            ("test", "123\u{a3}", "dGVzdDoxMjPCow=="),
            ("", "a:b", "OmE6Yg=="),
        ] {
            let form = StaticForm::Basic { username: username.to_owned() };
            assert_eq!(presented(&form, password), Ok((value.to_owned(), TokenType::Basic)));
        }
        for (username, password, error) in [
            ("a:b", "x", StaticError::Username),
            ("a\n", "x", StaticError::Username),
            ("a", "x\r\n", StaticError::Secret),
            ("a", "", StaticError::Secret),
        ] {
            let form = StaticForm::Basic { username: username.to_owned() };
            assert_eq!(presented(&form, password), Err(error), "{username:?} {password:?}");
        }
    }

    #[test]
    fn an_api_key_is_a_legal_header_value() {
        let form = StaticForm::ApiKey { header: "X-Api-Key".parse().unwrap() };
        let kind = TokenType::ApiKey { header: "x-api-key".to_owned() };
        for good in ["k", "Token token=\"a b\"", "a\tb"] {
            assert_eq!(presented(&form, good), Ok((good.to_owned(), kind.clone())));
        }
        for bad in ["", " k", "k ", "k\n", "k\r\nx: y", "k\0", "ké", "\u{7f}"] {
            assert_eq!(presented(&form, bad), Err(StaticError::Secret), "{bad:?}");
        }
    }

    #[test]
    fn a_bearer_secret_has_token_characters() {
        for good in ["abc.def-1_~+/=", "a:b|c!"] {
            assert_eq!(presented(&StaticForm::Bearer, good), Ok((good.to_owned(), TokenType::Bearer)));
        }
        for bad in ["", "a b", "a\n", "ä"] {
            assert_eq!(presented(&StaticForm::Bearer, bad), Err(StaticError::Secret), "{bad:?}");
        }
    }
}

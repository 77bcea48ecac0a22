//! Client authentication: exactly one method per request (RFC 6749 §2.3).

use std::time::SystemTime;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderName, header};
use url::form_urlencoded::byte_serialize;
use zeroize::Zeroizing;

use crate::{
    grant::{Client, ClientAuth, assertion::SignerError, form::Form},
    secret::{self, ExposeSecret, SecretString},
};

/// Puts one of the client's proofs, the one with this number, into the form, or returns the header that holds it.
pub(super) fn authenticate(
    client: &Client,
    form: &mut Form,
    proof: usize,
    now: SystemTime,
) -> Result<Option<(HeaderName, SecretString)>, SignerError> {
    match &client.auth {
        ClientAuth::None => form.add("client_id", &client.id),
        ClientAuth::SecretBasic(secrets) => {
            return Ok(Some((header::AUTHORIZATION, basic(&client.id, secrets.get(proof)))));
        }
        ClientAuth::SecretPost(secrets) => {
            form.add("client_id", &client.id);
            form.add("client_secret", secrets.get(proof).expose_secret());
        }
        ClientAuth::PrivateKeyJwt(assertion) => {
            form.add("client_id", &client.id);
            form.add("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer");
            form.add("client_assertion", assertion.sign(&client.id, now)?.expose_secret());
        }
    }
    Ok(None)
}

/// The client's secret with this number, where it has one.
pub(super) fn secret(client: &Client, proof: usize) -> Option<&SecretString> {
    match &client.auth {
        ClientAuth::SecretBasic(secrets) | ClientAuth::SecretPost(secrets) => Some(secrets.get(proof)),
        ClientAuth::None | ClientAuth::PrivateKeyJwt(_) => None,
    }
}

/// RFC 6749 §2.3.1: both halves are form-encoded before they are joined, unlike anywhere else in HTTP Basic.
fn basic(id: &str, secret: &SecretString) -> SecretString {
    let pair = secret::joined([&form_encoded(id), ":", &form_encoded(secret.expose_secret())]);
    secret::joined(["Basic ", &Zeroizing::new(STANDARD.encode(pair.expose_secret()))])
}

/// At most three bytes for one, so it never moves while it grows.
fn form_encoded(text: &str) -> Zeroizing<String> {
    let mut encoded = Zeroizing::new(String::with_capacity(text.len() * 3));
    encoded.extend(byte_serialize(text.as_bytes()));
    encoded
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::grant::{ClientAssertion, ClientSecrets, assertion::testing};

    /// The form and the header that a client proves itself with.
    fn proof(id: &str, auth: ClientAuth) -> (String, Option<String>) {
        let mut form = Form::default();
        let client = Client { id: id.to_owned(), auth };
        let header = authenticate(&client, &mut form, 0, SystemTime::UNIX_EPOCH).unwrap();
        let header = header.map(|(name, value)| format!("{name}: {}", value.expose_secret()));
        (form.finish().expose_secret().to_owned(), header)
    }

    #[test]
    fn basic_encodes_both_halves_first() {
        let header =
            "MVBwRyUyRlErMTp6JTJGdFo5VndGWnFBcG1JUSUyQlpIMUk1cExrJTJGdUI0dWQlM0FYMiUyRjhiTCUyQndmRlR0MXJGdyUzRA==";
        let (form, got) =
            proof("1PpG/Q 1", ClientAuth::SecretBasic("z/tZ9VwFZqApmIQ+ZH1I5pLk/uB4ud:X2/8bL+wfFTt1rFw=".into()));
        assert_eq!((form.as_str(), got), ("", Some(format!("authorization: Basic {header}"))));
    }

    #[test]
    fn form_encoding_is_that_of_rfc_6749_appendix_b() {
        assert_eq!(*form_encoded(" %&+£€"), "+%25%26%2B%C2%A3%E2%82%AC");
    }

    #[test]
    fn every_other_method_stays_in_the_body() {
        for (auth, form) in [
            (ClientAuth::None, "client_id=a%3Ab"),
            (ClientAuth::SecretPost("p+q".into()), "client_id=a%3Ab&client_secret=p%2Bq"),
        ] {
            assert_eq!(proof("a:b", auth), (form.to_owned(), None));
        }
    }

    #[test]
    fn one_of_several_secrets_is_sent() {
        let secrets = ClientSecrets::new("old".into(), vec!["new".into()]);
        let auth = ClientAuth::SecretPost(secrets);
        assert_eq!(auth.proofs(), 2);
        let client = Client { id: "me".to_owned(), auth };
        for (proof, secret) in [(0, "old"), (1, "new"), (2, "old")] {
            let mut form = Form::default();
            authenticate(&client, &mut form, proof, SystemTime::UNIX_EPOCH).unwrap();
            assert_eq!(form.finish().expose_secret(), format!("client_id=me&client_secret={secret}"), "{proof}");
        }
    }

    #[test]
    fn a_private_key_proves_the_client_with_one_assertion() {
        let (signer, key) = testing::ed25519();
        let assertion =
            ClientAssertion { signer, audience: "https://as.example".to_owned(), lifetime: Duration::from_secs(60) };
        let (form, header) = proof("me", ClientAuth::PrivateKeyJwt(assertion));
        let prefix = "client_id=me\
            &client_assertion_type=urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Ajwt-bearer\
            &client_assertion=";
        let jwt = form.strip_prefix(prefix).unwrap();
        let (_, claims) = testing::verified(jwt, &key, jsonwebtoken::Algorithm::EdDSA);
        assert_eq!((&claims["iss"], &claims["sub"]), (&"me".into(), &"me".into()));
        assert_eq!(header, None);
    }
}

//! Building a token request (RFC 6749 §3.2, §4.4, §6; RFC 7523 §2.1; RFC 8707 §2).
//!
//! No parameter is sent empty, and none but `resource` is sent twice.

use std::time::SystemTime;

use http::{HeaderName, header};
use url::Url;

use crate::{
    grant::{
        BearerAssertion, Endpoint, Grant, answer::Reading, assertion::SignerError, client_auth, form::Form,
        profile::ProviderProfile,
    },
    name::{Resources, Scopes, Subject},
    secret::{ExposeSecret, SecretString},
};

/// The parameters that this room sets itself. A provider's extra parameter of such a name is a mistake in the
/// configuration: it would be sent twice, which RFC 6749 §3.2 forbids.
pub const RESERVED_PARAMETERS: &[&str] = &[
    "grant_type",
    "scope",
    "resource",
    "refresh_token",
    "assertion",
    "client_id",
    "client_secret",
    "client_assertion",
    "client_assertion_type",
];

/// Which token is wanted.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// On whose behalf.
    pub subject: &'a Subject,
    /// The scopes, the credential's defaults already put in.
    pub scopes: &'a Scopes,
    /// The resources, likewise.
    pub resources: &'a Resources,
    /// The credential's default scopes, which a refresh leaves unsaid.
    pub default_scopes: &'a Scopes,
    /// What is known of the provider.
    pub profile: &'a ProviderProfile,
    /// Which of the client's proofs to show, from 0; see [`crate::grant::ClientAuth::proofs`].
    pub proof: usize,
}

/// A POST to a token endpoint. `Debug` shows no secret.
#[derive(Clone, Debug)]
pub struct TokenRequest {
    /// Where to: the configured URL as it is.
    pub url: Url,
    /// The headers, content type included.
    pub headers: Vec<(HeaderName, SecretString)>,
    /// The form.
    pub body: SecretString,
    /// How the answer is read.
    pub reading: Reading,
}

/// Why there is no request to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    /// The grant has no refresh token: somebody has to give it one.
    #[error("the grant has no refresh token")]
    NoRefreshToken,
    /// A static secret asks nobody.
    #[error("a static secret is not asked for at a provider")]
    Static,
    /// An assertion could not be signed.
    #[error("an assertion could not be signed: {0}")]
    Signing(#[from] SignerError),
}

/// Builds the request for a token. Assertions in it are new each time (RFC 7523 §3), so build again before asking again.
///
/// `refresh_token` is the one that belongs to this very grant; the configured first one is no substitute here, because
/// it must not be spent for another subject. Grants without refresh tokens ignore it. `now` dates the assertions.
///
/// # Errors
///
/// [`BuildError`], when the grant has nothing to ask with.
pub fn build(
    grant: &Grant,
    refresh_token: Option<&SecretString>,
    asked: &Asked<'_>,
    now: SystemTime,
) -> Result<TokenRequest, BuildError> {
    let mut form = Form::default();
    let endpoint = match grant {
        Grant::ClientCredentials(endpoint) => {
            client_credentials(&mut form, asked);
            endpoint
        }
        Grant::RefreshToken { endpoint, first: _ } => {
            refresh(&mut form, refresh_token.ok_or(BuildError::NoRefreshToken)?, asked);
            endpoint
        }
        Grant::JwtBearer { endpoint, assertion } => {
            jwt_bearer(&mut form, assertion, asked, now)?;
            endpoint
        }
        Grant::Static { form: _, first: _ } => return Err(BuildError::Static),
    };
    finish(endpoint, form, asked, now)
}

fn client_credentials(form: &mut Form, asked: &Asked<'_>) {
    form.add("grant_type", "client_credentials");
    form.add("scope", &asked.scopes.to_parameter());
}

fn refresh(form: &mut Form, refresh_token: &SecretString, asked: &Asked<'_>) {
    form.add("grant_type", "refresh_token");
    form.add("refresh_token", refresh_token.expose_secret());
    // Unsaid means "as granted" (RFC 6749 §6), and some providers refuse a refresh that says it.
    if asked.scopes != asked.default_scopes && asked.profile.scope_on_refresh {
        form.add("scope", &asked.scopes.to_parameter());
    }
}

fn jwt_bearer(
    form: &mut Form,
    assertion: &BearerAssertion,
    asked: &Asked<'_>,
    now: SystemTime,
) -> Result<(), SignerError> {
    form.add("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer");
    form.add("assertion", assertion.sign(asked.subject, now)?.expose_secret());
    form.add("scope", &asked.scopes.to_parameter());
    Ok(())
}

/// Adds what all grants have in common.
fn finish(endpoint: &Endpoint, mut form: Form, asked: &Asked<'_>, now: SystemTime) -> Result<TokenRequest, BuildError> {
    for resource in asked.resources.iter() {
        form.add("resource", resource);
    }
    for (name, value) in &endpoint.parameters {
        form.add(name, value);
    }
    let mut headers = vec![
        (header::CONTENT_TYPE, "application/x-www-form-urlencoded".into()),
        (header::ACCEPT, "application/json".into()),
        // Without it any coding is acceptable (RFC 9110 §12.5.3).
        (header::ACCEPT_ENCODING, "identity".into()),
    ];
    headers.extend(client_auth::authenticate(&endpoint.client, &mut form, asked.proof, now)?);
    let body = form.finish();
    let reading = Reading::of(&endpoint.token_url, asked.profile, secrets(endpoint, &headers, &body, asked));
    Ok(TokenRequest { url: endpoint.token_url.clone(), headers, body, reading })
}

/// The parameters that say nothing that must not be shown.
const PUBLIC_PARAMETERS: &[&str] =
    &["grant_type", "scope", "resource", "client_id", "client_assertion_type", "audience"];

/// Everything secret in a request: the provider's answer may repeat it. What a provider wants besides the standard
/// parameters counts as secret, and so does what is secret in another form, encoded.
fn secrets(
    endpoint: &Endpoint,
    headers: &[(HeaderName, SecretString)],
    body: &SecretString,
    asked: &Asked<'_>,
) -> Vec<SecretString> {
    let mut secrets = Vec::new();
    for (name, value) in url::form_urlencoded::parse(body.expose_secret().as_bytes()) {
        if !PUBLIC_PARAMETERS.contains(&name.as_ref()) {
            let encoded: String = url::form_urlencoded::byte_serialize(value.as_bytes()).collect();
            secrets.extend([SecretString::from(&*value), encoded.into()]);
        }
    }
    let authorization = headers.iter().filter(|(name, _)| *name == header::AUTHORIZATION);
    for (_, value) in authorization {
        let value = value.expose_secret();
        secrets.push(value.trim_start_matches("Basic ").into());
    }
    secrets.extend(client_auth::secret(&endpoint.client, asked.proof).cloned());
    secrets.extend(endpoint.token_url.query_pairs().map(|(_, value)| SecretString::from(&*value)));
    secrets.retain(|secret| !secret.expose_secret().is_empty());
    secrets
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::grant::{Client, ClientAuth, StaticForm, assertion::testing};

    fn endpoint(parameters: &[(&str, &str)]) -> Endpoint {
        Endpoint {
            token_url: "https://as.example/token?tenant=7".parse().unwrap(),
            client: Client { id: "me".to_owned(), auth: ClientAuth::SecretPost("s3 cret&".into()) },
            formerly: Vec::new(),
            issuer: None,
            parameters: parameters.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect(),
        }
    }

    fn refresh_grant() -> Grant {
        Grant::RefreshToken { endpoint: endpoint(&[]), first: Some("first".into()) }
    }

    /// Builds with these scopes, resources and default scopes.
    fn built(grant: &Grant, token: Option<&str>, names: [&[&str]; 3]) -> Result<TokenRequest, BuildError> {
        let [scopes, resources, default_scopes] = names;
        let asked = Asked {
            subject: &Subject::default(),
            scopes: &Scopes::new(scopes.to_vec()).unwrap(),
            resources: &Resources::new(resources.to_vec()).unwrap(),
            default_scopes: &Scopes::new(default_scopes.to_vec()).unwrap(),
            profile: &ProviderProfile::default(),
            proof: 0,
        };
        build(grant, token.map(SecretString::from).as_ref(), &asked, SystemTime::UNIX_EPOCH)
    }

    fn body(grant: &Grant, token: Option<&str>, names: [&[&str]; 3]) -> String {
        built(grant, token, names).unwrap().body.expose_secret().to_owned()
    }

    #[test]
    fn client_credentials_say_what_they_want() {
        let auth = "client_id=me&client_secret=s3+cret%26";
        let plain = Grant::ClientCredentials(endpoint(&[]));
        assert_eq!(body(&plain, None, [&[], &[], &[]]), format!("grant_type=client_credentials&{auth}"));

        let extra = Grant::ClientCredentials(endpoint(&[("audience", "https://api"), ("empty", "")]));
        assert_eq!(
            body(&extra, None, [&["b", "a"], &["urn:y", "urn:x"], &["a", "b"]]),
            format!(
                "grant_type=client_credentials&scope=a+b&resource=urn%3Ax&resource=urn%3Ay&audience=https%3A%2F%2Fapi&{auth}"
            )
        );
    }

    #[test]
    fn a_refresh_leaves_the_default_scopes_unsaid() {
        let with = |rest: &str| {
            format!("grant_type=refresh_token&refresh_token=rt%2F1{rest}&client_id=me&client_secret=s3+cret%26")
        };
        let grant = refresh_grant();
        for (scopes, rest) in [(&["a", "b"][..], ""), (&["a"][..], "&scope=a"), (&[][..], "")] {
            assert_eq!(body(&grant, Some("rt/1"), [scopes, &[], &["b", "a"]]), with(rest), "{scopes:?}");
        }
        assert_eq!(body(&grant, Some("rt/1"), [&[], &["urn:x"], &[]]), with("&resource=urn%3Ax"));
    }

    #[test]
    fn only_the_given_refresh_token_is_spent() {
        assert_eq!(built(&refresh_grant(), None, [&[]; 3]).unwrap_err(), BuildError::NoRefreshToken);
    }

    #[test]
    fn a_static_secret_asks_nobody() {
        let grant = Grant::Static { form: StaticForm::Bearer, first: Some("x".into()) };
        assert_eq!(built(&grant, None, [&[]; 3]).unwrap_err(), BuildError::Static);
    }

    #[test]
    fn a_bearer_assertion_is_new_each_time() {
        let (signer, key) = testing::ed25519();
        let assertion = BearerAssertion {
            signer,
            issuer: "iss".to_owned(),
            audience: "aud".to_owned(),
            subject: None,
            lifetime: Duration::from_secs(60),
        };
        let grant = Grant::JwtBearer { endpoint: endpoint(&[]), assertion };
        let ids = [(), ()].map(|()| {
            let body = body(&grant, None, [&["a"], &["urn:x"], &["a"]]);
            let rest = body.strip_prefix("grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion=");
            let (jwt, rest) = rest.unwrap().split_once('&').unwrap();
            assert_eq!(rest, "scope=a&resource=urn%3Ax&client_id=me&client_secret=s3+cret%26");
            testing::verified(jwt, &key, jsonwebtoken::Algorithm::EdDSA).1["jti"].clone()
        });
        assert_ne!(ids[0], ids[1]);
    }

    #[test]
    fn what_is_sent_is_reserved() {
        let grants = [Grant::ClientCredentials(endpoint(&[])), refresh_grant()];
        for grant in grants {
            let body = body(&grant, Some("rt"), [&["a"], &["urn:x"], &[]]);
            for (name, _) in url::form_urlencoded::parse(body.as_bytes()) {
                assert!(RESERVED_PARAMETERS.contains(&name.as_ref()), "{name}");
            }
        }
    }

    #[test]
    fn the_request_keeps_the_query_and_shows_no_secret() {
        let request = built(&refresh_grant(), Some("rt-1"), [&[]; 3]).unwrap();
        assert_eq!(request.url.as_str(), "https://as.example/token?tenant=7");
        let headers: Vec<_> = request.headers.iter().map(|(n, v)| (n.as_str(), v.expose_secret())).collect();
        assert_eq!(
            headers,
            [
                ("content-type", "application/x-www-form-urlencoded"),
                ("accept", "application/json"),
                ("accept-encoding", "identity")
            ]
        );
        let shown = format!("{request:?}");
        assert!(!shown.contains("rt-1") && !shown.contains("s3"), "{shown}");
    }
}

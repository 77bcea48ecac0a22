//! What makes the tokens of one credential others than those of another, and what stored material belongs to.

use aws_lc_rs::digest;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

use super::{BearerAssertion, ClientAuth, Endpoint, Grant, StaticForm};

/// The providers and clients whose stored material a credential uses. New records get the first binding.
#[derive(Clone, Debug)]
pub struct Bindings {
    own: String,
    former: Vec<String>,
    issuer: Option<String>,
}

impl Bindings {
    /// The binding of new records.
    pub fn own(&self) -> &str {
        &self.own
    }

    /// Issuer and client, where the issuer is configured.
    pub fn issuer(&self) -> Option<&str> {
        self.issuer.as_deref()
    }

    /// Whether a record is of one of them: by its binding, or by its issuer and client.
    pub fn include(&self, binding: &str, issuer: Option<&str>) -> bool {
        let by_issuer = issuer.is_some() && self.issuer.as_deref() == issuer;
        by_issuer || self.own == binding || self.former.iter().any(|former| former == binding)
    }
}

impl From<&str> for Bindings {
    fn from(own: &str) -> Self {
        Self { own: own.to_owned(), former: Vec::new(), issuer: None }
    }
}

impl Grant {
    /// A hash over everything that changes a token: the kind of grant, endpoint, client and its authentication, parameters
    /// and the claims of an assertion. No secret value is in it, and nothing about times.
    pub fn identity(&self) -> String {
        let mut parts = Parts::default();
        match self {
            Self::ClientCredentials(endpoint) => parts.add("client_credentials").endpoint(endpoint),
            Self::RefreshToken { endpoint, first: _ } => parts.add("refresh_token").endpoint(endpoint),
            Self::JwtBearer { endpoint, assertion } => parts.add("jwt_bearer").endpoint(endpoint).assertion(assertion),
            Self::Static { form, first: _ } => parts.add("static").form(form),
        };
        parts.hash()
    }

    /// What a stored record belongs to. Where a record is of one token, that is everything which makes the token another.
    pub fn bindings(&self) -> Bindings {
        match self {
            Self::RefreshToken { endpoint, first: _ } => Bindings {
                own: endpoint.binding(),
                former: endpoint.formerly.iter().map(|url| endpoint.binding_at(url.as_str())).collect(),
                issuer: endpoint.issuer.as_deref().map(|issuer| endpoint.binding_at(issuer)),
            },
            Self::ClientCredentials(endpoint) | Self::JwtBearer { endpoint, assertion: _ } => {
                Bindings::from(format!("{} {}", endpoint.binding(), self.identity()).as_str())
            }
            Self::Static { form: _, first: _ } => Bindings::from(""),
        }
    }

    /// What makes the tokens of one stored grant others: its parameters. `None` where there are none, so that tokens keep the
    /// names that versions without this gave them.
    pub fn variant(&self) -> Option<String> {
        match self {
            Self::RefreshToken { endpoint, first: _ } if !endpoint.parameters.is_empty() => {
                let mut parts = Parts::default();
                parts.parameters(endpoint);
                Some(parts.hash())
            }
            Self::RefreshToken { .. } | Self::ClientCredentials(_) | Self::JwtBearer { .. } | Self::Static { .. } => {
                None
            }
        }
    }

    /// Who asks, and where: what a provider counts requests by. A client without an identifier is known by the issuer of its
    /// assertions (RFC 7521 §4.1).
    pub fn requester(&self) -> String {
        match self {
            Self::JwtBearer { endpoint, assertion } if endpoint.client.id.is_empty() => {
                format!("{} issuer {}", endpoint.token_url, assertion.issuer)
            }
            Self::ClientCredentials(endpoint)
            | Self::RefreshToken { endpoint, first: _ }
            | Self::JwtBearer { endpoint, assertion: _ } => endpoint.binding(),
            Self::Static { form: _, first: _ } => String::new(),
        }
    }
}

/// The parts of a hash, each with its length before it, so that no two lists of parts read alike.
#[derive(Default)]
struct Parts(Vec<u8>);

impl Parts {
    fn add(&mut self, part: &str) -> &mut Self {
        self.0.extend((part.len() as u64).to_be_bytes());
        self.0.extend(part.as_bytes());
        self
    }

    fn endpoint(&mut self, endpoint: &Endpoint) -> &mut Self {
        let method = match &endpoint.client.auth {
            ClientAuth::None => "none",
            ClientAuth::SecretBasic(_) => "client_secret_basic",
            ClientAuth::SecretPost(_) => "client_secret_post",
            ClientAuth::PrivateKeyJwt(_) => "private_key_jwt",
        };
        self.add(endpoint.token_url.as_str()).add(&endpoint.client.id).add(method).parameters(endpoint)
    }

    /// In an order of their own: that in the configuration means nothing.
    fn parameters(&mut self, endpoint: &Endpoint) -> &mut Self {
        let mut parameters: Vec<_> = endpoint.parameters.iter().collect();
        parameters.sort();
        parameters.into_iter().fold(self.add("parameters"), |parts, (name, value)| parts.add(name).add(value))
    }

    fn assertion(&mut self, assertion: &BearerAssertion) -> &mut Self {
        // Destructured without `..`: a new claim cannot be forgotten here. Key and lifetime make no other token.
        let BearerAssertion { signer: _, issuer, audience, subject, lifetime: _ } = assertion;
        self.add(issuer).add(audience).add(if subject.is_some() { "subject" } else { "" });
        self.add(subject.as_deref().unwrap_or_default())
    }

    fn form(&mut self, form: &StaticForm) -> &mut Self {
        match form {
            StaticForm::ApiKey { header } => self.add("api_key").add(header.as_str()),
            StaticForm::Basic { username } => self.add("basic").add(username),
            StaticForm::Bearer => self.add("bearer"),
        }
    }

    fn hash(&self) -> String {
        URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, &self.0))
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, time::Duration};

    use super::*;
    use crate::grant::{Client, assertion::testing};

    fn endpoint(id: &str) -> Endpoint {
        Endpoint {
            token_url: "https://as.example/token".parse().unwrap(),
            client: Client { id: id.to_owned(), auth: ClientAuth::None },
            formerly: Vec::new(),
            issuer: None,
            parameters: Vec::new(),
        }
    }

    fn with(parameters: &[(&str, &str)]) -> Endpoint {
        let parameters = parameters.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Endpoint { parameters, ..endpoint("id") }
    }

    fn account(issuer: &str, audience: &str, subject: Option<&str>) -> Grant {
        let assertion = BearerAssertion {
            signer: testing::ed25519().0,
            issuer: issuer.to_owned(),
            audience: audience.to_owned(),
            subject: subject.map(str::to_owned),
            lifetime: Duration::from_secs(60),
        };
        Grant::JwtBearer { endpoint: endpoint(""), assertion }
    }

    /// The identity of a credential.
    #[test]
    fn everything_that_changes_a_token_changes_the_identity() {
        let elsewhere = Endpoint { token_url: "https://as.example/other".parse().unwrap(), ..endpoint("id") };
        let post = Client { id: "id".to_owned(), auth: ClientAuth::SecretPost("secret".into()) };
        let basic = Client { id: "id".to_owned(), auth: ClientAuth::SecretBasic("secret".into()) };
        let grants = [
            Grant::ClientCredentials(endpoint("id")),
            Grant::ClientCredentials(endpoint("other")),
            Grant::ClientCredentials(elsewhere),
            Grant::ClientCredentials(Endpoint { client: post, ..endpoint("id") }),
            Grant::ClientCredentials(Endpoint { client: basic, ..endpoint("id") }),
            Grant::ClientCredentials(with(&[("audience", "a")])),
            Grant::ClientCredentials(with(&[("audience", "b")])),
            Grant::ClientCredentials(with(&[("audience", "a"), ("x", "")])),
            Grant::RefreshToken { endpoint: endpoint("id"), first: None },
            Grant::RefreshToken { endpoint: with(&[("audience", "a")]), first: None },
            account("one", "aud", None),
            account("other", "aud", None),
            account("one", "other", None),
            account("one", "aud", Some("jane")),
            account("one", "aud", Some("")),
            Grant::Static { form: StaticForm::Bearer, first: None },
            Grant::Static { form: StaticForm::Basic { username: "me".to_owned() }, first: None },
        ];
        let identities: HashSet<String> = grants.iter().map(Grant::identity).collect();
        assert_eq!(identities.len(), grants.len());
        let same = Grant::ClientCredentials(with(&[("x", ""), ("audience", "a")]));
        assert_eq!(same.identity(), grants[7].identity(), "the order of parameters means nothing");
    }

    /// The identity of a credential: neither has a client_id.
    #[test]
    fn two_service_accounts_share_neither_records_nor_rests() {
        let (one, other) = (account("one", "aud", None), account("other", "aud", None));
        assert_ne!(one.requester(), other.requester());
        assert!(!one.bindings().include(other.bindings().own(), None));
        let named = Grant::ClientCredentials(endpoint("id"));
        assert_eq!(named.requester(), endpoint("id").binding(), "as versions before called it");
    }

    /// P-K7, row 49.
    #[test]
    fn a_grant_belongs_to_its_endpoint_its_former_ones_and_its_issuer() {
        let here = |formerly: &[&str], issuer: Option<&str>| {
            let formerly = formerly.iter().map(|url| url.parse().unwrap()).collect();
            let endpoint = Endpoint { formerly, issuer: issuer.map(str::to_owned), ..endpoint("id") };
            Grant::RefreshToken { endpoint, first: None }.bindings()
        };
        let (own, old) = ("https://as.example/token id", "https://old.example/token id");
        for (bindings, binding, issuer, expected) in [
            (here(&[], None), own, None, true),
            (here(&[], None), "https://as.example/token other", None, false),
            (here(&[], None), "https://as.example/token/ id", None, false),
            (here(&[], None), old, None, false),
            (here(&["https://old.example/token"], None), old, None, true),
            (here(&["https://old.example/token"], None), "https://old.example/token other", None, false),
            (here(&[], Some("https://as.example")), own, None, true),
            (here(&[], Some("https://as.example")), old, Some("https://as.example id"), true),
            (here(&[], Some("https://as.example")), old, Some("https://as.example other"), false),
            (here(&[], None), old, Some("https://as.example id"), false),
        ] {
            assert_eq!(bindings.include(binding, issuer), expected, "{bindings:?} {binding} {issuer:?}");
        }
        assert_eq!(here(&["https://old.example/token"], None).own(), own);
    }

    #[test]
    fn only_parameters_make_other_tokens_of_a_stored_grant() {
        let variant = |endpoint| Grant::RefreshToken { endpoint, first: None }.variant();
        assert_eq!(variant(endpoint("id")), None);
        assert_ne!(variant(with(&[("audience", "a")])), variant(with(&[("audience", "b")])));
    }
}

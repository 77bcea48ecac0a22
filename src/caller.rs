//! Who calls. Each kind of caller has names of its own shape, so that no proof of one kind can give the name of another.

use std::{fmt, sync::Arc};

/// A caller, as far as it has shown who it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Caller {
    /// Somebody on this machine, over the loopback interface: `local`.
    Local,
    /// Somebody elsewhere who has shown no proof: `anonymous`.
    Anonymous,
    /// A workload with an X.509-SVID (mutual TLS).
    Spiffe(SpiffeId),
    /// A pod with a token of its Kubernetes ServiceAccount.
    ServiceAccount(ServiceAccount),
    /// A holder of a configured token.
    Token(TokenName),
    /// A process on this machine, over a Unix-domain socket.
    UnixUser(UnixUser),
}

impl Caller {
    /// The name that policy rows match.
    pub fn name(&self) -> &str {
        match self {
            Self::Local => "local",
            Self::Anonymous => "anonymous",
            Self::Spiffe(id) => id.as_str(),
            Self::ServiceAccount(account) => &account.0,
            Self::Token(token) => &token.0,
            Self::UnixUser(user) => &user.0,
        }
    }
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A text that is no name of this kind of caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadName(&'static str);

/// The name of a SPIFFE trust domain: lower-case letters, digits, `.`, `-` and `_` (SPIFFE-ID §2.1).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TrustDomain(Arc<str>);

impl TrustDomain {
    /// The most bytes of a name (SPIFFE-ID §2.3).
    const MAX_BYTES: usize = 255;

    /// Checks a name.
    ///
    /// # Errors
    ///
    /// [`BadName`] if the text is none.
    pub fn new(text: &str) -> Result<Self, BadName> {
        let good = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, b'.' | b'-' | b'_');
        if (1..=Self::MAX_BYTES).contains(&text.len()) && text.bytes().all(good) {
            return Ok(Self(text.into()));
        }
        Err(BadName("a trust domain has 1 to 255 lower-case letters, digits, '.', '-' or '_'"))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A SPIFFE ID of a workload: `spiffe://TRUST-DOMAIN/PATH`, the path not empty (SPIFFE-ID §2).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SpiffeId(Arc<str>);

impl SpiffeId {
    /// The most bytes of an ID (SPIFFE-ID §2.3).
    const MAX_BYTES: usize = 2048;

    /// Checks an ID. Only the one normal spelling is taken, so that equal means equal bytes.
    ///
    /// # Errors
    ///
    /// [`BadName`] if the text is no such ID, or one of a trust domain rather than of a workload.
    pub fn new(text: &str) -> Result<Self, BadName> {
        const SHAPE: BadName = BadName("a workload's SPIFFE ID has the form spiffe://trust-domain/path");
        let (domain, path) = text.strip_prefix("spiffe://").and_then(|rest| rest.split_once('/')).ok_or(SHAPE)?;
        TrustDomain::new(domain)?;
        let in_segment = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'-' | b'_');
        let good = |segment: &str| !matches!(segment, "" | "." | "..") && segment.bytes().all(in_segment);
        if text.len() <= Self::MAX_BYTES && path.split('/').all(good) { Ok(Self(text.into())) } else { Err(SHAPE) }
    }

    /// The whole ID.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the ID belongs to this trust domain.
    pub fn is_of(&self, domain: &TrustDomain) -> bool {
        let path = self.0.strip_prefix("spiffe://").and_then(|rest| rest.strip_prefix(domain.as_str()));
        path.is_some_and(|path| path.starts_with('/'))
    }
}

/// A Kubernetes ServiceAccount, under the user name it has there: `system:serviceaccount:NAMESPACE:NAME`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ServiceAccount(Arc<str>);

impl ServiceAccount {
    /// Checks a user name.
    ///
    /// # Errors
    ///
    /// [`BadName`] if it is not that of a ServiceAccount.
    pub fn new(user: &str) -> Result<Self, BadName> {
        const SHAPE: BadName = BadName("a ServiceAccount's user name is system:serviceaccount:NAMESPACE:NAME");
        let names = user.strip_prefix("system:serviceaccount:").ok_or(SHAPE)?;
        let (namespace, name) = names.split_once(':').ok_or(SHAPE)?;
        // A namespace is a DNS label, a ServiceAccount's name a DNS subdomain (RFC 1123).
        let good = is_dns_label(namespace) && name.len() <= 253 && name.split('.').all(is_dns_label);
        if good { Ok(Self(user.into())) } else { Err(SHAPE) }
    }
}

fn is_dns_label(text: &str) -> bool {
    let inside = text.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-');
    (1..=63).contains(&text.len()) && inside && !text.starts_with('-') && !text.ends_with('-')
}

/// The name of a configured token: `token:NAME`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TokenName(Arc<str>);

impl TokenName {
    /// Checks a name, which stands here without `token:`.
    ///
    /// # Errors
    ///
    /// [`BadName`] if it is not 1 to 64 letters, digits, `-`, `_` or `.`.
    pub fn new(name: &str) -> Result<Self, BadName> {
        let good = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.');
        if (1..=64).contains(&name.len()) && name.bytes().all(good) {
            return Ok(Self(format!("token:{name}").into()));
        }
        Err(BadName("write 1 to 64 letters, digits, '-', '_' or '.'"))
    }
}

/// A user of this machine: `uid:NUMBER`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct UnixUser(Arc<str>);

impl UnixUser {
    /// The user of this number.
    pub fn new(uid: u32) -> Self {
        Self(format!("uid:{uid}").into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spiffe_ids_have_one_spelling() {
        for good in ["spiffe://acme/a", "spiffe://acme.example/ns/billing/sa/api", "spiffe://a-b_c.9/X/y.z/..."] {
            assert_eq!(SpiffeId::new(good).map(|id| id.as_str().to_owned()).as_deref(), Ok(good));
        }
        let long = format!("spiffe://acme/{}", "a".repeat(2048 - "spiffe://acme/".len()));
        assert!(SpiffeId::new(&long).is_ok());
        for bad in [
            "",
            "spiffe://acme",
            "spiffe://acme/",
            "spiffe:///a",
            "SPIFFE://acme/a",
            "https://acme/a",
            "spiffe://Acme/a",
            "spiffe://acme:443/a",
            "spiffe://me@acme/a",
            "spiffe://acme/a/",
            "spiffe://acme//a",
            "spiffe://acme/./a",
            "spiffe://acme/../a",
            "spiffe://acme/a?b",
            "spiffe://acme/a#b",
            "spiffe://acme/%61",
            "spiffe://acme/a b",
            "spiffe://acme/ä",
            "spiffe://acme/a*",
            &format!("{long}a"),
            &format!("spiffe://{}/a", "a".repeat(256)),
        ] {
            assert!(SpiffeId::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_trust_domain_is_matched_whole() {
        let acme = TrustDomain::new("acme").unwrap();
        assert!(SpiffeId::new("spiffe://acme/a").unwrap().is_of(&acme));
        for other in ["spiffe://acme.evil/a", "spiffe://acmeevil/a", "spiffe://evil/acme", "spiffe://ac/me"] {
            assert!(!SpiffeId::new(other).unwrap().is_of(&acme), "{other}");
        }
    }

    #[test]
    fn service_accounts_have_a_namespace_and_a_name() {
        for (user, good) in [
            ("system:serviceaccount:billing:api", true),
            ("system:serviceaccount:billing:api.v1", true),
            ("system:serviceaccount:billing", false),
            ("system:serviceaccount::api", false),
            ("system:serviceaccount:billing:", false),
            ("system:serviceaccount:billing:api:x", false),
            ("system:serviceaccount:Billing:api", false),
            ("system:serviceaccount:a.b:api", false),
            ("system:serviceaccount:*:api", false),
            ("system:node:billing:api", false),
            ("local", false),
        ] {
            assert_eq!(ServiceAccount::new(user).is_ok(), good, "{user}");
        }
    }

    /// Whatever somebody can choose of a name stands behind the words of its kind.
    #[test]
    fn no_kind_can_give_the_name_of_another() {
        let callers = [
            Caller::Local,
            Caller::Anonymous,
            Caller::Spiffe(SpiffeId::new("spiffe://token/uid").unwrap()),
            Caller::ServiceAccount(ServiceAccount::new("system:serviceaccount:local:token").unwrap()),
            Caller::Token(TokenName::new("local").unwrap()),
            Caller::UnixUser(UnixUser::new(1000)),
        ];
        let names = callers.each_ref().map(Caller::name);
        assert_eq!(
            names,
            [
                "local",
                "anonymous",
                "spiffe://token/uid",
                "system:serviceaccount:local:token",
                "token:local",
                "uid:1000"
            ]
        );
        for name in names {
            assert_eq!(SpiffeId::new(name).is_ok(), name.starts_with("spiffe://"), "{name}");
            assert_eq!(ServiceAccount::new(name).is_ok(), name.starts_with("system:"), "{name}");
            assert_eq!(TokenName::new(name).is_ok(), matches!(name, "local" | "anonymous"), "{name}");
        }
    }
}

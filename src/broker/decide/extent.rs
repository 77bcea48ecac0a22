//! Whether a request stays within what its grant was given.

use crate::{
    name::{Resources, Scopes},
    token::TokenKey,
};

/// What a request asks for, beside what the grant was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::broker) enum Extent {
    /// The credential's own scopes and resources.
    Default,
    /// Other scopes or fewer resources, which the grant has.
    Within,
    /// Perhaps more than the grant has: a refusal says nothing about the grant.
    Beyond,
    /// More than the grant has, at a provider that gives no more on a refresh, or resources that are a risk. Nothing is sent.
    Excluded,
}

/// What a grant gives.
#[derive(Clone, Copy, Debug)]
pub(in crate::broker) struct Bounds<'a> {
    /// The credential's own scopes.
    pub(in crate::broker) scopes: &'a Scopes,
    /// The credential's own resources.
    pub(in crate::broker) resources: &'a Resources,
    /// All scopes of the grant, where the provider or an import named them.
    pub(in crate::broker) granted: Option<&'a Scopes>,
    /// Whether the provider gives no other scopes on a refresh.
    pub(in crate::broker) scope_bound: bool,
    /// Whether other resources than the credential's own are a risk: a provider that spends refresh tokens may do so before it
    /// refuses a resource, as node-oidc-provider does, and then the grant is lost.
    pub(in crate::broker) resource_bound: bool,
    /// Whether a refresh may name scopes. Where it may not, no others can be asked for.
    pub(in crate::broker) says_scope: bool,
}

/// Compares a request with what its grant was given. Scopes are compared for the credential's own resources alone: what a
/// provider names as granted is what it grants for these.
pub(in crate::broker) fn extent(asked: &TokenKey, bounds: &Bounds<'_>) -> Extent {
    let TokenKey { grant: _, scopes, resources } = asked;
    if scopes == bounds.scopes && resources == bounds.resources {
        return Extent::Default;
    }
    let is_granted = |scope: &str| {
        let granted = bounds.granted.is_some_and(|granted| granted.iter().any(|one| one == scope));
        granted || bounds.scopes.iter().any(|one| one == scope)
    };
    let has_resources = resources.iter().all(|resource| bounds.resources.iter().any(|one| one == resource))
        && resources.is_empty() == bounds.resources.is_empty();
    let has_scopes = scopes.iter().all(is_granted);
    match (has_resources, has_scopes) {
        (true, true) => Extent::Within,
        (_, false) if !bounds.says_scope => Extent::Excluded,
        (true, false) if bounds.scope_bound && bounds.granted.is_some() => Extent::Excluded,
        (false, _) if bounds.resource_bound => Extent::Excluded,
        (_, _) => Extent::Beyond,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        name::{CredentialName, Subject},
        token::GrantKey,
    };

    fn key(scopes: &[&str], resources: &[&str]) -> TokenKey {
        let grant = GrantKey { credential: CredentialName::new("crm").unwrap(), subject: Subject::default() };
        let scopes = Scopes::new(scopes.iter().copied()).unwrap();
        TokenKey { grant, scopes, resources: Resources::new(resources.iter().copied()).unwrap() }
    }

    /// S1, P-K1, P-K2.
    #[test]
    fn a_request_is_measured_by_the_whole_grant_and_the_credential() {
        use Extent::{Beyond, Default, Excluded, Within};
        let own = key(&["read", "write"], &["urn:a", "urn:b"]);
        let granted = key(&["read", "admin"], &[]).scopes;
        let bounds = Bounds {
            scopes: &own.scopes,
            resources: &own.resources,
            granted: None,
            scope_bound: true,
            resource_bound: false,
            says_scope: true,
        };
        let of = |asked: &TokenKey, granted: Option<&Scopes>, scope_bound| {
            extent(asked, &Bounds { granted, scope_bound, ..bounds })
        };
        for (scopes, resources, unknown, known, unbound) in [
            (&["read", "write"][..], &["urn:a", "urn:b"][..], Default, Default, Default),
            (&["read"], &["urn:a", "urn:b"], Within, Within, Within),
            (&["read", "write"], &["urn:a"], Within, Within, Within),
            (&["admin"], &["urn:a", "urn:b"], Beyond, Within, Within),
            (&["read", "other"], &["urn:a", "urn:b"], Beyond, Excluded, Beyond),
            (&["other"], &["urn:a"], Beyond, Excluded, Beyond),
            (&["read", "write"], &["urn:c"], Beyond, Beyond, Beyond),
            (&["other"], &["urn:c"], Beyond, Beyond, Beyond),
        ] {
            let asked = key(scopes, resources);
            let found = [of(&asked, None, true), of(&asked, Some(&granted), true), of(&asked, Some(&granted), false)];
            assert_eq!(found, [unknown, known, unbound], "{scopes:?} {resources:?}");
            let risky = extent(&asked, &Bounds { resource_bound: true, ..bounds });
            let is_foreign = resources.contains(&"urn:c");
            assert_eq!(risky, if is_foreign { Excluded } else { unknown }, "{scopes:?} {resources:?}");
            let silent = extent(&asked, &Bounds { says_scope: false, ..bounds });
            let is_own = scopes.iter().all(|scope| own.scopes.iter().any(|one| one == *scope));
            assert_eq!(silent, if is_own { unknown } else { Excluded }, "{scopes:?} {resources:?}");
        }
    }
}

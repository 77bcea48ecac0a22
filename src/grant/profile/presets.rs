//! The providers that bearerd knows by name. Each value has its source beside it.

use std::time::Duration;

use super::{RetryDead, RotationProfile, RuleTexts};

/// What is known of one provider.
#[derive(Clone, Copy, Debug)]
pub struct Preset {
    /// Where rotation is a choice of the provider's customer, this is what holds when it is on and nothing else about it
    /// was chosen.
    pub(super) rotation: RotationProfile,
    pub(super) scope_bound: bool,
    pub(super) scope_on_refresh: bool,
    pub(super) retry_dead: RetryDead,
    pub(super) refused_when: RuleTexts,
    pub(super) token_types: &'static [&'static str],
}

/// A provider by its name.
pub fn named(name: &str) -> Option<&'static Preset> {
    PRESETS.iter().find(|(known, _)| *known == name).map(|(_, preset)| preset)
}

/// A provider that is known for nothing special.
const PLAIN: Preset = Preset {
    rotation: RotationProfile::Strict,
    scope_bound: true,
    scope_on_refresh: true,
    retry_dead: RetryDead::Rarely,
    refused_when: RuleTexts::NONE,
    token_types: &[],
};

/// What holds for every provider: sentences that can mean nothing else, whoever says them.
pub(super) const COMMON: RuleTexts = RuleTexts {
    // Zoho says "Access Denied" with such a description at status 400.
    rate_limited: &[
        "400 body ~ (?i)too many requests",
        "401 body ~ (?i)too many requests",
        "403 body ~ (?i)too many requests",
        "400 body ~ (?i)rate.?limit.{0,3}exceeded",
        "403 body ~ (?i)rate.?limit.{0,3}exceeded",
    ],
    retry: &[
        // Salesforce, while another refresh of the same token is under way (segmentio/action-destinations #2300,
        // SalesforceMobileSDK-iOS #3731).
        "400 invalid_grant body ~ (?i)expired authorization code",
        "400 body ~ (?i)token request is already being processed",
        // Salesforce (amazon-connect-salesforce-lambda #43).
        "400 body ~ (?i)retry your request",
        "400 unknown_error",
    ],
    request: &[
        // learn.microsoft.com, "Handle errors and exceptions in MSAL": the user has to do something for this one resource.
        "400 body ~ \"suberror\"\\s*:\\s*\"(basic_action|additional_action|message_only|consent_required|protection_policy_required)\"",
        // learn.microsoft.com, "Microsoft Entra authentication and authorization error codes": consent, multi-factor
        // authentication and conditional access.
        "400 invalid_grant body ~ AADSTS(65001|50076|50079|50158|53000|53001|53002|53003)\\b",
    ],
    dead: &[],
};

/// Every provider, by its name; sorted.
pub const PRESETS: &[(&str, Preset)] = &[
    // community.developer.atlassian.com, topic 54172: ten minutes; after that all of them are invalid.
    ("atlassian", Preset { rotation: grace(600), ..PLAIN }),
    // auth0/docs-v2, refresh token rotation: the leeway is disabled unless configured; reuse revokes the family.
    ("auth0", PLAIN),
    // learn.microsoft.com, "Refresh tokens in the Microsoft identity platform": old ones are not revoked by their use, and
    // one serves every resource and scope that the client has consent for.
    ("entra", Preset { rotation: RotationProfile::OldSurvives, scope_bound: false, ..PLAIN }),
    // docs.github.com, "Refreshing user access tokens": no second use, and the use ends the old access token too.
    ("github", PLAIN),
    // developers.google.com, "Using OAuth 2.0 for Web Server Applications": a refresh gives an access token alone; with
    // incremental authorization it serves scopes that were granted later.
    ("google", Preset { rotation: RotationProfile::None, scope_bound: false, ..PLAIN }),
    // ory/hydra, spec/config.json: the grace period is 0 by default; the use also ends the old access token.
    ("hydra", PLAIN),
    // panva/node-oidc-provider, lib/actions/grants/refresh_token.js: a consumed one revokes the grant.
    ("node-oidc-provider", PLAIN),
    // developer.okta.com, guide "Refresh access tokens": 30 seconds by default, 0 to 60; then all tokens end.
    ("okta", Preset { rotation: grace(30), ..PLAIN }),
    // help.salesforce.com, article 005316711: reuse revokes the current refresh token and the access tokens. "OAuth 2.0
    // Refresh Token Flow": a refresh cannot change the scopes, and says "scope parameter not supported".
    ("salesforce", Preset { scope_on_refresh: false, ..PLAIN }),
    // docs.slack.dev, "Using token rotation": the old one is revoked, and no time is promised.
    ("slack", PLAIN),
    // community.xero.com, questions 105714701 and 127920775: 30 minutes, as often as needed.
    ("xero", Preset { rotation: grace(1800), ..PLAIN }),
];

const fn grace(seconds: u64) -> RotationProfile {
    RotationProfile::Grace { window: Duration::from_secs(seconds) }
}

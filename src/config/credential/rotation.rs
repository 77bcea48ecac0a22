//! What the provider does with a used refresh token: as it is written, or as is known of a provider by name.

use std::time::Duration;

use crate::{
    config::{
        reader::Reader,
        value::{self, some_time},
    },
    grant::{Grant, rotation::RotationProfile},
};

#[derive(Clone, Copy)]
enum Kind {
    Strict,
    Grace,
    OldSurvives,
    None,
}

const KINDS: &[(&str, Kind)] =
    &[("strict", Kind::Strict), ("grace", Kind::Grace), ("old_survives", Kind::OldSurvives), ("none", Kind::None)];

/// What each provider's own documents say, or its source. Where rotation is a choice of the provider's customer, this is
/// what holds when it is on and nothing else about it was chosen.
const PROVIDERS: &[(&str, RotationProfile)] = &[
    // community.developer.atlassian.com, topic 54172: ten minutes; after that all of them are invalid.
    ("atlassian", grace(600)),
    // auth0/docs-v2, refresh token rotation: the leeway is disabled unless configured; reuse revokes the family.
    ("auth0", RotationProfile::Strict),
    // learn.microsoft.com, "Refresh tokens in the Microsoft identity platform": old ones are not revoked by their use.
    ("entra", RotationProfile::OldSurvives),
    // docs.github.com, "Refreshing user access tokens": no second use, and the use ends the old access token too.
    ("github", RotationProfile::Strict),
    // developers.google.com, "Using OAuth 2.0 for Web Server Applications": a refresh gives an access token alone.
    ("google", RotationProfile::None),
    // ory/hydra, spec/config.json: the grace period is 0 by default; the use also ends the old access token.
    ("hydra", RotationProfile::Strict),
    // panva/node-oidc-provider, lib/actions/grants/refresh_token.js: a consumed one revokes the grant.
    ("node-oidc-provider", RotationProfile::Strict),
    // developer.okta.com, guide "Refresh access tokens": 30 seconds by default, 0 to 60; then all tokens end.
    ("okta", grace(30)),
    // help.salesforce.com, article 005316711: reuse revokes the current refresh token and the access tokens.
    ("salesforce", RotationProfile::Strict),
    // docs.slack.dev, "Using token rotation": the old one is revoked, and no time is promised.
    ("slack", RotationProfile::Strict),
    // community.xero.com, questions 105714701 and 127920775: 30 minutes, as often as needed.
    ("xero", grace(1800)),
];

const fn grace(seconds: u64) -> RotationProfile {
    RotationProfile::Grace { window: Duration::from_secs(seconds) }
}

/// Reads what the provider does; what is written goes before what is known. A grant that could not be read may have been
/// meant to have a refresh token.
pub(super) fn read(reader: &Reader<'_>, grant: Option<&Grant>) -> Option<RotationProfile> {
    match grant {
        Some(Grant::RefreshToken { endpoint: _, first: _ }) | None => profile(reader),
        Some(Grant::ClientCredentials(_) | Grant::JwtBearer { .. } | Grant::Static { .. }) => {
            Some(RotationProfile::default())
        }
    }
}

fn profile(reader: &Reader<'_>) -> Option<RotationProfile> {
    let provider = reader.optional("provider", |value| value::word(value, PROVIDERS));
    let known = PROVIDERS.iter().find(|(name, _)| Some(*name) == provider).map(|(_, profile)| *profile);
    let written = reader.choose("rotation", KINDS, Some(word(known.unwrap_or_default())))?;
    Some(match written {
        Kind::Strict => RotationProfile::Strict,
        Kind::OldSurvives => RotationProfile::OldSurvives,
        Kind::None => RotationProfile::None,
        Kind::Grace => match known.and_then(RotationProfile::window) {
            Some(usual) => {
                RotationProfile::Grace { window: reader.optional("rotation_grace", some_time).unwrap_or(usual) }
            }
            None => RotationProfile::Grace { window: reader.required("rotation_grace", "\"30s\"", some_time)? },
        },
    })
}

fn word(profile: RotationProfile) -> &'static str {
    match profile {
        RotationProfile::Strict => "strict",
        RotationProfile::Grace { window: _ } => "grace",
        RotationProfile::OldSurvives => "old_survives",
        RotationProfile::None => "none",
    }
}

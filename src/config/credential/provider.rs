//! What is known of a credential's provider: as it is written, or as is known of a provider by name.

use crate::{
    config::{
        key::Key,
        reader::{Reader, Value},
        value::{self, Wrong, some_time, string},
    },
    grant::{
        Grant,
        profile::{PRESETS, Preset, ProviderProfile, RuleSet, named},
        rotation::RotationProfile,
    },
    rule::Rule,
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

/// `[credentials.NAME.refused_when]`.
pub(in crate::config) const REFUSALS: &[Key] =
    &[Key::new("dead"), Key::new("retry"), Key::new("rate_limited"), Key::new("request")];

/// Reads what is known of the provider; what is written goes before what is known.
pub(super) fn read(reader: &Reader<'_>, grant: Option<&Grant>) -> Option<ProviderProfile> {
    let known = reader.optional("provider", provider).unwrap_or_default();
    let rotation = match grant {
        // A grant that could not be read may have been meant to have a refresh token.
        Some(Grant::RefreshToken { endpoint: _, first: _ }) | None => rotation(reader, known.rotation),
        Some(Grant::ClientCredentials(_) | Grant::JwtBearer { .. } | Grant::Static { .. }) => {
            Some(RotationProfile::default())
        }
    };
    let refusals = known.refusals.after(refusals(reader));
    let own = reader.list("token_types", token_type).into_iter();
    let token_types = own.chain(known.token_types.iter().cloned()).collect();
    Some(ProviderProfile { rotation: rotation?, refusals, token_types, ..known })
}

fn provider(value: &Value<'_>) -> Result<ProviderProfile, Wrong> {
    let name = value::word(value, PRESETS)?;
    Ok(named(name).map(Preset::profile).unwrap_or_default())
}

fn token_type(value: &Value<'_>) -> Result<String, Wrong> {
    let word = string(value)?.trim().to_ascii_lowercase();
    // RFC 9449 and RFC 8705 bind such a token to a key, and bearerd would present it without a proof.
    match word.as_str() {
        "dpop" | "pop" | "mac" | "n_a" => {
            Err(Wrong::new(value, "is not presented as Bearer", "leave it out; such tokens need a proof of a key"))
        }
        _ => Ok(word),
    }
}

/// The rules of `refused_when`.
fn refusals(reader: &Reader<'_>) -> RuleSet {
    let Some(table) = reader.optional_table("refused_when", REFUSALS) else { return RuleSet::default() };
    let rules = |key: &str| super::set(&table, key, |rules| Rule::parse_all(&rules).map_err(|(_, error)| error));
    RuleSet {
        dead: rules("dead"),
        retry: rules("retry"),
        rate_limited: rules("rate_limited"),
        request: rules("request"),
    }
}

fn rotation(reader: &Reader<'_>, known: RotationProfile) -> Option<RotationProfile> {
    let written = reader.choose("rotation", KINDS, Some(word(known)))?;
    Some(match written {
        Kind::Strict => RotationProfile::Strict,
        Kind::OldSurvives => RotationProfile::OldSurvives,
        Kind::None => RotationProfile::None,
        Kind::Grace => match known.window() {
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

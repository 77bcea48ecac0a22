//! What a configuration says without its secrets.

use toml::de::DeTable;

use super::report::Warning;

/// A configuration that was checked without its secrets, which may not be at hand where it is checked.
#[derive(Clone, Debug)]
pub struct Outline {
    /// The credentials, by name, and the grant of each.
    pub credentials: Vec<(String, String)>,
    /// How many rows the policy has.
    pub rows: usize,
    /// What is allowed and probably not meant.
    pub warnings: Vec<Warning>,
}

impl Outline {
    /// The outline of a document in which no mistake was found.
    pub(super) fn of(document: &DeTable<'_>, warnings: Vec<Warning>) -> Self {
        let tables = document.get("credentials").and_then(|value| value.get_ref().as_table());
        let grant = |value: &toml::de::DeValue<'_>| {
            let word = value.as_table().and_then(|table| table.get("grant"));
            word.and_then(|word| word.get_ref().as_str()).unwrap_or_default().to_owned()
        };
        let credentials = tables.into_iter().flatten();
        let credentials =
            credentials.map(|(name, value)| (name.get_ref().to_string(), grant(value.get_ref()))).collect();
        let rows = document.get("allow").and_then(|value| value.get_ref().as_array()).map_or(0, |rows| rows.len());
        Self { credentials, rows, warnings }
    }
}

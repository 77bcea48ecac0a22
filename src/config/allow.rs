//! `[[allow]]`: who may do what. What no row allows is denied.

use super::{
    credential::Credentials,
    key::Key,
    reader::{Reader, Value},
    server::Server,
    value::{Wrong, string, text, word},
};

pub(super) const KEYS: &[Key] = &[Key::new("caller"), Key::new("credentials"), Key::new("actions")];

/// A row of the policy. In a pattern `*` stands for any run of characters, `/` and none at all included; everything
/// else stands for itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allow {
    /// A pattern of callers' names.
    pub caller: String,
    /// Patterns of credentials' names.
    pub credentials: Vec<String>,
    /// What these callers may do with these credentials.
    pub actions: Vec<Action>,
}

/// What a caller does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// `get`: see a token.
    Get,
    /// `invalidate`: report a token as rejected.
    Invalidate,
    /// `call`: have a request sent with a token and never see it.
    Call,
    /// `administer`: import, describe, list and revoke grants.
    Administer,
}

const ACTIONS: &[(&str, Action)] = &[
    ("get", Action::Get),
    ("invalidate", Action::Invalidate),
    ("call", Action::Call),
    ("administer", Action::Administer),
];

/// Reads all rows. A row that allows nothing is a mistake, one that can match no credential a warning.
pub(super) fn read(rows: &[Reader<'_>], credentials: &Credentials) -> Vec<Allow> {
    rows.iter().filter_map(|row| read_row(row, credentials)).collect()
}

fn read_row(row: &Reader<'_>, credentials: &Credentials) -> Option<Allow> {
    let caller = row.required("caller", "\"spiffe://example.org/*\"", string);
    let patterns = row.list("credentials", |value| pattern(row, value, credentials));
    let actions = row.list("actions", action);
    for (key, right) in [("credentials", "[\"name\", \"prefix-*\"]"), ("actions", "[\"get\", \"invalidate\"]")] {
        match row.value(key).map(|value| value.get_ref().as_array().is_some_and(|array| array.is_empty())) {
            None => row.missing(key, right),
            Some(true) => row.misfit(key, "is empty, so the row allows nothing", &format!("write {right}")),
            Some(false) => {}
        }
    }
    Some(Allow { caller: caller?, credentials: patterns, actions })
}

/// Without rows, every local caller is allowed; callers from elsewhere never are.
pub(super) fn fit(root: &Reader<'_>, server_table: &Reader<'_>, server: &Server) {
    if root.value("allow").and_then(|value| value.get_ref().as_array()).is_some_and(|rows| !rows.is_empty()) {
        return;
    }
    let right = "add [[allow]] with caller, credentials and actions";
    if server.listen.ip().is_loopback() {
        root.warn(None, "there is no [[allow]]: every caller on this host may do everything", right);
    } else {
        server_table.misfit("listen", "is open to other hosts, and there is no [[allow]]", right);
    }
}

fn action(value: &Value<'_>) -> Result<Action, Wrong> {
    let word = word(value, ACTIONS)?;
    let found = ACTIONS.iter().find(|(known, _)| *known == word);
    found.map(|(_, action)| *action).ok_or_else(|| Wrong::new(value, "is no action", "write \"get\""))
}

fn pattern(row: &Reader<'_>, value: &Value<'_>, credentials: &Credentials) -> Result<String, Wrong> {
    let pattern = text(value)?;
    if !pattern.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.*".contains(c)) {
        let right = "write a credential's name; '*' stands for any run of characters";
        return Err(Wrong::new(value, "holds a pattern that no credential's name can match", right));
    }
    if !credentials.names().any(|name| matches(pattern, name)) {
        let right = "write the name of a [credentials.…] table";
        row.warn(Some(value.span()), "this pattern matches no credential", right);
    }
    Ok(pattern.to_owned())
}

/// Whether a pattern matches the whole of a text.
fn matches(pattern: &str, text: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut text) = text.strip_prefix(start) else { return false };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let end = parts.pop().unwrap_or_default();
    for part in parts {
        let Some(at) = text.find(part) else { return false };
        text = text.get(at + part.len()..).unwrap_or_default();
    }
    text.ends_with(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_is_any_run_of_characters() {
        for (pattern, text, matching) in [
            ("sap", "sap", true),
            ("sap", "sap-1", false),
            ("sap-*", "sap-1", true),
            ("sap-*", "sap-", true),
            ("sap-*", "sap", false),
            ("*", "", true),
            ("*-prod", "sap-prod", true),
            ("*-prod", "sap-prod-2", false),
            ("a*b*c", "axxbyyc", true),
            ("a*b*c", "ac", false),
            ("ab*ba", "aba", false),
            ("**", "x", true),
        ] {
            assert_eq!(matches(pattern, text), matching, "{pattern} {text}");
        }
    }
}

//! `[[allow]]`: who may do what. What no row allows is denied.

use super::{
    credential::Credentials,
    key::Key,
    reader::{Reader, Value},
    server::Server,
    value::{Wrong, string, text, word},
};
use crate::policy::{Action, Pattern, Row};

pub(super) const KEYS: &[Key] = &[Key::new("caller"), Key::new("credentials"), Key::new("actions")];

const ACTIONS: &[(&str, Action)] = &[
    (Action::Get.word(), Action::Get),
    (Action::Invalidate.word(), Action::Invalidate),
    (Action::Call.word(), Action::Call),
    (Action::Administer.word(), Action::Administer),
];

/// Reads all rows. A row that allows nothing is a mistake, one that can match no credential a warning.
pub(super) fn read(rows: &[Reader<'_>], credentials: &Credentials) -> Vec<Row> {
    rows.iter().filter_map(|row| read_row(row, credentials)).collect()
}

fn read_row(row: &Reader<'_>, credentials: &Credentials) -> Option<Row> {
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
    Some(Row { caller: Pattern::new(caller?), credentials: patterns, actions })
}

/// Without rows, every local caller is allowed; callers from elsewhere never are.
pub(super) fn fit(root: &Reader<'_>, server_table: &Reader<'_>, server: &Server) {
    if root.value("allow").and_then(|value| value.get_ref().as_array()).is_some_and(|rows| !rows.is_empty()) {
        return;
    }
    let right = "add [[allow]] with caller, credentials and actions";
    let has_clients = server.tls.as_ref().is_some_and(|tls| tls.clients.is_some());
    if server.listen.is_some_and(|listen| !listen.ip().is_loopback()) {
        server_table.misfit("listen", "is open to other hosts, and there is no [[allow]]", right);
    } else if server.unix_socket.is_some() {
        server_table.misfit("unix_socket", "tells its callers apart, and there is no [[allow]]", right);
    } else if has_clients {
        server_table.misfit("tls", "tells callers apart, and there is no [[allow]]", right);
    } else if root.value("identity").is_some() {
        root.misfit("identity", "tells callers apart, and there is no [[allow]]", right);
    } else {
        root.warn(None, "there is no [[allow]]: every caller on this host may do everything", right);
    }
}

fn action(value: &Value<'_>) -> Result<Action, Wrong> {
    let word = word(value, ACTIONS)?;
    let found = ACTIONS.iter().find(|(known, _)| *known == word);
    found.map(|(_, action)| *action).ok_or_else(|| Wrong::new(value, "is no action", "write \"get\""))
}

fn pattern(row: &Reader<'_>, value: &Value<'_>, credentials: &Credentials) -> Result<Pattern, Wrong> {
    let written = text(value)?;
    if !written.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.*".contains(c)) {
        let right = "write a credential's name; '*' stands for any run of characters";
        return Err(Wrong::new(value, "holds a pattern that no credential's name can match", right));
    }
    let pattern = Pattern::new(written);
    if !credentials.names().any(|name| pattern.matches(name)) {
        let right = "write the name of a [credentials.…] table";
        row.warn(Some(value.span()), "this pattern matches no credential", right);
    }
    Ok(pattern)
}

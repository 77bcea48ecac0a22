//! `[[allow]]`: who may do what. What no row allows is denied.

use std::{collections::HashSet, sync::Arc};

use super::{
    credential::Credentials,
    key::Key,
    reader::{Reader, Value},
    server::Server,
    value::{Wrong, boolean, parsed, string, text, word},
};
use crate::{
    caller::Caller,
    name::{Resources, Scopes, Subject},
    policy::{Action, PathPrefix, Pattern, Row, SubjectPattern},
};

pub(super) const KEYS: &[Key] = &[
    Key::new("name"),
    Key::new("deny"),
    Key::new("caller"),
    Key::new("credentials"),
    Key::new("actions"),
    Key::new("subjects"),
    Key::new("scopes"),
    Key::new("resources"),
    Key::new("methods"),
    Key::new("paths"),
];

const ACTIONS: &[(&str, Action)] = &[
    (Action::Get.word(), Action::Get),
    (Action::Invalidate.word(), Action::Invalidate),
    (Action::Call.word(), Action::Call),
    (Action::Administer.word(), Action::Administer),
];

/// Each list of a row, whether the row needs it, and how it is written.
const LISTS: [(&str, bool, &str); 7] = [
    ("credentials", true, "[\"name\", \"prefix-*\"]"),
    ("actions", true, "[\"get\", \"invalidate\"]"),
    ("subjects", false, "[\"\"] for the service itself alone"),
    ("scopes", false, "[\"read\", \"files.*\"]"),
    ("resources", false, "[\"https://api.example/*\"]"),
    ("methods", false, "[\"GET\"]"),
    ("paths", false, "[\"/v1/contacts\"]"),
];

/// Reads all rows. A row that allows nothing is a mistake, one that can match no credential a warning.
pub(super) fn read(rows: &[Reader<'_>], credentials: &Credentials) -> Vec<Row> {
    let mut names = HashSet::new();
    for row in rows {
        if let Some(name) = row.value("name").and_then(|value| value.get_ref().as_str())
            && !names.insert(name)
        {
            row.misfit(
                "name",
                "is the name of another row too",
                "write another one: it says which row allowed a request",
            );
        }
    }
    let read: Vec<(&Reader<'_>, Row)> =
        rows.iter().filter_map(|row| read_row(row, credentials).map(|read| (row, read))).collect();
    for (row, report) in read.iter().filter(|(_, row)| !row.deny && row.actions.contains(&Action::Invalidate)) {
        let gets = |other: &Row| !other.deny && other.caller == report.caller && other.actions.contains(&Action::Get);
        if !read.iter().any(|(_, other)| gets(other)) {
            let right = "add \"get\" if these callers may see tokens; \"call\" alone reports rejected tokens by itself";
            let title = "\"invalidate\" without \"get\" reports a token and returns only the next one's generation";
            row.warn(row.value("actions").map(Value::span), title, right);
        }
    }
    read.into_iter().map(|(_, row)| row).collect()
}

fn read_row(row: &Reader<'_>, credentials: &Credentials) -> Option<Row> {
    let caller = row.required("caller", "\"spiffe://example.org/*\"", string);
    let deny = row.optional("deny", boolean).unwrap_or(false);
    let everything = |key: &str| deny && row.value(key).is_none();
    let patterns = match everything("credentials") {
        true => vec![Pattern::new("*")],
        false => row.list("credentials", |value| credential_pattern(row, value, credentials)),
    };
    let actions = if everything("actions") { Action::ALL.to_vec() } else { row.list("actions", action) };
    let read = Row {
        deny,
        name: row.optional("name", row_name),
        subjects: some_list(row, "subjects", subject_pattern),
        scopes: some_list(row, "scopes", scope_pattern),
        resources: some_list(row, "resources", resource_pattern),
        methods: some_list(row, "methods", method),
        paths: some_list(row, "paths", path),
        ..Row::new(Pattern::new(caller.as_deref().unwrap_or_default()), patterns, actions)
    };
    for (key, needed, right) in LISTS {
        match row.value(key).map(|value| value.get_ref().as_array().is_some_and(|array| array.is_empty())) {
            None if needed && !deny => row.missing(key, right),
            Some(true) if deny => row.misfit(key, "is empty, so the row denies nothing", &format!("write {right}")),
            Some(true) if needed => row.misfit(key, "is empty, so the row allows nothing", &format!("write {right}")),
            Some(true) => {
                let right = format!("write {right}, or leave it out");
                row.misfit(key, "is empty, so the row allows nothing", &right);
            }
            None | Some(false) => {}
        }
    }
    fit_row(row, &read);
    fit_subjects(row, &read, credentials);
    caller.map(|_| read)
}

/// A limit must be able to limit something.
fn fit_row(row: &Reader<'_>, read: &Row) {
    let calls = read.actions.contains(&Action::Call);
    let chooses = read.actions.iter().any(|action| action.chooses_a_token());
    for (key, limits, right) in [
        ("scopes", chooses, "it limits \"get\", \"invalidate\" and \"call\", and the row has none of them"),
        ("resources", chooses, "it limits \"get\", \"invalidate\" and \"call\", and the row has none of them"),
        ("methods", calls, "it limits \"call\", and the row does not have that action"),
        ("paths", calls, "it limits \"call\", and the row does not have that action"),
    ] {
        let Some(value) = row.value(key) else { continue };
        let unread = row.value("actions").is_none() || read.actions.is_empty();
        if !limits && !unread {
            row.misfit(key, "limits nothing here", right);
        } else if !read.deny && read.actions.contains(&Action::Get) && matches!(key, "methods" | "paths") {
            let right = "whoever gets the token can call whatever it is good for: leave out \"get\", or this limit";
            row.warn(Some(value.span()), "this limits calls, and the row gives out the token itself", right);
        }
    }
}

/// Where bearerd signs for any subject, a row says for which.
fn fit_subjects(row: &Reader<'_>, read: &Row, credentials: &Credentials) {
    if read.deny || !read.actions.iter().any(|action| action.chooses_a_token()) {
        return;
    }
    let covered = |name: &str| read.credentials.iter().any(|pattern| pattern.matches(name));
    let signing = credentials.signing_for_any_subject().find(|name| covered(name.as_str()));
    if let (None, Some(name)) = (&read.subjects, signing) {
        let title =
            format!("without `subjects` this row covers only the service itself of the jwt_bearer credential `{name}`");
        let right = "add subjects = [\"\"] if that is meant, or the subjects that these callers may name";
        row.warn(row.value("credentials").map(Value::span), &title, right);
    }
    let (local, anonymous) = (Caller::Local, Caller::Anonymous);
    let is_no_name = [local.name(), anonymous.name()].contains(&read.caller.as_str());
    if let Some(value) = row.value("subjects").filter(|_| is_no_name)
        && read.subjects.iter().flatten().any(SubjectPattern::names_the_caller)
    {
        let right = "give each caller a proof of its own: a certificate, a token, or a Unix-domain socket";
        row.warn(Some(value.span()), "`{caller}` tells no callers apart here: all of them have this one name", right);
    }
}

fn some_list<T>(row: &Reader<'_>, key: &str, read: impl Fn(&Value<'_>) -> Result<T, Wrong>) -> Option<Vec<T>> {
    row.value(key).map(|_| row.list(key, read))
}

/// Without rows, every local caller is allowed; callers from elsewhere never are. And on a listener for callers from
/// elsewhere, whoever has shown no proof should be meant, where a row allows them.
pub(super) fn fit(root: &Reader<'_>, rows: &[Reader<'_>], server_table: &Reader<'_>, server: &Server) {
    let open = is_open(server);
    for row in rows.iter().filter(|_| open) {
        let Some((value, written)) = row.value("caller").and_then(|v| v.get_ref().as_str().map(|text| (v, text)))
        else {
            continue;
        };
        let pattern = Pattern::new(written);
        if pattern.has_star() && pattern.matches(Caller::Anonymous.name()) {
            let right =
                "write whom you mean; if it is everybody who can connect, write \"anonymous\" in a row of its own";
            row.warn(Some(value.span()), "this matches callers who have not shown who they are", right);
        }
    }
    if root.value("allow").and_then(|value| value.get_ref().as_array()).is_some_and(|rows| !rows.is_empty()) {
        return;
    }
    let right = "add [[allow]] with caller, credentials and actions";
    if let Some((key, why)) = needs_rows(server) {
        server_table.misfit(key, &format!("{why}, and there is no [[allow]]"), right);
    } else if root.value("identity").is_some() {
        root.misfit("identity", "tells callers apart, and there is no [[allow]]", right);
    } else {
        root.warn(None, "there is no [[allow]]: every caller on this host may do everything", right);
    }
}

/// The setting of `[server]` because of which listeners cannot be served without rows, and what it does.
pub(super) fn needs_rows(server: &Server) -> Option<(&'static str, &'static str)> {
    if is_open(server) {
        Some(("listen", "is open to other hosts"))
    } else if server.unix_socket.is_some() {
        Some(("unix_socket", "tells its callers apart"))
    } else if server.tls.as_ref().is_some_and(|tls| tls.clients.is_some()) {
        Some(("tls", "tells callers apart"))
    } else {
        None
    }
}

fn is_open(server: &Server) -> bool {
    server.listen.is_some_and(|listen| !listen.ip().is_loopback())
}

fn action(value: &Value<'_>) -> Result<Action, Wrong> {
    let word = word(value, ACTIONS)?;
    let found = ACTIONS.iter().find(|(known, _)| *known == word);
    found.map(|(_, action)| *action).ok_or_else(|| Wrong::new(value, "is no action", "write \"get\""))
}

fn row_name(value: &Value<'_>) -> Result<Arc<str>, Wrong> {
    let written = text(value)?;
    let good =
        written.len() <= 63 && written.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    if good {
        Ok(written.into())
    } else {
        Err(Wrong::new(value, "is no name", "write 1 to 63 letters, digits, '-', '_' or '.'"))
    }
}

fn credential_pattern(row: &Reader<'_>, value: &Value<'_>, credentials: &Credentials) -> Result<Pattern, Wrong> {
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

/// A subject may be empty: that is the service itself.
fn subject_pattern(value: &Value<'_>) -> Result<SubjectPattern, Wrong> {
    let right = "write a subject, \"\" for the service itself, or a pattern; '*' stands for any run of characters, and {caller} \
                 for the caller's name";
    let written = value.get_ref().as_str().ok_or_else(|| Wrong::kind(value, "a string", right))?;
    match Subject::new(written) {
        Ok(_) => Ok(SubjectPattern::new(written)),
        Err(_) => Err(Wrong::new(value, "holds a pattern that no subject can match", right)),
    }
}

fn scope_pattern(value: &Value<'_>) -> Result<Pattern, Wrong> {
    let written = text(value)?;
    match Scopes::new([written]) {
        Ok(_) => Ok(Pattern::new(written)),
        Err(error) => Err(Wrong::new(value, "holds a pattern that no scope can match", error.to_string())),
    }
}

/// A star may stand where no URI has one, so what is checked is the text with something in its place.
fn resource_pattern(value: &Value<'_>) -> Result<Pattern, Wrong> {
    let written = text(value)?;
    let whole = if written.starts_with('*') { format!("https://a{written}") } else { written.to_owned() };
    match Resources::new([whole.replace('*', "a")]) {
        Ok(_) => Ok(Pattern::new(written)),
        Err(error) => Err(Wrong::new(value, "holds a pattern that no resource can match", error.to_string())),
    }
}

fn method(value: &Value<'_>) -> Result<String, Wrong> {
    let right = "write it in upper case, for example \"GET\"; CONNECT and TRACE are never sent";
    let written = text(value)?;
    let known = written.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'-');
    if known && !matches!(written, "CONNECT" | "TRACE") {
        Ok(written.to_owned())
    } else {
        Err(Wrong::new(value, "holds a method that no call can have", right))
    }
}

fn path(value: &Value<'_>) -> Result<PathPrefix, Wrong> {
    parsed(value, "holds a path that no call can have", PathPrefix::new)
}

//! Reads one table: knows its settings, finds unknown, mistyped, missing and contradicting ones, and says where.

use std::cell::RefCell;

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    check::Check,
    key::{Key, With},
    report::{Problem, Scope, Span},
    value::{Wrong, quoted},
};

/// A list of so many names is read at a glance.
const FEW_NAMES: usize = 5;

/// More names than this are a list that is not read.
const MOST_NAMES: usize = 15;

/// What other programs call a setting.
const OTHER_WORDS: [(&str, &str); 14] = [
    ("address", "listen"),
    ("bind", "listen"),
    ("host", "listen"),
    ("port", "listen"),
    ("level", "filter"),
    ("type", "kind"),
    ("backend", "kind"),
    ("type", "grant"),
    ("grant_type", "grant"),
    ("token_endpoint", "token_url"),
    ("token_uri", "token_url"),
    ("auth_method", "client_auth"),
    ("private_key", "client_key"),
    ("api_url", "base_url"),
];

/// A value and where it stands.
pub(super) type Value<'a> = Spanned<DeValue<'a>>;

/// A word that was chosen; without a span it is the default.
struct Choice {
    key: &'static str,
    word: &'static str,
    span: Option<Span>,
}

/// A table under check. A setting that is wrong is reported and then read as if it were absent.
pub(super) struct Reader<'a> {
    /// The pass that the table is part of.
    pub check: &'a Check<'a>,
    name: String,
    keys: &'static [Key],
    table: Option<&'a DeTable<'a>>,
    span: Option<Span>,
    choices: RefCell<Vec<Choice>>,
}

impl<'a> Reader<'a> {
    /// Opens the table of the whole file.
    pub fn root(check: &'a Check<'a>, keys: &'static [Key], table: &'a DeTable<'a>) -> Self {
        Self::open(check, keys, String::new(), Some(table), None)
    }

    /// Opens a table that was found as this value, or reports that it is none.
    pub fn of(check: &'a Check<'a>, keys: &'static [Key], name: String, value: &'a Value<'a>) -> Option<Self> {
        let table = value.get_ref().as_table();
        let reader = Self::open(check, keys, name, table, Some(value.span()));
        if table.is_none() {
            let wrong = Wrong::kind(value, "a table", "write { … } or a [table] of its own");
            reader.problem(&reader.name, wrong, Scope::Value);
        }
        table.map(|_| reader)
    }

    fn open(
        check: &'a Check<'a>,
        keys: &'static [Key],
        name: String,
        table: Option<&'a DeTable<'a>>,
        span: Option<Span>,
    ) -> Self {
        let reader = Self { check, name, keys, table, span, choices: RefCell::default() };
        for (key, value) in table.into_iter().flatten() {
            match keys.iter().find(|known| known.name == key.get_ref()) {
                Some(known) if !known.hidden && is_flat(value) => check.show(value.span()),
                Some(_) => {}
                None => reader.unknown(key, value),
            }
        }
        reader
    }

    /// Opens a table in this one, if it is there.
    pub fn optional_table(&self, key: &'static str, keys: &'static [Key]) -> Option<Self> {
        Self::of(self.check, keys, self.path(key), self.value(key)?)
    }

    /// Opens a table in this one; one that is absent is empty.
    pub fn table(&self, key: &'static str, keys: &'static [Key]) -> Self {
        let empty = || Self::open(self.check, keys, self.path(key), None, None);
        self.optional_table(key, keys).unwrap_or_else(empty)
    }

    /// Opens each table of an array.
    pub fn tables(&self, key: &'static str, keys: &'static [Key]) -> Vec<Self> {
        let rows = self.optional(key, |value| {
            let wrong = || Wrong::kind(value, "an array of tables", format!("write [[{}]]", self.path(key)));
            value.get_ref().as_array().ok_or_else(wrong)
        });
        rows.into_iter().flatten().filter_map(|row| Self::of(self.check, keys, self.path(key), row)).collect()
    }

    /// A setting's value as it stands.
    pub fn value(&self, key: &str) -> Option<&'a Value<'a>> {
        debug_assert!(self.keys.iter().any(|known| known.name == key), "{key} is not declared");
        self.table?.get(key)
    }

    /// A setting that may be absent.
    pub fn optional<T>(&self, key: &str, read: impl FnOnce(&'a Value<'a>) -> Result<T, Wrong>) -> Option<T> {
        match read(self.value(key)?) {
            Ok(value) => Some(value),
            Err(wrong) => {
                self.wrong(key, wrong);
                None
            }
        }
    }

    /// A setting that must be there; `right` shows how it is written.
    pub fn required<T>(
        &self,
        key: &str,
        right: &str,
        read: impl FnOnce(&'a Value<'a>) -> Result<T, Wrong>,
    ) -> Option<T> {
        if self.value(key).is_none() {
            self.missing(key, right);
        }
        self.optional(key, read)
    }

    /// A list, each item of which is read; absent is empty.
    pub fn list<T>(&self, key: &str, read: impl Fn(&'a Value<'a>) -> Result<T, Wrong>) -> Vec<T> {
        let items = self.optional(key, |value| {
            let wrong = || Wrong::kind(value, "a list", "write [\"…\", \"…\"]");
            value.get_ref().as_array().ok_or_else(wrong)
        });
        let mut list = Vec::new();
        for item in items.into_iter().flatten() {
            match read(item) {
                Ok(value) => list.push(value),
                Err(wrong) => self.wrong(key, wrong),
            }
        }
        list
    }

    /// One of a few words, remembered for [`Self::finish`]; without a default it must be there.
    pub fn choose<T: Copy>(
        &self,
        key: &'static str,
        words: &'static [(&'static str, T)],
        default: Option<&'static str>,
    ) -> Option<T> {
        let (word, span) = match (self.value(key), default) {
            (Some(value), _) => (self.optional(key, |value| super::value::word(value, words))?, Some(value.span())),
            (None, Some(word)) => (word, None),
            (None, None) => {
                self.missing(key, &format!("one of {}", quoted(words.iter().map(|(word, _)| *word))));
                return None;
            }
        };
        self.choices.borrow_mut().push(Choice { key, word, span });
        words.iter().find(|(known, _)| *known == word).map(|(_, value)| *value)
    }

    /// Reports settings that do not go with what was chosen.
    pub fn finish(&self) {
        for key in self.keys {
            let Some(value) = self.table.and_then(|table| table.get(key.name)) else { continue };
            let choices = self.choices.borrow();
            let clash = key.with.iter().find_map(|with| {
                choices
                    .iter()
                    .find(|choice| choice.key == with.choice && !with.words.contains(&choice.word))
                    .zip(Some(with))
            });
            if let Some((choice, with)) = clash {
                self.contradiction(key.name, value, choice, with);
            }
        }
    }

    fn contradiction(&self, key: &str, value: &Value<'_>, choice: &Choice, with: &With) {
        let words = quoted(with.words.iter().copied());
        let right = format!("this goes with {} = {words}", with.choice);
        self.check.error(Problem {
            scope: Scope::File,
            span: Some(value.span()),
            title: format!("`{}` does not go with {} = \"{}\"", self.path(key), choice.key, choice.word),
            right: if choice.span.is_some() { right } else { format!("{right}, and that is absent here") },
            context: choice.span.iter().map(|span| (span.clone(), "chosen here".to_owned())).collect(),
        });
    }

    fn unknown(&self, key: &Spanned<std::borrow::Cow<'_, str>>, value: &Value<'_>) {
        if is_opened_by_header(key, value)
            && let Some(credential) = self.name.strip_prefix("credentials.")
        {
            return self.check.error(dotted_name(credential, key));
        }
        let place = if self.name.is_empty() { "here".to_owned() } else { format!("in `{}`", self.name) };
        self.check.error(Problem {
            scope: Scope::Value,
            span: Some(key.span()),
            title: format!("there is no such setting {place}"),
            right: self.instead_of(key.get_ref()),
            context: Vec::new(),
        });
    }

    /// What was most likely meant by a name that is not known here.
    fn instead_of(&self, unknown: &str) -> String {
        let names = || self.keys.iter().map(|known| known.name);
        // Where few settings are known, a list of them says more.
        let is_short = !self.name.is_empty() && self.keys.len() <= FEW_NAMES;
        let elsewhere =
            || Some(super::tables_with(unknown)).filter(|tables| !is_short && (1..=3).contains(&tables.len()));
        let other_word = || OTHER_WORDS.iter().find(|(word, name)| *word == unknown && names().any(|n| n == *name));
        if let Some(name) = super::value::nearest(unknown, names()) {
            return format!("did you mean `{name}`?");
        }
        if let Some((_, name)) = other_word() {
            return format!("did you mean `{name}`?");
        }
        if let Some(tables) = elsewhere() {
            return format!("`{unknown}` belongs in {}", tables.join(" or "));
        }
        let known: Vec<&str> = names().collect();
        match known.get(MOST_NAMES..) {
            Some(more) if !more.is_empty() => {
                let first = known.get(..MOST_NAMES).unwrap_or_default().join(", ");
                format!("known here: {first} and {} more, which bearerd.sample.toml explains", more.len())
            }
            _ => format!("known here: {}", known.join(", ")),
        }
    }

    /// Reports that a setting is absent.
    pub fn missing(&self, key: &str, right: &str) {
        self.check.error(Problem {
            scope: Scope::File,
            span: self.span.clone(),
            title: format!("`{}` is missing", self.path(key)),
            right: format!("add {key} = {right}"),
            context: Vec::new(),
        });
    }

    /// Reports a setting's own mistake.
    pub fn wrong(&self, key: &str, wrong: Wrong) {
        self.problem(&self.path(key), wrong, Scope::Value);
    }

    /// Reports a mistake that lies in how settings fit together.
    pub fn misfit(&self, key: &str, what: &str, right: &str) {
        let span = self.value(key).map(Spanned::span).or_else(|| self.span.clone());
        let title = format!("`{}` {what}", self.path(key));
        self.check.error(Problem { scope: Scope::File, span, title, right: right.to_owned(), context: Vec::new() });
    }

    /// Reports something odd that is allowed.
    pub fn warn(&self, span: Option<Span>, title: &str, right: &str) {
        let (title, right) = (title.to_owned(), right.to_owned());
        self.check.warning(Problem { scope: Scope::File, span, title, right, context: Vec::new() });
    }

    fn problem(&self, path: &str, wrong: Wrong, scope: Scope) {
        let title = format!("`{path}` {}", wrong.what);
        self.check.error(Problem { scope, span: Some(wrong.span), title, right: wrong.right, context: Vec::new() });
    }

    /// The setting's whole name.
    pub fn path(&self, key: &str) -> String {
        if self.name.is_empty() { key.to_owned() } else { format!("{}.{key}", self.name) }
    }
}

/// Whether a table has a header of its own, and does not stand in braces behind its name.
pub(super) fn is_opened_by_header(key: &Spanned<std::borrow::Cow<'_, str>>, value: &Value<'_>) -> bool {
    value.get_ref().is_table() && value.span().contains(&key.span().start)
}

/// `[credentials.crm.prod]`: TOML reads it as a table `prod` in the credential `crm`, and the name `crm.prod` is meant.
pub(super) fn dotted_name(credential: &str, inner: &Spanned<std::borrow::Cow<'_, str>>) -> Problem {
    let name = inner.get_ref();
    Problem {
        scope: Scope::Value,
        span: Some(inner.span()),
        title: format!("`{name}` is a table in the credential `{credential}`, which has no such table"),
        right: format!("dots in a name need quotes: [credentials.\"{credential}.{name}\"]"),
        context: Vec::new(),
    }
}

/// Whether no table is in a value: those are opened, and shown, one by one.
fn is_flat(value: &Value<'_>) -> bool {
    match value.get_ref().as_array() {
        Some(array) => array.iter().all(is_flat),
        None => !value.get_ref().is_table(),
    }
}

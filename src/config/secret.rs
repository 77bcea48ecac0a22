//! Secrets stand outside the file: `{ file = "…" }` or `{ env = "…" }` says where.
//!
//! A relative path begins at the directory of the configuration file. One line break at the end is not part of a
//! secret, since editors and `echo` put it there.

use std::{
    fs::File,
    io::{ErrorKind, Read},
    path::{Path, PathBuf},
};

use zeroize::Zeroizing;

use super::{
    key::Key,
    reader::{Reader, Value},
    value::{Wrong, text},
};
use crate::secret::{ExposeSecret, SecretString, same};

/// What a secret reference knows.
///
/// Both are hidden until they look like what they should be: somebody may have put the secret itself there.
pub(super) const KEYS: &[Key] = &[Key::hidden("file"), Key::hidden("env")];

/// The most bytes of a secret or a configuration file, so that a wrong path cannot fill the memory.
const MAX_BYTES: u64 = 1024 * 1024;

const FORM: &str = "{ file = \"/path\" } or { env = \"NAME\" }";

/// A secret, or another text that is kept outside, and where to read it again.
#[derive(Clone, Debug)]
pub struct Source {
    content: SecretString,
    file: Option<PathBuf>,
}

impl Source {
    /// A text that is never read again.
    pub(super) fn fixed(content: SecretString) -> Self {
        Self { content, file: None }
    }

    /// What it was when the configuration was read.
    pub fn content(&self) -> &SecretString {
        &self.content
    }

    /// Whether it is read from where the other one is read. What a variable of the environment holds stays what it was
    /// when the process began, so there the text itself is compared.
    pub(super) fn has_the_place_of(&self, other: &Self) -> bool {
        match (&self.file, &other.file) {
            (None, None) => same(self.content.expose_secret(), other.content.expose_secret()),
            (file, other) => file == other,
        }
    }

    /// What it is now; a variable of the environment never changes.
    ///
    /// # Errors
    ///
    /// A few words on why the file cannot be read.
    pub fn read(&self) -> Result<SecretString, String> {
        let Some(path) = &self.file else { return Ok(self.content.clone()) };
        let cannot = |why| format!("{}: {why}", path.display());
        trimmed(&read(path).map_err(cannot)?).ok_or_else(|| cannot("it is empty".to_owned()))
    }
}

impl Reader<'_> {
    /// A secret that may be absent, with the place it comes from.
    pub fn source(&self, key: &'static str) -> Option<Source> {
        let content = self.secret(key)?;
        let table = self.value(key).and_then(|value| value.get_ref().as_table());
        let file = table.and_then(|table| table.get("file")).and_then(|file| file.get_ref().as_str());
        Some(Source { content, file: file.map(|file| self.check.directory.join(file)) })
    }

    /// The same, where it must be there.
    pub fn required_source(&self, key: &'static str) -> Option<Source> {
        if self.value(key).is_none() {
            self.missing(key, FORM);
        }
        self.source(key)
    }

    /// A secret that may be absent.
    pub fn secret(&self, key: &'static str) -> Option<SecretString> {
        let value = self.value(key)?;
        if !value.get_ref().is_table() {
            self.wrong(key, Wrong::new(value, "is a secret and must not stand in this file", format!("write {FORM}")));
            return None;
        }
        content(&self.optional_table(key, KEYS)?)
    }

    /// A secret that is needed only until the store has one of its own: a file or variable that is missing or empty is a
    /// warning. `consequence` says what is done without it.
    pub fn initial_secret(&self, key: &'static str, consequence: &str) -> Option<SecretString> {
        let reference = match self.value(key)? {
            value if value.get_ref().is_table() => self.optional_table(key, KEYS)?,
            _ => return self.secret(key),
        };
        let Some(what) = absence(&reference) else { return content(&reference) };
        let title = format!("`{}` {what}: {consequence}", self.path(key));
        let span = reference.value("file").or_else(|| reference.value("env")).map(Value::span);
        self.warn(span, &title, "set it for the first start, or import the grant: `bearerd grant import`");
        None
    }

    /// A secret, or a list of them, that may be absent; `None` too if one of them cannot be read.
    pub fn secrets(&self, key: &'static str) -> Option<Vec<SecretString>> {
        let value = self.value(key)?;
        let Some(items) = value.get_ref().as_array() else { return self.secret(key).map(|secret| vec![secret]) };
        if items.is_empty() {
            self.wrong(key, Wrong::new(value, "is an empty list", format!("write {FORM}, or several of them")));
        }
        let read = |item: &Value<'_>| {
            if !item.get_ref().is_table() {
                let right = format!("write {FORM}");
                self.wrong(key, Wrong::new(item, "holds a secret, which must not stand in this file", right));
                return None;
            }
            content(&Reader::of(self.check, KEYS, self.path(key), item)?)
        };
        // All of them are read before one that is missing ends it, so that every mistake is found.
        let secrets: Vec<_> = items.iter().map(read).collect();
        secrets.into_iter().collect::<Option<Vec<_>>>().filter(|secrets| !secrets.is_empty())
    }

    /// A secret, or a list of them, that must be there.
    pub fn required_secrets(&self, key: &'static str) -> Option<Vec<SecretString>> {
        if self.value(key).is_none() {
            self.missing(key, FORM);
        }
        self.secrets(key)
    }

    /// A secret that must be there.
    pub fn required_secret(&self, key: &'static str) -> Option<SecretString> {
        if self.value(key).is_none() {
            self.missing(key, FORM);
        }
        self.secret(key)
    }
}

/// Reads what the keys `file` and `env` of a table refer to.
pub(super) fn content(reference: &Reader<'_>) -> Option<SecretString> {
    match (reference.value("file"), reference.value("env")) {
        (Some(_), None) => reference.optional("file", |value| from_file(reference, value)),
        (None, Some(_)) => reference.optional("env", |value| from_environment(reference, value)),
        (Some(_), Some(_)) => {
            reference.misfit("env", "does not go with file", &format!("write one of {FORM}"));
            None
        }
        (None, None) => {
            reference.missing("file", "\"/path\", or env = \"NAME\"");
            None
        }
    }
}

/// Why there is no secret where a good reference says, if there is none.
fn absence(reference: &Reader<'_>) -> Option<&'static str> {
    match (reference.value("file"), reference.value("env")) {
        (Some(value), None) => {
            let path = file_path(reference, value).ok()?;
            if File::open(&path).is_err_and(|error| error.kind() == ErrorKind::NotFound) {
                return Some("names a file that does not exist");
            }
            let is_empty = read(&path).is_ok_and(|content| trimmed(&content).is_none());
            is_empty.then_some("names an empty file")
        }
        (None, Some(value)) => match variable(reference, value).ok()? {
            None => Some("names a variable that is not set"),
            Some(content) => trimmed(&content).is_none().then_some("names an empty variable"),
        },
        (Some(_), Some(_)) | (None, None) => None,
    }
}

/// The file that a reference names; it is watched from here on.
fn file_path(reference: &Reader<'_>, value: &Value<'_>) -> Result<PathBuf, Wrong> {
    let written = text(value)?;
    let path = reference.check.directory.join(written);
    let is_path = ["/", "./", "../"].iter().any(|start| written.starts_with(start));
    let is_near = written.contains('/') && path.parent().is_some_and(Path::exists);
    if is_path || is_near || path.exists() {
        reference.check.show(value.span());
    }
    reference.check.file(&path);
    Ok(path)
}

fn from_file(reference: &Reader<'_>, value: &Value<'_>) -> Result<SecretString, Wrong> {
    let path = file_path(reference, value)?;
    let unreadable = |why| Wrong::new(value, "names a file that cannot be read", format!("{why}; write a file's path"));
    let content = read(&path).map_err(unreadable)?;
    trimmed(&content).ok_or_else(|| Wrong::new(value, "names an empty file", "put the secret there"))
}

/// What the variable holds that a reference names.
fn variable(reference: &Reader<'_>, value: &Value<'_>) -> Result<Option<Zeroizing<String>>, Wrong> {
    let name = text(value)?;
    let is_name = |name: &str| {
        !name.starts_with(|c: char| c.is_ascii_digit()) && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    if !is_name(name) {
        return Err(Wrong::new(
            value,
            "is no name of a variable",
            "write letters, digits and '_': the name, not the secret",
        ));
    }
    let content = (reference.check.environment)(name).map(Zeroizing::new);
    if content.is_some() || !name.contains(|c: char| c.is_ascii_lowercase()) {
        reference.check.show(value.span());
    }
    Ok(content)
}

fn from_environment(reference: &Reader<'_>, value: &Value<'_>) -> Result<SecretString, Wrong> {
    let Some(content) = variable(reference, value)? else {
        return Err(Wrong::new(value, "names a variable that is not set", "set it where bearerd is started"));
    };
    trimmed(&content).ok_or_else(|| Wrong::new(value, "names an empty variable", "set it to the secret"))
}

/// Reads a text file of limited size; an error is a few words.
pub(super) fn read(path: &Path) -> Result<Zeroizing<String>, String> {
    let file = File::open(path).map_err(|error| error.kind().to_string())?;
    // A buffer that grows leaves copies behind; one more byte than the file has, and it need not grow to find the end.
    let length = file.metadata().map_or(0, |file| file.len()).min(MAX_BYTES) + 1;
    let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(length).unwrap_or_default()));
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(|error| error.kind().to_string())?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err("it has more than 1 MiB".to_owned());
    }
    let text = std::str::from_utf8(&bytes).map_err(|_| "it is not UTF-8 text".to_owned())?;
    Ok(Zeroizing::new(text.to_owned()))
}

fn trimmed(content: &str) -> Option<SecretString> {
    let content = content.strip_suffix('\n').unwrap_or(content);
    let content = content.strip_suffix('\r').unwrap_or(content);
    (!content.is_empty()).then(|| SecretString::from(content))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::ExposeSecret;

    #[test]
    fn one_line_break_is_trimmed() {
        for (content, secret) in [
            ("a", Some("a")),
            ("a\n", Some("a")),
            ("a\r\n", Some("a")),
            ("a\n\n", Some("a\n")),
            (" a ", Some(" a ")),
            ("\n", None),
            ("", None),
        ] {
            assert_eq!(trimmed(content).as_ref().map(ExposeSecret::expose_secret), secret, "{content:?}");
        }
    }

    #[test]
    fn files_are_bounded_text() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        for (content, error) in [
            (b"s".repeat(1024 * 1024), None),
            (b"s".repeat(1024 * 1024 + 1), Some("it has more than 1 MiB")),
            (vec![0xff], Some("it is not UTF-8 text")),
        ] {
            std::fs::write(&path, &content).unwrap();
            assert_eq!(read(&path).err().as_deref(), error);
        }
        assert_eq!(read(&directory.path().join("none")).err().as_deref(), Some("entity not found"));
    }
}

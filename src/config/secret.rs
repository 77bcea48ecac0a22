//! Secrets stand outside the file: `{ file = "…" }` or `{ env = "…" }` says where.
//!
//! A relative path begins at the directory of the configuration file. One line break at the end is not part of a
//! secret, since editors and `echo` put it there.

use std::{
    fmt,
    fs::File,
    io::{self, ErrorKind, Read},
    path::{self, Path, PathBuf},
};

use zeroize::Zeroizing;

use super::{
    key::Key,
    reader::{Reader, Value},
    value::{Wrong, text},
};
use crate::{
    file::Exposure,
    secret::{ExposeSecret, SecretString, same},
};

/// What a secret reference knows.
///
/// Both are hidden until they look like what they should be: somebody may have put the secret itself there.
pub(super) const KEYS: &[Key] = &[Key::hidden("file"), Key::hidden("env")];

/// The most bytes of a secret or a configuration file, so that a wrong path cannot fill the memory.
const MAX_BYTES: u64 = 1024 * 1024;

const FORM: &str = "{ file = \"/path\" } or { env = \"NAME\" }";

/// What a secret looks like.
#[derive(Clone, Copy)]
pub(super) enum Shape {
    /// One line, as in a header or a form field: a token, a password, a key in base64.
    Line,
    /// Several lines, as in PEM or JSON.
    Text,
}

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
        let cannot = |why: &dyn fmt::Display| format!("{}: {why}", path.display());
        let content = read(path).map_err(|error| cannot(&error))?;
        trimmed(&content).map(with_line_breaks).ok_or_else(|| cannot(&"it is empty"))
    }
}

impl Reader<'_> {
    /// A secret that may be absent, with the place it comes from.
    pub fn source(&self, key: &'static str) -> Option<Source> {
        let content = self.text(key)?;
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

    /// A secret of one line that may be absent.
    pub fn secret(&self, key: &'static str) -> Option<SecretString> {
        self.shaped(key, Shape::Line)
    }

    /// A secret of several lines that may be absent.
    pub fn text(&self, key: &'static str) -> Option<SecretString> {
        self.shaped(key, Shape::Text)
    }

    fn shaped(&self, key: &'static str, shape: Shape) -> Option<SecretString> {
        let value = self.value(key)?;
        if !value.get_ref().is_table() {
            self.wrong(key, Wrong::new(value, "is a secret and must not stand in this file", format!("write {FORM}")));
            return None;
        }
        content(&self.optional_table(key, KEYS)?, shape)
    }

    /// A secret that is needed only until the store has one of its own: a file or variable that is missing or empty is a
    /// warning. `consequence` says what is done without it.
    pub fn initial_secret(&self, key: &'static str, consequence: &str) -> Option<SecretString> {
        let reference = match self.value(key)? {
            value if value.get_ref().is_table() => self.optional_table(key, KEYS)?,
            _ => return self.secret(key),
        };
        let absent = absence(&reference).filter(|_| !self.check.leaves_secrets());
        let Some(what) = absent else { return content(&reference, Shape::Line) };
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
            content(&Reader::of(self.check, KEYS, self.path(key), item)?, Shape::Line)
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

    /// A secret of several lines that must be there.
    pub fn required_text(&self, key: &'static str) -> Option<SecretString> {
        if self.value(key).is_none() {
            self.missing(key, FORM);
        }
        self.text(key)
    }
}

/// Reads what the keys `file` and `env` of a table refer to; `None` too where secrets are left unread.
pub(super) fn content(reference: &Reader<'_>, shape: Shape) -> Option<SecretString> {
    match (reference.value("file"), reference.value("env")) {
        (Some(_), None) => reference.optional("file", |value| from_file(reference, value, shape)).flatten(),
        (None, Some(_)) => reference.optional("env", |value| from_environment(reference, value, shape)).flatten(),
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
            match read(&path) {
                Err(Unreadable::Missing) => Some("names a file that does not exist"),
                Ok(content) => trimmed(&content).is_none().then_some("names an empty file"),
                Err(_) => None,
            }
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
    let check = reference.check;
    let path = check.directory.join(written);
    let is_near = written.contains('/') && path.parent().is_some_and(Path::exists);
    if reads_like_a_path(written) || is_near || path.exists() {
        check.show(value.span());
    }
    check.file(&path);
    Ok(path)
}

fn from_file(reference: &Reader<'_>, value: &Value<'_>, shape: Shape) -> Result<Option<SecretString>, Wrong> {
    let path = file_path(reference, value)?;
    if reference.check.leaves_secrets() {
        return Ok(None);
    }
    let unreadable = |error: Unreadable| {
        let is_missing = error == Unreadable::Missing;
        let remedy = if is_missing { missing_remedy(reference, value) } else { error.remedy().to_owned() };
        Wrong::new(value, "names a file that cannot be read", format!("{error}; {remedy}"))
    };
    let content = read(&path).map_err(unreadable)?;
    if !is_public(&reference.path("file")) && Exposure::of(&path).is_ok_and(|others| others == Exposure::Readable) {
        let title = format!("{}: every user of this host can read this file", path.display());
        reference.warn(Some(value.span()), &title, "run chmod o-r on it");
    }
    let content = trimmed(&content).ok_or_else(|| Wrong::new(value, "names an empty file", "put the secret there"))?;
    shaped(reference, value, content, shape).map(Some)
}

fn missing_remedy(reference: &Reader<'_>, value: &Value<'_>) -> String {
    let written = value.get_ref().as_str().unwrap_or_default();
    if written.starts_with('~') {
        return "write the whole path: \"~\" is not expanded here".to_owned();
    }
    if Path::new(written).is_absolute() {
        return "write the path of a file that holds the secret".to_owned();
    }
    let directory = reference.check.directory;
    let directory = path::absolute(directory.join(".")).unwrap_or_else(|_| directory.to_owned());
    format!("a relative path begins at the directory of the configuration file, {}", directory.display())
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
            "is not the name of a variable",
            "write letters, digits and '_' without \"$\": the name, not the secret",
        ));
    }
    let content = (reference.check.environment)(name).map(Zeroizing::new);
    if content.is_some() || !name.contains(|c: char| c.is_ascii_lowercase()) {
        reference.check.show(value.span());
    }
    Ok(content)
}

/// Whether what is kept there is known to everyone: certificates and public keys.
fn is_public(setting: &str) -> bool {
    ["certificate", "client_ca", "ca", "jwks"].iter().any(|name| setting.ends_with(&format!("{name}.file")))
}

fn from_environment(reference: &Reader<'_>, value: &Value<'_>, shape: Shape) -> Result<Option<SecretString>, Wrong> {
    let content = variable(reference, value)?;
    if reference.check.leaves_secrets() {
        return Ok(None);
    }
    let Some(content) = content else {
        return Err(Wrong::new(value, "names a variable that is not set", "set it where bearerd is started"));
    };
    let content =
        trimmed(&content).ok_or_else(|| Wrong::new(value, "names an empty variable", "set it to the secret"))?;
    shaped(reference, value, content, shape).map(Some)
}

/// A secret in the shape that it should have. What is wrong with it is told without a character of it.
fn shaped(
    reference: &Reader<'_>,
    value: &Value<'_>,
    content: SecretString,
    shape: Shape,
) -> Result<SecretString, Wrong> {
    let text = content.expose_secret();
    if text.starts_with('\u{feff}') {
        let right = "save it as UTF-8 without a byte order mark";
        return Err(Wrong::new(value, "refers to a text with a byte order mark in front", right));
    }
    match shape {
        Shape::Text => Ok(with_line_breaks(content)),
        Shape::Line if text.trim_end_matches(['\n', '\r']).contains(['\n', '\r']) => {
            Err(Wrong::new(value, "refers to more than one line", "put the secret alone there, on one line"))
        }
        Shape::Line if text.ends_with(['\n', '\r']) => {
            let right = "leave at most one line break after the secret, for example with printf '%s'";
            Err(Wrong::new(value, "refers to a text that ends in several line breaks", right))
        }
        Shape::Line if text.chars().any(char::is_control) => {
            Err(Wrong::new(value, "refers to a text with control characters", "put the secret alone there"))
        }
        Shape::Line if text.trim() != text => {
            let right = "take the blank away: it would be sent as part of the secret";
            Err(Wrong::new(value, "refers to a text that begins or ends with a blank", right))
        }
        Shape::Line => {
            let quoted = text.len() > 1 && ['"', '\''].iter().any(|q| text.starts_with(*q) && text.ends_with(*q));
            if quoted {
                let right = "the quotes are sent as part of it: take them away if they are not";
                reference.warn(Some(value.span()), "this refers to a secret in quotes", right);
            }
            Ok(content)
        }
    }
}

/// PEM whose line breaks are written as `\n`, as variables of the environment and JSON have it (RFC 7468 needs real ones).
fn with_line_breaks(content: SecretString) -> SecretString {
    let text = content.expose_secret();
    if !text.starts_with("-----BEGIN ") || text.contains('\n') || !text.contains("\\n") {
        return content;
    }
    Zeroizing::new(text.replace("\\r", "").replace("\\n", "\n")).as_str().into()
}

/// Words that people put into the names of files with secrets, and not into secrets.
const FILE_WORDS: [&str; 24] = [
    "secret",
    "secrets",
    "token",
    "tokens",
    "key",
    "keys",
    "pem",
    "crt",
    "cert",
    "certificate",
    "password",
    "passwords",
    "txt",
    "json",
    "jwks",
    "ca",
    "tls",
    "credentials",
    "refresh",
    "client",
    "seal",
    "url",
    "run",
    "etc",
];

/// Whether a text is rather a path than a secret that stands where a path belongs: one that says so by how it begins, or
/// plain words of which one is usual for files. Nothing that was drawn at random reads like that.
fn reads_like_a_path(text: &str) -> bool {
    if ["/", "./", "../", "~/"].iter().any(|start| text.starts_with(start)) {
        return true;
    }
    let words = || text.split(['/', '-', '_', '.']).filter(|word| !word.is_empty());
    let is_plain = |word: &str| {
        let rest = word.get(1..).unwrap_or_default();
        let letters = word.bytes().all(|byte| byte.is_ascii_alphabetic())
            && (rest.bytes().all(|byte| byte.is_ascii_lowercase())
                || word.bytes().all(|byte| byte.is_ascii_uppercase()));
        let number = word.len() <= 4 && word.bytes().all(|byte| byte.is_ascii_digit());
        word.len() <= 24 && (letters || number)
    };
    let usual = |word: &str| FILE_WORDS.iter().any(|known| known.eq_ignore_ascii_case(word));
    words().all(is_plain) && (text.contains('/') || words().any(usual))
}

/// Why a file cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unreadable {
    /// There is none.
    #[error("there is no such file")]
    Missing,
    /// The file, or a directory on the way to it, is closed to this user.
    #[error("permission denied")]
    Denied,
    /// It is a directory.
    #[error("it is a directory")]
    Directory,
    /// It is a text in another encoding.
    #[error("it is UTF-16 text")]
    Utf16,
    /// It is something else.
    #[error("it is not UTF-8 text")]
    NotText,
    /// It is longer than [`MAX_BYTES`].
    #[error("it has more than 1 MiB")]
    Large,
    /// Whoever is on this host decides what it holds.
    #[error("every user of this host can write it")]
    Exposed,
    /// Reading failed otherwise.
    #[error("{0}")]
    Other(ErrorKind),
}

impl Unreadable {
    /// What to do about it.
    pub fn remedy(self) -> &'static str {
        match self {
            Self::Missing => "write the path of a file that exists",
            Self::Denied => "let the user that bearerd runs as read it, and enter every directory above it",
            Self::Directory => "write the path of the file in it",
            Self::Utf16 | Self::NotText => "save it as UTF-8",
            Self::Exposed => "run chmod o-w on it",
            Self::Large => "write the path of another file",
            Self::Other(_) => "write the path of a file that can be read",
        }
    }
}

impl From<io::Error> for Unreadable {
    fn from(error: io::Error) -> Self {
        let named = [
            (ErrorKind::NotFound, Self::Missing),
            (ErrorKind::PermissionDenied, Self::Denied),
            (ErrorKind::IsADirectory, Self::Directory),
        ];
        let found = named.into_iter().find(|(kind, _)| *kind == error.kind());
        found.map_or(Self::Other(error.kind()), |(_, named)| named)
    }
}

/// Reads a text file of limited size.
pub(super) fn read(path: &Path) -> Result<Zeroizing<String>, Unreadable> {
    if Exposure::of(path).is_ok_and(|others| others == Exposure::Writable) {
        return Err(Unreadable::Exposed);
    }
    let file = File::open(path)?;
    // A buffer that grows leaves copies behind; one more byte than the file has, and it need not grow to find the end.
    let length = file.metadata().map_or(0, |file| file.len()).min(MAX_BYTES) + 1;
    let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(length).unwrap_or_default()));
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(Unreadable::Large);
    }
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return Err(Unreadable::Utf16);
    }
    let text = std::str::from_utf8(&bytes).map_err(|_| Unreadable::NotText)?;
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
            (b"s".repeat(1024 * 1024 + 1), Some(Unreadable::Large)),
            (vec![0xff], Some(Unreadable::NotText)),
            (vec![0xff, 0xfe, b'a', 0], Some(Unreadable::Utf16)),
        ] {
            std::fs::write(&path, &content).unwrap();
            assert_eq!(read(&path).err(), error);
        }
        assert_eq!(read(&directory.path().join("none")).err(), Some(Unreadable::Missing));
        assert_eq!(read(directory.path()).err(), Some(Unreadable::Directory));
    }

    /// Newcomer, "unreadable file (wrong remedy)": another path does not help against a missing right.
    #[test]
    fn what_cannot_be_read_for_a_missing_right_is_mended_by_rights() {
        let error = Unreadable::from(io::Error::from(ErrorKind::PermissionDenied));
        assert_eq!(error.to_string(), "permission denied");
        assert!(error.remedy().contains("let the user that bearerd runs as read it"));
    }

    #[test]
    fn a_path_is_told_from_a_secret_in_its_place() {
        for (text, path) in [
            ("crm-secret", true),
            ("client_secret.txt", true),
            ("secrets/salesforce", true),
            ("conf/crm", true),
            ("Secrets/CRM.TXT", true),
            ("seal-2026-11", true),
            ("./x9Zq", true),
            ("~/x", true),
            ("hunter2", false),
            ("correct-horse-battery-staple", false),
            ("s3cr3t", false),
            ("secret123", false),
            ("Zm9v/YmFyQ", false),
            ("00D5g0000-secret-AQ8", false),
            ("JBSWY3DPEHPK3PXP", false),
            ("deadbeef", false),
        ] {
            assert_eq!(reads_like_a_path(text), path, "{text}");
        }
    }

    /// P-K14, row 56.
    #[test]
    fn pem_with_line_breaks_as_two_characters_is_read() {
        for (content, text) in [
            ("-----BEGIN A-----\\nMIIB\\n-----END A-----\\n", "-----BEGIN A-----\nMIIB\n-----END A-----\n"),
            ("-----BEGIN A-----\\r\\nMIIB", "-----BEGIN A-----\nMIIB"),
            ("-----BEGIN A-----\nMII\\nB", "-----BEGIN A-----\nMII\\nB"),
            ("{\"k\":\"a\\nb\"}", "{\"k\":\"a\\nb\"}"),
        ] {
            assert_eq!(with_line_breaks(content.into()).expose_secret(), text);
        }
    }
}

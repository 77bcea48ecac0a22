//! The settings that a table knows: each is declared once, and whatever is not declared is refused.

/// A setting that a table knows.
#[derive(Clone, Copy)]
pub(super) struct Key {
    /// Its name.
    pub name: &'static str,
    /// Whether its value is kept out of reports.
    pub hidden: bool,
    /// All of these must hold where it is set.
    pub with: &'static [With],
}

/// A setting goes only with some words of another setting.
pub(super) struct With {
    /// The other setting.
    pub choice: &'static str,
    /// Its words.
    pub words: &'static [&'static str],
}

impl Key {
    /// A setting whose value is no secret.
    pub const fn new(name: &'static str) -> Self {
        Self { name, hidden: false, with: &[] }
    }

    /// A setting whose value is never shown, because a secret is in it or may be put there by mistake.
    pub const fn hidden(name: &'static str) -> Self {
        Self { name, hidden: true, with: &[] }
    }

    /// The same setting, where it makes sense only with these choices.
    pub const fn with(mut self, with: &'static [With]) -> Self {
        self.with = with;
        self
    }
}

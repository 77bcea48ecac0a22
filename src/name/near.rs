//! A text that is kept with many things, by whoever has just read what holds it.

use std::{cmp::Ordering, sync::Arc};

use arrayvec::ArrayString;

/// A usual one stands where its holder stands, and needs no memory of its own. That spares a way to it, and many small pieces
/// that stay among those that each call takes and gives back. Cloning it is cheap.
///
/// It may be a person's e-mail address, so it has no `Debug`; who holds it says what may be shown.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct NearText(Text);

/// Which it is follows from the length, so equal texts are equal values.
#[derive(Clone, PartialEq, Eq, Hash)]
enum Text {
    /// A UUID, an address, a credential and a hash.
    Here(ArrayString<40>),
    Apart(Arc<str>),
}

impl NearText {
    /// The text.
    pub fn as_str(&self) -> &str {
        match &self.0 {
            Text::Here(text) => text,
            Text::Apart(text) => text,
        }
    }
}

impl From<&str> for NearText {
    fn from(text: &str) -> Self {
        Self(ArrayString::from(text).map_or_else(|_| Text::Apart(text.into()), Text::Here))
    }
}

impl Default for NearText {
    fn default() -> Self {
        Self(Text::Here(ArrayString::new()))
    }
}

/// As texts are ordered, wherever they stand.
impl Ord for NearText {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_str().cmp(other.as_str())
    }
}

impl PartialOrd for NearText {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_of_any_length_is_kept_whole_and_in_order() {
        assert!(NearText::default() == NearText::from(""));
        let texts: Vec<_> = (0..100).map(|length| "s".repeat(length)).collect();
        for (shorter, longer) in texts.iter().zip(texts.iter().skip(1)) {
            let (less, more) = (NearText::from(&**shorter), NearText::from(&**longer));
            assert_eq!((less.as_str(), more.as_str()), (&**shorter, &**longer));
            assert!(less == NearText::from(&**shorter) && less != more);
            assert!(less < more && NearText::from("t") > more);
        }
    }
}

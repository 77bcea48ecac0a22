//! Escapes, in which a text says a byte with several. Pure.

/// A way of escaping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Escape {
    /// `%2F` (RFC 3986 §2.1), and `+` for a space.
    Percent,
    /// `\/` and `\u002f` (RFC 8259 §7).
    Backslash,
    /// `&amp;`, `&#47;` and `&#x2F;`.
    Ampersand,
    /// A byte with zeros behind it (UTF-16 and UTF-32), or with the end of a line.
    Spread,
}

/// The characters that pages write with a name.
const NAMES: [(&[u8], u8); 14] = [
    (b"amp;", b'&'),
    (b"AMP;", b'&'),
    (b"lt;", b'<'),
    (b"gt;", b'>'),
    (b"quot;", b'"'),
    (b"apos;", b'\''),
    (b"sol;", b'/'),
    (b"plus;", b'+'),
    (b"equals;", b'='),
    (b"colon;", b':'),
    (b"period;", b'.'),
    (b"lowbar;", b'_'),
    (b"hyphen;", b'-'),
    (b"nbsp;", b' '),
];

impl Escape {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Percent, Self::Backslash, Self::Ampersand, Self::Spread];

    /// Whether a text has any escape of this kind.
    pub fn occurs_in(self, text: &[u8]) -> bool {
        match self {
            Self::Percent => memchr::memchr2(b'%', b'+', text).is_some(),
            Self::Backslash => memchr::memchr(b'\\', text).is_some(),
            Self::Ampersand => memchr::memchr(b'&', text).is_some(),
            Self::Spread => memchr::memchr2(0, b'\n', text).is_some(),
        }
    }

    /// The byte that a text begins with, and how many bytes say it; nothing is said by none.
    pub fn read(self, text: &[u8]) -> (u8, usize) {
        let escaped = match (self, text) {
            (Self::Percent, [b'%', high, low, ..]) => number(&[*high, *low], 16).map(|byte| (byte, 3)),
            (Self::Backslash, [b'\\', rest @ ..]) => backslash(rest),
            (Self::Ampersand, [b'&', rest @ ..]) => ampersand(rest),
            (Self::Spread, [byte, rest @ ..]) => Some((*byte, 1 + spread(rest))),
            (Self::Percent | Self::Backslash | Self::Ampersand | Self::Spread, _) => None,
        };
        escaped.unwrap_or_else(|| text.first().map_or((0, 0), |byte| (*byte, 1)))
    }

    /// The text with every escape of any kind undone once.
    pub fn all_undone(text: &[u8]) -> Vec<u8> {
        let mut plain = Vec::with_capacity(text.len());
        let mut rest = text;
        while let [first, behind @ ..] = rest {
            let (byte, length) = match first {
                b'%' => Self::Percent.read(rest),
                b'\\' => match behind {
                    // The end of a line, as JSON writes it.
                    [b'n' | b'r', behind @ ..] => {
                        rest = behind;
                        continue;
                    }
                    _ => Self::Backslash.read(rest),
                },
                b'&' => Self::Ampersand.read(rest),
                0 | b'\r' | b'\n' => {
                    rest = behind;
                    continue;
                }
                byte => (*byte, 1),
            };
            plain.push(byte);
            rest = rest.get(length.max(1)..).unwrap_or_default();
        }
        plain
    }

    /// Whether a byte that was read can mean this one.
    pub fn is_same(self, read: u8, wanted: u8) -> bool {
        read == wanted || (self == Self::Percent && read == b'+' && wanted == b' ')
    }
}

/// How many bytes of nothing follow: the zeros of one character, or the end of a line.
fn spread(rest: &[u8]) -> usize {
    match rest {
        [0, ..] => rest.iter().take(3).take_while(|byte| **byte == 0).count(),
        [b'\r', b'\n', ..] => 2,
        [b'\n', ..] => 1,
        _ => 0,
    }
}

fn backslash(rest: &[u8]) -> Option<(u8, usize)> {
    match rest {
        [b'u', b'0', b'0', high, low, ..] => number(&[*high, *low], 16).map(|byte| (byte, 6)),
        [b'x', high, low, ..] => number(&[*high, *low], 16).map(|byte| (byte, 4)),
        [byte @ (b'/' | b'"' | b'\'' | b'\\'), ..] => Some((*byte, 2)),
        _ => None,
    }
}

fn ampersand(rest: &[u8]) -> Option<(u8, usize)> {
    let numbered = |digits: &[u8], radix, before: usize| {
        // Leading zeros are allowed, and nobody writes more than a few.
        let end = digits.iter().take(8).position(|byte| *byte == b';')?;
        Some((number(digits.get(..end)?, radix)?, before + end + 1))
    };
    match rest {
        [b'#', b'x' | b'X', digits @ ..] => numbered(digits, 16, 3),
        [b'#', digits @ ..] => numbered(digits, 10, 2),
        _ => NAMES.iter().find(|(name, _)| rest.starts_with(name)).map(|(name, byte)| (*byte, name.len() + 1)),
    }
}

fn number(digits: &[u8], radix: u32) -> Option<u8> {
    let add = |sum: u32, byte: &u8| Some(sum * radix + char::from(*byte).to_digit(radix)?);
    let number = digits.iter().try_fold(0, add)?;
    u8::try_from(number).ok().filter(|_| !digits.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_is_read_with_all_that_says_it() {
        use Escape::{Ampersand, Backslash, Percent, Spread};
        for (escape, text, expected) in [
            (Percent, "%2fx", (b'/', 3)),
            (Percent, "%2", (b'%', 1)),
            (Percent, "%zz", (b'%', 1)),
            (Percent, "\\/", (b'\\', 1)),
            (Backslash, "\\/x", (b'/', 2)),
            (Backslash, "\\u002Fx", (b'/', 6)),
            (Backslash, "\\u012f", (b'\\', 1)),
            (Backslash, "\\x2f", (b'/', 4)),
            (Backslash, "\\", (b'\\', 1)),
            (Ampersand, "&#47;x", (b'/', 5)),
            (Ampersand, "&#x2F;", (b'/', 6)),
            (Ampersand, "&#0047;", (b'/', 7)),
            (Ampersand, "&#;", (b'&', 1)),
            (Ampersand, "&#300;", (b'&', 1)),
            (Ampersand, "&#99999999999999999999;", (b'&', 1)),
            (Ampersand, "&amp;x", (b'&', 5)),
            (Ampersand, "&am", (b'&', 1)),
            (Percent, "", (0, 0)),
            (Spread, "a\0\0\0\0", (b'a', 4)),
            (Spread, "a\0b", (b'a', 2)),
            (Spread, "a\r\nb", (b'a', 3)),
            (Spread, "ab", (b'a', 1)),
        ] {
            assert_eq!(escape.read(text.as_bytes()), expected, "{escape:?} {text}");
        }
    }
}

//! The id under which one request is found in the log, in the audit log and by its caller.

use std::fmt;

/// A trace id as W3C Trace Context writes it: 32 lower-case hexadecimal digits, not all of them zero.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TraceId([u8; 32]);

impl TraceId {
    /// A new one, drawn at random.
    pub fn random() -> Self {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let bytes = rand::random::<u128>().to_le_bytes();
        let digit = |nibble: u8| DIGITS.get(usize::from(nibble & 0xf)).copied().unwrap_or(b'0');
        let mut id = [0; 32];
        for (pair, byte) in id.as_chunks_mut().0.iter_mut().zip(bytes) {
            *pair = [digit(byte >> 4), digit(byte)];
        }
        Self(id)
    }

    /// The one of a `traceparent` field; `None` if that is not well formed.
    pub fn of_parent(parent: &str) -> Option<Self> {
        let id: [u8; 32] = parent.split('-').nth(1)?.as_bytes().try_into().ok()?;
        let hexadecimal = id.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        (hexadecimal && id.iter().any(|byte| *byte != b'0')).then_some(Self(id))
    }

    /// The digits.
    pub fn as_str(&self) -> &str {
        // Digits are always text.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_well_formed_parent_is_taken() {
        let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        assert_eq!(TraceId::of_parent(good).unwrap().as_str(), "0af7651916cd43dd8448eb211c80319c");
        for bad in ["", "00", "00-xyz-1-01", "00-00000000000000000000000000000000-b7ad6b7169203331-01", "00-a\nb-1-01"]
        {
            assert_eq!(TraceId::of_parent(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_new_one_is_as_well_formed_as_anybody_elses() {
        let id = TraceId::random();
        assert_eq!(TraceId::of_parent(&format!("00-{id}-b7ad6b7169203331-01")), Some(id));
        assert_ne!(TraceId::random(), id);
    }
}

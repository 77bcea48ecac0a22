//! Tokens that are known by their hashes, so that neither a configuration file nor this process's memory holds one.

use std::fmt::Write;

use aws_lc_rs::{constant_time, digest};

use crate::caller::TokenName;

/// A SHA-256 hash and whose token it is of. A token is random and long, so its hash needs neither salt nor work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StaticToken {
    /// Whose it is. Two may have one name, while one replaces the other.
    pub name: TokenName,
    /// The hash.
    pub sha256: [u8; 32],
}

/// The hash of a token.
pub fn sha256(token: &str) -> [u8; 32] {
    let mut bytes = [0; 32];
    // SHA-256 has as many bytes.
    bytes.copy_from_slice(digest::digest(&digest::SHA256, token.as_bytes()).as_ref());
    bytes
}

/// A hash in lower-case hexadecimal digits.
pub fn hex(hash: &[u8; 32]) -> String {
    hash.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The name of a token. All are compared, each in constant time, so that time tells nothing about any of them.
pub(super) fn find(tokens: &[StaticToken], presented: &str) -> Option<TokenName> {
    let hash = sha256(presented);
    let is_same = |token: &StaticToken| constant_time::verify_slices_are_equal(&hash, &token.sha256).is_ok();
    tokens.iter().fold(None, |found, token| if is_same(token) { Some(token.name.clone()) } else { found })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(name: &str, text: &str) -> StaticToken {
        StaticToken { name: TokenName::new(name).unwrap(), sha256: sha256(text) }
    }

    #[test]
    fn a_token_has_the_name_of_its_hash() {
        let tokens = [token("ci", "one"), token("ci", "two"), token("ops", "three")];
        for (presented, name) in
            [("one", Some("ci")), ("two", Some("ci")), ("three", Some("ops")), ("", None), ("four", None)]
        {
            assert_eq!(find(&tokens, presented), name.map(|name| TokenName::new(name).unwrap()), "{presented}");
        }
        // Whoever has read the configuration has no token yet.
        assert_eq!(find(&tokens, &hex(&sha256("one"))), None);
    }

    #[test]
    fn hashes_are_those_of_the_standard() {
        // FIPS 180-4's example.
        assert_eq!(hex(&sha256("abc")), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }
}

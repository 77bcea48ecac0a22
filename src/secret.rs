//! Secrets: redacted in `Debug`, without `Display`, zeroed when dropped, read through one loud accessor.

pub use secrecy::{ExposeSecret, SecretString};

use aws_lc_rs::constant_time;

pub use self::near::NearSecret;

mod near;

/// Secrets and other texts strung together. All of it is made in one piece, so that no shorter copy is left behind.
pub fn joined<const N: usize>(parts: [&str; N]) -> SecretString {
    let mut whole = String::with_capacity(parts.iter().map(|part| part.len()).sum());
    parts.iter().for_each(|part| whole.push_str(part));
    // It has exactly its length, so it becomes the secret without being copied.
    whole.into()
}

/// Compares two secrets in time that depends on their lengths only.
pub fn same(a: &str, b: &str) -> bool {
    constant_time::verify_slices_are_equal(a.as_bytes(), b.as_bytes()).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_nothing() {
        let secret = SecretString::from("correct-horse");
        assert!(!format!("{secret:?}").contains("correct"));
    }

    #[test]
    fn parts_are_joined_in_order() {
        assert_eq!(joined(["a", "", "bc"]).expose_secret(), "abc");
    }

    #[test]
    fn equality_is_of_the_whole() {
        assert!(same("abc", "abc"));
        assert!(!same("abc", "abd"));
        assert!(!same("abc", "ab"));
    }
}

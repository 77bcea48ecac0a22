//! Secrets: redacted in `Debug`, without `Display`, zeroed when dropped, read through one loud accessor.

pub use secrecy::{ExposeSecret, SecretString};

use aws_lc_rs::constant_time;

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
    fn equality_is_of_the_whole() {
        assert!(same("abc", "abc"));
        assert!(!same("abc", "abd"));
        assert!(!same("abc", "ab"));
    }
}

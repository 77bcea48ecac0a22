//! `bearerd keygen`: makes a key that seals records at rest.

use aws_lc_rs::rand;
use base64::{Engine, engine::general_purpose::STANDARD};
use clap::Args as ClapArgs;
use serde::Serialize;
use zeroize::Zeroizing;

use super::output::{Exit, Failure, Streams};

/// The example in the help.
pub const EXAMPLE: &str = "Example:\n  (umask 077 && bearerd keygen > seal-2026-11)\n\n\
    The key is 32 random bytes in base64, for a file that [seal] keys names.";

/// The arguments of `bearerd keygen`.
#[derive(ClapArgs)]
pub struct Args {
    /// Print the key as JSON
    #[arg(long)]
    json: bool,
}

/// Makes a key and prints it.
pub fn run(args: &Args, streams: &mut Streams<'_>) -> Result<Exit, Failure> {
    let mut key = Zeroizing::new([0_u8; 32]);
    rand::fill(key.as_mut_slice()).map_err(|_| Failure::new(Exit::Failure, "the system gives no random bytes"))?;
    let text = Zeroizing::new(STANDARD.encode(key.as_slice()));
    if args.json {
        streams.json(&KeyJson { key: &text })?;
    } else {
        streams.line(&text)?;
    }
    Ok(Exit::Success)
}

#[derive(Serialize)]
struct KeyJson<'a> {
    key: &'a str,
}

#[cfg(test)]
mod tests {
    use base64::{Engine, engine::general_purpose::STANDARD};

    use super::super::testing::{Run, bearerd};
    use crate::cli::output::Exit;

    fn key(line: &str) -> Vec<u8> {
        STANDARD.decode(line).unwrap()
    }

    #[tokio::test]
    async fn each_key_is_32_other_bytes_on_one_line() {
        let Run { exit, out: one, err } = bearerd(&["keygen"], "").await;
        let two = bearerd(&["keygen"], "").await.out;
        assert_eq!((exit, err.as_str()), (Exit::Success, ""));
        assert_eq!(key(one.strip_suffix('\n').unwrap()).len(), 32);
        assert_ne!(one, two);
    }

    #[tokio::test]
    async fn json_holds_the_key() {
        let out = bearerd(&["keygen", "--json"], "").await.out;
        let json: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert_eq!(key(json["key"].as_str().unwrap()).len(), 32);
    }
}

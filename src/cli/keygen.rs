//! `bearerd keygen`: makes a key that seals records at rest, or a token that a caller shows.

use aws_lc_rs::rand;
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use clap::Args as ClapArgs;
use serde::Serialize;
use zeroize::Zeroizing;

use super::output::{Exit, Failure, Streams};
use crate::identity::{hex, sha256};

/// The example in the help.
pub const EXAMPLE: &str = "Example:\n  (umask 077 && bearerd keygen > seal-2026-11)\n  \
(umask 077 && bearerd keygen --token > ci-token)\n\n\
    The key is 32 random bytes in base64, for a file that [seal] keys names. The token is for a caller; its hash, which is\n\
    told beside it, is for an [[identity.token]] of bearerd's configuration.";

/// The arguments of `bearerd keygen`.
#[derive(ClapArgs)]
pub struct Args {
    /// Make a token for a caller instead, and tell its hash
    #[arg(long)]
    token: bool,
    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

/// Makes a key or token and prints it.
pub fn run(args: &Args, streams: &mut Streams<'_>) -> Result<Exit, Failure> {
    let mut random = Zeroizing::new([0_u8; 32]);
    rand::fill(random.as_mut_slice()).map_err(|_| Failure::new(Exit::Failure, "the system gives no random bytes"))?;
    let made = if args.token { token } else { key };
    made(&random, args.json, streams)?;
    Ok(Exit::Success)
}

fn key(random: &[u8; 32], json: bool, streams: &mut Streams<'_>) -> Result<(), Failure> {
    let key = Zeroizing::new(STANDARD.encode(random));
    if json { streams.json(&KeyJson { key: &key }) } else { streams.line(&key) }
}

/// The prefix lets scanners for lost secrets find the token.
fn token(random: &[u8; 32], json: bool, streams: &mut Streams<'_>) -> Result<(), Failure> {
    let token = Zeroizing::new(format!("bearerd_{}", URL_SAFE_NO_PAD.encode(random)));
    let sha256 = hex(&sha256(&token));
    if json {
        return streams.json(&TokenJson { token: &token, sha256: &sha256 });
    }
    streams.note(&format!("[[identity.token]]\nname = \"…\"\nsha256 = \"{sha256}\""));
    streams.line(&token)
}

#[derive(Serialize)]
struct KeyJson<'a> {
    key: &'a str,
}

#[derive(Serialize)]
struct TokenJson<'a> {
    token: &'a str,
    sha256: &'a str,
}

#[cfg(test)]
mod tests {
    use super::{
        super::testing::{Run, bearerd},
        *,
    };

    fn decoded(line: &str) -> Vec<u8> {
        STANDARD.decode(line).unwrap()
    }

    #[tokio::test]
    async fn each_key_is_32_other_bytes_on_one_line() {
        let Run { exit, out: one, err } = bearerd(&["keygen"], "").await;
        let two = bearerd(&["keygen"], "").await.out;
        assert_eq!((exit, err.as_str()), (Exit::Success, ""));
        assert_eq!(decoded(one.strip_suffix('\n').unwrap()).len(), 32);
        assert_ne!(one, two);
    }

    #[tokio::test]
    async fn json_holds_the_key() {
        let out = bearerd(&["keygen", "--json"], "").await.out;
        let json: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert_eq!(decoded(json["key"].as_str().unwrap()).len(), 32);
    }

    #[tokio::test]
    async fn a_token_is_data_and_its_hash_is_told_beside_it() {
        let Run { exit, out, err } = bearerd(&["keygen", "--token"], "").await;
        let token = out.strip_suffix('\n').unwrap();
        assert_eq!(exit, Exit::Success);
        assert_eq!(URL_SAFE_NO_PAD.decode(token.strip_prefix("bearerd_").unwrap()).unwrap().len(), 32);
        assert!(err.contains(&format!("sha256 = \"{}\"", hex(&sha256(token)))), "{err}");
        assert!(!err.contains(token));

        let out = bearerd(&["keygen", "--token", "--json"], "").await.out;
        let json: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert_eq!(json["sha256"], hex(&sha256(json["token"].as_str().unwrap())));
    }
}

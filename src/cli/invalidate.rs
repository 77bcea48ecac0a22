//! `bearerd invalidate`: reports a token that an upstream rejected.

use std::{fs::File, io::Read, path::PathBuf};

use bytes::Bytes;
use clap::Args as ClapArgs;
use serde::Serialize;

use super::{
    Target,
    connect::Connection,
    get::TokenJson,
    output::{Exit, Failure, Streams, rfc3339, unreadable},
};
use crate::{
    proto::{
        InvalidateTokenOutcome, InvalidateTokenRequest, InvalidateTokenResponse, Rejection,
        invalidate_token_request::Rejected,
    },
    secret::ExposeSecret,
};

/// The example in the help.
pub const EXAMPLE: &str = "Example:\n  bearerd invalidate salesforce --generation 7 --status 401 \\\n    \
    --www-authenticate 'Bearer error=\"invalid_token\"'\n\n\
    Prints the outcome and the generation of the current token:\n\
    refreshed N, already_replaced N, not_a_token_rejection or held_back.";

/// How much of the upstream's body is evidence, in bytes.
const MAX_BODY: u64 = 64 << 10;

/// The arguments of `bearerd invalidate`.
#[derive(ClapArgs)]
pub struct Args {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    rejected: RejectedToken,
    #[command(flatten)]
    evidence: Evidence,
    /// Print the token to use now as well; only callers that also have the action "get" receive it
    #[arg(long)]
    show_token: bool,
    /// Print the answer as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connection: Connection,
}

/// The rejected token, by exactly one of its names.
#[derive(ClapArgs)]
#[group(required = true, multiple = false)]
struct RejectedToken {
    /// The rejected token's generation
    #[arg(long, value_name = "N")]
    generation: Option<u64>,
    /// Read the rejected token from standard input
    // Never an argument: every user of the machine can read those.
    #[arg(long)]
    token_stdin: bool,
}

/// What the upstream answered.
#[derive(ClapArgs)]
struct Evidence {
    /// The upstream's status code; without it, your word is taken that it was 401 invalid_token
    #[arg(long, value_name = "CODE", value_parser = clap::value_parser!(u32).range(100..=599))]
    status: Option<u32>,
    /// The value of a WWW-Authenticate header of the upstream's answer; may be repeated
    #[arg(long, value_name = "VALUE", requires = "status")]
    www_authenticate: Vec<String>,
    /// A file with the upstream's body, of which the first 64 KiB are sent
    #[arg(long, value_name = "FILE", requires = "status")]
    body_file: Option<PathBuf>,
}

/// Reports a rejected token and prints what came of it.
pub async fn run(args: Args, streams: &mut Streams<'_>) -> Result<Exit, Failure> {
    let rejected = args.rejected.read(streams)?;
    let rejection = args.evidence.read()?;
    let mut client = args.connection.tokens().await?;
    let asked = args.target.asked();
    let Target { credential, subject, scopes, resources } = args.target;
    let request = InvalidateTokenRequest {
        credential: credential.clone(),
        subject,
        scopes,
        resources,
        rejected: Some(rejected),
        rejection,
    };
    let answer = client.invalidate_token(args.connection.request(request)?).await;
    let answer = answer.map_err(|status| asked.refused(&status))?.into_inner();
    if args.json {
        streams.json(&AnswerJson::new(&credential, &answer, args.show_token))?;
    } else {
        streams.data(lines(&answer, args.show_token).as_bytes())?;
        if !answer.detail.is_empty() {
            streams.note(&answer.detail);
        }
    }
    Ok(Exit::Success)
}

impl RejectedToken {
    fn read(&self, streams: &mut Streams<'_>) -> Result<Rejected, Failure> {
        match self.generation {
            Some(generation) => Ok(Rejected::Generation(generation)),
            None => Ok(Rejected::AccessToken(streams.secret()?.expose_secret().to_owned())),
        }
    }
}

impl Evidence {
    fn read(self) -> Result<Option<Rejection>, Failure> {
        let Some(http_status) = self.status else { return Ok(None) };
        let mut body = Vec::new();
        if let Some(path) = self.body_file {
            File::open(&path)
                .and_then(|file| file.take(MAX_BODY).read_to_end(&mut body))
                .map_err(|error| unreadable(&path.display().to_string(), &error))?;
        }
        Ok(Some(Rejection { http_status, www_authenticate: self.www_authenticate, body: Bytes::from(body) }))
    }
}

fn lines(answer: &InvalidateTokenResponse, show_token: bool) -> String {
    let word = word(answer.outcome());
    match &answer.token {
        Some(token) if show_token => format!("{word} {}\n{}\n", token.generation, token.access_token),
        Some(_) | None if answer.generation > 0 => format!("{word} {}\n", answer.generation),
        Some(_) | None => format!("{word}\n"),
    }
}

fn word(outcome: InvalidateTokenOutcome) -> &'static str {
    match outcome {
        InvalidateTokenOutcome::Unspecified => "unspecified",
        InvalidateTokenOutcome::Refreshed => "refreshed",
        InvalidateTokenOutcome::AlreadyReplaced => "already_replaced",
        InvalidateTokenOutcome::NotATokenRejection => "not_a_token_rejection",
        InvalidateTokenOutcome::HeldBack => "held_back",
    }
}

/// The answer in JSON; `token` is there only when it was asked for.
#[derive(Serialize)]
struct AnswerJson<'a> {
    credential: &'a str,
    outcome: &'static str,
    detail: &'a str,
    generation: Option<u64>,
    expires_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_attempt_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<TokenJson<'a>>,
}

impl<'a> AnswerJson<'a> {
    fn new(credential: &'a str, answer: &'a InvalidateTokenResponse, show_token: bool) -> Self {
        let token = answer.token.as_ref();
        Self {
            credential,
            outcome: word(answer.outcome()),
            detail: &answer.detail,
            generation: (answer.generation > 0).then_some(answer.generation),
            expires_at: token.and_then(|token| token.expires_at).map(rfc3339),
            next_attempt_at: answer.next_attempt_at.map(rfc3339),
            token: token.filter(|_| show_token).map(|token| TokenJson::new(credential, token)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, iter};

    use super::super::testing::{bearerd, ran};
    use crate::cli::output::Exit;

    #[tokio::test]
    async fn the_outcome_and_the_generation_to_use_now_are_printed() {
        for (args, stdin, out, err) in [
            ("--generation 7", "", "refreshed 8\n", ""),
            ("--generation 7 --show-token", "", "refreshed 8\nfresh\n", ""),
            ("--generation 6", "", "already_replaced 8\n", ""),
            ("--generation 8", "", "held_back 8\n", "wait\n"),
            ("--token-stdin", "stale\n", "already_replaced 8\n", ""),
            ("--token-stdin", "current\n", "refreshed 8\n", ""),
        ] {
            let args: Vec<_> = ["invalidate", "salesforce"].into_iter().chain(args.split_whitespace()).collect();
            assert_eq!(bearerd(&args, stdin).await, ran(Exit::Success, out, err), "{args:?}");
        }
    }

    #[tokio::test]
    async fn json_holds_the_token_only_when_it_is_asked_for() {
        let args = ["invalidate", "salesforce", "--generation", "7", "--json"];
        let json = r#"{"credential":"salesforce","outcome":"refreshed","detail":"","generation":8,"expires_at":"1970-01-01T00:00:00Z"}"#;
        assert_eq!(bearerd(&args, "").await, ran(Exit::Success, &format!("{json}\n"), ""));
        let shown: Vec<_> = args.into_iter().chain(iter::once("--show-token")).collect();
        let out = bearerd(&shown, "").await.out;
        assert!(out.contains(r#""token":{"credential":"salesforce","access_token":"fresh""#), "{out}");
        let held = bearerd(&["invalidate", "salesforce", "--generation", "8", "--json"], "").await;
        let json = r#"{"credential":"salesforce","outcome":"held_back","detail":"wait","generation":8,"expires_at":null,"next_attempt_at":"1970-01-01T00:00:00Z"}"#;
        assert_eq!(held, ran(Exit::Success, &format!("{json}\n"), ""));
    }

    #[tokio::test]
    async fn the_evidence_reaches_bearerd_and_the_body_is_cut_at_64_kib() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), vec![b'x'; (64 << 10) + 1]).unwrap();
        let path = file.path().to_str().unwrap();
        let args = ["invalidate", "salesforce", "--generation", "7", "--status", "403", "--body-file", path];
        let challenges = ["--www-authenticate", "Basic", "--www-authenticate", "Bearer error=\"x\""];
        let args: Vec<_> = args.into_iter().chain(challenges).collect();
        let detail = "403 Basic|Bearer error=\"x\" 65536\n";
        assert_eq!(bearerd(&args, "").await, ran(Exit::Success, "not_a_token_rejection 8\n", detail));
    }

    #[tokio::test]
    async fn an_empty_token_and_a_missing_body_are_refused_before_any_call() {
        let empty = bearerd(&["invalidate", "salesforce", "--token-stdin"], "\n").await;
        assert_eq!(empty, ran(Exit::Usage, "", "error: standard input holds no secret\n"));
        let args = "invalidate salesforce --generation 7 --status 401 --body-file /no/such/file";
        let run = bearerd(&args.split_whitespace().collect::<Vec<_>>(), "").await;
        assert_eq!((run.exit, run.out.as_str()), (Exit::Failure, ""));
        assert!(run.err.starts_with("error: cannot read /no/such/file: "), "{}", run.err);
    }
}

//! `bearerd get`: prints a token, or the headers that carry it.

use clap::Args as ClapArgs;
use prost_types::Duration;
use serde::Serialize;

use super::{
    Target,
    connect::Connection,
    output::{Exit, Failure, HeaderJson, Streams, rfc3339},
};
use crate::proto::{GetTokenRequest, Token};

/// The example in the help.
pub const EXAMPLE: &str = "Example:\n  bearerd get salesforce --header | curl -H @- https://acme.my.salesforce.com/\n\n\
    With `-H @-` curl reads the header from its input, so the token shows in no list of processes.";

/// The arguments of `bearerd get`.
#[derive(ClapArgs)]
pub struct Args {
    #[command(flatten)]
    target: Target,
    /// How long the token must still be valid, such as 5m
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    min_remaining: Option<Duration>,
    /// Take only a token newer than this generation
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    refused_generation: u64,
    /// Print "Name: value" lines, ready for curl, instead of the token
    #[arg(long, conflicts_with = "json")]
    header: bool,
    /// Print all of the answer as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connection: Connection,
}

/// Gets a token and prints it.
pub async fn run(args: Args, streams: &mut Streams<'_>) -> Result<Exit, Failure> {
    let mut client = args.connection.tokens().await?;
    let asked = args.target.asked();
    let Target { credential, subject, scopes, resources } = args.target;
    let request = GetTokenRequest {
        credential: credential.clone(),
        subject,
        scopes,
        resources,
        min_remaining: args.min_remaining,
        refused_generation: args.refused_generation,
    };
    let answer = client.get_token(args.connection.request(request)?).await;
    let answer = answer.map_err(|status| asked.refused(&status))?.into_inner();
    let token = answer.token.ok_or_else(|| Failure::new(Exit::Failure, "bearerd answered without a token"))?;
    if token.degraded {
        streams.note("warning: the token is still valid, but refreshing it fails at the moment");
    }
    if args.json {
        streams.json(&TokenJson::new(&credential, &token))?;
    } else if args.header {
        streams.data(header_lines(&token).as_bytes())?;
    } else {
        streams.line(&token.access_token)?;
    }
    Ok(Exit::Success)
}

/// A token in JSON.
#[derive(Serialize)]
pub struct TokenJson<'a> {
    credential: &'a str,
    access_token: &'a str,
    token_type: &'a str,
    expires_at: Option<String>,
    generation: u64,
    scopes: &'a [String],
    headers: Vec<HeaderJson<'a>>,
    degraded: bool,
}

impl<'a> TokenJson<'a> {
    /// The JSON of `token`, which is one of `credential`.
    pub fn new(credential: &'a str, token: &'a Token) -> Self {
        Self {
            credential,
            access_token: &token.access_token,
            token_type: &token.token_type,
            expires_at: token.expires_at.map(rfc3339),
            generation: token.generation,
            scopes: &token.scopes,
            headers: HeaderJson::list(&token.headers),
            degraded: token.degraded,
        }
    }
}

fn header_lines(token: &Token) -> String {
    token.headers.iter().map(|header| format!("{}: {}\n", header.name, header.value)).collect()
}

fn duration(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    Duration::try_from(duration).map_err(|_| "too long".to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::testing::{bearerd, ran};
    use crate::cli::output::Exit;

    #[tokio::test]
    async fn by_default_the_token_alone_is_printed() {
        let run = bearerd(&["get", "salesforce"], "").await;
        assert_eq!(run, ran(Exit::Success, "salesforce//\n", ""));
    }

    #[tokio::test]
    async fn every_option_reaches_bearerd_and_json_shows_the_whole_answer() {
        let args = "get salesforce --subject jane --scope a --scope b --resource https://r/1 --resource https://r/2 \
                    --min-remaining 1m --refused-generation 6 --json";
        let run = bearerd(&args.split_whitespace().collect::<Vec<_>>(), "").await;
        let json = r#"{"credential":"salesforce","access_token":"salesforce/jane/https://r/1,https://r/2","token_type":"Bearer","expires_at":"1970-01-01T00:01:00Z","generation":7,"scopes":["a","b"],"headers":[{"name":"Authorization","value":"Bearer t"},{"name":"X-Org","value":"7"}],"degraded":false}"#;
        assert_eq!(run, ran(Exit::Success, &format!("{json}\n"), ""));
    }

    #[tokio::test]
    async fn headers_are_ready_for_curl() {
        let run = bearerd(&["get", "salesforce", "--header"], "").await;
        assert_eq!(run, ran(Exit::Success, "Authorization: Bearer t\nX-Org: 7\n", ""));
    }

    #[tokio::test]
    async fn a_degraded_token_comes_with_a_warning_beside_the_data() {
        let run = bearerd(&["get", "degraded"], "").await;
        let warning = "warning: the token is still valid, but refreshing it fails at the moment\n";
        assert_eq!(run, ran(Exit::Success, "degraded//\n", warning));
    }

    #[tokio::test]
    async fn refusals_say_who_can_do_what_and_have_their_exit_codes() {
        let dead = "error: refused [REAUTHORIZATION_REQUIRED]\n\
                    hint: import a new refresh token: bearerd grant import dead\n";
        let gone = "error: refused [CREDENTIAL_NOT_FOUND]\n\
                    hint: the names are those of the [credentials.NAME] tables in bearerd.toml\n";
        let hidden = "error: refused [CALLER_NOT_ALLOWED]\n\
                      hint: an [[allow]] table in bearerd.toml must name this caller, credential and action\n";
        let down = "error: refused [PROVIDER_UNAVAILABLE]; retry in 3 s\n";
        for (name, exit, err) in [
            ("dead", Exit::GrantEnded, dead),
            ("gone", Exit::NotFound, gone),
            ("hidden", Exit::NotAllowed, hidden),
            ("down", Exit::Unavailable, down),
            ("empty", Exit::Failure, "error: bearerd answered without a token\n"),
        ] {
            assert_eq!(bearerd(&["get", name], "").await, ran(exit, "", err), "{name}");
        }
    }

    #[tokio::test]
    async fn the_deadline_ends_a_wait() {
        let run = bearerd(&["get", "silent", "--timeout", "20ms"], "").await;
        assert_eq!((run.exit, run.out.as_str()), (Exit::Failure, ""));
        assert!(
            run.err.ends_with("hint: there was no answer in time; --timeout sets how long to wait\n"),
            "{}",
            run.err
        );
    }
}

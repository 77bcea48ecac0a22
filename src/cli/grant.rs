//! `bearerd grant`: hands over what tokens are made from, and shows its state.

use std::{fs::File, path::PathBuf};

use clap::{Args as ClapArgs, Subcommand};
use serde::Serialize;

use super::{
    Target,
    connect::{self, Connection},
    output::{Exit, Failure, Streams, rfc3339, secret_from, unreadable},
    retry,
};
use crate::{
    proto::{
        DescribeGrantRequest, DescribeGrantResponse, GrantState, ImportGrantRequest, import_grant_request::Secret,
    },
    secret::ExposeSecret,
};

/// The example in the help.
pub const EXAMPLE: &str = "Example:\n  bearerd grant show salesforce";

const IMPORT_EXAMPLE: &str = "Example:\n  bearerd grant import salesforce --file refresh-token.txt\n\n\
    Prints the grant's new generation. The secret is never an argument: every user of the machine can read those.\n\n\
    bearerd verifies a refresh token before it replaces the stored grant: it asks the provider for a token. This spends the \
    refresh token where the provider rotates them. If the provider refuses it, the stored grant stays as it is.";
const SHOW_EXAMPLE: &str = "Example:\n  bearerd grant show salesforce --json";

/// The commands about grants.
#[derive(Subcommand)]
pub enum Command {
    /// Hand over a refresh token or a static secret
    #[command(after_help = IMPORT_EXAMPLE)]
    Import(ImportArgs),
    /// Show the state of a grant, without its secrets
    #[command(after_help = SHOW_EXAMPLE)]
    Show(ShowArgs),
    /// Try grants again that were declared dead
    #[command(after_help = retry::EXAMPLE)]
    Retry(retry::Args),
}

/// The arguments of `bearerd grant import`.
#[derive(ClapArgs)]
pub struct ImportArgs {
    /// The credential's name in bearerd's configuration
    #[arg(value_name = "NAME")]
    credential: String,
    /// On whose behalf; without it, the service itself
    #[arg(long, default_value = "", hide_default_value = true)]
    subject: String,
    /// A scope that was granted with it; may be repeated
    #[arg(long = "scope", value_name = "SCOPE")]
    scopes: Vec<String>,
    /// Read the secret from this file instead of standard input
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// The secret is a refresh token (the default)
    #[arg(long, conflicts_with = "static_secret")]
    refresh_token: bool,
    /// The secret is an API key, a password or a token that never changes
    #[arg(long = "static")]
    static_secret: bool,
    /// Store a refresh token without asking the provider for a token
    #[arg(long, conflicts_with = "static_secret")]
    no_verify: bool,
    /// Print the answer as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connection: Connection,
}

/// The arguments of `bearerd grant show`.
#[derive(ClapArgs)]
pub struct ShowArgs {
    #[command(flatten)]
    target: Target,
    /// Print the answer as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connection: Connection,
}

/// Runs one of the commands about grants.
pub async fn run(command: Command, streams: &mut Streams<'_>) -> Result<Exit, Failure> {
    match command {
        Command::Import(args) => import(args, streams).await,
        Command::Show(args) => show(args, streams).await,
        Command::Retry(args) => retry::run(args, streams).await,
    }
}

async fn import(args: ImportArgs, streams: &mut Streams<'_>) -> Result<Exit, Failure> {
    let secret = args.secret(streams)?;
    let asked = connect::Asked { credential: args.credential.clone(), subject: args.subject.clone() };
    let mut client = args.connection.grants().await?;
    let request = ImportGrantRequest {
        credential: args.credential.clone(),
        subject: args.subject,
        secret: Some(secret),
        scopes: args.scopes,
        no_verify: args.no_verify,
    };
    let answer = client.import_grant(args.connection.request(request)?).await;
    let generation = answer.map_err(|status| asked.refused(&status))?.into_inner().generation;
    if args.json {
        streams.json(&ImportJson { credential: &args.credential, generation })?;
    } else {
        streams.line(&generation.to_string())?;
    }
    Ok(Exit::Success)
}

impl ImportArgs {
    fn secret(&self, streams: &mut Streams<'_>) -> Result<Secret, Failure> {
        let secret = match &self.file {
            None => streams.secret()?,
            Some(path) => {
                let name = path.display().to_string();
                secret_from(File::open(path).map_err(|error| unreadable(&name, &error))?, &name)?
            }
        };
        let text = secret.expose_secret().to_owned();
        Ok(if self.static_secret { Secret::StaticSecret(text) } else { Secret::RefreshToken(text) })
    }
}

#[derive(Serialize)]
struct ImportJson<'a> {
    credential: &'a str,
    generation: u64,
}

async fn show(args: ShowArgs, streams: &mut Streams<'_>) -> Result<Exit, Failure> {
    let mut client = args.connection.grants().await?;
    let asked = args.target.asked();
    let Target { credential, subject, scopes, resources } = args.target;
    let request = DescribeGrantRequest { credential: credential.clone(), subject, scopes, resources };
    let answer = client.describe_grant(args.connection.request(request)?).await;
    let answer = answer.map_err(|status| asked.refused(&status))?.into_inner();
    let grant = GrantJson::new(&credential, &answer);
    if args.json {
        streams.json(&grant)?;
    } else {
        streams.data(grant.lines().as_bytes())?;
    }
    Ok(Exit::Success)
}

/// The state of a grant, in JSON and as lines.
#[derive(Serialize)]
struct GrantJson<'a> {
    credential: &'a str,
    state: &'static str,
    generation: u64,
    token_expires_at: Option<String>,
    scopes: &'a [String],
    last_error: Option<&'a str>,
    provider_status: Option<u32>,
    provider_error: Option<&'a str>,
    provider_error_description: Option<&'a str>,
    provider_endpoint: Option<&'a str>,
    provider_advice: Option<&'a str>,
    next_attempt_at: Option<String>,
    outcome_unknown: bool,
    import_pending: bool,
    stored_token_url: Option<&'a str>,
    stored_client_id: Option<&'a str>,
}

impl<'a> GrantJson<'a> {
    fn new(credential: &'a str, answer: &'a DescribeGrantResponse) -> Self {
        Self {
            credential,
            state: word(answer.state()),
            generation: answer.generation,
            token_expires_at: answer.token_expires_at.map(rfc3339),
            scopes: &answer.scopes,
            last_error: said(&answer.last_error),
            provider_status: Some(answer.provider_status).filter(|status| *status != 0),
            provider_error: said(&answer.provider_error),
            provider_error_description: said(&answer.provider_error_description),
            provider_endpoint: said(&answer.provider_endpoint),
            provider_advice: said(&answer.provider_advice),
            next_attempt_at: answer.next_attempt_at.map(rfc3339),
            outcome_unknown: answer.outcome_unknown,
            import_pending: answer.import_pending,
            stored_token_url: Some(answer.stored_token_url.as_str()).filter(|url| !url.is_empty()),
            stored_client_id: Some(answer.stored_client_id.as_str()).filter(|_| !answer.stored_token_url.is_empty()),
        }
    }

    fn belongs_to(&self, url: &str) -> String {
        let client = self.stored_client_id.unwrap_or_default();
        format!(
            "{url} (client {client}), not to what is configured: if it is the same provider, add this URL to `formerly`; else \
             import a new refresh token"
        )
    }

    /// One line for each thing that there is to say.
    fn lines(&self) -> String {
        let fields = [
            ("credential", Some(self.credential.to_owned())),
            ("state", Some(self.state.to_owned())),
            ("generation", Some(self.generation.to_string())),
            ("token expires at", self.token_expires_at.clone()),
            ("scopes", Some(self.scopes.join(" ")).filter(|scopes| !scopes.is_empty())),
            ("last error", self.last_error.map(str::to_owned)),
            ("provider", self.provider_advice.map(str::to_owned)),
            ("next attempt at", self.next_attempt_at.clone()),
            ("outcome unknown", self.outcome_unknown.then(|| "a refresh was sent and not answered".to_owned())),
            ("import pending", self.import_pending.then(|| "a refresh token waits to be tried".to_owned())),
            ("belongs to", self.stored_token_url.map(|url| self.belongs_to(url))),
        ];
        fields.into_iter().filter_map(|(name, value)| Some(format!("{:<18}{}\n", format!("{name}:"), value?))).collect()
    }
}

/// A field that says something.
fn said(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}

fn word(state: GrantState) -> &'static str {
    match state {
        GrantState::Unspecified => "unspecified",
        GrantState::Absent => "absent",
        GrantState::Active => "active",
        GrantState::Dead => "dead",
        GrantState::NotTried => "not_tried",
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::testing::{bearerd, ran};
    use crate::cli::output::Exit;

    #[tokio::test]
    async fn the_secret_comes_from_stdin_or_a_file_and_is_of_one_kind() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "from-file\r\n").unwrap();
        let path = file.path().to_str().unwrap();
        // The generation in the answer tells what arrived: the secret's length, and 100 more for a static one.
        for (args, out) in [
            (&[][..], "8\n"),
            (&["--refresh-token"], "8\n"),
            (&["--static"], "108\n"),
            (&["--file", path], "9\n"),
            (&["--subject", "jane", "--scope", "a", "--scope", "b"], "7008\n"),
            (&["--no-verify"], "50008\n"),
            (&["--json"], "{\"credential\":\"salesforce\",\"generation\":8}\n"),
        ] {
            let args: Vec<_> = ["grant", "import", "salesforce"].iter().chain(args).copied().collect();
            assert_eq!(bearerd(&args, "on-stdin\n").await, ran(Exit::Success, out, ""), "{args:?}");
        }
    }

    #[tokio::test]
    async fn an_empty_secret_is_refused() {
        let run = bearerd(&["grant", "import", "salesforce"], "").await;
        assert_eq!(run, ran(Exit::Usage, "", "error: standard input holds no secret\n"));
    }

    #[tokio::test]
    async fn a_grant_is_shown_as_lines_without_what_is_not_there() {
        let lines = "credential:       salesforce\nstate:            active\ngeneration:       7\n\
                     token expires at: 1970-01-01T00:00:09Z\nscopes:           a b\n";
        let run = bearerd(&["grant", "show", "salesforce", "--scope", "a", "--scope", "b"], "").await;
        assert_eq!(run, ran(Exit::Success, lines, ""));
        let lines = "credential:       broken\nstate:            dead\ngeneration:       7\n\
                     last error:       REAUTHORIZATION_REQUIRED\n\
                     provider:         invalid_grant (HTTP 400) from as.example/token\nnext attempt at:  1970-01-01T00:00:10Z\n\
                     outcome unknown:  a refresh was sent and not answered\n";
        assert_eq!(bearerd(&["grant", "show", "broken"], "").await, ran(Exit::Success, lines, ""));
    }

    #[tokio::test]
    async fn a_grant_in_json_has_every_field() {
        let json = r#"{"credential":"broken","state":"dead","generation":7,"token_expires_at":null,"scopes":[],"last_error":"REAUTHORIZATION_REQUIRED","provider_status":400,"provider_error":"invalid_grant","provider_error_description":null,"provider_endpoint":"as.example/token","provider_advice":"invalid_grant (HTTP 400) from as.example/token","next_attempt_at":"1970-01-01T00:00:10Z","outcome_unknown":true,"import_pending":false,"stored_token_url":null,"stored_client_id":null}"#;
        let run = bearerd(&["grant", "show", "broken", "--json"], "").await;
        assert_eq!(run, ran(Exit::Success, &format!("{json}\n"), ""));
    }

    #[tokio::test]
    async fn an_rpc_that_is_not_there_says_so() {
        let run = bearerd(&["grant", "show", "unimplemented"], "").await;
        let err = "error: Operation is not implemented or not supported\n\
                   hint: is it bearerd's gRPC port, of this version, and does the address say https if it has TLS?\n";
        assert_eq!(run, ran(Exit::Failure, "", err));
    }
}

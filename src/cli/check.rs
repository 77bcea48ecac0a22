//! `bearerd check`: reads the configuration and all secrets, can ask each provider for a token, and can say what the
//! policy allows whom.

use std::{path::PathBuf, time::SystemTime};

use clap::Args as ClapArgs;
use serde::Serialize;

use super::{
    output::{Exit, Failure, Streams},
    serve,
};
use crate::{
    broker::{Credential, Timing},
    config::Config,
    grant::{
        Grant,
        answer::{Answer, RefusalError},
        request::{self, Asked},
    },
    http,
    name::Subject,
    policy::{Action, Row},
    provider::{Provider, TokenEndpoint},
};

mod explain;

/// The example in the help.
pub const EXAMPLE: &str = "Example:\n  bearerd check --config bearerd.toml --probe\n  \
bearerd check --as spiffe://example.org/ns/billing/sa/api --credential salesforce --action get";

/// The arguments of `bearerd check`.
#[derive(ClapArgs)]
pub struct Args {
    /// The configuration file; without it ./bearerd.toml, then /etc/bearerd/bearerd.toml
    #[arg(long, value_name = "FILE", env = "BEARERD_CONFIG")]
    config: Option<PathBuf>,
    /// Ask each provider for a token, where asking spends nothing; the tokens are thrown away
    #[arg(long, conflicts_with = "caller")]
    probe: bool,
    #[command(flatten)]
    question: explain::Question,
    /// Print the findings as JSON
    #[arg(long)]
    json: bool,
}

/// What was found out about one credential.
#[derive(Serialize)]
struct Finding {
    credential: String,
    good: bool,
    text: String,
}

/// Checks the configuration: 0 if it is good, 78 if it is not, 1 if a probe failed, 77 if the policy denies what was
/// asked about.
pub async fn run(args: Args, streams: &mut Streams<'_>) -> Result<Exit, Failure> {
    let Some(config) = serve::load(args.config.as_deref(), streams) else { return Ok(Exit::Configuration) };
    if let Some(answer) = args.question.answer(&config, args.json, streams) {
        return answer;
    }
    get_without_invalidate(&config, streams);
    let mut findings = Vec::new();
    for credential in config.credentials.values() {
        findings.push(if args.probe { probe(credential, &config.refresh).await? } else { loaded(credential) });
    }
    if args.json {
        streams.json(&findings)?;
    } else {
        report(&config, &findings, streams)?;
    }
    let good = findings.iter().all(|finding| finding.good);
    Ok(if good { Exit::Success } else { Exit::Failure })
}

/// Names the rows whose callers may be denied where they refuse a generation. It is no warning of the configuration,
/// because such rows are good where callers only use tokens.
fn get_without_invalidate(config: &Config, streams: &mut Streams<'_>) {
    for (number, row) in (1..).zip(&config.allow) {
        let reports = |row: &Row| row.actions.contains(&Action::Invalidate);
        let may_report = config.allow.iter().any(|other| other.caller == row.caller && reports(other));
        if row.actions.contains(&Action::Get) && !may_report {
            streams.note(&format!(
                "note: row {number} (caller \"{}\") has \"get\" without \"invalidate\": its callers cannot report a rejected \
                 token, nor use refused_generation",
                row.caller
            ));
        }
    }
}

fn report(config: &Config, findings: &[Finding], streams: &mut Streams<'_>) -> Result<(), Failure> {
    for finding in findings {
        streams.line(&format!("{}: {}", finding.credential, finding.text))?;
    }
    let (credentials, rows) = (config.credentials.len(), config.allow.len());
    streams.line(&format!("the configuration is good: {credentials} credentials, {rows} policy rows"))
}

fn loaded(credential: &Credential) -> Finding {
    let text = match &credential.grant {
        Grant::ClientCredentials(_) => "client_credentials",
        Grant::RefreshToken { .. } => "refresh_token",
        Grant::JwtBearer { .. } => "jwt_bearer",
        Grant::Static { .. } => "static",
    };
    Finding { credential: credential.name.to_string(), good: true, text: text.to_owned() }
}

async fn probe(credential: &Credential, timing: &Timing) -> Result<Finding, Failure> {
    let (good, text) = match &credential.grant {
        Grant::ClientCredentials(_) | Grant::JwtBearer { .. } => ask(credential, timing).await?,
        Grant::RefreshToken { .. } => (true, "not probed: it would spend the refresh token".to_owned()),
        Grant::Static { .. } => (true, "static: there is no provider to ask".to_owned()),
    };
    Ok(Finding { credential: credential.name.to_string(), good, text })
}

async fn ask(credential: &Credential, timing: &Timing) -> Result<(bool, String), Failure> {
    let client = http::for_token_endpoints()
        .map_err(|error| Failure::new(Exit::Failure, format!("the HTTP client cannot be made: {error}")))?;
    let asked = Asked {
        subject: &Subject::default(),
        scopes: &credential.scopes,
        resources: &credential.resources,
        default_scopes: &credential.scopes,
        profile: &credential.profile,
        proof: 0,
    };
    let provider = Provider::new(client);
    let mut proofs = 0..credential.grant.endpoint().map_or(1, |endpoint| endpoint.client.auth.proofs());
    let outcome = loop {
        let asked = Asked { proof: proofs.next().unwrap_or_default(), ..asked };
        let request = match request::build(&credential.grant, None, &asked, SystemTime::now()) {
            Ok(request) => request,
            Err(error) => return Ok((false, error.to_string())),
        };
        let outcome = provider.ask(request, timing.http_timeout).await;
        // As the service does: while a client secret is replaced, the provider may know the next one.
        let unproven =
            matches!(&outcome, Ok(Answer::Refused(refusal)) if refusal.error == RefusalError::ClientUnproven);
        if !unproven || proofs.is_empty() {
            break outcome;
        }
    };
    Ok(match outcome {
        Ok(Answer::Granted(granted)) => (
            true,
            granted.expires_in.map_or_else(
                || "a token was granted; the provider does not say for how long (default_lifetime helps)".to_owned(),
                |life| format!("a token was granted for {} s", life.as_secs()),
            ),
        ),
        Ok(Answer::Refused(refusal)) => (false, format!("the provider refused: {:?}", refusal.error)),
        Ok(Answer::Unusable(unusable)) => (false, unusable.why.to_string()),
        Err(error) => (false, error.to_string()),
    })
}

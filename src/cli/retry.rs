//! `bearerd grant retry`: asks the provider once more for a token of grants that were declared dead.

use clap::Args as ClapArgs;
use serde::Serialize;

use super::{
    connect::{self, Connection},
    output::{Exit, Failure, Streams},
};
use crate::proto::{RetriedGrant, RetryGrantRequest, RetryOutcome};

/// The example in the help.
pub const EXAMPLE: &str = "Example:\n  bearerd grant retry salesforce --subject jane\n  \
    bearerd grant retry salesforce --all --dry-run\n\n\
    Prints a line for each grant. Grants that died of a lost answer (REFRESH_OUTCOME_LOST) are left out by --all: \n\
    presenting such a refresh token again counts as theft at strict providers. Name the subject to try one anyway.";

/// The arguments of `bearerd grant retry`.
#[derive(ClapArgs)]
pub struct Args {
    /// The credential's name in bearerd's configuration
    #[arg(value_name = "NAME")]
    credential: String,
    /// On whose behalf; without it, the service itself
    #[arg(long, default_value = "", hide_default_value = true, conflicts_with = "all")]
    subject: String,
    /// Try every dead grant of the credential
    #[arg(long)]
    all: bool,
    /// Show what would be tried, and send nothing
    #[arg(long)]
    dry_run: bool,
    /// With --all: how many grants to try in a minute, 6 to 600
    #[arg(long, value_name = "PER_MINUTE", default_value_t = 60, requires = "all", value_parser = clap::value_parser!(u32).range(6..=600))]
    rate: u32,
    /// Print each grant as a line of JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connection: Connection,
}

/// Runs the command.
pub async fn run(args: Args, streams: &mut Streams<'_>) -> Result<Exit, Failure> {
    let asked = connect::Asked { credential: args.credential.clone(), subject: args.subject.clone() };
    let mut client = args.connection.grants().await?;
    let (mut page_token, mut dead, mut found) = (String::new(), 0_u64, 0_u64);
    loop {
        let request = RetryGrantRequest {
            credential: args.credential.clone(),
            subject: args.subject.clone(),
            all: args.all,
            page_token,
            dry_run: args.dry_run,
            per_minute: args.rate,
        };
        let page = client.retry_grant(args.connection.request(request)?).await;
        let page = page.map_err(|status| asked.refused(&status))?.into_inner();
        for grant in &page.grants {
            found += 1;
            dead += u64::from(matches!(grant.outcome(), RetryOutcome::StillDead | RetryOutcome::Failed));
            print(grant, args.json, streams)?;
        }
        if page.next_page_token.is_empty() {
            break;
        }
        page_token = page.next_page_token;
    }
    if args.all {
        streams.text(&format!("{found} dead grants found\n"));
    }
    match dead {
        0 => Ok(Exit::Success),
        dead => Err(Failure::new(Exit::Failure, format!("{dead} of {found} grants gave no token"))
            .hint("the provider's answer stands in bearerd's log; `bearerd grant import` replaces a grant")),
    }
}

#[derive(Serialize)]
struct GrantJson<'a> {
    subject: Option<&'a str>,
    outcome: &'static str,
    generation: Option<u64>,
    reason: Option<&'a str>,
}

fn print(grant: &RetriedGrant, json: bool, streams: &mut Streams<'_>) -> Result<(), Failure> {
    let shown = GrantJson {
        subject: (!grant.subject_unknown).then_some(grant.subject.as_str()),
        outcome: word(grant.outcome()),
        generation: Some(grant.generation).filter(|generation| *generation > 0),
        reason: Some(grant.reason.as_str()).filter(|reason| !reason.is_empty()),
    };
    if json {
        return streams.json(&shown);
    }
    let subject = match shown.subject {
        None => "(unknown subject)",
        Some("") => "(the service itself)",
        Some(subject) => subject,
    };
    let reason = shown.reason.map(|reason| format!(", {reason}")).unwrap_or_default();
    streams.line(&format!("{subject}: {}{reason}", shown.outcome))
}

fn word(outcome: RetryOutcome) -> &'static str {
    match outcome {
        RetryOutcome::Unspecified => "unspecified",
        RetryOutcome::Revived => "revived",
        RetryOutcome::StillDead => "still dead",
        RetryOutcome::NotDead => "not dead",
        RetryOutcome::WouldRetry => "would be tried",
        RetryOutcome::LeftOut => "left out",
        RetryOutcome::Failed => "failed",
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{bearerd, ran};
    use crate::cli::output::Exit;

    #[tokio::test]
    async fn one_grant_is_tried_and_told() {
        let run = bearerd(&["grant", "retry", "salesforce"], "").await;
        assert_eq!(run, ran(Exit::Success, "(the service itself): revived\n", ""));
        let run = bearerd(&["grant", "retry", "salesforce", "--subject", "jane", "--dry-run"], "").await;
        assert_eq!(run, ran(Exit::Success, "jane: would be tried, REAUTHORIZATION_REQUIRED\n", ""));
    }

    #[tokio::test]
    async fn all_pages_are_gone_through_and_what_stays_dead_is_a_failure() {
        let run = bearerd(&["grant", "retry", "salesforce", "--all", "--rate", "600"], "").await;
        let lines = "joe: revived\n(unknown subject): left out, REFRESH_OUTCOME_LOST\n\
                     jane: still dead, REAUTHORIZATION_REQUIRED\n";
        assert_eq!((run.exit, run.out.as_str()), (Exit::Failure, lines));
        assert!(run.err.contains("3 dead grants found\nerror: 1 of 3 grants gave no token"), "{run:?}");
        let run = bearerd(&["grant", "retry", "salesforce", "--all", "--json"], "").await;
        assert!(
            run.out.starts_with("{\"subject\":\"joe\",\"outcome\":\"revived\",\"generation\":8,\"reason\":null}\n")
        );
    }

    #[tokio::test]
    async fn a_rate_or_a_subject_that_makes_no_sense_is_refused() {
        for args in [&["--rate", "60"][..], &["--all", "--subject", "jane"], &["--all", "--rate", "5"]] {
            let args = [&["grant", "retry", "salesforce"], args].concat();
            assert_eq!(bearerd(&args, "").await.exit, Exit::Usage, "{args:?}");
        }
    }
}

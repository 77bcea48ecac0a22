//! `bearerd keys`: which seal key sealed what, and sealing it anew, so that an old key can go.

use clap::{Args as ClapArgs, Subcommand};
use serde::Serialize;

use super::{
    connect::{self, Connection},
    output::{Exit, Failure, Streams, counted},
};
use crate::proto::{ResealRecordsRequest, ResealRecordsResponse};

/// The example in the help.
pub const EXAMPLE: &str = "Example:\n  bearerd keys list";

const LIST_EXAMPLE: &str = "Example:\n  bearerd keys list --json\n\n\
    A key that seals no record any more can be taken out of the configuration.";
const RESEAL_EXAMPLE: &str = "Example:\n  bearerd keys reseal && bearerd keys list\n\n\
    First every replica needs the new key in front of the old one. Refreshes go on meanwhile. Files in a replica's \n\
    spool are sealed anew by the replica that is asked.";

/// What the policy must have for these commands, which are about no single credential.
const ROW: &str = "an [[allow]] table in bearerd.toml must give this caller actions = [\"administer\"] for credentials = \
    [\"*\"], without any other limit";

/// The commands about seal keys.
#[derive(Subcommand)]
pub enum Command {
    /// Count the records that each key seals
    #[command(after_help = LIST_EXAMPLE)]
    List(Args),
    /// Seal with the first key whatever another key sealed
    #[command(after_help = RESEAL_EXAMPLE)]
    Reseal(Args),
}

/// The arguments of both.
#[derive(ClapArgs)]
pub struct Args {
    /// Print the counts as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connection: Connection,
}

/// Runs one of the commands about seal keys.
pub async fn run(command: Command, streams: &mut Streams<'_>) -> Result<Exit, Failure> {
    match command {
        Command::List(args) => {
            let counted = pass(&args, true).await?;
            print(&counted, &args, streams)?;
            Ok(Exit::Success)
        }
        Command::Reseal(args) => reseal(&args, streams).await,
    }
}

async fn reseal(args: &Args, streams: &mut Streams<'_>) -> Result<Exit, Failure> {
    let done = pass(args, false).await?;
    print(&done, args, streams)?;
    streams.text(&format!("re-encrypted {}\n", counted(done.resealed, "record")));
    match done.unreadable {
        0 => Ok(Exit::Success),
        left => Err(Failure::new(Exit::Failure, format!("cannot open {}; left unchanged", counted(left, "record")))
            .hint("put the key that sealed them back into [seal]; the log of who asks for them names it")),
    }
}

/// Goes through all pages; each page tells the sums so far.
async fn pass(args: &Args, only_count: bool) -> Result<ResealRecordsResponse, Failure> {
    let mut client = args.connection.grants().await?;
    let mut page_token = String::new();
    loop {
        let request = ResealRecordsRequest { page_token, only_count };
        let answer = client.reseal_records(args.connection.request(request)?).await;
        let page = answer.map_err(|status| connect::failure(&status, ROW, None))?.into_inner();
        if page.next_page_token.is_empty() {
            return Ok(page);
        }
        page_token = page.next_page_token;
    }
}

#[derive(Serialize)]
struct Counts<'a> {
    keys: Vec<KeyJson<'a>>,
    resealed: u64,
    unreadable: u64,
}

#[derive(Serialize)]
struct KeyJson<'a> {
    key: &'a str,
    records: u64,
    seals: bool,
}

fn print(page: &ResealRecordsResponse, args: &Args, streams: &mut Streams<'_>) -> Result<(), Failure> {
    let keys = page.keys.iter().map(|row| KeyJson { key: &row.key, records: row.records, seals: row.seals });
    let counts = Counts { keys: keys.collect(), resealed: page.resealed, unreadable: page.unreadable };
    if args.json {
        return streams.json(&counts);
    }
    for KeyJson { key, records, seals } in &counts.keys {
        let role = if *seals { ", and seals what is written now" } else { "" };
        streams.line(&format!("{key}: {}{role}", counted(*records, "record")))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::testing::{bearerd, ran};
    use crate::cli::output::Exit;

    #[tokio::test]
    async fn each_key_is_counted_over_all_pages() {
        let lines = "new: 9 records, and seals what is written now\nold: 3 records\nunknown: 1 record\n";
        assert_eq!(bearerd(&["keys", "list"], "").await, ran(Exit::Success, lines, ""));
        let json = r#"{"keys":[{"key":"new","records":9,"seals":true},{"key":"old","records":3,"seals":false},{"key":"unknown","records":1,"seals":false}],"resealed":0,"unreadable":0}"#;
        assert_eq!(bearerd(&["keys", "list", "--json"], "").await, ran(Exit::Success, &format!("{json}\n"), ""));
    }

    #[tokio::test]
    async fn what_stays_unreadable_is_a_failure() {
        let run = bearerd(&["keys", "reseal"], "").await;
        assert_eq!(run.exit, Exit::Failure);
        assert!(run.out.starts_with("new: 12 records, and seals what is written now\nold: 0 records\n"), "{run:?}");
        assert!(run.err.contains("re-encrypted 3 records\nerror: cannot open 1 record; left unchanged"), "{run:?}");
    }

    #[tokio::test]
    async fn whoever_may_not_is_told_of_the_row_for_the_whole_store() {
        let token = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(token.path(), "t").unwrap();
        let run = bearerd(&["keys", "list", "--token-file", token.path().to_str().unwrap()], "").await;
        let hint = "hint: an [[allow]] table in bearerd.toml must give this caller actions = [\"administer\"] for \
                    credentials = [\"*\"], without any other limit\n";
        let denied = format!("error: refused [CALLER_NOT_ALLOWED]\n{hint}");
        assert_eq!(run, ran(Exit::NotAllowed, "", &denied));
    }
}

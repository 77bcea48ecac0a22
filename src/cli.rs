//! The command line: one file per command.

mod call;
mod check;
mod completions;
mod demo;
mod get;
mod grant;
mod invalidate;
mod keygen;
mod keys;
mod serve;

mod connect;
mod log;
mod output;
mod retry;
#[cfg(test)]
mod testing;

use std::{ffi::OsString, io, process::ExitCode};

use clap::{Args, Parser, Subcommand};

use output::{Exit, Failure, Streams};

const AFTER_HELP: &str = "Data goes to standard output, everything else to standard error.\n\n\
Exit codes:\n   0  success\n   1  failure\n  64  wrong usage\n  66  not found: no such credential, or no grant for this subject\n  \
67  the grant has ended: import a new one\n  69  unavailable: try again later\n  \
71  refused by the operating system: a port or socket is in use\n  \
77  not allowed\n  78  wrong configuration, also where the provider refuses the client\n\n\
Example:\n  bearerd get salesforce --header";

/// OAuth access tokens for other services: fetched once, refreshed once, by exactly one replica.
#[derive(Parser)]
#[command(name = "bearerd", version, after_help = AFTER_HELP)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the service
    #[command(after_help = serve::EXAMPLE)]
    Serve(serve::Args),
    /// See it work: a provider, a protected API and bearerd between them
    #[command(after_help = demo::EXAMPLE)]
    Demo(demo::Args),
    /// Check the configuration and its secrets
    #[command(after_help = check::EXAMPLE)]
    Check(check::Args),
    /// Get a token
    #[command(after_help = get::EXAMPLE)]
    Get(get::Args),
    /// Report a token that an upstream rejected
    #[command(after_help = invalidate::EXAMPLE)]
    Invalidate(invalidate::Args),
    /// Make an HTTP call without ever seeing the token
    #[command(after_help = call::EXAMPLE)]
    Call(call::Args),
    /// Hand over and look at what tokens are made from
    #[command(subcommand, after_help = grant::EXAMPLE)]
    Grant(grant::Command),
    /// Make a key that seals records at rest
    #[command(after_help = keygen::EXAMPLE)]
    Keygen(keygen::Args),
    /// Count the records that each seal key seals, and seal them anew
    #[command(subcommand, after_help = keys::EXAMPLE)]
    Keys(keys::Command),
    /// Print a shell's completion script
    #[command(after_help = completions::EXAMPLE)]
    Completions(completions::Args),
}

/// Which token: the arguments that most commands share.
#[derive(Args)]
struct Target {
    /// The credential's name in bearerd's configuration
    #[arg(value_name = "NAME")]
    credential: String,
    /// On whose behalf; without it, the service itself
    #[arg(long, default_value = "", hide_default_value = true)]
    subject: String,
    /// A scope to ask for; may be repeated; without it, the credential's own
    #[arg(long = "scope", value_name = "SCOPE")]
    scopes: Vec<String>,
    /// A resource indicator (RFC 8707); may be repeated; without it, the credential's own
    #[arg(long = "resource", value_name = "URI")]
    resources: Vec<String>,
}

impl Target {
    fn asked(&self) -> connect::Asked {
        connect::Asked { credential: self.credential.clone(), subject: self.subject.clone() }
    }
}

/// Runs the command that `args` spell, the program's name first, on the process's own streams.
pub async fn run<I, T>(args: I) -> ExitCode
where
    I: IntoIterator<Item = T>,
    T: Into<OsString> + Clone,
{
    // Not locked: a command that serves logs to stderr from other threads.
    let (mut input, mut out, mut err) = (io::stdin(), io::stdout(), io::stderr());
    run_on(args, &mut Streams { input: &mut input, out: &mut out, err: &mut err }).await.into()
}

async fn run_on<I, T>(args: I, streams: &mut Streams<'_>) -> Exit
where
    I: IntoIterator<Item = T>,
    T: Into<OsString> + Clone,
{
    let args: Vec<OsString> = args.into_iter().map(Into::into).collect();
    // Asked of the words themselves, so that a command line with a mistake is answered in JSON too.
    let json = args.iter().take_while(|arg| *arg != "--").any(|arg| arg == "--json");
    let outcome = match Cli::try_parse_from(args) {
        Ok(cli) => cli.command.run(streams).await,
        Err(message) if json && message.use_stderr() => Err(Failure::new(Exit::Usage, message.render().to_string())),
        Err(message) => explain(&message, streams),
    };
    outcome.unwrap_or_else(|failure| {
        if json {
            streams.text(&format!("{}\n", failure.json()));
        } else {
            streams.failure(&failure);
        }
        failure.exit()
    })
}

impl Command {
    async fn run(self, streams: &mut Streams<'_>) -> Result<Exit, Failure> {
        match self {
            Self::Serve(args) => serve::run(args, streams).await,
            Self::Demo(args) => demo::run(args, streams).await,
            Self::Check(args) => check::run(args, streams).await,
            Self::Get(args) => get::run(args, streams).await,
            Self::Invalidate(args) => invalidate::run(args, streams).await,
            Self::Call(args) => call::run(args, streams).await,
            Self::Grant(command) => grant::run(command, streams).await,
            Self::Keygen(args) => keygen::run(&args, streams),
            Self::Keys(command) => keys::run(command, streams).await,
            Self::Completions(args) => completions::run(&args, streams),
        }
    }
}

/// Help and version are data that was asked for; all else that the parser says is about wrong usage.
fn explain(message: &clap::Error, streams: &mut Streams<'_>) -> Result<Exit, Failure> {
    let text = message.render().to_string();
    if message.use_stderr() {
        streams.text(&text);
        return Ok(Exit::Usage);
    }
    streams.data(text.as_bytes())?;
    Ok(Exit::Success)
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::{TcpListener, TcpSocket},
    };

    use super::{Cli, Exit, testing::run_alone};

    fn words(line: &str) -> Vec<&str> {
        line.split_whitespace().collect()
    }

    #[test]
    fn the_parser_is_consistent_and_every_command_has_an_example() {
        fn look(command: &clap::Command) {
            assert!(command.get_after_help().is_some_and(|text| text.to_string().contains("Example:")), "{command}");
            command.get_subcommands().for_each(look);
        }
        let command = Cli::command();
        look(&command);
        command.debug_assert();
    }

    /// Newcomer, "lines break in the middle of words at 80 columns".
    #[test]
    fn help_fits_80_columns() {
        fn look(command: &clap::Command) {
            let help = command.clone().term_width(80).render_long_help().to_string();
            // A single word may be longer.
            let wide = help.lines().find(|line| line.chars().count() > 80 && line.trim().contains(' '));
            assert_eq!(wide, None, "{command}");
            command.get_subcommands().for_each(look);
        }
        let mut command = Cli::command();
        command.build();
        look(&command);
    }

    #[test]
    fn which_command_lines_are_good() {
        for line in [
            "get a",
            "get a --min-remaining 5m --header",
            "invalidate a --generation 1",
            "invalidate a --token-stdin --status 401 --www-authenticate x",
            "call a GET / -H X:1",
            "grant import a --static",
            "grant show a --resource https://r",
            "keys list --json",
            "keys reseal",
        ] {
            assert!(Cli::try_parse_from(words(&format!("bearerd {line}"))).is_ok(), "{line}");
        }
    }

    #[tokio::test]
    async fn which_command_lines_are_wrong_usage() {
        for line in [
            "",
            "nonsense",
            "get",
            "get a b",
            "get a --header --json",
            "get a --min-remaining soon",
            "get a --refused-generation -1",
            "get a --address somewhere",
            "get a --timeout 30",
            "invalidate a",
            "invalidate a --generation 1 --token-stdin",
            "invalidate a --generation 1 --www-authenticate x",
            "invalidate a --generation 1 --body-file x",
            "invalidate a --generation 1 --status 99",
            "call a GET",
            "call a GET relative",
            "call a G(T /",
            "call a GET / --data x --data-string y",
            "call a GET / --include --json",
            "call a GET / -H nocolon",
            "grant",
            "grant import a --static --refresh-token",
            "completions tcsh",
        ] {
            let run = run_alone(&words(line), "").await;
            assert_eq!((run.exit, run.out.as_str()), (Exit::Usage, ""), "{line}");
            assert!(!run.err.is_empty(), "{line}");
        }
    }

    #[tokio::test]
    async fn help_and_version_are_data() {
        for line in ["--help", "--version", "help", "call --help", "grant import -h"] {
            let run = run_alone(&words(line), "").await;
            assert_eq!((run.exit, run.err.as_str()), (Exit::Success, ""), "{line}");
            assert!(!run.out.is_empty(), "{line}");
        }
    }

    #[tokio::test]
    async fn something_else_listening_is_named_as_such() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let other = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            // The client has said hello before it is answered, and it is the one that hangs up.
            stream.read_u8().await.unwrap();
            stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n").await.unwrap();
            while stream.read_u8().await.is_ok() {}
        });
        let run = run_alone(&["get", "a", "--address", &address], "").await;
        other.await.unwrap();
        assert_ne!(run.exit, Exit::Success);
        assert!(run.err.contains("hint: is it bearerd's gRPC port"), "{}", run.err);
    }

    #[tokio::test]
    async fn nobody_listening_is_unavailable_with_a_hint() {
        // Bound but not listening, so that nobody else can take the port.
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
        let address = socket.local_addr().unwrap().to_string();
        let run = run_alone(&["get", "a", "--address", &address], "").await;
        assert_eq!((run.exit, run.out.as_str()), (Exit::Unavailable, ""));
        assert!(run.err.starts_with(&format!("error: cannot reach bearerd at http://{address}: ")), "{}", run.err);
        assert!(run.err.ends_with(&format!("hint: is `bearerd serve` running at http://{address}?\n")), "{}", run.err);
    }
}

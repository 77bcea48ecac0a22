//! What can be tried while the demonstration stays: addresses, and commands that work as they are.

use std::{env, path::Path};

use serde::Serialize;

use super::stage::{DEMO, Stage};

/// Addresses and commands.
#[derive(Serialize)]
pub struct Invitation {
    grpc: String,
    admin: String,
    provider: String,
    api: String,
    configuration: String,
    commands: Vec<Command>,
}

/// Something to try.
#[derive(Serialize)]
struct Command {
    /// What it shows.
    shows: &'static str,
    /// A line for a shell.
    line: String,
}

impl Invitation {
    /// What can be tried on this stage with `bearerd`, a word for a shell.
    pub fn new(bearerd: &str, stage: &Stage) -> Self {
        let (grpc, admin) = (stage.grpc().to_string(), format!("http://{}", stage.admin()));
        let (api, revoke) = (stage.sandbox.api_url(), stage.sandbox.access_token_revocation_url());
        let configuration = stage.config_file().display().to_string();
        let file = word(&configuration);
        let of_bearerd = |arguments: &str| format!("{bearerd} {arguments} --address {grpc}");
        let command = |shows, line| Command { shows, line };
        let commands = vec![
            command("a token, its generation and its end", of_bearerd(&format!("get {DEMO} --json"))),
            command(
                "the API, called with the token",
                format!("{} | curl -sS -H @- {api}/hello", of_bearerd(&format!("get {DEMO} --header"))),
            ),
            command("an administrator ends every access token", format!("curl -sS -X POST {revoke}")),
            command(
                "the API rejects the token, and the call succeeds: see \"attempts\"",
                of_bearerd(&format!("call {DEMO} GET /hello --json")),
            ),
            command("the grant, without its secrets", of_bearerd(&format!("grant show {DEMO}"))),
            command(
                "how often the provider was asked",
                format!("curl -sS {admin}/metrics | grep bearerd_refreshes_total"),
            ),
            command("all of the configuration that this needed", format!("cat {file}")),
        ];
        Self { grpc, admin, provider: stage.sandbox.issuer(), api, configuration, commands }
    }

    /// All of it for people.
    pub fn text(&self) -> String {
        let commands: String =
            self.commands.iter().map(|command| format!("\n# {}\n{}\n", command.shows, command.line)).collect();
        format!("Everything stays until Ctrl-C. To try in another terminal:\n{commands}")
    }
}

/// How a shell finds this program: by its name if the path leads here, else by its file.
pub fn program() -> String {
    const NAME: &str = "bearerd";
    let here = env::current_exe().ok().and_then(|path| path.canonicalize().ok());
    let path = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&path).map(|directory| directory.join(NAME)).find(|file| file.is_file());
    let found = found.and_then(|file| file.canonicalize().ok());
    match here.as_deref().and_then(Path::to_str) {
        Some(file) if found != here => word(file),
        Some(_) | None => NAME.to_owned(),
    }
}

/// The text as one word for a shell.
fn word(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:@%".contains(c);
    if text.chars().all(plain) { text.to_owned() } else { format!("'{}'", text.replace('\'', "'\\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_quoted_where_a_shell_would_read_it_otherwise() {
        for (text, quoted) in [
            ("/usr/bin/bearerd", "/usr/bin/bearerd"),
            ("/home/a b/x", "'/home/a b/x'"),
            ("/it's", "'/it'\\''s'"),
            ("/$HOME", "'/$HOME'"),
        ] {
            assert_eq!(word(text), quoted);
        }
    }
}

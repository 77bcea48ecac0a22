//! `bearerd completions`: prints a shell's completion script.

use clap::{Args as ClapArgs, CommandFactory};
use clap_complete::Shell;

use super::{
    Cli,
    output::{Exit, Failure, Streams},
};

/// The example in the help.
pub const EXAMPLE: &str = "Example:\n  bearerd completions bash > /etc/bash_completion.d/bearerd";

/// The arguments of `bearerd completions`.
#[derive(ClapArgs)]
pub struct Args {
    /// The shell to complete in
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

/// Prints the script.
pub fn run(args: &Args, streams: &mut Streams<'_>) -> Result<Exit, Failure> {
    // Into memory first: the generator panics on a pipe that was closed.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "bearerd", &mut script);
    streams.data(&script)?;
    Ok(Exit::Success)
}

#[cfg(test)]
mod tests {
    use super::super::testing::bearerd;
    use crate::cli::output::Exit;

    #[tokio::test]
    async fn every_shell_gets_a_script_that_knows_the_commands() {
        for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
            let run = bearerd(&["completions", shell], "").await;
            assert_eq!((run.exit, run.err.as_str()), (Exit::Success, ""), "{shell}");
            for word in ["invalidate", "token-stdin", "import"] {
                assert!(run.out.contains(word), "{shell}: {word}");
            }
        }
    }
}

//! A process of this same program, and what the two say to each other: it says where it listens, and then answers each
//! line with a line.

use std::{
    io::{self, BufRead, BufReader, Write},
    process::{ChildStdin, ChildStdout, Command},
};

use parking_lot::Mutex;

use super::process::Process;
use crate::error::{Error, cannot};

/// A running child.
pub struct Child {
    /// Its process.
    pub process: Process,
    /// Where it listens.
    pub address: String,
    asking: Mutex<(ChildStdin, BufReader<ChildStdout>)>,
}

impl Child {
    /// Starts it. It says where it listens as soon as it does.
    pub fn start(command: &mut Command, name: &str) -> Result<Self, Error> {
        let (process, input, output) = Process::converse(command, name)?;
        let mut output = BufReader::new(output);
        let address = line(&mut output)?;
        Ok(Self { process, address, asking: Mutex::new((input, output)) })
    }

    /// How things stand, in its words.
    pub fn ask(&self) -> Result<String, Error> {
        let (input, output) = &mut *self.asking.lock();
        writeln!(input).map_err(cannot("ask a child"))?;
        line(output)
    }
}

fn line(from: &mut impl BufRead) -> Result<String, Error> {
    let mut line = String::new();
    from.read_line(&mut line).map_err(cannot("listen to a child"))?;
    Ok(line.trim_end().to_owned())
}

/// The child's side: says the address, and then for each line how things stand. It belongs on a thread of its own, which
/// sleeps while calls come.
pub fn tell(address: &str, state: impl Fn() -> String) -> io::Result<()> {
    let mut output = io::stdout();
    writeln!(output, "{address}")?;
    output.flush()?;
    for asked in io::stdin().lines() {
        asked?;
        writeln!(output, "{}", state())?;
        output.flush()?;
    }
    Ok(())
}

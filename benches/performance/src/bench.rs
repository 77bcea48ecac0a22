//! What all chapters share: how much is asked for, the cores, and the commands that were run.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use parking_lot::Mutex;
use tokio::runtime::Runtime;

use crate::{
    error::{Error, cannot, failed},
    pin::Cores,
};

/// What all chapters share.
pub struct Bench {
    /// How often both sides of a pair are measured; `ROUNDS` in the environment.
    pub rounds: usize,
    /// How many requests one measurement sends when many are under way at once; `REQUESTS` in the environment. One
    /// measurement with a single request under way sends a tenth of them.
    pub requests: u64,
    /// How many grants there are where many are wanted; `GRANTS` in the environment.
    pub grants: usize,
    /// Where processes run.
    pub cores: Cores,
    /// For what this process does itself: the provider, and calls that are not measured.
    pub runtime: Runtime,
    scratch: Scratch,
    commands: Mutex<Vec<String>>,
}

impl Bench {
    /// Everything as the environment asks for it.
    pub fn new() -> Result<Self, Error> {
        let cores = Cores::find();
        cores.keep_to_load();
        Ok(Self {
            rounds: asked("ROUNDS", 5)?,
            requests: asked("REQUESTS", 100_000)?,
            grants: asked("GRANTS", 1_000_000)?,
            cores,
            runtime: Runtime::new().map_err(cannot("start the runtime"))?,
            scratch: Scratch::make()?,
            commands: Mutex::default(),
        })
    }

    /// A directory for the files of this run; it is removed at its end.
    pub fn scratch(&self) -> &Path {
        &self.scratch.0
    }

    /// This program, which is also the server that bearerd is measured against.
    pub fn itself(&self) -> Result<PathBuf, Error> {
        env::current_exe().map_err(cannot("find this program"))
    }

    /// The same with bearerd's allocator.
    pub fn itself_with_jemalloc(&self) -> Result<PathBuf, Error> {
        self.built_beside("bearerd-bench-jemalloc")
    }

    /// The `bearerd` that was built beside it.
    pub fn bearerd(&self) -> Result<PathBuf, Error> {
        self.built_beside("bearerd")
    }

    fn built_beside(&self, name: &str) -> Result<PathBuf, Error> {
        let program = self.itself()?.with_file_name(name);
        if program.is_file() { Ok(program) } else { Err(failed(format!("{} is not built", program.display()))) }
    }

    /// Keeps a command for the report. Ports and temporary files, which another run would not have, are named by what
    /// they are.
    pub fn note(&self, command: &Command, names: &[(&str, &str)]) {
        let words = [command.get_program()].into_iter().chain(command.get_args());
        let mut line = words.map(|word| quoted(&word.to_string_lossy())).collect::<Vec<_>>().join(" ");
        for (value, name) in names {
            line = line.replace(value, name);
        }
        line = line.replace(&*self.scratch().to_string_lossy(), "$TMP");
        let mut commands = self.commands.lock();
        if !commands.contains(&line) {
            commands.push(line);
        }
    }

    /// The commands since the last time.
    pub fn take_commands(&self) -> Vec<String> {
        std::mem::take(&mut self.commands.lock())
    }
}

/// A directory that goes with the run.
struct Scratch(PathBuf);

impl Scratch {
    fn make() -> Result<Self, Error> {
        let directory = env::temp_dir().join(format!("bearerd-bench-{}", std::process::id()));
        fs::create_dir(&directory).map_err(cannot("make a temporary directory"))?;
        Ok(Self(directory))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed is a file that the system clears away some day.
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn quoted(word: &str) -> String {
    if word.contains(' ') { format!("'{word}'") } else { word.to_owned() }
}

fn asked<T: std::str::FromStr>(name: &str, otherwise: T) -> Result<T, Error> {
    match env::var(name) {
        Ok(text) => text.parse().map_err(|_| failed(format!("{name} is not a number: {text}"))),
        Err(_) => Ok(otherwise),
    }
}

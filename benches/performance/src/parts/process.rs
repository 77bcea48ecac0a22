//! A child process that ends with the measurement.

use std::{
    fs,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

use crate::error::{Error, cannot, failed};

/// How long a server may take to start or to end; under callgrind everything takes fifty times as long.
const PATIENCE: Duration = Duration::from_secs(120);

/// How often it is looked at meanwhile.
const LOOK: Duration = Duration::from_millis(20);

/// A running program. It is killed when this is dropped.
pub struct Process {
    child: Child,
    name: String,
}

impl Process {
    /// Starts a program.
    pub fn start(command: &mut Command, name: &str) -> Result<Self, Error> {
        let child =
            command.spawn().map_err(cannot(format!("start {name} (is everything installed? scripts/bench-setup)")))?;
        Ok(Self { child, name: name.to_owned() })
    }

    /// Starts a program whose standard input and output are ours.
    pub fn converse(command: &mut Command, name: &str) -> Result<(Self, ChildStdin, ChildStdout), Error> {
        let mut process = Self::start(command.stdin(Stdio::piped()).stdout(Stdio::piped()), name)?;
        let pipes = process.child.stdin.take().zip(process.child.stdout.take());
        let (input, output) = pipes.ok_or_else(|| failed(format!("{name} has no pipes")))?;
        Ok((process, input, output))
    }

    /// Waits until a probe is answered.
    pub fn wait_until(&mut self, mut probe: impl FnMut() -> bool) -> Result<(), Error> {
        let began = Instant::now();
        while !probe() {
            if let Some(status) = self.child.try_wait().map_err(cannot("look at a process"))? {
                return Err(failed(format!("{} ended before it was ready: {status}", self.name)));
            }
            if began.elapsed() > PATIENCE {
                return Err(failed(format!("{} is not ready after {PATIENCE:?}", self.name)));
            }
            thread::sleep(LOOK);
        }
        Ok(())
    }

    /// The processor time of all its threads, in steps of 10 ms (proc(5)).
    pub fn cpu(&self) -> Result<Duration, Error> {
        let file = format!("/proc/{}/stat", self.child.id());
        let text = fs::read_to_string(&file).map_err(cannot(format!("read {file}")))?;
        // The name of the program, in parentheses, may hold anything.
        let fields = text.rsplit_once(") ").map(|(_, rest)| rest.split(' ').skip(11).take(2));
        let ticks = fields.into_iter().flatten().filter_map(|field| field.parse::<u64>().ok()).sum::<u64>();
        Ok(Duration::from_millis(ticks * 10))
    }

    /// The memory that it has in use, in bytes (proc(5), `VmRSS`).
    pub fn memory(&self) -> Result<u64, Error> {
        let file = format!("/proc/{}/status", self.child.id());
        let text = fs::read_to_string(&file).map_err(cannot(format!("read {file}")))?;
        let kib = text.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse().ok());
        kib.map(|kib: u64| kib * 1024).ok_or_else(|| failed(format!("{file} does not tell the memory in use")))
    }

    /// Asks it to end, as Kubernetes would, and waits for that.
    pub fn stop(mut self) -> Result<(), Error> {
        let id = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        let id = id.ok_or_else(|| failed(format!("{} has no number", self.name)))?;
        kill_process(id, Signal::TERM).map_err(|why| cannot(format!("stop {}", self.name))(why.into()))?;
        let began = Instant::now();
        while self.child.try_wait().map_err(cannot("look at a process"))?.is_none() {
            if began.elapsed() > PATIENCE {
                return Err(failed(format!("{} does not end", self.name)));
            }
            thread::sleep(LOOK);
        }
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself, and nothing can be done about one that cannot be waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

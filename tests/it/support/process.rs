//! A child process that ends with the test, and what it has printed so far.

use std::{
    fmt, fs,
    io::{ErrorKind, Read},
    process::{Child, Command, ExitStatus, Stdio},
    sync::Arc,
    thread,
    time::Duration,
};

use parking_lot::Mutex;

/// A running program. It is killed when this is dropped.
pub struct Process {
    child: Child,
    out: Printed,
    err: Printed,
}

type Printed = Arc<Mutex<Vec<u8>>>;

impl Process {
    /// Starts a program; one that is not installed fails the test with a word on how to get it.
    pub fn start(command: &mut Command) -> Self {
        let started = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = started.unwrap_or_else(|error| {
            let program = command.get_program();
            assert!(error.kind() != ErrorKind::NotFound, "{program:?} is not in PATH; run scripts/setup once");
            panic!("{program:?} does not start: {error}");
        });
        let out = collect(child.stdout.take().unwrap());
        let err = collect(child.stderr.take().unwrap());
        Self { child, out, err }
    }

    /// What stands on its standard output so far.
    pub fn out(&self) -> String {
        String::from_utf8_lossy(&self.out.lock()).into_owned()
    }

    /// What stands on its standard error so far.
    pub fn err(&self) -> String {
        String::from_utf8_lossy(&self.err.lock()).into_owned()
    }

    /// Its number.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Ends it with SIGKILL: nothing of its own runs any more.
    pub fn kill(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        self.child.wait().unwrap();
    }

    /// Sends a signal, for example `TERM`, `STOP` or `CONT`. After `STOP` no thread of it does anything any more.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").arg(format!("-{name}")).arg(self.id().to_string()).status().unwrap();
        assert!(sent.success(), "SIG{name} was not sent");
        // One thread takes the signal and stops the others; until it has its turn on a busy machine, they go on.
        while name == "STOP" && self.is_running() {
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Whether a thread of it is neither stopped nor ended, where the system tells (proc(5)).
    fn is_running(&self) -> bool {
        let threads = fs::read_dir(format!("/proc/{}/task", self.id())).into_iter().flatten().flatten();
        let stats = threads.filter_map(|thread| fs::read_to_string(thread.path().join("stat")).ok());
        let states: Vec<_> = stats.filter_map(|stat| stat.rsplit_once(") ")?.1.chars().next()).collect();
        states.iter().any(|state| !['T', 'Z', 'X'].contains(state))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {}, stdout:\n{}\nstderr:\n{}", self.id(), self.out(), self.err())
    }
}

/// Reads on a thread of its own, so that a program never stands still because nobody reads what it prints.
fn collect(mut from: impl Read + Send + 'static) -> Printed {
    let printed = Printed::default();
    let kept = Arc::clone(&printed);
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(length @ 1..) = from.read(&mut buffer) {
            kept.lock().extend_from_slice(&buffer[..length]);
        }
    });
    printed
}

#[test]
fn a_process_that_was_stopped_does_nothing() {
    let process = Process::start(Command::new("sleep").arg("60"));
    assert!(process.is_running());
    process.signal("STOP");
    assert!(!process.is_running());
    process.signal("CONT");
    while !process.is_running() {
        thread::yield_now();
    }
}

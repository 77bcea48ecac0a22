//! What a command leaves behind: data on stdout, everything else on stderr, and an exit code.

use std::{
    fmt,
    io::{self, ErrorKind, Read, Write},
    process::ExitCode,
};

use prost_types::Timestamp;
use serde::Serialize;
use zeroize::Zeroizing;

use crate::{proto, secret::SecretString};

/// The longest secret that is read, in bytes: far above any real token, far below what a wrong file would fill.
const MAX_SECRET: u64 = 1 << 20;

/// How a command ended, as its exit code; the numbers from 64 on are those of `sysexits.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// It did what was asked.
    Success = 0,
    /// It did not, for a reason that no other code names.
    Failure = 1,
    /// The command line, or a value in it, is wrong.
    Usage = 64,
    /// bearerd has no such credential, or no grant for this subject.
    NotFound = 66,
    /// The grant has ended; only a new one gives tokens again.
    GrantEnded = 67,
    /// bearerd cannot be reached, or says that the call may be repeated later.
    Unavailable = 69,
    /// The operating system does not allow it: a port or socket is in use.
    System = 71,
    /// bearerd does not allow this caller to do this.
    NotAllowed = 77,
    /// The configuration, or a file that it needs, is wrong; so it is if the provider refuses the client.
    Configuration = 78,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a command did not succeed: what to print on stderr, and the exit code.
#[derive(Debug)]
pub struct Failure {
    exit: Exit,
    message: String,
    hints: Vec<String>,
    // Boxed, because results are passed on that hardly ever fail.
    answer: Box<Answer>,
}

/// What a server said besides its message.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Answer {
    /// The reason, one of the error contract's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The reason's cause, where it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// How long to wait before another try.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after_seconds: Option<u64>,
    /// What to look for in bearerd's log and audit log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<String>,
}

impl Failure {
    /// A failure with one sentence about what went wrong, without a full stop.
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), hints: Vec::new(), answer: Box::default() }
    }

    /// Adds what the person can do about it.
    #[must_use]
    pub fn hint(mut self, text: impl Into<String>) -> Self {
        self.hints.push(text.into());
        self
    }

    /// Adds what a server said besides.
    #[must_use]
    pub fn answer(mut self, answer: Answer) -> Self {
        *self.answer = answer;
        self
    }

    /// The exit code.
    pub fn exit(&self) -> Exit {
        self.exit
    }

    /// What went wrong, and what the person can do about it, in one text.
    pub fn message(&self) -> String {
        [&self.message].into_iter().chain(&self.hints).map(String::as_str).collect::<Vec<_>>().join("; ")
    }

    /// The failure as one line of JSON.
    pub fn json(&self) -> String {
        let error = FailureJson {
            message: &self.message,
            exit_code: self.exit as u8,
            answer: &self.answer,
            hints: &self.hints,
        };
        // Texts and numbers always have a form in JSON.
        serde_json::to_string(&ErrorJson { error }).unwrap_or_default()
    }
}

#[derive(Serialize)]
struct ErrorJson<'a> {
    error: FailureJson<'a>,
}

#[derive(Serialize)]
struct FailureJson<'a> {
    message: &'a str,
    exit_code: u8,
    #[serde(flatten)]
    answer: &'a Answer,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    hints: &'a [String],
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", one_line(&self.message))?;
        self.hints.iter().try_for_each(|hint| write!(f, "\nhint: {}", one_line(hint)))?;
        let trace = self.answer.trace_id.iter();
        trace.into_iter().try_for_each(|id| write!(f, "\ntrace_id: {} (in bearerd's log and audit log)", one_line(id)))
    }
}

/// The standard streams, as arguments: a test reads what a command wrote.
pub struct Streams<'a> {
    /// Standard input.
    pub input: &'a mut dyn Read,
    /// Standard output: data and nothing else.
    pub out: &'a mut dyn Write,
    /// Standard error.
    pub err: &'a mut dyn Write,
}

impl Streams<'_> {
    /// Writes data to stdout. A reader that has gone away, as `head` does, had what it wanted: that is a success.
    pub fn data(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        match self.out.write_all(bytes).and_then(|()| self.out.flush()) {
            Err(error) if error.kind() != ErrorKind::BrokenPipe => {
                Err(Failure::new(Exit::Failure, format!("cannot write to standard output: {error}")))
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Writes one line of data to stdout.
    pub fn line(&mut self, text: &str) -> Result<(), Failure> {
        self.data(format!("{text}\n").as_bytes())
    }

    /// Writes a value to stdout as one line of JSON.
    pub fn json(&mut self, value: &impl Serialize) -> Result<(), Failure> {
        let text = serde_json::to_string(value)
            .map_err(|error| Failure::new(Exit::Failure, format!("cannot write JSON: {error}")))?;
        self.line(&text)
    }

    /// Tells the person something on stderr, in one line.
    pub fn note(&mut self, text: &str) {
        self.text(&format!("{}\n", one_line(text)));
    }

    /// Tells the person on stderr why the command failed.
    pub fn failure(&mut self, failure: &Failure) {
        self.text(&format!("{failure}\n"));
    }

    /// Writes text to stderr as it is.
    pub fn text(&mut self, text: &str) {
        // Data and exit code are right even when nobody listens on stderr.
        let _ = self.err.write_all(text.as_bytes());
    }

    /// Reads a secret from stdin, without the newline that `echo` and editors put at its end.
    pub fn secret(&mut self) -> Result<SecretString, Failure> {
        secret_from(&mut *self.input, "standard input")
    }
}

/// Reads a secret from `source`, which errors call `name`, without one trailing newline.
pub fn secret_from(source: impl Read, name: &str) -> Result<SecretString, Failure> {
    let mut text = Zeroizing::new(String::new());
    source.take(MAX_SECRET + 1).read_to_string(&mut text).map_err(|error| unreadable(name, &error))?;
    if text.len() as u64 > MAX_SECRET {
        return Err(Failure::new(Exit::Usage, format!("{name} holds more than 1 MiB: that is no secret")));
    }
    let line = text.strip_suffix('\n').unwrap_or(&text);
    match line.strip_suffix('\r').unwrap_or(line) {
        "" => Err(Failure::new(Exit::Usage, format!("{name} holds no secret"))),
        secret => Ok(SecretString::from(secret)),
    }
}

/// The failure to read `name`.
pub fn unreadable(name: &str, error: &io::Error) -> Failure {
    Failure::new(Exit::Failure, format!("cannot read {name}: {error}"))
}

/// A time as RFC 3339 in UTC.
pub fn rfc3339(time: Timestamp) -> String {
    time.to_string()
}

/// A header field in JSON.
#[derive(Serialize)]
pub struct HeaderJson<'a> {
    name: &'a str,
    value: &'a str,
}

impl<'a> HeaderJson<'a> {
    /// The header fields of an answer, in their order.
    pub fn list(headers: &'a [proto::Header]) -> Vec<Self> {
        headers.iter().map(|header| Self { name: &header.name, value: &header.value }).collect()
    }
}

/// How many there are of something, with its name in the right number.
pub fn counted(number: u64, name: &str) -> String {
    match number {
        1 => format!("1 {name}"),
        number => format!("{number} {name}s"),
    }
}

/// Keeps what came over the network from steering the terminal.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::ExposeSecret;

    /// A stdout on which every write fails in one way.
    struct Broken(ErrorKind);

    impl Write for Broken {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_closed_pipe_is_a_success_and_a_full_disk_is_not() {
        for (kind, good) in [(ErrorKind::BrokenPipe, true), (ErrorKind::StorageFull, false)] {
            let (mut out, mut err) = (Broken(kind), Vec::new());
            let mut streams = Streams { input: &mut io::empty(), out: &mut out, err: &mut err };
            assert_eq!(streams.line("data").is_ok(), good, "{kind}");
        }
    }

    #[test]
    fn one_trailing_newline_is_no_part_of_a_secret() {
        for (text, secret) in
            [("s", "s"), ("s\n", "s"), ("s\r\n", "s"), ("s\n\n", "s\n"), (" s ", " s "), ("a\nb", "a\nb")]
        {
            assert_eq!(secret_from(text.as_bytes(), "it").unwrap().expose_secret(), secret, "{text:?}");
        }
    }

    #[test]
    fn what_is_no_secret_is_refused() {
        let long = vec![b'x'; (1 << 20) + 1];
        for (bytes, exit) in
            [(&b""[..], Exit::Usage), (b"\n", Exit::Usage), (&long, Exit::Usage), (b"\xff", Exit::Failure)]
        {
            assert_eq!(secret_from(bytes, "it").unwrap_err().exit(), exit);
        }
    }

    #[test]
    fn times_are_rfc_3339() {
        for (seconds, nanos, text) in [
            (0, 0, "1970-01-01T00:00:00Z"),
            (1_793_445_296, 0, "2026-10-31T11:14:56Z"),
            (1_793_445_296, 120_000_000, "2026-10-31T11:14:56.120Z"),
        ] {
            assert_eq!(rfc3339(Timestamp { seconds, nanos }), text);
        }
    }

    #[test]
    fn a_failure_cannot_steer_the_terminal() {
        let failure = Failure::new(Exit::Failure, "bad\x1b[2J").hint("try\nagain");
        assert_eq!(failure.to_string(), "error: bad [2J\nhint: try again");
    }
}

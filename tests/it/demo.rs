//! `bearerd demo` as it is run from a shell.

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
};

use bearerd::sandbox::{DEMO_API_KEY, DEMO_SECRET};
use regex::Regex;
use serde_json::{Value, json};
use tempfile::TempDir;

/// A demonstration whose temporary files are in a directory of its own. It is killed when this is dropped.
struct Demo {
    child: Child,
    out: BufReader<Box<dyn Read>>,
    temporary: TempDir,
}

/// What a demonstration left behind.
struct Left {
    status: ExitStatus,
    out: String,
    err: String,
}

impl Demo {
    fn start(args: &[&str]) -> Self {
        let temporary = tempfile::tempdir().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_bearerd"));
        command.arg("demo").args(args).env("TMPDIR", temporary.path());
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let out = BufReader::new(Box::new(child.stdout.take().unwrap()) as Box<dyn Read>);
        Self { child, out, temporary }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.out.read_line(&mut line).unwrap();
        line
    }

    fn terminate(&self) {
        let sent = Command::new("kill").arg("-TERM").arg(self.child.id().to_string()).status().unwrap();
        assert!(sent.success());
    }

    /// Waits for the end. Whatever that was like, no file may be left.
    fn end(mut self) -> Left {
        let (mut out, mut err) = (String::new(), String::new());
        self.out.read_to_string(&mut out).unwrap();
        self.child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
        let status = self.child.wait().unwrap();
        assert_eq!(files(self.temporary.path()), [""; 0]);
        Left { status, out, err }
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        // It has usually ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn files(directory: &Path) -> Vec<String> {
    fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// Whether a secret of the sandbox stands in a text.
fn shows_a_secret(text: &str) -> bool {
    let token = Regex::new("(at|rt)_[A-Za-z0-9_-]{43}").unwrap();
    token.is_match(text) || [DEMO_API_KEY, DEMO_SECRET].iter().any(|secret| text.contains(secret))
}

#[test]
fn the_tour_is_readable_and_does_what_it_says() {
    let left = Demo::start(&[]).end();
    assert_eq!((left.status.code(), left.err.as_str()), (Some(0), ""), "{}", left.out);
    let steps: Vec<&str> = left.out.lines().filter(|line| line.get(..2).is_some_and(is_number)).collect();
    assert_eq!(steps.len(), 14, "{}", left.out);
    assert!(left.out.contains("All 14 steps did what they say"), "{}", left.out);
    assert!(left.out.lines().all(|line| line.chars().count() <= 120), "{}", left.out);
    assert!(!shows_a_secret(&left.out), "{}", left.out);
}

fn is_number(text: &str) -> bool {
    text.trim().parse::<u32>().is_ok()
}

#[test]
fn in_json_every_claim_can_be_checked() {
    let left = Demo::start(&["--json"]).end();
    assert_eq!((left.status.code(), left.err.as_str()), (Some(0), ""), "{}", left.out);
    assert!(!shows_a_secret(&left.out), "{}", left.out);
    let steps: Vec<Value> = left.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let numbers: Vec<u64> = steps.iter().map(|step| step["step"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (1..=14).collect::<Vec<u64>>());
    assert!(steps.iter().all(|step| step["good"] == true), "{}", left.out);
    let asked: Vec<u64> = steps.iter().map(|step| step["asked"].as_u64().unwrap()).collect();
    assert_eq!(asked, [1, 0, 2, 1, 0, 1, 0, 0, 1, 0, 0, 1, 1, 1]);

    let fact = |step: usize, name: &str| steps[step - 1]["facts"][name].clone();
    let generation = |step| fact(step, "generation").as_u64().unwrap();
    assert_eq!(generation(2), generation(1));
    assert!(generation(3) > fact(3, "replaced").as_u64().unwrap());
    assert_eq!((fact(4, "outcome"), fact(4, "rejected")), (json!("refreshed"), json!(generation(1))));
    assert_eq!((fact(5, "outcome"), generation(5)), (json!("already_replaced"), generation(4)));
    assert_eq!(fact(6, "callers"), 200);
    assert!(generation(4) > generation(1) && generation(6) > generation(4) && generation(9) > generation(6));
    assert_eq!(steps[6]["facts"], json!({ "used": 3, "uses": 3, "grant_alive": true }));
    assert_eq!(fact(8, "echoed"), "Bearer [redacted]");
    assert_eq!((fact(9, "status"), fact(9, "attempts"), fact(9, "refreshed")), (json!(200), json!(2), json!(true)));
    assert_eq!((fact(10, "status"), fact(10, "error")), (json!(403), json!("insufficient_scope")));
    assert_eq!((fact(11, "status"), fact(11, "status_without")), (json!(200), json!(401)));
    assert_eq!((fact(13, "reason"), fact(13, "grant_alive")), (json!("REAUTHORIZATION_REQUIRED"), json!(false)));
    assert!(generation(14) > generation(12));
}

#[test]
fn what_it_invites_to_try_works_and_a_signal_ends_the_stay() {
    let mut demo = Demo::start(&["--stay", "--json"]);
    let invitation = (1..=15).map(|_| demo.line()).last().unwrap();
    let invitation: Value = serde_json::from_str(&invitation).unwrap();
    let commands = invitation["commands"].as_array().unwrap().iter();
    let answers: Vec<String> = commands.map(|command| pasted(command["line"].as_str().unwrap())).collect();
    let [token, hello, revoked, call, grant, metrics, configuration] = answers.as_slice() else {
        panic!("{answers:?}")
    };
    assert!(shows_a_secret(token), "{token}");
    assert!(hello.contains(r#""scope":"read write""#), "{hello}");
    assert!(revoked.contains("revoked"), "{revoked}");
    let call: Value = serde_json::from_str(call).unwrap();
    assert_eq!((&call["status"], &call["attempts"]), (&json!(200), &json!(2)));
    assert!(grant.contains("active"), "{grant}");
    assert!(metrics.contains(r#"bearerd_refreshes_total{credential="demo",result="ok"}"#), "{metrics}");
    assert!(configuration.contains("[credentials.demo]") && !shows_a_secret(configuration), "{configuration}");

    demo.terminate();
    let left = demo.end();
    assert_eq!((left.status.code(), left.out.as_str(), left.err.as_str()), (Some(0), "", ""));
}

/// What a shell prints for a line.
fn pasted(line: &str) -> String {
    let mut shell = Command::new("sh");
    let ran = shell.args(["-c", line]).env("NO_PROXY", "*").env_remove("BEARERD_CA").output().unwrap();
    assert!(ran.status.success() && ran.stderr.is_empty(), "{line}: {}", String::from_utf8_lossy(&ran.stderr));
    String::from_utf8(ran.stdout).unwrap()
}

#[test]
fn a_signal_during_the_tour_ends_it_as_a_failure_without_a_trace() {
    let mut demo = Demo::start(&["--json"]);
    assert!(demo.line().contains("GetToken"));
    demo.terminate();
    let left = demo.end();
    assert_eq!(left.status.code(), Some(1));
    let error = r#"{"error":{"message":"interrupted before the end of the tour","exit_code":1}}"#;
    assert_eq!(left.err, format!("{error}\n"));
}

//! What was measured, what on, and with which versions.

use std::{fs, process::Command};

/// Lines of Markdown that say what these figures come from.
pub fn describe() -> Vec<String> {
    // This process itself may use only one of them.
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let cores = info.lines().filter(|line| line.starts_with("processor")).count();
    let os = field("/etc/os-release", "PRETTY_NAME=").trim_matches('"').to_owned();
    vec![
        format!("{}, {cores} cores, {}", field("/proc/cpuinfo", "model name\t: "), memory()),
        format!("{os}, Linux {}", first_line("uname", &["-r"])),
        [
            first_line("rustc", &["--version"]),
            first_line("h2load", &["--version"]),
            first_line("valgrind", &["--version"]),
            redis(),
            format!("nginx {}", nginx()),
            format!("Envoy {}", envoy()),
        ]
        .join(", "),
    ]
}

/// The version of the compiler, which instruction counts depend on.
pub fn compiler() -> String {
    first_line("rustc", &["--version"])
}

/// Today in UTC.
pub fn today() -> String {
    first_line("date", &["-u", "+%Y-%m-%d"])
}

/// Which bearerd was measured: its version, its commit and how it was built.
pub fn bearerd() -> String {
    format!("bearerd {} ({}), `dist` profile", version(), commit())
}

/// As the root's `Cargo.toml` says it.
fn version() -> String {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../../Cargo.toml");
    field(manifest, "version = ").trim_matches('"').to_owned()
}

/// With a mark if something in the tree is another. The document is left out of that: each chapter before has written into it.
fn commit() -> String {
    let tree = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
    let commit = first_line("git", &["-C", tree, "describe", "--always"]);
    let others = ["-C", tree, "diff", "--quiet", "HEAD", "--", ".", ":(exclude)docs/performance.md"];
    let clean = Command::new("git").args(others).status().is_ok_and(|status| status.success());
    if clean { commit } else { format!("{commit}-dirty") }
}

fn redis() -> String {
    let line = first_line("redis-server", &["--version"]);
    let version = line.split_whitespace().find_map(|word| word.strip_prefix("v="));
    version.map_or_else(|| "no Redis".to_owned(), |version| format!("Redis {version}"))
}

/// It says so on stderr.
fn nginx() -> String {
    let output = Command::new("nginx").arg("-v").output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stderr).into_owned()).unwrap_or_default();
    text.split_once('/').map_or_else(|| "unknown".to_owned(), |(_, version)| version.trim().to_owned())
}

/// As `scripts/bench-setup` installed it.
fn envoy() -> String {
    let version = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../.tools/envoy/version.txt"));
    version.map_or_else(|_| "unknown".to_owned(), |version| version.trim().to_owned())
}

fn memory() -> String {
    let text = field("/proc/meminfo", "MemTotal:");
    let kib: u64 = text.split_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or_default();
    format!("{} GiB", kib.div_ceil(1024 * 1024))
}

fn field(file: &str, name: &str) -> String {
    let text = fs::read_to_string(file).unwrap_or_default();
    text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("unknown").trim().to_owned()
}

/// What a program prints first; a figure is not worth less because one of the programs does not say its version.
fn first_line(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    text.lines().next().unwrap_or("unknown").trim().to_owned()
}

//! What the documents say works: configurations load, commands exist, links lead somewhere, the Python example runs.

use std::{fs, path::Path, process::Command};

use bearerd::config;

use crate::support::house::{House, ROTATING};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

const DOCUMENTS: [&str; 10] = [
    "README.md",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "SECURITY.md",
    "deploy/README.md",
    "docs/known-mistakes.md",
    "docs/observability.md",
    "docs/performance.md",
    "docs/reliability.md",
    "docs/security.md",
];

fn read(file: &str) -> String {
    fs::read_to_string(Path::new(ROOT).join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// The fenced blocks of a language.
fn blocks(text: &str, language: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line == format!("```{language}") {
            found.push(lines.by_ref().take_while(|line| *line != "```").collect::<Vec<_>>().join("\n"));
        }
    }
    found
}

#[test]
fn the_configurations_of_the_readme_load() {
    let blocks = blocks(&read("README.md"), "toml");
    assert!(blocks.len() >= 3);
    let (first, rest) = blocks.split_first().unwrap();
    let key = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    let environment = |_: &str| Some(key.to_owned());
    let load = |text: &str| {
        let text = text.replace("file = \"/run/secrets/bearerd/seal-2026-11\"", "env = \"SEAL\"");
        let loaded = config::parse("README.md", &text, &environment, Path::new(""));
        loaded.unwrap_or_else(|errors| panic!("{text}\n{}", errors.render(false)));
    };
    load(first);
    for block in rest {
        // A block that goes on with a credential of the first one is the line to add to it.
        match block.split_once("[credentials.salesforce]\n") {
            Some((_, line)) => {
                let table = "[credentials.salesforce]\n";
                load(&first.replacen(table, &format!("{table}{line}\n"), 1));
            }
            None => load(&format!("{first}\n{block}")),
        }
    }
}

#[test]
fn the_commands_of_the_readme_exist() {
    let text = read("README.md");
    let without_comment = |line: &str| line.split(" #").next().unwrap_or_default().to_owned();
    let shell = blocks(&text, "sh").join("\n").lines().map(without_comment).collect::<Vec<_>>().join("\n");
    let mut seen = 0;
    let words = shell.split_whitespace().zip(shell.split_whitespace().skip(1));
    for (_, command) in words.filter(|(word, _)| matches!(*word, "bearerd" | "\"$(bearerd" | "--")) {
        let help = Command::new(env!("CARGO_BIN_EXE_bearerd")).args([command, "--help"]).output().unwrap();
        assert!(help.status.success(), "bearerd {command}: {}", String::from_utf8_lossy(&help.stderr));
        seen += 1;
    }
    assert!(seen >= 3, "{shell}");
    let targets = read("Makefile");
    for target in ["test", "help"] {
        assert!(targets.contains(&format!("\n{target}:")), "make {target}");
    }
}

#[test]
fn links_lead_to_files() {
    for document in DOCUMENTS {
        let text = read(document);
        let base = Path::new(ROOT).join(document);
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = link.split('#').next().unwrap();
            if !file.is_empty() && !file.contains("://") {
                assert!(base.parent().unwrap().join(file).exists(), "{document} links to {link}");
            }
        }
    }
}

/// Each test that a page names in the last column of its tables exists.
#[test]
fn the_tests_that_are_named_exist() {
    all_named_exist("docs/reliability.md");
    all_named_exist("docs/known-mistakes.md");
    all_named_exist("docs/security.md");
}

/// The page on security has one row for each abuse case, in order, and each says which test shows it, or why none does.
#[test]
fn every_abuse_case_has_its_row() {
    let page = read("docs/security.md");
    let (_, table) = page.split_once("## Abuse cases\n").unwrap();
    let rows = table.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| case"));
    let mut numbers = Vec::new();
    for row in rows {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [number, somebody, outcome, shown] = cells[..] else { panic!("{row}") };
        numbers.push(number.parse::<u32>().unwrap());
        assert!(!somebody.is_empty() && !outcome.is_empty(), "{row}");
        let reasons = ["not yet", "does not apply", "the operator's duty"];
        assert!(shown != NO_TEST || reasons.iter().any(|reason| outcome.contains(reason)), "{row}");
    }
    assert_eq!(numbers, (1..=55).collect::<Vec<_>>());
}

/// What stands where no test can be named.
const NO_TEST: &str = "no test";

/// Looks at the tables whose last column names tests; its head says from which directory the files are named.
fn all_named_exist(page: &str) {
    let text = read(page);
    let mut directory = None;
    let mut named = 0;
    for row in text.lines() {
        if !row.starts_with('|') {
            directory = None;
        } else if let Some((_, head)) = row.rsplit_once("(`tests/it/") {
            directory = head.split_once("…`)").map(|(inner, _)| format!("tests/it/{inner}"));
        } else if let Some(directory) = directory.as_deref().filter(|_| row.starts_with("| ")) {
            named += all_in_row_exist(directory, row);
        }
    }
    assert!(named > 10, "{page}: {named}");
}

/// How many tests the row names.
fn all_in_row_exist(directory: &str, row: &str) -> usize {
    let cell = row.trim_end_matches('|').rsplit('|').next().unwrap();
    if cell.trim() == NO_TEST {
        return 0;
    }
    let words: Vec<&str> = cell.split('`').skip(1).step_by(2).collect();
    let (files, tests): (Vec<&str>, Vec<&str>) = words.iter().partition(|word| word.ends_with(".rs"));
    let files: String = files.iter().map(|file| source(directory, file)).collect();
    assert!(!files.is_empty(), "{row} names no file");
    for test in &tests {
        let name = format!("fn {}", test.trim_end_matches('…'));
        assert!(files.contains(&name), "{row}: there is no {test}");
    }
    tests.len()
}

fn source(directory: &str, file: &str) -> String {
    if file.starts_with("src/") { read(file) } else { read(&format!("{directory}{file}")) }
}

#[test]
fn no_document_holds_a_place_to_fill_in() {
    for document in DOCUMENTS {
        let text = read(document);
        for word in ["@DEMO@", "TODO", "TBD", "FIXME"] {
            assert!(!text.contains(word), "{document} holds {word}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_python_example_of_the_readme_runs() {
    let house = House::with(&ROTATING.replace("[credentials.demo]", "[credentials.salesforce]")).await;
    let example = blocks(&read("README.md"), "python").join("\n").replace("127.0.0.1:7443", &house.address());
    let directory = tempfile::tempdir().unwrap();
    let script = directory.path().join("example.py");
    fs::write(&script, format!("{example}\nprint(token.generation, headers['authorization'][:7])\n")).unwrap();
    let mut python = Command::new(format!("{ROOT}/.tools/python/bin/python"));
    // N7: as from a clean clone, with nothing but the directory that the example itself names.
    python.arg(script).current_dir(ROOT).env_remove("PYTHONPATH");
    let output = tokio::task::spawn_blocking(move || python.output()).await.unwrap();
    let output = output.unwrap_or_else(|error| panic!("python does not start, run scripts/setup once: {error}"));
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.ends_with(" Bearer \n"), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(house.asked(), 2);
}

#[test]
fn every_metric_and_every_exit_code_is_documented() {
    let page = read("docs/observability.md");
    let source = read("src/telemetry.rs");
    let names: Vec<&str> =
        source.split("registry.register(\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    assert!(names.len() > 10, "{names:?}");
    for name in names {
        assert!(page.contains(&format!("| `bearerd_{name}")), "{name}");
    }
    let help = Command::new(env!("CARGO_BIN_EXE_bearerd")).arg("--help").output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let (_, codes) = help.split_once("Exit codes:\n").unwrap();
    for line in codes.lines().take_while(|line| !line.is_empty()) {
        let code = line.split_whitespace().next().unwrap();
        assert!(page.contains(&format!("\n| {code} |")), "{line}");
    }
}

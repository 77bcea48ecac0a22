//! `ARCHITECTURE.md` and `src` say the same: rooms, arrows, boundaries. And no file or function grows beyond one idea.
//!
//! The tables of that page are the rules; whoever wants another house changes them first, where everybody sees it.

use std::{fs, path::Path};

use self::{
    house::{House, Rule, spans},
    source::{Source, calls_of_macros, functions, read},
};

mod house;
mod paths;
mod source;
mod text;

/// The most lines of a file, tests included.
const LONGEST_FILE: usize = 600;

/// The most lines of a function.
const LONGEST_FUNCTION: usize = 70;

/// Data goes through the command line's streams and everything else through the log; nothing is printed past them.
const PRINTING: [&str; 5] = ["print", "println", "eprint", "eprintln", "dbg"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn the_source_is_built_as_the_page_says() {
    let page = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let faults = House::read(&page).unwrap().faults(&read(&root().join("src")).unwrap());
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn the_page_keeps_the_boundaries_that_matter_most() {
    let page = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let house = House::read(&page).unwrap();
    for (who, name) in [
        ("api", "crate::proto"),
        ("api", "tonic"),
        ("store", "redis"),
        ("store", "redb"),
        ("provider", "reqwest"),
        ("cli/demo", "crate::sandbox"),
    ] {
        let row = house.boundaries.iter().find(|row| row.rule == Rule::Alone && row.names.iter().any(|n| n == name));
        assert!(row.is_some_and(|row| row.who.iter().any(|w| w == who)), "{name}");
    }
}

#[test]
fn every_file_that_the_page_names_exists() {
    let page = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let is_file = |span: &String| [".rs", ".lua", ".proto", ".md"].iter().any(|end| span.ends_with(end));
    let named: Vec<String> = spans(&page).into_iter().filter(is_file).collect();
    assert!(named.len() > 5, "{named:?}");
    for file in named {
        assert!(root().join(&file).exists() || root().join("src").join(&file).exists(), "{file}");
    }
}

#[test]
fn files_and_functions_are_one_idea_each() {
    for source in read(&root().join("src")).unwrap() {
        let name = source.name();
        assert!(source.text.starts_with("//! "), "{name} does not begin with a sentence about itself");
        assert!(source.text.lines().count() <= LONGEST_FILE, "{name} has more than {LONGEST_FILE} lines");
        for (function, lines) in functions(&source.code) {
            assert!(lines <= LONGEST_FUNCTION, "{name}: {function} has {lines} lines, more than {LONGEST_FUNCTION}");
        }
        assert_eq!(calls_of_macros(&source.live, &PRINTING), [""; 0], "{name}");
    }
}

/// A small house, to see that the rules can fail.
const PAGE: &str = "
| floor | room | in one sentence |
|--|--|--|
| 0 | `lib` | The map. |
| 1 | `api` | Serves. |
| 2 | `broker` | Conducts. |
| 3 | `cache` | Remembers. |
| 3 | `store` | Keeps. |
| 4 | `name` | Names. |
| – | `sandbox` | Plays. |

| from | to | why |
|--|--|--|
| `store` | `cache` | They are friends. |

| who | may | name | why |
|--|--|--|--|
| `store` | alone | `redis` | It is hidden. |
| `api/demo` | alone | `crate::sandbox` | It is a toy. |
| `broker/decide`, `name` | never | `tokio`, `Instant::now` | They are pure. |
";

/// What [`PAGE`] says of one file with this text.
fn faults(place: &[&str], text: &str) -> Vec<String> {
    let excused = Source::new(&["store"], "use crate::cache;");
    let rooms = ["api", "broker", "cache", "name", "sandbox"].map(|room| Source::new(&[room], ""));
    let sources: Vec<Source> =
        [excused, Source::new(&[], ""), Source::new(place, text)].into_iter().chain(rooms).collect();
    House::read(PAGE).map_or_else(|error| vec![error], |house| house.faults(&sources))
}

#[test]
fn good_arrows_pass() {
    for (place, text) in [
        (vec!["api"], "use crate::{broker::{self, Broker}, name};"),
        (vec!["api", "token"], "use super::Api; use crate::api::convert;"),
        (vec!["store", "redis"], "use redis::Client; use crate::store::Store;"),
        (vec!["api", "demo"], "use crate::sandbox::Sandbox;"),
        (vec!["api", "demo", "storm"], "use crate::sandbox::Sandbox;"),
        (vec!["sandbox", "form"], "use crate::{name::Scopes, sandbox::World}; use tokio::net;"),
        (vec!["cache"], "#[cfg(test)] mod tests { use crate::broker; use redis::Client; }"),
        (vec!["broker"], "use tokio::task; // crate::api"),
    ] {
        assert_eq!(faults(&place, text), [""; 0], "{place:?} {text}");
    }
}

#[test]
fn bad_arrows_do_not() {
    for (place, text, fault) in [
        (vec!["broker"], "use crate::api;", "broker → api does not run down"),
        (vec!["cache"], "use crate::store::Event;", "cache → store does not run down"),
        (vec!["broker"], "use crate::{name, cache::{a, b}, api::{c::{d, e}}};", "names crate::api::c::d"),
        (vec!["broker"], "fn f() -> crate::api::Api {}", "names crate::api::Api"),
        (vec!["broker", "refresh"], "use super::super::api::Api;", "names crate::api::Api"),
        (vec!["name"], "use crate::*;", "does not run down"),
        (vec!["sandbox"], "use crate::store;", "sandbox → store does not run down"),
        (vec!["broker"], "use crate::nowhere;", "broker → nowhere does not run down"),
        (vec!["attic"], "", "does not name `attic`"),
        (vec![], "pub mod attic { }", "does not name `attic`"),
        (vec!["broker"], "use redis::Client;", "only store may name redis"),
        (vec!["broker"], "fn f() { ::redis::open() }", "only store may name redis"),
        (vec!["api"], "use crate::sandbox;", "only api/demo may name crate::sandbox"),
        (vec!["api", "demonstration"], "use crate::sandbox;", "only api/demo may name crate::sandbox"),
        (vec!["broker", "decide"], "use tokio::time;", "broker/decide, name may not name tokio"),
        (vec!["name"], "use std::time; fn f() { time::Instant::now() }", "broker/decide, name may not name tokio"),
        (vec!["name"], "use std::time::Instant as I; fn f() { I::now() }", "broker/decide, name may not name tokio"),
    ] {
        let all = faults(&place, text).join("\n");
        assert!(all.contains(fault), "{place:?} {text}: {all:?}");
    }
}

#[test]
fn a_page_that_says_too_much_or_nonsense_is_found_out() {
    let page = PAGE.replace("`name` | Names.", "`attic` | Names.");
    let missing = House::read(&page).unwrap().faults(&[]);
    assert!(missing.contains(&"the room `attic` of the table is not in src".to_owned()), "{missing:?}");
    assert!(missing.contains(&"nobody needs the exception store → cache".to_owned()), "{missing:?}");
    for (good, bad) in [("| 4 |", "| four |"), ("They are friends.", ""), ("alone", "perhaps"), ("It is hidden.", "")] {
        assert!(House::read(&PAGE.replace(good, bad)).is_err(), "{bad}");
    }
}

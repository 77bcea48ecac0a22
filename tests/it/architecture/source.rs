//! The files of `src`, and what can be asked of each: its room, its modules, its functions, the macros it calls.

use std::{collections::BTreeSet, fs, io, path::Path};

use super::text::{blank, is_word, item_length, tokens, without_tests, words};

/// A file of `src`.
pub struct Source {
    /// Its module: `["api", "grants"]` for `src/api/grants.rs`, nothing for `src/lib.rs`.
    pub place: Vec<String>,
    /// All of it.
    pub text: String,
    /// All of it but comments and literals, which are blanks.
    pub code: String,
    /// The code without what is compiled for tests only.
    pub live: String,
}

impl Source {
    /// A file of this text.
    pub fn new(place: &[&str], text: &str) -> Self {
        let code = blank(text);
        let live = without_tests(&code);
        Self { place: place.iter().map(|&name| name.to_owned()).collect(), text: text.to_owned(), code, live }
    }

    /// The room it belongs to.
    pub fn room(&self) -> &str {
        self.place.first().map_or("lib", String::as_str)
    }

    /// Its name, for messages.
    pub fn name(&self) -> String {
        if self.place.is_empty() { "src/lib.rs".to_owned() } else { format!("src/{}.rs", self.place.join("/")) }
    }

    /// The modules it declares for tests only, each in a file of its own.
    fn test_modules(&self) -> Vec<Vec<String>> {
        let declared = modules(&self.code);
        let kept = modules(&self.live);
        declared.difference(&kept).map(|name| [self.place.as_slice(), &[name.to_string()]].concat()).collect()
    }
}

/// Reads every `.rs` file below a directory. A module that its parent declares for tests only counts as a test whole.
pub fn read(root: &Path) -> io::Result<Vec<Source>> {
    let mut sources = Vec::new();
    collect(root, &mut Vec::new(), &mut sources)?;
    let tests: Vec<Vec<String>> = sources.iter().flat_map(Source::test_modules).collect();
    for source in sources.iter_mut().filter(|source| tests.iter().any(|test| source.place.starts_with(test))) {
        source.live.clear();
    }
    Ok(sources)
}

fn collect(directory: &Path, place: &mut Vec<String>, sources: &mut Vec<Source>) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() {
            place.push(name);
            collect(&path, place, sources)?;
            place.pop();
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let root = place.is_empty() && name == "lib";
            let place: Vec<&str> = place.iter().map(String::as_str).chain((!root).then_some(name.as_str())).collect();
            sources.push(Source::new(&place, &fs::read_to_string(&path)?));
        }
    }
    Ok(())
}

/// The names of the modules that the code declares, with or without a body.
pub fn modules(code: &str) -> BTreeSet<&str> {
    let declared = |pair: &[&'_ str]| matches!(pair, ["mod", _]);
    words(code).windows(2).filter(|pair| declared(pair)).filter_map(|pair| pair.last().copied()).collect()
}

/// The macros of these names that the code calls.
pub fn calls_of_macros<'a>(code: &str, names: &[&'a str]) -> Vec<&'a str> {
    let words = words(code);
    let called =
        |name: &str| words.windows(3).any(|w| matches!(w, [word, "!", after] if *word == name && *after != "="));
    names.iter().copied().filter(|name| called(name)).collect()
}

/// Every function in the code with the number of its lines.
pub fn functions(code: &str) -> Vec<(&str, usize)> {
    let tokens = tokens(code);
    let lengths = tokens.windows(2).filter_map(|pair| match pair {
        [(at, "fn"), (_, name)] if is_word(name) => {
            let rest = code.get(*at..)?;
            Some((*name, rest.get(..item_length(rest))?.lines().count()))
        }
        _ => None,
    });
    lengths.collect()
}

#[test]
fn comments_literals_and_tests_are_not_code() {
    let text = r####"
//! crate::a
/* crate::b /* crate::c */ crate::d */
fn x<'a>(y: &'a str) -> char { "crate::e \" crate::f"; r#"crate::g " crate::h"#; b"crate::i"; '"'; '\''; 'c' }
#[cfg(test)]
#[allow(unused)]
mod tests { use crate::j; fn f() { "}" } }
use crate::k;
#[cfg(test)]
mod testing;
"####;
    let source = Source::new(&["here"], text);
    assert_eq!(super::paths::paths(&source), BTreeSet::from([vec!["crate".to_owned(), "k".to_owned()]]));
    assert_eq!(source.code.lines().count(), text.lines().count());
    assert_eq!(source.live.lines().count(), text.lines().count());
    assert_eq!(source.test_modules(), [["here", "testing"], ["here", "tests"]]);
}

#[test]
fn functions_are_measured_and_macros_seen() {
    let code = "fn a(x: [u8; 2])\nwhere\n{\n  if x {}\n}\ntrait T { fn b();\n}\ntype F = fn(u8);";
    assert_eq!(functions(code), [("a", 5), ("b", 1)]);
    assert_eq!(calls_of_macros("if print != x { std::println!() }", &["print", "println"]), ["println"]);
}

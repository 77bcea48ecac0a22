//! Every path that a file names, in full.

use std::{
    collections::{BTreeMap, BTreeSet},
    iter::Peekable,
    vec::IntoIter,
};

use super::{
    source::{Source, modules},
    text::{is_word, words},
};

/// A `use`: the whole path, and the name it gets.
struct Use {
    path: Vec<String>,
    name: String,
}

/// Every path that the live code of a file names, in full: what `use` lines shorten is put back, and `self` and `super`
/// are replaced by the module they mean.
pub fn paths(source: &Source) -> BTreeSet<Vec<String>> {
    let (uses, inline) = collect_paths(&source.live);
    let mut names: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for name in modules(&source.live) {
        names.insert(name, full(&["self".to_owned(), name.to_owned()], &source.place, &BTreeMap::new()));
    }
    let own = names.clone();
    let uses: Vec<Use> =
        uses.into_iter().map(|one| Use { path: full(&one.path, &source.place, &own), name: one.name }).collect();
    names.extend(uses.iter().map(|one| (one.name.as_str(), one.path.clone())));
    let inline = inline.iter().map(|path| full(path, &source.place, &names));
    inline.chain(uses.iter().map(|one| one.path.clone())).collect()
}

/// A path from the crate's root, or from another crate's.
fn full(path: &[String], place: &[String], names: &BTreeMap<&str, Vec<String>>) -> Vec<String> {
    let Some((first, rest)) = path.split_first() else { return Vec::new() };
    let root = || vec!["crate".to_owned()];
    let (start, rest) = match first.as_str() {
        "crate" | "bearerd" => (root(), rest),
        "self" => ([root(), place.to_vec()].concat(), rest),
        "super" => {
            let more = rest.iter().take_while(|name| *name == "super").count();
            let kept = place.len().saturating_sub(more + 1);
            ([root(), place.iter().take(kept).cloned().collect()].concat(), rest.get(more..).unwrap_or_default())
        }
        name => (names.get(name).cloned().unwrap_or_else(|| vec![name.to_owned()]), rest),
    };
    [start, rest.to_vec()].concat()
}

type Tokens<'a> = Peekable<IntoIter<&'a str>>;

fn collect_paths(code: &str) -> (Vec<Use>, Vec<Vec<String>>) {
    let (mut uses, mut inline) = (Vec::new(), Vec::new());
    let mut tokens = words(code).into_iter().peekable();
    while let Some(token) = tokens.next() {
        // `use<'a>` names captured lifetimes and is no declaration.
        if token == "use" && tokens.peek() != Some(&"<") {
            use_tree(&mut tokens, Vec::new(), &mut uses);
        } else if is_word(token) && tokens.peek() == Some(&"::") {
            let mut path = vec![token.to_owned()];
            while tokens.next_if_eq(&"::").is_some() {
                path.extend(tokens.next_if(|next| is_word(next)).map(str::to_owned));
            }
            inline.push(path);
        }
    }
    (uses, inline)
}

fn use_tree(tokens: &mut Tokens<'_>, mut path: Vec<String>, uses: &mut Vec<Use>) {
    let mut name = None;
    while let Some(token) = tokens.next_if(|token| !matches!(*token, "," | "}" | ";")) {
        match token {
            "::" => {}
            "{" => {
                while tokens.peek().is_some_and(|token| !matches!(*token, "}" | ";")) {
                    use_tree(tokens, path.clone(), uses);
                    tokens.next_if_eq(&",");
                }
                tokens.next_if_eq(&"}");
                return;
            }
            "as" => name = tokens.next().map(str::to_owned),
            "self" if !path.is_empty() => {}
            word => path.push(word.to_owned()),
        }
    }
    let name = name.or_else(|| path.last().cloned()).unwrap_or_default();
    uses.push(Use { path, name });
}

#[test]
fn paths_are_found_however_they_are_written() {
    for (text, found) in [
        ("use crate::a;", "crate::a"),
        (
            "use crate::{self, a::{b, c::{self, d as e}}, f::*};",
            "crate crate::a::b crate::a::c crate::a::c::d crate::f::*",
        ),
        ("pub use ::bearerd::a::B;", "crate::a::B"),
        ("fn f() -> Vec<crate::a::B> { crate::c::d::<u8>() }", "crate::a::B crate::c::d"),
        ("use super::{a, super::b};", "crate::b crate::room::a"),
        ("use self::a::B; fn f() { super::super::c::d() }", "crate::c::d crate::room::inner::a::B"),
        (
            "use std::time::SystemTime as Wall; fn f() { Wall::now() }",
            "std::time::SystemTime std::time::SystemTime::now",
        ),
        ("mod redis; fn f() { redis::open() }", "crate::room::inner::redis::open"),
        ("use crate::store::redis; fn f() { redis::open() }", "crate::store::redis crate::store::redis::open"),
        ("fn f(x: &X) -> impl Fn() + use<'_> { redis::open() }", "redis::open"),
    ] {
        let all: Vec<String> =
            paths(&Source::new(&["room", "inner"], text)).iter().map(|path| path.join("::")).collect();
        assert_eq!(all.join(" "), found, "{text}");
    }
}

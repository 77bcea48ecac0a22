//! `bearerd.sample.toml` holds every setting and can be used as it is.

use std::collections::BTreeSet;

use super::*;

const SAMPLE: &str = include_str!("../../../bearerd.sample.toml");

/// The sample with every alternative in force: each replaces the table of its name.
fn alternatives() -> String {
    let (mut kept, mut replacements) = (Vec::new(), Vec::new());
    for table in tables(SAMPLE) {
        match table[0].strip_prefix('#') {
            Some(header) => {
                kept.retain(|table: &Vec<&str>| table[0] != header);
                replacements.extend(table.iter().map(|line| line.strip_prefix('#').unwrap()));
            }
            None => kept.push(table),
        }
    }
    kept.concat().into_iter().chain(replacements).collect::<Vec<_>>().join("\n")
}

/// The lines of each table without explanations, its header first.
fn tables(text: &str) -> Vec<Vec<&str>> {
    let mut tables = Vec::new();
    for line in text.lines().filter(|line| !line.is_empty() && *line != "#" && !line.starts_with("# ")) {
        if line.trim_start_matches('#').starts_with('[') {
            tables.push(Vec::new());
        }
        tables.last_mut().expect("a table begins before the first setting").push(line);
    }
    tables
}

#[test]
fn it_loads() {
    let config = Place::new().parse(SAMPLE).map_err(|errors| panic!("{errors}")).unwrap();
    assert!(config.warnings.is_empty(), "{}", config.warnings[0].render(false));
    assert_eq!((config.credentials.len(), config.allow.len(), config.files.len()), (6, 4, 4));
    assert!(!format!("{config:?}").contains("in-file"));
}

#[test]
fn its_alternatives_load() {
    let config = Place::new().parse(&alternatives()).map_err(|errors| panic!("{errors}")).unwrap();
    assert!(matches!(config.store, Store::Redis { .. }));
    assert!(config.server.tls.unwrap().clients.is_some_and(|clients| clients.required));
    assert!(config.server.unix_socket.is_some());
    assert!(!format!("{:?}", config.identity).contains("in-file"));
    let kubernetes = config.identity.config.kubernetes.unwrap();
    assert!(kubernetes.review && kubernetes.token.is_some() && kubernetes.ca.is_some());
}

#[test]
fn it_shows_the_defaults() {
    let place = Place::new();
    let (sample, default) = (place.parse(SAMPLE).unwrap(), place.parse("").unwrap());
    for (shown, real) in [
        (format!("{:?}", sample.server), format!("{:?}", default.server)),
        (format!("{:?}", sample.store), format!("{:?}", default.store)),
        (format!("{:?}", sample.refresh), format!("{:?}", default.refresh)),
        (format!("{:?}", sample.cache), format!("{:?}", default.cache)),
        (format!("{:?}", sample.audit), format!("{:?}", default.audit)),
        (format!("{:?}", sample.limits), format!("{:?}", default.limits)),
        (format!("{:?}", sample.log), format!("{:?}", default.log)),
    ] {
        assert_eq!(shown, real);
    }
}

#[test]
fn it_holds_every_setting() {
    let mut written = BTreeSet::new();
    for table in tables(SAMPLE) {
        let header = table[0].trim_matches(['#', '[', ']']);
        let name = if header.starts_with("credentials.") { "credentials" } else { header };
        written.extend(header.rsplit_once('.'));
        for line in &table[1..] {
            let line = line.trim_matches(['#', ' ']);
            if let Some(row) = line.strip_prefix("{ ") {
                written.extend(row.split(", ").map(|item| ("seal.keys", item.split(' ').next().unwrap())));
            } else if let Some((key, value)) = line.split_once(" = ") {
                written.insert((name, key));
                written.extend(value.strip_prefix("{ ").map(|inline| ("secret", inline.split(' ').next().unwrap())));
            }
        }
    }
    let missing: Vec<_> = known_keys().into_iter().filter(|key| !written.contains(key)).collect();
    assert!(missing.is_empty(), "bearerd.sample.toml lacks {missing:?}");
}

//! What of a file may be shown in a report. A secret can stand anywhere by mistake, so everything is hidden that is not
//! known to be harmless.
//!
//! Hidden bytes become `*`, so offsets and line breaks stay those of the file.

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::report::Span;

/// The text with every value hidden but those in `shown`, and hidden, too, what in a URL can be a secret.
pub(super) fn values(text: &str, document: &DeTable<'_>, shown: &[Span]) -> String {
    let mut bytes = text.as_bytes().to_vec();
    let mut leaves = Vec::new();
    document.values().for_each(|value| collect(value, &mut leaves));
    for leaf in leaves {
        if !shown.iter().any(|span| span.start <= leaf.start && leaf.end <= span.end) {
            hide(&mut bytes, leaf);
        }
    }
    urls(text, &mut bytes);
    finish(bytes)
}

/// The text for places that could not be read. It is not certain there what a word belongs to, so a line is shown
/// only where it holds nothing but one setting of a harmless name.
pub(super) fn lines(text: &str, harmless: impl Fn(&str) -> bool) -> String {
    let mut bytes = text.as_bytes().to_vec();
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        let end = start + line.len();
        hide(&mut bytes, start + visible(line, &harmless)..end);
        start = end;
    }
    urls(text, &mut bytes);
    finish(bytes)
}

/// Two such texts of the same file in one, which shows only what both of them show.
pub(super) fn both(one: &str, other: &str) -> String {
    finish(one.bytes().zip(other.bytes()).map(|(a, b)| if a == b { a } else { b'*' }).collect())
}

/// How many bytes of a line may be shown.
fn visible(line: &str, harmless: impl Fn(&str) -> bool) -> usize {
    let body = line.trim_start();
    let indent = line.len() - body.len();
    if body.starts_with('[') {
        let brackets = if body.starts_with("[[") { "]]" } else { "]" };
        return body.find(brackets).map_or(indent, |at| indent + at + brackets.len());
    }
    let Some((left, right)) = line.split_once('=') else {
        let word = body.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(body.len());
        return if body.get(..word).is_some_and(harmless) { indent + word } else { indent };
    };
    let is_key = |c: char| c.is_ascii_alphanumeric() || "_-. ".contains(c);
    let key = left.rsplit('.').next().unwrap_or(left).trim();
    match left.chars().all(is_key) {
        true if harmless(key) && !right.contains('=') => line.len(),
        true => left.len() + 1,
        false => indent,
    }
}

fn collect(value: &Spanned<DeValue<'_>>, leaves: &mut Vec<Span>) {
    match value.get_ref() {
        DeValue::Table(table) => table.values().for_each(|inner| collect(inner, leaves)),
        DeValue::Array(array) => array.iter().for_each(|inner| collect(inner, leaves)),
        DeValue::String(_) | DeValue::Integer(_) | DeValue::Float(_) | DeValue::Boolean(_) | DeValue::Datetime(_) => {
            leaves.push(value.span());
        }
    }
}

/// Hides the user information and the query of every URL, and rather more than less of its line.
fn urls(text: &str, bytes: &mut [u8]) {
    for (at, separator) in text.match_indices("://") {
        let start = at + separator.len();
        let rest = text.get(start..).unwrap_or_default();
        let line = rest.split('\n').next().unwrap_or_default();
        if let Some(end) = line.rfind('@') {
            hide(bytes, start..start + end);
        }
        if let Some(query) = line.find(['?', '#']) {
            let end = line.find(['"', '\'']).filter(|&quote| quote > query).unwrap_or(line.len());
            hide(bytes, start + query + 1..start + end);
        }
    }
}

fn hide(bytes: &mut [u8], span: Span) {
    for byte in bytes.get_mut(span).unwrap_or_default() {
        if !matches!(byte, b'\n' | b'\r') {
            *byte = b'*';
        }
    }
}

/// Hidden spans begin and end at characters, so the text is still UTF-8; were it not, nothing would be shown.
fn finish(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_shown_values_can_be_read() {
        let text = "a = \"one\"\nb = { c = 'two', d = [3, \"vier\"] }\n";
        let document = DeTable::parse(text).unwrap();
        let shown = document.get_ref().get("a").unwrap().span();
        let masked = values(text, document.get_ref(), &[shown]);
        assert_eq!(masked, "a = \"one\"\nb = { c = *****, d = [*, ******] }\n");
    }

    #[test]
    fn a_url_shows_neither_user_information_nor_query() {
        for (text, masked) in [
            ("a = \"redis://me:p@ss@host/0\"", "a = \"redis://*******@host/0\""),
            ("a = \"https://host/x?key=1\"", "a = \"https://host/x?*****\""),
            ("a = \"https://host/x\"", "a = \"https://host/x\""),
        ] {
            let document = DeTable::parse(text).unwrap();
            let all = 0..text.len();
            assert_eq!(values(text, document.get_ref(), std::slice::from_ref(&all)), masked);
        }
    }

    #[test]
    fn an_unreadable_line_shows_only_harmless_settings() {
        let harmless = |key: &str| ["listen", "client_id"].contains(&key);
        for (line, masked) in [
            ("listen = 127.0.0.1:7443", "listen = 127.0.0.1:7443"),
            ("server.listen = x", "server.listen = x"),
            ("client_secret = hunter2", "client_secret =********"),
            ("client_secret = \"ää\r\n", "client_secret =******\r\n"),
            ("client_id = \"a\" client_secret = \"b\"", "client_id =************************"),
            ("client_secret hunter2", "*********************"),
            ("listen hunter2", "listen********"),
            ("[credentials.a] hunter2", "[credentials.a]********"),
            ("[[allow]]", "[[allow]]"),
            ("\"hunter2\"", "*********"),
            ("  hunter2\"\"\"", "  **********"),
            ("\"client_secret\" = 'a'", "*********************"),
        ] {
            assert_eq!(lines(line, harmless), masked, "{line}");
        }
    }
}

//! What to say about a text that is not TOML: one report for each mistake, and the remedy for what newcomers write.

use toml::de::DeTable;

use super::report::{Problem, Scope, Span};

/// The reports about everything in the text that the parser could not read.
pub(super) fn problems(text: &str, document: &DeTable<'_>, mistakes: &[toml::de::Error]) -> Vec<Problem> {
    if let Some((format, span)) = mistakes.first().and_then(|_| other_format(text)) {
        let right = "write [table] and key = value; bearerd.sample.toml shows every setting".to_owned();
        return vec![problem(span, format!("this is {format}, and the configuration is TOML"), right)];
    }
    let mut problems = Vec::new();
    let mut last_line = None;
    for mistake in mistakes {
        let span = mistake.span().unwrap_or_default();
        let line = line_of(text, span.start);
        // What the parser says next about the same line follows from the first mistake in it.
        if last_line.replace(line.start) == Some(line.start) {
            continue;
        }
        if mistake.message() == DUPLICATE {
            problems.extend(duplicate(text, document, &span));
        } else {
            problems.push(problem(span.clone(), "this is not TOML".to_owned(), remedy(text, &span, mistake.message())));
        }
    }
    problems
}

/// What the parser says of a name that is already there.
const DUPLICATE: &str = "duplicate key";

fn problem(span: Span, title: String, right: String) -> Problem {
    Problem { scope: Scope::Syntax, span: Some(span), title, right, context: Vec::new() }
}

/// What is right instead, or what the parser says.
fn remedy(text: &str, span: &Span, says: &str) -> String {
    let line = text.get(line_of(text, span.start)).unwrap_or_default();
    let body = line.trim_start();
    let after_name = body.trim_start_matches(|c: char| c.is_ascii_alphanumeric() || "-_.".contains(c));
    let known = if body.starts_with("//") {
        "a comment begins with #"
    } else if after_name.trim_start().starts_with(':') && after_name.len() < body.len() {
        "write = between a setting and its value, not :"
    } else if line.contains(['\u{201c}', '\u{201d}', '\u{2018}', '\u{2019}']) {
        "these quotes are typographic: write \"…\""
    } else if says.starts_with("string values must be quoted") {
        "write a text in quotes: \"…\""
    } else if says.contains("expected newline") && line.trim_end().ends_with([';', ',']) {
        "leave out what follows the value: a line ends without ';' or ','"
    } else if says.starts_with("carriage return must be followed by newline") {
        "lines end with a carriage return alone here: save the file with line feeds"
    } else {
        says
    };
    known.to_owned()
}

/// The bytes of the line of this offset, without its end.
fn line_of(text: &str, offset: usize) -> Span {
    let offset = text.floor_char_boundary(offset);
    let start = text.get(..offset).and_then(|before| before.rfind('\n')).map_or(0, |at| at + 1);
    let end = text.get(offset..).and_then(|rest| rest.find('\n')).map_or(text.len(), |at| offset + at);
    start..end
}

/// Another format that the whole text is in, and where that shows.
fn other_format(text: &str) -> Option<(&'static str, Span)> {
    let mut lines = Vec::new();
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        let body = line.trim();
        if !body.is_empty() && !body.starts_with('#') {
            let at = start + line.len() - line.trim_start().len();
            lines.push((body, at..at + body.len()));
        }
        start += line.len();
    }
    let (first, span) = lines.first()?.clone();
    if first.starts_with('{') {
        return Some(("JSON", span));
    }
    let is_yaml = |line: &str| {
        let name = line.strip_prefix("- ").unwrap_or(line);
        let rest = name.trim_start_matches(|c: char| c.is_ascii_alphanumeric() || "-_.".contains(c));
        line == "---" || (rest.len() < name.len() && (rest == ":" || rest.starts_with(": ")))
    };
    let is_toml = |line: &str| line.starts_with('[') || line.contains('=');
    let yaml = lines.iter().filter(|(line, _)| is_yaml(line)).count();
    let toml = lines.iter().filter(|(line, _)| is_toml(line)).count();
    // A `:` for a `=` here and there is a slip.
    (yaml > toml && is_yaml(first)).then_some(("YAML", span))
}

/// A name that is already there, with the place where it was first; nothing for what stands in a table that is itself
/// there twice.
fn duplicate(text: &str, document: &DeTable<'_>, span: &Span) -> Option<Problem> {
    let headers = headers(text);
    let (header, earlier) = match headers.iter().rev().position(|header| header.start <= span.start) {
        Some(back) => headers.get(..headers.len() - back).and_then(|upto| upto.split_last())?,
        None => return Some(repeated(text, span, place_of(document, &names_of(text, span), span.start))),
    };
    let written = text.get(header.clone()).unwrap_or_default();
    let mut path = names(written);
    let first = earlier.iter().find(|earlier| names(text.get((*earlier).clone()).unwrap_or_default()) == path);
    if header.contains(&span.start) {
        let mut problem = problem(
            header.clone(),
            format!("the table {written} is there twice"),
            "give it another name, or put both together".to_owned(),
        );
        problem.context = first.map(|first| (first.clone(), FIRST.to_owned())).into_iter().collect();
        return Some(problem);
    }
    if first.is_some() && !written.starts_with("[[") {
        return None;
    }
    path.extend(names_of(text, span));
    Some(repeated(text, span, place_of(document, &path, span.start)))
}

const FIRST: &str = "it is here first";

/// The report about a setting that is there twice.
fn repeated(text: &str, span: &Span, first: Option<Span>) -> Problem {
    let title = format!("`{}` is there twice", text.get(span.clone()).unwrap_or_default());
    let mut problem = problem(span.clone(), title, "keep one of them".to_owned());
    problem.context = first.map(|first| (first, FIRST.to_owned())).into_iter().collect();
    problem
}

/// The bytes of each `[header]` in the text.
fn headers(text: &str) -> Vec<Span> {
    let mut headers = Vec::new();
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        let body = line.trim();
        if body.starts_with('[') {
            let at = start + line.len() - line.trim_start().len();
            let end = body.find(']').map_or(body.len(), |end| end + 1 + usize::from(body.starts_with("[[")));
            headers.push(at..at + end.min(body.len()));
        }
        start += line.len();
    }
    headers
}

/// The name that stands at a place of the text.
fn names_of(text: &str, span: &Span) -> Vec<String> {
    names(&format!("[{}]", text.get(span.clone()).unwrap_or_default()))
}

/// The names in a header, without quotes.
fn names(header: &str) -> Vec<String> {
    let mut names = Vec::new();
    let Ok(document) = DeTable::parse(header) else { return names };
    let mut table = Some(document.get_ref());
    while let Some((name, value)) = table.and_then(|table| table.iter().next()) {
        names.push(name.get_ref().to_string());
        table = match value.get_ref().as_array() {
            Some(rows) => rows.iter().next().and_then(|row| row.get_ref().as_table()),
            None => value.get_ref().as_table(),
        };
    }
    names
}

/// Where a name was first, before this offset.
fn place_of(document: &DeTable<'_>, path: &[String], before: usize) -> Option<Span> {
    let mut table = Some(document);
    let mut place = None;
    for name in path {
        let (key, value) = table?.get_key_value(name.as_str())?;
        place = Some(key.span());
        table = match value.get_ref().as_array() {
            Some(rows) => rows.iter().rfind(|row| row.span().start <= before).and_then(|row| row.get_ref().as_table()),
            None => value.get_ref().as_table(),
        };
    }
    place
}

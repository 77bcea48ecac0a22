//! Rust as text: comments, literals and tests blanked out, and what is left cut into tokens.

/// The text with blanks where comments, strings and characters were; lines stay where they are.
pub fn blank(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let word = word_length(rest);
        let (kept, hidden) = match rest.get(..word).unwrap_or_default() {
            "" => match hidden_length(rest) {
                0 => (first.len_utf8(), 0),
                length => (0, length),
            },
            "r" | "br" | "cr" => (word, raw_string(rest.get(word..).unwrap_or_default())),
            _ => (word, 0),
        };
        out.push_str(rest.get(..kept).unwrap_or_default());
        let gone = rest.get(kept..kept + hidden).unwrap_or_default();
        out.extend(gone.chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
        rest = rest.get(kept + hidden..).unwrap_or_default();
    }
    out
}

/// The length of the comment or literal that the text begins with.
fn hidden_length(text: &str) -> usize {
    if text.starts_with("//") {
        text.find('\n').unwrap_or(text.len())
    } else if text.starts_with("/*") {
        block_comment(text)
    } else if text.starts_with('"') {
        string(text)
    } else if text.starts_with('\'') {
        character(text)
    } else {
        0
    }
}

fn block_comment(text: &str) -> usize {
    let (mut at, mut depth) = (0, 0_usize);
    while let Some(next) = text.get(at..).and_then(|rest| rest.find(['/', '*']).map(|found| at + found)) {
        let step = match text.get(next..next + 2) {
            Some("/*") => Some(depth + 1),
            Some("*/") => Some(depth - 1),
            Some(_) | None => None,
        };
        at = next + if step.is_some() { 2 } else { 1 };
        depth = step.unwrap_or(depth);
        if depth == 0 {
            return at;
        }
    }
    text.len()
}

fn string(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// The length of a raw string whose `r` was read already; 0 if it is none.
fn raw_string(text: &str) -> usize {
    let hashes = text.len() - text.trim_start_matches('#').len();
    let Some(body) = text.get(hashes..).and_then(|rest| rest.strip_prefix('"')) else { return 0 };
    let end = format!("\"{}", "#".repeat(hashes));
    body.find(&end).map_or(text.len(), |at| hashes + 1 + at + end.len())
}

/// The length of a character literal; 0 for a lifetime.
fn character(text: &str) -> usize {
    let mut chars = text.char_indices().skip(1);
    match (chars.next(), chars.next()) {
        (Some((_, '\\')), Some(_)) => text.get(3..).and_then(|rest| rest.find('\'')).map_or(0, |at| 3 + at + 1),
        (Some(_), Some((at, '\''))) => at + 1,
        _ => 0,
    }
}

/// The code with blanks for every item that is marked `#[cfg(test)]`.
pub fn without_tests(code: &str) -> String {
    const MARK: &str = "#[cfg(test)]";
    let mut live = String::with_capacity(code.len());
    let mut rest = code;
    while let Some((before, after)) = rest.split_once(MARK) {
        let (gone, left) = after.split_at(item_length(after));
        live.push_str(before);
        live.extend(gone.chars().filter(|c| *c == '\n'));
        rest = left;
    }
    live + rest
}

/// The length of the item that the code begins with: up to its semicolon, or to the end of its body.
pub fn item_length(code: &str) -> usize {
    let (mut brackets, mut braces) = (0_i32, 0_i32);
    for (at, c) in code.char_indices() {
        match c {
            '(' | '[' => brackets += 1,
            ')' | ']' => brackets -= 1,
            '{' => braces += 1,
            '}' => braces -= 1,
            _ => {}
        }
        if (c == ';' && brackets == 0 && braces == 0) || (c == '}' && braces == 0) {
            return at + 1;
        }
    }
    code.len()
}

/// The length of the word that the text begins with; 0 if it does not begin with one.
pub fn word_length(text: &str) -> usize {
    text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len())
}

/// Words, `::` and single characters, each with where it stands.
pub fn tokens(code: &str) -> Vec<(usize, &str)> {
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(rest) = code.get(at..).filter(|rest| !rest.is_empty()) {
        let one = rest.chars().next().map_or(1, char::len_utf8);
        let length = if rest.starts_with("::") { 2 } else { word_length(rest).max(one) };
        let token = rest.get(..length).unwrap_or_default();
        if !token.trim().is_empty() {
            tokens.push((at, token));
        }
        at += length;
    }
    tokens
}

/// The same without the places.
pub fn words(code: &str) -> Vec<&str> {
    tokens(code).into_iter().map(|(_, token)| token).collect()
}

/// Whether a token is a word.
pub fn is_word(token: &str) -> bool {
    word_length(token) > 0
}

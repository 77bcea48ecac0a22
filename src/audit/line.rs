//! A line of JSON, member by member, in the order in which they are given. Where each is a text that needs no escaping, as
//! nearly all are, it is copied as it stands; everything else is left to the library.

use std::time::SystemTime;

use super::time;

/// What most lines are shorter than.
const USUAL: usize = 640;

/// A line that is not finished. A key is handed over as it stands in the line: `"name":`.
pub(super) struct Line(Vec<u8>);

impl Line {
    /// Begins with what all lines have.
    pub fn new(schema: &'static str, event: &'static str, time: SystemTime) -> Self {
        let mut line = Self(Vec::with_capacity(USUAL));
        line.0.push(b'{');
        line.plain("\"schema\":", schema);
        line.plain("\"event\":", event);
        line.key("\"time\":");
        time::write(&mut line.0, time);
        line
    }

    /// A text of which it is known that it needs no escaping: one of our own words, or one whose characters were checked.
    pub fn plain(&mut self, key: &'static str, text: &str) {
        self.key(key);
        self.0.push(b'"');
        self.0.extend_from_slice(text.as_bytes());
        self.0.push(b'"');
    }

    /// The same or `null`.
    pub fn maybe_plain(&mut self, key: &'static str, text: Option<&str>) {
        match text {
            Some(text) => self.plain(key, text),
            None => self.null(key),
        }
    }

    /// A text.
    pub fn text(&mut self, key: &'static str, text: &str) {
        self.key(key);
        self.quoted(text);
    }

    /// A text or `null`.
    pub fn maybe_text(&mut self, key: &'static str, text: Option<&str>) {
        match text {
            Some(text) => self.text(key, text),
            None => self.null(key),
        }
    }

    /// A number or `null`.
    pub fn maybe_number(&mut self, key: &'static str, number: Option<u64>) {
        match number {
            Some(number) => {
                self.key(key);
                // Writing into memory cannot fail.
                let _ = serde_json::to_writer(&mut self.0, &number);
            }
            None => self.null(key),
        }
    }

    /// A list of texts.
    pub fn texts<'a>(&mut self, key: &'static str, texts: impl Iterator<Item = &'a str>) {
        self.key(key);
        self.0.push(b'[');
        for text in texts {
            if self.0.last() != Some(&b'[') {
                self.0.push(b',');
            }
            self.quoted(text);
        }
        self.0.push(b']');
    }

    /// JSON has no raw line ends in it, so whatever a caller wrote, a line stays one line.
    pub fn end(mut self) -> Vec<u8> {
        self.0.extend_from_slice(b"}\n");
        self.0
    }

    /// `null`.
    pub fn null(&mut self, key: &'static str) {
        self.key(key);
        self.0.extend_from_slice(b"null");
    }

    fn key(&mut self, key: &'static str) {
        if self.0.len() > 1 {
            self.0.push(b',');
        }
        self.0.extend_from_slice(key.as_bytes());
    }

    fn quoted(&mut self, text: &str) {
        if text.bytes().all(|byte| matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\') {
            self.0.push(b'"');
            self.0.extend_from_slice(text.as_bytes());
            self.0.push(b'"');
        } else {
            let _ = serde_json::to_writer(&mut self.0, text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_what_the_library_would_write() {
        for text in ["", "plain ~ text", "\"", "\\", "a\nb", "\u{7f}", "\u{0}", "ä\u{2028}", "/x?y=1"] {
            let mut line = Line::new("s", "e", SystemTime::UNIX_EPOCH);
            line.text("\"text\":", text);
            line.texts("\"texts\":", [text, text].into_iter());
            line.maybe_text("\"none\":", None);
            line.maybe_number("\"number\":", Some(u64::MAX));
            let expected = format!(
                "{{\"schema\":\"s\",\"event\":\"e\",\"time\":\"1970-01-01T00:00:00.000000Z\",\"text\":{0},\"texts\":[{0},{0}],\
                 \"none\":null,\"number\":18446744073709551615}}\n",
                serde_json::to_string(text).unwrap()
            );
            assert_eq!(String::from_utf8(line.end()).unwrap(), expected);
        }
    }
}

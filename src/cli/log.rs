//! The log: one line for each event, with what is known about the request or refresh that it belongs to. Each field stands
//! in a line once: what an event says itself wins over its span, and an inner span over an outer one.

use std::{
    fmt,
    io::{self, IsTerminal, Write},
    panic,
    time::SystemTime,
};

use serde_json::Value;
use tracing::{
    Event, Level, Subscriber, error,
    field::{Field, Visit},
    span,
};
use tracing_subscriber::{
    EnvFilter, Layer,
    layer::{Context, SubscriberExt},
    registry::LookupSpan,
    util::SubscriberInitExt,
};

use super::output::{Exit, Failure};
use crate::config::{Log, LogFormat};

/// The HTTP/2 library writes a warning for each answer to a ping that was not sent, so anybody who can connect could fill
/// the log. What stands in the configuration about exactly this module counts more.
const UNASKED: &str = "h2::proto::ping_pong=error";

/// Writes the log to stderr from here on; with `json`, a panic too.
pub fn to_stderr(log: &Log) -> Result<(), Failure> {
    let refused = |error: &dyn fmt::Display| Failure::new(Exit::Configuration, format!("log.filter: {error}"));
    let filter = EnvFilter::try_new(format!("{UNASKED},{}", log.filter)).map_err(|error| refused(&error))?;
    let lines = Lines { format: log.format, colour: io::stderr().is_terminal() };
    tracing_subscriber::registry().with(filter).with(lines).try_init().map_err(|error| refused(&error))?;
    if log.format == LogFormat::Json {
        panic::set_hook(Box::new(|panic| error!("{panic}")));
    }
    Ok(())
}

/// Makes lines of events.
struct Lines {
    format: LogFormat,
    colour: bool,
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Lines {
    fn on_new_span(&self, attributes: &span::Attributes<'_>, id: &span::Id, context: Context<'_, S>) {
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        if let Some(span) = context.span(id) {
            span.extensions_mut().insert(fields);
        }
    }

    fn on_record(&self, id: &span::Id, values: &span::Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(fields) = span.extensions_mut().get_mut::<Fields>()
        {
            values.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        for span in context.event_scope(event).into_iter().flatten() {
            if let Some(outer) = span.extensions().get::<Fields>() {
                fields.add_missing(outer);
            }
        }
        let (level, target) = (*event.metadata().level(), event.metadata().target());
        let time = humantime::format_rfc3339_micros(SystemTime::now()).to_string();
        let line = match self.format {
            LogFormat::Text => fields.text(&time, level, target, self.colour),
            LogFormat::Json => fields.json(&time, level, target),
        };
        // There is no other place to say that the log cannot be written.
        let _ = io::stderr().lock().write_all(line.as_bytes());
    }
}

/// What an event or a span says.
#[derive(Default)]
struct Fields {
    message: String,
    values: Vec<(&'static str, Value)>,
}

impl Fields {
    fn add_missing(&mut self, outer: &Self) {
        for (name, value) in &outer.values {
            if self.values.iter().all(|(known, _)| known != name) {
                self.values.push((name, value.clone()));
            }
        }
    }

    fn put(&mut self, field: &Field, value: Value) {
        match (field.name(), value) {
            ("message", Value::String(message)) => self.message = message,
            // What the crate `log` adds about a line's place in its source.
            (name, _) if name.starts_with("log.") => {}
            (name, value) => self.values.push((name, value)),
        }
    }

    fn text(&self, time: &str, level: Level, target: &str, colour: bool) -> String {
        let level = if colour { format!("\x1b[{}m{level:>5}\x1b[0m", colour_of(level)) } else { format!("{level:>5}") };
        let mut line = format!("{time} {level} {target}: {}", visible(&self.message, true));
        for (name, value) in &self.values {
            line.extend([" ", name, "=", &shown(value)]);
        }
        line.push('\n');
        line
    }

    fn json(&self, time: &str, level: Level, target: &str) -> String {
        let fixed = [("timestamp", time), ("level", level.as_str()), ("target", target), ("message", &self.message)];
        let fixed = fixed.into_iter().map(|(name, text)| (name, Value::from(text)));
        let pairs = fixed.chain(self.values.iter().map(|(name, value)| (*name, value.clone())));
        let pairs: Vec<String> = pairs.map(|(name, value)| format!("{}:{value}", Value::from(name))).collect();
        format!("{{{}}}\n", pairs.join(","))
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format!("{value:?}").into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value.into());
    }
}

/// A value as a word of a line; one with blanks stands in quotes.
fn shown(value: &Value) -> String {
    let Value::String(text) = value else { return value.to_string() };
    let text = visible(text, false);
    let is_word = !text.is_empty() && !text.contains([' ', '"', '=']);
    if is_word { text } else { format!("\"{}\"", text.replace('"', "\\\"")) }
}

/// A text that neither steers a terminal nor begins a line of its own. Reports of several lines are indented.
fn visible(text: &str, keeps_lines: bool) -> String {
    let mut visible = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' if keeps_lines => visible.push_str("\n    "),
            c if c.is_control() => visible.extend(c.escape_default()),
            c => visible.push(c),
        }
    }
    visible
}

/// The code of a terminal's colour.
fn colour_of(level: Level) -> u8 {
    match level {
        Level::ERROR => 31,
        Level::WARN => 33,
        Level::INFO => 32,
        Level::DEBUG => 34,
        Level::TRACE => 35,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(message: &str, values: &[(&'static str, Value)]) -> Fields {
        Fields { message: message.to_owned(), values: values.to_vec() }
    }

    #[test]
    fn each_field_stands_in_a_line_once_and_the_nearest_counts() {
        let mut event = fields("refused", &[("credential", "inner".into())]);
        event.add_missing(&fields("", &[("credential", "outer".into()), ("trace_id", "0af7".into())]));
        let line = event.text("T", Level::WARN, "bearerd::api", false);
        assert_eq!(line, "T  WARN bearerd::api: refused credential=inner trace_id=0af7\n");
        let json = event.json("T", Level::WARN, "bearerd::api");
        let fixed = r#"{"timestamp":"T","level":"WARN","target":"bearerd::api","message":"refused","#;
        assert_eq!(json, format!("{fixed}\"credential\":\"inner\",\"trace_id\":\"0af7\"}}\n"));
    }

    #[test]
    fn what_comes_from_outside_begins_no_line_and_steers_no_terminal() {
        let event = fields("two\nlines", &[("error", "a\n2026 \x1b[2J".into()), ("n", 3.into()), ("empty", "".into())]);
        let line = event.text("T", Level::ERROR, "t", false);
        assert_eq!(line, "T ERROR t: two\n    lines error=\"a\\n2026 \\u{1b}[2J\" n=3 empty=\"\"\n");
        let json = event.json("T", Level::ERROR, "t");
        assert_eq!(json.lines().count(), 1);
        assert_eq!(serde_json::from_str::<Value>(&json).unwrap()["error"], "a\n2026 \u{1b}[2J");
    }
}

//! `[log]`: what is logged and how.

use toml::de::DeTable;
use tracing_subscriber::EnvFilter;

use super::{key::Key, reader::Reader, value::parsed};

pub(super) const KEYS: &[Key] = &[Key::new("filter"), Key::new("format")];

/// The log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// Which events are logged, in the syntax of [`EnvFilter`], for example `info,bearerd=debug`.
    pub filter: String,
    /// How an event is written.
    pub format: LogFormat,
}

/// The form of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// The form that a document asks for, also where it has mistakes.
pub(super) fn format(document: &DeTable<'_>) -> LogFormat {
    let table = document.get("log").and_then(|value| value.get_ref().as_table());
    match table.and_then(|table| table.get("format")).and_then(|value| value.get_ref().as_str()) {
        Some("json") => LogFormat::Json,
        Some(_) | None => LogFormat::Text,
    }
}

/// Whether a part of a filter is a level, or names a module. A word that is neither would be taken for a module which
/// does not exist, and nothing would be logged.
fn is_meant(part: &str) -> bool {
    let part = part.trim();
    let levels = ["off", "error", "warn", "info", "debug", "trace"];
    let is_level = levels.iter().any(|level| level.eq_ignore_ascii_case(part)) || part.parse::<u8>().is_ok();
    part.is_empty() || is_level || part.contains(['=', '[', ':']) || part.starts_with("bearerd")
}

/// Reads the table.
pub(super) fn read(reader: &Reader<'_>) -> Log {
    let formats = &[("text", LogFormat::Text), ("json", LogFormat::Json)];
    let right = "write a level, error, warn, info, debug or trace, or levels per module: \"info,bearerd=debug\"";
    let filter = reader.optional("filter", |value| {
        parsed(value, "is not a log filter", |text| {
            // One that says nothing would be taken for the wish to hear of errors alone, or of nothing.
            let says_something = text.split(',').any(|part| !part.trim().is_empty());
            let filter =
                EnvFilter::builder().parse(text).ok().filter(|_| says_something && text.split(',').all(is_meant));
            filter.map(|_| text.to_owned()).ok_or(right)
        })
    });
    Log {
        filter: filter.unwrap_or("info".into()),
        format: reader.choose("format", formats, Some("text")).unwrap_or(LogFormat::Text),
    }
}

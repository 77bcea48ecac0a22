//! `[audit]`: who used what, written down.

use std::path::PathBuf;

use super::{
    key::Key,
    reader::{Reader, Value},
    value::{Wrong, text},
};
use crate::audit::{AuditConfig, OnFailure, Output};

pub(super) const KEYS: &[Key] = &[Key::new("output"), Key::new("on_failure")];

/// Reads the table.
pub(super) fn read(reader: &Reader<'_>) -> AuditConfig {
    let words = &[("serve", OnFailure::Serve), ("refuse", OnFailure::Refuse)];
    AuditConfig {
        output: reader.optional("output", output).unwrap_or(Output::Off),
        on_failure: reader.choose("on_failure", words, Some("serve")).unwrap_or(OnFailure::Serve),
    }
}

fn output(value: &Value<'_>) -> Result<Output, Wrong> {
    match text(value)? {
        "off" => Ok(Output::Off),
        "stdout" => Ok(Output::Stdout),
        "stderr" => Ok(Output::Stderr),
        path if path.contains('/') => Ok(Output::File(PathBuf::from(path))),
        _ => {
            let right = "write \"off\", \"stdout\", \"stderr\", or the path of a file with its directory";
            Err(Wrong::new(value, "is neither a word that is known here nor a path", right))
        }
    }
}

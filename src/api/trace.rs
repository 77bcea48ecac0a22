//! The id under which one request is found in the log.

use tonic::metadata::MetadataMap;

/// The caller's trace id (W3C Trace Context, `traceparent`), or a new one.
pub(super) fn id(metadata: &MetadataMap) -> String {
    let given = metadata.get("traceparent").and_then(|value| value.to_str().ok()).and_then(of_parent);
    given.unwrap_or_else(|| format!("{:032x}", rand::random::<u128>()))
}

fn of_parent(parent: &str) -> Option<String> {
    let id = parent.split('-').nth(1)?;
    let hex = id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    (id.len() == 32 && hex && id.bytes().any(|byte| byte != b'0')).then(|| id.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_well_formed_parent_is_taken() {
        let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        assert_eq!(of_parent(good).as_deref(), Some("0af7651916cd43dd8448eb211c80319c"));
        for bad in ["", "00", "00-xyz-1-01", "00-00000000000000000000000000000000-b7ad6b7169203331-01", "00-a\nb-1-01"]
        {
            assert_eq!(of_parent(bad), None, "{bad:?}");
        }
    }
}

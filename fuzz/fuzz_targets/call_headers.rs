//! Header fields, each on a line, from a caller to an upstream and back. The first line is a pattern to deny.
#![no_main]

use bearerd::upstream::{Fence, HeaderPatterns, headers};
use http::{HeaderMap, HeaderName, HeaderValue};
use libfuzzer_sys::fuzz_target;

/// What never passes, in either direction.
const NEVER: [&str; 6] = ["connection", "transfer-encoding", "content-length", "upgrade", "trailer", "keep-alive"];
/// What a caller never sets.
const NOT_FROM_CALLERS: [&str; 7] =
    ["authorization", "cookie", "host", "x-api-key", "forwarded", "x-forwarded-for", "x-http-method-override"];

fuzz_target!(|bytes: &[u8]| {
    let mut lines = bytes.split(|byte| *byte == b'\n');
    let pattern = String::from_utf8_lossy(lines.next().unwrap_or_default());
    let denied = HeaderPatterns::new([&*pattern]).unwrap_or_default();
    let fence =
        Fence { deny_request_headers: denied.clone(), deny_response_headers: denied.clone(), ..Fence::default() };
    let fields: Vec<(&[u8], &[u8])> = lines
        .filter_map(|line| {
            let at = line.iter().position(|byte| *byte == b':')?;
            Some((&line[..at], &line[at + 1..]))
        })
        .collect();

    let texts = fields.iter().map(|(name, value)| (lossy(name), lossy(value))).collect::<Vec<_>>();
    // One refused field refuses them all, so each is tried alone too.
    for fields in texts.chunks(1).chain([texts.as_slice()]) {
        let Ok(sent) = headers::from_caller(fields, "x-api-key", &fence, true) else { continue };
        // Some are left out.
        assert!(sent.len() <= fields.len() + 1);
        for (name, value) in &sent {
            let read = name.as_str().replace('_', "-");
            assert!(!NEVER.contains(&&*read) && !NOT_FROM_CALLERS.contains(&&*read), "{name}");
            assert!(name == "accept-encoding" || !denied.contain(name.as_str()), "{name}");
            assert!(!value.as_bytes().iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)));
        }
    }

    let mut answer = HeaderMap::new();
    for (name, value) in fields {
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
            answer.append(name, value);
        }
    }
    for (name, _) in headers::to_caller(&answer, &fence, false) {
        assert!(!NEVER.contains(&&*name) && name != "set-cookie" && !denied.contain(&name), "{name}");
    }
});

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

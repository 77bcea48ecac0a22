//! Method and path of a call, each on a line, behind several base URLs.
#![no_main]

use std::sync::LazyLock;

use bearerd::upstream::target;
use http::Uri;
use libfuzzer_sys::fuzz_target;
use url::Url;

static BASES: LazyLock<Vec<Url>> = LazyLock::new(|| {
    let texts = [
        "https://api.example/",
        "https://api.example/v1/",
        "http://127.0.0.1:8080/a/b/",
        "http://[::1]/",
        "https://a.example//",
    ];
    texts.iter().map(|text| Url::parse(text).unwrap()).collect()
});

fuzz_target!(|text: &str| {
    let (method, path) = text.split_once('\n').unwrap_or(("GET", text));
    if let Ok(method) = target::method(method) {
        let upper = method.as_str().to_ascii_uppercase();
        assert!(!["CONNECT", "TRACE", "TRACK", "PRI"].contains(&&*upper));
    }
    for base in BASES.iter() {
        let Ok(url) = target::url(base, path) else { continue };
        assert_eq!(url.origin(), base.origin());
        assert!(url.username().is_empty() && url.password().is_none() && url.fragment().is_none());
        assert!(url.path().starts_with(base.path().trim_end_matches('/')));
        assert!(url.as_str().ends_with(path));
        assert_eq!(Url::parse(url.as_str()).unwrap(), url);
        // The client reads it once more, with another parser.
        let uri: Uri = url.as_str().parse().unwrap();
        assert_eq!((uri.host(), uri.port_u16()), (base.host_str(), base.port()));
        assert_eq!(uri.path(), url.path());
        decoded_it_stays_inside(url.path());
    }
});

/// However often somebody decodes the path, its segments stay where they are.
fn decoded_it_stays_inside(path: &str) {
    let slashes = |text: &[u8]| text.iter().filter(|byte| **byte == b'/').count();
    let mut text = path.as_bytes().to_vec();
    for _ in 0..4 {
        text = decode(&text);
        assert_eq!(slashes(&text), slashes(path.as_bytes()));
        assert!(!text.iter().any(|byte| *byte == b'\\' || byte.is_ascii_control()));
        for segment in text.split(|byte| *byte == b'/') {
            assert!(!matches!(segment.split(|byte| *byte == b';').next(), Some(b"." | b"..")), "{path}");
        }
    }
}

fn decode(text: &[u8]) -> Vec<u8> {
    let (mut decoded, mut rest) = (Vec::new(), text);
    while let [first, behind @ ..] = rest {
        let code = behind.get(..2).filter(|_| *first == b'%').and_then(|code| std::str::from_utf8(code).ok());
        match code.and_then(|code| u8::from_str_radix(code, 16).ok().filter(|_| !code.starts_with('+'))) {
            Some(byte) => {
                decoded.push(byte);
                rest = &behind[2..];
            }
            None => {
                decoded.push(*first);
                rest = behind;
            }
        }
    }
    decoded
}

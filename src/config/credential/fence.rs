//! What a credential lets callers have called.

use http::Method;
use url::{Host, Url};

use crate::{
    config::{
        reader::{Reader, Value},
        value::{self, Wrong, boolean, bytes, parsed, string, text},
    },
    http::{
        Reach,
        address::{AddressKind, kind},
    },
    upstream::{Fence, HeaderPatterns, target},
};

/// Reads the fence.
pub(super) fn read(reader: &Reader<'_>) -> Fence {
    let default = Fence::default();
    let reach = match reader.optional("allow_private_addresses", boolean) {
        Some(true) => Reach::Private,
        Some(false) | None => Reach::Public,
    };
    let size = reader.optional("max_request_bytes", bytes(0..=256 * 1024 * 1024));
    Fence {
        reach,
        methods: methods(reader),
        allow_request_headers: headers(reader, "allow_request_headers"),
        deny_request_headers: headers(reader, "deny_request_headers"),
        deny_response_headers: headers(reader, "deny_response_headers"),
        max_request_bytes: size.unwrap_or(default.max_request_bytes),
    }
}

fn methods(reader: &Reader<'_>) -> Option<Vec<Method>> {
    let methods = reader.list("methods", |value| {
        let method = parsed(value, "is no method for calls", target::method)?;
        match method.as_str().bytes().any(|byte| byte.is_ascii_lowercase()) {
            true => Err(Wrong::new(value, "has small letters", "write it in capitals: methods differ by case")),
            false => Ok(method),
        }
    });
    let value = reader.value("methods")?;
    if value.get_ref().as_array().is_some_and(|list| list.is_empty()) {
        let right = "name at least one method, or leave the setting out; without base_url no calls are made";
        reader.wrong("methods", Wrong::new(value, "allows nothing", right));
    }
    Some(methods)
}

fn headers(reader: &Reader<'_>, key: &'static str) -> HeaderPatterns {
    let texts = reader.list(key, |value| {
        parsed(value, "is no name of a header", |text| HeaderPatterns::new([text]))?;
        string(value)
    });
    // Each was read alone already, so that every bad one is found.
    HeaderPatterns::new(texts).unwrap_or_default()
}

/// The URL that paths of calls are put behind, so it ends in `/` and has no query.
pub(super) fn base_url(value: &Value<'_>, allow_http: bool) -> Result<Url, Wrong> {
    let mut url = value::url(value, allow_http)?;
    if url.query().is_some() {
        return Err(Wrong::new(value, "has a query", "leave out the part from '?' on"));
    }
    check_host(value, &url)?;
    if !url.path().ends_with('/') {
        let path = format!("{}/", url.path());
        url.set_path(&path);
    }
    Ok(url)
}

/// A host is written as what it is: `0x7f.1`, `ⓐpi.example` and `api.example%2eevil.example` are other hosts than they
/// seem. And it is a place where an API can be.
fn check_host(value: &Value<'_>, url: &Url) -> Result<(), Wrong> {
    let host = url.host_str().unwrap_or_default();
    let written = text(value)?.to_ascii_lowercase();
    if !written.starts_with(&format!("{}://{host}", url.scheme())) {
        return Err(Wrong::new(value, "has another host than it seems", format!("write the host as \"{host}\"")));
    }
    let address = match url.host() {
        Some(Host::Ipv4(address)) => address.into(),
        Some(Host::Ipv6(address)) => address.into(),
        Some(Host::Domain(_)) | None => return Ok(()),
    };
    match kind(address) {
        AddressKind::Public | AddressKind::Private => Ok(()),
        AddressKind::Never => {
            let right = "write the address or name of an API; this is link-local, multicast, unspecified, or the \
                         metadata service of a cloud";
            Err(Wrong::new(value, "has an address that is never called", right))
        }
    }
}

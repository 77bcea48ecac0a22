//! What bearerd's configuration file says: everything switched on as a user would have it, several rows of policy, a rate
//! limit, an audit log in a file, metrics and tracing at `info`; and what a chapter needs besides.

use bearerd::sandbox::DEMO_CONFIDENTIAL;

use super::certificates::{Certificates, TRUST_DOMAIN};

/// The one credential.
pub const CREDENTIAL: &str = "salesforce";

/// What differs between chapters.
#[derive(Clone, Copy)]
pub struct Settings<'a> {
    /// This port's Redis; the embedded store without one.
    pub redis: Option<u16>,
    /// With these, callers must show theirs.
    pub tls: Option<&'a Certificates>,
    /// The lines of `[cache]`.
    pub cache: &'a str,
    /// The lines of the credential.
    pub credential: &'a str,
}

impl Settings<'_> {
    /// The file, for a process that listens for gRPC and for probes on these ports.
    pub fn file(&self, (grpc, admin): (u16, u16)) -> String {
        let Self { redis, tls, cache, credential } = self;
        let store = redis.map_or_else(embedded, shared);
        let tls = tls.map_or_else(String::new, mutual);
        format!(
            r#"[server]
listen = "127.0.0.1:{grpc}"
admin_listen = "127.0.0.1:{admin}"

{tls}
{store}
[cache]
{cache}

[audit]
output = "./audit.jsonl"

[limits]
requests_per_second = 1_000_000

[log]
filter = "info"

[[allow]]
name = "reports"
caller = "spiffe://{TRUST_DOMAIN}/ns/reports/sa/*"
credentials = ["{CREDENTIAL}"]
actions = ["call"]
methods = ["GET"]

[[allow]]
name = "billing"
caller = "spiffe://{TRUST_DOMAIN}/ns/billing/sa/*"
credentials = ["{CREDENTIAL}", "static-*"]
actions = ["get", "invalidate", "call"]

[[allow]]
name = "this-host"
caller = "local"
credentials = ["{CREDENTIAL}", "static-*"]
actions = ["get", "invalidate", "call", "administer"]

[credentials.{CREDENTIAL}]
{credential}
"#
        )
    }
}

fn embedded() -> String {
    "[store]\nkind = \"embedded\"\npath = \"bearerd.redb\"\n".to_owned()
}

fn shared(port: u16) -> String {
    format!(
        "[store]\nkind = \"redis\"\nurl = \"redis://127.0.0.1:{port}\"\n\n\
         [seal]\nkeys = [{{ id = \"bench\", file = \"seal\" }}]\n"
    )
}

fn mutual(certificates: &Certificates) -> String {
    let directory = certificates.directory().display();
    format!(
        "[server.tls]\ncertificate = {{ file = \"{directory}/server\" }}\nkey = {{ file = \"{directory}/server.key\" }}\n\
         client_ca = {{ file = \"{directory}/ca\" }}\ntrust_domain = \"{TRUST_DOMAIN}\"\n"
    )
}

/// A client of the sandbox that acts for itself.
pub fn client_credentials(token_url: &str) -> String {
    format!(
        r#"grant = "client_credentials"
token_url = "{token_url}"
client_id = "{DEMO_CONFIDENTIAL}"
client_secret = {{ file = "client-secret" }}
scopes = ["read", "write"]"#
    )
}

/// A client of a provider that rotates refresh tokens; its grants are imported, and no report is held back.
pub fn refresh_token(token_url: &str) -> String {
    format!(
        r#"grant = "refresh_token"
token_url = "{token_url}"
client_id = "bench"
client_auth = "none"
rotation = "strict"
min_age = "0s""#
    )
}

/// A secret that no provider is asked for.
pub fn static_secret() -> String {
    "grant = \"static\"\nscheme = \"bearer\"\nsecret = { file = \"client-secret\" }".to_owned()
}

//! Marked secrets go every way there is, in success and in failure, with every library logging all it has to say; and
//! they are found nowhere: not in the log, in `Debug`, in errors, in metrics, in the audit log, nor in anything that
//! Redis keeps or tells.

use std::{fs, path::Path, process::Command};

use bearerd::{
    identity::{hex, sha256},
    proto::{
        CallThroughRequest, DescribeGrantRequest, GetTokenRequest, Header, ImportGrantRequest, InvalidateTokenRequest,
        Rejection, grant_admin_client::GrantAdminClient, import_grant_request::Secret,
        invalidate_token_request::Rejected, token_service_client::TokenServiceClient,
    },
};
use tonic::{Request, Response, Status, transport::Channel};

use self::hostile::Hostile;
use crate::support::{Bearerd, PATIENCE, Process, Redis, eventually};

mod hostile;

/// What every secret of this test begins with.
const MARK: &str = "canary-never-to-be-seen";

const SEAL_KEY: &str = "Y2FuYXJ5LW5ldmVyLXRvLWJlLXNlZW4tc2VhbGtleQA=";

fn marked(what: &str) -> String {
    format!("{MARK}-{what}")
}

/// Fails if a secret is there: in clear, or in base64, as it stands in Basic authentication.
#[track_caller]
fn assert_silent(what: &str, bytes: &[u8]) {
    for form in spellings() {
        if let Some(at) = memchr::memmem::find(bytes, form.as_bytes()) {
            let around = &bytes[at.saturating_sub(300)..(at + 100).min(bytes.len())];
            panic!("{what} holds {form}: …{}…", String::from_utf8_lossy(around));
        }
    }
}

/// The mark, and what it is in base64 wherever it stands there: its first and last groups depend on its neighbours.
fn spellings() -> Vec<String> {
    use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};
    let inner = |skip: usize| STANDARD_NO_PAD.encode(&MARK.as_bytes()[skip..skip + (MARK.len() - skip) / 3 * 3]);
    vec![MARK.to_owned(), inner(0), inner(1), inner(2)]
}

#[test]
fn what_is_looked_for_is_found() {
    use base64::{Engine, engine::general_purpose::STANDARD};
    for before in ["", "a", "ab", "id:"] {
        for text in [format!("{before}{}", marked("x")), STANDARD.encode(format!("{before}{}", marked("x")))] {
            assert!(spellings().iter().any(|form| text.contains(form)), "{text}");
        }
    }
}

fn configuration(redis: &str, hostile: &str, format: &str) -> String {
    let client = |name: &str, grant: &str, path: &str, rest: &str| {
        format!(
            "[credentials.{name}]\ngrant = \"{grant}\"\ntoken_url = \"{hostile}{path}\"\nclient_id = \"me\"\n\
             client_secret = {{ file = \"client-secret\" }}\nmin_age = \"0s\"\n{rest}\n"
        )
    };
    let first = format!("refresh_token = {{ file = \"refresh-token\" }}\nbase_url = \"{hostile}/api/\"");
    let key = |name: &str, base: &str| {
        format!(
            "[credentials.{name}]\ngrant = \"static\"\nscheme = \"api_key\"\nheader = \"X-Api-Key\"\n\
             secret = {{ file = \"api-key\" }}\nbase_url = \"{base}/api/\"\n"
        )
    };
    [
        format!(
            "[server]\nlisten = \"@LISTEN@\"\nadmin_listen = \"@ADMIN@\"\n[store]\nkind = \"redis\"\nurl = \"{redis}\"\n\
             [seal]\nkeys = [{{ id = \"test\", file = \"seal\" }}]\n[log]\nfilter = \"trace\"\nformat = \"{format}\"\n\
             [audit]\noutput = \"@DIR@/audit\"\n\
             [[identity.token]]\nname = \"walker\"\nsha256 = \"{}\"\n\
             [[allow]]\ncaller = \"token:walker\"\ncredentials = [\"*\"]\n\
             actions = [\"get\", \"invalidate\", \"call\", \"administer\"]\n",
            hex(&sha256(&marked("callers-own")))
        ),
        client("good", "refresh_token", "/token", &first),
        client("refused", "refresh_token", "/refuse", &first),
        client("broken", "client_credentials", "/page", "client_auth = \"client_secret_post\""),
        client("garbled", "client_credentials", "/garbled", ""),
        client("nowhere", "client_credentials", "/token", "").replace(hostile, "http://127.0.0.1:1"),
        key("key", hostile),
        key("gone", "http://127.0.0.1:1"),
    ]
    .concat()
}

/// A caller that says secrets wherever there is a place for them, and keeps what could be printed of the answers.
struct Walker {
    tokens: TokenServiceClient<Channel>,
    grants: GrantAdminClient<Channel>,
    shown: Vec<u8>,
    failures: usize,
}

impl Walker {
    async fn to(bearerd: &Bearerd) -> Self {
        let channel = Channel::from_shared(bearerd.grpc()).unwrap().connect().await.unwrap();
        let (tokens, grants) = (TokenServiceClient::new(channel.clone()), GrantAdminClient::new(channel));
        Self { tokens, grants, shown: Vec::new(), failures: 0 }
    }

    /// A request that carries the caller's own token, and what it looks like.
    fn asks<T: std::fmt::Debug>(&mut self, message: T) -> Request<T> {
        self.shown.extend(format!("{message:?}\n").bytes());
        let mut request = Request::new(message);
        let bearer = format!("Bearer {}", marked("callers-own"));
        request.metadata_mut().insert("authorization", bearer.parse().unwrap());
        request.metadata_mut().insert("x-secret", marked("metadata").parse().unwrap());
        request
    }

    fn heard<T: std::fmt::Debug>(&mut self, answer: Result<Response<T>, Status>) -> Option<T> {
        match answer {
            Ok(answer) => {
                self.shown.extend(format!("{answer:?}\n").bytes());
                Some(answer.into_inner())
            }
            Err(status) => {
                self.failures += 1;
                self.shown.extend(format!("{status:?} {status}\n").bytes());
                self.shown.extend(status.details());
                None
            }
        }
    }

    async fn get(&mut self, credential: &str, subject: &str) -> Option<bearerd::proto::Token> {
        let message = GetTokenRequest {
            credential: credential.to_owned(),
            subject: subject.to_owned(),
            ..GetTokenRequest::default()
        };
        let request = self.asks(message);
        let answer = self.tokens.get_token(request).await;
        self.heard(answer).and_then(|answer| answer.token)
    }

    async fn report(&mut self, subject: &str, access_token: &str) {
        let message = InvalidateTokenRequest {
            credential: "good".to_owned(),
            subject: subject.to_owned(),
            rejected: Some(Rejected::AccessToken(access_token.to_owned())),
            rejection: Some(Rejection {
                http_status: 401,
                www_authenticate: vec![format!("Bearer error=\"invalid_token\", error_description=\"{access_token}\"")],
                body: marked("evidence").into(),
            }),
            ..InvalidateTokenRequest::default()
        };
        let request = self.asks(message);
        let answer = self.tokens.invalidate_token(request).await;
        self.heard(answer);
    }

    async fn call(&mut self, credential: &str, subject: &str, path: &str) {
        let message = CallThroughRequest {
            credential: credential.to_owned(),
            subject: subject.to_owned(),
            method: "POST".to_owned(),
            path: format!("{path}?key={}", marked("query")),
            headers: vec![Header { name: "x-secret".to_owned(), value: marked("header") }],
            body: marked("body").into(),
            ..CallThroughRequest::default()
        };
        let request = self.asks(message);
        let answer = self.tokens.call_through(request).await;
        self.heard(answer);
    }

    async fn import(&mut self, credential: &str, subject: &str, secret: Secret) {
        let message = ImportGrantRequest {
            credential: credential.to_owned(),
            subject: subject.to_owned(),
            secret: Some(secret),
            no_verify: true,
            ..ImportGrantRequest::default()
        };
        let request = self.asks(message);
        let answer = self.grants.import_grant(request).await;
        self.heard(answer);
        let message = DescribeGrantRequest {
            credential: credential.to_owned(),
            subject: subject.to_owned(),
            ..DescribeGrantRequest::default()
        };
        let request = self.asks(message);
        let answer = self.grants.describe_grant(request).await;
        self.heard(answer);
    }

    /// A request that shows a token which nobody knows.
    async fn pretend(&mut self) {
        let mut request = self.asks(GetTokenRequest { credential: "good".to_owned(), ..GetTokenRequest::default() });
        let bearer = format!("Bearer {}", marked("made-up"));
        request.metadata_mut().insert("authorization", bearer.parse().unwrap());
        let answer = self.tokens.get_token(request).await;
        assert!(self.heard(answer).is_none(), "nobody is somebody by a made-up token");
    }

    /// Every way there is.
    async fn walk(&mut self, subject: &str) {
        self.pretend().await;
        self.import("good", subject, Secret::RefreshToken(marked("imported"))).await;
        self.import("good", subject, Secret::RefreshToken(marked("not\u{1}fit"))).await;
        self.import("key", subject, Secret::StaticSecret(marked("imported-key"))).await;
        self.import("key", subject, Secret::StaticSecret(marked("not\u{1}fit"))).await;
        self.import("good", subject, Secret::StaticSecret(marked("of-the-wrong-kind"))).await;
        for subject in ["", subject] {
            let token = self.get("good", subject).await.unwrap();
            assert!(token.access_token.starts_with(MARK), "the token itself is given to whom it is for");
            self.report(subject, &token.access_token).await;
            self.report(subject, &marked("unknown-token")).await;
            for path in ["/echo", "/reject", "/redirect", "/cut", "/../x"] {
                self.call("good", subject, path).await;
            }
            self.get("key", subject).await.unwrap();
            self.call("key", subject, "/echo").await;
            self.call("gone", subject, "/echo").await;
            for credential in ["refused", "broken", "garbled", "nowhere", "unknown"] {
                assert!(self.get(credential, subject).await.is_none(), "{credential}");
                self.call(credential, subject, "/echo").await;
            }
        }
    }
}

/// Two replicas, one for each form of the log, go every way; the second one meets what the first one left.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn marked_secrets_are_found_nowhere() {
    let hostile = Hostile::start().await;
    let redis = Redis::start().await;
    let _: () = redis.cli(&["CONFIG", "SET", "slowlog-log-slower-than", "0"]).await;
    let _: () = redis.cli(&["CONFIG", "SET", "slowlog-max-len", "100000"]).await;
    let port = redis.port().to_string();
    let monitor = Process::start(Command::new("redis-cli").args(["-p", &port, "MONITOR"]));
    eventually(PATIENCE, async || monitor.out().contains("OK")).await;

    let (client, refresh, key) = (marked("client-secret"), marked("first-refresh"), marked("api-key"));
    let files = [("seal", SEAL_KEY), ("client-secret", &client), ("refresh-token", &refresh), ("api-key", &key)];
    for format in ["text", "json"] {
        let mut bearerd = Bearerd::start(&configuration(&redis.url(), hostile.url(), format), &files).await;
        let mut walker = Walker::to(&bearerd).await;
        walker.walk(&format!("{}@{format}.example", marked("subject"))).await;
        assert!(walker.failures > 20, "{}", walker.failures);
        assert_silent("what a caller may print", &walker.shown);
        let metrics = reqwest::get(format!("{}/metrics", bearerd.admin())).await.unwrap().text().await.unwrap();
        assert!(metrics.contains("credential=\"good\""), "{metrics}");
        assert_silent("the metrics", metrics.as_bytes());

        bearerd.process().signal("TERM");
        eventually(PATIENCE, async || bearerd.process().ended().is_some()).await;
        assert!(bearerd.log().contains("TRACE"), "every library logs all it has to say");
        assert_silent("the log", bearerd.log().as_bytes());
        assert_silent("standard output", bearerd.process().out().as_bytes());
        assert_silent("the audit log", &audit(bearerd.directory()));
    }

    let _: () = redis.cli(&["SAVE"]).await;
    let kept = redis.files();
    for part in ["appendonly", "REDIS"] {
        assert!(memchr::memmem::find(&kept, part.as_bytes()).is_some(), "{part} is among the files");
    }
    assert_silent("what Redis keeps", &kept);
    let slow = Command::new("redis-cli").args(["-p", &port, "SLOWLOG", "GET", "-1"]).output().unwrap().stdout;
    assert!(memchr::memmem::find(&slow, b"EVALSHA").is_some());
    assert_silent("the slow log of Redis", &slow);
    let _: String = redis.cli(&["ECHO", "that-was-all"]).await;
    eventually(PATIENCE, async || monitor.out().contains("that-was-all")).await;
    assert!(monitor.out().contains("EVALSHA"), "{}", monitor.out());
    assert_silent("what Redis tells a monitor", monitor.out().as_bytes());
    assert!(hostile.saw(MARK), "the secrets were really sent to where they belong");
}

/// The audit log, which has a line for each rpc.
fn audit(directory: &Path) -> Vec<u8> {
    let text = fs::read(directory.join("audit")).unwrap();
    assert!(text.iter().filter(|byte| **byte == b'\n').count() > 40);
    text
}

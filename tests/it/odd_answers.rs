//! Token answers that hold a refresh token and are wrong in some other way, from a provider that ends a grant when a refresh
//! token is used twice.

use std::{
    collections::VecDeque,
    io::Write as _,
    sync::{Arc, OnceLock},
};

use bearerd::{
    proto::GetTokenRequest,
    sandbox::{Options, Outcome},
};
use flate2::{Compression, write::GzEncoder};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::support::{
    PATIENCE, eventually,
    house::{House, ROTATING, reason},
};

/// How an answer is damaged on its way.
type Damage = fn(Value) -> Vec<u8>;

/// A gateway in front of the sandbox's token endpoint. It passes requests on and damages the answers, one after the other.
struct Gateway {
    url: String,
    provider: Arc<OnceLock<String>>,
    damages: Arc<Mutex<VecDeque<Damage>>>,
}

impl Gateway {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/token", listener.local_addr().unwrap());
        let gateway = Self { url, provider: Arc::default(), damages: Arc::default() };
        let (provider, damages) = (Arc::clone(&gateway.provider), Arc::clone(&gateway.damages));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(pass_on(stream, Arc::clone(&provider), Arc::clone(&damages)));
            }
        });
        gateway
    }

    fn damage(&self, damages: impl IntoIterator<Item = Damage>) {
        self.damages.lock().extend(damages);
    }

    fn is_honest(&self) -> bool {
        self.damages.lock().is_empty()
    }
}

async fn pass_on(mut stream: TcpStream, provider: Arc<OnceLock<String>>, damages: Arc<Mutex<VecDeque<Damage>>>) {
    let mut request = Vec::new();
    let (head, body) = loop {
        let mut piece = [0; 4096];
        let length = stream.read(&mut piece).await.unwrap();
        request.extend_from_slice(&piece[..length]);
        let text = String::from_utf8_lossy(&request).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n")
            && field(head, "content-length").is_some_and(|length| body.len() >= length.parse().unwrap())
        {
            break (head.to_owned(), body.to_owned());
        }
        assert_ne!(length, 0, "a request breaks off");
    };
    assert_eq!(field(&head, "accept-encoding").as_deref(), Some("identity"));
    let mut onwards = reqwest::Client::new().post(provider.get().unwrap()).body(body);
    for name in ["content-type", "authorization"] {
        onwards = onwards.header(name, field(&head, name).unwrap());
    }
    let answer = onwards.send().await.unwrap();
    let status = answer.status();
    let answer: Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
    let damage = damages.lock().pop_front().filter(|_| status == 200);
    let written = match damage {
        Some(damage) => damage(answer),
        None => whole(status.as_u16(), "", answer.to_string().as_bytes()),
    };
    // A client that has heard enough goes away.
    stream.write_all(&written).await.ok();
    stream.shutdown().await.ok();
}

fn field(head: &str, name: &str) -> Option<String> {
    let fields = head.lines().filter_map(|line| line.split_once(": "));
    fields.filter(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned()).next()
}

fn whole(status: u16, fields: &str, body: &[u8]) -> Vec<u8> {
    longer(status, fields, body, 0)
}

/// An answer of which so many bytes do not come.
fn longer(status: u16, fields: &str, body: &[u8], missing: usize) -> Vec<u8> {
    let length = body.len() + missing;
    let head = format!(
        "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\n{fields}content-length: {length}\r\nconnection: close\r\n\r\n"
    );
    [head.as_bytes(), body].concat()
}

fn gzip(body: &Value) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(body.to_string().as_bytes()).unwrap();
    encoder.finish().unwrap()
}

fn with(mut body: Value, name: &str, value: Value) -> Value {
    body[name] = value;
    body
}

/// The members in this order, with the last one cut in its middle.
fn cut(body: &Value) -> String {
    let member = |name: &str| body[name].as_str().unwrap().to_owned();
    format!(r#"{{"refresh_token":"{}","access_token":"{}"#, member("refresh_token"), &member("access_token")[..5])
}

const DAMAGES: [Damage; 14] = [
    |body| whole(200, "content-encoding: gzip\r\n", &gzip(&body)),
    |body| whole(200, "", &gzip(&body)),
    |body| whole(200, "content-encoding: identity, gzip\r\n", &gzip(&body)),
    |body| whole(200, "content-encoding: gzip\r\n", body.to_string().as_bytes()),
    |body| longer(200, "", body.to_string().as_bytes(), 10),
    |body| {
        let body = body.to_string();
        let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
        format!("{head}{:x}\r\n{body}\r\n", body.len()).into_bytes()
    },
    |body| whole(200, "", with(body, "token_type", json!("jwt-bearer")).to_string().as_bytes()),
    |body| whole(200, "", with(body, "access_token", json!(null)).to_string().as_bytes()),
    |body| longer(200, "", cut(&body).as_bytes(), 100),
    |body| {
        let packed = gzip(&body);
        longer(200, "content-encoding: gzip\r\n", &packed[..packed.len() - 4], 4)
    },
    |body| whole(500, "", body.to_string().as_bytes()),
    |body| whole(302, "location: /login\r\n", body.to_string().as_bytes()),
    |body| whole(400, "", body.to_string().as_bytes()),
    |body| {
        let open = body.to_string();
        let large = format!("{},\"x\":\"{}\"}}", open.trim_end_matches('}'), "x".repeat(2 << 20));
        whole(200, "", large.as_bytes())
    },
];

/// P-K6, rows 22, 23, 26 and 36.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_grant_outlives_odd_answers_of_a_strict_provider_in_a_row() {
    let gateway = Gateway::start().await;
    let house = House::furnished(Options::default(), &ROTATING.replace("{token_url}", &gateway.url)).await;
    gateway.provider.set(house.sandbox.token_url()).unwrap();
    let mut last = house.get("demo").await.unwrap().generation;
    gateway.damage(DAMAGES);
    eventually(PATIENCE * 3, async || {
        let asking =
            GetTokenRequest { credential: "demo".to_owned(), refused_generation: last, ..GetTokenRequest::default() };
        let was_honest = gateway.is_honest();
        match house.ask(asking).await {
            Ok(token) => last = token.generation,
            Err(status) => {
                let (_, reason, wait) = reason(&status);
                assert!(["PROVIDER_ANSWER_INVALID", "PROVIDER_UNAVAILABLE"].contains(&reason.as_str()), "{status}");
                assert!(wait.is_some(), "{status}");
                return false;
            }
        }
        was_honest
    })
    .await;
    let journal = house.sandbox.journal();
    assert!(journal.len() >= DAMAGES.len() + 2);
    let refused = journal.iter().filter(|entry| entry.outcome != Outcome::Issued).count();
    assert_eq!(refused, 0, "no refresh token was presented twice: {journal:?}");
}

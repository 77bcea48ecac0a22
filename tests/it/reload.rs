//! The configuration and its secrets change while the real process serves.

use std::{fs, sync::Arc, time::Duration};

use bearerd::{
    identity::{hex, sha256},
    proto::{GetTokenRequest, Token, token_service_client::TokenServiceClient},
    sandbox::{self, Fault, Options, Sandbox},
};
use tonic::{Code, Request, Status, transport::Channel};

use crate::support::{
    Bearerd, PATIENCE, Redis, eventually,
    house::{CLIENT_CREDENTIALS, House, reason},
    replace,
};

const SERVER: &str = r#"
[server]
listen = "@LISTEN@"
admin_listen = "@ADMIN@"

[store]
path = "@DIR@/bearerd.redb"
"#;

const CRM: &str = r#"
[credentials.crm]
grant = "client_credentials"
token_url = "@TOKEN_URL@"
client_id = "demo-confidential"
client_secret = { file = "client-secret" }
min_age = "0s"
"#;

const MAPS: &str = r#"
[credentials.maps]
grant = "static"
scheme = "bearer"
secret = { file = "maps-key" }
"#;

const FILES: [(&str, &str); 2] = [("client-secret", sandbox::DEMO_SECRET), ("maps-key", "first-key")];

/// bearerd and somebody who asks it.
struct Desk {
    bearerd: Bearerd,
    client: TokenServiceClient<Channel>,
}

impl Desk {
    async fn open(config: &str, files: &[(&str, &str)]) -> Self {
        let bearerd = Bearerd::start(config, files).await;
        let client = TokenServiceClient::connect(bearerd.grpc()).await.unwrap();
        Self { bearerd, client }
    }

    async fn get(&self, credential: &str) -> Result<Token, Status> {
        let request = GetTokenRequest { credential: credential.to_owned(), ..GetTokenRequest::default() };
        self.client.clone().get_token(request).await.map(|answer| answer.into_inner().token.unwrap())
    }

    /// The same, by whoever has this token of its own.
    async fn get_as(&self, token: &str, credential: &str) -> Result<Token, Status> {
        let request = GetTokenRequest { credential: credential.to_owned(), ..GetTokenRequest::default() };
        let mut request = Request::new(request);
        request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
        self.client.clone().get_token(request).await.map(|answer| answer.into_inner().token.unwrap())
    }

    /// The code and reason with which a token is refused.
    async fn refusal(&self, credential: &str) -> (Code, String) {
        let (code, reason, _) = reason(&self.get(credential).await.unwrap_err());
        (code, reason)
    }

    /// Puts a file in the place of another, as a Secret in a pod is replaced.
    fn write(&self, file: &str, content: &str) {
        replace(&self.bearerd.directory().join(file), content);
    }

    /// Writes a configuration, and waits until this many changes were put in force.
    async fn change(&self, config: &str, times: f64) {
        self.bearerd.write_config(config);
        self.reloaded("ok", times).await;
    }

    async fn reloaded(&self, result: &str, times: f64) {
        let series = format!("bearerd_reloads_total{{result=\"{result}\"}}");
        eventually(PATIENCE, async || self.bearerd.metric(&series).await >= times).await;
    }
}

fn at(sandbox: &Sandbox, text: &str) -> String {
    text.replace("@TOKEN_URL@", &sandbox.token_url())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_that_is_put_into_its_file_is_used_without_a_word() {
    let sandbox = Sandbox::start(Options::default()).await.unwrap();
    let config = at(&sandbox, &[SERVER, CRM, MAPS].concat());
    let desk = Desk::open(&config, &[("client-secret", "yesterdays"), ("maps-key", "first-key")]).await;
    let rejected = (Code::FailedPrecondition, "CLIENT_CONFIGURATION_REJECTED".to_owned());
    assert_eq!(desk.refusal("crm").await, rejected);
    let first = desk.get("maps").await.unwrap();
    assert_eq!(first.access_token, "first-key");

    desk.write("client-secret", sandbox::DEMO_SECRET);
    desk.write("maps-key", "second-key");
    // A fixed secret that is in memory is not served any more; what a provider refused is asked for after its wait.
    eventually(PATIENCE, async || desk.get("maps").await.unwrap().access_token == "second-key").await;
    assert!(desk.get("maps").await.unwrap().generation > first.generation);
    eventually(PATIENCE, async || desk.get("crm").await.is_ok()).await;
    let log = desk.bearerd.log();
    assert!(log.contains("the configuration was read anew and is in force"), "{log}");
    assert!(!log.contains("second-key") && !log.contains(sandbox::DEMO_SECRET), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hangup_is_a_wish_to_read_everything_again() {
    let mut desk = Desk::open(&[SERVER, MAPS].concat(), &FILES).await;
    for times in [1.0, 2.0] {
        desk.bearerd.process().signal("HUP");
        desk.reloaded("ok", times).await;
    }
    assert_eq!(desk.get("maps").await.unwrap().access_token, "first-key");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_of_the_policy_come_and_go() {
    let row = "\n[[allow]]\ncaller = \"local\"\ncredentials = [\"maps\"]\nactions = [\"ACTION\"]\n";
    let config = |action: &str| [SERVER, MAPS, &row.replace("ACTION", action)].concat();
    let desk = Desk::open(&config("get"), &FILES).await;
    assert!(desk.get("maps").await.is_ok());
    let denied = (Code::PermissionDenied, "CALLER_NOT_ALLOWED".to_owned());
    desk.change(&config("call"), 1.0).await;
    assert_eq!(desk.refusal("maps").await, denied);
    desk.change(&config("get"), 2.0).await;
    assert!(desk.get("maps").await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_rows_cannot_go_under_a_listener_that_needs_them() {
    let socket = SERVER.replace("[server]", "[server]\nunix_socket = \"@DIR@/bearerd.sock\"");
    let row = "\n[[allow]]\ncaller = \"uid:*\"\ncredentials = [\"*\"]\nactions = [\"get\"]\n";
    let desk = Desk::open(&[&socket, MAPS, row].concat(), &FILES).await;
    let denied = (Code::PermissionDenied, "CALLER_NOT_ALLOWED".to_owned());
    assert_eq!(desk.refusal("maps").await, denied);

    // A start from this file would be a good one: it has no socket.
    desk.bearerd.write_config(&[SERVER, MAPS].concat());
    desk.reloaded("refused", 1.0).await;
    assert_eq!(desk.refusal("maps").await, denied, "the rows are still in force");
    let log = desk.bearerd.log();
    assert!(log.contains("there is no [[allow]] any more, and `server.unix_socket` needs one"), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_callers_own_token_comes_and_goes_with_its_row() {
    let row = "\n[[allow]]\ncaller = \"token:ci\"\ncredentials = [\"maps\"]\nactions = [\"get\"]\n";
    let token = |hash: [u8; 32]| format!("\n[[identity.token]]\nname = \"ci\"\nsha256 = \"{}\"\n", hex(&hash));
    let config = |tokens: &str| [SERVER, MAPS, row, tokens].concat();
    let desk = Desk::open(&config(&token(sha256("first"))), &FILES).await;
    assert!(desk.get_as("first", "maps").await.is_ok());
    desk.change(&config(&[token(sha256("first")), token(sha256("second"))].concat()), 1.0).await;
    for good in ["first", "second"] {
        assert!(desk.get_as(good, "maps").await.is_ok(), "{good}");
    }
    desk.change(&config(&token(sha256("second"))), 2.0).await;
    assert!(desk.get_as("second", "maps").await.is_ok());
    assert_eq!(desk.get_as("first", "maps").await.unwrap_err().code(), Code::Unauthenticated);
    desk.change(&config(""), 3.0).await;
    assert_eq!(desk.get_as("second", "maps").await.unwrap_err().code(), Code::Unauthenticated);
    assert!(!desk.bearerd.log().contains("needs a restart"), "{}", desk.bearerd.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_with_mistakes_changes_nothing_and_all_of_them_are_told() {
    let desk = Desk::open(&[SERVER, MAPS].concat(), &FILES).await;
    let wrong = MAPS.replace("bearer", "barer").replace("maps-key", "no-such-file");
    desk.bearerd.write_config(&[SERVER, &wrong].concat());
    desk.reloaded("refused", 1.0).await;
    assert_eq!(desk.get("maps").await.unwrap().access_token, "first-key");
    let ready = reqwest::get(format!("{}/readyz", desk.bearerd.admin())).await.unwrap();
    assert_eq!(ready.status(), 200);
    let current = async || desk.bearerd.metric("bearerd_configuration_current").await;
    assert_eq!(current().await, 0.0);
    let log = desk.bearerd.log();
    for word in ["did you mean \"bearer\"", "names a file that cannot be read", "the old configuration stays in force"]
    {
        assert!(log.contains(word), "{word}: {log}");
    }

    // Half of it is mended in the file, and half beside it.
    desk.bearerd.write_config(&[SERVER, &wrong.replace("barer", "bearer")].concat());
    desk.reloaded("refused", 2.0).await;
    desk.write("no-such-file", "third-key");
    eventually(PATIENCE, async || desk.get("maps").await.unwrap().access_token == "third-key").await;
    assert_eq!(current().await, 1.0);

    // A file that is gone is a mistake too.
    fs::remove_file(desk.bearerd.directory().join("bearerd.toml")).unwrap();
    desk.reloaded("refused", 3.0).await;
    assert_eq!(desk.get("maps").await.unwrap().access_token, "third-key");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_provider_means_other_tokens_and_a_credential_that_is_gone_is_not_found() {
    let sandboxes =
        [Sandbox::start(Options::default()).await.unwrap(), Sandbox::start(Options::default()).await.unwrap()];
    let desk = Desk::open(&at(&sandboxes[0], &[SERVER, CRM, MAPS].concat()), &FILES).await;
    let token = desk.get("crm").await.unwrap();

    // Nothing about the tokens is new: the one in memory stays.
    let same = at(&sandboxes[0], &[SERVER, CRM, "refresh_ahead = \"1m\"\n", MAPS].concat());
    desk.change(&same, 1.0).await;
    assert_eq!(desk.get("crm").await.unwrap(), token);
    assert_eq!(sandboxes[0].journal().len(), 1);

    desk.change(&at(&sandboxes[1], &[SERVER, CRM, MAPS].concat()), 2.0).await;
    let other = desk.get("crm").await.unwrap();
    assert_ne!(other.access_token, token.access_token);
    assert_eq!((sandboxes[0].journal().len(), sandboxes[1].journal().len()), (1, 1));

    desk.change(&[SERVER, MAPS].concat(), 3.0).await;
    assert_eq!(desk.refusal("crm").await, (Code::NotFound, "CREDENTIAL_NOT_FOUND".to_owned()));
    desk.change(&at(&sandboxes[1], &[SERVER, CRM, MAPS].concat()), 4.0).await;
    let kept = desk.get("crm").await.unwrap();
    assert_eq!(kept.access_token, other.access_token, "it is still in the store");
    assert_eq!(sandboxes[1].journal().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_replicas_disagree_each_serves_tokens_of_its_own_provider() {
    let redis = Redis::start().await;
    let old_provider = Arc::new(Sandbox::start(Options::default()).await.unwrap());
    let new_provider = Arc::new(Sandbox::start(Options::default()).await.unwrap());
    let old = House::beside(&redis, &old_provider, CLIENT_CREDENTIALS).await;
    let new = House::beside(&redis, &new_provider, CLIENT_CREDENTIALS).await;
    // What the one is told by its provider is nothing that the other has to wait for.
    new_provider.fail_next(Fault::ErrorWord("invalid_client".to_owned()));
    assert_eq!(reason(&new.get("cc").await.unwrap_err()).1, "CLIENT_CONFIGURATION_REJECTED");
    let yesterdays = old.get("cc").await.unwrap();
    eventually(PATIENCE, async || new.get("cc").await.is_ok()).await;
    let todays = new.get("cc").await.unwrap();
    assert_ne!(todays.access_token, yesterdays.access_token);
    // Nobody's token goes because the other one has got his.
    for _ in 0..20 {
        assert_eq!(old.get("cc").await.unwrap().access_token, yesterdays.access_token);
        assert_eq!(new.get("cc").await.unwrap().access_token, todays.access_token);
    }
    assert_eq!((old.asked(), new.asked()), (1, 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_under_way_ends_with_what_it_began_with() {
    let options = Options { latency: Duration::from_secs(3), ..Options::default() };
    let slow = Sandbox::start(options).await.unwrap();
    let desk = Desk::open(&at(&slow, &[SERVER, CRM, MAPS].concat()), &FILES).await;
    let asking = {
        let mut client = desk.client.clone();
        tokio::spawn(async move {
            let request = GetTokenRequest { credential: "crm".to_owned(), ..GetTokenRequest::default() };
            client.get_token(request).await
        })
    };
    eventually(PATIENCE, async || slow.journal().len() == 1).await;
    desk.change(&[SERVER, MAPS].concat(), 1.0).await;
    assert!(!asking.is_finished(), "the provider takes its time");
    assert_eq!(desk.refusal("crm").await.1, "CREDENTIAL_NOT_FOUND");
    assert!(asking.await.unwrap().is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_needs_a_restart_is_named_and_the_rest_is_in_force() {
    let desk = Desk::open(&[SERVER, MAPS].concat(), &FILES).await;
    let moved = SERVER.replace("@ADMIN@", "127.0.0.1:1").replace("bearerd.redb", "other.redb");
    desk.write("maps-key", "second-key");
    desk.change(&[&moved, MAPS, "\n[cache]\nmax_tokens = 7\n"].concat(), 1.0).await;
    let log = desk.bearerd.log();
    for setting in ["server.admin_listen", "store.path", "cache"] {
        assert!(log.contains(&format!("`{setting}` was changed and needs a restart")), "{setting}: {log}");
    }
    assert!(!log.contains("`server.listen`"), "{log}");
    assert_eq!(desk.get("maps").await.unwrap().access_token, "second-key");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn seal_keys_that_do_not_open_the_store_are_refused_with_all_that_came_with_them() {
    const KEYS: [(&str, &str); 2] = [
        ("one", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="),
        ("two", "//79/Pv6+fj39vX08/Lx8O/u7ezr6uno5+bl5OPi4eA="),
    ];
    let seal = |keys: &str| format!("\n[seal]\nkeys = [{keys}]\n");
    let (one, two) = ("{ id = \"one\", file = \"one\" }", "{ id = \"two\", file = \"two\" }");
    let config = |keys: &str| [SERVER, &seal(keys), MAPS].concat();
    let files: Vec<_> = FILES.into_iter().chain(KEYS).collect();
    let desk = Desk::open(&config(one), &files).await;
    desk.get("maps").await.unwrap();

    desk.bearerd.write_config(&[SERVER, &seal(two)].concat());
    desk.reloaded("refused", 1.0).await;
    assert!(desk.get("maps").await.is_ok(), "the credential is still there");
    let log = desk.bearerd.log();
    assert!(log.contains("sealed with the key \"one\", which is not among the configured seal keys"), "{log}");

    desk.change(&config(&format!("{two}, {one}")), 1.0).await;
    assert!(desk.get("maps").await.is_ok());
}

/// C-K6, row 45: the password of Redis is in a file that changes, whatever the rest of the configuration is like.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_password_of_redis_is_used_without_a_restart() {
    let redis = Redis::start().await;
    let _: () = redis.cli(&["ACL", "SETUSER", "me", "on", ">first", "~*", "&*", "+@all"]).await;
    let _: () = redis.cli(&["ACL", "SETUSER", "you", "on", ">third", "~*", "&*", "+@all"]).await;
    let config = |user: &str| {
        let store = format!(
            "[store]\nkind = \"redis\"\nurl = \"{}\"\nusername = \"{user}\"\npassword = {{ file = \"redis-password\" }}\n\
             [seal]\nkeys = [{{ id = \"a\", file = \"seal\" }}]\n",
            redis.url()
        );
        let server = SERVER.split("[store]").next().unwrap();
        [server, &store, MAPS].concat()
    };
    let files = [FILES[1], ("redis-password", "first"), ("seal", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=")];
    let desk = Desk::open(&config("me"), &files).await;
    let up = async |value: f64| {
        eventually(PATIENCE, async || desk.bearerd.metric("bearerd_store_up").await == value).await;
    };
    desk.get("maps").await.unwrap();
    // The file of the configuration is no good meanwhile.
    desk.bearerd.write_config("[server");
    desk.reloaded("refused", 1.0).await;
    let _: () = redis.cli(&["ACL", "SETUSER", "me", ">second", "<first"]).await;
    let _: i64 = redis.cli(&["CLIENT", "KILL", "USER", "me"]).await;
    up(0.0).await;
    desk.write("redis-password", "second");
    up(1.0).await;
    desk.get("maps").await.unwrap();

    // The user changes with the configuration, while the store cannot be asked about anything.
    desk.write("redis-password", "third");
    let _: () = redis.cli(&["ACL", "SETUSER", "me", "<second", ">fourth"]).await;
    let _: i64 = redis.cli(&["CLIENT", "KILL", "USER", "me"]).await;
    up(0.0).await;
    desk.change(&config("you"), 1.0).await;
    up(1.0).await;
    let log = desk.bearerd.log();
    assert!(!log.contains("needs a restart"), "{log}");
    for password in ["first", "second", "third", "fourth"] {
        assert!(!log.contains(&format!("\"{password}\"")), "{log}");
    }
}

//! Seal keys come and go while everybody works, and afterwards nothing is left that needs the old one.

use std::{collections::BTreeMap, process::Command, sync::Arc, time::Duration};

use bearerd::{
    proto::{GetTokenRequest, Token, token_service_client::TokenServiceClient},
    secret::ExposeSecret,
    store::{
        AttemptId, Census, Material, Quarantine, Ring, Step, Store, StoreError, Written,
        embedded::Embedded,
        redis::{Redis as RedisStore, RedisConfig},
    },
};
use futures_util::future::join_all;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use tokio::{sync::watch, task::spawn_blocking};
use tonic::{Status, transport::Channel};

use crate::{
    store_contract::{Desk, beside, refreshable},
    store_embedded::ring,
    store_redis::settings,
    support::{Bearerd, Cluster, PATIENCE, Provider, Redis, eventually},
};

const ONE: (&str, &str) = ("one", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=");
const TWO: (&str, &str) = ("two", "//79/Pv6+fj39vX08/Lx8O/u7ezr6uno5+bl5OPi4eA=");

/// The header of what the key of this id sealed: version 1, the id's length, the id.
fn header(id: &str) -> Vec<u8> {
    [&[1, u8::try_from(id.len()).unwrap()], id.as_bytes()].concat()
}

fn holds(bytes: &[u8], id: &str) -> bool {
    memchr::memmem::find(bytes, &header(id)).is_some()
}

/// What every configuration here has; the keys are those of these ids, in this order.
fn configuration(store: &str, keys: &[&str], token_url: &str) -> String {
    let keys: Vec<_> = keys.iter().map(|id| format!("{{ id = \"{id}\", file = \"{id}\" }}")).collect();
    format!(
        r#"
[server]
listen = "@LISTEN@"
admin_listen = "@ADMIN@"

[store]
{store}

[seal]
keys = [{}]

[credentials.crm]
grant = "refresh_token"
token_url = "{token_url}"
client_id = "web"
client_secret = {{ file = "client-secret" }}
refresh_token = {{ file = "refresh-token" }}
min_age = "0s"

[credentials.maps]
grant = "static"
scheme = "bearer"
secret = {{ file = "client-secret" }}
"#,
        keys.join(", ")
    )
}

/// Runs `bearerd keys` with a word against a replica, and returns what it counted.
async fn keys(bearerd: &Bearerd, word: &'static str) -> BTreeMap<String, u64> {
    let address = bearerd.grpc();
    let run = spawn_blocking(move || {
        Command::new(env!("CARGO_BIN_EXE_bearerd")).args(["keys", word, "--json", "--address", &address]).output()
    });
    let run = run.await.unwrap().unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    let counts: serde_json::Value = serde_json::from_slice(&run.stdout).unwrap();
    let rows = counts["keys"].as_array().unwrap().iter();
    rows.map(|row| (row["key"].as_str().unwrap().to_owned(), row["records"].as_u64().unwrap())).collect()
}

async fn reloaded(bearerd: &Bearerd, times: f64) {
    let series = "bearerd_reloads_total{result=\"ok\"}";
    eventually(PATIENCE, async || bearerd.metric(series).await >= times).await;
}

async fn get(client: &TokenServiceClient<Channel>, credential: &str) -> Result<Token, Status> {
    let request = GetTokenRequest { credential: credential.to_owned(), ..GetTokenRequest::default() };
    client.clone().get_token(request).await.map(|answer| answer.into_inner().token.unwrap())
}

/// Asks again and again until it is told to stop; the number of answers, all of which were good.
async fn keep_asking(client: TokenServiceClient<Channel>, stop: watch::Receiver<bool>) -> usize {
    let mut answers = 0;
    while !*stop.borrow() {
        get(&client, "crm").await.unwrap();
        get(&client, "maps").await.unwrap();
        answers += 2;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    answers
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_replicas_change_their_key_and_no_call_fails() {
    // Tokens live for two seconds, so that refreshes go on all the while.
    let provider = Provider::start(&[("ACCESS_TTL", "2"), ("ROTATE", "1")]).await;
    let redis = Redis::start().await;
    let first = provider.mint_refresh_token("service", "offline_access read").await;
    let store = format!("kind = \"redis\"\nurl = \"{}\"", redis.url());
    let config = |keys: &[&str]| configuration(&store, keys, &provider.token_url());
    let files = [ONE, TWO, ("client-secret", "web-secret"), ("refresh-token", first.as_str())];
    let start = config(&["one"]);
    let replicas = join_all((0..3).map(|_| Bearerd::start(&start, &files))).await;
    let (done, stop) = watch::channel(false);
    let mut load = Vec::new();
    for replica in &replicas {
        let client = TokenServiceClient::connect(replica.grpc()).await.unwrap();
        get(&client, "crm").await.unwrap();
        load.extend((0..3).map(|_| tokio::spawn(keep_asking(client.clone(), stop.clone()))));
    }
    assert!(keys(&replicas[0], "list").await["one"] >= 3);

    // Each step everywhere before the next one anywhere.
    for (times, ids) in [(1.0, &["one", "two"]), (2.0, &["two", "one"])] {
        replicas.iter().for_each(|replica| replica.write_config(&config(ids)));
        join_all(replicas.iter().map(|replica| reloaded(replica, times))).await;
    }
    let resealed = keys(&replicas[1], "reseal").await;
    assert!(resealed["two"] >= 3, "{resealed:?}");
    let counted = keys(&replicas[2], "list").await;
    assert_eq!(counted["one"], 0, "{counted:?}");
    assert_eq!(replicas[2].metric("bearerd_sealed_records{key=\"one\"}").await, 0.0);
    assert!(replicas[2].metric("bearerd_sealed_records{key=\"two\"}").await >= 3.0);
    replicas.iter().for_each(|replica| replica.write_config(&config(&["two"])));
    join_all(replicas.iter().map(|replica| reloaded(replica, 3.0))).await;

    // Another refresh or two without the old key.
    let asked = provider.log().await.len();
    eventually(PATIENCE, async || provider.log().await.len() > asked + 1).await;
    done.send_replace(true);
    let answers: Vec<_> = join_all(load).await.into_iter().map(Result::unwrap).collect();
    assert!(answers.iter().all(|answers| *answers > 0));
    println!("{answers:?} calls of each caller, none failed");
    let log = provider.log().await;
    assert!(log.iter().all(|entry| entry.status.is_none_or(|status| status == 200)), "{log:?}");
    assert!(provider.alive(&first).await);

    // The append-only file tells the past, until it is written anew.
    let _: String = redis.cli(&["BGREWRITEAOF"]).await;
    eventually(PATIENCE, async || !holds(&redis.files(), "one")).await;
    assert!(holds(&redis.files(), "two"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_embedded_store_changes_its_key_and_works_without_the_old_one() {
    let provider = Provider::start(&[("ACCESS_TTL", "3600"), ("ROTATE", "1")]).await;
    let first = provider.mint_refresh_token("service", "offline_access read").await;
    let config = |keys: &[&str]| configuration("path = \"@DIR@/bearerd.redb\"", keys, &provider.token_url());
    let files = [ONE, TWO, ("client-secret", "web-secret"), ("refresh-token", first.as_str())];
    let bearerd = Bearerd::start(&config(&["one"]), &files).await;
    let client = TokenServiceClient::connect(bearerd.grpc()).await.unwrap();
    let token = get(&client, "crm").await.unwrap();
    get(&client, "maps").await.unwrap();

    bearerd.write_config(&config(&["two", "one"]));
    reloaded(&bearerd, 1.0).await;
    assert_eq!(keys(&bearerd, "list").await, BTreeMap::from([("two".to_owned(), 0), ("one".to_owned(), 4)]));
    let resealed = BTreeMap::from([("two".to_owned(), 4), ("one".to_owned(), 0)]);
    assert_eq!(keys(&bearerd, "reseal").await, resealed);
    assert_eq!(keys(&bearerd, "reseal").await, resealed, "again, with no other effect");

    let mut bearerd = bearerd.start_again(&config(&["two"])).await;
    let client = TokenServiceClient::connect(bearerd.grpc()).await.unwrap();
    assert_eq!(get(&client, "crm").await.unwrap().access_token, token.access_token);
    assert_eq!(get(&client, "maps").await.unwrap().access_token, "web-secret");
    assert_eq!(provider.log().await.len(), 1);
    bearerd.process().kill();
    let rows = rows(&bearerd.directory().join("bearerd.redb"));
    // In rows it is base64, which begins with the header.
    for (id, there) in [("one", false), ("two", true)] {
        use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};
        let encoded = STANDARD_NO_PAD.encode(&header(id)[..3]);
        let found = holds(&rows, id) && memchr::memmem::find(&rows, encoded.as_bytes()).is_some();
        assert_eq!(found, there, "{id}");
    }
}

/// Every value in a database file.
fn rows(path: &std::path::Path) -> Vec<u8> {
    let mut all = Vec::new();
    let database = Database::open(path).unwrap();
    let transaction = database.begin_read().unwrap();
    for name in ["meta", "grants", "tokens"] {
        let table: TableDefinition<'_, &str, &[u8]> = TableDefinition::new(name);
        for row in transaction.open_table(table).unwrap().iter().unwrap() {
            all.extend_from_slice(row.unwrap().1.value());
        }
    }
    all
}

/// A whole pass, and how many steps it took.
async fn pass(store: &Arc<dyn Store>, reseal: bool) -> (Census, usize) {
    let (mut census, mut from, mut steps) = (Census::default(), None::<String>, 0);
    loop {
        let stepped = store.reseal(&Step { from: from.as_deref(), reseal }).await.unwrap();
        census.add(&stepped.census);
        steps += 1;
        match stepped.next {
            Some(next) => from = Some(next),
            None => return (census, steps),
        }
    }
}

/// The same for both stores: many records, in steps, and each opens in its place with the new key alone.
async fn everything_is_sealed_anew(store: Arc<dyn Store>, keys: Ring) {
    const GRANTS: usize = 150;
    let desks: Vec<_> = (0..GRANTS).map(|n| Desk::of(&store, &format!("s{n}"), "read")).collect();
    for desk in &desks {
        desk.refresh("first").await;
    }
    let revisions = join_all(desks.iter().map(Desk::record)).await;
    let whole = |id: &str| BTreeMap::from([(id.to_owned(), u64::try_from(GRANTS * 2 + 1).unwrap())]);
    assert_eq!(pass(&store, true).await.0.sealed, whole("a"), "nothing to do");

    keys.replace_with(&ring(&[("b", 2), ("a", 1)]));
    assert_eq!(pass(&store, false).await.0.sealed, whole("a"), "counting changes nothing");
    let (census, steps) = pass(&store, true).await;
    assert_eq!((&census.sealed, census.resealed, census.unreadable), (&whole("b"), whole("b")["b"], 0));
    assert!(steps > 1, "{steps}");

    keys.replace_with(&ring(&[("b", 2)]));
    for (desk, before) in desks.iter().zip(&revisions) {
        let now = desk.record().await;
        assert_eq!(now.revision, before.revision);
        assert!(desk.token().await.is_some());
    }
    // What was computed before can be committed after: a new seal is no new revision.
    let desk = &desks[7];
    let expected = desk.record().await.revision;
    let late = desk.commit(&AttemptId::random(), expected, beside(expected, 1), "late").await;
    assert_eq!(late, Written::Done);

    // Without the key, records stay as they are, and whoever has it reads them still.
    keys.replace_with(&ring(&[("c", 3)]));
    let (census, _) = pass(&store, true).await;
    assert_eq!((census.sealed["unknown"], census.resealed), (whole("b")["b"], 0));
    assert!(matches!(desk.store.load(&desk.place).await, Err(StoreError::Unreadable(_))));
    keys.replace_with(&ring(&[("b", 2)]));
    assert!(desk.token().await.is_some());
}

#[tokio::test]
async fn a_damaged_record_is_counted_and_stops_nobody() {
    let (redis, keys) = (Redis::start().await, ring(&[("a", 1)]));
    let store: Arc<dyn Store> = Arc::new(RedisStore::open(&settings(&redis.url()), keys.clone()).await.unwrap());
    Desk::of(&store, "jane", "read").refresh("first").await;
    let _: () = redis.cli(&["SET", "test:{crm/a}:grant", "of another type"]).await;
    let _: () = redis.cli(&["HSET", "test:{crm/b}:grant", "rev", "nan", "sealed", "x"]).await;
    let _: () = redis.cli(&["HSET", "test:{crm/c}:grant", "rev", "7", "sealed", "x"]).await;
    let _: () = redis.cli(&["HSET", "test:{crm/d}:grant", "failures", "1"]).await;
    keys.replace_with(&ring(&[("b", 2), ("a", 1)]));
    let (census, _) = pass(&store, true).await;
    assert_eq!(census.sealed, BTreeMap::from([("b".to_owned(), 3), ("unknown".to_owned(), 3)]));
    assert_eq!((census.resealed, census.unreadable), (3, 3));
    assert_eq!(redis.cli::<String>(&["HGET", "test:{crm/c}:grant", "sealed"]).await, "x");
}

/// The same for both stores: what is kept beside a grant opens with the new key alone.
async fn a_late_answer_is_sealed_anew(store: Arc<dyn Store>, keys: Ring) {
    let desk = Desk::of(&store, "jane", "read");
    let first = desk.hand_over("first").await;
    desk.refresh("second").await;
    let late = Quarantine {
        unit: &desk.place.unit,
        attempt: &AttemptId::random(),
        expected: first,
        next: beside(first, 1),
        secrets: &refreshable("late-refresh"),
    };
    assert_eq!(store.quarantine(&late).await.unwrap(), Written::Done);
    keys.replace_with(&ring(&[("b", 2), ("a", 1)]));
    let (census, _) = pass(&store, true).await;
    // The key of names, the grant, what is kept beside it, and the token.
    assert_eq!((census.sealed, census.resealed), (BTreeMap::from([("b".to_owned(), 4)]), 4));
    keys.replace_with(&ring(&[("b", 2)]));
    let kept = desk.record().await.quarantine.unwrap();
    let Material::RefreshToken(token) = &kept.secrets.material else { panic!("{kept:?}") };
    assert_eq!((kept.revision, token.expose_secret()), (beside(first, 1), "late-refresh"));
}

#[tokio::test]
async fn a_late_answer_in_redis_is_sealed_anew() {
    let (redis, keys) = (Redis::start().await, ring(&[("a", 1)]));
    let store = RedisStore::open(&settings(&redis.url()), keys.clone()).await.unwrap();
    a_late_answer_is_sealed_anew(Arc::new(store), keys).await;
}

#[tokio::test]
async fn a_late_answer_in_the_file_is_sealed_anew() {
    let (directory, keys) = (tempfile::tempdir().unwrap(), ring(&[("a", 1)]));
    let store = Embedded::open(&directory.path().join("bearerd.redb"), keys.clone()).unwrap();
    a_late_answer_is_sealed_anew(Arc::new(store), keys).await;
}

#[tokio::test]
async fn every_record_on_every_node_of_a_cluster_is_sealed_anew() {
    let (cluster, keys) = (Cluster::shared().await, ring(&[("a", 1)]));
    // Others use these servers too.
    let prefix = AttemptId::random().as_str().to_owned();
    let config = RedisConfig { prefix: prefix.clone(), ..settings(&cluster.url()) };
    let store = RedisStore::open(&config, keys.clone()).await.unwrap();
    everything_is_sealed_anew(Arc::new(store), keys).await;
    let each: Vec<Vec<String>> = cluster.on_primaries(&["KEYS", &format!("{prefix}:*:grant")]).await;
    assert!(each.len() == 3 && each.iter().all(|keys| !keys.is_empty()), "{each:?}");
}

#[tokio::test]
async fn every_record_in_redis_is_sealed_anew() {
    let (redis, keys) = (Redis::start().await, ring(&[("a", 1)]));
    let store = RedisStore::open(&settings(&redis.url()), keys.clone()).await.unwrap();
    everything_is_sealed_anew(Arc::new(store), keys).await;
}

#[tokio::test]
async fn every_record_in_the_file_is_sealed_anew() {
    let (directory, keys) = (tempfile::tempdir().unwrap(), ring(&[("a", 1)]));
    let store = Embedded::open(&directory.path().join("bearerd.redb"), keys.clone()).unwrap();
    everything_is_sealed_anew(Arc::new(store), keys).await;
}

//! The sign of life on the channel: a subscription that is silently gone is noticed, and few words are spoken.

use std::sync::atomic::{AtomicBool, Ordering};

use bearerd::store::Event;
use memchr::memmem;
use redis::{AsyncConnectionConfig, Client, PushInfo, PushKind};
use tokio::{net::TcpListener, sync::mpsc};

use super::{
    connection::{assert_away, heard},
    *,
};
use crate::store_contract::events::change;

/// What begins a message on a channel, and no other answer.
const MESSAGE: &[u8] = b">3\r\n$7\r\nmessage\r\n";

/// A way to a server on which messages are swallowed as long as the switch is on, and nothing else.
async fn deaf_proxy(redis: &Redis) -> (String, Arc<AtomicBool>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("redis://{}", listener.local_addr().unwrap());
    let (switch, port) = (Arc::new(AtomicBool::new(false)), redis.port());
    let deaf = Arc::clone(&switch);
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let deaf = Arc::clone(&deaf);
            tokio::spawn(async move {
                let (mut questions, mut answers) = client.into_split();
                let (mut from, mut to) = TcpStream::connect(("127.0.0.1", port)).await.unwrap().into_split();
                tokio::spawn(async move { tokio::io::copy(&mut questions, &mut to).await });
                // Room for whole messages, which are looked for.
                let mut bytes = Vec::with_capacity(64 * 1024);
                // An end is no news.
                while from.read_buf(&mut bytes).await.is_ok_and(|length| length > 0) {
                    if deaf.load(Ordering::SeqCst) {
                        swallow(&mut bytes);
                    }
                    if answers.write_all(&bytes).await.is_err() {
                        return;
                    }
                    bytes.clear();
                }
            });
        }
    });
    (url, switch)
}

/// Removes messages: the head, and two texts with their lengths.
fn swallow(bytes: &mut Vec<u8>) {
    while let Some(start) = memmem::find(bytes, MESSAGE) {
        let mut end = start + MESSAGE.len();
        for _ in 0..4 {
            end += memmem::find(&bytes[end..], b"\r\n").expect("a whole message") + 2;
        }
        bytes.drain(start..end);
    }
}

#[tokio::test]
async fn a_channel_that_is_silent_is_noticed_and_heard_again() {
    let redis = Redis::start().await;
    let (url, deaf) = deaf_proxy(&redis).await;
    let store: Arc<dyn Store> = Arc::new(RedisStore::open(&settings(&url), ring("a", 1)).await.unwrap());
    let desk = Desk::new(&store);
    let mut events = store.events();
    desk.refresh("first").await;
    assert_eq!(change(&mut events).await.token, Some(desk.place.token.clone()));

    // Everything else goes on as before.
    deaf.store(true, Ordering::SeqCst);
    store.ping().await.unwrap();
    heard(&mut events, &Event::Gap).await;
    // A connection that hears nothing is none.
    let answer = timeout(PATIENCE, async {
        loop {
            if let Err(error) = store.ping().await {
                break Err::<(), _>(error);
            }
        }
    });
    assert_away(answer.await.unwrap(), "timed out");
    assert!(events.is_empty());
    deaf.store(false, Ordering::SeqCst);
    heard(&mut events, &Event::Heard).await;
    desk.refresh("second").await;
    assert_eq!(change(&mut events).await.token, Some(desk.place.token.clone()));
}

#[tokio::test]
async fn a_right_that_is_taken_away_is_a_gap_until_it_is_given_back() {
    let redis = Redis::start().await;
    let _: () = redis.cli(&["ACL", "SETUSER", "me", "on", ">pw", "~*", "&*", "+@all"]).await;
    let config = RedisConfig { username: Some("me".into()), password: Some("pw".into()), ..settings(&redis.url()) };
    let store: Arc<dyn Store> = Arc::new(RedisStore::open(&config, ring("a", 1)).await.unwrap());
    let mut events = store.events();
    let _: () = redis.cli(&["ACL", "SETUSER", "me", "resetchannels"]).await;
    heard(&mut events, &Event::Gap).await;
    let _: () = redis.cli(&["ACL", "SETUSER", "me", "&*"]).await;
    heard(&mut events, &Event::Heard).await;
    Desk::new(&store).refresh("first").await;
}

/// What is said on the channel.
async fn listener(redis: &Redis) -> (redis::aio::MultiplexedConnection, mpsc::UnboundedReceiver<PushInfo>) {
    let (sender, pushes) = mpsc::unbounded_channel();
    let config = AsyncConnectionConfig::new().set_push_sender(sender);
    let client = Client::open(format!("{}?protocol=resp3", redis.url())).unwrap();
    let mut connection = client.get_multiplexed_async_connection_with_config(&config).await.unwrap();
    connection.subscribe("test:events").await.unwrap();
    (connection, pushes)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_replicas_speak_as_one() {
    let redis = Redis::start().await;
    let mut replicas = Vec::new();
    for _ in 0..12 {
        replicas.push(replica(&redis).await);
    }
    let (_connection, mut pushes) = listener(&redis).await;
    let mut spoken: Vec<Duration> = Vec::new();
    // If each of them spoke in every period, five words would never take as long as two periods. Some may speak at the
    // same moment, and all of them after this process stood still; so it is enough to see it once.
    let sparse = async {
        while spoken.len() < 5 || spoken[spoken.len() - 1] - spoken[spoken.len() - 5] < Duration::from_millis(4_200) {
            if pushes.recv().await.unwrap().kind == PushKind::Message {
                let (seconds, micros): (u64, u32) = redis.cli(&["TIME"]).await;
                spoken.push(Duration::new(seconds, micros * 1_000));
            }
        }
    };
    timeout(PATIENCE, sparse).await.unwrap();
}

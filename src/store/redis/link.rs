//! The connection to Redis, and what is heard on its channel.

use std::time::Duration;

use redis::{
    Client, ConnectionInfo, IntoConnectionInfo, ProtocolVersion, PushInfo, PushKind, RedisConnectionInfo, Value,
    aio::{ConnectionManager, ConnectionManagerConfig},
};
use tokio::{
    sync::{broadcast, mpsc},
    time::timeout,
};
use tracing::warn;

use super::RedisConfig;
use crate::{
    secret::ExposeSecret,
    store::{
        Change, Event, StoreError,
        names::{TokenName, UnitName},
    },
    token::Generation,
};

/// A command that has no answer after this long is given up; the store may still have run it.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(2);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// The same with the wait for a connection that is being made anew. It also bounds by how much a token's TTL, which is
/// sent as what is left, can come out too long: by less than the skew that a life of half a minute or more is cut by.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);

/// The longest pause between two tries to connect.
const RECONNECT_PAUSE: Duration = Duration::from_secs(1);

/// Connects, and listens on the channel; what is heard goes to `events`.
pub(super) async fn connect(
    config: &RedisConfig,
    channel: &str,
    events: broadcast::Sender<Event>,
) -> Result<ConnectionManager, StoreError> {
    let client = Client::open(info(config)?).map_err(|error| StoreError::Open(error.to_string()))?;
    let (pushes, heard) = mpsc::unbounded_channel();
    let settings = ConnectionManagerConfig::new()
        .set_response_timeout(Some(RESPONSE_TIMEOUT))
        .set_connection_timeout(Some(CONNECT_TIMEOUT))
        .set_max_delay(RECONNECT_PAUSE)
        .set_push_sender(pushes)
        .set_automatic_resubscription();
    let mut connection = ConnectionManager::new_with_config(client, settings).await.map_err(unavailable)?;
    connection.subscribe(channel).await.map_err(unavailable)?;
    tokio::spawn(listen(heard, events));
    Ok(connection)
}

/// What Redis answers, or that it does not.
pub(super) async fn answer<T>(asked: impl Future<Output = Result<T, redis::RedisError>>) -> Result<T, StoreError> {
    match timeout(ANSWER_TIMEOUT, asked).await {
        Ok(answer) => answer.map_err(unavailable),
        Err(_) => Err(StoreError::Unavailable(format!("no answer within {ANSWER_TIMEOUT:?}"))),
    }
}

/// An error of Redis in our words. It carries no arguments, and so no secret.
pub(super) fn unavailable(error: redis::RedisError) -> StoreError {
    match error.code() {
        Some("WRONGTYPE") => StoreError::Unreadable("a key has another type than ours".into()),
        // The scripts' own word.
        Some("UNREADABLE") => StoreError::Unreadable("a field has the wrong form".into()),
        Some(_) | None => StoreError::Unavailable(error.to_string()),
    }
}

/// RESP3, because events come as pushes on the same connection.
fn info(config: &RedisConfig) -> Result<ConnectionInfo, StoreError> {
    let refused = |error: redis::RedisError| StoreError::Open(format!("the Redis URL is not usable: {error}"));
    let info = config.url.expose_secret().into_connection_info().map_err(refused)?;
    let mut login: RedisConnectionInfo = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
    if let Some(username) = &config.username {
        login = login.set_username(username);
    }
    if let Some(password) = &config.password {
        login = login.set_password(password.expose_secret());
    }
    Ok(info.set_redis_settings(login))
}

async fn listen(mut heard: mpsc::UnboundedReceiver<PushInfo>, events: broadcast::Sender<Event>) {
    while let Some(push) = heard.recv().await {
        if let Some(event) = event_of(push) {
            if event == Event::Gap {
                warn!("the connection to Redis is lost; tokens in memory are not served until it is back");
            }
            // Nobody listening is no fault.
            let _ = events.send(event);
        }
    }
}

fn event_of(push: PushInfo) -> Option<Event> {
    #[expect(clippy::wildcard_enum_match_arm, reason = "only three of a dozen kinds are ours")]
    match push.kind {
        PushKind::Disconnection => Some(Event::Gap),
        PushKind::Subscribe => Some(Event::Heard),
        PushKind::Message => message(&push.data),
        _ => None,
    }
}

/// Reads `unit token floor`. A forged or damaged message is passed over: an event is a hint and nothing else.
fn message(data: &[Value]) -> Option<Event> {
    let [_, payload] = data else { return None };
    let text: String = redis::from_redis_value_ref(payload).ok()?;
    let mut parts = text.split(' ');
    let (unit, token, floor) = (parts.next()?, parts.next()?, parts.next()?.parse().ok()?);
    let floor = Generation::new(floor);
    (floor <= Generation::MAX).then(|| {
        Event::Changed(Change {
            unit: UnitName::from(unit),
            token: (token != "*").then(|| TokenName::from(token)),
            floor,
        })
    })
}

/// Writes what [`message`] reads.
pub(super) fn payload(change: &Change) -> String {
    let token = change.token.as_ref().map_or("*", TokenName::as_str);
    format!("{} {} {}", change.unit.as_str(), token, change.floor)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(text: &str) -> Option<Event> {
        message(&[Value::BulkString(b"channel".to_vec()), Value::BulkString(text.as_bytes().to_vec())])
    }

    #[test]
    fn events_are_read_back() {
        for token in [None, Some(TokenName::from("t"))] {
            let change = Change { unit: UnitName::from("crm/u"), token, floor: Generation::new(5) };
            assert_eq!(push(&payload(&change)), Some(Event::Changed(change)));
        }
    }

    #[test]
    fn forged_events_are_passed_over() {
        for text in ["", "a", "a b", "a b c", "a b -1", "a b 18446744073709551615", "a b 99999999999999999999"] {
            assert_eq!(push(text), None, "{text}");
        }
    }
}

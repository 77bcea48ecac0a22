//! What is said and heard on the store's channel.
//!
//! A message is `unit token floor code` or `heartbeat code`. The code authenticates the rest with the store's key of names, so that
//! only replicas of the same store can make it. Versions before it read the first three words and pass over what follows.

use std::sync::OnceLock;

use redis::{PushInfo, PushKind, Value};

use crate::{
    secret::same,
    store::{
        Change, Names,
        names::{TokenName, UnitName},
    },
    token::Generation,
};

/// What replicas say when nothing else is to be said. It is no change, and older versions pass it over.
const HEARTBEAT: &str = "heartbeat";

/// The store's channel.
pub(super) struct Channel {
    name: String,
    /// Known from the moment on when the store's first record was read. Until then nothing is in memory that a message could
    /// be about, and any heartbeat counts.
    names: OnceLock<Names>,
}

/// A message as a script publishes it.
pub(super) struct Message {
    pub(super) text: String,
    pub(super) code: String,
}

/// What a push of a server means.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Push {
    /// A connection ended, or nobody listens on it any more.
    Lost,
    /// A replica is there, and is heard.
    Heartbeat,
    /// Something changed.
    Changed(Change),
    /// A message without a code that proves it: of an older version, or forged.
    Unverified { unit: UnitName, token: Option<TokenName> },
}

impl Channel {
    pub(super) fn new(prefix: &str) -> Self {
        Self { name: format!("{prefix}:events"), names: OnceLock::new() }
    }

    /// Its name in Redis.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// From here on messages are authenticated with the key of these names.
    pub(super) fn authenticate_with(&self, names: Names) {
        // A store has one key of names for as long as it is open.
        let _ = self.names.set(names);
    }

    /// What this replica says to be heard.
    pub(super) fn heartbeat(&self) -> String {
        match self.code(HEARTBEAT) {
            Some(code) => [HEARTBEAT, " ", &code].concat(),
            None => HEARTBEAT.to_owned(),
        }
    }

    /// What is said of a change.
    pub(super) fn message(&self, change: &Change) -> Message {
        let token = change.token.as_ref().map_or("*", TokenName::as_str);
        let text = format!("{} {} {}", change.unit.as_str(), token, change.floor);
        let code = self.code(&text).unwrap_or_default();
        Message { text, code }
    }

    /// What a push of a server means, if it is one of ours.
    pub(super) fn meaning(&self, push: &PushInfo) -> Option<Push> {
        #[expect(clippy::wildcard_enum_match_arm, reason = "only three of a dozen kinds are ours")]
        match push.kind {
            PushKind::Disconnection | PushKind::Unsubscribe => Some(Push::Lost),
            PushKind::Message => self.read(&push.data),
            _ => None,
        }
    }

    /// Reads a message. What is damaged, or was said on another channel, is passed over.
    fn read(&self, data: &[Value]) -> Option<Push> {
        let [channel, payload] = data else { return None };
        if redis::from_redis_value_ref::<String>(channel).ok()? != self.name {
            return None;
        }
        let text: String = redis::from_redis_value_ref(payload).ok()?;
        let words: Vec<&str> = text.split(' ').collect();
        match *words {
            [HEARTBEAT] => self.names.get().is_none().then_some(Push::Heartbeat),
            [HEARTBEAT, code] => self.proves(code, HEARTBEAT).then_some(Push::Heartbeat),
            [unit, token, floor, ref rest @ ..] => {
                let proven = rest.first().is_some_and(|code| self.proves(code, &[unit, token, floor].join(" ")));
                let floor = Generation::new(floor.parse().ok()?);
                let (unit, token) = (UnitName::from(unit), (token != "*").then(|| TokenName::from(token)));
                match proven && floor <= Generation::MAX {
                    true => Some(Push::Changed(Change { unit, token, floor })),
                    false => Some(Push::Unverified { unit, token }),
                }
            }
            [] | [_] | [_, _] => None,
        }
    }

    fn proves(&self, code: &str, text: &str) -> bool {
        self.code(text).is_some_and(|right| same(&right, code))
    }

    fn code(&self, text: &str) -> Option<String> {
        self.names.get().map(|names| names.message_code(&self.name, text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn channel(prefix: &str, key: u8) -> Channel {
        let channel = Channel::new(prefix);
        channel.authenticate_with(Names::new(&[key; 32]));
        channel
    }

    fn push_on(channel: &Channel, name: &str, text: &str) -> Option<Push> {
        channel.read(&[Value::BulkString(name.into()), Value::BulkString(text.into())])
    }

    fn push(channel: &Channel, text: &str) -> Option<Push> {
        push_on(channel, channel.name(), text)
    }

    fn whole(message: &Message) -> String {
        format!("{} {}", message.text, message.code)
    }

    fn change(token: Option<&str>) -> Change {
        Change { unit: UnitName::from("crm/u"), token: token.map(TokenName::from), floor: Generation::new(5) }
    }

    /// How the version before codes (eca5e02) read a message.
    fn read_before(text: &str) -> Option<Option<Change>> {
        if text == "heartbeat" {
            return Some(None);
        }
        let mut parts = text.split(' ');
        let (unit, token, floor): (_, _, u64) = (parts.next()?, parts.next()?, parts.next()?.parse().ok()?);
        let token = (token != "*").then(|| TokenName::from(token));
        Some(Some(Change { unit: UnitName::from(unit), token, floor: Generation::new(floor) }))
    }

    #[test]
    fn events_are_read_back_also_by_the_version_before_codes() {
        let channel = channel("bearerd", 1);
        for token in [None, Some("t")] {
            let text = whole(&channel.message(&change(token)));
            assert_eq!(push(&channel, &text), Some(Push::Changed(change(token))));
            assert_eq!(read_before(&text), Some(Some(change(token))));
        }
        assert_eq!(push(&channel, &channel.heartbeat()), Some(Push::Heartbeat));
        assert_eq!(read_before(&channel.heartbeat()), None, "it says its own");
    }

    /// S6, cases 45 and 46.
    #[test]
    fn only_a_replica_of_the_same_store_can_raise_a_floor() {
        let ours = channel("bearerd", 1);
        let unverified =
            |token: Option<&str>| Push::Unverified { unit: UnitName::from("crm/u"), token: token.map(TokenName::from) };
        let of_another_store = whole(&channel("bearerd", 2).message(&change(Some("t"))));
        let of_another_channel = whole(&channel("other", 1).message(&change(Some("t"))));
        let true_one = ours.message(&change(Some("t")));
        for forged in [
            true_one.text.clone(),
            of_another_store,
            of_another_channel,
            format!("crm/u t 6 {}", true_one.code),
            format!("crm/u t 9007199254740991 {}", true_one.code),
            format!("crm/u t 18446744073709551615 {}", true_one.code),
            format!("{} ", true_one.text),
            format!("{} {}", true_one.text, ours.heartbeat()),
        ] {
            assert_eq!(push(&ours, &forged), Some(unverified(Some("t"))), "{forged}");
        }
        let everything = format!("crm/u * 5 {}", true_one.code);
        assert_eq!(push(&ours, &everything), Some(unverified(None)));
        let Push::Unverified { unit, .. } = push(&ours, &format!("crm/v t 5 {}", true_one.code)).unwrap() else {
            panic!("an event for another grant was believed")
        };
        assert_eq!(unit.as_str(), "crm/v");
    }

    #[test]
    fn a_heartbeat_without_its_code_counts_only_until_the_key_is_known() {
        let (unopened, ours, other) = (Channel::new("bearerd"), channel("bearerd", 1), channel("bearerd", 2));
        assert_eq!(push(&unopened, &unopened.heartbeat()), Some(Push::Heartbeat));
        assert_eq!(push(&ours, &unopened.heartbeat()), None);
        assert_eq!(push(&ours, &other.heartbeat()), None);
        assert_eq!(push(&other, &other.heartbeat()), Some(Push::Heartbeat));
    }

    #[test]
    fn forged_words_and_foreign_channels_are_passed_over() {
        let ours = channel("bearerd", 1);
        for text in ["", "heartbeats", "a", "a b", "a b c", "a b -1", "a b 99999999999999999999", "heartbeat  "] {
            assert_eq!(push(&ours, text), None, "{text}");
        }
        let event = whole(&ours.message(&change(None)));
        for name in ["", "other:events", "bearerd:event"] {
            assert_eq!(push_on(&ours, name, &event), None, "{name}");
        }
    }
}

//! What is said and heard on the store's channel.

use redis::{PushInfo, PushKind, Value};

use crate::{
    store::{
        Change,
        names::{TokenName, UnitName},
    },
    token::Generation,
};

/// What replicas say when nothing else is to be said. It is no change, and older versions pass it over.
pub(super) const HEARTBEAT: &str = "heartbeat";

/// What a push of a server means.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Push {
    /// A connection ended, or nobody listens on it any more.
    Lost,
    /// Somebody is there, and is heard.
    Heartbeat,
    /// Something changed.
    Changed(Change),
}

/// What a push of a server means, if it is one of ours.
pub(super) fn meaning(push: &PushInfo) -> Option<Push> {
    #[expect(clippy::wildcard_enum_match_arm, reason = "only three of a dozen kinds are ours")]
    match push.kind {
        PushKind::Disconnection | PushKind::Unsubscribe => Some(Push::Lost),
        PushKind::Message => message(&push.data),
        _ => None,
    }
}

/// Reads `unit token floor`. A forged or damaged message is passed over: an event is a hint and nothing else.
fn message(data: &[Value]) -> Option<Push> {
    let [_, payload] = data else { return None };
    let text: String = redis::from_redis_value_ref(payload).ok()?;
    if text == HEARTBEAT {
        return Some(Push::Heartbeat);
    }
    let mut parts = text.split(' ');
    let (unit, token, floor) = (parts.next()?, parts.next()?, parts.next()?.parse().ok()?);
    let floor = Generation::new(floor);
    (floor <= Generation::MAX).then(|| {
        Push::Changed(Change {
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

    fn push(text: &str) -> Option<Push> {
        message(&[Value::BulkString(b"channel".to_vec()), Value::BulkString(text.as_bytes().to_vec())])
    }

    #[test]
    fn events_are_read_back() {
        for token in [None, Some(TokenName::from("t"))] {
            let change = Change { unit: UnitName::from("crm/u"), token, floor: Generation::new(5) };
            assert_eq!(push(&payload(&change)), Some(Push::Changed(change)));
        }
    }

    #[test]
    fn a_heartbeat_is_no_change() {
        assert_eq!(push(HEARTBEAT), Some(Push::Heartbeat));
    }

    #[test]
    fn forged_events_are_passed_over() {
        for text in
            ["", "heartbeats", "a", "a b", "a b c", "a b -1", "a b 18446744073709551615", "a b 99999999999999999999"]
        {
            assert_eq!(push(text), None, "{text}");
        }
    }
}

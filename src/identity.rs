//! Proof in, [`Caller`] out. In this version the only proof is where a connection comes from; no header is believed.

use std::net::SocketAddr;

use crate::caller::Caller;

/// Who is at the other end of a connection.
pub fn of_peer(peer: Option<SocketAddr>) -> Caller {
    match peer {
        Some(address) if address.ip().to_canonical().is_loopback() => Caller::Local,
        Some(_) | None => Caller::Anonymous,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_is_local() {
        for (peer, caller) in [
            ("127.0.0.1:1", Caller::Local),
            ("127.9.9.9:1", Caller::Local),
            ("[::1]:1", Caller::Local),
            ("[::ffff:127.0.0.1]:1", Caller::Local),
            ("10.0.0.1:1", Caller::Anonymous),
            ("[::ffff:10.0.0.1]:1", Caller::Anonymous),
        ] {
            assert_eq!(of_peer(Some(peer.parse().unwrap())), caller, "{peer}");
        }
        assert_eq!(of_peer(None), Caller::Anonymous);
    }
}

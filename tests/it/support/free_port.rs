//! Ports for servers that want to be told one.

use std::{collections::HashSet, net::TcpListener};

use parking_lot::Mutex;

static GIVEN: Mutex<Option<HashSet<u16>>> = Mutex::new(None);

/// How often a server is started anew when somebody else was quicker to take its port.
pub const ATTEMPTS: usize = 5;

/// A port of 127.0.0.1 that is free now and that no other test of this process was given. Another process can still
/// take it first, so whoever starts a server on it is ready to try again.
pub fn free_port() -> u16 {
    loop {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        if GIVEN.lock().get_or_insert_default().insert(port) {
            return port;
        }
    }
}

#[test]
fn no_port_is_given_twice() {
    let ports: HashSet<u16> = (0..50).map(|_| free_port()).collect();
    assert_eq!(ports.len(), 50);
    assert!(TcpListener::bind(("127.0.0.1", *ports.iter().next().unwrap())).is_ok());
}

//! What strangers can make the process keep: nobody knows yet who sends a message, or who is at the other end of a conversation
//! that needs no caller, so both are bounded, for each address and for all together.

use std::{net::IpAddr, sync::Arc};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::share::{Share, Shares};

/// How many messages may be on their way at a time. Each costs about 6 KiB before a byte of it is there.
pub(super) const MESSAGES: usize = 8 * 1024;

/// What all messages that are not small may have together at least, in bytes.
pub(super) const BYTES: usize = 64 * 1024 * 1024;

/// How many watches on health, and conversations about the services' descriptions, may be open at a time. They end with their
/// connections at the latest.
const CONVERSATIONS: usize = 1024;

/// What there is.
pub(super) struct Room {
    pub messages: Limited,
    pub bytes: Limited,
    pub conversations: Limited,
    /// The largest message, in bytes.
    pub largest: usize,
}

/// So much of something, of which one address may have half.
pub(super) struct Limited {
    all: Arc<Semaphore>,
    shares: Shares,
}

/// A part of it, until this is dropped.
pub(super) type Held = (OwnedSemaphorePermit, Option<Share>);

impl Room {
    /// Room for messages of at most this size.
    pub fn new(max_message_bytes: usize) -> Self {
        Self {
            messages: Limited::new(MESSAGES),
            bytes: Limited::new(BYTES.max(2 * max_message_bytes)),
            conversations: Limited::new(CONVERSATIONS),
            largest: max_message_bytes,
        }
    }
}

impl Limited {
    fn new(all: usize) -> Self {
        Self { all: Arc::new(Semaphore::new(all)), shares: Shares::new(all / 2) }
    }

    /// So much more for this address; `None` if it, or all together, have as much as they may.
    pub fn take(&self, address: Option<IpAddr>, amount: usize) -> Option<Held> {
        let share = match address {
            Some(address) => Some(self.shares.take(address, amount)?),
            None => None,
        };
        let permit = Arc::clone(&self.all).try_acquire_many_owned(u32::try_from(amount).ok()?).ok()?;
        Some((permit, share))
    }

    /// How much is left for all together.
    #[cfg(test)]
    pub fn left(&self) -> usize {
        self.all.available_permits()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_half_of_it_and_what_is_given_back_is_there_for_all() {
        let conversations = Room::new(1).conversations;
        let take = |address: &str| conversations.take(Some(address.parse().unwrap()), 1);
        let here: Vec<Held> = (0..CONVERSATIONS / 2).map(|_| take("192.0.2.1").unwrap()).collect();
        assert!(take("192.0.2.1").is_none());
        let there: Vec<Held> = (0..CONVERSATIONS / 2).map(|_| take("192.0.2.2").unwrap()).collect();
        assert!(take("192.0.2.3").is_none() && conversations.take(None, 1).is_none());
        drop((here, there));
        assert_eq!(conversations.left(), CONVERSATIONS);
    }
}

//! What is kept of messages that are still on their way: nobody knows yet who sends them, so it is bounded in number, bytes and
//! time, for each address and for all together.

use std::{
    net::IpAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::body::{Body as Data, BodyDataStream};
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use http::Request;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Sleep, sleep},
};
use tonic::{Status, body::Body};
use tower::Service;

use super::share::{Share, Shares};
use crate::{api, identity::Remote};

/// How long a message may be on its way.
const LIMIT: Duration = Duration::from_secs(30);

/// What each message may have for nothing, in bytes: no request for a token is larger, and whoever asks for one is not to
/// suffer from those who send more.
const SMALL: usize = 4 * 1024;

/// What all others may have together at least, in bytes. Half of it is what one address may have.
const ALL: usize = 64 * 1024 * 1024;

/// A service behind these bounds.
#[derive(Clone)]
pub(super) struct Bounded<S> {
    inner: S,
    room: Arc<Room>,
}

/// How many messages may be on their way at a time. Each costs about 9 KiB before a byte of it is there. Half of them is what
/// one address may have.
const MESSAGES: usize = 8 * 1024;

/// What there is.
struct Room {
    messages: Limited,
    bytes: Limited,
}

/// So much of something, of which one address may have half.
struct Limited {
    all: Arc<Semaphore>,
    shares: Shares,
}

/// A part of it, until this is dropped.
type Held = (OwnedSemaphorePermit, Option<Share>);

impl<S> Bounded<S> {
    /// Takes messages of at most this size.
    pub fn new(inner: S, max_message_bytes: usize) -> Self {
        let bytes = Limited::new(ALL.max(2 * max_message_bytes));
        Self { inner, room: Arc::new(Room { messages: Limited::new(MESSAGES), bytes }) }
    }
}

impl Limited {
    fn new(all: usize) -> Self {
        Self { all: Arc::new(Semaphore::new(all)), shares: Shares::new(all / 2) }
    }

    /// So much more for this address; `None` if it, or all together, have as much as they may.
    fn take(&self, address: Option<IpAddr>, amount: usize) -> Option<Held> {
        let share = match address {
            Some(address) => Some(self.shares.take(address, amount)?),
            None => None,
        };
        let permit = Arc::clone(&self.all).try_acquire_many_owned(u32::try_from(amount).ok()?).ok()?;
        Some((permit, share))
    }
}

impl<S: Service<Request<Body>>> Service<Request<Body>> for Bounded<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        // A conversation has no end to wait for; how large what it says may be is bounded where it is understood.
        if request.uri().path().starts_with("/grpc.reflection.") {
            return self.inner.call(request);
        }
        let remote = request.extensions().get::<Remote>();
        let address = remote.and_then(|remote| Some(remote.address.as_ref()?.ip));
        let room = Arc::clone(&self.room);
        self.inner.call(request.map(|body| {
            let data = Data::new(body).into_data_stream();
            Body::new(Data::from_stream(Arriving::new(data, room, address)))
        }))
    }
}

/// A message on its way. What it holds is given back when it was read, or when nobody waits for it any more.
struct Arriving {
    data: BodyDataStream,
    room: Arc<Room>,
    address: Option<IpAddr>,
    size: usize,
    held: Vec<Held>,
    /// Since something of it had to be waited for; most messages are there as soon as they are asked for.
    awaited: Option<Awaited>,
}

/// A message of which not all is there.
struct Awaited {
    _place: Held,
    limit: Pin<Box<Sleep>>,
}

impl Arriving {
    fn new(data: BodyDataStream, room: Arc<Room>, address: Option<IpAddr>) -> Self {
        Self { data, room, address, size: 0, held: Vec::new(), awaited: None }
    }

    /// Waits for what is missing, if there is a place to wait at and time left.
    fn wait(&mut self, cx: &mut Context<'_>) -> Poll<Status> {
        let awaited = match &mut self.awaited {
            Some(awaited) => awaited,
            none => {
                let Some(place) = self.room.messages.take(self.address, 1) else {
                    return Poll::Ready(api::overloaded());
                };
                none.insert(Awaited { _place: place, limit: Box::pin(sleep(LIMIT)) })
            }
        };
        let late = || Status::deadline_exceeded("the message did not arrive in time");
        awaited.limit.as_mut().poll(cx).map(|()| late())
    }

    /// Makes room for so many bytes more; `None` if there is none.
    fn hold(&mut self, bytes: usize) -> Option<()> {
        self.size = self.size.saturating_add(bytes);
        if self.size > SMALL {
            self.held.push(self.room.bytes.take(self.address, bytes)?);
        }
        Some(())
    }
}

impl Stream for Arriving {
    type Item = Result<Bytes, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match self.data.poll_next_unpin(cx) {
            Poll::Ready(Some(Ok(bytes))) => {
                Poll::Ready(Some(self.hold(bytes.len()).map(|()| bytes).ok_or_else(api::overloaded)))
            }
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(Status::from_error(error.into_inner())))),
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending => self.wait(cx).map(|status| Some(Err(status))),
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt, stream};
    use tokio::time::Instant;

    use super::*;

    const MIB: usize = 1 << 20;

    /// A message that arrives from this address in pieces of this size, as many as are asked for.
    fn message(room: &Arc<Room>, address: &str, size: usize) -> Arriving {
        let pieces = stream::repeat_with(move || Ok::<_, Status>(Bytes::from(vec![0; size])));
        Arriving::new(Data::from_stream(pieces).into_data_stream(), Arc::clone(room), Some(address.parse().unwrap()))
    }

    fn room() -> Arc<Room> {
        Bounded::new((), 4 * MIB).room
    }

    /// Reads so many pieces, and says whether there was room for all of them.
    async fn read(message: &mut Arriving, pieces: usize) -> bool {
        for _ in 0..pieces {
            match message.next().await.unwrap() {
                Ok(_) => {}
                Err(status) => {
                    assert_eq!(status.code(), tonic::Code::ResourceExhausted);
                    return false;
                }
            }
        }
        true
    }

    #[tokio::test]
    async fn case_30_messages_on_their_way_have_so_much_room_and_no_more() {
        let room = room();
        let (here, there) = ("192.0.2.1", "192.0.2.2");
        let mut flood: Vec<Arriving> = Vec::new();
        for _ in 0..8 {
            let mut large = message(&room, here, MIB);
            assert!(read(&mut large, 4).await);
            flood.push(large);
        }
        assert!(!read(&mut message(&room, here, MIB), 1).await, "an address has half of it");
        assert!(read(&mut message(&room, here, SMALL), 1).await, "what is small is taken all the same");
        assert!(!read(&mut message(&room, here, SMALL), 2).await, "as long as it is small");
        let mut other = message(&room, there, MIB);
        assert!(read(&mut other, 32).await, "another address has the other half");
        assert!(!read(&mut message(&room, "192.0.2.3", MIB), 1).await, "and then there is nothing left");
        flood.pop();
        assert!(read(&mut message(&room, here, MIB), 4).await, "what was read, or is not waited for, leaves its room");
        drop((flood, other));
        assert_eq!(room.bytes.all.available_permits(), ALL);
    }

    /// A message from this address of which nothing comes; `None` if there is no place to wait for it.
    fn awaited(room: &Arc<Room>, address: &str) -> Option<Arriving> {
        let never = Data::from_stream(stream::pending::<Result<Bytes, Status>>()).into_data_stream();
        let mut message = Arriving::new(never, Arc::clone(room), Some(address.parse().unwrap()));
        message.next().now_or_never().is_none().then_some(message)
    }

    #[tokio::test]
    async fn case_30_so_many_messages_are_on_their_way_and_no_more() {
        let room = room();
        let (here, there) = ("192.0.2.1", "192.0.2.2");
        let mut flood: Vec<Arriving> = (0..MESSAGES / 2).map(|_| awaited(&room, here).unwrap()).collect();
        assert!(awaited(&room, here).is_none(), "an address has half of them");
        assert!(read(&mut message(&room, here, 1), 1).await, "what is there needs no place");
        assert!(awaited(&room, there).is_some(), "another one has the other half");
        flood.pop();
        assert!(awaited(&room, here).is_some(), "what was read leaves its place");
        let _others: Vec<Arriving> = (0..MESSAGES / 2).map(|_| awaited(&room, there).unwrap()).collect();
        let _last = awaited(&room, "192.0.2.3").expect("one place was left");
        assert!(awaited(&room, "192.0.2.4").is_none(), "and then there is none");
    }

    #[tokio::test(start_paused = true)]
    async fn case_30_a_message_that_does_not_arrive_is_not_waited_for() {
        let began = Instant::now();
        let never = Data::from_stream(stream::pending::<Result<Bytes, Status>>()).into_data_stream();
        let status = Arriving::new(never, room(), None).next().await.unwrap().unwrap_err();
        assert_eq!((status.code(), began.elapsed()), (tonic::Code::DeadlineExceeded, LIMIT));
    }
}

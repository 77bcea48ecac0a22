//! A message on its way. Nobody knows yet who sends it, so what is kept of it is bounded in number, bytes and time.

use std::{
    net::IpAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use arrayvec::ArrayVec;
use bytes::{Buf, Bytes};
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Sleep, sleep};
use tonic::Status;

use super::room::{Held, Room};
use crate::api;

/// How long a message may be on its way.
const LIMIT: Duration = Duration::from_secs(30);

/// What a message may have for nothing if it is no larger, in bytes: no request for a token is, and whoever asks for one is not
/// to suffer from those who send more. What is larger takes room in pieces of this size, however small its own pieces are.
const SMALL: usize = 4 * 1024;

/// How many bytes one byte of gzip becomes at most, so that a compressed message takes the room that it will need.
const MOST_UNPACKED: usize = 1032;

/// Whether a message is compressed, and its length in four bytes, stand before it (gRPC over HTTP/2, Length-Prefixed-Message).
const PREFIX: usize = 5;

/// The body of a request, whose message is read from it. What it holds is given back when the message was read, or when nobody
/// waits for it any more.
pub(super) struct Arriving<B> {
    body: B,
    room: Arc<Room>,
    address: Option<IpAddr>,
    prefix: ArrayVec<u8, PREFIX>,
    size: usize,
    /// How much of it has room.
    covered: usize,
    held: Vec<Held>,
    /// Since something of it had to be waited for; most messages are there as soon as they are asked for.
    awaited: Option<Awaited>,
}

/// A message of which not all is there.
struct Awaited {
    _place: Held,
    limit: Pin<Box<Sleep>>,
}

impl<B> Arriving<B> {
    /// The message in this body, from this address.
    pub fn new(body: B, room: Arc<Room>, address: Option<IpAddr>) -> Self {
        Self { body, room, address, prefix: ArrayVec::new(), size: 0, covered: 0, held: Vec::new(), awaited: None }
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

    /// Looks at what stands before the message, once it is there.
    ///
    /// # Errors
    ///
    /// If the message is larger than any may be.
    fn look(&mut self, data: &[u8]) -> Result<(), Status> {
        self.prefix.extend(data.iter().copied().take(self.prefix.remaining_capacity()));
        let [_, a, b, c, d] = self.prefix.as_slice() else { return Ok(()) };
        let length = usize::try_from(u32::from_be_bytes([*a, *b, *c, *d])).unwrap_or(usize::MAX);
        if length > self.room.largest { Err(api::too_large(self.room.largest)) } else { Ok(()) }
    }

    /// Makes room for so many bytes more; `None` if there is none.
    fn hold(&mut self, bytes: usize) -> Option<()> {
        let grown = self.size.saturating_add(bytes);
        let unpacked = self.size.saturating_add(bytes.saturating_mul(MOST_UNPACKED)).min(self.room.largest);
        self.size = if self.prefix.first() == Some(&1) { grown.max(unpacked) } else { grown };
        if self.size > SMALL.max(self.covered) {
            let missing = (self.size - self.covered).next_multiple_of(SMALL);
            self.held.push(self.room.bytes.take(self.address, missing)?);
            self.covered += missing;
        }
        Some(())
    }
}

impl<B> Body for Arriving<B>
where
    B: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Unpin,
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                let data = frame.data_ref().map_or(&[][..], Buf::chunk);
                self.look(data)?;
                let held = self.hold(data.len());
                Poll::Ready(Some(held.map(|()| frame).ok_or_else(api::overloaded)))
            }
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(Status::from_error(error.into())))),
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending => self.wait(cx).map(|status| Some(Err(status))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use axum::body::Body as Data;
    use futures_util::{FutureExt, stream};
    use tokio::time::Instant;

    use super::*;
    use crate::server::room::{BYTES, MESSAGES};

    type Message = Arriving<Data>;

    impl Message {
        async fn next(&mut self) -> Result<Frame<Bytes>, Status> {
            poll_fn(|cx| Pin::new(&mut *self).poll_frame(cx)).await.expect("there is more")
        }
    }

    const MIB: usize = 1 << 20;

    /// A message that arrives from this address in pieces of this size, as many as are asked for.
    fn message(room: &Arc<Room>, address: &str, size: usize) -> Message {
        let pieces = stream::repeat_with(move || Ok::<_, Status>(Bytes::from(vec![0; size])));
        Arriving::new(Data::from_stream(pieces), Arc::clone(room), Some(address.parse().unwrap()))
    }

    fn room() -> Arc<Room> {
        Arc::new(Room::new(4 * MIB))
    }

    /// Reads so many pieces, and says whether there was room for all of them.
    async fn read(message: &mut Message, pieces: usize) -> bool {
        for _ in 0..pieces {
            match message.next().await {
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
        let mut flood: Vec<Message> = Vec::new();
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
        assert_eq!(room.bytes.left(), BYTES);
    }

    #[tokio::test]
    async fn case_30_a_compressed_message_has_the_room_that_it_will_need() {
        let room = room();
        let pieces = stream::iter([Ok::<_, Status>(Bytes::from_static(&[1, 0, 0, 0, 100])), Ok(vec![0; 100].into())]);
        let mut message = Arriving::new(Data::from_stream(pieces), Arc::clone(&room), None);
        assert!(read(&mut message, 2).await);
        assert_eq!(room.bytes.left(), BYTES - (105 * MOST_UNPACKED).next_multiple_of(SMALL));
    }

    #[tokio::test]
    async fn a_message_that_is_larger_than_any_may_be_ends_with_its_beginning() {
        let pieces = [1, 4].map(|bytes| Ok::<_, Status>(Bytes::from(vec![0xff; bytes])));
        let mut message = Arriving::new(Data::from_stream(stream::iter(pieces)), room(), None);
        assert!(read(&mut message, 1).await);
        let status = message.next().await.unwrap_err();
        assert_eq!(status.code(), tonic::Code::InvalidArgument);
        assert!(status.message().contains("4194304 bytes"), "{}", status.message());
    }

    #[tokio::test]
    async fn case_30_what_comes_in_tiny_pieces_is_kept_account_of_in_large_ones() {
        let room = room();
        let mut message = message(&room, "192.0.2.1", 1);
        assert!(read(&mut message, 3 * SMALL).await);
        assert_eq!((message.held.len(), room.bytes.left()), (2, BYTES - 3 * SMALL));
    }

    /// A message from this address of which nothing comes; `None` if there is no place to wait for it.
    fn awaited(room: &Arc<Room>, address: &str) -> Option<Message> {
        let never = Data::from_stream(stream::pending::<Result<Bytes, Status>>());
        let mut message = Arriving::new(never, Arc::clone(room), Some(address.parse().unwrap()));
        message.next().now_or_never().is_none().then_some(message)
    }

    #[tokio::test]
    async fn case_30_so_many_messages_are_on_their_way_and_no_more() {
        let room = room();
        let (here, there) = ("192.0.2.1", "192.0.2.2");
        let mut flood: Vec<Message> = (0..MESSAGES / 2).map(|_| awaited(&room, here).unwrap()).collect();
        assert!(awaited(&room, here).is_none(), "an address has half of them");
        assert!(read(&mut message(&room, here, 1), 1).await, "what is there needs no place");
        assert!(awaited(&room, there).is_some(), "another one has the other half");
        flood.pop();
        assert!(awaited(&room, here).is_some(), "what was read leaves its place");
        let _others: Vec<Message> = (0..MESSAGES / 2).map(|_| awaited(&room, there).unwrap()).collect();
        let _last = awaited(&room, "192.0.2.3").expect("one place was left");
        assert!(awaited(&room, "192.0.2.4").is_none(), "and then there is none");
    }

    #[tokio::test(start_paused = true)]
    async fn case_30_a_message_that_does_not_arrive_is_not_waited_for() {
        let began = Instant::now();
        let never = Data::from_stream(stream::pending::<Result<Bytes, Status>>());
        let status = Arriving::new(never, room(), None).next().await.unwrap_err();
        assert_eq!((status.code(), began.elapsed()), (tonic::Code::DeadlineExceeded, LIMIT));
    }
}

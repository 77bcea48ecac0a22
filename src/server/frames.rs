//! Counts the frames of a client that ask for nothing (RFC 9113 §6: PING, SETTINGS, PRIORITY and their kind), so that one
//! that floods its connection with them can be told. The HTTP/2 library answers them one by one and keeps none, so they cost
//! no memory; but time, and with it everybody else's.

use tokio::time::Instant;

/// How many of them a client may send at once after a pause, how many for each second, and how many for each request. Clients
/// measure their connections with pings, and open windows for what they have received.
const BURST: u32 = 10_000;
const PER_SECOND: u32 = 100;
const PER_REQUEST: u32 = 20;

/// For how many bytes that were sent to it a client may send one, besides.
const BYTES: usize = 256;

/// What HTTP/2 begins with (RFC 9113 §3.4), in bytes.
pub(super) const PREFACE: usize = 24;

/// How long a frame's head is (RFC 9113 §4.1), in bytes: length, kind, flags, stream.
const HEAD: usize = 9;
const DATA: u8 = 0;
const HEADERS: u8 = 1;

/// What a client sent so far, as far as it matters.
pub(super) struct Frames {
    /// Bytes until the next frame begins.
    skip: usize,
    head: [u8; HEAD],
    /// How much of the head is known.
    known: usize,
    credit: u32,
    refilled: Instant,
    sent: usize,
}

/// Too many of them.
#[derive(Debug, thiserror::Error)]
#[error("the client sends too many frames that ask for nothing")]
pub(super) struct Flood;

impl Frames {
    /// Nothing yet.
    pub fn new() -> Self {
        Self { skip: PREFACE, head: [0; HEAD], known: 0, credit: BURST, refilled: Instant::now(), sent: 0 }
    }

    /// Goes through what the client sent.
    ///
    /// # Errors
    ///
    /// [`Flood`], if it has sent more frames that ask for nothing than anybody needs.
    pub fn read(&mut self, mut bytes: &[u8]) -> Result<(), Flood> {
        while !bytes.is_empty() {
            let skipped = self.skip.min(bytes.len());
            let (_, rest) = bytes.split_at(skipped);
            self.skip -= skipped;
            let open = self.head.get_mut(self.known..).unwrap_or_default();
            let (taken, rest) = rest.split_at(open.len().min(rest.len()));
            open.iter_mut().zip(taken).for_each(|(place, byte)| *place = *byte);
            self.known += taken.len();
            bytes = rest;
            if self.known == HEAD {
                self.known = 0;
                self.frame()?;
            }
        }
        Ok(())
    }

    /// So many bytes were sent to the client.
    pub fn sent(&mut self, bytes: usize) {
        self.sent += bytes;
        self.earn(u32::try_from(self.sent / BYTES).unwrap_or(BURST));
        self.sent %= BYTES;
    }

    /// A frame whose head is known.
    fn frame(&mut self) -> Result<(), Flood> {
        let [a, b, c, kind, ..] = self.head;
        self.skip = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        match kind {
            HEADERS => self.earn(PER_REQUEST),
            DATA if self.skip > 0 => {}
            _ => self.spend()?,
        }
        Ok(())
    }

    fn earn(&mut self, frames: u32) {
        self.credit = self.credit.saturating_add(frames).min(BURST);
    }

    fn spend(&mut self) -> Result<(), Flood> {
        if self.credit == 0 {
            let seconds = self.refilled.elapsed().as_secs();
            self.refilled = Instant::now();
            self.earn(u32::try_from(seconds).unwrap_or(u32::MAX).saturating_mul(PER_SECOND));
        }
        self.credit = self.credit.checked_sub(1).ok_or(Flood)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::advance;

    use super::*;

    const PING: u8 = 6;
    const WINDOW_UPDATE: u8 = 8;

    fn frame(kind: u8, length: u8) -> Vec<u8> {
        [&[0, 0, length, kind, 0, 0, 0, 0, 0], vec![PING; usize::from(length)].as_slice()].concat()
    }

    fn begun() -> Frames {
        let mut frames = Frames::new();
        frames.read(&[b'x'; PREFACE]).unwrap();
        frames
    }

    #[tokio::test(start_paused = true)]
    async fn frames_are_told_apart_however_they_are_cut() {
        let flood = [vec![b'x'; PREFACE], frame(PING, 8).repeat(BURST as usize), frame(DATA, 200)].concat();
        for size in [1, 7, 9, 17, 4096, flood.len()] {
            let mut frames = Frames::new();
            flood.chunks(size).for_each(|chunk| frames.read(chunk).unwrap());
            assert_eq!(frames.credit, 0, "in pieces of {size}");
            assert!(frames.read(&frame(PING, 8)).is_err(), "in pieces of {size}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_asks_for_something_may_send_more() {
        for (what, more) in [
            ("requests", [frame(HEADERS, 30), frame(PING, 8).repeat(10), frame(WINDOW_UPDATE, 4).repeat(10)].concat()),
            ("data", frame(DATA, 100)),
        ] {
            let mut frames = begun();
            for _ in 0..2 * BURST {
                frames.read(&more).expect(what);
            }
        }
        let mut frames = begun();
        for _ in 0..2 * BURST {
            frames.sent(BYTES / 2);
            frames.sent(BYTES / 2);
            frames.read(&frame(WINDOW_UPDATE, 4)).unwrap();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn answers_to_a_flood_do_not_pay_for_it() {
        let mut frames = begun();
        let last = (0..2 * BURST).find(|_| {
            frames.sent(17);
            frames.read(&frame(PING, 8)).is_err()
        });
        assert!(last.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn empty_data_is_worth_nothing_and_time_makes_up_for_all() {
        let mut frames = begun();
        let empty = frame(DATA, 0);
        for _ in 0..BURST {
            frames.read(&empty).unwrap();
        }
        assert!(frames.read(&empty).is_err());
        advance(Duration::from_secs(1)).await;
        for _ in 0..PER_SECOND {
            frames.read(&empty).unwrap();
        }
        assert!(frames.read(&empty).is_err());
    }
}

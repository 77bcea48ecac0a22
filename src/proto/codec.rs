//! How messages are read and written: as tonic does, with buffers of the size that messages here have.

use std::marker::PhantomData;

use prost::Message;
use tonic::codec::{self, BufferSettings};
use tonic_prost::{ProstDecoder, ProstEncoder};

/// What a buffer holds before it has to grow, in bytes: nearly every question and answer. One is made for each question and
/// each answer, and an answer keeps it until it is sent. tonic's own have 8 KiB.
const BUFFER: usize = 1024;

/// How much of a stream is gathered before it is sent, in bytes; tonic's own value. Messages here are no streams.
const GATHERED: usize = 32 * 1024;

/// Protobuf on gRPC, of what is sent and what is received.
#[derive(Debug)]
pub struct Codec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for Codec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> codec::Codec for Codec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = ProstDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstEncoder::new(BufferSettings::new(BUFFER, GATHERED))
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstDecoder::new(BufferSettings::new(BUFFER, GATHERED))
    }
}

//! What is certain about a request that got no answer.

use std::{error::Error, io, sync::Arc};

use hyper_util::client::legacy::{
    self,
    connect::{CaptureConnection, Connected},
};
use rustls::AlertDescription;

use super::{super::resolve::NotAllowed, connection::Traffic};

/// Why no answer began.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The name leads only to addresses that may not be connected to.
    #[error("{0}")]
    NotAllowed(Arc<str>),
    /// The server did not process the request: it was not sent, or the server says so.
    #[error("{0}")]
    NotProcessed(Arc<str>),
    /// The connection or the protocol broke; the server may have acted.
    #[error("{0}")]
    Broken(Arc<str>),
    /// Time ran out; the server may have acted.
    #[error("time ran out")]
    TimedOut,
}

/// What may have come of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// No server got it.
    NotSent,
    /// The server says that it did not process it, and would process another one.
    Unprocessed,
    /// The connection had answered before, and broke before a byte of this answer.
    KeptConnectionBroke,
    /// The server may have acted.
    Unknown,
}

/// A request that got no answer.
pub(super) struct Failure {
    pub effect: Effect,
    pub error: SendError,
}

impl Failure {
    /// Of an error of the client.
    pub fn of(error: &legacy::Error, request: &CaptureConnection) -> Self {
        if let Some(refused) = find::<NotAllowed>(error) {
            return Self { effect: Effect::NotSent, error: SendError::NotAllowed(refused.to_string().into()) };
        }
        let effect = effect(error, request);
        let cause = described(error).into();
        let error = match effect {
            Effect::NotSent | Effect::Unprocessed => SendError::NotProcessed(cause),
            Effect::KeptConnectionBroke | Effect::Unknown => SendError::Broken(cause),
        };
        Self { effect, error }
    }

    /// Of a deadline that passed.
    pub fn late(request: &CaptureConnection) -> Self {
        match Traffic::of(request) {
            Some(_) => Self { effect: Effect::Unknown, error: SendError::TimedOut },
            None => {
                let error = SendError::NotProcessed("time ran out before there was a connection".into());
                Self { effect: Effect::NotSent, error }
            }
        }
    }
}

fn effect(error: &legacy::Error, request: &CaptureConnection) -> Effect {
    let Some(traffic) = Traffic::of(request).filter(|_| !error.is_connect()) else { return Effect::NotSent };
    if !traffic.was_written() || ends_handshake(error) {
        Effect::NotSent
    } else if find::<h2::Error>(error).is_some_and(says_unprocessed) {
        Effect::Unprocessed
    } else if broke(error) && traffic.has_answered() && (is_http2(request) || traffic.is_silent()) {
        Effect::KeptConnectionBroke
    } else {
        Effect::Unknown
    }
}

/// REFUSED_STREAM, and GOAWAY where the stream is above the last one that the server processed (RFC 9113 §6.8 and §8.7).
/// h2 gives a GOAWAY of the other side only to such streams, and to those that were not opened yet.
fn says_unprocessed(error: &h2::Error) -> bool {
    let refused = error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM);
    error.is_remote() && (refused || error.is_go_away())
}

/// Whether the connection ended, and not the request alone. One that answered no ping ends with a timeout.
fn broke(error: &legacy::Error) -> bool {
    let by_hyper = find::<hyper::Error>(error)
        .is_some_and(|error| error.is_incomplete_message() || error.is_closed() || error.is_timeout());
    by_hyper || find::<io::Error>(error).is_some() || find::<h2::Error>(error).is_some_and(h2::Error::is_io)
}

fn is_http2(request: &CaptureConnection) -> bool {
    request.connection_metadata().as_ref().is_some_and(Connected::is_negotiated_h2)
}

/// Alerts with which a server refuses a handshake (RFC 8446 §6.2). In TLS 1.3 they can come after the client's request,
/// which the server then has not read.
fn ends_handshake(error: &legacy::Error) -> bool {
    use AlertDescription as Alert;
    let alert = match find::<rustls::Error>(error) {
        Some(rustls::Error::AlertReceived(alert)) => *alert,
        Some(_) | None => return false,
    };
    [
        Alert::HandshakeFailure,
        Alert::BadCertificate,
        Alert::UnsupportedCertificate,
        Alert::CertificateRevoked,
        Alert::CertificateExpired,
        Alert::CertificateUnknown,
        Alert::CertificateRequired,
        Alert::UnknownCA,
        Alert::AccessDenied,
        Alert::ProtocolVersion,
        Alert::InsufficientSecurity,
        Alert::UnrecognisedName,
        Alert::NoApplicationProtocol,
    ]
    .contains(&alert)
}

/// The first cause of this type. `io::Error` hides what it was made of from `source`.
fn find<'a, E: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a E> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        cause = match inner {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    None
}

/// What happened, in words for the log.
fn described(error: &legacy::Error) -> String {
    if ends_handshake(error) {
        return format!("the server refused the TLS handshake: {}", root_cause(error));
    }
    if find::<hyper::Error>(error).is_some_and(hyper::Error::is_incomplete_message) {
        return "the server closed the connection without an answer".to_owned();
    }
    root_cause(error)
}

/// The innermost cause.
pub(super) fn root_cause(error: &(dyn Error + 'static)) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

//! Faults: what the token endpoint can be told to do wrong next.

/// One wrong answer of the token endpoint. Except for [`Fault::DropAfterHandling`] it is given instead of the right one:
/// the request is journaled and otherwise not acted upon, so nothing rotates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// An empty answer with this HTTP status. A number that is no status is sent as 500.
    Status(u16),
    /// An empty answer with this HTTP status that says when to come back: in seconds or as a date (RFC 9110 §10.2.3).
    Wait {
        /// The HTTP status. A number that is no status is sent as 500.
        status: u16,
        /// The value of `Retry-After`; left out where it is not fit for a header.
        retry_after: String,
    },
    /// A well-formed refusal (RFC 6749 §5.2) with this `error`: status 401 for `invalid_client`, 400 for any other.
    ErrorWord(String),
    /// Any answer at all, for example a proxy's HTML page with status 200.
    Body {
        /// The HTTP status. A number that is no status is sent as 500.
        status: u16,
        /// The value of `Content-Type`; left out where it is not fit for a header.
        content_type: String,
        /// The body.
        body: String,
    },
    /// The request is handled in full, refresh token rotated and all, and then the connection closes without one byte
    /// of an answer. The client cannot tell this from a request that never arrived.
    DropAfterHandling,
}

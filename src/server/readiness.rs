//! What probes are told of this process.

/// Whether requests should come here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// They should.
    Ready,
    /// They should, although the store does not answer: valid tokens in memory are served. No other replica has a store that this
    /// one lacks, so to send everybody away would only make it worse.
    Degraded,
    /// They should not: the process is stopping.
    Stopping,
}

impl Readiness {
    /// Whether requests should come here.
    pub fn serves(self) -> bool {
        match self {
            Self::Ready | Self::Degraded => true,
            Self::Stopping => false,
        }
    }

    /// Whether what needs the store can be done.
    pub fn has_store(self) -> bool {
        match self {
            Self::Ready => true,
            Self::Degraded | Self::Stopping => false,
        }
    }

    /// What `/readyz` says.
    pub(super) fn text(self) -> &'static str {
        match self {
            Self::Ready => "ready\n",
            Self::Degraded => "ready, degraded: the store does not answer; valid tokens are served from memory\n",
            Self::Stopping => "not ready: bearerd is stopping\n",
        }
    }
}

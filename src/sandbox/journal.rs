//! The journal: what the token endpoint was asked and what it did, in order. It is the oracle of tests.

use std::collections::VecDeque;

/// A sandbox that is left running must not grow without end; the oldest entries go first.
const KEPT: usize = 10_000;

/// One request to the token endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRequestEntry {
    /// The place in the order in which the endpoint acted, from 1. Requests that are acted upon at the same time do
    /// not exist: one lock orders them.
    pub sequence: u64,
    /// The parameter `grant_type`, empty if there was none.
    pub grant_type: String,
    /// The client that the request names, whether or not it proved to be that client.
    pub client_id: Option<String>,
    /// Where the presented refresh token stands in its family; `None` if there was none or it was never issued.
    pub presented: Option<Presented>,
    /// The parameter `scope`, as asked for.
    pub scope: Option<String>,
    /// What became of the request.
    pub outcome: Outcome,
}

/// A refresh token's place. The token itself is never journaled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Presented {
    /// The grant that it belongs to.
    pub family: usize,
    /// How often the grant had rotated when the token was issued; the first token is 0.
    pub rotation: u64,
}

/// What became of a token request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A token was issued. Whether the answer arrived is another question.
    Issued,
    /// It was refused with this `error` word (RFC 6749 §5.2).
    Refused(&'static str),
    /// A [`Fault`](super::Fault) answered in the endpoint's place; nothing was acted upon.
    Faulted,
}

/// The entries, oldest first.
#[derive(Debug, Default)]
pub(super) struct Journal {
    entries: VecDeque<TokenRequestEntry>,
    written: u64,
}

impl Journal {
    /// Writes an entry down; the journal numbers it.
    pub fn record(&mut self, entry: TokenRequestEntry) {
        self.written += 1;
        if self.entries.len() == KEPT {
            self.entries.pop_front();
        }
        self.entries.push_back(TokenRequestEntry { sequence: self.written, ..entry });
    }

    /// A copy of what is kept.
    pub fn entries(&self) -> Vec<TokenRequestEntry> {
        self.entries.iter().cloned().collect()
    }
}

//! Stores that break their contract in one way each: to see that this is noticed.

/// One way in which a store does not keep its contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// Whoever gives a lease back takes away anybody's.
    AnybodyReleases,
    /// A commit needs the lease instead of the expected revision.
    CommitNeedsLease,
    /// A commit is taken whatever the revision is.
    CommitUnfenced,
    /// Now and then a commit is acknowledged and not stored.
    CommitForgotten,
    /// Whoever waited for the lease gets the record that was there when the waiting began.
    ClaimReadsBefore,
    /// An intent is written whoever holds the lease, and whoever else sends. The broker covers for nearly all of that: it
    /// does not send when it stood still for long, and every answer is fenced.
    DispatchAlways,
    /// The same, and whatever the revision is.
    DispatchUnfenced,
    /// An unknown outcome withdraws the intent.
    IntentForgotten,
    /// A failure is noted whatever the revision is.
    SettleUnfenced,
    /// The grant's record has a lifetime.
    GrantEnds,
    /// A token's lifetime begins anew when it is read.
    TokenNeverEnds,
    /// All tokens of a grant are kept under one name.
    OneNameForAll,
    /// A rejected token stays.
    RejectForgotten,
    /// Nobody is told of changes.
    EventsSilent,
    /// Nobody who has a token and looks is told of changes either. Without an event the broker knows no better then.
    LookBelieves,
}

impl Flaw {
    pub const ALL: [Self; 15] = [
        Self::AnybodyReleases,
        Self::CommitNeedsLease,
        Self::CommitUnfenced,
        Self::CommitForgotten,
        Self::ClaimReadsBefore,
        Self::DispatchAlways,
        Self::DispatchUnfenced,
        Self::IntentForgotten,
        Self::SettleUnfenced,
        Self::GrantEnds,
        Self::TokenNeverEnds,
        Self::OneNameForAll,
        Self::RejectForgotten,
        Self::EventsSilent,
        Self::LookBelieves,
    ];

    /// Within how many seeds it has to be noticed.
    pub fn teeth(self) -> u64 {
        if matches!(self, Self::DispatchAlways | Self::SettleUnfenced | Self::LookBelieves) { 500 } else { 50 }
    }
}

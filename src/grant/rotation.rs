//! What becomes of a refresh token that was used, and when one whose answer never came may be presented again.

use std::time::Duration;

/// What a provider does with a refresh token that was used (RFC 6749 §6, RFC 9700 §4.14.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RotationProfile {
    /// It is dead, and presenting it again may end the grant. Assumed of every provider that nothing else is known of.
    #[default]
    Strict,
    /// It can be presented again for a while, which is meant for clients that missed the answer.
    Grace {
        /// How long, from its first use.
        window: Duration,
    },
    /// A new one is issued, and the old one stays good.
    OldSurvives,
    /// It stays the only one.
    None,
}

impl RotationProfile {
    /// Whether a refresh token that was used is dead, at once or after a while.
    pub fn spends(self) -> bool {
        match self {
            Self::Strict | Self::Grace { .. } => true,
            Self::OldSurvives | Self::None => false,
        }
    }

    /// How long a used refresh token can be presented again, where that is limited.
    pub fn window(self) -> Option<Duration> {
        match self {
            Self::Grace { window } => Some(window),
            Self::Strict | Self::OldSurvives | Self::None => None,
        }
    }
}

/// A refresh token that was, perhaps, sent, and whose answer is not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unanswered {
    /// How long ago it was first sent, at most: it was written down before it was sent.
    pub age: Duration,
    /// How long ago it was last sent, at most.
    pub quiet: Duration,
    /// Whether the last sender itself said that it got no answer; else it may still be at work.
    pub settled: bool,
}

/// What a new token is wanted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Somebody waits for it.
    Now,
    /// It is to replace one that is still valid.
    Ahead,
}

/// When a refresh token may be presented again.
#[derive(Clone, Copy, Debug)]
pub struct Recovery {
    /// What the provider does with it.
    pub rotation: RotationProfile,
    /// So long after the last send, nobody is expected to be storing an answer any more.
    pub takeover: Duration,
    /// The store was away until a moment ago: whoever holds an answer is about to store it.
    pub store_came_back: bool,
    /// How long it may take from this decision until the provider has the request.
    pub margin: Duration,
}

impl Recovery {
    /// Whether a refresh token may be presented again now.
    pub fn allows(&self, sent: &Unanswered, need: Need) -> bool {
        match self.rotation {
            // Nothing is spent by it, and whichever answer is stored first holds a refresh token that works.
            RotationProfile::None | RotationProfile::OldSurvives => true,
            RotationProfile::Grace { window } if self.arrives(sent.age, window) => self.is_in_turn(sent, window),
            // A strict provider that had acted takes this as theft and ends the grant (RFC 9700 §4.14.2). But then the
            // grant was lost with the answer, and if it had not acted this is what saves it. While a token is valid
            // there is nothing to save by it yet.
            RotationProfile::Grace { window: _ } | RotationProfile::Strict => {
                need == Need::Now && (sent.settled || self.is_orphaned(sent))
            }
        }
    }

    fn arrives(&self, age: Duration, window: Duration) -> bool {
        age.saturating_add(self.margin) <= window
    }

    fn is_orphaned(&self, sent: &Unanswered) -> bool {
        !self.store_came_back && sent.quiet >= self.takeover
    }

    /// Whether nobody else is to be waited for within the window.
    ///
    /// The sender may live and be storing its answer. Then there would be two, the store's revision would take the one
    /// that comes first, and at a provider that revokes the one for the other that may be the wrong one. So it is left
    /// alone until its takeover, if the window lasts long enough for somebody to come and ask after that. If not, there
    /// is nothing to wait for: we hold the lease, so the sender lost it or is dead, and after the window a dead one's
    /// grant is lost for certain. When the store has just come back it is different: a living sender is likely then.
    fn is_in_turn(&self, sent: &Unanswered, window: Duration) -> bool {
        let waiting_saves_it = self.arrives(self.takeover.saturating_mul(2), window);
        sent.settled || self.is_orphaned(sent) || !(self.store_came_back || waiting_saves_it)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const STRICT: RotationProfile = RotationProfile::Strict;
    const SHORT: RotationProfile = RotationProfile::Grace { window: Duration::from_secs(30) };
    const LONG: RotationProfile = RotationProfile::Grace { window: Duration::from_secs(600) };

    fn recovery(rotation: RotationProfile, store_came_back: bool) -> Recovery {
        Recovery { rotation, takeover: Duration::from_secs(24), store_came_back, margin: Duration::from_secs(5) }
    }

    /// When asking is allowed, as what is needed: nobody, who waits only, or also ahead of time.
    fn allowed(recovery: &Recovery, age: u64, settled: bool) -> &'static str {
        let age = Duration::from_secs(age);
        let sent = Unanswered { age, quiet: age, settled };
        match (recovery.allows(&sent, Need::Now), recovery.allows(&sent, Need::Ahead)) {
            (false, false) => "no",
            (true, false) => "now",
            (true, true) => "ahead",
            (false, true) => "ahead but not now",
        }
    }

    #[test]
    fn each_profile_recovers_in_its_own_time() {
        let (settled, unsettled) = (true, false);
        for (rotation, age, settled, expected) in [
            (STRICT, 0, settled, "now"),
            (STRICT, 9999, settled, "now"),
            (STRICT, 23, unsettled, "no"),
            (STRICT, 24, unsettled, "now"),
            // The window closes 5 s early, and then it is as if there had been none.
            (LONG, 0, settled, "ahead"),
            (LONG, 595, settled, "ahead"),
            (LONG, 596, settled, "now"),
            (LONG, 23, unsettled, "no"),
            (LONG, 24, unsettled, "ahead"),
            (LONG, 596, unsettled, "now"),
            // Here the takeover would leave next to nothing of it.
            (SHORT, 0, unsettled, "ahead"),
            (SHORT, 25, unsettled, "ahead"),
            (SHORT, 26, settled, "now"),
            (SHORT, 26, unsettled, "now"),
            (RotationProfile::OldSurvives, 0, unsettled, "ahead"),
            (RotationProfile::OldSurvives, 9999, settled, "ahead"),
            (RotationProfile::None, 0, unsettled, "ahead"),
            (RotationProfile::None, 9999, settled, "ahead"),
        ] {
            assert_eq!(allowed(&recovery(rotation, false), age, settled), expected, "{rotation:?} {age} {settled}");
        }
    }

    #[test]
    fn when_the_store_has_just_come_back_a_living_sender_goes_first() {
        for (rotation, age, settled, expected) in [
            (STRICT, 9999, false, "no"),
            (STRICT, 0, true, "now"),
            (SHORT, 0, false, "no"),
            (SHORT, 9999, false, "no"),
            (SHORT, 0, true, "ahead"),
            (LONG, 24, false, "no"),
            (RotationProfile::OldSurvives, 0, false, "ahead"),
            (RotationProfile::None, 0, false, "ahead"),
        ] {
            assert_eq!(allowed(&recovery(rotation, true), age, settled), expected, "{rotation:?} {age} {settled}");
        }
    }

    fn times() -> impl Strategy<Value = Duration> {
        prop_oneof![0..60_000_u64, any::<u64>()].prop_map(Duration::from_millis)
    }

    fn rotations() -> impl Strategy<Value = RotationProfile> {
        prop_oneof![
            Just(STRICT),
            Just(RotationProfile::OldSurvives),
            Just(RotationProfile::None),
            times().prop_map(|window| RotationProfile::Grace { window }),
        ]
    }

    prop_compose! {
        fn cases()(
            rotation in rotations(), takeover in times(), store_came_back: bool, margin in times(), age in times(),
            quiet in times(), settled: bool,
        ) -> (Recovery, Unanswered) {
            (Recovery { rotation, takeover, store_came_back, margin }, Unanswered { age, quiet: quiet.min(age), settled })
        }
    }

    #[test]
    fn a_second_sender_has_its_own_time_to_store_the_answer() {
        let sent =
            |quiet| Unanswered { age: Duration::from_secs(9999), quiet: Duration::from_secs(quiet), settled: false };
        let recovery = recovery(STRICT, false);
        assert!(!recovery.allows(&sent(23), Need::Now));
        assert!(recovery.allows(&sent(24), Need::Now));
    }

    proptest! {
        #[test]
        fn a_strict_provider_is_never_asked_again_ahead_of_time((recovery, sent) in cases()) {
            let strict = Recovery { rotation: STRICT, ..recovery };
            prop_assert!(!strict.allows(&sent, Need::Ahead));
        }

        #[test]
        fn a_window_is_used_ahead_of_time_only_while_the_request_arrives_in_it((recovery, sent) in cases()) {
            if let RotationProfile::Grace { window } = recovery.rotation {
                let in_time = sent.age.saturating_add(recovery.margin) <= window;
                prop_assert!(in_time || !recovery.allows(&sent, Need::Ahead));
            }
        }

        #[test]
        fn what_is_allowed_ahead_of_time_is_allowed_when_it_is_needed((recovery, sent) in cases()) {
            prop_assert!(!recovery.allows(&sent, Need::Ahead) || recovery.allows(&sent, Need::Now));
        }

        #[test]
        fn every_orphan_is_asked_for_in_the_end((recovery, sent) in cases()) {
            let quiet = Recovery { store_came_back: false, ..recovery };
            let old = Unanswered { quiet: sent.quiet.max(quiet.takeover), ..sent };
            prop_assert!(quiet.allows(&old, Need::Now));
        }
    }
}

//! What this replica itself has under way. The lease keeps other replicas from asking while an answer is out, but it ends
//! while its holder stands still, or waits for the store; and whoever takes it then may be another flight of the same
//! process, for another token of the same grant. That one need not wait and guess: it can know.

use std::collections::HashSet;

use parking_lot::Mutex;

use crate::store::UnitName;

/// The grants whose refresh token this replica has sent, or is about to send, without having noted what came of it.
#[derive(Default)]
pub(super) struct UnderWay(Mutex<HashSet<UnitName>>);

/// Marks a grant until it is dropped.
pub(super) struct Mark<'a> {
    all: &'a UnderWay,
    unit: UnitName,
}

impl UnderWay {
    /// Marks a grant; `None` if it is marked already.
    pub(super) fn mark(&self, unit: &UnitName) -> Option<Mark<'_>> {
        self.0.lock().insert(unit.clone()).then(|| Mark { all: self, unit: unit.clone() })
    }
}

impl Drop for Mark<'_> {
    fn drop(&mut self) {
        self.all.0.lock().remove(&self.unit);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grant_is_marked_once_at_a_time() {
        let under_way = UnderWay::default();
        let unit = UnitName::from("crm/u");
        let mark = under_way.mark(&unit);
        assert!(mark.is_some());
        assert!(under_way.mark(&unit).is_none());
        assert!(under_way.mark(&UnitName::from("crm/v")).is_some());
        drop(mark);
        assert!(under_way.mark(&unit).is_some());
    }
}

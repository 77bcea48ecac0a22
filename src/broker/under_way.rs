//! What this replica itself has under way. The lease keeps other replicas from asking while an answer is out, but it ends
//! while its holder stands still, or waits for the store; and whoever takes it then may be another flight of the same
//! process, for another token of the same grant. That one need not wait and guess: it can know.

use std::{collections::HashSet, sync::Arc};

use parking_lot::Mutex;

use crate::store::UnitName;

/// The grants whose refresh token this replica has sent, or is about to send, without having noted what came of it.
#[derive(Clone, Default)]
pub(super) struct UnderWay(Arc<Mutex<HashSet<UnitName>>>);

/// Marks a grant until it is dropped. It goes along with the answer, to whoever stores that.
pub(super) struct Mark {
    all: UnderWay,
    unit: UnitName,
}

impl UnderWay {
    /// Marks a grant; `None` if it is marked already.
    pub(super) fn mark(&self, unit: &UnitName) -> Option<Mark> {
        self.0.lock().insert(unit.clone()).then(|| Mark { all: self.clone(), unit: unit.clone() })
    }
}

impl Drop for Mark {
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

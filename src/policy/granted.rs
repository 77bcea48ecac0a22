//! The scopes that a token may have: what the provider granted is compared with the row, not only what was asked for.

use std::sync::Arc;

use super::{Pattern, Row};
use crate::name::Scopes;

/// Limits the scopes of the token that a caller gets, or that its call is made with.
#[derive(Clone, Debug, Default)]
pub struct GrantedLimit {
    /// A row with `scopes`, all of which must be on its list.
    allow: Option<Arc<Row>>,
    /// `deny` rows with `scopes`, none of which may be on their lists.
    deny: Vec<Arc<Row>>,
}

impl GrantedLimit {
    /// The limit of the row that allows a request, and of the `deny` rows for its caller, credential, action and subject.
    pub(super) fn new<'a>(allow: &Arc<Row>, deny: impl Iterator<Item = &'a Arc<Row>>) -> Self {
        let with_scopes = |row: &&Arc<Row>| row.scopes.is_some();
        Self { allow: Some(allow).filter(with_scopes).cloned(), deny: deny.filter(with_scopes).cloned().collect() }
    }

    /// The scopes of a token that the caller may not have; empty: it may have the token.
    pub fn beyond(&self, granted: &Scopes) -> Vec<String> {
        let listed = |row: &Arc<Row>, scope: &str| {
            row.scopes.as_ref().is_some_and(|patterns| patterns.iter().any(|pattern: &Pattern| pattern.matches(scope)))
        };
        let is_beyond = |scope: &&str| {
            self.allow.as_ref().is_some_and(|row| !listed(row, scope)) || self.deny.iter().any(|row| listed(row, scope))
        };
        granted.iter().filter(is_beyond).map(str::to_owned).collect()
    }
}

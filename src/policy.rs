//! Who may do what. Default deny; the sole maker of [`Permit`], without which nothing reaches the broker.
//!
//! A request is allowed if no `deny` row matches it and one row allows all of it; two rows that allow one half each do not
//! add up. A row without `subjects`, `scopes` or `resources` covers what the credential is for by itself.

use std::{collections::BTreeMap, fmt, sync::Arc};

use self::row::Asked;
pub use self::{
    fence::{PathFault, PathPrefix},
    granted::GrantedLimit,
    pattern::{Pattern, SubjectPattern},
    row::{Limit, Row},
};
use crate::{
    caller::Caller,
    name::{CredentialName, Resources, Scopes, Subject},
    token::{GrantKey, TokenKey},
};

mod fence;
mod granted;
mod pattern;
mod row;

/// What a caller may do with a credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Get the token itself.
    Get,
    /// Report a token as rejected.
    Invalidate,
    /// Have a call made, without seeing the token.
    Call,
    /// Import and describe grants.
    Administer,
}

impl Action {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Get, Self::Invalidate, Self::Call, Self::Administer];

    /// The word in the configuration.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Invalidate => "invalidate",
            Self::Call => "call",
            Self::Administer => "administer",
        }
    }

    /// Whether it is about one token, which scopes and resources choose.
    pub const fn chooses_a_token(self) -> bool {
        match self {
            Self::Get | Self::Invalidate | Self::Call => true,
            Self::Administer => false,
        }
    }
}

/// What a caller asks for, checked in form and nothing else.
#[derive(Clone, Debug)]
pub struct Request {
    /// What is to be done.
    pub action: Action,
    /// With which credential.
    pub credential: CredentialName,
    /// On whose behalf.
    pub subject: Subject,
    /// The scopes of the token; empty: those that the credential has by default.
    pub scopes: Scopes,
    /// Its resources, likewise.
    pub resources: Resources,
    /// What is called, where the action is [`Action::Call`].
    pub call: Option<Called>,
}

/// What is called through, as it will be sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Called {
    /// The HTTP method.
    pub method: String,
    /// Path and query, relative to the credential's `base_url`.
    pub path: String,
}

impl Request {
    /// A request for the credential's default scopes and resources.
    pub fn new(action: Action, credential: CredentialName, subject: Subject) -> Self {
        let (scopes, resources) = (Scopes::default(), Resources::default());
        Self { action, credential, subject, scopes, resources, call: None }
    }
}

impl Called {
    /// The path without its query.
    pub fn plain_path(&self) -> &str {
        self.path.split_once('?').map_or(self.path.as_str(), |(path, _query)| path)
    }
}

/// What a credential is asked for where a request names nothing.
#[derive(Clone, Debug)]
pub enum Chosen {
    /// A token of these scopes and resources.
    Token {
        /// The credential's own scopes.
        scopes: Scopes,
        /// The credential's own resources.
        resources: Resources,
        /// Whether a token is issued for any subject that a request names, without a grant of that subject (RFC 7523).
        for_any_subject: bool,
    },
    /// A secret that is the same for all of them.
    Secret,
}

/// All rows.
#[derive(Clone, Debug)]
pub struct Policy {
    rows: Vec<Arc<Row>>,
    first: usize,
    chosen: BTreeMap<CredentialName, Chosen>,
}

/// The permission to do one thing with one grant. Only [`Policy::permit`] makes it, and it says all that was decided on:
/// nothing that policy looks at reaches the broker beside it.
#[derive(Clone, Debug)]
pub struct Permit {
    token: TokenKey,
    action: Action,
    call: Option<Called>,
    limits_calls: bool,
    granted: GrantedLimit,
    row: RowId,
}

/// Which row it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowId {
    /// Its place in the configuration, from 1; 0 where there is no row and `allow_all_local` is set.
    pub number: usize,
    /// Its name, if it has one.
    pub name: Option<Arc<str>>,
}

/// The permission to work on the store as a whole, whosever grants are in it. Only [`Policy::permit_store`] makes it.
#[derive(Clone, Debug)]
pub struct StorePermit {
    row: RowId,
}

/// Why a request is denied. It is for the log and the audit log: a caller is told the same whatever it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// No row is for this caller, credential and action.
    #[error("no policy row is for this caller, credential and action")]
    NoRow,
    /// A row with `deny = true` matches.
    #[error("{0} denies this")]
    ByRow(RowId),
    /// Rows are for it, and none covers all of it. This one covers the most.
    #[error("no policy row allows this; {row} is kept from it by {}", settings(limits))]
    Limited {
        /// The row.
        row: RowId,
        /// The settings that do not cover the request.
        limits: Vec<Limit>,
    },
}

fn settings(limits: &[Limit]) -> String {
    limits.iter().map(|limit| limit.setting()).collect::<Vec<_>>().join(" and ")
}

impl fmt::Display for RowId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "row {} ({name})", self.number),
            None => write!(f, "row {}", self.number),
        }
    }
}

/// What one row says to a request.
#[derive(Clone, Debug)]
pub struct Verdict<'a> {
    /// Which row.
    pub id: RowId,
    /// The row.
    pub row: &'a Row,
    /// All that keeps it from the request; empty: it allows it, or denies it where it is a `deny` row.
    pub limits: Vec<Limit>,
}

impl Policy {
    /// A policy of these rows. `chosen` says what each credential is asked for where a request names nothing, so that
    /// nobody gets round a row's scopes by naming none.
    pub fn new(rows: Vec<Row>, chosen: BTreeMap<CredentialName, Chosen>) -> Self {
        Self { rows: rows.into_iter().map(Arc::new).collect(), first: 1, chosen }
    }

    /// The policy of a loopback listener without rows: local callers may do everything.
    pub fn local_only() -> Self {
        let everything = Row::new(Pattern::new(Caller::Local.name()), vec![Pattern::new("*")], Action::ALL.to_vec());
        Self { rows: vec![Arc::new(everything)], first: 0, chosen: BTreeMap::new() }
    }

    /// Decides.
    ///
    /// # Errors
    ///
    /// [`Denied`], if a `deny` row matches, or no row allows all of the request.
    pub fn permit(&self, caller: &Caller, request: Request) -> Result<Permit, Denied> {
        let asked = self.asked(caller.name(), &request);
        let mut denials = self.numbered().filter(|(_, row)| row.deny);
        if let Some((id, _)) = denials.find(|(_, row)| row.limits(&asked).next().is_none()) {
            return Err(Denied::ByRow(id));
        }
        let mut rows = self.numbered().filter(|(_, row)| !row.deny);
        let Some((id, row)) = rows.find(|(_, row)| row.limits(&asked).next().is_none()) else {
            return Err(self.nearest(&asked));
        };
        let denials = || self.rows.iter().filter(|other| other.deny && other.is_for(&asked));
        let limits_calls = row.limits_calls() || denials().any(|other| other.limits_calls());
        let granted = GrantedLimit::new(row, denials());
        let Request { action, credential, subject, scopes, resources, call } = request;
        let configured = self.chosen.get_key_value(&credential);
        let (scopes, resources) = match configured {
            // What was compared with the row is what is asked for.
            Some((_, Chosen::Token { scopes: own_scopes, resources: own_resources, for_any_subject: _ }))
                if action.chooses_a_token() =>
            {
                (
                    if scopes.is_empty() { own_scopes.clone() } else { scopes },
                    if resources.is_empty() { own_resources.clone() } else { resources },
                )
            }
            Some((_, Chosen::Token { .. } | Chosen::Secret)) | None => (scopes, resources),
        };
        // All that is kept for a credential then has one text for its name.
        let credential = configured.map_or(credential, |(name, _)| name.clone());
        let token = TokenKey { grant: GrantKey { credential, subject }, scopes, resources };
        Ok(Permit { token, action, call, limits_calls, granted, row: id })
    }

    /// Why no row allows a request: what keeps the row from it that covers the most.
    fn nearest(&self, asked: &Asked<'_>) -> Denied {
        let rows = self.numbered().filter(|(_, row)| !row.deny && row.is_for(asked));
        let limited = rows.map(|(row, limits)| (row, limits.limits(asked).collect::<Vec<_>>()));
        let nearest = limited.min_by_key(|(_, limits)| limits.len());
        nearest.map_or(Denied::NoRow, |(row, limits)| Denied::Limited { row, limits })
    }

    /// Decides about the store as a whole: only whoever may administer every credential there can be, without any other
    /// limit, may work on it.
    ///
    /// # Errors
    ///
    /// [`Denied`], if no row says so, or a `deny` row takes any part of it away.
    pub fn permit_store(&self, caller: &Caller) -> Result<StorePermit, Denied> {
        let rows = || self.numbered().filter(|(_, row)| row.caller.matches(caller.name()));
        if let Some((id, _)) = rows().find(|(_, row)| row.deny && row.actions.contains(&Action::Administer)) {
            return Err(Denied::ByRow(id));
        }
        let (row, _) = rows().find(|(_, row)| row.administers_everything()).ok_or(Denied::NoRow)?;
        Ok(StorePermit { row })
    }

    /// What each row says to a request of the caller of this name, by the same comparisons as [`Self::permit`].
    pub fn explain(&self, caller: &str, request: &Request) -> Vec<Verdict<'_>> {
        let asked = self.asked(caller, request);
        self.numbered().map(|(id, row)| Verdict { id, row, limits: row.limits(&asked).collect() }).collect()
    }

    /// The rows that are for the caller of this name.
    pub fn rows_for(&self, caller: &str) -> Vec<(RowId, &Row)> {
        let rows = self.numbered().filter(|(_, row)| row.caller.matches(caller));
        rows.map(|(id, row)| (id, row.as_ref())).collect()
    }

    fn numbered(&self) -> impl Iterator<Item = (RowId, &Arc<Row>)> {
        (self.first..).zip(&self.rows).map(|(number, row)| (RowId { number, name: row.name.clone() }, row))
    }

    fn asked<'a>(&'a self, caller: &'a str, request: &'a Request) -> Asked<'a> {
        Asked { caller, request, chosen: &self.chosen }
    }
}

impl Permit {
    /// The grant that may be used.
    pub fn grant(&self) -> &GrantKey {
        &self.token.grant
    }

    /// What may be done with it.
    pub fn action(&self) -> Action {
        self.action
    }

    /// The scopes that may be asked for: those of the request, else the credential's own; empty only where neither has
    /// any.
    pub fn scopes(&self) -> &Scopes {
        &self.token.scopes
    }

    /// The resources that may be asked for, likewise.
    pub fn resources(&self) -> &Resources {
        &self.token.resources
    }

    /// The token that may be asked for: grant, scopes and resources in one.
    pub fn token(&self) -> &TokenKey {
        &self.token
    }

    /// What may be called.
    pub fn call(&self) -> Option<&Called> {
        self.call.as_ref()
    }

    /// Whether only some methods or paths may be called: then nothing in the call may ask for other ones.
    pub fn limits_calls(&self) -> bool {
        self.limits_calls
    }

    /// Which scopes the token may have that is used.
    pub fn granted(&self) -> &GrantedLimit {
        &self.granted
    }

    /// The row that allows it.
    pub fn row(&self) -> &RowId {
        &self.row
    }
}

impl StorePermit {
    /// The row that allows it.
    pub fn row(&self) -> &RowId {
        &self.row
    }
}

#[cfg(test)]
mod tests;

//! Who may do what. Default deny; the sole maker of [`Permit`], without which nothing reaches the broker.

use crate::{
    caller::Caller,
    name::{CredentialName, Subject},
    token::GrantKey,
};

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
}

/// One row: these callers may do this with these credentials.
#[derive(Clone, Debug)]
pub struct Row {
    /// Callers; see [`Pattern`].
    pub caller: Pattern,
    /// Credentials; any of them.
    pub credentials: Vec<Pattern>,
    /// Actions; any of them.
    pub actions: Vec<Action>,
}

/// A text in which `*` stands for any run of characters, also an empty one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(String);

impl Pattern {
    /// A pattern.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Whether every text fits.
    pub fn is_everything(&self) -> bool {
        !self.0.is_empty() && self.0.chars().all(|c| c == '*')
    }

    /// Whether the whole of a text fits.
    pub fn matches(&self, text: &str) -> bool {
        let Some((head, rest)) = self.0.split_once('*') else { return self.0 == text };
        let Some(mut left) = text.strip_prefix(head) else { return false };
        let mut pieces = rest.split('*').peekable();
        while let Some(piece) = pieces.next() {
            if pieces.peek().is_none() {
                return left.ends_with(piece);
            }
            // The first place where a piece fits is always good enough, because another star follows it.
            let Some(at) = left.find(piece) else { return false };
            left = left.get(at + piece.len()..).unwrap_or_default();
        }
        true
    }
}

/// All rows.
#[derive(Clone, Debug)]
pub struct Policy {
    rows: Vec<Row>,
}

/// The permission to do one thing with one grant. Only [`Policy::permit`] makes it.
#[derive(Clone, Debug)]
pub struct Permit {
    grant: GrantKey,
}

/// The permission to work on the store as a whole, whosever grants are in it. Only [`Policy::permit_store`] makes it.
#[derive(Clone, Debug)]
pub struct StorePermit {
    _made_here: (),
}

/// No row allows it. Says the same whether or not the credential exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no policy row allows this")]
pub struct Denied;

impl Policy {
    /// A policy of these rows.
    pub fn new(rows: Vec<Row>) -> Self {
        Self { rows }
    }

    /// The policy of a loopback listener without rows: local callers may do everything.
    pub fn local_only() -> Self {
        let all = vec![Pattern::new("*")];
        let caller = Pattern::new(Caller::Local.name());
        Self { rows: vec![Row { caller, credentials: all, actions: Action::ALL.to_vec() }] }
    }

    /// Decides.
    pub fn permit(
        &self,
        caller: &Caller,
        action: Action,
        credential: CredentialName,
        subject: Subject,
    ) -> Result<Permit, Denied> {
        let allowed = self.rows.iter().any(|row| row.allows(caller, action, &credential));
        if allowed { Ok(Permit { grant: GrantKey { credential, subject } }) } else { Err(Denied) }
    }
}

impl Policy {
    /// Decides about the store as a whole: only whoever may administer every credential there can be may work on it.
    pub fn permit_store(&self, caller: &Caller) -> Result<StorePermit, Denied> {
        let allowed = self.rows.iter().any(|row| {
            row.actions.contains(&Action::Administer)
                && row.caller.matches(caller.name())
                && row.credentials.iter().any(Pattern::is_everything)
        });
        if allowed { Ok(StorePermit { _made_here: () }) } else { Err(Denied) }
    }
}

impl Row {
    fn allows(&self, caller: &Caller, action: Action, credential: &CredentialName) -> bool {
        self.actions.contains(&action)
            && self.caller.matches(caller.name())
            && self.credentials.iter().any(|pattern| pattern.matches(credential.as_str()))
    }
}

impl Permit {
    /// The grant that may be used.
    pub fn grant(&self) -> &GrantKey {
        &self.grant
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_is_any_run_and_nothing_else_is_special() {
        for (pattern, text, fits) in [
            ("sap", "sap", true),
            ("sap", "sapx", false),
            ("sap-*", "sap-", true),
            ("sap-*", "sap", false),
            ("*", "", true),
            ("*-prod", "crm-prod", true),
            ("*-prod", "crm-prod-x", false),
            ("a*b*c", "a1b2b3c", true),
            ("a*b*c", "acb", false),
            ("a*a", "a", false),
            ("**", "x", true),
            ("a.c", "abc", false),
            ("ä*", "äö", true),
        ] {
            assert_eq!(Pattern::new(pattern).matches(text), fits, "{pattern} {text}");
        }
    }

    #[test]
    fn the_store_is_for_whoever_may_administer_everything() {
        let row = |credentials: &str, action| Row {
            caller: Pattern::new("local"),
            credentials: vec![Pattern::new("a"), Pattern::new(credentials)],
            actions: vec![action],
        };
        for (rows, allowed) in [
            (vec![row("*", Action::Administer)], true),
            (vec![row("a*", Action::Administer)], false),
            (vec![row("*", Action::Get), row("a", Action::Administer)], false),
            (vec![row("", Action::Administer)], false),
            (vec![], false),
        ] {
            let policy = Policy::new(rows);
            assert_eq!(policy.permit_store(&Caller::Local).is_ok(), allowed, "{policy:?}");
            assert!(policy.permit_store(&Caller::Anonymous).is_err());
        }
        assert!(Policy::local_only().permit_store(&Caller::Local).is_ok());
    }

    #[test]
    fn only_what_a_row_names_is_allowed() {
        let policy = Policy::new(vec![Row {
            caller: Pattern::new("local"),
            credentials: vec![Pattern::new("team-a"), Pattern::new("sap-*")],
            actions: vec![Action::Get, Action::Call],
        }]);
        let ask = |caller, action, name| {
            policy.permit(&caller, action, CredentialName::new(name).unwrap(), Subject::default()).is_ok()
        };
        assert!(ask(Caller::Local, Action::Get, "team-a"));
        assert!(ask(Caller::Local, Action::Call, "sap-x"));
        assert!(!ask(Caller::Local, Action::Get, "team-ab"));
        assert!(!ask(Caller::Local, Action::Invalidate, "team-a"));
        assert!(!ask(Caller::Anonymous, Action::Get, "team-a"));
        assert!(
            Policy::new(Vec::new())
                .permit(&Caller::Local, Action::Get, CredentialName::new("a").unwrap(), Subject::default())
                .is_err()
        );
    }
}

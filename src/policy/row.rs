//! One row of the policy, and what keeps it from allowing a request.

use std::{collections::BTreeMap, fmt, sync::Arc};

use super::{Action, Called, Chosen, PathPrefix, Pattern, Request, SubjectPattern};
use crate::name::CredentialName;

/// One row: these callers may do this with these credentials, or, with `deny`, may not.
///
/// In a row that allows, absent `subjects` cover the service itself of a credential that issues tokens for any subject, and
/// all subjects of others; absent `scopes` and `resources` cover the credential's own. In a `deny` row what is absent
/// matches everything, and a list matches if any part of the request is on it.
#[derive(Clone, Debug)]
pub struct Row {
    /// What the row is called in the audit log.
    pub name: Option<Arc<str>>,
    /// Whether it denies what it matches, whatever other rows allow.
    pub deny: bool,
    /// Callers, by [`crate::caller::Caller::name`].
    pub caller: Pattern,
    /// Credentials; any of them.
    pub credentials: Vec<Pattern>,
    /// Actions; any of them.
    pub actions: Vec<Action>,
    /// Subjects; any of them. The service itself is the empty subject, and `{caller}` the caller's name.
    pub subjects: Option<Vec<SubjectPattern>>,
    /// Scopes: each one that a token is asked for must be among them.
    pub scopes: Option<Vec<Pattern>>,
    /// Resources, likewise.
    pub resources: Option<Vec<Pattern>>,
    /// HTTP methods of calls through.
    pub methods: Option<Vec<String>>,
    /// Paths of calls through.
    pub paths: Option<Vec<PathPrefix>>,
}

/// What of a row does not fit a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// It is for other callers.
    Caller,
    /// It is for other credentials.
    Credential,
    /// It is for other actions.
    Action,
    /// It is for other subjects.
    Subject,
    /// It does not cover a scope, or the request and the credential name none where it lists some: the provider would
    /// be asked for all there are.
    Scope,
    /// Likewise for resources.
    Resource,
    /// It does not cover the method of the call.
    Method,
    /// It does not cover the path of the call.
    Path,
}

impl Limit {
    /// All of them. The first ones tell the most about why a row is not meant.
    pub const ALL: [Self; 8] = [
        Self::Caller,
        Self::Credential,
        Self::Action,
        Self::Subject,
        Self::Scope,
        Self::Resource,
        Self::Method,
        Self::Path,
    ];

    /// The row's setting.
    pub const fn setting(self) -> &'static str {
        match self {
            Self::Caller => "caller",
            Self::Credential => "credentials",
            Self::Action => "actions",
            Self::Subject => "subjects",
            Self::Scope => "scopes",
            Self::Resource => "resources",
            Self::Method => "methods",
            Self::Path => "paths",
        }
    }
}

/// A request in the light of the configuration.
pub(super) struct Asked<'a> {
    pub caller: &'a str,
    pub request: &'a Request,
    pub chosen: &'a BTreeMap<CredentialName, Chosen>,
}

impl Row {
    /// A row without limits beyond these.
    pub fn new(caller: Pattern, credentials: Vec<Pattern>, actions: Vec<Action>) -> Self {
        Self {
            name: None,
            deny: false,
            caller,
            credentials,
            actions,
            subjects: None,
            scopes: None,
            resources: None,
            methods: None,
            paths: None,
        }
    }

    /// A setting of the row as it was written; `None` where it is absent.
    pub fn written(&self, setting: Limit) -> Option<String> {
        match setting {
            Limit::Caller => Some(format!("\"{}\"", self.caller)),
            Limit::Credential => Some(list(&self.credentials)),
            Limit::Action => Some(list(self.actions.iter().map(|action| action.word()))),
            Limit::Subject => self.subjects.as_ref().map(list),
            Limit::Scope => self.scopes.as_ref().map(list),
            Limit::Resource => self.resources.as_ref().map(list),
            Limit::Method => self.methods.as_ref().map(list),
            Limit::Path => self.paths.as_ref().map(list),
        }
    }

    /// Whether it is for a credential.
    pub fn covers_credential(&self, name: &CredentialName) -> bool {
        covers(&self.credentials, name.as_str())
    }

    /// Whether it lets its callers administer every credential there can be. A row with any other limit was not written
    /// for that, also where the limit is about something else.
    pub fn administers_everything(&self) -> bool {
        let Self { name: _, deny, caller: _, credentials, actions, subjects, scopes, resources, methods, paths } = self;
        let no_other_limit =
            subjects.is_none() && scopes.is_none() && resources.is_none() && methods.is_none() && paths.is_none();
        !deny
            && no_other_limit
            && actions.contains(&Action::Administer)
            && credentials.iter().any(Pattern::is_everything)
    }

    /// Whether it lets only some methods or paths be called.
    pub(super) fn limits_calls(&self) -> bool {
        self.methods.is_some() || self.paths.is_some()
    }

    /// Whether it is for the caller, credential and action of a request, and in a `deny` row for its subject.
    pub(super) fn is_for(&self, asked: &Asked<'_>) -> bool {
        let subject = self.deny.then_some(Limit::Subject);
        [Limit::Caller, Limit::Credential, Limit::Action]
            .into_iter()
            .chain(subject)
            .all(|limit| self.keeps(limit, asked))
    }

    /// All that keeps the row from a request. Nothing is looked up by a credential's name before the row is known to cover
    /// it.
    pub(super) fn limits<'a>(&'a self, asked: &'a Asked<'a>) -> impl Iterator<Item = Limit> + 'a {
        Limit::ALL.into_iter().filter(move |limit| !self.keeps(*limit, asked))
    }

    /// Whether a request keeps a limit.
    fn keeps(&self, limit: Limit, asked: &Asked<'_>) -> bool {
        let Request { action, credential, subject, scopes: _, resources: _, call: _ } = asked.request;
        match limit {
            Limit::Caller => self.caller.matches(asked.caller),
            Limit::Credential => covers(&self.credentials, credential.as_str()),
            Limit::Action => self.actions.contains(action),
            Limit::Subject => match &self.subjects {
                Some(list) => list.iter().any(|pattern| pattern.covers(subject.as_str(), asked.caller)),
                None => self.deny || subject.is_service() || !asked.is_for_any_subject(),
            },
            Limit::Scope => self.keeps_list(self.scopes.as_deref(), &asked.scopes(), asked),
            Limit::Resource => self.keeps_list(self.resources.as_deref(), &asked.resources(), asked),
            Limit::Method => self.methods.as_ref().is_none_or(|methods| {
                self.keeps_call(asked, |called| {
                    let same = |method: &String| {
                        if self.deny { method.eq_ignore_ascii_case(&called.method) } else { *method == called.method }
                    };
                    methods.iter().any(same)
                })
            }),
            Limit::Path => self.paths.as_ref().is_none_or(|paths| {
                self.keeps_call(asked, |called| {
                    let path = called.plain_path();
                    paths.iter().any(|prefix| if self.deny { prefix.may_cover(path) } else { prefix.covers(path) })
                })
            }),
        }
    }

    fn keeps_list(&self, list: Option<&[Pattern]>, named: &Named<'_>, asked: &Asked<'_>) -> bool {
        let chooses = asked.request.action.chooses_a_token();
        match (list, self.deny) {
            (None, true) => true,
            // A list is about tokens, and a secret is the same for all scopes.
            (Some(list), true) => chooses && named.asked_for().any(|item| covers(list, item)),
            (None, false) => !chooses || named.are_own(),
            (Some(list), false) => !chooses || named.are_listed(list),
        }
    }

    /// What limits calls limits nothing else, and denies nothing else.
    fn keeps_call(&self, asked: &Asked<'_>, fits: impl Fn(&Called) -> bool) -> bool {
        match asked.request.action {
            Action::Call => asked.request.call.as_ref().map_or(self.deny, fits),
            Action::Get | Action::Invalidate | Action::Administer => !self.deny,
        }
    }
}

/// Scopes or resources: those that a request names, and what is known of the credential's own.
struct Named<'a> {
    named: Vec<&'a str>,
    own: Own<'a>,
}

enum Own<'a> {
    /// There is no such credential: what will be said is that there is none.
    Unknown,
    /// A secret that is the same for all of them is not chosen by them.
    Secret,
    /// These are asked for where a request names none.
    Items(Vec<&'a str>),
}

impl Named<'_> {
    /// What the provider is asked for.
    fn asked_for(&self) -> impl Iterator<Item = &str> {
        let items: &[&str] = match &self.own {
            Own::Secret => &[],
            Own::Items(own) if self.named.is_empty() => own,
            Own::Items(_) | Own::Unknown => &self.named,
        };
        items.iter().copied()
    }

    /// Whether they are the credential's own, or some of them.
    fn are_own(&self) -> bool {
        match &self.own {
            Own::Unknown | Own::Secret => true,
            Own::Items(own) => self.named.iter().all(|item| own.contains(item)),
        }
    }

    /// Whether all that is asked for is on a list.
    fn are_listed(&self, list: &[Pattern]) -> bool {
        match &self.own {
            Own::Secret => true,
            Own::Unknown if self.named.is_empty() => true,
            // To name nothing at all would be to ask for everything that the grant has.
            Own::Items(own) if self.named.is_empty() && own.is_empty() => false,
            Own::Items(_) | Own::Unknown => self.asked_for().all(|item| covers(list, item)),
        }
    }
}

impl Asked<'_> {
    fn chosen(&self) -> Option<&Chosen> {
        self.chosen.get(&self.request.credential)
    }

    fn is_for_any_subject(&self) -> bool {
        matches!(self.chosen(), Some(Chosen::Token { for_any_subject: true, .. }))
    }

    fn scopes(&self) -> Named<'_> {
        let own = match self.chosen() {
            Some(Chosen::Token { scopes, .. }) => Own::Items(scopes.iter().collect()),
            Some(Chosen::Secret) => Own::Secret,
            None => Own::Unknown,
        };
        Named { named: self.request.scopes.iter().collect(), own }
    }

    fn resources(&self) -> Named<'_> {
        let own = match self.chosen() {
            Some(Chosen::Token { resources, .. }) => Own::Items(resources.iter().collect()),
            Some(Chosen::Secret) => Own::Secret,
            None => Own::Unknown,
        };
        Named { named: self.request.resources.iter().collect(), own }
    }
}

fn covers(patterns: &[Pattern], text: &str) -> bool {
    patterns.iter().any(|pattern| pattern.matches(text))
}

fn list(items: impl IntoIterator<Item: fmt::Display>) -> String {
    let items: Vec<String> = items.into_iter().map(|item| format!("\"{item}\"")).collect();
    format!("[{}]", items.join(", "))
}

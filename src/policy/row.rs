//! One row of the policy, and what keeps it from allowing a request.

use std::{collections::BTreeMap, fmt, sync::Arc};

use super::{Action, Called, Chosen, PathPrefix, Pattern, Request};
use crate::name::CredentialName;

/// One row: these callers may do this with these credentials. What is `None` limits nothing.
#[derive(Clone, Debug)]
pub struct Row {
    /// What the row is called in the audit log.
    pub name: Option<Arc<str>>,
    /// Callers, by [`crate::caller::Caller::name`].
    pub caller: Pattern,
    /// Credentials; any of them.
    pub credentials: Vec<Pattern>,
    /// Actions; any of them.
    pub actions: Vec<Action>,
    /// Subjects; any of them. The service itself is the empty subject.
    pub subjects: Option<Vec<Pattern>>,
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

    /// Whether it lets its callers administer every credential there can be. A row with any other limit was not written
    /// for that, also where the limit is about something else.
    pub fn administers_everything(&self) -> bool {
        let Self { name: _, caller: _, credentials, actions, subjects, scopes, resources, methods, paths } = self;
        let no_other_limit =
            subjects.is_none() && scopes.is_none() && resources.is_none() && methods.is_none() && paths.is_none();
        no_other_limit && actions.contains(&Action::Administer) && credentials.iter().any(Pattern::is_everything)
    }

    /// All that keeps the row from allowing a request. Nothing is looked up by a credential's name before the row is
    /// known to cover it.
    pub(super) fn limits<'a>(&'a self, asked: &'a Asked<'a>) -> impl Iterator<Item = Limit> + 'a {
        Limit::ALL.into_iter().filter(move |limit| !self.keeps(*limit, asked))
    }

    /// Whether a request keeps a limit.
    fn keeps(&self, limit: Limit, asked: &Asked<'_>) -> bool {
        let Request { action, credential, subject, scopes: _, resources: _, call } = asked.request;
        // What limits calls limits nothing else.
        let call = match action {
            Action::Call => Some(call.as_ref()),
            Action::Get | Action::Invalidate | Action::Administer => None,
        };
        let every = |fits: &dyn Fn(&Called) -> bool| call.is_none_or(|call| call.is_some_and(fits));
        match limit {
            Limit::Caller => self.caller.matches(asked.caller),
            Limit::Credential => covers(&self.credentials, credential.as_str()),
            Limit::Action => self.actions.contains(action),
            Limit::Subject => self.subjects.as_ref().is_none_or(|subjects| covers(subjects, subject.as_str())),
            Limit::Scope => self.scopes.as_ref().is_none_or(|scopes| asked.keeps_scopes(scopes)),
            Limit::Resource => self.resources.as_ref().is_none_or(|resources| asked.keeps_resources(resources)),
            Limit::Method => self.methods.as_ref().is_none_or(|methods| every(&|call| methods.contains(&call.method))),
            Limit::Path => self
                .paths
                .as_ref()
                .is_none_or(|paths| every(&|call| paths.iter().any(|prefix| prefix.covers(call.plain_path())))),
        }
    }
}

impl Asked<'_> {
    fn keeps_scopes(&self, list: &[Pattern]) -> bool {
        let own = self.chosen.get(&self.request.credential).map(|chosen| match chosen {
            Chosen::Token(scopes, _) => Some(scopes.iter().collect()),
            Chosen::Secret => None,
        });
        self.keeps(list, &self.request.scopes.iter().collect::<Vec<_>>(), own)
    }

    fn keeps_resources(&self, list: &[Pattern]) -> bool {
        let own = self.chosen.get(&self.request.credential).map(|chosen| match chosen {
            Chosen::Token(_, resources) => Some(resources.iter().collect()),
            Chosen::Secret => None,
        });
        self.keeps(list, &self.request.resources.iter().collect::<Vec<_>>(), own)
    }

    /// Whether what the token is asked for is on a row's list. `own` is what the credential is asked for by default.
    fn keeps(&self, list: &[Pattern], named: &[&str], own: Option<Option<Vec<&str>>>) -> bool {
        if !self.request.action.chooses_a_token() {
            return true;
        }
        match own {
            // A secret that is the same for all scopes is not chosen by them.
            Some(None) => true,
            // No such credential: what will be said is that there is none.
            None if named.is_empty() => true,
            // To name nothing at all would be to ask for everything that the grant has.
            Some(Some(own)) if named.is_empty() => !own.is_empty() && own.iter().all(|item| covers(list, item)),
            Some(Some(_)) | None => named.iter().all(|item| covers(list, item)),
        }
    }
}

fn covers(patterns: &[Pattern], text: &str) -> bool {
    patterns.iter().any(|pattern| pattern.matches(text))
}

fn list(items: impl IntoIterator<Item: fmt::Display>) -> String {
    let items: Vec<String> = items.into_iter().map(|item| format!("\"{item}\"")).collect();
    format!("[{}]", items.join(", "))
}

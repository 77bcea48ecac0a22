//! One pass over a file: what was found wrong, what may be shown of it, and which other files it led to.

use std::{cell::RefCell, path::Path, sync::Arc};

use toml::de::DeTable;

use super::{
    file::ReadFile,
    mask,
    report::{ConfigErrors, Excerpts, Problem, Scope, Span, Warning},
    syntax,
};

/// The environment: a variable's name to its value.
pub(super) type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Collects mistakes instead of stopping at the first, so its methods take `&self` and every reader can hold it.
pub(super) struct Check<'a> {
    /// Where `{ env = "…" }` looks.
    pub environment: Environment<'a>,
    /// Where relative paths of secrets begin.
    pub directory: &'a Path,
    secrets: Secrets,
    errors: RefCell<Vec<Problem>>,
    warnings: RefCell<Vec<Problem>>,
    shown: RefCell<Vec<Span>>,
    files: RefCell<Vec<ReadFile>>,
}

/// What becomes of the secrets that a file names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Secrets {
    /// They are read, and belong to the configuration.
    Read,
    /// They are left unread.
    Leave,
}

/// What a pass found.
pub(super) struct Outcome {
    /// All mistakes in the order of the file.
    pub errors: Option<ConfigErrors>,
    /// All warnings.
    pub warnings: Vec<Warning>,
    /// The files of secrets, each once, as they were before they were first read.
    pub files: Vec<ReadFile>,
}

impl<'a> Check<'a> {
    /// Begins a pass.
    pub fn new(environment: Environment<'a>, directory: &'a Path, secrets: Secrets) -> Self {
        Self {
            environment,
            directory,
            secrets,
            errors: RefCell::default(),
            warnings: RefCell::default(),
            shown: RefCell::default(),
            files: RefCell::default(),
        }
    }

    /// Whether secrets are left unread.
    pub fn leaves_secrets(&self) -> bool {
        self.secrets == Secrets::Leave
    }

    /// Notes a mistake.
    pub fn error(&self, problem: Problem) {
        self.errors.borrow_mut().push(problem);
    }

    /// Notes a warning.
    pub fn warning(&self, problem: Problem) {
        self.warnings.borrow_mut().push(problem);
    }

    /// Says that this part of the file is no secret.
    pub fn show(&self, span: Span) {
        self.shown.borrow_mut().push(span);
    }

    /// Remembers a file whose content is part of the configuration; to be called before it is read.
    pub fn file(&self, path: &Path) {
        self.files.borrow_mut().push(ReadFile::now(path));
    }

    /// Ends the pass. `harmless` are the settings whose values are never secret.
    pub fn finish(
        self,
        name: &str,
        text: &str,
        document: &DeTable<'_>,
        mistakes: &[toml::de::Error],
        harmless: impl Fn(&str) -> bool,
    ) -> Outcome {
        let values = mask::values(text, document, &self.shown.into_inner());
        let lines = mask::lines(text, harmless);
        // What could not be read is not in the document, so that alone does not tell what to hide.
        let values = if mistakes.is_empty() { values } else { mask::both(&values, &lines) };
        let excerpts = Arc::new(Excerpts { name: name.to_owned(), values, lines });
        let mut errors = without_consequences(self.errors.into_inner(), text, mistakes);
        errors.extend(syntax::problems(text, document, mistakes));
        errors.sort_by_key(|problem| problem.span.as_ref().map_or(0, |span| span.start));
        let warnings = self.warnings.into_inner().into_iter();
        let mut files = self.files.into_inner();
        files.sort_by(|a, b| a.path().cmp(b.path()));
        files.dedup_by(|later, first| later.path() == first.path());
        Outcome {
            warnings: warnings.map(|problem| Warning::new(problem, excerpts.clone())).collect(),
            errors: (!errors.is_empty()).then(|| ConfigErrors::new(errors, excerpts)),
            files,
        }
    }
}

/// Leaves out what may only follow from a text that could not be read: other mistakes of the same section, and all
/// judgements about the file as a whole.
fn without_consequences(mut errors: Vec<Problem>, text: &str, syntax: &[toml::de::Error]) -> Vec<Problem> {
    let broken: Vec<usize> = syntax.iter().map(|error| section(text, error.span().unwrap_or_default().start)).collect();
    errors.retain(|problem| match (&problem.span, problem.scope) {
        _ if broken.is_empty() => true,
        (Some(span), Scope::Value) => !broken.contains(&section(text, span.start)),
        (None, Scope::Value) | (_, Scope::File | Scope::Syntax) => false,
    });
    errors
}

/// The number of table headers up to and including the line of this offset.
fn section(text: &str, offset: usize) -> usize {
    let end = text.get(offset..).and_then(|rest| rest.find('\n')).map_or(text.len(), |at| offset + at);
    let upto = text.get(..end).unwrap_or(text);
    upto.lines().filter(|line| line.trim_start().starts_with('[')).count()
}

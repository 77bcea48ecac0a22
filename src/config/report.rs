//! Mistakes and warnings as people read them: where it is, what is wrong there, and what would be right.

use std::{fmt, ops::Range, sync::Arc};

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

use super::{file::ReadFile, log::LogFormat};

/// Bytes of the file.
pub(super) type Span = Range<usize>;

/// How much of the file a problem was judged from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// The text is no TOML here.
    Syntax,
    /// One value is wrong by itself.
    Value,
    /// Something is missing or contradicts something else, which cannot be told while a part is unreadable.
    File,
}

/// One mistake or warning.
#[derive(Clone, Debug)]
pub(super) struct Problem {
    /// What it was judged from.
    pub scope: Scope,
    /// What is underlined, unless the problem is that something is absent.
    pub span: Option<Span>,
    /// What is wrong.
    pub title: String,
    /// What would be right.
    pub right: String,
    /// Other places that have to do with it, and what they are.
    pub context: Vec<(Span, String)>,
}

/// A file's text in which only what is known to be no secret can be read; offsets are those of the file.
#[derive(Debug)]
pub(super) struct Excerpts {
    /// What the file is called in reports.
    pub name: String,
    /// For problems of values.
    pub values: String,
    /// For problems of syntax, where it is uncertain what a text belongs to.
    pub lines: String,
}

/// Every mistake of a configuration. Neither `Debug` nor `Display` nor the rendering holds a secret.
#[derive(Debug)]
pub struct ConfigErrors {
    problems: Vec<Problem>,
    excerpts: Arc<Excerpts>,
    files: Vec<ReadFile>,
    log_format: LogFormat,
}

impl ConfigErrors {
    pub(super) fn new(problems: Vec<Problem>, excerpts: Arc<Excerpts>) -> Self {
        Self { problems, excerpts, files: Vec::new(), log_format: LogFormat::Text }
    }

    /// One mistake that is about no place in a file.
    pub(super) fn without_file(title: String, right: String) -> Self {
        let problem = Problem { scope: Scope::File, span: None, title, right, context: Vec::new() };
        let excerpts = Excerpts { name: String::new(), values: String::new(), lines: String::new() };
        Self::new(vec![problem], Arc::new(excerpts))
    }

    /// The same mistakes, found while these files were read.
    pub(super) fn after_reading(mut self, files: impl IntoIterator<Item = ReadFile>) -> Self {
        self.files.extend(files);
        self
    }

    /// Every file that was read, or looked for. As long as none of them changes, neither do the mistakes.
    pub fn files(&self) -> &[ReadFile] {
        &self.files
    }

    /// The same mistakes, of a configuration that asks for this form of the log.
    pub(super) fn logged_as(mut self, format: LogFormat) -> Self {
        self.log_format = format;
        self
    }

    /// The form of the log that is asked for, as far as that could be read.
    pub fn log_format(&self) -> LogFormat {
        self.log_format
    }

    /// Each mistake, in the order of the file.
    pub fn mistakes(&self) -> impl Iterator<Item = Note> {
        let note = |problem: &Problem| Note { problem: problem.clone(), excerpts: Arc::clone(&self.excerpts) };
        self.problems.iter().map(note)
    }

    /// How many mistakes there are; at least one.
    pub fn count(&self) -> usize {
        self.problems.len()
    }

    /// All mistakes in the order of the file, each with the bad text underlined and what would be right; with
    /// terminal colours if `colour`.
    pub fn render(&self, colour: bool) -> String {
        let reports: Vec<String> =
            self.problems.iter().map(|problem| render(&Level::ERROR, problem, &self.excerpts, colour)).collect();
        reports.join("\n\n")
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for ConfigErrors {}

/// Something in a configuration that is allowed and probably not meant.
pub type Warning = Note;

/// One mistake or warning.
#[derive(Clone, Debug)]
pub struct Note {
    problem: Problem,
    excerpts: Arc<Excerpts>,
}

impl Note {
    pub(super) fn new(problem: Problem, excerpts: Arc<Excerpts>) -> Self {
        Self { problem, excerpts }
    }

    /// What it is about, in one sentence.
    pub fn title(&self) -> &str {
        &self.problem.title
    }

    /// What would be right.
    pub fn remedy(&self) -> &str {
        &self.problem.right
    }

    /// File, line and column, unless it is about no place.
    pub fn place(&self) -> Option<String> {
        let span = self.problem.span.as_ref()?;
        let before = self.excerpts.values.get(..self.excerpts.values.floor_char_boundary(span.start))?;
        let line = before.matches('\n').count() + 1;
        let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
        Some(format!("{}:{line}:{column}", self.excerpts.name))
    }

    /// As a warning in the form of [`ConfigErrors::render`].
    pub fn render(&self, colour: bool) -> String {
        render(&Level::WARNING, &self.problem, &self.excerpts, colour)
    }
}

fn render(level: &Level<'_>, problem: &Problem, excerpts: &Excerpts, colour: bool) -> String {
    let source = match problem.scope {
        Scope::Syntax => &excerpts.lines,
        Scope::Value | Scope::File => &excerpts.values,
    };
    let title = level.clone().primary_title(problem.title.as_str());
    let group = match &problem.span {
        Some(span) => title.element(snippet(problem, span, source, &excerpts.name)),
        None => Group::with_title(title).element(Level::HELP.message(problem.right.as_str())),
    };
    let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
    renderer.render(&[group])
}

fn snippet<'a>(
    problem: &'a Problem,
    span: &Span,
    source: &'a str,
    name: &'a str,
) -> Snippet<'a, annotate_snippets::Annotation<'a>> {
    let primary = AnnotationKind::Primary.span(first_line(span, source)).label(problem.right.as_str());
    let context = problem
        .context
        .iter()
        .map(|(span, label)| AnnotationKind::Context.span(first_line(span, source)).label(label.as_str()));
    Snippet::source(source).path(name).annotation(primary).annotations(context)
}

/// The part of a span on its first line, on character boundaries: what is underlined always fits one line.
fn first_line(span: &Span, source: &str) -> Span {
    let start = source.floor_char_boundary(span.start);
    let end = source.ceil_char_boundary(span.end).max(start);
    let length = source.get(start..end).and_then(|text| text.find(['\n', '\r'])).unwrap_or(end - start);
    start..start + length
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(span: Option<Span>) -> Problem {
        Problem {
            scope: Scope::Value,
            span,
            title: "`a` is wrong".into(),
            right: "write 1".into(),
            context: vec![(0..1, "here".into())],
        }
    }

    fn excerpts(text: &str) -> Arc<Excerpts> {
        Arc::new(Excerpts { name: "bearerd.toml".into(), values: text.into(), lines: text.into() })
    }

    #[test]
    fn a_span_is_cut_at_its_line_and_moved_to_characters() {
        assert_eq!(first_line(&(2..9), "a\nbc\nde"), 2..4);
        assert_eq!(first_line(&(1..2), "ä"), 0..2);
        assert_eq!(first_line(&(7..9), "ab"), 2..2);
    }

    #[test]
    fn colour_is_asked_for() {
        let errors = ConfigErrors::new(vec![problem(Some(4..5))], excerpts("a = 2"));
        assert!(errors.render(true).contains('\u{1b}'));
        assert!(!errors.render(false).contains('\u{1b}'));
        assert_eq!(errors.to_string(), errors.render(false));
    }

    #[test]
    fn a_problem_without_a_place_says_what_to_do() {
        let warning = Warning::new(problem(None), excerpts(""));
        assert_eq!(warning.render(false), "warning: `a` is wrong\n |\n = help: write 1");
        assert_eq!(warning.title(), "`a` is wrong");
    }
}

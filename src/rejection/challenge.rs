//! Reading `WWW-Authenticate`: a list of challenges (RFC 9110 §11.3, §11.6.1), with the patience that the field needs.
//!
//! The grammar is a list of lists: a comma ends a parameter or a challenge, and only the next member tells which. The
//! reader therefore goes member by member. `name = value` belongs to the challenge before it, anything else that
//! begins with a token begins a challenge. The end of a header line counts as a comma (§5.3).
//!
//! What is outside the grammar costs as little as possible:
//! - a parameter whose value cannot be read loses its value; its neighbours stay;
//! - a forgotten comma between two parameters is forgiven;
//! - a member that is no parameter and has no readable scheme is left out, and so are the parameters after it, for
//!   nobody knows whose they are;
//! - a quoted string without an end takes the rest of its line with it, and no more;
//! - a challenge that repeats a parameter is void (§11.2, RFC 6750 §3) and not in the result.
//!
//! Each byte is looked at a bounded number of times, and the text is borrowed wherever it holds no escape.

use std::borrow::Cow;

/// The most challenges that are read; what follows is left out.
pub const MAX_CHALLENGES: usize = 64;

/// The most parameters of one challenge; one with more is void, because repeats can no longer be told.
pub const MAX_PARAMS: usize = 64;

/// One challenge: a scheme with a token68 or with parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Challenge<'a> {
    scheme: &'a str,
    content: Content<'a>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Content<'a> {
    Token68(&'a str),
    Params(Vec<Param<'a>>),
    Void,
}

/// A parameter; one whose value cannot be read is kept as a name, so that a repeat of it is still seen.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Param<'a> {
    name: &'a str,
    value: Option<Cow<'a, str>>,
}

impl<'a> Challenge<'a> {
    /// The scheme as written; compare it with [`is_scheme`](Self::is_scheme).
    pub fn scheme(&self) -> &'a str {
        self.scheme
    }

    /// Whether this is the given scheme, in any case (RFC 9110 §11.1).
    pub fn is_scheme(&self, scheme: &str) -> bool {
        self.scheme.eq_ignore_ascii_case(scheme)
    }

    /// The token68, as in `Negotiate YII=` (RFC 9110 §11.2).
    pub fn token68(&self) -> Option<&'a str> {
        match &self.content {
            Content::Token68(text) => Some(text),
            Content::Params(_) | Content::Void => None,
        }
    }

    /// The value of a parameter without its quotes and escapes; the name is taken in any case (RFC 9110 §11.2).
    pub fn param(&self, name: &str) -> Option<&str> {
        self.named().iter().find(|param| param.name.eq_ignore_ascii_case(name))?.value.as_deref()
    }

    /// The readable parameters in order, names as written.
    pub fn params(&self) -> impl Iterator<Item = (&'a str, &str)> {
        self.named().iter().filter_map(|param| Some((param.name, param.value.as_deref()?)))
    }

    fn named(&self) -> &[Param<'a>] {
        match &self.content {
            Content::Params(params) => params,
            Content::Token68(_) | Content::Void => &[],
        }
    }

    /// Adds a parameter. A token68 in front of it can only have been a parameter without a value (`realm=,`), since
    /// the grammar allows nothing after a token68.
    fn add(&mut self, param: Param<'a>) {
        if let Content::Token68(_) = self.content {
            self.content = Content::Params(Vec::new());
        }
        if let Content::Params(params) = &mut self.content {
            if params.len() >= MAX_PARAMS || params.iter().any(|p| p.name.eq_ignore_ascii_case(param.name)) {
                self.content = Content::Void;
            } else {
                params.push(param);
            }
        }
    }
}

/// Reads all values of the header in their order; void challenges are left out.
pub fn parse<'a>(lines: impl IntoIterator<Item = &'a str>) -> Vec<Challenge<'a>> {
    let mut reader = Reader { challenges: Vec::new(), open: false };
    for line in lines {
        reader.line(line);
    }
    reader.challenges.retain(|challenge| challenge.content != Content::Void);
    reader.challenges
}

struct Reader<'a> {
    challenges: Vec<Challenge<'a>>,
    /// Whether a parameter that comes next belongs to the last challenge.
    open: bool,
}

impl<'a> Reader<'a> {
    fn line(&mut self, mut rest: &'a str) {
        loop {
            rest = rest.trim_start_matches([' ', '\t', ',']);
            if rest.is_empty() {
                return;
            }
            rest = self.member(rest);
        }
    }

    /// Reads one member, which is not empty, and gives what follows it.
    fn member(&mut self, text: &'a str) -> &'a str {
        if let Some((name, value)) = param_start(text) {
            return self.param(name, value);
        }
        let (scheme, after) = token(text);
        let content = skip_blanks(after);
        if scheme.is_empty() || (content.len() == after.len() && !at_end(content)) {
            self.open = false;
            return skip_member(text);
        }
        self.begin(scheme);
        if at_end(content) { content } else { self.content(content) }
    }

    /// Reads what follows a scheme: a token68, the first parameter, or something unreadable.
    fn content(&mut self, text: &'a str) -> &'a str {
        if let Some((token68, after)) = token68(text) {
            if let Some(challenge) = self.current() {
                challenge.content = Content::Token68(token68);
            }
            return after;
        }
        match param_start(text) {
            Some((name, value)) => self.param(name, value),
            None => skip_member(text),
        }
    }

    /// Reads a parameter's value, the `=` already passed.
    fn param(&mut self, name: &'a str, text: &'a str) -> &'a str {
        let (value, after) = value(text);
        let next = skip_blanks(after);
        let comma_forgotten = next.len() < after.len() && param_start(next).is_some();
        let ended = at_end(next) || comma_forgotten;
        if let Some(challenge) = self.current() {
            challenge.add(Param { name, value: value.filter(|_| ended) });
        }
        if ended { next } else { skip_member(next) }
    }

    fn begin(&mut self, scheme: &'a str) {
        self.open = self.challenges.len() < MAX_CHALLENGES;
        if self.open {
            self.challenges.push(Challenge { scheme, content: Content::Params(Vec::new()) });
        }
    }

    fn current(&mut self) -> Option<&mut Challenge<'a>> {
        if self.open { self.challenges.last_mut() } else { None }
    }
}

/// `token BWS "=" BWS`: the name, and the text where the value begins.
fn param_start(text: &str) -> Option<(&str, &str)> {
    let (name, after) = token(text);
    let value = skip_blanks(after).strip_prefix('=')?;
    if name.is_empty() { None } else { Some((name, skip_blanks(value))) }
}

/// A token or a quoted string and what follows it; no value if neither is there.
fn value(text: &str) -> (Option<Cow<'_, str>>, &str) {
    match text.strip_prefix('"') {
        None => {
            let (value, after) = token(text);
            ((!value.is_empty()).then_some(Cow::Borrowed(value)), after)
        }
        Some(inner) => match closed(inner) {
            None => (None, ""),
            Some((content, after)) => (unescape(content), after),
        },
    }
}

/// Splits at the closing quote of a quoted string whose opening quote is already passed.
fn closed(inner: &str) -> Option<(&str, &str)> {
    let mut escaped = false;
    let end = inner.bytes().position(|byte| {
        let closes = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        closes
    })?;
    Some((inner.get(..end)?, inner.get(end + 1..)?))
}

/// Takes the escapes out of a quoted string's content; `None` if it holds a control character (RFC 9110 §5.6.4).
fn unescape(content: &str) -> Option<Cow<'_, str>> {
    if content.bytes().any(|byte| byte.is_ascii_control() && byte != b'\t') {
        return None;
    }
    if !content.contains('\\') {
        return Some(Cow::Borrowed(content));
    }
    let mut text = String::with_capacity(content.len());
    let mut chars = content.chars();
    while let Some(char) = chars.next() {
        text.extend(if char == '\\' { chars.next() } else { Some(char) });
    }
    Some(Cow::Owned(text))
}

/// `1*token68char *"="` (RFC 9110 §11.2) that fills its member, and what follows it.
fn token68(text: &str) -> Option<(&str, &str)> {
    let body = prefix(text, |byte| byte.is_ascii_alphanumeric() || b"-._~+/".contains(&byte));
    let padding = prefix(text.get(body..)?, |byte| byte == b'=');
    let (token68, after) = text.split_at_checked(body + padding)?;
    let after = skip_blanks(after);
    (body > 0 && at_end(after)).then_some((token68, after))
}

/// The longest token (RFC 9110 §5.6.2) in front, perhaps empty, and what follows it.
fn token(text: &str) -> (&str, &str) {
    let length = prefix(text, |byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte));
    text.split_at_checked(length).unwrap_or(("", text))
}

/// How many bytes in front are of a kind.
fn prefix(text: &str, kind: impl Fn(u8) -> bool) -> usize {
    text.bytes().take_while(|&byte| kind(byte)).count()
}

fn skip_blanks(text: &str) -> &str {
    text.trim_start_matches([' ', '\t'])
}

fn at_end(text: &str) -> bool {
    text.is_empty() || text.starts_with(',')
}

/// Goes to the next comma that stands outside quotes, or to the end of the line.
fn skip_member(mut text: &str) -> &str {
    loop {
        text = text.trim_start_matches(|char| char != ',' && char != '"');
        match text.strip_prefix('"') {
            None => return text,
            Some(inner) => text = closed(inner).map_or("", |(_, after)| after),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    /// The challenges in a plain notation: `scheme`, `scheme:token68` or `scheme{name=value|name=value}`.
    fn read(lines: &[&str]) -> String {
        let shown = parse(lines.iter().copied()).into_iter().map(|challenge| {
            let params: Vec<String> = challenge.params().map(|(name, value)| format!("{name}={value}")).collect();
            match (challenge.token68(), params.is_empty()) {
                (Some(token68), _) => format!("{}:{token68}", challenge.scheme()),
                (None, true) => challenge.scheme().to_owned(),
                (None, false) => format!("{}{{{}}}", challenge.scheme(), params.join("|")),
            }
        });
        shown.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn what_the_grammar_allows() {
        for (lines, expected) in [
            (&[][..], ""),
            (&["Bearer"], "Bearer"),
            (&["Bearer realm=\"x\""], "Bearer{realm=x}"),
            (&["Bearer error=invalid_token"], "Bearer{error=invalid_token}"),
            (
                &["Bearer realm=\"a, b\", error=\"invalid_token\", Basic realm=\"x\""],
                "Bearer{realm=a, b|error=invalid_token} Basic{realm=x}",
            ),
            (&["Basic realm=\"x\"", "Bearer error=\"y\""], "Basic{realm=x} Bearer{error=y}"),
            (&["Negotiate YII="], "Negotiate:YII="),
            (&["Negotiate YII==, NTLM, Bearer a=b"], "Negotiate:YII== NTLM Bearer{a=b}"),
            (&["Negotiate a/b+c~d._-1  , Basic realm=x"], "Negotiate:a/b+c~d._-1 Basic{realm=x}"),
            (&["NTLM, Negotiate"], "NTLM Negotiate"),
            (&["Bearer realm = \"x\" ,\terror\t=\t\"y\"  "], "Bearer{realm=x|error=y}"),
            (&[",, , Bearer ,,realm=x, , error=y,,"], "Bearer{realm=x|error=y}"),
            (&["Bearer , error=y"], "Bearer{error=y}"),
            (&[r#"Bearer realm="say \"hi\", \\ you\r""#], r#"Bearer{realm=say "hi", \ your}"#),
            (&["Bearer realm=\"\""], "Bearer{realm=}"),
            (&["Bearer realm=\"Grüße, \u{ff}\", a=b"], "Bearer{realm=Grüße, \u{ff}|a=b}"),
            (&["Bearer realm=x", "error=y"], "Bearer{realm=x|error=y}"),
            (&["a b=c, d=e, f g=h, i, j k=="], "a{b=c|d=e} f{g=h} i j:k=="),
        ] {
            assert_eq!(read(lines), expected, "{lines:?}");
        }
    }

    #[test]
    fn what_it_does_not_allow() {
        for (lines, expected) in [
            (&[""][..], ""),
            (&[",,,,", " , ", ","], ""),
            (&["=", "\"", "\\", "\"\\", "@"], ""),
            (&["error=invalid_token"], ""),
            (&["Bearer realm=\"x"], "Bearer"),
            (&["Bearer realm=\"x\\"], "Bearer"),
            (&["Bearer realm=\"x\\\""], "Bearer"),
            (&["Bearer error=y, realm=\"x, Basic realm=z"], "Bearer{error=y}"),
            (&["Bearer realm=\"x", "Basic realm=z"], "Bearer Basic{realm=z}"),
            (&["Bearer realm=\"a\u{0}b\", error=y"], "Bearer{error=y}"),
            (&["Bearer realm=, error=y"], "Bearer{error=y}"),
            (&["Bearer error=y, realm=, a=b"], "Bearer{error=y|a=b}"),
            (&["Bearer realm=https://a.example/, error=y"], "Bearer{error=y}"),
            (&["Bearer realm=two words, error=y"], "Bearer{error=y}"),
            (&["Bearer realm=\"x\"y, error=y"], "Bearer{error=y}"),
            (&["Bearer realm=\"x\" error=\"y\" a=b"], "Bearer{realm=x|error=y|a=b}"),
            (&["Bearer two words, error=y"], "Bearer{error=y}"),
            (&["Bearer \"quoted, text\", error=y"], "Bearer{error=y}"),
            (&["Bearer \\, error=y"], "Bearer{error=y}"),
            (&["Bearer realm=x, Ba@d a=b, error=y, Basic c=d"], "Bearer{realm=x} Basic{c=d}"),
            (&["Bearer realm=x, \u{e9}t\u{e9}, error=y"], "Bearer{realm=x}"),
            (&["Bearer=x, Basic a=b"], "Basic{a=b}"),
        ] {
            assert_eq!(read(lines), expected, "{lines:?}");
        }
    }

    #[test]
    fn a_repeated_parameter_voids_its_challenge_alone() {
        for (lines, expected) in [
            (&["Bearer error=a, error=a"][..], ""),
            (&["Bearer error=a, ERROR=b, Basic realm=x"], "Basic{realm=x}"),
            (&["Basic realm=x, Bearer error=a, x=y, error=b, z=1, DPoP algs=ES256"], "Basic{realm=x} DPoP{algs=ES256}"),
            (&["Bearer error=a", "error=b", "Bearer c=d"], "Bearer{c=d}"),
            (&["Bearer error=a, error=\"b"], ""),
            (&["Bearer error=a, Bearer error=a"], "Bearer{error=a} Bearer{error=a}"),
        ] {
            assert_eq!(read(lines), expected, "{lines:?}");
        }
    }

    #[test]
    fn names_are_compared_in_any_case() {
        let challenges = parse(["bEARER Error=\"Invalid_Token\""]);
        let [challenge] = challenges.as_slice() else { panic!("one challenge") };
        assert!(challenge.is_scheme("Bearer"));
        assert_eq!(challenge.param("eRROR"), Some("Invalid_Token"));
        assert_eq!(challenge.param("scope"), None);
    }

    #[test]
    fn a_value_without_escapes_is_borrowed() {
        for (line, borrowed) in [("B a=b", true), ("B a=\"b c\"", true), ("B a=\"b\\c\"", false)] {
            let challenge = parse([line]).remove(0);
            let value = challenge.named()[0].value.clone().unwrap();
            assert_eq!(matches!(value, Cow::Borrowed(_)), borrowed, "{line}");
        }
    }

    #[test]
    fn the_numbers_are_bounded() {
        let many = vec!["Basic realm=x"; MAX_CHALLENGES + 10].join(", ");
        assert_eq!(parse([many.as_str()]).len(), MAX_CHALLENGES);
        for (count, kept) in [(MAX_PARAMS, 1), (MAX_PARAMS + 1, 0)] {
            let params: Vec<String> = (0..count).map(|i| format!("p{i}=v")).collect();
            assert_eq!(parse([format!("Bearer {}", params.join(",")).as_str()]).len(), kept, "{count}");
        }
    }

    /// Inputs on which a reader that goes back would take hours.
    #[test]
    fn long_nonsense_is_read_in_one_go() {
        for piece in ["\"", "\\", ",", "=", "a", " ", "a ", "a=", "\\\"", "a=\"\\", "a=\" ", "a \"b\",", "a=b ", "é"] {
            let line = format!("Bearer {}", piece.repeat(1 << 18));
            assert!(parse([line.as_str()]).len() <= MAX_CHALLENGES, "{piece}");
        }
    }

    /// One generated challenge: scheme, then a token68 or parameters (value, whether to prefer a bare token).
    #[derive(Clone, Debug)]
    struct Model {
        scheme: String,
        token68: Option<String>,
        params: BTreeMap<String, (String, bool)>,
    }

    impl Model {
        fn render(&self, blank: &str, comma: &str) -> String {
            let params: Vec<String> =
                self.params.iter().map(|(n, (v, bare))| format!("{n}{blank}={blank}{}", rendered(v, *bare))).collect();
            match &self.token68 {
                Some(token68) => format!("{} {token68}", self.scheme),
                None if params.is_empty() => self.scheme.clone(),
                None => format!("{} {}", self.scheme, params.join(comma)),
            }
        }
    }

    fn rendered(value: &str, bare: bool) -> String {
        let is_token = !value.is_empty() && token(value).1.is_empty();
        if bare && is_token {
            value.to_owned()
        } else {
            format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""))
        }
    }

    fn model() -> impl Strategy<Value = Model> {
        let value = prop_oneof!["[a-z_]{1,9}", "[ -~\té\u{ff}\"\\\\,=]{0,12}"];
        let params = prop::collection::btree_map("[a-z][a-z0-9_!.~-]{0,6}", (value, any::<bool>()), 0..6);
        let token68 = prop::option::weighted(0.2, "[A-Za-z0-9._~+/-]{1,12}={0,2}");
        ("[A-Za-z][A-Za-z0-9-]{0,8}", token68, params).prop_map(|(scheme, token68, params)| {
            let params = if token68.is_some() { BTreeMap::new() } else { params };
            Model { scheme, token68, params }
        })
    }

    proptest! {
        #[test]
        fn nothing_panics(lines in prop::collection::vec(any::<String>(), 0..4)) {
            parse(lines.iter().map(String::as_str));
        }

        #[test]
        fn nothing_of_the_right_letters_panics(lines in prop::collection::vec("[aB,=\"\\\\ \té@]{0,40}", 0..4)) {
            for challenge in parse(lines.iter().map(String::as_str)) {
                prop_assert!(!challenge.scheme().is_empty());
            }
        }

        #[test]
        fn a_rendered_list_is_read_back(
            models in prop::collection::vec(model(), 0..6),
            blank in "[ \t]{0,2}",
            comma in prop::sample::select(vec![",", ", ", " ,", "\t, ,, "]),
            one_line in any::<bool>(),
        ) {
            let texts: Vec<String> = models.iter().map(|m| m.render(&blank, comma)).collect();
            let lines = if one_line { vec![texts.join(comma)] } else { texts };
            let read = parse(lines.iter().map(String::as_str));
            prop_assert_eq!(read.len(), models.len());
            for (challenge, model) in read.iter().zip(&models) {
                prop_assert_eq!(challenge.scheme(), &model.scheme);
                prop_assert_eq!(challenge.token68(), model.token68.as_deref());
                let params: Vec<_> = challenge.params().collect();
                let expected: Vec<_> = model.params.iter().map(|(n, (v, _))| (n.as_str(), v.as_str())).collect();
                prop_assert_eq!(params, expected);
            }
        }
    }
}

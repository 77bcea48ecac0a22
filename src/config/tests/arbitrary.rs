//! Any text at all: it is answered, and a secret in it is not repeated.

use proptest::prelude::*;

use super::*;

const PIECES: &[&str] = &[
    "[server]",
    "[[allow]]",
    "[credentials.a]",
    "[store",
    "]",
    "listen",
    "client_secret",
    "grant",
    "keys",
    "=",
    "=",
    " ",
    "\n",
    "\n",
    "\"",
    "\"\"\"",
    "'",
    "\"static\"",
    "\"hunter2\"",
    "{ env = \"S\" }",
    "{",
    "}",
    "[",
    ",",
    ".",
    "1",
    "true",
    "#",
    "ä",
    "\u{feff}",
    "\r",
    "\t",
    "://",
    "@",
    "?",
    "\u{0}",
];

/// Texts that are nearly a configuration.
fn nearly() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(PIECES), 0..40).prop_map(|pieces| pieces.concat())
}

/// How somebody may write a secret `S` under the name `K`.
const FORMS: &[&str] = &[
    "K = \"S\"",
    "K = S",
    "K = \"S",
    "K \"S\"",
    "K: S",
    "K = '''\nS",
    "K = \"\"\"\nS\n\"\"\"",
    "K = { env = \"a S\" }",
    "K = { file = \"S\" }",
    "K = { value = \"S\" }",
    "K = { \"file\" = { x = \"S\" } }",
    "K = [\"S\"]",
    "K.x = \"S\"",
    "client_id = 5 K = \"S\"",
    "\"K\" = \"S\"",
    "x = { K = \"S\", ",
    "[x] K = S",
    "[x]\nK = \"S\"",
    "scopes = [\"a\"\nK = \"S\"",
    "parameters = { K = \"S\" }",
    "base_url = \"http://K:S@host.example\"",
];

proptest! {
    #[test]
    fn any_text_is_answered(text in prop_oneof!["(?s).{0,200}", nearly(), nearly()]) {
        let environment = |_: &str| Some("secret".to_owned());
        match parse("bearerd.toml", &text, &environment, Path::new("/nowhere")) {
            Ok(config) => prop_assert!(config.warnings.iter().all(|warning| !warning.render(true).is_empty())),
            Err(errors) => prop_assert!(errors.count() > 0 && !errors.render(true).is_empty()),
        }
    }

    #[test]
    fn a_secret_in_the_file_is_never_shown(
        secret in "[A-Z0-9][A-Z0-9+/]{4}[a-z0-9+/]{5,40}",
        key in prop::sample::select(&["client_secret", "refresh_token", "client_key", "secret", "password", "sercet"][..]),
        form in prop::sample::select(FORMS),
        grant in prop::sample::select(&["client_credentials", "refresh_token", "static", "what"][..]),
    ) {
        let line = form.replace('K', key).replace('S', &secret);
        let text = granted(grant, &format!("client_id = \"me\"\n{line}\nscopes = 5"));
        let errors = parse("bearerd.toml", &text, &|_| None, Path::new("/nowhere")).unwrap_err();
        for shown in [errors.render(false), errors.render(true), format!("{errors:?}")] {
            prop_assert!(!shown.contains(&secret), "{}", shown);
        }
    }
}

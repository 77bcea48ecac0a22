//! Bad credentials: every rule has a case.

use super::{mistakes::each_is_reported, *};
use crate::grant::rotation::RotationProfile;

#[test]
fn credentials() {
    each_is_reported(&[
        ("[credentials.A]", "this cannot be a credential's name"),
        ("[credentials]\na = \"hunter2\"", "`credentials.a` must be a table"),
        ("credentials = \"hunter2\"", "write [credentials.NAME]"),
        ("[credentials.a]", "add grant = one of \"client_credentials\""),
        (&granted("token_exchange", ""), "is a word that is not known here"),
        (&credential("client_auth = \"mtls\""), "is a word that is not known here"),
        (&credential("client_auth = \"none\""), "this goes with client_auth = \"client_secret_basic\""),
        (&credential("refresh_token = { env = \"S\" }"), "this goes with grant = \"refresh_token\""),
        (&credential("refresh_token = \"hunter2\""), "this goes with grant = \"refresh_token\""),
        (&credential("scheme = \"basic\""), "this goes with grant = \"static\""),
        (&credential("client_key_id = \"a\""), "client_auth = \"private_key_jwt\", and that is absent here"),
        (&credential("client_secert = \"hunter2\""), "did you mean `client_secret`?"),
        (&credential("base_url = \"http://a.example/\""), "or allow_http = true in this credential"),
        (&credential("base_url = \"https://a.example/?key=hunter2\""), "has a query"),
        (&credential("base_url = \"https://me:hunter2@a.example/\""), "holds a user name or password"),
        (&credential("base_url = \"https://a.example/#b\""), "has a fragment"),
        (&credential("base_url = \"/v1\""), "is not an absolute URL"),
        (&credential("scopes = [\"a b\"]"), "a scope has 1 to 256"),
        (&credential("scopes = \"a\""), "must be a list"),
        (&credential("resources = [\"a\"]"), "a resource is an absolute URI"),
        (&credential("rejected_when = [\"200\"]"), "a status below 400"),
        (&credential("parameters = { client_secret = \"hunter2\" }"), "names a parameter that bearerd sets itself"),
        (&credential("parameters = { audience = 5 }"), "must be a string"),
        (&credential("default_lifetime = \"\""), "is not a duration"),
        (&credential("issuer = \"ftp://a\""), "is not an https URL"),
    ]);
}

#[test]
fn secrets() {
    let oauth = "token_url = \"https://a.example/token\"\nclient_id = \"me\"";
    let plain = |lines: &str| granted("client_credentials", &format!("{oauth}\n{lines}"));
    let secret = |reference: &str| plain(&format!("client_secret = {reference}"));
    let key = |lines: &str| plain(&format!("client_auth = \"private_key_jwt\"\nclient_key = {lines}"));
    each_is_reported(&[
        (&plain(""), "`credentials.a.client_secret` is missing"),
        (&secret("\"hunter2\""), "is a secret and must not stand in this file"),
        (&secret("{ value = \"hunter2\", env = \"S\" }"), "known here: file, env"),
        (&secret("{ env = \"S\", file = \"secrets/empty\" }"), "does not go with file"),
        (&secret("{}"), "add file = "),
        (&secret("[]"), "is an empty list"),
        (&secret("[{ env = \"S\" }, \"hunter2\"]"), "holds a secret, which must not stand in this file"),
        (&secret("[{ env = \"S\" }, { env = \"NOT_SET\" }]"), "names a variable that is not set"),
        (&key("[{ env = \"KEY\" }]"), "is a secret and must not stand in this file"),
        (&secret("{ file = \"secrets/none\" }"), "entity not found"),
        (&secret("{ file = \"secrets/empty\" }"), "names an empty file"),
        (&secret("{ file = \"hunter2\" }"), "names a file that cannot be read"),
        (&secret("{ file = \"secrets\" }"), "is a directory"),
        (&secret("{ env = \"NOT_SET\" }"), "names a variable that is not set"),
        (&secret("{ env = \"hunter2\" }"), "names a variable that is not set"),
        (&secret("{ env = \"hunter2!\" }"), "is no name of a variable"),
        (&secret("{ env = \"EMPTY\" }"), "names an empty variable"),
        (&key("{ env = \"S\" }\nclient_key_algorithm = \"ES256\""), "is not an unencrypted private key"),
        (&key("{ env = \"KEY\" }"), "that fits the algorithm"),
        (&key("{ env = \"KEY\" }\nclient_key_algorithm = \"HS256\""), "is a word that is not known here"),
    ]);
}

#[test]
fn assertions_and_static_secrets() {
    let jwt = |lines: &str| granted("jwt_bearer", &format!("{JWT}{lines}"));
    let fixed = |lines: &str| granted("static", lines);
    each_is_reported(&[
        (&jwt(""), "`credentials.a.client_id` is missing"),
        (&jwt("client_id = \"me\"\nclient_secret = { env = \"S\" }"), "and that is absent here"),
        (
            &jwt("client_auth = \"client_secret_post\"\nassertion_issuer = \"a\"\nclient_secret = { env = \"S\" }"),
            "`credentials.a.client_id` is missing",
        ),
        (&fixed(""), "add scheme = one of \"api_key\""),
        (&fixed("scheme = \"api_key\""), "add header = \"X-Api-Key\""),
        (&fixed("scheme = \"api_key\"\nheader = \"a b\""), "is not a header's name"),
        (&fixed("scheme = \"api_key\"\nheader = \"Host\""), "the connection itself needs"),
        (&fixed("scheme = \"basic\""), "add username"),
        (&fixed("scheme = \"basic\"\nusername = \"a:b\""), "has a ':'"),
        (&fixed("scheme = \"bearer\"\nusername = \"a\""), "this goes with scheme = \"basic\""),
        (&fixed("scheme = \"bearer\"\nheader = \"A\""), "this goes with scheme = \"api_key\""),
        (&fixed("scheme = \"bearer\"\nsecret = { env = \"TWO_LINES\" }"), "refers to a text that fits no header"),
        (&fixed("scheme = \"bearer\"\ntoken_url = \"https://a\""), "this goes with grant = \"client_credentials\""),
        (&fixed("scheme = \"bearer\"\nclient_secret = \"hunter2\""), "this goes with grant = \"client_credentials\""),
    ]);
}

const REFRESH: &str = "token_url = \"https://a.example/token\"\nclient_id = \"me\"\nclient_auth = \"none\"\n";

#[test]
fn a_provider_by_name_says_what_is_not_written() {
    let seconds = |seconds| RotationProfile::Grace { window: Duration::from_secs(seconds) };
    let place = Place::new();
    for (lines, expected) in [
        ("", RotationProfile::Strict),
        ("rotation = \"strict\"", RotationProfile::Strict),
        ("rotation = \"old_survives\"", RotationProfile::OldSurvives),
        ("rotation = \"none\"", RotationProfile::None),
        ("rotation = \"grace\"\nrotation_grace = \"45s\"", seconds(45)),
        ("provider = \"okta\"", seconds(30)),
        ("provider = \"okta\"\nrotation = \"grace\"", seconds(30)),
        ("provider = \"okta\"\nrotation_grace = \"10s\"", seconds(10)),
        ("provider = \"okta\"\nrotation = \"none\"", RotationProfile::None),
        ("provider = \"auth0\"\nrotation = \"grace\"\nrotation_grace = \"20s\"", seconds(20)),
        ("provider = \"atlassian\"", seconds(600)),
        ("provider = \"xero\"", seconds(1800)),
        ("provider = \"entra\"", RotationProfile::OldSurvives),
        ("provider = \"google\"", RotationProfile::None),
        ("provider = \"github\"", RotationProfile::Strict),
        ("provider = \"hydra\"", RotationProfile::Strict),
        ("provider = \"node-oidc-provider\"", RotationProfile::Strict),
        ("provider = \"salesforce\"", RotationProfile::Strict),
        ("provider = \"slack\"", RotationProfile::Strict),
    ] {
        let config = place.parse(&granted("refresh_token", &format!("{REFRESH}{lines}")));
        let config = config.unwrap_or_else(|errors| panic!("{lines}: {errors}"));
        assert_eq!(config.credentials.into_values().next().unwrap().rotation, expected, "{lines}");
    }
}

#[test]
fn rotations() {
    let refresh = |lines: &str| granted("refresh_token", &format!("{REFRESH}{lines}"));
    let needs_grace = "this goes with rotation = \"grace\"";
    each_is_reported(&[
        (&refresh("rotation = \"lax\""), "one of \"strict\", \"grace\", \"old_survives\" or \"none\""),
        (&refresh("rotation = \"grace\""), "add rotation_grace = \"30s\""),
        (&refresh("rotation = \"grace\"\nrotation_grace = \"0s\""), "is no time at all"),
        (&refresh("rotation = \"strict\"\nrotation_grace = \"30s\""), needs_grace),
        (&refresh("rotation_grace = \"30s\""), "and that is absent here"),
        (&refresh("provider = \"slack\"\nrotation_grace = \"30s\""), needs_grace),
        (&refresh("provider = \"google\"\nrotation = \"grace\""), "add rotation_grace"),
        (&refresh("provider = \"octa\""), "did you mean \"okta\"? It is one of \"atlassian\", \"auth0\""),
        (&refresh("provider = \"acme\""), "\"salesforce\", \"slack\" or \"xero\""),
        (&refresh("provider = 5"), "must be a string"),
        (&credential("rotation = \"grace\""), "this goes with grant = \"refresh_token\""),
        (&credential("provider = \"okta\""), "this goes with grant = \"refresh_token\""),
    ]);
}

#[test]
fn http_is_taken_where_it_is_asked_for_or_local() {
    for lines in ["allow_http = true\nbase_url = \"http://a.example/\"", "base_url = \"http://127.0.0.1:8080/\""] {
        assert_eq!(Place::new().report(&credential(lines)), "");
    }
}

//! Bad credentials: every rule has a case.

use super::{mistakes::each_is_reported, *};
use crate::{broker::StoreOutage, grant::rotation::RotationProfile, http::Reach};

#[test]
fn credentials() {
    each_is_reported(&[
        ("[credentials.A]", "this cannot be a credential's name"),
        ("[credentials]\na = \"hunter2\"", "`credentials.a` must be a table"),
        ("credentials = \"hunter2\"", "write [credentials.NAME]"),
        ("[credentials.a]", "add grant = one of \"client_credentials\""),
        (&granted("token_exchange", ""), "is not a recognized value"),
        (&credential("client_auth = \"mtls\""), "is not a recognized value"),
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
        (&credential("allow_private_addresses = 1"), "must be a boolean"),
        (&credential("methods = [\"get\"]"), "write it in capitals"),
        (&credential("formerly = [\"https://a.example/old\"]"), "this goes with grant = \"refresh_token\""),
        (&credential("methods = [\"CONNECT\"]"), "are not sent"),
        (&credential("methods = []"), "allows nothing"),
        (&credential("methods = \"GET\""), "must be a list"),
        (&credential("deny_request_headers = [\"x y\"]"), "write a header's name"),
        (&credential("deny_response_headers = [\"*-id\"]"), "write a header's name"),
        (&credential("max_request_bytes = -1"), "is out of range"),
        (&credential("scopes = [\"a b\"]"), "a scope has 1 to 256"),
        (&credential("scopes = \"a\""), "must be a list"),
        (&credential("resources = [\"a\"]"), "a resource is an absolute URI"),
        (&credential("rejected_when = [\"200\"]"), "a status below 400"),
        (&credential("parameters = { client_secret = \"hunter2\" }"), "names a parameter that bearerd sets itself"),
        (&credential("parameters = { audience = 5 }"), "must be a string"),
        (&credential("default_lifetime = \"\""), "is not a duration"),
        (&credential("issuer = \"ftp://a\""), "is not an https URL"),
        (&credential("issuer = \"https://{tenant}.example\""), "has a place that is not filled in"),
        (&credential("base_url = \"https://a.example/v 1\""), "has a blank"),
        (&credential("base_url = \"https:///v1\""), "has another host than it seems"),
        (&credential("").replace("/token", "/{subject}/token"), "nothing is put into it here"),
        (&credential("").replace("\"me\"", "\"me \""), "begins or ends with a blank"),
        (&granted("authorization_code", ""), "which `bearerd grant import` brings in. It is one of"),
        (&credential("client_auth = \"post\""), "did you mean \"client_secret_post\"?"),
        (&credential("token_endpoint = \"x\""), "did you mean `token_url`?"),
        (&credential("listen = \"x\""), "`listen` belongs in [server]"),
        (&credential("nonsense = \"x\""), "more, which bearerd.sample.toml explains"),
        (
            &credential("[credentials.a.prod]\ngrant = \"static\""),
            "dots in a name need quotes: [credentials.\"a.prod\"]",
        ),
        ("[credentials.crm.prod]\ngrant = \"static\"", "dots in a name need quotes: [credentials.\"crm.prod\"]"),
        ("grant = \"static\"", "`grant` belongs in [credentials.NAME]"),
    ]);
}

/// N2: it is needed only until the store has a grant.
#[test]
fn a_first_refresh_token_may_be_missing_and_nothing_else_about_it_may_be_wrong() {
    let refresh = |reference: &str| granted("refresh_token", &format!("{REFRESH}refresh_token = {reference}"));
    for (reference, what) in [
        ("{ env = \"NOT_SET\" }", "names a variable that is not set"),
        ("{ env = \"EMPTY\" }", "names an empty variable"),
        ("{ file = \"secrets/none\" }", "names a file that does not exist"),
        ("{ file = \"secrets/empty\" }", "names an empty file"),
    ] {
        let config = Place::new().parse(&refresh(reference)).unwrap();
        let warnings: Vec<&str> = config.warnings.iter().map(Warning::title).collect();
        let told = format!("`credentials.a.refresh_token` {what}: the grant in the store is used");
        assert!(warnings.iter().any(|warning| warning.starts_with(&told)), "{warnings:?}");
    }
    each_is_reported(&[
        (&refresh("\"hunter2\""), "is a secret and must not stand in this file"),
        (&refresh("{ env = \"S\", file = \"secrets/none\" }"), "does not go with file"),
        (&refresh("{ env = \"1\" }"), "is not the name of a variable"),
        (&refresh("{ file = \"secrets\" }"), "names a file that cannot be read"),
        (&refresh("{}"), "add file = "),
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
        (
            &secret("{ file = \"secrets/none\" }"),
            "there is no such file; a relative path begins at the directory of the configuration file",
        ),
        (&secret("{ file = \"secrets/empty\" }"), "names an empty file"),
        (&secret("{ file = \"hunter2\" }"), "names a file that cannot be read"),
        (&secret("{ file = \"secrets\" }"), "is a directory"),
        (&secret("{ env = \"NOT_SET\" }"), "names a variable that is not set"),
        (&secret("{ env = \"hunter2\" }"), "names a variable that is not set"),
        (&secret("{ env = \"hunter2!\" }"), "is not the name of a variable"),
        (&secret("{ env = \"EMPTY\" }"), "names an empty variable"),
        (&secret("{ env = \"$S\" }"), "without \"$\""),
        (&secret("{ env = \"TWO_LINES\" }"), "refers to more than one line"),
        (&secret("{ env = \"BLANK\" }"), "begins or ends with a blank"),
        (&secret("[{ env = \"S\" }, { env = \"BLANK\" }]"), "begins or ends with a blank"),
        (&secret("{ env = \"BREAKS\" }"), "ends in several line breaks"),
        (&secret("{ env = \"TAB\" }"), "refers to a text with control characters"),
        (&secret("{ env = \"MARK\" }"), "a byte order mark in front"),
        (&secret("{ file = \"~/secret\" }"), "\"~\" is not expanded here"),
        (&secret("{ file = \"/no/such/secret\" }"), "write the path of a file that holds the secret"),
        (&key("{ env = \"S\" }\nclient_key_algorithm = \"ES256\""), "is not an unencrypted private key"),
        (&key("{ env = \"KEY\" }"), "that fits the algorithm"),
        (&key("{ file = \"secrets/tls.crt\" }"), "this is a certificate: put its private key there"),
        (&key("{ file = \"secrets/kubernetes-jwks.json\" }"), "this is JSON: put the PEM there"),
        (&key("{ env = \"KEY\" }\nclient_key_algorithm = \"HS256\""), "is not a recognized value"),
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
        (&fixed("scheme = \"bearer\"\nsecret = { env = \"SPACED\" }"), "refers to a text that fits no header"),
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
        assert_eq!(config.credentials.into_values().next().unwrap().profile.rotation, expected, "{lines}");
    }
}

/// P-K3: each provider's way to say that a refresh token is dead can be written down.
#[test]
fn every_dialect_of_refusals_can_be_said() {
    use crate::grant::answer::{self, Answer, Body, Reading, RefusalError};
    let place = Place::new();
    for (rule, status, body) in [
        (
            "403 unauthorized_client",
            403,
            r#"{"error":"unauthorized_client","error_description":"refresh_token is invalid"}"#,
        ),
        (
            "400 body ~ \"resource\":\"RefreshToken\"",
            400,
            r#"{"message":"Bad Request","errors":[{"resource":"RefreshToken","field":"refresh_token","code":"invalid"}]}"#,
        ),
        (
            "400 body ~ \"errorType\":\"invalid_grant\"",
            400,
            r#"{"errors":[{"errorType":"invalid_grant","message":"x"}]}"#,
        ),
        ("400 body ~ BAD_REFRESH_TOKEN", 400, r#"{"status":"BAD_REFRESH_TOKEN","message":"missing"}"#),
        ("200 invalid_code", 200, r#"{"error":"invalid_code"}"#),
        ("500 invalid_grant", 500, r#"{"error":"invalid_grant"}"#),
    ] {
        let lines = format!("refused_when = {{ dead = ['{rule}'] }}");
        let config = place
            .parse(&granted("refresh_token", &format!("{REFRESH}{lines}")))
            .map_err(|errors| panic!("{errors}"))
            .unwrap();
        let profile = config.credentials.into_values().next().unwrap().profile;
        let read = |profile| {
            let reading = Reading::of(&"https://as.example/token".parse().unwrap(), profile, Vec::new());
            let (headers, now) = (http::HeaderMap::new(), std::time::SystemTime::UNIX_EPOCH);
            match answer::read(&reading, status, &headers, Body::whole(body.as_bytes()), now) {
                Answer::Refused(refusal) => Some(refusal.error),
                Answer::Granted(_) | Answer::Unusable(_) => None,
            }
        };
        assert_eq!(read(&profile), Some(RefusalError::InvalidGrant), "{body}");
        assert_ne!(read(&Default::default()), Some(RefusalError::InvalidGrant), "{body}");
    }
}

#[test]
fn wrong_refusals_and_token_types_are_named() {
    for (lines, right) in [
        ("refused_when = { dead = [\"invalid_grant\"] }", "a rule starts with the answer's status"),
        ("refused_when = { dead = [\"200\"] }", "a status below 400 needs an error word"),
        ("refused_when = { gone = [\"400\"] }", "known here: dead, retry, rate_limited, request"),
        ("token_types = [\"DPoP\"]", "such tokens need a proof of a key"),
        ("token_types = [\"\"]", "write a text"),
    ] {
        let errors =
            Place::new().parse(&granted("refresh_token", &format!("{REFRESH}{lines}"))).unwrap_err().to_string();
        assert!(errors.contains(right), "{lines}: {errors}");
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
    ]);
}

#[test]
fn only_what_may_be_asked_twice_is_served_without_the_store() {
    let outage = "store_outage = \"serve\"";
    let served = |text: &str| {
        let config = Place::new().parse(text).unwrap_or_else(|errors| panic!("{text}: {errors}"));
        config.credentials.into_values().next().unwrap().store_outage
    };
    assert_eq!(served(&credential("")), StoreOutage::Fail);
    assert_eq!(served(&credential("store_outage = \"fail\"")), StoreOutage::Fail);
    assert_eq!(served(&credential(outage)), StoreOutage::Serve);
    let right = "this goes with grant = \"client_credentials\" or \"jwt_bearer\"";
    each_is_reported(&[
        (&granted("refresh_token", &format!("{REFRESH}{outage}")), right),
        (&granted("static", &format!("scheme = \"bearer\"\n{outage}")), right),
        (&credential("store_outage = \"ignore\""), "one of \"fail\" or \"serve\""),
    ]);
}

#[test]
fn http_is_taken_where_it_is_asked_for_or_local() {
    for lines in ["allow_http = true\nbase_url = \"http://a.example/\"", "base_url = \"http://127.0.0.1:8080/\""] {
        assert_eq!(Place::new().report(&credential(lines)), "");
    }
}

/// The abuse cases E5 and E6 of `docs/security.md`, as far as they begin in the file.
#[test]
fn e005_e006_a_base_url_is_written_as_what_it_is() {
    for (url, host) in [
        ("https://0x7f.1/", "127.0.0.1"),
        ("https://2130706433/", "127.0.0.1"),
        ("https://017700000001/", "127.0.0.1"),
        ("https://127.1/", "127.0.0.1"),
        ("https://①②⑦.0.0.1/", "127.0.0.1"),
        ("https://[0:0::1]/", "[::1]"),
        ("https://[::ffff:127.0.0.1]/", "[::ffff:7f00:1]"),
        ("https://ⓔxample.com/", "example.com"),
        ("https://bücher.example/", "xn--bcher-kva.example"),
        ("https://api.example%2eevil.example/", "api.example.evil.example"),
        ("https:\\\\\\\\api.example/", "api.example"),
        ("https:/api.example/", "api.example"),
    ] {
        let text = credential(&format!("base_url = \"{url}\""));
        let errors = Place::new().parse(&text).unwrap_err().render(false);
        assert!(errors.contains("has another host than it seems"), "{url}: {errors}");
        assert!(errors.contains(&format!("write the host as \"{host}\"")), "{url}: {errors}");
    }
    for never in [
        "169.254.169.254",
        "0.0.0.0",
        "224.0.0.1",
        "255.255.255.255",
        "168.63.129.16",
        "[fe80::1]",
        "[fd00:ec2::254]",
        "[::]",
    ] {
        let text = credential(&format!("base_url = \"https://{never}/\""));
        let errors = Place::new().parse(&text).unwrap_err().render(false);
        assert!(errors.contains("an address that is never called"), "{never}: {errors}");
    }
    for good in [
        "https://127.0.0.1/",
        "https://10.0.0.1:8443/v1",
        "https://[::1]/",
        "https://[::ffff:7f00:1]/",
        "https://API.Example./",
        "http://localhost/",
        "https://xn--bcher-kva.example/",
    ] {
        let text = credential(&format!("base_url = \"{good}\""));
        assert!(Place::new().parse(&text).is_ok(), "{good}");
    }
}

#[test]
fn a_fence_is_read() {
    let read = |lines: &str| {
        let config = Place::new().parse(&credential(lines)).unwrap_or_else(|errors| panic!("{}", errors.render(false)));
        config.credentials.into_values().next().unwrap().fence
    };
    let default = read("");
    assert_eq!((default.reach, default.methods.as_deref()), (Reach::Public, None));
    assert_eq!(default.max_request_bytes, 4 * 1024 * 1024);
    assert!(!default.deny_request_headers.contain("a") && !default.deny_response_headers.contain("a"));
    let fence = read(
        "allow_private_addresses = true\nmethods = [\"GET\", \"PROPFIND\"]\nmax_request_bytes = 0\n\
         deny_request_headers = [\"A\"]\ndeny_response_headers = [\"b*\"]",
    );
    assert_eq!(fence.reach, Reach::Private);
    assert_eq!(fence.methods.unwrap().iter().map(http::Method::as_str).collect::<Vec<_>>(), ["GET", "PROPFIND"]);
    assert_eq!(fence.max_request_bytes, 0);
    assert!(fence.deny_request_headers.contain("a") && fence.deny_response_headers.contain("bc"));
}

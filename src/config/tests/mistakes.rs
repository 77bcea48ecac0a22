//! Bad files: every rule has a case, all mistakes come at once, and no report holds a secret.

use super::*;

const SIX_MISTAKES: &str = r#"[server]
lisen = "127.0.0.1:7443"
shutdown_timeout = 20

[credentials.salesforce]
grant = "refresh-token"
token_url = "https://login.example/token"

[credentials.sap]
grant = "client_credentials"
token_url = "https://sap.example/token"
client_auth = "none"
client_id = "me"
client_secret = { env = "S" }
rejected_when = ["401 invalid_token", "sometimes"]

[credentials.weather]
grant = "static"
scheme = "bearer"
secret = "hunter2"
"#;

const SIX_REPORTS: &str = r#"error: there is no such setting in `server`
 --> bearerd.toml:2:1
  |
2 | lisen = ****************
  | ^^^^^ did you mean `listen`?

error: `server.shutdown_timeout` must be a duration, and this is an integer
 --> bearerd.toml:3:20
  |
3 | shutdown_timeout = 20
  |                    ^^ write a number with its unit, for example "30s", "5m" or "1h 30m"

error: `credentials.salesforce.grant` is not a recognized value
 --> bearerd.toml:6:9
  |
6 | grant = "refresh-token"
  |         ^^^^^^^^^^^^^^^ did you mean "refresh_token"? It is one of "client_credentials", "refresh_token", "jwt_bearer" or "static"

error: `credentials.sap.client_secret` does not go with client_auth = "none"
  --> bearerd.toml:14:17
   |
12 | client_auth = "none"
   |               ------ chosen here
13 | client_id = "me"
14 | client_secret = { env = *** }
   |                 ^^^^^^^^^^^^^ this goes with client_auth = "client_secret_basic" or "client_secret_post"

error: `credentials.sap.rejected_when` has a bad item
  --> bearerd.toml:15:39
   |
15 | rejected_when = ["401 invalid_token", "sometimes"]
   |                                       ^^^^^^^^^^^ a rule starts with the answer's status, 100 to 599, as in "401 invalid_token"

error: `credentials.weather.secret` is a secret and must not stand in this file
  --> bearerd.toml:20:10
   |
20 | secret = *********
   |          ^^^^^^^^^ write { file = "/path" } or { env = "NAME" }
"#;

#[test]
fn six_mistakes_are_six_located_errors() {
    let errors = Place::new().parse(SIX_MISTAKES).unwrap_err();
    assert_eq!(errors.count(), 6);
    assert_eq!(errors.render(false) + "\n", SIX_REPORTS);
}

/// Takes pairs of a file with one mistake and what the report about it says.
pub(super) fn each_is_reported(cases: &[(&str, &str)]) {
    let place = Place::new();
    for (text, says) in cases {
        let errors = place.parse(text).expect_err(text);
        let report = errors.render(false);
        assert_eq!(errors.count(), 1, "{text}\n{report}");
        assert!(report.contains(says), "{text}\n{report}\nlacks {says}");
        assert!(report.contains(" --> bearerd.toml:"), "{text}\n{report}");
        assert!(!report.contains("hunter2"), "{report}");
    }
}

#[test]
fn servers() {
    let open = |lines: &str| format!("[server]\nlisten = \"0.0.0.0:7443\"\n{lines}");
    let tls = |lines: &str| format!("[server.tls]\n{lines}");
    let (certificate, key) = ("certificate = { file = \"secrets/tls.crt\" }", "key = { file = \"secrets/tls.key\" }");
    each_is_reported(&[
        ("[server]\nlisten = \"localhost:7443\"", "write an IP address and a port"),
        (
            &open("[[allow]]\ncaller = \"a\"\ncredentials = [\"*\"]\nactions = [\"get\"]"),
            "add [server.tls], or plaintext = true",
        ),
        (&open("plaintext = true"), "there is no [[allow]]"),
        (&open(&tls(&format!("{certificate}\n{key}"))), "there is no [[allow]]"),
        ("[server]\nadmin_listen = \"127.0.0.1:7443\"", "is the same address as listen"),
        ("[server]\nmax_message_bytes = 1", "write a whole number from 4096 to"),
        ("[server]\nreflection = \"yes\"", "write true or false"),
        ("[server]\nshutdown_timeout = \"0s\"", "is no time at all"),
        ("[server]\ntls = \"hunter2\"", "`server.tls` must be a table"),
        (&tls(&format!("certificate = {{ env = \"S\" }}\n{key}")), "refers to no certificate"),
        (&tls(&format!("{certificate}\nkey = {{ env = \"S\" }}")), "refers to no private key"),
        (&tls(certificate), "`server.tls.key` is missing"),
        (
            &format!("[server]\nplaintext = true\n{}", tls(&format!("{certificate}\n{key}"))),
            "does not go with [server.tls]",
        ),
        (&tls(&format!("{certificate}\n{key}\ntrust_domain = \"acme\"")), "is there without client_ca"),
        (&tls(&format!("{certificate}\n{key}\n{CLIENT_CA}\n{ROW}")), "`server.tls.trust_domain` is missing"),
        (&tls(&format!("{certificate}\n{key}\n{CLIENT_CA}\ntrust_domain = \"Acme\"\n{ROW}")), "is not a trust domain"),
        (
            &tls(&format!("{certificate}\n{key}\n{CLIENT_CA}\ntrust_domain = \"acme\"")),
            "tells callers apart, and there is no [[allow]]",
        ),
        (
            &tls(&format!("{certificate}\n{key}\nclient_ca = {{ env = \"S\" }}\ntrust_domain = \"acme\"\n{ROW}")),
            "refers to no certificate",
        ),
        ("[server]\nunix_socket = \"a\"", "tells its callers apart, and there is no [[allow]]"),
        (
            &format!("{ROW}\n[server]\nunix_socket = \"a\"\n{}", tls(&format!("{certificate}\n{key}"))),
            "a Unix-domain socket is not encrypted",
        ),
        ("[server]\nmax_connections = 0", "is out of range"),
        ("[server]\nmax_connection_age = \"0s\"", "is no time at all"),
        ("[server]\nmax_concurrent_streams = 0", "is out of range"),
        ("[sever]\nlisten = \"127.0.0.1:1\"", "did you mean `server`?"),
        ("[telemetry]\na = \"hunter2\"", "known here: server, store, seal"),
        ("server = 1", "`server` must be a table"),
    ]);
}

const CLIENT_CA: &str = "client_ca = { file = \"secrets/client-ca.crt\" }";

const ROW: &str = "[[allow]]\ncaller = \"a\"\ncredentials = [\"*\"]\nactions = [\"get\"]";

#[test]
fn identities() {
    let kubernetes = |lines: &str| format!("{ROW}\n[identity.kubernetes]\nissuer = \"i\"\naudience = \"b\"\n{lines}");
    let jwks = "jwks = { file = \"secrets/kubernetes-jwks.json\" }";
    let token = "token = { file = \"secrets/kubernetes-token\" }";
    let row = |sha256: &str| format!("[[identity.token]]\nname = \"ci\"\nsha256 = \"{sha256}\"\n");
    let hash = "ab".repeat(32);
    let of_test = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
    each_is_reported(&[
        (&format!("{ROW}\n{}", row(of_test)), "is the hash of a well-known word"),
        (&kubernetes(""), "`identity.kubernetes.jwks` is missing"),
        (&kubernetes(jwks).replace("issuer = \"i\"\n", ""), "`identity.kubernetes.issuer` is missing"),
        (&kubernetes(jwks).replace("audience = \"b\"\n", ""), "`identity.kubernetes.audience` is missing"),
        (&kubernetes("jwks = { env = \"S\" }"), "holds no keys: this is no JSON Web Key Set"),
        (&kubernetes("jwks_url = \"http://a.example/jwks\""), "would send secrets unencrypted"),
        (&kubernetes(&format!("{jwks}\njwks_url = \"https://a.example/jwks\"")), "does not go with jwks"),
        (&kubernetes("token_review = true"), "`identity.kubernetes.token` is missing"),
        (&kubernetes(&format!("{jwks}\n{token}")), "is there, but no server is asked"),
        (&kubernetes(&format!("token_review = true\n{token}\nca = {{ env = \"S\" }}")), "refers to no certificate"),
        (&kubernetes("token_review = true\ntoken = \"hunter2\""), "must not stand in this file"),
        (&format!("{ROW}\n{}", row("hunter2")), "is not a SHA-256 hash"),
        (&format!("{ROW}\n{}", row(&"xy".repeat(32))), "is not a SHA-256 hash"),
        (&format!("{ROW}\n{}", row(&hash).replace("ci", "a b")), "is not a token's name"),
        (&format!("{ROW}\n{0}{0}", row(&hash)), "is there twice, so it is uncertain whose token it is"),
        (&row(&hash), "`identity` tells callers apart, and there is no [[allow]]"),
    ]);
}

const CA: &str = "ca = { file = \"secrets/tls.crt\" }";

fn redis(lines: &str) -> String {
    format!("[store]\nkind = \"redis\"\n{lines}\n[seal]\nkeys = [{{ id = \"a\", env = \"SEAL_2026_05\" }}]")
}

#[test]
fn case_44_a_redis_that_is_open_to_others_is_refused() {
    each_is_reported(&[
        (&redis("url = \"redis://r\""), "add a password, write rediss://, or allow_insecure = true"),
        (&redis("url = \"redis://me@r\""), "with neither a password nor TLS"),
        (&redis("url = \"redis+sentinel://localhost,s2/m\""), "with neither a password nor TLS"),
        // Both of these run here, and say where the data is.
        (&redis("url = \"redis+sentinel://localhost/m\""), "with neither a password nor TLS"),
        (&redis("url = \"redis+cluster://127.0.0.1:7000\""), "with neither a password nor TLS"),
        (&redis("url = \"redis+cluster://10.0.0.1\"\nallow_insecure = false"), "with neither a password nor TLS"),
    ]);
}

#[test]
fn stores() {
    each_is_reported(&[
        ("[store]\nkind = \"reddis\"", "did you mean \"redis\"? It is one of \"embedded\" or \"redis\""),
        ("[store]\nurl = \"redis://localhost\"", "this goes with kind = \"redis\", and that is absent here"),
        ("[store]\nkind = \"redis\"\nurl = \"redis://localhost\"", "there is no key to encrypt what is kept there"),
        (&redis(""), "add url = \"redis://host:6379\""),
        (&redis("path = \"a\"\nurl = \"redis://localhost\""), "this goes with kind = \"embedded\""),
        (&redis("url = \"somewhere\""), "is not a URL"),
        (&redis("url = \"http://r\""), "known are redis://, redis+sentinel:// and redis+cluster://"),
        (&redis("url = \"redis://me:hunter2@r/x\""), "has a path that is no database number"),
        (&redis("url = \"redis:hunter2@r\""), "names no host"),
        (&redis("url = \"redis://r?password=hunter2\""), "has a query or fragment"),
        (&redis("url = \"redis://me:hunter2@a,b\""), "several hosts go with redis+sentinel:// or redis+cluster://"),
        (&redis("url = \"redis+sentinel://:hunter2@a,b\""), "does not name the primary"),
        (&redis("url = \"redis+sentinel://:hunter2@a,b/my%20primary\""), "letters, digits, '.', '-' and '_'"),
        (&redis("url = \"rediss+sentinel://a/mymaster/x\""), "has a path that is no database number"),
        (&redis("url = \"redis+cluster://:hunter2@a,,b\""), "names no host"),
        (&redis("url = \"redis+cluster://:hunter2@a,b:x\""), "write the hosts as"),
        (&redis("url = \"redis+cluster://:hunter2@a,b/1\""), "a cluster has only one database"),
        (&redis("url = \"redis://localhost\"\nwait_replicas = -1"), "write a whole number from 0 to 32"),
        (&redis("url = \"redis://localhost\"\nwait_fsync = 1"), "write true or false"),
        ("[store]\nwait_fsync = true", "this goes with kind = \"redis\", and that is absent here"),
        (&redis("url = \"rediss+sentinel://s/m\"\nsentinel_username = \"me\""), "add sentinel_password ="),
        (&redis("url = \"rediss+cluster://c\"\nsentinel_password = { env = \"S\" }"), "names no Sentinels"),
        (&redis("url = \"rediss+sentinel://s/m\"\nsentinel_password = \"hunter2\""), "must not stand in this file"),
        (&redis("url = \"redis://localhost\"\nusername = \"me\""), "is there without a password"),
        (&redis("url = { env = \"REDIS_URL\" }\npassword = { env = \"S\" }"), "is there twice"),
        (&redis("url = \"rediss://me:hunter2@r\""), "has a password in it, which must not stand in this file"),
        (
            &redis("url = \"redis+sentinel://:hunter2@a,b/m\""),
            "has a password in it, which must not stand in this file",
        ),
        (&redis("url = \"redis://localhost\"\npassword = \"hunter2\""), "is a secret and must not stand in this file"),
        (&redis("url = \"redis://localhost\"\nprefix = \"a b\""), "is not a prefix for keys"),
        (&redis("url = \"rediss://r\"\nca = { env = \"S\" }"), "refers to no certificate"),
        (&redis("url = \"rediss://r\"\nca = \"hunter2\""), "must not stand in this file"),
        (&redis(&format!("url = \"redis://localhost\"\n{CA}")), "is there, but the URL does not encrypt"),
        (
            &redis(&format!("url = \"redis+cluster://localhost\"\nallow_insecure = true\n{CA}")),
            "is there, but the URL does not encrypt",
        ),
        (&redis("url = \"rediss://r\"\nallow_insecure = 1"), "write true or false"),
        ("[store]\nallow_insecure = true", "this goes with kind = \"redis\", and that is absent here"),
        (&format!("[store]\n{CA}"), "this goes with kind = \"redis\", and that is absent here"),
    ]);
}

#[test]
fn seals() {
    each_is_reported(&[
        ("[seal]\nkeys = [{ id = \"a\", env = \"S\" }]", "32 bytes in base64, as `bearerd keygen` prints"),
        ("[seal]\nkeys = [\"hunter2\"]", "`seal.keys` must be a table"),
        ("[seal]\nkeys = \"hunter2\"", "must be an array of tables"),
        ("[seal]\nkeys = [{ id = \"a\", key = \"hunter2\", env = \"SEAL_2026_05\" }]", "known here: id, file, env"),
        ("[seal]\nkeys = [{ env = \"SEAL_2026_05\" }]", "`seal.keys.id` is missing"),
        ("[seal]\nkeys = [{ id = \"a\" }]", "`seal.keys.file` is missing"),
        (
            "[seal]\nkeys = [{ id = \"a\", env = \"SEAL_2026_05\" }, { id = \"a\", env = \"SEAL_2026_05\" }]",
            "is the name of two keys",
        ),
    ]);
}

#[test]
fn policies_times_and_logs() {
    let allow = |lines: &str| format!("[[allow]]\n{lines}");
    let row = |line: &str| allow(&format!("caller = \"a\"\ncredentials = [\"*\"]\nactions = [\"call\"]\n{line}"));
    each_is_reported(&[
        (&allow("credentials = [\"*\"]\nactions = [\"get\"]"), "`allow.caller` is missing"),
        (&allow("caller = \"a\"\nactions = [\"get\"]"), "`allow.credentials` is missing"),
        (&allow("caller = \"a\"\ncredentials = [\"*\"]\nactions = []"), "so the row allows nothing"),
        (&allow("caller = \"a\"\ncredentials = [\"*\"]\nactions = [\"got\"]"), "did you mean \"get\"?"),
        (&allow("caller = \"a\"\ncredentials = [\"A\"]\nactions = [\"get\"]"), "no credential's name can match"),
        (&allow("caller = \"a\"\ncredentials = \"*\"\nactions = [\"get\"]"), "must be a list"),
        ("allow = \"a\"", "must be an array of tables"),
        (&row("name = \"a b\""), "write 1 to 63 letters"),
        (&row("subjects = []"), "alone, or leave it out"),
        (&row("subjects = [\"a\\u0007\"]"), "no subject can match"),
        (&row("subjects = [7]"), "must be a string"),
        (&row("scopes = []"), "so the row allows nothing"),
        (&row("scopes = [\"a b\"]"), "no scope can match"),
        (&row("scopes = [\"\"]"), "is empty"),
        (&row("resources = [\"/v1\"]"), "no resource can match"),
        (&row("methods = [\"get\"]"), "write it in upper case"),
        (&row("methods = [\"TRACE\"]"), "are never sent"),
        (&row("paths = [\"v1\"]"), "begin it with \"/\""),
        (&row("paths = [\"/v1/*\"]"), "'*' has no meaning here"),
        (&row("paths = [\"/v1/../v2\"]"), "leave out empty and dot segments"),
        (&row("paths = [\"/v1?a=b\"]"), "leave out the query"),
        (&row("path = [\"/v1\"]"), "did you mean `paths`?"),
        (&row("paths = [\"/v1\"]").replace("\"call\"", "\"get\""), "it limits \"call\", and the row does not"),
        (&row("methods = [\"GET\"]").replace("\"call\"", "\"invalidate\""), "limits nothing here"),
        (&row("scopes = [\"a\"]").replace("\"call\"", "\"administer\""), "the row has none of them"),
        (&format!("{}\n{}", row("name = \"one\""), row("name = \"one\"")), "is the name of another row too"),
        ("[refresh]\nhttp_timeout = \"17s\"", "http_timeout + commit_budget must be under lease; here 20s"),
        ("[audit]\noutput = \"stdot\"", "write \"off\", \"stdout\", \"stderr\", or the path of a file"),
        ("[audit]\noutput = true", "must be a string"),
        ("[limits]\nrequests_per_second = 0", "write a whole number from 1 to 1000000"),
        ("[limits]\nburst = 0", "write a whole number from 1 to"),
        ("[limits]\nmax_in_flight = \"many\"", "must be an integer"),
        ("[refresh]\nlease = \"13s\"", "here 13s is not under 13s"),
        ("[refresh]\nlease = \"25s\"", "lease must be under max_wait"),
        ("[refresh]\nmax_wait = \"30s\"", "max_wait must be under 30s"),
        ("[refresh]\ncommit_budget = \"9000000h\"", "is too long"),
        ("[cache]\nmax_tokens = 0", "is out of range"),
        ("[cache]\nmax_age = \"5\"", "is not a duration"),
        ("[log]\nfilter = \"bearerd=loud\"", "is not a log filter"),
        ("[log]\nfilter = \"\"", "is empty"),
        ("[log]\nfilter = \"verbose\"", "is not a log filter"),
        ("[log]\nfilter = \"info,verbose\"", "is not a log filter"),
        ("[log]\nfilter = \",\"", "is not a log filter"),
        ("[log]\nfilter = \" \"", "is not a log filter"),
        ("[log]\nfilter = \" , \"", "is not a log filter"),
        ("[log]\nformat = \"xml\"", "\"text\" or \"json\""),
    ]);
}

#[test]
fn a_pattern_without_a_credential_is_a_warning() {
    let row = "[[allow]]\ncaller = \"a\"\ncredentials = [\"a\", \"b-*\"]\nactions = [\"get\"]";
    let config = Place::new().parse(&format!("{}{row}", credential(""))).unwrap();
    let warnings: Vec<String> = config.warnings.iter().map(|warning| warning.render(false)).collect();
    assert_eq!(warnings.len(), 1);
    for part in
        ["warning: this pattern matches no credential", "credentials = [\"a\", \"b-*\"]", "  ^^^^^ write the name"]
    {
        assert!(warnings[0].contains(part), "{}", warnings[0]);
    }
}

#[test]
fn rows_that_are_wider_than_they_look_are_warnings() {
    let row = |caller: &str, rest: &str| {
        format!("[[allow]]\ncaller = \"{caller}\"\ncredentials = [\"a\"]\n{rest}\n{}", credential(""))
    };
    let open = |caller: &str| {
        let listener = "[server]\nlisten = \"0.0.0.0:7443\"\nplaintext = true";
        format!("{listener}\n{}", row(caller, "actions = [\"get\"]"))
    };
    let unproven = "this matches callers who have not shown who they are";
    for (text, warns) in [
        (open("*"), Some(unproven)),
        (open("**"), Some(unproven)),
        (open("a*"), Some(unproven)),
        (open("anonymous"), None),
        (open("spiffe://*"), None),
        (row("*", "actions = [\"get\"]"), None),
        (row("x", "actions = [\"get\", \"call\"]\npaths = [\"/v1\"]"), Some("the row gives out the token itself")),
        (row("x", "actions = [\"call\"]\npaths = [\"/v1\"]"), None),
        (row("x", "actions = [\"get\", \"invalidate\"]"), None),
        (
            row("x", "actions = [\"invalidate\", \"call\"]\npaths = [\"/v1\"]"),
            Some("returns only the next one's generation"),
        ),
    ] {
        let config = Place::new().parse(&text).unwrap_or_else(|errors| panic!("{text}\n{errors}"));
        let titles: Vec<&str> = config.warnings.iter().map(Warning::title).collect();
        assert_eq!(titles.len(), usize::from(warns.is_some()), "{text}\n{titles:?}");
        assert!(warns.is_none_or(|warns| titles[0].contains(warns)), "{text}\n{titles:?}");
    }
}

#[test]
fn what_cannot_be_read_is_no_reason_for_more_mistakes() {
    let report = Place::new().report(
        "[server]\nlisten = 127.0.0.1:7443\nmax_message_bytes = 1\n[store]\nkind = \"redis\"\nprefix = 5\n\
         [credentials.a]\nclient_secret = \"hunter2\n[cache]\nmax_age = 5\n",
    );
    let titles: Vec<&str> = report.lines().filter(|line| line.starts_with("error")).collect();
    let syntax = "error: this is not TOML";
    let store = "error: `store.prefix` must be a string, and this is an integer";
    let cache = "error: `cache.max_age` must be a duration, and this is an integer";
    assert_eq!(titles, [syntax, store, syntax, cache], "{report}");
    assert!(report.contains("listen = 127.0.0.1:7443") && !report.contains("hunter2"), "{report}");
}

#[test]
fn a_file_that_cannot_be_read_is_one_mistake() {
    let directory = tempfile::tempdir().unwrap();
    let errors = load(Some(&directory.path().join("none.toml")), &|_| None).unwrap_err();
    assert_eq!(errors.count(), 1);
    assert!(errors.to_string().contains("none.toml cannot be read"), "{errors}");
}

/// Newcomer, "poor ones": what is not TOML is one report with its remedy, not one for each line that follows.
#[test]
fn a_text_that_is_not_toml_is_one_report_for_each_mistake() {
    let a = credential("");
    let place = Place::new();
    for (text, reports) in [
        (format!("{a}\n{a}"), &["the table [credentials.a] is there twice", "it is here first"][..]),
        (format!("{a}client_id = \"you\""), &["`client_id` is there twice", "it is here first"]),
        (
            format!("[log]\n{a}[\"log\"]\nformat = \"json\""),
            &["the table [\"log\"] is there twice", "it is here first"],
        ),
        ("server:\n  listen: 127.0.0.1:7443\n  a: b\n".to_owned(), &["this is YAML, and the configuration is TOML"]),
        ("---\ncredentials:\n  - name: a\n".to_owned(), &["this is YAML"]),
        ("{\n  \"server\": {\n    \"listen\": 1\n  }\n}\n".to_owned(), &["this is JSON"]),
        (format!("// mine\n{a}"), &["a comment begins with #"]),
        (a.replace("grant =", "grant:"), &["write = between a setting and its value, not :"]),
        (a.replace("\"client_credentials\"", "\u{201c}client_credentials\u{201d}"), &["these quotes are typographic"]),
        (a.replace("\"client_credentials\"", "client_credentials"), &["write a text in quotes"]),
        (a.replace("\"me\"", "\"me\";"), &["a line ends without ';' or ','"]),
    ] {
        let errors = place.parse(&text).expect_err(&text);
        let report = errors.render(false);
        assert_eq!(errors.count(), 1, "{text}\n{report}");
        for part in reports {
            assert!(report.contains(part), "{text}\n{report}\nlacks {part}");
        }
        assert!(!report.contains("hunter2"), "{report}");
    }
}

#[test]
fn a_byte_order_mark_is_no_part_of_the_text() {
    let config = Place::new().parse(&format!("\u{feff}{}", credential(""))).unwrap();
    assert_eq!(config.credentials.len(), 1);
    let report = Place::new().report("\u{feff}[sever]");
    assert!(report.contains("--> bearerd.toml:1:2\n"), "{report}");
}

/// Newcomer, "missing relative file (`file = ******`)".
#[test]
fn a_missing_file_is_named_where_its_path_is_no_secret() {
    let place = Place::new();
    for (file, shown) in [("crm-secret", true), ("secrets/none", true), ("conf/crm", true), ("hunter2hunter2", false)] {
        let text = credential("").replace("env = \"S\"", &format!("file = \"{file}\""));
        let report = place.report(&text);
        assert_eq!(report.contains(file), shown, "{report}");
        assert!(report.contains("there is no such file; a relative path begins at"), "{report}");
    }
}

#[test]
fn a_secret_in_quotes_is_a_warning() {
    let config = Place::new().parse(&credential("").replace("\"S\"", "\"QUOTED\"")).unwrap();
    let quoted = |warning: &Warning| warning.title() == "this refers to a secret in quotes";
    assert!(config.warnings.iter().any(quoted));
    assert!(config.warnings.iter().all(|warning| !warning.render(false).contains("hunter2")));
}

/// P-K14, row 56.
#[test]
fn a_key_with_line_breaks_as_two_characters_is_taken() {
    let jwt = JWT.replace("\"KEY\"", "\"ESCAPED_KEY\"");
    Place::new().parse(&granted("jwt_bearer", &format!("{jwt}client_id = \"me\""))).unwrap();
}

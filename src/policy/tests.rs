//! Rows and requests: what is allowed, by which row, and what keeps the others from it.

use super::*;

fn patterns(items: &[&str]) -> Vec<Pattern> {
    items.iter().map(|item| Pattern::new(*item)).collect()
}

fn subject_patterns(items: &[&str]) -> Vec<SubjectPattern> {
    items.iter().map(|item| SubjectPattern::new(*item)).collect()
}

fn row(actions: &[Action]) -> Row {
    Row::new(Pattern::new("local"), patterns(&["team-a", "sap-*"]), actions.to_vec())
}

fn name(text: &str) -> CredentialName {
    CredentialName::new(text).unwrap()
}

fn request(action: Action, credential: &str) -> Request {
    Request::new(action, name(credential), Subject::default())
}

fn scopes(items: &[&str]) -> Scopes {
    Scopes::new(items.iter().copied()).unwrap()
}

fn policy(rows: Vec<Row>) -> Policy {
    let token = |default: &[&str], for_any_subject| Chosen::Token {
        scopes: scopes(default),
        resources: Resources::default(),
        for_any_subject,
    };
    let chosen = [
        ("team-a", token(&["read", "list"], false)),
        ("sap-none", token(&[], false)),
        ("sap-signed", token(&[], true)),
        ("sap-key", Chosen::Secret),
    ];
    Policy::new(rows, chosen.into_iter().map(|(text, chosen)| (name(text), chosen)).collect())
}

#[test]
fn only_what_a_row_names_is_allowed() {
    let policy = policy(vec![row(&[Action::Get, Action::Call])]);
    for (caller, action, credential, allowed) in [
        (Caller::Local, Action::Get, "team-a", true),
        (Caller::Local, Action::Call, "sap-x", true),
        (Caller::Local, Action::Get, "team-ab", false),
        (Caller::Local, Action::Get, "team-", false),
        (Caller::Local, Action::Invalidate, "team-a", false),
        (Caller::Local, Action::Administer, "team-a", false),
        (Caller::Anonymous, Action::Get, "team-a", false),
    ] {
        assert_eq!(policy.permit(&caller, request(action, credential)).is_ok(), allowed, "{action:?} {credential}");
    }
    let nobody = Policy::new(Vec::new(), BTreeMap::new());
    assert_eq!(nobody.permit(&Caller::Local, request(Action::Get, "a")).map(drop), Err(Denied::NoRow));
}

#[test]
fn local_callers_alone_may_do_everything_without_rows() {
    for action in Action::ALL {
        let permit = Policy::local_only().permit(&Caller::Local, request(action, "any")).unwrap();
        assert_eq!((permit.action(), permit.row().number), (action, 0));
        assert!(Policy::local_only().permit(&Caller::Anonymous, request(action, "any")).is_err());
    }
}

#[test]
fn subjects_are_limited_where_the_row_says_so() {
    for (subjects, subject, allowed) in [
        (None, "", true),
        (None, "jane", true),
        (Some(&[""][..]), "", true),
        (Some(&[""]), "jane", false),
        (Some(&["tenant-*"]), "tenant-7", true),
        (Some(&["tenant-*"]), "", false),
        (Some(&["tenant-*"]), "Tenant-7", false),
        (Some(&["*"]), "", true),
    ] {
        let policy = policy(vec![Row { subjects: subjects.map(subject_patterns), ..row(&[Action::Get]) }]);
        let asked = Request::new(Action::Get, name("team-a"), Subject::new(subject).unwrap());
        assert_eq!(policy.permit(&Caller::Local, asked).is_ok(), allowed, "{subjects:?} {subject:?}");
    }
}

#[test]
fn scopes_are_limited_also_for_those_who_name_none() {
    for (listed, credential, named, result) in [
        (&["read", "list"][..], "team-a", &["read"][..], Some(&["read"][..])),
        (&["read", "list"], "team-a", &["read", "write"], None),
        (&["read", "list"], "team-a", &[], Some(&["list", "read"])),
        // The credential's own scopes are more than the row has.
        (&["read"], "team-a", &[], None),
        (&["files.*"], "team-a", &["files.read"], Some(&["files.read"])),
        // Without any scope the provider would give all that the grant has.
        (&["read"], "sap-none", &[], None),
        (&["*"], "sap-none", &[], None),
        (&["read"], "sap-none", &["read"], Some(&["read"])),
        // A static secret is not chosen by scopes.
        (&["read"], "sap-key", &[], Some(&[])),
        (&["read"], "sap-key", &["write"], Some(&["write"])),
        // There is no such credential, which is said to whom the row covers.
        (&["read"], "sap-unknown", &[], Some(&[])),
        (&["read"], "sap-unknown", &["write"], None),
    ] {
        let row = Row { scopes: Some(patterns(listed)), ..row(&[Action::Get, Action::Administer]) };
        let policy = policy(vec![row]);
        let asked = Request { scopes: scopes(named), ..request(Action::Get, credential) };
        let permit = policy.permit(&Caller::Local, asked);
        assert_eq!(
            permit.ok().map(|permit| permit.scopes().clone()),
            result.map(scopes),
            "{listed:?} {credential} {named:?}"
        );
        // Who administers grants does not get tokens.
        let asked = Request { scopes: scopes(named), ..request(Action::Administer, credential) };
        assert_eq!(*policy.permit(&Caller::Local, asked).unwrap().scopes(), scopes(named));
    }
}

#[test]
fn resources_are_limited_likewise() {
    let row = Row { resources: Some(patterns(&["https://api.example/*"])), ..row(&[Action::Get]) };
    let policy = policy(vec![row]);
    for (named, allowed) in [
        (&["https://api.example/v1"][..], true),
        (&["https://api.example/v1", "https://other.example/"], false),
        (&["https://api.example.evil/"], false),
        (&[], false),
    ] {
        let resources = Resources::new(named.iter().copied()).unwrap();
        let asked = Request { resources, ..request(Action::Get, "team-a") };
        assert_eq!(policy.permit(&Caller::Local, asked).is_ok(), allowed, "{named:?}");
    }
}

#[test]
fn calls_are_limited_by_method_and_path_and_other_actions_are_not() {
    let row = Row {
        methods: Some(vec!["GET".to_owned(), "HEAD".to_owned()]),
        paths: Some(vec![PathPrefix::new("/open").unwrap()]),
        ..row(&[Action::Call, Action::Invalidate])
    };
    let policy = policy(vec![row]);
    for (method, path, allowed) in [
        ("GET", "/open", true),
        ("HEAD", "/open/x?next=/secret/../y", true),
        ("get", "/open", false),
        ("POST", "/open", false),
        ("GET", "/secret", false),
        ("GET", "/opened", false),
        ("GET", "/open/../secret", false),
        ("GET", "/secret?/open", false),
        ("", "", false),
    ] {
        let called = Called { method: method.to_owned(), path: path.to_owned() };
        let asked = Request { call: Some(called.clone()), ..request(Action::Call, "team-a") };
        let permit = policy.permit(&Caller::Local, asked);
        assert_eq!(permit.is_ok(), allowed, "{method} {path}");
        assert!(permit.is_err() || permit.unwrap().call() == Some(&called));
    }
    // A call of nothing in particular is not covered by a row for some calls.
    assert!(policy.permit(&Caller::Local, request(Action::Call, "team-a")).is_err());
    assert!(policy.permit(&Caller::Local, request(Action::Invalidate, "team-a")).is_ok());
}

#[test]
fn one_row_has_to_allow_all_of_it_and_is_told() {
    let limited = |credential: &str, allowed: &[&str]| Row {
        credentials: patterns(&[credential]),
        scopes: Some(patterns(allowed)),
        ..row(&[Action::Get])
    };
    let second = Row { name: Some("writers".into()), ..limited("team-a", &["write"]) };
    let policy = policy(vec![limited("team-a", &["read"]), second]);
    let asked = |named: &[&str]| Request { scopes: scopes(named), ..request(Action::Get, "team-a") };
    assert!(policy.permit(&Caller::Local, asked(&["read", "write"])).is_err(), "halves do not add up");
    let permit = policy.permit(&Caller::Local, asked(&["write"])).unwrap();
    assert_eq!(permit.row(), &RowId { number: 2, name: Some("writers".into()) });
}

#[test]
fn an_explanation_names_every_limit() {
    let policy = policy(vec![Row { scopes: Some(patterns(&["read"])), ..row(&[Action::Get]) }, row(&[Action::Call])]);
    let asked = Request { scopes: scopes(&["write"]), ..request(Action::Get, "other") };
    let said = |caller: &str| -> Vec<Vec<Limit>> {
        policy.explain(caller, &asked).into_iter().map(|verdict| verdict.limits).collect()
    };
    assert_eq!(said("local"), [vec![Limit::Credential, Limit::Scope], vec![Limit::Credential, Limit::Action]]);
    assert_eq!(said("x")[0], [Limit::Caller, Limit::Credential, Limit::Scope]);
    assert_eq!(policy.rows_for("local").len(), 2);
    assert!(policy.rows_for("x").is_empty());
    let shown = policy.rows_for("local")[0].1.written(Limit::Credential);
    assert_eq!(shown.as_deref(), Some("[\"team-a\", \"sap-*\"]"));
}

#[test]
fn the_store_is_for_whoever_may_administer_everything() {
    let row = |credentials: &str, action| Row::new(Pattern::new("local"), patterns(&["a", credentials]), vec![action]);
    let everything = || row("*", Action::Administer);
    for (rows, allowed) in [
        (vec![everything()], Some(1)),
        (vec![row("a*", Action::Administer), row("**", Action::Administer)], Some(2)),
        (vec![row("a*", Action::Administer)], None),
        (vec![row("*", Action::Get), row("a", Action::Administer)], None),
        (vec![row("", Action::Administer)], None),
        (vec![Row { subjects: Some(subject_patterns(&["tenant-*"])), ..everything() }], None),
        (vec![Row { scopes: Some(patterns(&["read"])), ..everything() }], None),
        (vec![Row { resources: Some(patterns(&["*"])), ..everything() }], None),
        (vec![Row { methods: Some(vec!["GET".to_owned()]), ..everything() }], None),
        (vec![Row { paths: Some(Vec::new()), ..everything() }], None),
        (vec![], None),
    ] {
        let policy = policy(rows);
        let permitted = policy.permit_store(&Caller::Local).ok().map(|permit| permit.row().number);
        assert_eq!(permitted, allowed, "{policy:?}");
        assert!(policy.permit_store(&Caller::Anonymous).is_err());
    }
    assert!(Policy::local_only().permit_store(&Caller::Local).is_ok_and(|permit| permit.row().number == 0));
}

/// S4: where tokens are issued for any subject, a row has to say for which.
#[test]
fn a_row_without_subjects_covers_only_the_service_itself_of_what_signs_for_any() {
    for (subjects, credential, subject, allowed) in [
        (None, "sap-signed", "", true),
        (None, "sap-signed", "ceo@acme.example", false),
        (None, "sap-none", "ceo@acme.example", true),
        (Some(&["*"][..]), "sap-signed", "ceo@acme.example", true),
        (Some(&["{caller}"]), "sap-signed", "local", true),
        (Some(&["{caller}"]), "sap-signed", "{caller}", false),
        (Some(&["{caller}"]), "sap-signed", "", false),
        (Some(&["user-{caller}-*"]), "sap-signed", "user-local-7", true),
        (Some(&["user-{caller}-*"]), "sap-signed", "user-other-7", false),
    ] {
        let policy = policy(vec![Row { subjects: subjects.map(subject_patterns), ..row(&Action::ALL) }]);
        for action in Action::ALL {
            let call = Some(Called { method: "GET".to_owned(), path: "/".to_owned() });
            let asked = Request { call, ..Request::new(action, name(credential), Subject::new(subject).unwrap()) };
            let permit = policy.permit(&Caller::Local, asked);
            assert_eq!(permit.is_ok(), allowed, "{subjects:?} {credential} {subject:?} {action:?}");
            if let Err(denied) = permit {
                let row = RowId { number: 1, name: None };
                assert_eq!(denied, Denied::Limited { row, limits: vec![Limit::Subject] });
            }
        }
    }
    assert!(!SubjectPattern::new("{caller}").covers("x", "*"), "a name with a star covers nothing");
}

/// S4: beyond the credential's own, a row has to say which.
#[test]
fn scopes_and_resources_beyond_the_credentials_own_need_a_row_that_names_them() {
    let policy = policy(vec![row(&[Action::Get])]);
    let resource = || Resources::new(["https://api.example/"]).unwrap();
    for (credential, named, resources, allowed) in [
        ("team-a", &[][..], Resources::default(), true),
        ("team-a", &["read"], Resources::default(), true),
        ("team-a", &["read", "list"], Resources::default(), true),
        ("team-a", &["read", "admin"], Resources::default(), false),
        ("team-a", &[], resource(), false),
        ("sap-none", &[], Resources::default(), true),
        ("sap-none", &["read"], Resources::default(), false),
        ("sap-none", &[], resource(), false),
        ("sap-key", &["any"], resource(), true),
    ] {
        let asked = Request { scopes: scopes(named), resources, ..request(Action::Get, credential) };
        assert_eq!(policy.permit(&Caller::Local, asked).is_ok(), allowed, "{credential} {named:?}");
    }
}

/// S8: the list of a row is held against what was granted, and so is that of a row that denies.
#[test]
fn a_row_limits_the_scopes_that_a_token_has() {
    let deny = Row { deny: true, scopes: Some(patterns(&["admin*"])), ..row(&Action::ALL) };
    for (rows, granted, beyond) in [
        (vec![row(&[Action::Get])], &["read", "write"][..], &[][..]),
        (vec![Row { scopes: Some(patterns(&["read", "list"])), ..row(&[Action::Get]) }], &["read"], &[]),
        (
            vec![Row { scopes: Some(patterns(&["read", "list"])), ..row(&[Action::Get]) }],
            &["read", "write"],
            &["write"],
        ),
        (vec![row(&[Action::Get]), deny.clone()], &["read", "admin:all"], &["admin:all"]),
        (vec![row(&[Action::Get]), Row { subjects: Some(subject_patterns(&["x"])), ..deny }], &["admin:all"], &[]),
    ] {
        let permit = policy(rows).permit(&Caller::Local, request(Action::Get, "team-a")).unwrap();
        assert_eq!(permit.granted().beyond(&scopes(granted)), beyond, "{granted:?}");
    }
}

/// A row that denies cannot be outvoted, and what it leaves out matches everything.
#[test]
fn a_row_that_denies_ends_the_decision() {
    let deny = || Row { deny: true, ..Row::new(Pattern::new("local"), patterns(&["*"]), Action::ALL.to_vec()) };
    let call = |method: &str, path: &str| Request {
        call: Some(Called { method: method.to_owned(), path: path.to_owned() }),
        ..request(Action::Call, "team-a")
    };
    let paths = || Some(vec![PathPrefix::new("/admin").unwrap()]);
    for (denial, asked, denied) in [
        (deny(), request(Action::Get, "team-a"), true),
        (Row { caller: Pattern::new("other"), ..deny() }, request(Action::Get, "team-a"), false),
        (Row { credentials: patterns(&["sap-*"]), ..deny() }, request(Action::Get, "team-a"), false),
        (Row { actions: vec![Action::Invalidate], ..deny() }, request(Action::Get, "team-a"), false),
        (Row { subjects: Some(subject_patterns(&["jane"])), ..deny() }, request(Action::Get, "team-a"), false),
        (Row { subjects: Some(subject_patterns(&["j*", ""])), ..deny() }, request(Action::Get, "team-a"), true),
        // Any scope on the list is enough, also one that is asked for because none is named.
        (Row { scopes: Some(patterns(&["list"])), ..deny() }, request(Action::Get, "team-a"), true),
        (
            Row { scopes: Some(patterns(&["list"])), ..deny() },
            Request { scopes: scopes(&["read"]), ..request(Action::Get, "team-a") },
            false,
        ),
        (Row { scopes: Some(patterns(&["*"])), ..deny() }, request(Action::Administer, "team-a"), false),
        // What is denied of calls is no other way of using the token.
        (Row { methods: Some(vec!["DELETE".to_owned()]), ..deny() }, request(Action::Get, "team-a"), false),
        (Row { methods: Some(vec!["DELETE".to_owned()]), ..deny() }, call("delete", "/"), true),
        (Row { methods: Some(vec!["DELETE".to_owned()]), ..deny() }, call("GET", "/"), false),
        (Row { paths: paths(), ..deny() }, call("GET", "/admin/x"), true),
        (Row { paths: paths(), ..deny() }, call("GET", "/ADMIN"), true),
        (Row { paths: paths(), ..deny() }, call("GET", "/%61dmin"), true),
        (Row { paths: paths(), ..deny() }, call("GET", "/admin;a=b/x"), true),
        (Row { paths: paths(), ..deny() }, call("GET", "/x/../admin"), true),
        (Row { paths: paths(), ..deny() }, call("GET", "/administrator"), false),
    ] {
        let shown = format!("{denial:?} {asked:?}");
        for first in [true, false] {
            let mut rows = vec![row(&Action::ALL)];
            rows.insert(if first { 0 } else { 1 }, denial.clone());
            let permit = policy(rows).permit(&Caller::Local, asked.clone());
            assert_eq!(permit.is_err(), denied, "{shown}");
            assert!(permit.is_ok_and(|permit| permit.limits_calls() == denial.limits_calls()) || denied, "{shown}");
        }
    }
    let everything = Row::new(Pattern::new("local"), patterns(&["*"]), Action::ALL.to_vec());
    let some = Row { credentials: patterns(&["team-a"]), ..deny() };
    assert!(policy(vec![everything.clone(), some]).permit_store(&Caller::Local).is_err(), "all but one are not all");
    let other = Row { caller: Pattern::new("other"), ..deny() };
    assert!(policy(vec![everything, other]).permit_store(&Caller::Local).is_ok());
}

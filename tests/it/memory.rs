//! What becomes of memory, as far as it can be seen from outside: no core dump of secrets, and an allocator that is set as
//! `.cargo/config.toml` says.
#![cfg(target_os = "linux")]

use std::{fs, process::Command};

use crate::support::Bearerd;

const CONFIG: &str = r#"
[server]
listen = "@LISTEN@"
admin_listen = "@ADMIN@"

[store]
path = "@DIR@/bearerd.redb"

[credentials.maps]
grant = "static"
scheme = "bearer"
secret = { file = "secret" }
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_service_leaves_no_core_dump() {
    let mut bearerd = Bearerd::start(CONFIG, &[("secret", "value")]).await;
    let id = bearerd.process().id();
    let limits = fs::read_to_string(format!("/proc/{id}/limits")).unwrap();
    let core = limits.lines().find_map(|line| line.strip_prefix("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().collect::<Vec<_>>(), ["0", "0", "bytes"]);

    assert!(!bearerd.log().contains("core dumps could not be switched off"), "{}", bearerd.log());

    // The signal that would write one ends it without.
    let ended = Command::new("kill").arg("-ABRT").arg(id.to_string()).status().unwrap();
    assert!(ended.success());
    crate::support::eventually(crate::support::PATIENCE, async || bearerd.process().ended().is_some()).await;
    let status = bearerd.process().ended().unwrap();
    assert!(!std::os::unix::process::ExitStatusExt::core_dumped(&status), "{status:?}");
}

/// The settings are compiled in, and a build that does not hear of them works as well, only worse.
#[test]
fn the_allocator_is_set_as_the_build_says() {
    let cargo = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/.cargo/config.toml")).unwrap();
    let cargo: toml::Table = cargo.parse().unwrap();
    let wanted = cargo["env"]["JEMALLOC_SYS_WITH_MALLOC_CONF"].as_str().unwrap();

    let output = Command::new(env!("CARGO_BIN_EXE_bearerd"))
        .arg("--version")
        .env("_RJEM_MALLOC_CONF", "confirm_conf:true")
        .output()
        .unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    for setting in wanted.split(',') {
        assert!(told.contains(&format!("Set conf value: {setting}\n")), "{setting} is not in {told}");
    }
    assert!(!told.contains("Invalid"), "{told}");
}

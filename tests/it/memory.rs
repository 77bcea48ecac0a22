//! What becomes of secrets in memory, as far as it can be seen from outside: no core dump, and nobody else who looks in.
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

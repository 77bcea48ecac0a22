//! The Unix-domain socket, whose callers are the users of this machine.

use std::{os::unix::fs::MetadataExt, process::Command};

use tonic::transport::Endpoint;

use super::{Client, Door, is_another, is_unproven};

const SOCKET: &str = "unix_socket = \"@DIR@/bearerd.sock\"\nlisten = \"127.0.0.1:0\"\n";

fn own_uid() -> u32 {
    tempfile::tempdir().unwrap().path().metadata().unwrap().uid()
}

fn client(door: &Door) -> Client {
    Client::new(Endpoint::from_shared(address(door)).unwrap().connect_lazy())
}

fn address(door: &Door) -> String {
    format!("unix:{}", door.path("bearerd.sock").display())
}

#[tokio::test]
async fn a_user_is_called_by_its_number() {
    let door = Door::open(&format!("uid:{}", own_uid()), SOCKET, &[]).await;
    client(&door).get().await.unwrap();
    is_another(door.plain().await.get().await, "over TCP nobody's user is known");
    is_unproven(client(&door).get_as("made-up").await, "a user with a wrong token is nobody");
    let other = Door::open(&format!("uid:{}", own_uid() + 1), SOCKET, &[]).await;
    is_another(client(&other).get().await, "another user");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_line_connects_to_it() {
    let door = Door::open(&format!("uid:{}", own_uid()), SOCKET, &[]).await;
    let mut command = Command::new(env!("CARGO_BIN_EXE_bearerd"));
    command.args(["get", "key", "--address", &address(&door)]);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "hunter2\n", "{}", String::from_utf8_lossy(&output.stderr));
}

//! Certificates and authorities that change while bearerd runs.

use std::{fs, os::unix::fs::symlink, path::Path};

use super::{
    authority::{Authority, Shown},
    configuration, encrypted,
};
use crate::support::{Bearerd, PATIENCE, eventually};

const CONFIG: &str = "listen = \"@LISTEN@\"\nadmin_listen = \"@ADMIN@\"\n[server.tls]\n\
                      certificate = { file = \"@DIR@/tls.crt\" }\nkey = { file = \"@DIR@/tls.key\" }\n\
                      client_ca = { file = \"@DIR@/ca.crt\" }\ntrust_domain = \"acme\"\n";

/// Puts a file in place as Kubernetes does: a new one beside the old one, and a link that is swapped.
fn swap(directory: &Path, name: &str, version: &str, content: &str) {
    fs::create_dir_all(directory.join(version)).unwrap();
    fs::write(directory.join(version).join(name), content).unwrap();
    let link = directory.join(format!("{name}.link"));
    symlink(Path::new(version).join(name), &link).unwrap();
    fs::rename(link, directory.join(name)).unwrap();
}

fn swap_all(directory: &Path, version: &str, server: &Shown, authority: &Authority) {
    swap(directory, "tls.crt", version, &server.certificate);
    swap(directory, "tls.key", version, &server.key);
    swap(directory, "ca.crt", version, authority.pem());
}

#[tokio::test]
async fn new_files_are_used_for_new_handshakes_and_bad_ones_are_not() {
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let server = old.server();
    let files =
        [("tls.crt", server.certificate.as_str()), ("tls.key", &server.key), ("ca.crt", old.pem()), ("s", "hunter2")];
    let config = configuration("spiffe://acme/*", CONFIG).replace("{ env = \"S\" }", "{ file = \"@DIR@/s\" }");
    let bearerd = Bearerd::start(&config, &files).await;
    let port = bearerd.grpc().rsplit_once(':').unwrap().1.parse().unwrap();
    let first = encrypted(port, &old, Some(&old.workload()));
    first.get().await.unwrap();

    swap(bearerd.directory(), "tls.crt", "1", "no certificate");
    eventually(PATIENCE, async || bearerd.log().contains("changed and cannot be used")).await;
    encrypted(port, &old, Some(&old.workload())).get().await.unwrap();
    // A certificate that is not the key's is as bad.
    swap(bearerd.directory(), "tls.crt", "2", &old.server().certificate);
    eventually(PATIENCE, async || bearerd.log().matches("changed and cannot be used").count() == 2).await;
    encrypted(port, &old, Some(&old.workload())).get().await.unwrap();

    swap_all(bearerd.directory(), "3", &new.server(), &new);
    let workload = new.workload();
    eventually(PATIENCE, async || encrypted(port, &new, Some(&workload)).get().await.is_ok()).await;
    assert!(encrypted(port, &new, Some(&old.workload())).get().await.is_err(), "the old authority is out");
    assert!(encrypted(port, &old, Some(&workload)).get().await.is_err(), "the old certificate is out");
    first.get().await.expect("what was connected before goes on");
}

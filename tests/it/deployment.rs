//! `deploy/`: rendered, validated against strict schemas, and checked for whether everything in it fits together.

use std::process::Command;

#[test]
fn the_deployment_is_valid() {
    let output = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/check-deploy")).output().unwrap();
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

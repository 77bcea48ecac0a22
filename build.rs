//! Compiles the protobuf files with a compiler written in Rust, so that no `protoc` has to be installed.

use std::{env, error::Error, fs, path::PathBuf};

use tonic_prost_build::Config;

const FILES: [&str; 2] = ["bearerd/v1/token.proto", "bearerd/v1/grants.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(FILES, ["proto"])?;

    // Reflection serves the descriptors, and tests enumerate the rpcs from them.
    let target = PathBuf::from(env::var("OUT_DIR")?).join("bearerd_descriptor.bin");
    fs::write(target, prost::Message::encode_to_vec(&descriptors))?;

    let mut config = Config::new();
    config.bytes(["."]);
    // These messages carry secrets or subjects, which must not reach a log through a stray `{:?}`.
    config.skip_debug([
        "bearerd.v1.Token",
        "bearerd.v1.Header",
        "bearerd.v1.GetTokenRequest",
        "bearerd.v1.GetTokenResponse",
        "bearerd.v1.InvalidateTokenRequest",
        "bearerd.v1.InvalidateTokenResponse",
        "bearerd.v1.CallThroughRequest",
        "bearerd.v1.CallThroughResponse",
        "bearerd.v1.ImportGrantRequest",
        "bearerd.v1.DescribeGrantRequest",
        "bearerd.v1.Rejection",
    ]);
    tonic_prost_build::configure().codec_path("crate::proto::Codec").compile_fds_with_config(descriptors, config)?;
    pack_relocations();
    Ok(())
}

/// A static binary puts its own addresses right when it starts. The usual list of them has 640 KiB, which are read then and stay
/// in memory; packed it has 8 KiB. glibc 2.36 and musl 1.2.4 are the first that can read that; which one it is, is certain only
/// where the binary brings it along.
fn pack_relocations() {
    let is = |name: &str, word: &str| env::var(name).is_ok_and(|words| words.split(',').any(|other| other == word));
    if is("CARGO_CFG_TARGET_OS", "linux") && is("CARGO_CFG_TARGET_FEATURE", "crt-static") {
        println!("cargo:rustc-link-arg-bin=bearerd=-Wl,-z,pack-relative-relocs");
    }
}

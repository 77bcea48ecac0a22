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
    Ok(())
}

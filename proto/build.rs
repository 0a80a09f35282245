//! Generates the wire types and services from `phalanx/v1/*.proto` without protoc, and keeps the descriptor set for reflection.

use prost::Message;
use std::path::PathBuf;

const FILES: [&str; 5] = [
    "phalanx/v1/common.proto",
    "phalanx/v1/agent_link.proto",
    "phalanx/v1/control.proto",
    "phalanx/v1/access.proto",
    "phalanx/v1/enrolment.proto",
];

/// Messages that carry secret values; their `Debug` is written by hand (I4).
const SECRET: [&str; 6] = [
    ".phalanx.v1.Offer",
    ".phalanx.v1.SubmitRequest",
    ".phalanx.v1.RerunRequest",
    ".phalanx.v1.CreateTokenResponse",
    ".phalanx.v1.EnrolRequest",
    ".phalanx.v1.CreateAgentTokenResponse",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    for file in FILES {
        println!("cargo:rerun-if-changed={file}");
    }
    let described = protox::compile(FILES, ["."])?;
    tonic_prost_build::configure()
        .btree_map(".")
        .skip_debug(SECRET)
        .compile_fds(described)?;

    // Without comments and positions: reflection needs none, and the committed fixture changes only when the contract does.
    let mut compiler = protox::Compiler::new(["."])?;
    compiler.include_source_info(false).include_imports(true);
    let described = compiler.open_files(FILES)?.file_descriptor_set();
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("phalanx.v1.binpb"), described.encode_to_vec())?;
    Ok(())
}

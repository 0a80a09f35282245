//! The descriptor set of every released version is kept as a fixture; today's contract must still understand all of them.
//!
//! `PHALANX_BLESS=1 cargo test -p phalanx-proto --test descriptor` writes the fixture of the version in development.

#![allow(clippy::unwrap_used)]

use phalanx_proto::DESCRIPTOR_SET;
use prost::Message;
use prost_types::{DescriptorProto, FileDescriptorSet};
use std::collections::BTreeMap;
use std::path::PathBuf;

fn fixtures() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

/// Everything that a peer relies on, one line each: fields with number, type and label, enum values, methods with their types.
fn promises(set: &FileDescriptorSet) -> BTreeMap<String, String> {
    let mut lines = BTreeMap::new();
    for file in &set.file {
        for message in &file.message_type {
            of_message(message, &mut lines);
        }
        for one in &file.enum_type {
            for value in &one.value {
                let key = format!("enum {} {}", one.name(), value.number());
                lines.insert(key, value.name().to_owned());
            }
        }
        for service in &file.service {
            for method in &service.method {
                let key = format!("rpc {}/{}", service.name(), method.name());
                let kind = format!(
                    "{} {} → {} {}",
                    method.client_streaming(),
                    method.input_type(),
                    method.server_streaming(),
                    method.output_type()
                );
                lines.insert(key, kind);
            }
        }
    }
    lines
}

fn of_message(message: &DescriptorProto, lines: &mut BTreeMap<String, String>) {
    for field in &message.field {
        let key = format!("message {} {}", message.name(), field.number());
        let kind = format!(
            "{} {:?} {:?} {}",
            field.name(),
            field.r#type(),
            field.label(),
            field.type_name()
        );
        lines.insert(key, kind);
    }
    for nested in &message.nested_type {
        of_message(nested, lines);
    }
}

#[test]
fn the_fixture_of_this_version_is_what_the_build_describes() {
    let path = fixtures().join(format!("{}.binpb", env!("CARGO_PKG_VERSION")));
    if std::env::var_os("PHALANX_BLESS").is_some() {
        std::fs::write(&path, DESCRIPTOR_SET).unwrap();
    }
    let kept = std::fs::read(&path).unwrap();
    assert!(
        kept == DESCRIPTOR_SET,
        "the contract changed: if that is meant, run with PHALANX_BLESS=1 and commit {}",
        path.display()
    );
}

#[test]
fn nothing_that_a_released_version_promised_is_gone() {
    let now = promises(&FileDescriptorSet::decode(DESCRIPTOR_SET).unwrap());
    assert!(now.len() > 100, "the descriptor set is nearly empty");
    for entry in std::fs::read_dir(fixtures()).unwrap() {
        let path = entry.unwrap().path();
        let then = FileDescriptorSet::decode(&*std::fs::read(&path).unwrap()).unwrap();
        for (key, promised) in promises(&then) {
            assert_eq!(
                now.get(&key),
                Some(&promised),
                "{key} of {}",
                path.display()
            );
        }
    }
}

#![allow(clippy::unwrap_used)]
use super::*;

fn load_text(text: &str) -> Loaded {
    let main = Source {
        name: "spec.yaml".into(),
        text: text.into(),
    };
    load(main, &mut |path| Err(format!("no {path} here")))
}

fn read_spec(name: &str) -> String {
    let path = format!("{}/tests/specs/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(path).unwrap()
}

#[test]
fn the_sketch_of_the_whole_proxbox_flow_is_a_spec() {
    let loaded = load_text(&read_spec("proxbox.yaml"));
    assert_eq!(loaded.diagnostics, vec![]);
    let spec = loaded.spec.unwrap();
    assert_eq!(
        (spec.services.len(), spec.coverage.len(), spec.phases.len()),
        (7, 16, 7)
    );
    let worker = spec
        .services
        .iter()
        .find(|service| service.name.text == "rqworker")
        .unwrap();
    assert!(worker.manual && worker.ready.is_none());
    let keys: Vec<&str> = worker
        .definition
        .entries()
        .iter()
        .map(|entry| entry.key.text.as_str())
        .collect();
    assert_eq!(
        keys,
        [
            "image",
            "entrypoint",
            "command",
            "environment",
            "volumes",
            "depends_on",
            "ports"
        ]
    );
}

#[test]
fn the_example_of_the_language_s_page_is_a_spec() {
    let loaded = load_text(&read_spec("shop.yaml"));
    assert_eq!(loaded.diagnostics, vec![]);
    let spec = loaded.spec.unwrap();
    insta::assert_snapshot!(serde_json::to_string_pretty(&spec.phases).unwrap());
}

#[test]
fn services_that_wait_for_each_other_are_found() {
    let loaded = load_text(
        "phases: { p: [{ expect: true }] }\nservices:\n  a: { image: x, depends_on: [b] }\n  b: { image: x, depends_on: { c: {} } }\n  c: { image: x, depends_on: [a, x, c] }\n",
    );
    let messages: Vec<String> = loaded
        .diagnostics
        .iter()
        .map(|d| d.message.clone())
        .collect();
    assert_eq!(
        messages,
        [
            "services wait for each other in a circle: a → b → c → a",
            "there is no service `x` to depend on",
            "services wait for each other in a circle: c → c",
        ]
    );
}

/// Messages of a spec with one included file.
fn with_part(part: Result<&str, &str>) -> Vec<String> {
    let main = Source {
        name: "spec.yaml".into(),
        text: "include: [part.yaml]\nphases:\n  assert:\n    - { use: order }\n    - { http: { get: \"${{ services.shop.url }}/\", sesion: none } }\n".into(),
    };
    let read = |name: &str| match part {
        Ok(text) => Ok(Source {
            name: name.into(),
            text: text.into(),
        }),
        Err(problem) => Err(problem.to_owned()),
    };
    let loaded = load(main, &mut |name| read(name));
    assert_eq!(loaded.spec, None);
    loaded.diagnostics.into_iter().map(|d| d.message).collect()
}

#[test]
fn names_of_a_file_that_cannot_be_read_are_not_reported_as_missing() {
    let broken = with_part(Ok("define: { order: { steps: [{ name: a: b }] } }"));
    let missing = with_part(Err("no such file"));
    for (messages, cause) in [(&broken, "not YAML"), (&missing, "can't read `part.yaml`")] {
        assert!(messages.iter().any(|m| m.contains(cause)), "{messages:?}");
        assert!(
            messages.iter().any(|m| m.contains("sesion")),
            "{messages:?}"
        );
        assert_eq!(messages.len(), 2, "{messages:?}");
    }
    let empty = with_part(Ok("define: {}"));
    assert!(empty.iter().any(|m| m.contains("`order`")), "{empty:?}");
    assert!(empty.iter().any(|m| m.contains("`shop`")), "{empty:?}");
}

#![allow(clippy::unwrap_used)]
use super::*;
use crate::node::NodeValue;

fn read(text: &str) -> (Option<Node>, Vec<Diagnostic>) {
    let mut diagnostics = Vec::new();
    let node = parse(0, text, &mut diagnostics);
    (node, diagnostics)
}

fn json(node: &Node) -> serde_json::Value {
    node.to_json()
}

fn ok(text: &str) -> serde_json::Value {
    let (node, diagnostics) = read(text);
    assert_eq!(diagnostics, vec![], "{text}");
    json(&node.unwrap())
}

fn problem(text: &str) -> String {
    let (_, diagnostics) = read(text);
    let first = diagnostics.first().unwrap();
    let span = first.span.unwrap();
    format!("{}:{} {}", span.line, span.column, first.message)
}

#[test]
fn scalars_follow_the_core_schema_of_yaml_1_2() {
    assert_eq!(
        ok(
            "[yes, on, No, true, False, 12, -3, 0x1F, 0o17, 1.5, 1e3, 0644, '12', \"x\\ty\", ~, null, 1.2.3, 12:30, +]"
        ),
        serde_json::json!([
            "yes", "on", "No", true, false, 12, -3, 31, 15, 1.5, 1000.0, 644, "12", "x\ty", null,
            null, "1.2.3", "12:30", "+"
        ])
    );
}

#[test]
fn anchors_aliases_and_merge_keys_are_resolved() {
    assert_eq!(
        ok(
            "base: &b { a: 1, c: 3 }\nother: { <<: *b, a: 2 }\nlist: [*b]\nmany: { <<: [{ a: 9 }, *b] }"
        ),
        serde_json::json!({
            "base": {"a": 1, "c": 3}, "other": {"a": 2, "c": 3}, "list": [{"a": 1, "c": 3}], "many": {"a": 9, "c": 3}
        })
    );
}

#[test]
fn a_span_as_long_as_its_text_is_its_text() {
    for text in [
        "b\n c",
        "[b\n]",
        "{b: c\nd}",
        "\"\\L\\L\"",
        "\"x\n y\"",
        "\"x\\Ly\"",
    ] {
        let source = format!("a: {text}\n");
        let (root, _) = read(&source);
        let mut nodes = vec![root.unwrap()];
        while let Some(node) = nodes.pop() {
            let (from, len) = (node.span.offset as usize, node.span.len as usize);
            match node.value {
                NodeValue::Text(value) => {
                    let exact = source[from..from + len] == value;
                    assert_eq!(exact, len == value.len(), "{source:?}, {value:?}");
                    assert_ne!(len, value.len() + 2, "{source:?}, {value:?}");
                }
                NodeValue::List(items) => nodes.extend(items),
                NodeValue::Map(entries) => nodes.extend(entries.into_iter().map(|e| e.value)),
                _ => {}
            }
        }
    }
}

#[test]
fn a_span_is_the_text_itself_where_the_source_holds_it_letter_for_letter() {
    let text = "ä: \"x y\"\nb: 'q'\nc: plain text  # no\nd: \"a\\tb\"\ne: |\n  block\n";
    let (node, _) = read(text);
    let NodeValue::Map(entries) = node.unwrap().value else {
        panic!("a map");
    };
    let found: Vec<_> = entries
        .iter()
        .map(|entry| {
            let span = entry.value.span;
            let slice = &text[span.offset as usize..(span.offset + span.len) as usize];
            (span.line, span.column, slice)
        })
        .collect();
    assert_eq!(
        found,
        [
            (1, 5, "x y"),
            (2, 5, "q"),
            (3, 4, "plain text"),
            (4, 4, "\"a\\tb\""),
            (6, 3, "block\n"),
        ]
    );
}

#[test]
fn a_byte_order_mark_shifts_offsets_only() {
    let (node, diagnostics) = read("\u{feff}a: b");
    assert_eq!(diagnostics, vec![]);
    let NodeValue::Map(entries) = node.unwrap().value else {
        panic!("a map");
    };
    let span = entries[0].value.span;
    assert_eq!((span.line, span.column, span.offset), (1, 4, 6));
}

#[test]
fn what_yaml_can_say_and_json_cannot_is_reported() {
    assert_eq!(problem("a: 1\nb: 2\na: 3"), "3:1 `a` is written twice");
    assert_eq!(problem("{ a: 1 }: 2"), "1:1 a list or map can't be a key");
    assert_eq!(problem("a: .inf"), "1:4 `.inf` is no number that JSON has");
    assert_eq!(
        problem("a: 123456789012345678901"),
        "1:4 `123456789012345678901` is too big for a 64-bit number"
    );
    assert_eq!(problem("a: 1.10"), "1:4 `1.10` is the number 1.1 to YAML");
    assert_eq!(
        problem("a: 1\n---\nb: 2"),
        "2:1 a second YAML document starts here"
    );
    assert_eq!(
        problem("- !body.contains(x)"),
        "1:3 `!body.contains(x)` is a tag to YAML"
    );
    assert_eq!(problem(""), "1:1 the file is empty");
    assert_eq!(problem("# nothing\n"), "1:1 the file is empty");
    assert_eq!(
        problem("a: &x [*x]"),
        "1:8 an alias inside the value that it repeats"
    );
}

#[test]
fn bombs_end_in_a_message() {
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..20 {
        let below = level - 1;
        bomb.push_str(&format!(
            "a{level}: &a{level} [{}]\n",
            vec![format!("*a{below}"); 10].join(", ")
        ));
    }
    assert!(problem(&bomb).contains("more than 500000 values, aliases put in"));
    let scalar = format!(
        "a: &a {}\nb: [{}]",
        "x".repeat(1 << 20),
        vec!["*a"; 100].join(", ")
    );
    assert!(problem(&scalar).contains("bytes of text, aliases put in"));
    assert!(problem(&"[".repeat(20_000)).contains("too many levels"));
    assert!(problem(&"- ".repeat(20_000)).contains("128 levels"));
    let nested: String = (0..20_000)
        .map(|level| format!("{}a:\n", " ".repeat(level % 200)))
        .collect();
    let _ = problem(&nested);
    assert!(problem(&"x".repeat(20 << 20)).contains("the file is too big"));
}

/// Both texts of a pair are equal apart from the position of brackets, as read by go-yaml, libyaml, PyYAML and
/// YamlDotNet.
#[test]
fn brackets_may_stand_left_of_what_they_close() {
    let pairs = [
        ("a:\n  k: [\n    \"x\",\n  ]\n", "a: { k: [x] }"),
        (
            "a:\n  k: [\n    'x' # ]\n  ]\n  l: 1\n",
            "a: { k: [x], l: 1 }",
        ),
        ("a:\n  k: [\n  1,\n  2 ]\n", "a: { k: [1, 2] }"),
        (
            "a:\n  k: [\n1,\n'ä',\n]\n  l: [\n  ]\n",
            "a: { k: [1, ä], l: [] }",
        ),
        (
            "a:\n  k: {\n    x: \"y\",\n  }\n  l: z\n",
            "a: { k: { x: y }, l: z }",
        ),
        (
            "a:\n  k: {\n  x: \"y\"\n  ,z: {\n  },\n  }\n",
            "a: { k: { x: y, z: {} } }",
        ),
        (
            "a:\n  - k: [\n    \"x\",\n    [ 1,\n    ],\n    ]\n  - 2\n",
            "a: [{ k: [x, [1]] }, 2]",
        ),
        (
            "a:\n  t: |\n    [\n    x\n  k: [\n    \"]\",\n    # ]\n  ]\n  u: >-\n    ]\n",
            "a: { t: \"[\\nx\\n\", k: [\"]\"], u: \"]\" }",
        ),
        ("a:\n  k: [ one\n  two,\n  ]\n", "a: { k: [one two] }"),
    ];
    for (text, same) in pairs {
        let read = |text: &str| {
            let mut diagnostics = Vec::new();
            let node = parse(0, text, &mut diagnostics);
            assert!(diagnostics.is_empty(), "{text}: {diagnostics:#?}");
            node.unwrap().to_json()
        };
        assert_eq!(read(text), read(same), "{text}");
    }
}

#[test]
fn places_are_those_of_the_file_although_lines_were_moved() {
    let text = "a:\n  k: [\n    \"ä\",\n  ]\n  l: [\n'ö', !no 7,\n  ]\n  m: !no 8\n";
    let mut diagnostics = Vec::new();
    parse(0, text, &mut diagnostics).unwrap();
    let spans: Vec<_> = diagnostics.iter().map(|d| d.span.unwrap()).collect();
    assert_eq!(spans.len(), 2, "{diagnostics:#?}");
    for (span, (line, column, word)) in spans.iter().zip([(6, 6, "!no 7"), (8, 6, "!no 8")]) {
        let start = span.offset as usize;
        assert_eq!((span.line, span.column), (line, column));
        assert!(text[start..].starts_with(word), "{span:?}");
    }
}

#[test]
fn a_bracket_that_is_never_closed_is_told_of_where_it_shows() {
    let text = "a:\n  k: [body.matches('([a-z')]\n  l: 1\n";
    let mut diagnostics = Vec::new();
    assert!(parse(0, text, &mut diagnostics).is_none());
    assert_eq!(diagnostics[0].span.unwrap().line, 3, "{diagnostics:#?}");
    assert!(diagnostics[0].help.as_ref().unwrap().contains("not closed"));
}

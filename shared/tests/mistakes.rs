//! What a user is told about each mistake: place, text underlined, help. The snapshot is the golden file.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use phalanx_shared::diagnostic::{Diagnostic, Severity, Source, Sources};
use phalanx_shared::language;
use std::fmt::Write;

fn show(diagnostic: &Diagnostic, sources: &Sources, out: &mut String) {
    let level = match diagnostic.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    };
    let span = diagnostic.span.unwrap();
    let text = &sources.files[span.file as usize].text;
    writeln!(
        out,
        "{level} {}:{} {}",
        span.line, span.column, diagnostic.message
    )
    .unwrap();
    let line = text.lines().nth(span.line as usize - 1).unwrap_or_default();
    let covered = &text[span.offset as usize..(span.offset + span.len) as usize];
    let width = covered
        .lines()
        .next()
        .unwrap_or_default()
        .chars()
        .count()
        .max(1);
    writeln!(out, "  | {}", line.replace('\t', " ")).unwrap();
    writeln!(
        out,
        "  | {}{}",
        " ".repeat(span.column as usize - 1),
        "^".repeat(width)
    )
    .unwrap();
    if let Some((span, label)) = &diagnostic.related {
        writeln!(out, "  {label}: {}:{}", span.line, span.column).unwrap();
    }
    if let Some(help) = &diagnostic.help {
        writeln!(out, "  help: {help}").unwrap();
    }
}

fn load(text: &str) -> language::Loaded {
    let main = Source {
        name: "spec.yaml".into(),
        text: text.into(),
    };
    language::load(main, &mut |_| Err("there is no such file".into()))
}

#[test]
fn every_mistake_is_told_with_its_place_and_how_to_fix_it() {
    let cases = include_str!("specs/mistakes.txt");
    let mut out = String::new();
    let mut count = 0;
    for case in cases.split("=== ").skip(1) {
        let (title, text) = case.split_once('\n').unwrap();
        let loaded = load(text);
        assert!(!loaded.diagnostics.is_empty(), "{title}");
        let errors = loaded
            .diagnostics
            .iter()
            .filter(|d| d.severity == Severity::Error)
            .count();
        assert_eq!(loaded.spec.is_none(), errors > 0, "{title}");
        count += loaded.diagnostics.len();
        writeln!(out, "=== {title}").unwrap();
        for diagnostic in &loaded.diagnostics {
            show(diagnostic, &loaded.sources, &mut out);
        }
        out.push('\n');
    }
    assert!(count > 150, "{count}");
    insta::assert_snapshot!(out);
}

#[test]
fn an_unknown_field_a_wrong_type_a_duplicate_key_an_unknown_name_and_a_circle_are_found_in_one_go()
{
    let cases = include_str!("specs/mistakes.txt");
    let text = cases
        .split("=== ")
        .nth(1)
        .unwrap()
        .split_once('\n')
        .unwrap()
        .1;
    let found: Vec<String> = load(text)
        .diagnostics
        .iter()
        .map(|d| format!("{} {}", d.span.unwrap().line, d.message))
        .collect();
    for expected in [
        "4 there is no variable `sizes`",
        "5 unknown key `htpp` in a step",
        "6 `timeout` takes a duration such as `30s`, `1m30s` or `500ms`, not the text \"soon\"",
        "10 `image` is written twice",
        "10 services wait for each other in a circle: a → b → a",
    ] {
        assert!(
            found.iter().any(|message| message == expected),
            "{expected} in {found:#?}"
        );
    }
}

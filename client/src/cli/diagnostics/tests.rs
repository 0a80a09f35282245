#![allow(clippy::unwrap_used)]
use super::*;
use phalanx_shared::diagnostic::Source;
use phalanx_shared::language;

fn shown(text: &str) -> String {
    let main = Source {
        name: "spec.yaml".into(),
        text: text.into(),
    };
    let loaded = language::load(main, &mut |path| Err(format!("no {path}")));
    render(&loaded.diagnostics, &loaded.sources, Style::plain())
}

#[test]
fn the_text_is_underlined_with_line_column_help_and_the_other_place() {
    insta::assert_snapshot!(shown(
        "name: x\nsevrices:\n  a: { image: b }\nphases:\n  p:\n    - expect: true\n      timeout: [1]\n  p: []\n"
    ));
}

#[test]
fn a_place_in_a_very_long_line_shows_a_part_of_it() {
    let line = format!(
        "phases: {{ p: [{{ expect: true }}] }}\nvars: {{ a: [{}], b: \"\\q\" }}\n",
        "1, ".repeat(2000)
    );
    let shown = shown(&line);
    assert!(shown.len() < 1500, "{shown}");
    assert!(shown.contains("spec.yaml:2:"), "{shown}");
}

#[test]
fn a_thousand_findings_in_a_big_file_are_shown_within_a_second_or_two() {
    let mut text = String::from("phases:\n  p: [{ expect: true }]\nservices:\n");
    for at in 0..1200 {
        text.push_str(&format!(
            "  s{at}: {{ image: x, unknown_key: 1 }} # {}\n",
            "padding ".repeat(100)
        ));
    }
    let main = Source {
        name: "spec.yaml".into(),
        text,
    };
    let loaded = language::load(main, &mut |path| Err(format!("no {path}")));
    assert_eq!(loaded.diagnostics.len(), 1200);
    let before = std::time::Instant::now();
    let shown = render(&loaded.diagnostics, &loaded.sources, Style::plain());
    assert!(before.elapsed().as_secs() < 5, "{:?}", before.elapsed());
    assert!(shown.contains("and 200 more"));
}

#[test]
fn what_a_terminal_would_obey_is_not_printed() {
    let shown = shown("\"\\e[31mred\": 1\nphases: { p: [{ expect: true }] }\n");
    assert!(!shown.contains('\u{1b}'), "{shown:?}");
    let raw =
        self::shown("name: a\n# \u{1b}[2J\u{202e}\nfoo: 1\nphases: { p: [{ expect: true }] }\n");
    assert!(!raw.contains(['\u{1b}', '\u{202e}']), "{raw:?}");
    assert!(raw.contains("foo: 1"), "{raw}");
}

#[test]
fn github_gets_one_line_for_each() {
    let main = Source {
        name: "a,b.yaml".into(),
        text: "phases: 5".into(),
    };
    let loaded = language::load(main, &mut |path| Err(format!("no {path}")));
    assert_eq!(
        github(&loaded.diagnostics, &loaded.sources),
        "::error file=a%2Cb.yaml,line=1,col=9,title=phalanx validate::`phases` takes a map, not the number 5\n"
    );
}

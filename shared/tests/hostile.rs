//! No text makes the spec's front end panic, hang or point outside of the file.
//!
//! `PHALANX_FUZZ_SECONDS` says how long random texts are tried (1 s without it); with `PROPTEST_RNG_SEED` they are the
//! same each time.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use phalanx_shared::diagnostic::Source;
use phalanx_shared::language;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, TestRunner};
use std::time::{Duration, Instant};

const SEEDS: [&str; 4] = [
    include_str!("specs/proxbox.yaml"),
    include_str!("specs/shop.yaml"),
    include_str!("specs/all-keys.yaml"),
    include_str!("specs/mistakes.txt"),
];

/// Loads a text; every place is inside it, on a character, on the line and column it says.
fn load(text: &str) {
    let main = Source {
        name: "spec.yaml".into(),
        text: text.to_owned(),
    };
    let began = Instant::now();
    let loaded = language::load(main, &mut |_| Err("nothing".into()));
    assert!(
        began.elapsed() < Duration::from_secs(20),
        "{:?} for {text:?}",
        began.elapsed()
    );
    // Counting lines from the start for each takes long where there are many.
    for diagnostic in loaded.diagnostics.iter().take(200) {
        let spans = diagnostic
            .span
            .into_iter()
            .chain(diagnostic.related.iter().map(|(span, _)| *span));
        for span in spans {
            let (start, end) = (span.offset as usize, (span.offset + span.len) as usize);
            let covered = text.get(start..end);
            assert!(covered.is_some(), "{diagnostic:?} in {text:?}");
            let line = text.get(..start).unwrap().matches('\n').count() + 1;
            assert_eq!(line, span.line as usize, "{diagnostic:?} in {text:?}");
        }
    }
    assert_eq!(
        loaded.spec.is_some(),
        loaded
            .diagnostics
            .iter()
            .all(|d| d.severity == phalanx_shared::diagnostic::Severity::Warning)
    );
}

/// Bits of YAML and of the language, put together at random.
fn soup() -> impl Strategy<Value = String> {
    let bits = prop::sample::select(vec![
        "a",
        "b",
        ": ",
        "- ",
        "\n",
        "\n  ",
        "\n    ",
        "{",
        "}",
        "[",
        "]",
        ", ",
        "\"",
        "'",
        "&x ",
        "*x",
        "<<: ",
        "!t ",
        "!!str ",
        "|\n",
        ">-\n",
        "# c\n",
        "---\n",
        "...\n",
        "? ",
        "\t",
        "${{ ",
        " }}",
        "$${{",
        "\\",
        "\u{feff}",
        "ä",
        "\u{1f600}",
        "\r\n",
        "\r",
        "1.10",
        "0x",
        "~",
        "null",
        "true",
        "phases:",
        "services:",
        "vars:",
        "steps",
        "run: x",
        "expect: ",
        "image: x",
        "extends: ",
        "depends_on: ",
        "%YAML 1.2\n",
        "%TAG ! x\n",
        "@",
        "`",
        "\0",
        "\u{85}",
        "\u{2028}",
        "foreach: ",
        "use: ",
        "define:",
        "params: ",
        "matrix.x",
        "(",
        ")",
        ".",
        "?",
        "==",
        "in",
        "use",
    ]);
    prop::collection::vec(bits, 0..60).prop_map(|bits| bits.concat())
}

/// A piece of a real spec with a few bytes changed, removed, repeated or swapped for soup.
fn mutated() -> impl Strategy<Value = String> {
    let edit = (any::<prop::sample::Index>(), 0..40_usize, soup());
    let edits = prop::collection::vec(edit, 1..4);
    (
        prop::sample::select(SEEDS.to_vec()),
        any::<prop::sample::Index>(),
        edits,
    )
        .prop_map(|(seed, start, edits)| {
            let mut text: Vec<char> = seed.chars().collect();
            // Often a part, so that one error doesn't end it all at the same place.
            let cut = start.index(text.len());
            if cut % 3 == 0 {
                text.truncate(cut);
            }
            for (at, len, soup) in edits {
                if text.is_empty() {
                    break;
                }
                let at = at.index(text.len());
                let end = (at + len).min(text.len());
                text.splice(at..end, soup.chars().take(len % 12));
            }
            text.into_iter().collect()
        })
}

#[test]
fn no_text_is_too_strange() {
    let seconds = std::env::var("PHALANX_FUZZ_SECONDS")
        .ok()
        .and_then(|s| s.parse().ok())
        .unwrap_or(1.0);
    let mut runner = TestRunner::new(Config::default());
    let texts = prop_oneof![soup(), mutated(), ".{0,200}", "(?s).{0,60}"];
    let began = Instant::now();
    let mut tried = 0;
    while began.elapsed().as_secs_f64() < seconds || tried < 50 {
        let text = texts.new_tree(&mut runner).unwrap().current();
        if let Err(panic) = std::panic::catch_unwind(|| load(&text)) {
            eprintln!("the text: {text:?}");
            std::panic::resume_unwind(panic);
        }
        tried += 1;
    }
    println!("{tried} texts in {:?}", began.elapsed());
}

#[test]
fn big_and_deep_inputs_end_soon() {
    let line_of_items = format!("phases: {{ p: [{}] }}", "{ run: x }, ".repeat(100_000));
    let long_text = format!(
        "phases: {{ p: [{{ run: \"{}\" }}] }}",
        "x".repeat(4_000_000)
    );
    let keys: String = (0..100_000).map(|at| format!("k{at}: 1\n")).collect();
    let same_key = "k: 1\n".repeat(100_000);
    let nested = "a: {".repeat(20_000);
    let sequences = "- ".repeat(20_000);
    let quotes = "\"".repeat(1_000_000);
    let braces = "x: ${{ ".repeat(100_000);
    let anchors: String = (0..50_000)
        .map(|at| format!("a{at}: &a{at} [1]\n"))
        .collect();
    let uses: String = {
        let defines: String = (0..2000)
            .map(|at| {
                format!(
                    "  d{at}: {{ steps: [{{ use: d{} }}, {{ use: d{} }}] }}\n",
                    at + 1,
                    at + 1
                )
            })
            .collect();
        format!(
            "define:\n{defines}  d2000: {{ steps: [{{ run: \"${{{{ steps.a.b }}}}\" }}] }}\nphases: {{ p: [{{ use: d0 }}] }}\n"
        )
    };
    let extends: String = (0..5000)
        .map(|at| format!("  s{at}: {{ extends: s{} }}\n", at + 1))
        .collect();
    let extends = format!(
        "phases: {{ p: [{{ expect: true }}] }}\nservices:\n{extends}  s5000: {{ image: x }}\n"
    );
    let expression = format!(
        "phases: {{ p: [{{ expect: \"{}1{}\" }}] }}",
        "(".repeat(50_000),
        ")".repeat(50_000)
    );
    let nothing = "\0".repeat(1_000_000);
    let signs = "%".repeat(1_000_000);
    let marks = "&a ".repeat(300_000);
    let inputs = [
        nothing,
        signs,
        marks,
        line_of_items,
        long_text,
        keys,
        same_key,
        nested,
        sequences,
        quotes,
        braces,
        anchors,
        uses,
        extends,
        expression,
    ];
    for text in inputs {
        let began = Instant::now();
        load(&text);
        let head: String = text.chars().take(40).collect();
        println!(
            "{:>7.3} s {} bytes {head:?}",
            began.elapsed().as_secs_f64(),
            text.len()
        );
    }
}

//! For any text and any values, nothing panics, overflows or hangs, and every place lies within the text.
//! `PHALANX_FUZZ_SECONDS` sets how long each test runs; with `PROPTEST_RNG_SEED` the values are the same each time.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::diagnostic::Span;
use crate::node::{Expr, Template};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed, TestError, TestRunner};
use serde_json::{Map, Value, json};
use std::time::{Duration, Instant};

/// Runs a property for its cases, or for the time that the environment sets.
fn fuzz<S: Strategy>(strategy: S, property: impl Fn(S::Value))
where
    S::Value: Clone,
{
    let seconds: u64 = std::env::var("PHALANX_FUZZ_SECONDS").map_or(0, |s| s.parse().unwrap_or(0));
    let end = Instant::now() + Duration::from_secs(seconds);
    let Config { rng_seed, .. } = Config::default();
    for round in 0.. {
        let mut runner = TestRunner::new(Config {
            cases: 300,
            failure_persistence: None,
            rng_seed: match rng_seed {
                RngSeed::Fixed(seed) => RngSeed::Fixed(seed + round),
                RngSeed::Random => RngSeed::Random,
            },
            ..Config::default()
        });
        let result = runner.run(&strategy, |value| {
            property(value);
            Ok(())
        });
        if let Err(TestError::Fail(reason, value)) = &result {
            panic!("{reason}: {value:?}");
        }
        result.unwrap();
        if Instant::now() >= end {
            return;
        }
    }
}

fn span(text: &str) -> Span {
    Span {
        line: 1,
        column: 1,
        len: text.len() as u32,
        ..Span::default()
    }
}

fn within(place: Span, text: &str) {
    let end = place.offset as usize + place.len as usize;
    assert!(end <= text.len(), "{place:?} in {text:?}");
    assert!(
        text.get(place.offset as usize..end).is_some(),
        "{place:?} in {text:?}"
    );
}

fn everything(text: &str, scope: &Scope) {
    match Program::parse(&Expr {
        text: text.to_owned(),
        span: span(text),
    }) {
        Err(problem) => within(problem.span.unwrap(), text),
        Ok(program) => {
            for reference in program.references() {
                within(reference.span, text);
                within(reference.root_span, text);
                reference
                    .path
                    .iter()
                    .for_each(|segment| within(segment.span, text));
            }
            program
                .calls()
                .iter()
                .for_each(|call| within(call.span, text));
            if let Err(error) = program.eval(scope) {
                within(error.span, text);
                assert!(!error.message.is_empty());
            }
            assert!(program.explain(scope).len() <= 16);
        }
    }
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[a-c0-9é ]{0,6}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 5, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::Array),
            proptest::collection::btree_map("[a-d]", inner, 0..5)
                .prop_map(|map| Value::Object(map.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

fn scope(a: Value, b: Value) -> Scope {
    Scope::new(
        Layer::new()
            .value("a", a)
            .value("b", b)
            .missing("c", "is missing")
            .lazy("d", || Ok(json!([{"a": 1}]))),
    )
}

const PIECES: [&str; 64] = [
    "a",
    "b",
    "c",
    "d",
    "x",
    "1",
    "-1",
    "2u",
    "1.5",
    "'s'",
    "\"\"",
    "r'\\d'",
    "b'x'",
    "true",
    "null",
    "[",
    "]",
    "{",
    "}",
    "(",
    ")",
    ",",
    ":",
    "?",
    ".",
    ".?",
    "[?",
    "==",
    "!=",
    "<",
    ">=",
    "&&",
    "||",
    "!",
    "-",
    "+",
    "*",
    "/",
    "%",
    " in ",
    " ",
    "\n",
    "// c\n",
    "${{",
    "}}",
    "$",
    "'",
    "'''",
    "\\",
    "é",
    "size(",
    ".map(x, ",
    ".all(x, ",
    ".exists(x, ",
    "has(a.b",
    ".first()",
    ".value()",
    ".matches('(')",
    "int(",
    "fromJSON(",
    "lists.range(",
    ".optMap(x, ",
    ".sortBy(x, ",
    "=",
];

fn pieces(max: usize) -> impl Strategy<Value = String> {
    proptest::collection::vec(proptest::sample::select(&PIECES[..]), 0..max)
        .prop_map(|pieces| pieces.concat())
}

/// Generates expressions that parse, of any types.
fn expression() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        proptest::sample::select(
            &[
                "a",
                "b",
                "d",
                "a.a",
                "b[0]",
                "a.?b",
                "b['c']",
                "1",
                "0",
                "-9223372036854775808",
                "2u",
                "1.5",
                "'a'",
                "''",
                "true",
                "null",
                "[]",
                "{}",
                "b''",
                "type(a)",
                "timestamp('2024-01-01T00:00:00Z')",
                "duration('1h')",
                "optional.none()",
            ][..]
        )
        .prop_map(str::to_owned),
    ];
    leaf.prop_recursive(5, 40, 3, |inner| {
        let two = (inner.clone(), inner.clone());
        let three = (inner.clone(), inner.clone(), inner.clone());
        let operators = proptest::sample::select(
            &[
                "+", "-", "*", "/", "%", "==", "!=", "<", "<=", ">", ">=", "&&", "||", " in ",
            ][..],
        );
        let methods = proptest::sample::select(
            &[
                "size()",
                "first()",
                "last()",
                "value()",
                "hasValue()",
                "distinct()",
                "flatten()",
                "sort()",
                "reverse()",
                "trim()",
                "lowerAscii()",
                "split('')",
                "join()",
                "join(',')",
                "getFullYear()",
                "getHours('Europe/Berlin')",
                "a",
                "?b",
            ][..],
        );
        let functions = proptest::sample::select(
            &[
                "int",
                "uint",
                "double",
                "string",
                "bytes",
                "bool",
                "size",
                "type",
                "dyn",
                "fromJSON",
                "fromTOML",
                "lists.range",
                "strings.quote",
                "optional.of",
                "-",
                "!",
                "timestamp",
                "duration",
            ][..],
        );
        let macros = proptest::sample::select(
            &[
                "map",
                "filter",
                "all",
                "exists",
                "exists_one",
                "sortBy",
                "optMap",
            ][..],
        );
        let called = proptest::sample::select(
            &[
                "contains",
                "startsWith",
                "matches",
                "indexOf",
                "charAt",
                "format",
                "orValue",
                "or",
                "split",
                "substring",
            ][..],
        );
        prop_oneof![
            (two.clone(), operators).prop_map(|((l, r), op)| format!("({l}{op}{r})")),
            three.prop_map(|(c, y, n)| format!("({c} ? {y} : {n})")),
            (inner.clone(), methods).prop_map(|(t, m)| format!("({t}).{m}")),
            (inner.clone(), functions).prop_map(|(arg, f)| format!("{f}({arg})")),
            (two.clone(), macros).prop_map(|((t, e), m)| format!("({t}).{m}(x, [x, {e}])")),
            (
                two.clone(),
                proptest::sample::select(&["all", "exists", "filter", "exists_one"][..])
            )
                .prop_map(|((t, e), m)| format!("({t}).{m}(x, x == {e})")),
            (two.clone(), called).prop_map(|((t, arg), m)| format!("({t}).{m}({arg})")),
            two.clone().prop_map(|(t, i)| format!("({t})[{i}]")),
            two.clone().prop_map(|(t, i)| format!("({t})[?{i}]")),
            two.prop_map(|(k, v)| format!("{{{k}: {v}}}")),
            inner.prop_map(|item| format!("[{item}, 1]")),
        ]
    })
}

#[test]
fn any_text_is_an_expression_or_an_error_at_a_place() {
    let values = scope(json!({"a": [1, 2], "b": "x"}), json!([{"c": null}]));
    fuzz(
        prop_oneof![pieces(24), any::<String>(), "\\PC{0,60}"],
        |text| everything(&text, &values),
    );
}

#[test]
fn any_expression_over_any_values_has_a_value_or_an_error() {
    fuzz((expression(), value(), value()), |(text, a, b)| {
        everything(&text, &scope(a, b))
    });
}

#[test]
fn any_text_is_a_template_or_an_error_at_a_place() {
    let values = scope(json!({"a": [1, 2], "b": "x"}), json!([{"c": null}]));
    fuzz(
        prop_oneof![pieces(24), any::<String>()],
        |text| match TemplateProgram::parse(&Template {
            text: text.clone(),
            span: span(&text),
        }) {
            Err(problem) => within(problem.span.unwrap(), &text),
            Ok(template) => {
                template
                    .references()
                    .for_each(|reference| within(reference.span, &text));
                if let Err(error) = template.eval(&values) {
                    within(error.span, &text);
                }
                assert!(template.is_static() || text.contains("${{"));
            }
        },
    );
}

/// Uses the deepest accepted texts on the smallest stack on which they run: a runtime's thread has 2 MiB.
#[test]
fn the_deepest_expressions_do_not_overflow_the_stack() {
    let deep = |open: &str, inner: &str, close: &str| {
        (1..MAX_DEPTH)
            .rev()
            .map(|n| format!("{}{inner}{}", open.repeat(n), close.repeat(n)))
            .find(|text| scan::check(text).is_ok())
    };
    let shapes = [
        deep("(", "1", ")"),
        deep("[", "1", "]"),
        deep("-(", "1", ")"),
        deep("{'a': ", "1", "}"),
        deep("", "a", ".a"),
        deep("", "b", "[0]"),
        deep("true ? ", "1", " : 2"),
        deep("[1].map(x, ", "x", ")"),
        deep("[1].all(x, ", "true", ")"),
        deep("", "1", " + 1"),
        deep("size([", "1", "])"),
        deep("", "a", ".?a"),
        deep("!(", "true", ")"),
        deep("(true && ", "a", ")"),
        deep("[", "a.b", "][0]"),
        deep("fromJSON(", "'1'", ")"),
        deep("optional.of(", "1", ")"),
        deep("(true ? ", "1", " : 2)"),
    ];
    let run = move || {
        let values = scope(json!({"a": {"a": 1}}), json!([[1]]));
        for text in shapes.into_iter().flatten() {
            everything(&text, &values);
        }
    };
    std::thread::Builder::new()
        .stack_size(2 << 20)
        .spawn(run)
        .unwrap()
        .join()
        .unwrap();
}

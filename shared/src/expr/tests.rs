//! Expressions as users write them, and the messages when they fail.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::diagnostic::Span;
use crate::node::{Expr, Template};
use serde_json::{Value, json};
use std::sync::Arc;

fn span(text: &str) -> Span {
    Span {
        file: 0,
        line: 1,
        column: 1,
        offset: 0,
        len: text.len() as u32,
    }
}

fn program(text: &str) -> Program {
    Program::parse(&Expr {
        text: text.into(),
        span: span(text),
    })
    .unwrap_or_else(|e| panic!("{text}: {e:?}"))
}

fn scope() -> Scope {
    Scope::new(
        Layer::new()
            .value("status", json!(200))
            .value(
                "json",
                json!({"results": [], "count": 2, "name": "x", "nothing": null,
                "rows": [{"id": 1, "state": "active"}, {"id": 2, "state": "offline"}]}),
            )
            .value("headers", json!({"content-type": "text/html", "x-id": "7"}))
            .value("empty", json!({}))
            .lazy("services", || Ok(json!({"a-b": {"url": "http://1.2.3.4"}})))
            .missing("steps", "is known only in steps"),
    )
}

fn eval(text: &str) -> Result<Value, EvalError> {
    program(text).eval(&scope())
}

fn fails(text: &str) -> (String, String, String) {
    let error = eval(text).expect_err(text);
    let range = error.span.offset as usize..(error.span.offset + error.span.len) as usize;
    (
        text[range].to_owned(),
        error.message,
        error.help.unwrap_or_default(),
    )
}

#[track_caller]
fn gives(text: &str, value: Value) {
    assert_eq!(eval(text), Ok(value), "{text}");
}

#[test]
fn standard_library_and_extensions() {
    gives("1 + 2 * 3", json!(7));
    gives("status == 200.0 && 1 < 1.5", json!(true));
    gives("'200' == status", json!(false));
    gives("json == null || [1] == {'a': 1}", json!(false));
    gives("json.rows.map(r, r.id)", json!([1, 2]));
    gives(
        "json.rows.filter(r, r.state == 'active').first().value().id",
        json!(1),
    );
    gives("json.results.last().hasValue()", json!(false));
    gives("json.?missing.?deeper.orValue('d')", json!("d"));
    gives("json[?'name'].value()", json!("x"));
    gives("json.?name.optMap(n, n + '!').value()", json!("x!"));
    gives("{'a': 1}[?'b'].orValue(3)", json!(3));
    gives("'a,b,c'.split(',').join('-')", json!("a-b-c"));
    gives("'%s has %d'.format(['x', 2])", json!("x has 2"));
    gives("' Abc '.trim().lowerAscii().reverse()", json!("cba"));
    gives(
        "[3, 1, 2].sort() == [1, 2, 3] && [1, 1].distinct().size() == 1",
        json!(true),
    );
    gives("json.rows.sortBy(r, -r.id).map(r, r.id)", json!([2, 1]));
    gives("lists.range(3)", json!([0, 1, 2]));
    gives("fromJSON('{\"a\": [1]}').a[0]", json!(1));
    gives(
        "fromTOML('[project]\\nversion = \"1.2\"').project.version",
        json!("1.2"),
    );
    gives("type(json) == map && type(json.rows) == list", json!(true));
    gives(
        "'abc'.matches('b') && !'abc'.matches('^b') && matches('abc', 'c$')",
        json!(true),
    );
    gives(
        "timestamp('2024-01-02T00:00:00Z') - timestamp('2024-01-01T00:00:00Z') == duration('24h')",
        json!(true),
    );
    gives("duration('1.5s')", json!("1.5s"));
    gives(
        "timestamp('2024-01-02T03:04:05Z')",
        json!("2024-01-02T03:04:05Z"),
    );
    gives("services['a-b'].url", json!("http://1.2.3.4"));
    gives("has(json.name) && !has(json.nope)", json!(true));
}

#[test]
fn maps_iterate_in_key_order() {
    gives(
        "{'b': 1, 'a': 2, 'c': 3, 'e': 4, 'd': 5}.map(k, k)",
        json!(["a", "b", "c", "d", "e"]),
    );
    gives("headers.map(k, k)", json!(["content-type", "x-id"]));
}

#[test]
fn an_error_says_which_part_was_missing_or_null() {
    assert_eq!(
        fails("json.results[0].id == 1"),
        (
            "json.results[0]".into(),
            "`json.results` is an empty list, so there is no [0]".into(),
            "".into()
        )
    );
    assert_eq!(
        fails("json.rows[5].id").1,
        "`json.rows` has 2 elements, so there is no [5]"
    );
    assert_eq!(
        fails("1 == 1 && json.cuont == 2"),
        (
            "json.cuont".into(),
            "`json` has no `cuont`".into(),
            "did you mean `count`?".into()
        )
    );
    assert_eq!(
        fails("json.nothing.a.b").1,
        "`json.nothing` is null, so it has no `a`"
    );
    assert_eq!(fails("json.nothing.a.b").0, "json.nothing.a");
    assert_eq!(fails("json['nope']['x']").1, "`json` has no `nope`");
    assert_eq!(
        fails("json.rows.id").1,
        "`json.rows` is a list of 2, which has no field `id`"
    );
    assert_eq!(
        fails("status.x").1,
        "`status` is the number 200, which has no field `x`"
    );
    assert_eq!(
        fails("json.results.first().value()").1,
        "`json.results.first()` has no value"
    );
    assert_eq!(
        fails("headers['x-id'] + 1"),
        (
            "headers['x-id'] + 1".into(),
            "`+` cannot be applied to these values: `headers['x-id']` is the text \"7\", the number 1"
                .into(),
            "convert one of them: string(x), int(x) or double(x)".into()
        )
    );
    assert_eq!(
        fails("stauts == 1"),
        (
            "stauts".into(),
            "nothing is called `stauts` here".into(),
            "did you mean `status`?".into()
        )
    );
    assert_eq!(fails("steps.a.b == 1").1, "`steps` is known only in steps");
    assert_eq!(
        fails("json.rows.all(r, r.stat == 'active')").1,
        "`r` has no `stat` (for r = a map with 2 keys)"
    );
    assert_eq!(
        fails("(status ? 1 : 2)").1,
        "`status` is the number 200, not true or false"
    );
    assert_eq!(fails("1 / 0").1, "division by zero");
    assert_eq!(fails("'a'.matches('(')").0, "'a'.matches('(')");
    assert_eq!(fails("int('x')").0, "int('x')");
    assert_eq!(
        fails("file('x')").1,
        "file: files of the workspace are read while planning only"
    );
}

#[test]
fn parse_errors_stand_at_their_place() {
    let at = |text: &str| {
        let error = Program::parse(&Expr {
            text: text.into(),
            span: span(text),
        })
        .expect_err(text);
        let span = error.span.unwrap();
        let range = span.offset as usize..(span.offset + span.len) as usize;
        (
            text[range].to_owned(),
            error.message,
            error.help.unwrap_or_default(),
        )
    };
    assert_eq!(
        at("a and b"),
        ("and".into(), "unexpected `and`".into(), "write `&&`".into())
    );
    assert_eq!(
        at("a == "),
        (
            "=".into(),
            "the expression ends too early".into(),
            "".into()
        )
    );
    assert_eq!(
        at("a ? b"),
        (
            "b".into(),
            "the expression ends too early".into(),
            "a condition is written a ? b : c".into()
        )
    );
    assert_eq!(at("a b").0, "b");
    assert_eq!(at("{'a' 1}").0, "1");
    assert_eq!(at("x.foo..y").0, ".");
    assert_eq!(at("if x").1, "`if` is reserved in CEL");
    assert_eq!(
        at("99999999999999999999").1,
        "this integer needs more than 64 bits"
    );
    assert_eq!(at("x.split()").1, "`split` takes 1 or 2 arguments, not 0");
    assert_eq!(at("contains('a', 'b')").2, "write x.contains(…)");
    assert_eq!(
        at("X{a: 1}").1,
        "`X{…}` is a message, which the language doesn't have"
    );
    assert_eq!(at("has(a)").1, "`has` asks for a field: has(a.b)");
    assert_eq!(
        at("x.all(a.b, true)").1,
        "a macro's first argument is the name of its variable"
    );
}

#[test]
fn references_name_root_path_and_place() {
    let text = "services['a-b'].port[80] + steps.vm[n].id + rows.exists(r, r.x == inputs.y) ? has(a.b) : type(c.?d) == list";
    let program = program(text);
    let shown: Vec<String> = program
        .references()
        .iter()
        .map(|r| {
            assert_eq!(r.span.offset as usize, r.range.start);
            let path: Vec<String> = r
                .path
                .iter()
                .map(|s| format!("{}{}", s.key, if s.optional { "?" } else { "" }))
                .collect();
            for segment in &r.path {
                let at = segment.span.offset as usize;
                let written = &text[at..at + segment.span.len as usize];
                assert!(written.contains(&segment.key.to_string()), "{written}");
            }
            format!("{} [{}] {}", r.root, path.join(" "), &text[r.range.clone()])
        })
        .collect();
    assert_eq!(
        shown,
        [
            "services [a-b port 80] services['a-b'].port[80]",
            "steps [vm] steps.vm",
            "n [] n",
            "rows [] rows",
            "inputs [y] inputs.y",
            "a [b?] a.b",
            "c [d?] c.?d",
        ]
    );
}

#[test]
fn calls_list_what_is_not_built_in() {
    let program = program("choice(a) == x.pick(1, 2) && lists.range(3).size() > 0 && fil('x')");
    let calls: Vec<_> = program
        .calls()
        .iter()
        .map(|c| (c.name.as_str(), c.arity, c.method))
        .collect();
    assert_eq!(
        calls,
        [("choice", 1, false), ("pick", 3, true), ("fil", 1, false)]
    );
    assert_eq!(program.references().len(), 2);
}

#[test]
fn defined_functions_take_their_parameters_and_do_not_recurse_forever() {
    let functions = Functions::default()
        .define("choice", vec!["x".into()], program("x.?value.orValue(x)"))
        .define("loop_", vec!["x".into()], program("loop_(x)"))
        .read_files(Arc::new(|path| match path {
            "a.toml" => Ok("v = 1".into()),
            _ => Err(format!("no such file: {path}")),
        }));
    let scope = scope().with(Layer::new().functions(functions));
    let eval = |text: &str| program(text).eval(&scope);
    assert_eq!(
        eval("choice('a') + choice({'value': 'b'})"),
        Ok(json!("ab"))
    );
    assert_eq!(eval("fromTOML(file('a.toml')).v"), Ok(json!(1)));
    assert_eq!(
        eval("file('b')").unwrap_err().message,
        "file: no such file: b"
    );
    assert!(
        eval("loop_(1)")
            .unwrap_err()
            .message
            .contains("levels deep")
    );
    assert!(
        eval("choice(1, 2)")
            .unwrap_err()
            .message
            .contains("takes 1 argument")
    );
    assert_eq!(
        eval("chioce(1)").unwrap_err().help.unwrap(),
        "did you mean `choice`?"
    );
}

#[test]
fn expensive_macros_end_with_an_error() {
    let error =
        eval("lists.range(100000).all(x, lists.range(100000).all(y, x + y >= 0))").unwrap_err();
    assert!(error.message.contains("too expensive"), "{error}");
}

fn explained(text: &str) -> Vec<String> {
    program(text)
        .explain(&scope())
        .into_iter()
        .map(|p| format!("{} = {}", p.text, p.value))
        .collect()
}

#[test]
fn a_failed_check_shows_its_parts() {
    assert_eq!(explained("status == 201"), ["status = 200"]);
    assert_eq!(
        explained("status == 200 && json.count == 3 && json.name == 'y'"),
        [
            "status == 200 = true",
            "status = 200",
            "json.count == 3 = false",
            "json.count = 2"
        ]
    );
    assert_eq!(
        explained("json.rows.size() > 5"),
        [
            "json.rows.size() = 2",
            "json.rows = [{\"id\": 1, \"state\": \"active\"}, {\"id\": 2, \"state\": \"offline\"}]"
        ]
    );
    assert_eq!(
        explained("!headers['content-type'].startsWith('text')"),
        ["headers['content-type'] = \"text/html\""]
    );
    assert_eq!(
        explained("json.rows.all(r, r.state == 'active')")[1..],
        [
            "r = {\"id\": 2, \"state\": \"offline\"}",
            "r.state = \"offline\""
        ]
    );
    assert_eq!(explained("json.nope == 1"), ["json.nope = no value"]);
    assert_eq!(explained("status in [201, 202]"), ["status = 200"]);
}

#[test]
fn long_values_and_many_parts_are_cut() {
    let scope = Scope::default().with_value("x", json!(vec!["é".repeat(500); 1000]));
    let program = program(
        &(0..40)
            .map(|i| format!("x[{i}] == 'a'"))
            .collect::<Vec<_>>()
            .join(" || "),
    );
    let parts = program.explain(&scope);
    assert_eq!(parts.len(), 16);
    assert!(
        parts.iter().all(|p| p.value.chars().count() <= 200),
        "{parts:?}"
    );
}

fn template(text: &str) -> TemplateProgram {
    TemplateProgram::parse(&Template {
        text: text.into(),
        span: span(text),
    })
    .unwrap()
}

#[test]
fn a_template_of_one_expression_keeps_its_type() {
    let eval = |text: &str| template(text).eval(&scope()).unwrap();
    assert_eq!(eval(" ${{ status }} "), json!(200));
    assert_eq!(eval("${{ json.nothing }}"), json!(null));
    assert_eq!(eval("${{ {'a': {'b': 1}}.a }}"), json!({"b": 1}));
    assert_eq!(eval("${{ status }}${{ '' }}"), json!("200"));
    assert_eq!(
        eval("a ${{ [1, {'b': true, 'a': null}] }} b"),
        json!("a [1,{\"a\":null,\"b\":true}] b")
    );
    assert_eq!(
        eval("x${{ json.nothing }}y ${{ 1.5 }} ${{ true }} $5 $${{ a }}"),
        json!("xy 1.5 true $5 ${{ a }}")
    );
    assert_eq!(eval("${{ '}}' }}"), json!("}}"));
    assert!(template("plain $${{ x }}").is_static());
    assert_eq!(
        template("${{ status }}").eval_text(&scope()).unwrap(),
        "200"
    );
}

#[test]
fn what_is_unknown_in_a_template_stands_there_in_braces() {
    let known = |text: &str| template(text).eval_known(&scope());
    assert_eq!(
        known("${{ status }}: ${{ vm.name }} is there"),
        "200: {vm.name} is there"
    );
    assert_eq!(known("${{ vm.name }}"), "{vm.name}");
    assert_eq!(known("plain"), "plain");
}

#[test]
fn places_in_a_template_are_those_of_the_file() {
    let text = "é ${{ 1 + nope.x }}";
    let scalar = Span {
        file: 2,
        line: 3,
        column: 10,
        offset: 50,
        len: text.len() as u32 + 2,
    };
    let template = TemplateProgram::parse(&Template {
        text: text.into(),
        span: scalar,
    })
    .unwrap();
    let reference = template.references().next().unwrap();
    assert_eq!(
        (
            reference.root_span.column,
            reference.root_span.offset,
            reference.root_span.len
        ),
        (21, 62, 4)
    );
    let error = template.eval(&scope()).unwrap_err();
    assert_eq!(
        (error.span.line, error.span.column, error.span.len),
        (3, 21, 4)
    );
    let unclosed = TemplateProgram::parse(&Template {
        text: "a ${{ b".into(),
        span: span("a ${{ b"),
    })
    .unwrap_err();
    assert_eq!(unclosed.span.unwrap().offset, 2);
}

#[test]
fn the_environment_is_not_read() {
    assert!(fails("PATH == ''").1.contains("nothing is called"));
    assert!(fails("env.HOME == ''").1.contains("nothing is called"));
}

fn refused(text: &str, scope: &Scope) -> String {
    match program(text).eval(scope) {
        Err(error) => error.message,
        Ok(value) => panic!("{text} gives {} bytes", weight(&value)),
    }
}

#[test]
fn whatever_an_expression_makes_is_counted() {
    let big = "x".repeat(1 << 16);
    let scope = Scope::default()
        .with_value("b", json!(big))
        .with_value("p", json!("nope|".repeat(2_000) + "nope"))
        .with_value("l", json!(vec!["y".repeat(1 << 8); 1 << 8]))
        .with_value("i", json!((0..500).collect::<Vec<_>>()));
    for text in [
        "i.map(x, b)",
        "i.map(x, b + 'z')",
        "i.map(x, [b])",
        "i.map(x, {'k': b})",
        "i.map(x, {string(x) + b: 1})",
        "i.map(x, b.trim())",
        "i.map(x, b.lowerAscii() == '')",
        "i.map(x, l)",
        "i.map(x, l.map(y, y))",
        "i.filter(x, l.map(y, y).size() == 0)",
        "i.map(x, '%s'.format([b]))",
        "i.map(x, x > 0 ? b : b)",
        "i.all(x, (b + b).size() > 0)",
        "l.join(b)",
        "b.replace('x', 'y'.replace('y', b))",
        "b.replace('', b)",
        "i.all(x, b.split('').size() > 0)",
        "i.all(x, b.split('x').size() > 0)",
        "i.all(x, strings.quote(b) != '')",
        "i.all(x, bytes(b) != b'')",
        "i.all(x, l.flatten() != [])",
        "i.all(x, l.slice(0, 200) != [])",
        "i.all(x, optional.of(b).hasValue())",
    ] {
        let message = refused(text, &scope);
        assert!(message.contains("too large"), "{text}: {message}");
    }
    for text in [
        "lists.range(100000).all(x, b.contains('nope') == false)",
        "lists.range(100000).all(x, b == b)",
        "lists.range(100000).all(x, l == l)",
        "i.all(x, !b.matches(p))",
    ] {
        let message = refused(text, &scope);
        assert!(message.contains("too expensive"), "{text}: {message}");
    }
    // The cost of working on a usual response body is far below the limits.
    for text in [
        "l.map(y, y.upperAscii()).join(',').contains('Y')",
        "(b + b + b + b).size() == 4 * b.size()",
        "i.map(x, x * 2).sort().last().value() == 998",
    ] {
        assert_eq!(program(text).eval(&scope), Ok(json!(true)), "{text}");
    }
}

#[test]
fn texts_of_one_tree_are_counted_together() {
    let scope = Scope::default().with_value("b", json!("x".repeat(1 << 17)));
    let text = vec!["${{ b }}"; 200].join("");
    let error = template(&text).eval(&scope).unwrap_err();
    assert!(error.message.contains("too large"), "{}", error.message);
    let node = value_to_node(&json!(vec!["${{ b }}"; 200]), Span::default());
    let error = eval_node(&node, &scope, &Cache::new()).unwrap_err();
    assert!(error.message.contains("too large"), "{}", error.message);
}

#[test]
fn an_allowance_bounds_all_evaluations_of_a_thread_until_it_is_dropped() {
    let scope = Scope::default();
    let long = program("lists.range(1000).all(x, x >= 0)");
    {
        let _allowed = Allowance::of(10_000);
        let done = (0..100).take_while(|_| long.eval(&scope).is_ok()).count();
        assert!((2..20).contains(&done), "{done}");
        let _more = Allowance::of(1_000_000);
        assert!(long.eval(&scope).is_err());
    }
    assert!(long.eval(&scope).is_ok());
}

#[test]
fn a_name_with_a_dash_is_one_wherever_it_can_be_read() {
    let keys = MatrixKeys::of(["python-version", "os", "n"]);
    let scope = Scope::default().with_value(
        "matrix",
        json!({"python-version": "3.13", "os": "linux", "n": 3}),
    );
    let eval = |text: &str| {
        let expr = Expr {
            text: text.into(),
            span: span(text),
        };
        Program::parse_knowing(&expr, &keys).unwrap().eval(&scope)
    };
    for (text, value) in [
        ("matrix.python-version", json!("3.13")),
        ("matrix.python-version.startsWith('3')", json!(true)),
        ("matrix.Python-Version + matrix.OS", json!("3.13linux")),
        ("has(matrix.python-version) && has(matrix.Os)", json!(true)),
        ("matrix.?python-version.orValue('')", json!("3.13")),
        ("matrix['PYTHON-VERSION']", json!("3.13")),
        ("[1].map(x, matrix.python-version)[0]", json!("3.13")),
        ("matrix.n-1", json!(2)),
        ("'matrix.python-version'", json!("matrix.python-version")),
    ] {
        assert_eq!(eval(text), Ok(value), "{text}");
    }
    let text = "matrix.python-version.nope";
    let error = eval(text).unwrap_err();
    assert!(
        error.message.contains("`matrix.python-version` is"),
        "{}",
        error.message
    );
}

#[test]
fn an_error_says_whether_the_expression_read_a_part_of_a_value() {
    let cut = || {
        Err(Lack {
            reason: "was cut at 16 bytes".to_owned(),
            incomplete: true,
        })
    };
    let below = Scope::new(Layer::new().lazy("body", cut).value("status", json!(200)));
    let title = program("body");
    let over = below.clone();
    let scope = below.with(Layer::new().lazy("title", move || {
        title.eval(&over).map_err(|error| Lack {
            reason: error.message,
            incomplete: error.incomplete,
        })
    }));
    for text in ["!body.contains('ERROR')", "title == 'x'", "title == 'y'"] {
        let error = program(text).eval(&scope).unwrap_err();
        assert!(error.incomplete, "{text}: {error}");
        assert!(error.message.contains("was cut at 16 bytes"), "{error}");
    }
    // A complete value decides, so the part doesn't matter; and no evaluation knows of an earlier one.
    assert_eq!(
        program("status == 200 || body == ''").eval(&scope),
        Ok(json!(true))
    );
    let other = program("status.missing").eval(&scope).unwrap_err();
    assert!(!other.incomplete, "{other}");
}

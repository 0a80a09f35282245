//! Every function, result and context of the expression language, with an example each. docs/language.md is generated
//! from this file.
//!
//! The language itself is defined by lists elsewhere. Tests compare this page with those lists and evaluate every
//! example.

use crate::expr::{Functions, Layer, Scope, builtin_arities};
use serde_json::{Value, json};
use std::fmt::Write;
use std::sync::Arc;

/// One function, result or context that an expression can use.
struct Item {
    name: &'static str,
    /// Description in one line.
    says: &'static str,
    /// An example expression, and a second one with the same value.
    example: (&'static str, &'static str),
}

const fn item(
    name: &'static str,
    says: &'static str,
    example: &'static str,
    gives: &'static str,
) -> Item {
    Item {
        name,
        says,
        example: (example, gives),
    }
}

/// A section of the page.
struct Section {
    title: &'static str,
    about: &'static str,
    items: &'static [Item],
}

#[rustfmt::skip]
const FUNCTIONS: &[Section] = &[
    Section { title: "Texts", about: "Positions count characters, from 0. Nothing is changed in place: each gives a new text.", items: &[
        item("size", "The number of characters of a text, of elements of a list, of keys of a map.", "'abc'.size()", "3"),
        item("contains", "Whether a text is part of it. An element of a list: `x in list`.", "'abc'.contains('b')", "true"),
        item("startsWith", "Whether it begins with a text.", "'v1.2'.startsWith('v')", "true"),
        item("endsWith", "Whether it ends with a text.", "'a.yaml'.endsWith('.yaml')", "true"),
        item("matches", "Whether a regular expression (RE2 syntax) is found in it; `^` and `$` are yours to write.", "'v1.2'.matches('^v[0-9]')", "true"),
        item("indexOf", "Where a text first is, from a position if there is one; -1 if nowhere.", "'abcb'.indexOf('b')", "1"),
        item("lastIndexOf", "Where a text last is; -1 if nowhere.", "'abcb'.lastIndexOf('b')", "3"),
        item("charAt", "The character at a position.", "'abc'.charAt(1)", "'b'"),
        item("substring", "From a position on, or up to another one.", "'abcd'.substring(1, 3)", "'bc'"),
        item("replace", "Every occurrence of a text replaced; with a number, so many of them.", "'a-b-c'.replace('-', '+')", "'a+b+c'"),
        item("split", "A list of what stands between a separator; with a number, at most so many parts.", "'a,b,c'.split(',')", "['a', 'b', 'c']"),
        item("join", "The texts of a list as one, with a separator between them.", "['a', 'b'].join('/')", "'a/b'"),
        item("trim", "Without white space at both ends.", "' a '.trim()", "'a'"),
        item("lowerAscii", "With A to Z in lower case.", "'AbC'.lowerAscii()", "'abc'"),
        item("upperAscii", "With a to z in upper case.", "'AbC'.upperAscii()", "'ABC'"),
        item("reverse", "The characters of a text, or the elements of a list, backwards.", "'abc'.reverse()", "'cba'"),
        item("format", "`%s`, `%d`, `%f`, `%.2f`, `%e`, `%x`, `%X`, `%o`, `%b` replaced by the list's elements.", "'%s has %d'.format(['web', 2])", "'web has 2'"),
        item("strings.quote", "As a quoted text, with escapes.", "strings.quote('a\"b')", "'\"a\\\\\"b\"'"),
    ] },
    Section { title: "Lists and maps", about: "A map is gone through by its keys, in order. `x in list` and `key in map` ask for an element and a key.", items: &[
        item("all", "Whether a condition holds for every element; true of an empty list.", "[1, 2].all(x, x > 0)", "true"),
        item("exists", "Whether it holds for one or more.", "[1, 2].exists(x, x > 1)", "true"),
        item("exists_one", "Whether it holds for exactly one.", "[1, 2].exists_one(x, x > 1)", "true"),
        item("existsOne", "The same as `exists_one`.", "[1, 2].existsOne(x, x > 1)", "true"),
        item("filter", "The elements for which it holds.", "[1, 2, 3].filter(x, x > 1)", "[2, 3]"),
        item("map", "A value made of each element; with three arguments, of those for which the second holds.", "[1, 2].map(x, x * 10)", "[10, 20]"),
        item("has", "Whether a map has a field.", "has(json.id)", "true"),
        item("first", "The first element, as an optional.", "[1, 2].first().value()", "1"),
        item("last", "The last element, as an optional.", "[1, 2].last().value()", "2"),
        item("slice", "The elements from a position up to another one.", "[1, 2, 3].slice(0, 2)", "[1, 2]"),
        item("sort", "In ascending order.", "[3, 1, 2].sort()", "[1, 2, 3]"),
        item("sortBy", "In ascending order of a value made of each element.", "[1, 2, 3].sortBy(x, -x)", "[3, 2, 1]"),
        item("distinct", "Each element once.", "[1, 2, 1].distinct()", "[1, 2]"),
        item("flatten", "The elements of the lists in it; with a number, so many levels deep.", "[[1], [2, 3]].flatten()", "[1, 2, 3]"),
        item("lists.range", "The numbers from 0 up to, but not with, a number.", "lists.range(3)", "[0, 1, 2]"),
    ] },
    Section { title: "What may be missing", about: "`x.?name` and `x[?key]` give an optional: a value, or none if a part is missing. As JSON, none is null.", items: &[
        item("orValue", "The value, or another one if there is none.", "json.?nothing.orValue('none')", "'none'"),
        item("or", "The optional, or another one if it has no value.", "json.?nothing.or(optional.of(1)).value()", "1"),
        item("hasValue", "Whether there is a value.", "json.?id.hasValue()", "true"),
        item("value", "The value; an error if there is none.", "json.?id.value()", "7"),
        item("optMap", "A value made of the value, if there is one.", "json.?id.optMap(x, x + 1).value()", "8"),
        item("optFlatMap", "An optional made of the value, if there is one.", "json.?id.optFlatMap(x, optional.of(x)).value()", "7"),
        item("optional.of", "An optional with a value.", "optional.of(1).hasValue()", "true"),
        item("optional.none", "An optional without one.", "optional.none().hasValue()", "false"),
        item("optional.ofNonZeroValue", "An optional with a value unless it is empty, 0, false or null.", "optional.ofNonZeroValue('').hasValue()", "false"),
    ] },
    Section { title: "Types", about: "Values of different types are never equal. A number and a text aren't added: convert one of them.", items: &[
        item("string", "As text.", "string(42)", "'42'"),
        item("int", "As a whole number; of a number with a fraction what stands before the point.", "int('42')", "42"),
        item("uint", "As a whole number without a sign.", "uint(42) == 42", "true"),
        item("double", "As a number with a fraction.", "double('1.5')", "1.5"),
        item("bool", "As true or false.", "bool('true')", "true"),
        item("bytes", "The bytes of a text.", "bytes('abc').size()", "3"),
        item("type", "The type: `type(x) == list`.", "type(json) == map", "true"),
        item("dyn", "The value itself, of no type that is known in advance.", "dyn(1)", "1"),
        item("fromJSON", "The value that a JSON text holds.", "fromJSON('{\"a\": [1]}').a[0]", "1"),
        item("fromTOML", "The map that a TOML text holds.", "fromTOML('[project]\\nversion = \"1.2\"').project.version", "'1.2'"),
        item("file", "The text of a file of the workspace; only where cells are planned (`strategy`, `cell`, `vars`).", "file('VERSION').trim()", "'1.2'"),
    ] },
    Section { title: "Times", about: "They are compared, added and subtracted. `elapsed` isn't one: it is a number of seconds.", items: &[
        item("duration", "A length of time: `90s`, `1m30s`, `1.5h`.", "duration('1m30s') == duration('90s')", "true"),
        item("timestamp", "A moment, as RFC 3339 writes it.", "timestamp('2026-01-02T00:00:00Z') - timestamp('2026-01-01T00:00:00Z') == duration('24h')", "true"),
        item("getFullYear", "The year of a moment. All of these take a time zone, else UTC.", "timestamp('2026-03-02T01:02:03Z').getFullYear()", "2026"),
        item("getMonth", "The month, from 0.", "timestamp('2026-03-02T01:02:03Z').getMonth()", "2"),
        item("getDate", "The day of the month, from 1.", "timestamp('2026-03-02T01:02:03Z').getDate()", "2"),
        item("getDayOfMonth", "The day of the month, from 0.", "timestamp('2026-03-02T01:02:03Z').getDayOfMonth()", "1"),
        item("getDayOfYear", "The day of the year, from 0.", "timestamp('2026-03-02T01:02:03Z').getDayOfYear()", "60"),
        item("getDayOfWeek", "The day of the week; Sunday is 0.", "timestamp('2026-03-02T01:02:03Z').getDayOfWeek()", "1"),
        item("getHours", "The hour of a moment; of a duration, all of it in hours.", "timestamp('2026-03-02T01:02:03Z').getHours()", "1"),
        item("getMinutes", "The minute; of a duration, all of it in minutes.", "duration('2h').getMinutes()", "120"),
        item("getSeconds", "The second; of a duration, all of it in seconds.", "duration('1m30s').getSeconds()", "90"),
        item("getMilliseconds", "The millisecond of a moment.", "timestamp('2026-03-02T01:02:03.004Z').getMilliseconds()", "4"),
    ] },
];

#[rustfmt::skip]
const RESULTS: &[Section] = &[
    Section { title: "`http`", about: "", items: &[
        item("status", "The status of the answer, a number.", "status == 200", "true"),
        item("headers", "The headers by their names in lower case; a repeated one is joined by `, `.", "headers['content-type']", "'application/json'"),
        item("body", "The answer as text.", "body.contains('id')", "true"),
        item("json", "What the body holds as JSON; null if it is none.", "json.id", "7"),
        item("cookies", "The session's cookies after the answer; without a session, what the answer set.", "cookies.session", "'abc'"),
        item("elapsed", "How long it took, in seconds.", "elapsed < 2", "true"),
    ] },
    Section { title: "`sse`", about: "", items: &[
        item("status", "The status of the answer, a number.", "status", "200"),
        item("headers", "The headers by their names in lower case.", "headers['content-type'].startsWith('application/')", "true"),
        item("event", "The event that fulfilled `until`, else the last: `event`, `id`, `data` (a text) and `json` (what the text holds).", "event.json.last == true && event.data.contains('last')", "true"),
        item("events", "All events, in order.", "events.map(e, e.event)", "['done']"),
        item("elapsed", "How long it took, in seconds.", "elapsed < 2", "true"),
    ] },
    Section { title: "`run`, `exec`, `container: { run: X }`", about: "", items: &[
        item("exit_code", "The exit code, a number.", "exit_code == 0", "true"),
        item("stdout", "What was printed.", "stdout.trim()", "'ok'"),
        item("stderr", "What was printed to standard error.", "stderr == ''", "true"),
        item("elapsed", "How long it took, in seconds.", "elapsed < 2", "true"),
    ] },
];

#[rustfmt::skip]
const CONTEXTS: &[Item] = &[
    item("inputs", "What the caller passed, or the defaults; everywhere but in functions.", "inputs.database", "'postgres'"),
    item("workspace", "`workspace.digest`: of the files that travel to the agent; from the matrix on.", "workspace.digest.size() > 0", "true"),
    item("matrix", "The values of the cell. `matrix.python-version` and `matrix['python-version']` are the same key, and case doesn't matter unless two keys differ in nothing else; in cells.", "matrix.python-version + ' ' + matrix.OS", "'3.13 linux'"),
    item("vars", "The spec's variables; in cells.", "vars.admin", "'root'"),
    item("cell", "`cell.name`, and `cell.id` while it runs; in cells.", "cell.name + cell.id", "'3.130f'"),
    item("secrets", "The spec's secrets, masked wherever they are shown; while the cell runs.", "secrets.token.size() > 7", "true"),
    item("run", "`run.id`, and `run.attempt`: the try at this cell, from 1; while the cell runs.", "run.attempt == 1 && run.id != ''", "true"),
    item("services", "`.host`, `.ip`, `.ipv6` and `.internal_url` are how containers reach a service, `.url` and `.port[N]` how steps do; `.replicas` is a list of the same for each of its replicas; in its own definition only `.host` is known.", "services.web.url + ' ' + string(services.web.port[8080])", "'http://127.0.0.1:4711 4711'"),
    item("port", "A process's own free port, by its name; in its definition.", "port.http", "4711"),
    item("steps", "What steps before this one captured, and `.outcome`, `.reason`, `.attempt`; of a step with `foreach`, `steps.ID[key].NAME`.", "steps.made.id", "7"),
    item("params", "The parameters of the define around a step.", "params.sku", "'book'"),
    item("phalanx", "`phalanx.demo_server`: the command of the server that ships with Phalanx; while the cell runs.", "phalanx.demo_server != ''", "true"),
];

const HEAD: &str = "\
# Functions, results and contexts

<!-- Made by `phalanx docs language > docs/language.md`: don't edit. -->

What expressions can name, each with an example and its value. Expressions are [CEL](https://cel.dev): `==` `!=` `<` `<=` `>` `>=`, `&&` `||` `!`,
`a ? b : c`, `+` `-` `*` `/` `%`, `in`, lists `[1, 2]`, maps `{'a': 1}`, texts in `'…'` or `\"…\"`, `r'…'` without escapes. Where they stand,
and what a text with `${{ }}` becomes, is described in [spec.md](spec.md); functions of your own are `define: { name: { params: [x], value: \"x + 1\" } }`.

One evaluation takes at most 5,000,000 steps and makes at most 128 MiB; what the steps of a cell hand on (captures, parameters) is 64 MiB
at most, its `vars` 16 MiB.
";

/// Returns the page as Markdown.
pub fn markdown() -> String {
    let mut out = HEAD.to_owned();
    let _ = write!(
        out,
        "\n## Contexts\n\n| context | | example | gives |\n|---|---|---|---|\n"
    );
    for item in CONTEXTS {
        row(&mut out, &format!("`{}`", item.name), item);
    }
    let _ = write!(
        out,
        "\n## Results\n\nKnown by their bare names in `until`, `skip`, `capture` and `expect` of the step itself. A step of `use` has the define's captures.\n"
    );
    for section in RESULTS {
        table(&mut out, section, |item| format!("`{}`", item.name));
    }
    let _ = write!(out, "\n## Functions\n");
    for section in FUNCTIONS {
        table(&mut out, section, |item| written(item.name));
    }
    out
}

fn table(out: &mut String, section: &Section, name: impl Fn(&Item) -> String) {
    let _ = write!(out, "\n### {}\n\n", section.title);
    if !section.about.is_empty() {
        let _ = write!(out, "{}\n\n", section.about);
    }
    let _ = write!(out, "| | | example | gives |\n|---|---|---|---|\n");
    for item in section.items {
        row(out, &name(item), item);
    }
}

fn row(out: &mut String, name: &str, item: &Item) {
    let (example, gives) = item.example;
    let code = |text: &str| format!("`{}`", text.replace('|', "\\|"));
    let _ = writeln!(
        out,
        "| {name} | {} | {} | {} |",
        item.says,
        code(example),
        code(gives)
    );
}

/// Returns how a function is called (`x.size()`, `size(x)`), by the numbers of arguments that it takes.
fn written(name: &str) -> String {
    let (global, method) = builtin_arities(name).unwrap_or_default();
    let arguments = |count: &usize| vec!["…"; *count].join(", ");
    let global = global
        .iter()
        .map(|count| format!("`{name}({})`", arguments(count)));
    let method = method
        .iter()
        .map(|count| format!("`x.{name}({})`", arguments(count)));
    global.chain(method).collect::<Vec<_>>().join(" ")
}

/// Returns the scope in which the examples are evaluated.
pub fn sample() -> Scope {
    let event =
        json!({"event": "done", "id": "1", "data": "{\"last\": true}", "json": {"last": true}});
    let names = [
        ("status", json!(200)),
        ("headers", json!({"content-type": "application/json"})),
        ("body", json!("{\"id\": 7}")),
        ("json", json!({"id": 7})),
        ("cookies", json!({"session": "abc"})),
        ("elapsed", json!(0.12)),
        ("event", event.clone()),
        ("events", json!([event])),
        ("exit_code", json!(0)),
        ("stdout", json!("ok\n")),
        ("stderr", json!("")),
        ("inputs", json!({"database": "postgres"})),
        ("workspace", json!({"digest": "sha256:0"})),
        ("matrix", json!({"python-version": "3.13", "os": "linux"})),
        ("vars", json!({"admin": "root"})),
        ("cell", json!({"name": "3.13", "id": "0f"})),
        ("secrets", json!({"token": "0123456789"})),
        ("run", json!({"id": "r1", "attempt": 1})),
        (
            "services",
            json!({"web": {"url": "http://127.0.0.1:4711", "port": {crate::expr::int_key(8080): 4711}}}),
        ),
        ("port", json!({"http": 4711})),
        ("steps", json!({"made": {"id": 7}})),
        ("params", json!({"sku": "book"})),
        ("phalanx", json!({"demo_server": "phalanx-demo-server"})),
    ];
    let files = Functions::default().read_files(Arc::new(|_: &str| Ok("1.2\n".to_owned())));
    let layer = names
        .into_iter()
        .fold(Layer::new(), |layer, (name, value): (&str, Value)| {
            layer.value(name, value)
        });
    Scope::new(layer.functions(files))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::diagnostic::Span;
    use crate::expr::{MatrixKeys, Program, builtin_functions};
    use crate::language::check::{
        COMMAND_RESULTS, HTTP_RESULTS, OF_EVENT, OF_SERVICE, SSE_RESULTS,
    };
    use crate::language::shape::name;
    use crate::node::Expr;
    use std::collections::BTreeSet;

    fn value(text: &str) -> Value {
        let span = Span {
            line: 1,
            len: text.len() as u32,
            ..Span::default()
        };
        let expr = Expr {
            text: text.to_owned(),
            span,
        };
        let keys = MatrixKeys::of(["python-version", "os"]);
        let program =
            Program::parse_knowing(&expr, &keys).unwrap_or_else(|e| panic!("{text}: {e:?}"));
        program
            .eval(&sample())
            .unwrap_or_else(|e| panic!("{text}: {e:?}"))
    }

    fn names<'a>(items: impl IntoIterator<Item = &'a Item>) -> Vec<&'a str> {
        items.into_iter().map(|item| item.name).collect()
    }

    #[test]
    fn every_function_is_on_the_page_once_and_no_other() {
        let mut told = names(FUNCTIONS.iter().flat_map(|section| section.items));
        let mut registered: Vec<&str> = builtin_functions().collect();
        told.sort_unstable();
        registered.sort_unstable();
        assert_eq!(told, registered);
    }

    #[test]
    fn every_result_and_context_is_on_the_page_and_no_other() {
        let of = [
            HTTP_RESULTS.to_vec(),
            SSE_RESULTS.to_vec(),
            COMMAND_RESULTS.to_vec(),
        ];
        for (section, known) in RESULTS.iter().zip(of) {
            assert_eq!(names(section.items), known, "{}", section.title);
        }
        let told: BTreeSet<&str> = names(CONTEXTS).into_iter().collect();
        let known: BTreeSet<&str> = name::CONTEXTS.into_iter().chain(["port"]).collect();
        assert_eq!(told, known);
        let page = markdown();
        for part in OF_SERVICE.into_iter().chain(OF_EVENT) {
            assert!(
                page.contains(&format!("`{part}`")) || page.contains(&format!("`.{part}")),
                "{part}"
            );
        }
    }

    #[test]
    fn every_example_gives_what_the_page_says() {
        let sections = FUNCTIONS
            .iter()
            .chain(RESULTS)
            .flat_map(|section| section.items);
        for item in sections.chain(CONTEXTS) {
            let (example, gives) = item.example;
            assert_eq!(value(example), value(gives), "{example}");
            let bare = item.name.rsplit('.').next().unwrap_or_default();
            assert!(example.contains(bare), "{example} doesn't show {bare}");
        }
    }
}

//! The language: matrices, names, YAML, hints, the reference page.

use crate::place::Place;
use crate::{Need, Test};

pub fn tests() -> Vec<Test> {
    vec![
        (
            Need::Nothing,
            "an axis may have a dash in its name, as in GitHub",
            dashes,
        ),
        (
            Need::Nothing,
            "a matrix that comes out empty is an error that names the input",
            empty_matrix,
        ),
        (
            Need::Nothing,
            "keys of the matrix are read without regard to case, as in GitHub",
            case_of_keys,
        ),
        (
            Need::Nothing,
            "a closing bracket may stand in its key's column",
            closing_brackets,
        ),
        (
            Need::Nothing,
            "a bracket that isn't closed is reported where it shows",
            open_bracket,
        ),
        (
            Need::Nothing,
            "validate tells of what no cell reaches with the defaults",
            defaults,
        ),
        (
            Need::Nothing,
            "validate plans no spec that wants an input",
            wants_an_input,
        ),
        (
            Need::Nothing,
            "repeated warnings are one with its places",
            repeated_warnings,
        ),
        (
            Need::Nothing,
            "words of other languages get the word of this one",
            foreign_words,
        ),
        (
            Need::Nothing,
            "a list of paths is enough for artifacts",
            artifacts_as_written,
        ),
        (Need::Nothing, "docs language prints the page", page),
    ]
}

fn cells(place: &Place, arguments: &[&str]) -> Vec<serde_json::Value> {
    let said = place.call(&[&["plan", "spec.yaml", "--format", "json"], arguments].concat());
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    let plan: serde_json::Value = serde_json::from_str(&said.stdout).unwrap();
    let cells = plan["cells"].as_array().unwrap();
    cells.iter().map(|cell| cell["matrix"].clone()).collect()
}

fn dashes() {
    use serde_json::json;
    let place = Place::of_field("matrix-axis-with-dash");
    let expected = [
        json!({"python-version": "3.10", "os": "linux"}),
        json!({"python-version": "3.13", "os": "linux", "extra-args": "--fast"}),
    ];
    assert_eq!(cells(&place, &[]), expected);
    assert_eq!(
        cells(&place, &["--only", "python-version=3.10"]),
        expected[..1]
    );
    place.write(
        "spec.yaml",
        "name: s
inputs: { more: { default: '[{\"node-version\": 22}]' } }
strategy: { matrix: { n: [7], include: \"${{ fromJSON(inputs.more) }}\" } }
vars: { less: \"${{ matrix.n-1 }}\", node: \"${{ matrix.node-version }}\" }
cell: { name: \"${{ vars.less }} ${{ matrix.node-version + 1 }} ${{ has(matrix.node-version) }}\" }
phases: { t: [{ run: 'true', expect: [\"matrix['node-version'] == vars.node && matrix.?node-version.orValue(0) == 22\"] }] }
",
    );
    let said = place.call(&["run", "spec.yaml"]);
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    assert!(said.stderr.contains("6 23 true"), "{}", said.stderr);
}

fn empty_matrix() {
    let place = Place::of_field("matrix-empty-dynamic");
    for command in ["plan", "run", "validate"] {
        for given in ["[]", "null"] {
            place.write(
                "spec.yaml",
                Place::of_field("matrix-empty-dynamic")
                    .read("spec.yaml")
                    .replace("\"[]\"", &format!("\"{given}\"")),
            );
            let said = place.call(&[command, "spec.yaml"]);
            assert_eq!(said.code, Some(2), "{command} {given}: {}", said.stderr);
            assert!(
                said.stderr.contains("the matrix is empty"),
                "{}",
                said.stderr
            );
            assert!(
                said.stderr.contains("input `targets` is"),
                "{}",
                said.stderr
            );
        }
    }
    let axis = |value: &str| {
        format!(
            "name: s\ninputs: {{ a: {{ type: list, default: {value} }} }}\nstrategy: {{ matrix: {{ a: \"${{{{ inputs.a }}}}\" }} }}\nphases: {{ t: [{{ run: 'true' }}] }}\n"
        )
    };
    for value in ["[]", "null"] {
        place.write("spec.yaml", axis(value));
        let said = place.call(&["plan", "spec.yaml"]);
        assert_eq!(said.code, Some(2), "{value}: {}", said.stdout);
        assert!(said.stderr.contains("input `a` is"), "{}", said.stderr);
    }
    place.write("spec.yaml", "name: s\nphases: { t: [{ run: 'true' }] }\n");
    assert_eq!(place.call(&["plan", "spec.yaml"]).code, Some(0));
}

fn case_of_keys() {
    use serde_json::json;
    let place = Place::new();
    place.write(
        "spec.yaml",
        "name: s
strategy: { matrix: { python: [3, 4], exclude: [{ Python: 4 }], include: [{ PYTHON: 3, Extra: 1 }] } }
cell: { name: \"${{ matrix.Python }} ${{ matrix['EXTRA'] }}\" }
phases: { t: [{ run: 'true' }] }
",
    );
    assert_eq!(
        cells(&place, &["--only", "PYTHON=3"]),
        [json!({"python": 3, "Extra": 1})]
    );
    place.replace("spec.yaml", "python: [3, 4]", "python: [3], Python: [4]");
    let said = place.call(&["validate", "spec.yaml"]);
    assert_eq!(said.code, Some(2));
    assert!(
        said.stderr.contains("differ in case only"),
        "{}",
        said.stderr
    );
}

fn closing_brackets() {
    let place = Place::of_field("yaml-bracket-after-quoted");
    assert_eq!(cells(&place, &[]).len(), 4);
    // Maps, nesting, comments, numbers and a block scalar, then an error whose place must be right.
    place.write(
        "spec.yaml",
        "name: s
strategy:
  matrix:
    a: [
      'ä', # one
      \"b\", # two ]
    # three
    ]
    b: [
    1,
2,
    { x: 'y',
    },
    ] # end
vars:
  text: |
    [
    not a list
  map: {
    \"one\": [
      \"two\",
    ],
  }
phases:
  t: [
    { run: 'true' },
  ]
  u:
    - run: 'true'
      expect: [
        \"matrix.nope == 1\",
      ]
",
    );
    let said = place.call(&["validate", "spec.yaml"]);
    assert_eq!(said.code, Some(2), "{}", said.stderr);
    assert!(
        said.stderr.contains("no key of the matrix `nope`"),
        "{}",
        said.stderr
    );
    assert!(said.stderr.contains("spec.yaml:31:17"), "{}", said.stderr);
    assert!(said.stderr.contains(": 1 error"), "{}", said.stderr);
    place.replace("spec.yaml", "nope == 1", "a != 'z'");
    assert_eq!(cells(&place, &[]).len(), 6);
}

fn open_bracket() {
    let place = Place::of_field("ux");
    let said = place.call(&["validate", "m20-regex.yaml"]);
    assert_eq!(said.code, Some(2));
    assert!(
        said.stderr.contains("m20-regex.yaml:19:7"),
        "{}",
        said.stderr
    );
    assert!(said.stderr.contains("is not closed"), "{}", said.stderr);
}

fn defaults() {
    let place = Place::of_field("ux");
    let warned = |file: &str, words: &[&str]| {
        let said = place.call(&["validate", file]);
        assert_eq!(said.code, Some(0), "{file}: {}", said.stderr);
        for word in words {
            assert!(
                said.stderr.contains(word),
                "{file}: {word}: {}",
                said.stderr
            );
        }
        assert!(said.stdout.contains("1 warning"), "{file}: {}", said.stdout);
    };
    warned(
        "m16-exclude-nomatch.yaml",
        &["matches no cell", "the values of `ver` are \"v1\", \"v2\""],
    );
    warned(
        "m17-matrix-value-typo.yaml",
        &["`when` holds in no cell", "`matrix.ver` is \"v1\", \"v2\""],
    );
    warned(
        "m28-workspace-missing.yaml",
        &["`nope/*.py` matches no file"],
    );
    let said = place.call(&["validate", "m09-missing-reason.yaml"]);
    assert_eq!((said.code, said.stderr.as_str()), (Some(0), ""));
    place.replace(
        "m16-exclude-nomatch.yaml",
        "{ ver: v9 }",
        "{ ver: v1 }, { ver: v2 }",
    );
    let said = place.call(&["validate", "m16-exclude-nomatch.yaml"]);
    assert_eq!(said.code, Some(2));
    assert!(
        said.stderr.contains("`exclude` removes all 4 combinations"),
        "{}",
        said.stderr
    );
}

fn wants_an_input() {
    let place = Place::new();
    place.write(
        "spec.yaml",
        "name: s\ninputs: { v: {} }\nstrategy: { matrix: { a: \"${{ [inputs.v] }}\" } }\nphases: { t: [{ run: 'true' }] }\n",
    );
    assert_eq!(place.call(&["validate", "spec.yaml"]).code, Some(0));
    place.replace(
        "spec.yaml",
        "{ v: {} }",
        "{ v: { default: '' } }\nrequire: [{ that: \"inputs.v != ''\", message: give v }]",
    );
    let said = place.call(&["validate", "spec.yaml"]);
    assert_eq!(said.code, Some(0), "{}", said.stderr);
}

fn repeated_warnings() {
    let place = Place::new();
    let services: String = (0..14)
        .map(|at| format!("  s{at}: {{ image: x, logging: {{ driver: none }} }}\n"))
        .collect();
    place.write(
        "spec.yaml",
        format!("name: s\nservices:\n{services}phases: {{ t: [{{ run: 'true' }}] }}\n"),
    );
    let said = place.call(&["validate", "spec.yaml"]);
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    assert_eq!(
        said.stderr.matches("`logging` is not used").count(),
        1,
        "{}",
        said.stderr
    );
    assert!(
        said.stderr.contains("`logging` is not used, 14 places"),
        "{}",
        said.stderr
    );
    assert!(
        said.stderr.contains("spec.yaml:4, spec.yaml:5"),
        "{}",
        said.stderr
    );
    assert!(said.stdout.contains("14 warnings"), "{}", said.stdout);
}

/// It was written when `artifacts` was reserved: a list with a path in the workspace is enough.
fn artifacts_as_written() {
    let place = Place::of_field("ux");
    let said = place.call(&[
        "run",
        "m35-artifacts.yaml",
        "--only",
        "db=pg",
        "--only",
        "ver=v1",
    ]);
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    let listed = place.call(&["artifacts", "last"]);
    assert_eq!(listed.code, Some(0), "{}", listed.stderr);
    assert!(
        listed.stdout.contains("not kept: no file matches x.png"),
        "{}",
        listed.stdout
    );
}

fn foreign_words() {
    let place = Place::of_field("ux");
    let hint = |file: &str, words: &[&str]| {
        let said = place.call(&["validate", file]);
        assert_eq!(said.code, Some(2), "{file}: {}", said.stderr);
        let text = said
            .stderr
            .split_whitespace()
            .filter(|word| *word != "|")
            .collect::<Vec<_>>()
            .join(" ");
        for word in words {
            assert!(text.contains(word), "{file}: {word}: {}", said.stderr);
        }
    };
    hint(
        "m21-wrong-fn.yaml",
        &["no function `toUpper`", "write x.upperAscii()"],
    );
    hint("m23-foreach-list.yaml", &["`foreach: { item: [a, b] }`"]);
    hint("m25-no-expect-step.yaml", &["a step does something"]);
    hint("m32-gha-contains.yaml", &["quote the whole"]);
    hint(
        "elapsed-duration.yaml",
        &["`elapsed` is a number of seconds", "elapsed < 2"],
    );
    hint(
        "sse-event-data.yaml",
        &["`data` of an event is a text", "event.json.last"],
    );
    hint(
        "durations.yaml",
        &["status == 200", "headers['content-type']", "elapsed < 2"],
    );
    let expect = |expression: &str, words: &[&str]| {
        let quoted = serde_json::to_string(expression).unwrap();
        place.write("e.yaml", format!("name: s\nphases: {{ t: [{{ http: {{ get: 'http://x' }}, expect: [{quoted}] }}] }}\n"));
        hint("e.yaml", words);
    };
    expect(
        "env.HOME == '/'",
        &["the machine's environment is not read"],
    );
    expect(
        "contains(body, 'x')",
        &["`contains` is a method", "x.contains(…)"],
    );
    expect("body =~ 'x'", &["`=~` is not an operator", "x.matches("]);
    expect("status === 200", &["write `==`"]);
    expect("response.status == 200", &["by their bare names: status"]);
    expect("body.id == 7", &["`body` is a text", "json.id"]);
    expect("success()", &["`always: true`"]);
}

fn page() {
    let said = Place::new().call(&["docs", "language"]);
    assert_eq!(said.code, Some(0));
    assert!(said.stdout.contains("| `x.trim()` |"), "{}", said.stdout);
}

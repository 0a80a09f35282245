//! Small specs that would grow without limit.

use crate::place::{Place, ended};
use crate::rig::{Coordinator, Fleet};
use crate::{Need, Test};
use phalanx_proto::v1;
use std::process::Command;

pub fn tests() -> Vec<Test> {
    vec![
        (
            Need::Nothing,
            "no small spec takes the memory of who plans it",
            plans,
        ),
        (
            Need::Nothing,
            "a coordinator answers an honest client after every bomb",
            coordinator,
        ),
        (
            Need::Nothing,
            "variables that only a step reads end their cell, and no start after it",
            in_a_step,
        ),
        (
            Need::Nothing,
            "captures that double fail their step, and the agent goes on",
            captures,
        ),
        (
            Need::Nothing,
            "parameters that double fail their step, and the agent goes on",
            parameters,
        ),
    ]
}

/// Limit on the address space of a bomb's process. Normal programs need only a part of it.
const LIMIT: &str = "--as=3221225472";

/// Returns a spec with these variables; the last one names the cell.
fn variables(first: &str, last: usize, next: impl Fn(&str) -> String) -> String {
    let vars: String = (1..=last)
        .map(|at| format!("  v{at}: {}\n", next(&format!("vars.v{}", at - 1))))
        .collect();
    format!(
        "name: b\nvars:\n  v0: {first}\n{vars}cell: {{ name: \"${{{{ size(vars.v{last}) }}}}\" }}\nphases: {{ t: [{{ run: 'true' }}] }}\n"
    )
}

/// Returns specs, each with a word of its error message.
fn bombs() -> Vec<(&'static str, String, &'static str)> {
    let expression = |text: &str| {
        format!(
            "name: b\nvars: {{ v: \"${{{{ {text} }}}}\" }}\ncell: {{ name: \"${{{{ size(vars.v) }}}}\" }}\nphases: {{ t: [{{ run: 'true' }}] }}\n"
        )
    };
    let axes: String = (0..9)
        .map(|at| format!("    a{at}: [0,1,2,3,4,5,6,7,8,9]\n"))
        .collect();
    let functions: String = (0..7)
        .map(|at| {
            let calls = vec![format!("f{}(x)", at + 1); 30].join(" + ");
            let long = " ".repeat(8_000);
            format!("  f{at}: {{ params: [x], value: \"{calls}{long}+ x\" }}\n")
        })
        .collect();
    vec![
        ("texts added", variables("xx", 20, |v| format!("\"${{{{ {v} + {v} + {v} + {v} }}}}\"")), "MiB"),
        ("texts interpolated", variables("xx", 20, |v| format!("\"${{{{ {v} }}}}${{{{ {v} }}}}${{{{ {v} }}}}\"")), "MiB"),
        ("lists added", variables("[1, 2]", 20, |v| format!("\"${{{{ {v} + {v} + {v} + {v} }}}}\"")), "MiB"),
        ("lists in lists", variables("[1, 2]", 20, |v| format!("\"${{{{ [{v}, {v}, {v}, {v}] }}}}\"")), "MiB"),
        ("maps in maps", variables("{ a: 1 }", 20, |v| format!("\"${{{{ {{'a': {v}, 'b': {v}, 'c': {v}, 'd': {v}}} }}}}\"")), "MiB"),
        ("written lists", variables("[1, 2]", 20, |v| format!("[\"${{{{ {v} }}}}\", \"${{{{ {v} }}}}\", \"${{{{ {v} }}}}\"]")), "MiB"),
        ("depth", variables("[1]", 900, |v| format!("\"${{{{ [[[[{v}]]]] }}}}\"")), "levels"),
        ("written depth", variables("[1]", 900, |v| format!("[[[[\"${{{{ {v} }}}}\"]]]]")), "levels"),
        ("many variables", variables("1", 2_000, |v| format!("\"${{{{ {v} + 1 }}}}\"")), "variables"),
        ("joined", expression(&format!("lists.range(100000).map(i, 'x').join('{}')", "y".repeat(20_000))), "too large"),
        ("replaced", expression(&format!("['{0}', '{0}', '{0}'].join().replace('x', '{0}')", "x".repeat(8_000))), "too large"),
        ("mapped", expression(&format!("lists.range(900000).map(i, '{}')", "x".repeat(1_000))), "too large"),
        ("visited", expression("lists.range(1000).map(a, lists.range(1000).map(b, lists.range(1000).map(c, 1)))"), "too"),
        ("functions", format!("name: b\ndefine:\n{functions}  f7: {{ params: [x], value: x + x }}\nvars: {{ v: \"${{{{ f0('x') }}}}\" }}\ncell: {{ name: \"${{{{ size(vars.v) }}}}\" }}\nphases: {{ t: [{{ run: 'true' }}] }}\n"), "too"),
        ("a pattern", expression("['a'].exists(x, x.matches('(((a{1,100}){1,100}){1,100}){1,100}')) ? 'a' : 'b'"), "regular expression"),
        ("cells", format!("name: b\nstrategy:\n  matrix:\n{axes}phases: {{ t: [{{ run: 'true' }}] }}\n"), "a0 10 × a1 10 × a2 10"),
        ("a million cells", format!("name: b\nstrategy:\n  matrix:\n{}phases: {{ t: [{{ run: 'true' }}] }}\n", axes.lines().take(6).map(|line| format!("{line}\n")).collect::<String>()), "1000000 cells"),
        ("a pattern that others take for ever for", format!("name: b\ninputs: {{ s: {{ default: '{}!' }} }}\nrequire: [{{ that: \"inputs.s.matches('^(a+)+$')\", message: no such name }}]\nphases: {{ t: [{{ run: 'true' }}] }}\n", "a".repeat(30_000)), "no such name"),
        ("cells of one expression", "name: b\nstrategy: { matrix: { a: \"${{ lists.range(100000) }}\", b: \"${{ lists.range(100000) }}\" } }\nphases: { t: [{ run: 'true' }] }\n".to_owned(), "a 100000 × b 100000"),
        ("large values", "name: b\nstrategy: { matrix: { a: \"${{ lists.range(1000).map(x, lists.range(900).map(y, 'x').join() + string(x)) }}\", b: \"${{ lists.range(900) }}\" } }\nphases: { t: [{ run: 'true' }] }\n".to_owned(), "MiB"),
        ("names", "name: b\nstrategy: { matrix: { a: \"${{ lists.range(20) }}\" } }\ncell: { name: \"${{ lists.range(5000).map(x, 'x').join() }}\" }\nphases: { t: [{ run: 'true' }] }\n".to_owned(), "4096"),
        ("entries", "name: b\nstrategy: { matrix: { a: \"${{ lists.range(1000) }}\", b: \"${{ lists.range(900) }}\", exclude: \"${{ lists.range(100000).map(x, {'a': x}) }}\" } }\nphases: { t: [{ run: 'true' }] }\n".to_owned(), "would take too long"),
        ("variables of many cells", format!("name: b\nstrategy: {{ matrix: {{ a: \"${{{{ lists.range(9000) }}}}\" }} }}\nvars: {{ big: \"${{{{ lists.range(600).map(x, '{}').join() }}}}\", v: \"${{{{ vars.big.contains(string(matrix.a)) }}}}\" }}\ncell: {{ name: \"${{{{ vars.v }}}} ${{{{ matrix.a }}}}\" }}\nphases: {{ t: [{{ run: 'true' }}] }}\n", "x".repeat(6_000)), "take too long"),
    ]
}

fn plans() {
    let place = Place::new();
    for (name, text, word) in bombs() {
        place.write("bomb.yaml", text);
        let plan = place.phalanx(&["plan", "bomb.yaml"]);
        let mut limited = Command::new("prlimit");
        limited
            .arg(LIMIT)
            .arg(plan.get_program())
            .args(plan.get_args());
        limited
            .env_clear()
            .envs(plan.get_envs().filter_map(|(k, v)| Some((k, v?))));
        limited.current_dir(place.path());
        let said = ended(&mut limited);
        let head: String = said.stderr.chars().take(1_500).collect();
        assert_eq!(said.code, Some(2), "{name}: {head}");
        assert!(said.stderr.contains(word), "{name}: {head}");
        assert!(
            said.stderr.len() < 200_000,
            "{name}: {} bytes are said",
            said.stderr.len()
        );
    }
}

fn limit(process: u32) {
    let limited = Command::new("prlimit")
        .args(["--pid", &process.to_string(), LIMIT])
        .status();
    assert!(limited.unwrap().success());
}

fn coordinator() {
    let fleet = Fleet::new();
    let mut at = fleet.serve();
    limit(at.process.id());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    // The coordinator uses the same planner as `plan`. Bombs that cost only time do so here as well.
    let of_time = ["visited", "functions", "variables of many cells"];
    let bombs = bombs().into_iter();
    for (name, text, _) in bombs.filter(|(name, ..)| !of_time.contains(name)) {
        let answer = runtime.block_on(submit(&at, text));
        let status = answer.expect_err(name);
        assert_eq!(
            status.code(),
            tonic::Code::InvalidArgument,
            "{name}: {status:?}"
        );
        assert!(at.process.lives(), "{name}: {}", at.process.said());
    }
    let honest = "name: h\nphases: { t: [{ run: 'true' }] }\n".to_owned();
    let run = runtime.block_on(submit(&at, honest)).unwrap();
    let (code, runs, said) = fleet.call(&at, &["runs"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(runs.contains(&run), "{runs}");
}

async fn submit(at: &Coordinator, text: String) -> Result<String, tonic::Status> {
    let name = "spec.yaml".to_owned();
    let request = v1::SubmitRequest {
        files: vec![v1::SourceFile { name, text }],
        ..v1::SubmitRequest::default()
    };
    let answer = at.client().await.submit(request).await?;
    Ok(answer.into_inner().run_id)
}

/// Runs a spec on an agent with limited memory, then an honest one. Returns the output for the first.
fn on_an_agent(bomb: &str) -> String {
    let fleet = Fleet::new();
    let at = fleet.serve();
    let mut agent = fleet.agent_within(&["prlimit", LIMIT], "one", &at.url(), 2);
    std::fs::write(fleet.path("bomb.yaml"), bomb).unwrap();
    let (code, _, said) = fleet.call(&at, &["run", "bomb.yaml"]);
    assert_eq!(code, Some(1), "{said}");
    std::fs::write(
        fleet.path("honest.yaml"),
        "name: h\nphases: { t: [{ run: 'true' }] }\n",
    )
    .unwrap();
    let (code, _, honest) = fleet.call(&at, &["run", "honest.yaml"]);
    assert_eq!(code, Some(0), "{honest}");
    assert!(agent.lives(), "{}", agent.said());
    said
}

fn captures() {
    let steps: String = (1..26)
        .map(|at| {
            let v = format!("steps.s{}.v", at - 1);
            format!("    - {{ id: s{at}, run: 'true', capture: {{ v: \"{v} + {v}\" }} }}\n")
        })
        .collect();
    let spec = format!(
        "name: g\nphases:\n  t:\n    - {{ id: s0, run: 'true', capture: {{ v: \"'xxxxxxxx'\" }} }}\n{steps}"
    );
    let said = on_an_agent(&spec);
    assert!(
        said.contains("of this cell hold more than 64 MiB"),
        "{said}"
    );
}

fn parameters() {
    let defines: String = (0..26)
        .map(|at| {
            let next = "\"${{ params.x + params.x }}\"";
            format!(
                "  d{at}: {{ params: [x], steps: [{{ use: d{}, with: {{ x: {next} }} }}] }}\n",
                at + 1
            )
        })
        .collect();
    let spec = format!(
        "name: g\ndefine:\n{defines}  d26: {{ params: [x], steps: [{{ run: 'true' }}] }}\nphases: {{ t: [{{ use: d0, with: {{ x: xxxxxxxx }} }}] }}\n"
    );
    let said = on_an_agent(&spec);
    assert!(
        said.contains("of this cell hold more than 64 MiB"),
        "{said}"
    );
}

/// The bomb is journaled before it is evaluated. It kills neither the coordinator, nor its next start, nor the agent.
fn in_a_step() {
    let fleet = Fleet::new();
    let mut at = fleet.serve();
    limit(at.process.id());
    let mut agent = fleet.agent_within(&["prlimit", LIMIT], "one", &at.url(), 2);
    let doubling = variables("xx", 20, |v| {
        format!("\"${{{{ {v} + {v} + {v} + {v} }}}}\"")
    });
    let spec = doubling
        .replace("cell: { name: \"${{ size(vars.v20) }}\" }\n", "")
        .replace("run: 'true'", "run: 'echo ${{ vars.v20 }}'");
    assert!(!spec.contains("cell:") && spec.contains("echo"), "{spec}");
    std::fs::write(fleet.path("bomb.yaml"), spec).unwrap();
    let (code, _, said) = fleet.call(&at, &["run", "bomb.yaml"]);
    assert!(matches!(code, Some(1..=3)), "{code:?} {said}");
    assert!(said.contains("MiB"), "{said}");
    for _ in 0..2 {
        assert!(at.process.lives() && agent.lives(), "{}", at.process.said());
        let address = at.killed();
        at = fleet.serve_at(&address);
        limit(at.process.id());
        fleet.wait_for_state(&at, "one", "connected");
    }
    let honest = "name: h\nphases: { t: [{ run: 'true' }] }\n";
    std::fs::write(fleet.path("honest.yaml"), honest).unwrap();
    let (code, _, said) = fleet.call(&at, &["run", "honest.yaml"]);
    assert_eq!(code, Some(0), "{said}");
}

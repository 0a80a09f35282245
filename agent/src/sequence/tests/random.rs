//! Tests properties over random trees, ends and interruptions.

use super::*;
use std::fmt::Write;

/// A random step and the remaining nesting depth of groups.
#[derive(Clone, Debug)]
struct RandomStep {
    kind: u8,
    inside: Vec<RandomStep>,
    always: bool,
    goes_on: bool,
    when: bool,
    retry: bool,
    timeout: bool,
}

fn step(depth: u32) -> BoxedStrategy<RandomStep> {
    let inside = match depth {
        0 => Just(Vec::new()).boxed(),
        _ => prop::collection::vec(step(depth - 1), 0..4).boxed(),
    };
    let marks = prop::array::uniform5(prop::bool::weighted(0.2));
    (0u8..7, inside, marks)
        .prop_map(
            move |(kind, inside, [always, goes_on, when, retry, timeout])| RandomStep {
                kind: if depth == 0 { kind % 2 } else { kind },
                inside,
                always,
                goes_on,
                when,
                retry,
                timeout,
            },
        )
        .boxed()
}

/// Writes YAML in flow style with unique step names.
fn write(steps: &[RandomStep], count: &mut usize, out: &mut String) {
    for step in steps {
        *count += 1;
        let _ = write!(out, "{{ name: s{count}");
        for (on, mark) in [
            (step.always, ", always: true"),
            (step.goes_on, ", continue-on-failure: true"),
            (step.when, ", when: 'true'"),
            (step.retry, ", retry: { times: 1 }"),
        ] {
            if on {
                out.push_str(mark);
            }
        }
        let group = matches!(step.kind, 2..=6) && !step.inside.is_empty();
        if step.timeout && group {
            out.push_str(", timeout: 1m");
        }
        match step.kind {
            // Each loop has its own variable, because one may not hide another.
            1 | 5 => {
                let _ = write!(out, ", foreach: {{ v{count}: [a, b] }}");
            }
            _ => {}
        }
        match step.kind {
            2 | 3 | 5 | 6 if group => {
                out.push_str(", steps: [");
                write(&step.inside, count, out);
                out.push(']');
            }
            4 if group => {
                out.push_str(", parallel: [");
                write(&step.inside, count, out);
                out.push(']');
            }
            _ => out.push_str(", run: x"),
        }
        out.push_str(" }, ");
    }
}

/// Drives a random sequence with random ends, order and interruptions.
fn drive(
    phases: &[Vec<RandomStep>],
    rng: &mut TestRng,
    interruptions: bool,
) -> (Performer, String) {
    let (mut yaml, mut count) = (String::from("phases: { "), 0);
    for (index, steps) in phases.iter().enumerate() {
        let _ = write!(yaml, "p{index}: [");
        write(steps, &mut count, &mut yaml);
        yaml.push_str("], ");
    }
    yaml.push('}');
    let mut ran = Performer::new(&yaml, &[]);
    for index in 1..=count {
        let outcomes = (0..3)
            .map(|_| match rng.random_range(0..10) {
                0 | 1 => Outcome::Failed,
                2 => Outcome::Errored,
                3 => Outcome::Skipped,
                _ => Outcome::Passed,
            })
            .collect();
        ran.script.insert(format!("s{index}"), outcomes);
        ran.whens.insert(format!("s{index}"), rng.random_bool(0.6));
    }
    ran.input(Input::Start);
    while ran.finished.is_none() {
        let timer = rng.random_range(0..ran.armed.len().max(1));
        if interruptions && rng.random_bool(0.05) && timer < ran.armed.len() {
            let (timer, _) = ran.armed.remove(timer);
            ran.input(Input::Fired(timer));
        } else if !ran.acting.is_empty() {
            let which = rng.random_range(0..ran.acting.len());
            ran.end(which);
        } else if !ran.fire(|timer| matches!(timer, Timer::Retry(_))) {
            panic!("stuck: {yaml}\n{:#?}", ran.core);
        }
    }
    assert!(ran.acting.is_empty(), "acting after the end: {yaml}");
    (ran, yaml)
}

/// Collects the paths of all steps that can have an outcome. Every step of the tree is reported at least once, under
/// its own path or with a key.
fn expected(steps: &[RandomStep], path: &str, into: &mut BTreeSet<String>) {
    for (index, step) in steps.iter().enumerate() {
        let path = format!("{path}/{index}");
        into.insert(path.clone());
        if matches!(step.kind, 2..=6) {
            expected(&step.inside, &path, into);
        }
    }
}

fn without_keys(path: &str) -> String {
    let mut out = String::new();
    let mut inside = false;
    for c in path.chars() {
        match c {
            '[' => inside = true,
            ']' => inside = false,
            c if !inside => out.push(c),
            _ => {}
        }
    }
    out
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_step_gets_its_outcome_and_none_two(
        phases in prop::collection::vec(prop::collection::vec(step(3), 1..5), 1..4),
        interruptions: bool,
        seed: [u8; 32],
    ) {
        let mut rng = TestRng::from_seed(prop::test_runner::RngAlgorithm::ChaCha, &seed);
        let (ran, yaml) = drive(&phases, &mut rng, interruptions);
        let mut paths = BTreeSet::new();
        for (index, steps) in phases.iter().enumerate() {
            expected(steps, &format!("p{index}"), &mut paths);
        }
        let told: BTreeSet<String> = ran.results.iter().map(|r| without_keys(&r.path)).collect();
        prop_assert_eq!(&told, &paths, "{}", yaml);
        let retried = phases.iter().flatten().any(any_retry);
        if !retried {
            let mut seen = BTreeSet::new();
            for result in &ran.results {
                prop_assert!(seen.insert(result.path.clone()), "{} twice: {}", result.path, yaml);
            }
        }
        for result in &ran.results {
            let with_reason = result.reason.is_some() || matches!(result.outcome, Outcome::Passed | Outcome::Flaky);
            prop_assert!(with_reason, "no reason for {} {}: {}", result.path, result.outcome, yaml);
        }
    }

    #[test]
    fn a_cell_is_as_bad_as_its_worst_step(
        phases in prop::collection::vec(prop::collection::vec(step(2), 1..4), 1..3),
        seed: [u8; 32],
    ) {
        let mut rng = TestRng::from_seed(prop::test_runner::RngAlgorithm::ChaCha, &seed);
        let (ran, yaml) = drive(&phases, &mut rng, false);
        if !phases.iter().flatten().any(any_retry) {
            let bad = |outcome: &Outcome| !outcome.is_ok();
            let worst = ran.results.iter().map(|r| r.outcome).filter(bad).max();
            let cell = Some(ran.outcome()).filter(bad);
            prop_assert_eq!(cell, worst, "{}", yaml);
        }
    }

    #[test]
    fn top_level_always_steps_run_unless_time_is_up(
        phases in prop::collection::vec(prop::collection::vec(step(2), 1..4), 1..3),
        seed: [u8; 32],
    ) {
        let mut phases = phases;
        for steps in &mut phases {
            steps.push(RandomStep {
                kind: 0, inside: Vec::new(), always: true, goes_on: false, when: false, retry: false, timeout: false,
            });
        }
        let mut rng = TestRng::from_seed(prop::test_runner::RngAlgorithm::ChaCha, &seed);
        let (ran, yaml) = drive(&phases, &mut rng, false);
        for (index, steps) in phases.iter().enumerate() {
            let path = format!("p{index}/{}", steps.len() - 1);
            let result = ran.results.iter().find(|result| result.path == path);
            prop_assert!(result.is_some_and(|result| result.tries == 1), "{}: {}", path, yaml);
        }
    }
}

fn any_retry(step: &RandomStep) -> bool {
    step.retry || step.inside.iter().any(any_retry)
}

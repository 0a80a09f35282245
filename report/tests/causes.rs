//! Matrices with planted causes: the findings name them, and first. Seeds make every matrix the same each time.
#![allow(clippy::unwrap_used)]

mod planted;

use phalanx_report::finding::{
    Cause, DivergenceKind, Explained, Finding, Findings, FlakeCause, Is, Rule, compared, findings,
    sentence,
};
use phalanx_report::logs::{LogLine, Logs, ServiceLog};
use phalanx_report::markdown;
use phalanx_report::style::Style;
use phalanx_report::terminal::{self, Detail};
use phalanx_report::tree;
use phalanx_report::view::{CellView, RunView};
use phalanx_shared::event::LogStream;
use planted::{Did, Ended, Played, Random, Values, did, names, product, versions, view};
use serde_json::Value;
use std::collections::BTreeSet;

const SEEDS: u64 = 100;
const LEAST: usize = 95;

/// A random matrix of 40 to 160 cells: names on some axes, versions and numbers on others.
fn matrix(random: &mut Random) -> Vec<Values> {
    loop {
        let axes: Vec<(&str, Vec<Value>)> = ["source", "image", "network", "service", "release"]
            .into_iter()
            .take(3 + random.below(3))
            .map(|axis| {
                let count = 2 + random.below(4);
                let values = match random.below(3) {
                    0 => versions(count),
                    1 => (1..=count).map(Value::from).collect(),
                    _ => names(count),
                };
                (axis, values)
            })
            .collect();
        let cells = product(&axes);
        if (40..=160).contains(&cells.len()) {
            return cells;
        }
    }
}

/// The values that an axis takes.
fn values(cells: &[Values], axis: &str) -> Vec<Value> {
    let mut values: Vec<Value> = Vec::new();
    for cell in cells {
        if !values.contains(&cell[axis]) {
            values.push(cell[axis].clone());
        }
    }
    values
}

/// A planted rule: each axis must have one of the values.
type Plant = Vec<(String, Vec<Value>)>;

fn fits(plant: &Plant, cell: &Values) -> bool {
    plant
        .iter()
        .all(|(axis, values)| values.contains(&cell[axis]))
}

/// Plants a rule over a number of axes, with sets of so many values each; an axis that is too small gives one value.
fn plant(random: &mut Random, cells: &[Values], axes: usize, set: usize) -> Plant {
    let mut all: Vec<String> = cells[0].keys().cloned().collect();
    (0..axes)
        .map(|_| {
            let axis = all.remove(random.below(all.len()));
            let mut values = values(cells, &axis);
            let size = if values.len() > set { set } else { 1 };
            while values.len() > size {
                values.remove(random.below(values.len()));
            }
            (axis, values)
        })
        .collect()
}

fn matches(rule: &Rule, cell: &Values) -> bool {
    rule.terms.iter().all(|term| {
        let value = cell.get(&term.axis);
        let number = |value: &Value| -> Vec<u64> {
            let text = value
                .as_str()
                .map_or_else(|| value.to_string(), str::to_owned);
            text.trim_start_matches('v')
                .split('.')
                .map(|part| part.parse().unwrap())
                .collect()
        };
        match &term.is {
            Is::In(values) => values.iter().any(|wanted| wanted.as_ref() == value),
            Is::NotIn(values) => values.iter().all(|other| other.as_ref() != value),
            Is::AtLeast(least) => value.is_some_and(|value| number(value) >= number(least)),
            Is::AtMost(most) => value.is_some_and(|value| number(value) <= number(most)),
        }
    })
}

/// Returns whether the rules of a finding take exactly the cells of a plant.
fn names_it(finding: &Finding, plant: &Plant, cells: &[Values]) -> bool {
    let Explained::Rules { rules, .. } = &finding.explained else {
        return false;
    };
    let taken = |cell: &Values| rules.iter().any(|rule| matches(rule, cell));
    cells.iter().all(|cell| taken(cell) == fits(plant, cell))
}

/// Three steps; the one at `fails` fails with a number that is different in each cell, and the rest isn't reached.
fn steps(fails: Option<usize>, number: usize) -> Vec<Did> {
    let paths = ["0", "1", "2"];
    let result = |index: usize| match fails {
        Some(at) if index == at => Ended::Check("json.count", number.to_string()),
        Some(at) if index > at => Ended::NotRun(format!("after failed step {at}")),
        _ => Ended::Passed,
    };
    paths
        .into_iter()
        .enumerate()
        .map(|(index, path)| did(path, result(index)))
        .collect()
}

fn played(cells: &[Values], mut fails: impl FnMut(&Values) -> Option<usize>) -> RunView {
    view(cells, |index, cell| Played::of(steps(fails(cell), index)))
}

/// Counts the seeds in which `found` holds, and shows the others.
fn count(name: &str, found: impl Fn(&mut Random) -> Result<(), String>) -> usize {
    let failed: Vec<String> = (0..SEEDS)
        .filter_map(|seed| {
            let result = found(&mut Random(seed * 7_919 + 1));
            result
                .err()
                .map(|why| format!("{name}, seed {seed}: {why}"))
        })
        .collect();
    println!(
        "{name}: {} of {SEEDS}\n{}",
        SEEDS as usize - failed.len(),
        failed.join("\n")
    );
    SEEDS as usize - failed.len()
}

fn first_names(found: &Findings, plant: &Plant, cells: &[Values]) -> Result<(), String> {
    let first = found.findings.first().ok_or("no finding")?;
    names_it(first, plant, cells).then_some(()).ok_or_else(|| {
        format!(
            "{} cells, planted {plant:?}, first is {}",
            cells.len(),
            sentence::explained(first)
        )
    })
}

#[test]
fn one_axis_value_is_named_first() {
    let named = count("one axis", |random| {
        let cells = matrix(random);
        let plant = plant(random, &cells, 1, 1);
        let view = played(&cells, |cell| fits(&plant, cell).then_some(1));
        let found = findings(&view, None);
        assert_eq!(
            found.findings.len(),
            1,
            "other numbers are no other finding"
        );
        first_names(&found, &plant, &cells)
    });
    assert!(named >= LEAST, "{named}");
}

#[test]
fn a_pair_of_axes_is_named_first() {
    let named = count("two axes", |random| {
        let cells = matrix(random);
        let plant = plant(random, &cells, 2, 1);
        let view = played(&cells, |cell| fits(&plant, cell).then_some(1));
        first_names(&findings(&view, None), &plant, &cells)
    });
    assert!(named >= LEAST, "{named}");
}

#[test]
fn a_set_of_values_is_named_first() {
    let named = count("a value set", |random| {
        let cells = matrix(random);
        let plant = plant(random, &cells, 1, 2);
        let view = played(&cells, |cell| fits(&plant, cell).then_some(1));
        first_names(&findings(&view, None), &plant, &cells)
    });
    assert!(named >= LEAST, "{named}");
}

#[test]
fn noise_of_five_percent_hides_no_cause() {
    for (name, axes, set) in [
        ("one axis", 1, 1),
        ("a value set", 1, 2),
        ("two axes", 2, 2),
    ] {
        let named = count(&format!("{name} with noise"), |random| {
            let cells = matrix(random);
            let plant = plant(random, &cells, axes, set);
            let mut noise = Random(random.next());
            let view = played(&cells, |cell| {
                (fits(&plant, cell) != noise.percent(5)).then_some(1)
            });
            first_names(&findings(&view, None), &plant, &cells)
        });
        assert!(named >= LEAST, "{name}: {named}");
    }
}

#[test]
fn two_causes_at_once_are_both_named() {
    let named = count("two causes", |random| {
        let cells = matrix(random);
        let plants = [plant(random, &cells, 1, 1), plant(random, &cells, 1, 1)];
        if plants[0] == plants[1] {
            return Ok(());
        }
        let view = played(&cells, |cell| {
            plants.iter().position(|plant| fits(plant, cell))
        });
        let found = findings(&view, None);
        let named = |plant: &Plant| {
            // The second step isn't reached in the cells of the first cause, so that they tell nothing about it.
            found.findings.iter().take(2).any(|finding| {
                let Explained::Rules { rules, .. } = &finding.explained else {
                    return false;
                };
                rules.len() == 1
                    && cells.iter().all(|cell| {
                        let reached = plant == &plants[0] || !fits(&plants[0], cell);
                        !reached || matches(&rules[0], cell) == fits(plant, cell)
                    })
            })
        };
        let missing: Vec<&Plant> = plants.iter().filter(|plant| !named(plant)).collect();
        missing
            .is_empty()
            .then_some(())
            .ok_or_else(|| format!("{missing:?} of {plants:?}"))
    });
    assert!(named >= LEAST, "{named}");
}

#[test]
fn the_same_failure_with_two_causes_has_two_rules() {
    let named = count("two causes of one failure", |random| {
        let cells = matrix(random);
        let plants = [plant(random, &cells, 1, 1), plant(random, &cells, 1, 1)];
        if plants[0][0].0 == plants[1][0].0 {
            return Ok(());
        }
        let either = |cell: &Values| plants.iter().any(|plant| fits(plant, cell));
        let view = played(&cells, |cell| either(cell).then_some(1));
        let found = findings(&view, None);
        let Explained::Rules { rules, .. } = &found.findings[0].explained else {
            return Err("no rule".into());
        };
        let taken = |cell: &Values| rules.iter().any(|rule| matches(rule, cell));
        let exact = cells.iter().all(|cell| taken(cell) == either(cell));
        exact
            .then_some(())
            .ok_or_else(|| format!("{plants:?}: {}", sentence::explained(&found.findings[0])))
    });
    assert!(named >= LEAST, "{named}");
}

#[test]
fn a_service_is_the_root_of_what_its_absence_breaks() {
    let named = count("a cascade", |random| {
        let cells = matrix(random);
        let plant = plant(random, &cells, 1, 1);
        let view = view(&cells, |index, cell| {
            if !fits(&plant, cell) {
                return Played::of(steps(None, index));
            }
            let reason = format!("service db isn't ready: not within {}s", index + 1);
            Played {
                services: vec![("db", false, 1_000)],
                ..Played::of(vec![
                    did("0", Ended::Failed(reason)),
                    did("1", Ended::NotRun("after failed step 0".into())),
                    did("2", Ended::Check("json.rows", index.to_string())), // an `always` step
                ])
            }
        });
        let found = findings(&view, None);
        let [root, follower] = found.findings.as_slice() else {
            return Err(format!("{} findings", found.findings.len()));
        };
        let is_root = matches!(&root.cause, Cause::Service { service } if service == "db");
        if !is_root || follower.follows.map(|follows| follows.finding) != Some(0) {
            return Err(format!("{:?}, {:?}", root.cause, follower.follows));
        }
        let stopped = (root.stopped.steps, root.stopped.cells);
        if stopped != (2 * root.cells.len(), root.cells.len()) {
            return Err(format!("{stopped:?} of {} cells", root.cells.len()));
        }
        first_names(&found, &plant, &cells)
    });
    assert!(named >= LEAST, "{named}");
}

#[test]
fn noise_alone_rarely_makes_a_rule() {
    for percent in [5, 20, 50] {
        let none = count(&format!("{percent} % noise"), |random| {
            let cells = matrix(random);
            let mut noise = Random(random.next());
            let view = played(&cells, |_| noise.percent(percent).then_some(1));
            let found = findings(&view, None);
            match &found.findings.first().map(|first| &first.explained) {
                Some(Explained::Rules { .. }) => Err(sentence::explained(&found.findings[0])),
                _ => Ok(()),
            }
        });
        assert!(none >= LEAST, "{percent} %: {none}");
    }
}

#[test]
fn a_rule_counts_its_cells_and_lists_its_exceptions() {
    let cells = product(&[
        ("source", names(3)),
        ("image", versions(4)),
        ("network", names(2)),
    ]);
    let mut index = 0;
    let view = played(&cells, |cell| {
        index += 1;
        let planted = cell["source"] == "b" && index != 12;
        (planted || index == 1).then_some(1)
    });
    let found = findings(&view, None);
    let [finding] = found.findings.as_slice() else {
        panic!("{found:#?}");
    };
    let Explained::Rules { rules, .. } = &finding.explained else {
        panic!("{finding:#?}");
    };
    let [rule] = rules.as_slice() else {
        panic!("{rules:#?}");
    };
    assert_eq!((rule.hits, rule.matching, finding.compared), (7, 8, 24));
    assert_eq!((&rule.missed, &rule.counterexamples), (&vec![0], &vec![11]));
    let red: BTreeSet<usize> = finding.cells.iter().copied().collect();
    assert!(red.contains(&0) && !red.contains(&11));
}

#[test]
fn the_nearest_green_cell_differs_in_one_axis_and_parts_at_the_failed_step() {
    let cells = product(&[
        ("source", names(3)),
        ("image", versions(4)),
        ("network", names(2)),
    ]);
    let view = view(&cells, |index, cell| {
        let git = cell["source"] == "b";
        let mut steps = steps(git.then_some(1), index);
        steps[0].stdout = if git {
            "release 4.6 of git"
        } else {
            "release 4.5 of pypi"
        };
        // An id differs in every cell, and the number of items only here.
        let items = if git { "2" } else { "3" };
        steps[0].captured = vec![
            ("id", index.to_string()),
            ("items", items.to_owned()),
            ("token", "***".to_owned()),
        ];
        let ready = if git { 9_000_000 } else { 900_000 };
        let image = format!("db@sha256:{}", if git { "bb" } else { "aa" });
        Played {
            services: vec![("db", true, ready)],
            images: [("db", image)].into(),
            ..Played::of(steps)
        }
    });
    let found = findings(&view, None);
    let nearest = found.findings[0].nearest.as_ref().unwrap();
    assert_eq!(compared(&view).len(), 2);
    let axes: Vec<&str> = nearest
        .differs
        .iter()
        .map(|differs| differs.axis.as_str())
        .collect();
    assert_eq!(axes, ["source"]);
    let kinds: Vec<_> = nearest
        .divergences
        .iter()
        .map(|divergence| divergence.kind)
        .collect();
    assert_eq!(
        kinds,
        [
            DivergenceKind::Captured,
            DivergenceKind::Value,
            DivergenceKind::Image,
            DivergenceKind::Service,
            DivergenceKind::Step
        ]
    );
    let captured = &nearest.divergences[0];
    assert_eq!(captured.red.as_deref(), Some("items = 2"));
    assert_eq!(captured.green.as_deref(), Some("items = 3"));
    let value = &nearest.divergences[1];
    assert_eq!(value.red.as_deref(), Some("release 4.6 of git"));
    let step = &nearest.divergences[4];
    assert_eq!(
        (step.subject.as_str(), step.green.as_deref()),
        ("1", Some("passed"))
    );
}

#[test]
fn logs_show_the_first_line_that_the_green_cell_does_not_have() {
    let cells = product(&[("source", names(2)), ("image", versions(4))]);
    let view = view(&cells, |index, cell| {
        Played::of(steps((cell["source"] == "b").then_some(1), index))
    });
    let log = |cell: &CellView, extra: Option<&str>| {
        let step = cell.steps().nth(1).unwrap();
        let line = |text: &str| LogLine {
            at: step.began,
            stream: LogStream::Stderr,
            text: text.to_owned(),
            gap: false,
        };
        let own = format!(
            "GET /items/{} 200 in {}ms",
            step.elapsed_us,
            cell.name.len()
        );
        ServiceLog {
            cell: cell.id.clone(),
            attempt: 1,
            service: "api".to_owned(),
            lines: [Some(own.as_str()), extra]
                .into_iter()
                .flatten()
                .map(line)
                .collect(),
        }
    };
    let extra = |cell: &CellView| (cell.matrix["source"] == "b").then_some("no such column: kind");
    let logs = Logs {
        services: view
            .cells
            .iter()
            .map(|cell| log(cell, extra(cell)))
            .collect(),
    };
    let found = findings(&view, Some(&logs));
    let nearest = found.findings[0].nearest.as_ref().unwrap();
    let line = nearest
        .divergences
        .iter()
        .find(|one| one.kind == DivergenceKind::Log)
        .unwrap();
    assert_eq!(
        (line.subject.as_str(), line.red.as_deref()),
        ("api", Some("no such column: kind"))
    );
    let told = "log of api at ";
    let detail = Detail {
        width: 200,
        style: Style::PLAIN,
        verbose: false,
    };
    for text in [
        terminal::render_with(&view, Some(&logs), detail),
        markdown::render_with(&view, Some(&logs), markdown::GITHUB),
    ] {
        assert!(
            text.contains(told) && text.contains("no such column: kind"),
            "{text}"
        );
    }
    assert!(!terminal::render(&view, detail).contains(told));
}

#[test]
fn flaky_steps_are_told_by_axis_by_agent_and_by_what_ran_beside_them() {
    let cells = product(&[
        ("source", names(4)),
        ("image", versions(6)),
        ("network", names(2)),
    ]);
    let flaky = |is: bool| did("0", if is { Ended::Flaky } else { Ended::Passed });
    let cause = |view: &RunView| findings(view, None).flakes[0].explained.clone();

    let by_axis = view(&cells, |_, cell| {
        Played::of(vec![flaky(cell["network"] == "b")])
    });
    let FlakeCause::Axes { rule } = cause(&by_axis) else {
        panic!("{:?}", cause(&by_axis));
    };
    assert_eq!(sentence::terms(&rule.terms), "network=b");

    let by_agent = view(&cells, |index, _| Played {
        agent: format!("runner-{}", index % 5),
        ..Played::of(vec![flaky(index % 5 == 3)])
    });
    let FlakeCause::Agent { agent, hits, .. } = cause(&by_agent) else {
        panic!("{:?}", cause(&by_agent));
    };
    assert_eq!((agent.as_str(), hits), ("runner-3", 9));

    // One cell after the other, but the cells of `source=a` run beside others, which are flaky then.
    let mut noisy = 0;
    let mut quiet = 0;
    let by_neighbour = view(&cells, |_, cell| {
        let loud = cell["source"] == "a";
        let beside = !loud
            && cell["image"].as_str() >= Some("v4.2")
            && cell["network"] == "b"
            && noisy % 3 == 0;
        let slot = match (loud, beside) {
            (true, _) => {
                noisy += 1;
                noisy
            }
            (false, true) => {
                quiet += 1;
                quiet
            }
            _ => {
                quiet += 1;
                1_000 + quiet
            }
        };
        Played {
            began_us: slot * 10_000_000,
            ..Played::of(vec![flaky(beside)])
        }
    });
    match cause(&by_neighbour) {
        FlakeCause::Beside { beside, .. } => assert_eq!(sentence::term(&beside), "source=a"),
        FlakeCause::Axes { .. } => {} // the axes explain it as well
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_failure_of_one_agent_is_told_by_the_agent() {
    let cells = product(&[
        ("source", names(4)),
        ("image", versions(6)),
        ("network", names(2)),
    ]);
    let view = view(&cells, |index, _| Played {
        agent: format!("runner-{}", index % 5),
        ..Played::of(steps((index % 5 == 3).then_some(1), index))
    });
    let found = findings(&view, None);
    let explained = sentence::explained(&found.findings[0]);
    assert_eq!(
        explained,
        "agent=runner-3: all 9 cells, and no other of the 48 that ran it"
    );
}

#[test]
fn steps_that_were_not_reached_are_one_line_of_a_cells_tree() {
    let cells = product(&[("source", names(2))]);
    let view = view(&cells, |index, _| Played::of(steps(Some(0), index)));
    let short = tree::render(&view.cells[0], Style::PLAIN, false);
    assert!(
        short.contains("    2 steps ... not run: after failed step 0\n"),
        "{short}"
    );
    let long = tree::render(&view.cells[0], Style::PLAIN, true);
    assert_eq!(
        long.matches("... not run: after failed step 0").count(),
        2,
        "{long}"
    );
}

#[test]
fn a_slow_step_is_told_by_the_axis_value_that_explains_it() {
    let named = count("slow", |random| {
        let cells = matrix(random);
        let plant = plant(random, &cells, 1, 1);
        let mut noise = Random(random.next());
        let view = view(&cells, |_, cell| {
            let mut steps = steps(None, 0);
            for step in &mut steps {
                step.elapsed_us = 400_000 + noise.next() % 200_000;
            }
            if fits(&plant, cell) {
                steps[1].elapsed_us += 3_000_000;
            }
            Played::of(steps)
        });
        let found = findings(&view, None);
        let Some(slow) = found.slow.first() else {
            return Err("nothing".into());
        };
        let exact = cells
            .iter()
            .all(|cell| matches(&slow.rule, cell) == fits(&plant, cell));
        (exact && slow.step.as_deref() == Some("1"))
            .then_some(())
            .ok_or_else(|| format!("{slow:?}"))
    });
    assert!(named >= LEAST, "{named}");
}

#[test]
fn ten_thousand_cells_with_twelve_axes_are_searched_within_bounds() {
    let mut random = Random(7);
    let cells: Vec<Values> = (0..10_000)
        .map(|index| {
            let axes = (0..12).map(|axis| {
                let value = if axis == 11 {
                    index
                } else {
                    random.below(3 + axis)
                };
                (format!("axis-{axis}"), Value::from(value))
            });
            axes.collect()
        })
        .collect();
    let view = view(&cells, |index, cell| {
        let planted = cell["axis-3"] == 2 && cell["axis-7"] == 4;
        let odd = index % 97 == 0;
        let mut steps = steps(None, index);
        if planted {
            steps[0].result = Ended::Check("json.count", index.to_string());
        } else if odd {
            let letters = "abcdefghij".as_bytes();
            let word: String = format!("{index:05}")
                .bytes()
                .map(|b| letters[usize::from(b - b'0')] as char)
                .collect();
            steps[1].result = Ended::Failed(word);
        }
        Played::of(steps)
    });
    let found = findings(&view, None);
    assert_eq!(
        found.findings.len(),
        1 + 10_000_usize.div_ceil(97) - planted_and_odd(&cells)
    );
    let Explained::Rules { rules, .. } = &found.findings[0].explained else {
        panic!("no rule");
    };
    assert_eq!(sentence::terms(&rules[0].terms), "axis-3=2 with axis-7=4");
    assert_eq!(found.findings.last().unwrap().explained, Explained::NoRule);
}

fn planted_and_odd(cells: &[Values]) -> usize {
    let both = cells
        .iter()
        .enumerate()
        .filter(|(index, cell)| index % 97 == 0 && cell["axis-3"] == 2 && cell["axis-7"] == 4);
    both.count()
}

/// The faults that were put into real stacks, and the message of each: `NAME: check failed: EXPRESSION (PART = VALUE)` or
/// `NAME: REASON`.
const FAULTS: &str = include_str!("../../examples/proxbox/faults.results.json");

/// Changes the numbers of a text from cell to cell, except for an HTTP status, as other runs of the same fault do.
fn renumbered(text: &str, index: usize) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c.to_digit(10) {
            Some(digit) => out += &((digit as usize + index) % 10).to_string(),
            None => out.push(c),
        }
    }
    out
}

fn fault(message: &str, index: usize) -> Did {
    let (name, reason) = message.split_once(": ").unwrap();
    let check = reason.strip_prefix("check failed: ").and_then(|rest| {
        let (expression, rest) = rest.split_once(" (")?;
        let (part, value) = rest.split_once(" = ")?;
        let value = value
            .trim_end_matches(|c: char| c != ')')
            .trim_end_matches(')');
        let value = match part.ends_with("status") {
            true => value.to_owned(),
            false => renumbered(value, index),
        };
        Some(Ended::CheckOf {
            expression: expression.to_owned(),
            part: part.to_owned(),
            value,
        })
    });
    Did {
        name: name.to_owned().leak(),
        ..did(
            "1",
            check.unwrap_or_else(|| Ended::Failed(renumbered(reason, index))),
        )
    }
}

#[test]
fn each_fault_of_the_proxbox_table_is_one_finding_and_not_one_per_cell() {
    let faults: serde_json::Map<String, Value> = serde_json::from_str(FAULTS).unwrap();
    assert!(faults.len() >= 20, "{}", faults.len());
    let axes = [
        (
            "install_source",
            vec!["local".into(), "pypi".into(), "container".into()],
        ),
        (
            "netbox_image",
            vec!["v4.5.8".into(), "v4.5.9".into(), "v4.6.0".into()],
        ),
        (
            "proxmox_service",
            vec!["pve".into(), "pbs".into(), "pdm".into()],
        ),
    ];
    let cells = product(&axes);
    for (title, fault_of) in &faults {
        let message = fault_of["message"].as_str().unwrap();
        let rows = fault_of["failed_rows"].as_array().unwrap();
        // The stack survives some.
        if rows.is_empty() {
            continue;
        }
        let view = view(&cells, |index, cell| {
            let mut steps = vec![did("0", Ended::Passed), fault(message, index)];
            steps.extend(
                rows.iter()
                    .skip(1)
                    .zip(["2", "3", "4", "5", "6"])
                    .map(|(row, path)| did(path, Ended::Check("answer", format!("\"no {row}\"")))),
            );
            if cell["netbox_image"] != "v4.6.0" {
                steps
                    .iter_mut()
                    .for_each(|step| step.result = Ended::Passed);
            }
            Played::of(steps)
        });
        let found = findings(&view, None);
        let [root] = found.roots().collect::<Vec<_>>()[..] else {
            panic!("{title}: {:#?}", found.roots().collect::<Vec<_>>());
        };
        assert_eq!((root.cells.len(), found.red), (9, 9), "{title}");
        assert_eq!(found.findings.len(), rows.len().max(1), "{title}");
        let verdict = sentence::verdict(&found).unwrap();
        assert!(
            verdict.starts_with("all 9 red cells are netbox_image=v4.6.0, "),
            "{title}: {verdict}"
        );
    }
}

#[test]
fn sixty_cells_with_three_causes_name_all_three_at_the_top_and_at_the_end() {
    let cells = product(&[
        ("source", vec!["git".into(), "pypi".into(), "wheel".into()]),
        ("image", versions(5)),
        ("network", vec!["ipv4".into(), "ipv6".into()]),
        ("proxy", vec![true.into(), false.into()]),
    ]);
    let view = view(&cells, |index, cell| {
        let new = cell["image"].as_str() >= Some("v4.3");
        if cell["network"] == "ipv6" && cell["image"] == "v4.0" {
            let reason = format!("service db isn't ready: not within {}s", 30 + index);
            return Played {
                services: vec![("db", false, 1_000)],
                ..Played::of(vec![
                    Did {
                        name: "log in",
                        ..did("0", Ended::Failed(reason))
                    },
                    Did {
                        name: "sync",
                        ..did("1", Ended::NotRun("after failed step log in".into()))
                    },
                    Did {
                        name: "report",
                        ..did("2", Ended::NotRun("after failed step log in".into()))
                    },
                ])
            };
        }
        let sync = match cell["source"] == "git" && new {
            true => Ended::Check("json.count", index.to_string()),
            false => Ended::Passed,
        };
        let failed = matches!(sync, Ended::Check(..));
        let report = match (failed, cell["source"] == "wheel" && cell["proxy"] == true) {
            (true, _) => Ended::NotRun("after failed step sync".into()),
            (_, true) => Ended::Check("status", "502".into()),
            _ => Ended::Passed,
        };
        Played::of(vec![
            Did {
                name: "log in",
                ..did("0", Ended::Passed)
            },
            Did {
                name: "sync",
                ..did("1", sync)
            },
            Did {
                name: "report",
                ..did("2", report)
            },
        ])
    });
    let detail = Detail {
        width: 100,
        style: Style::PLAIN,
        verbose: false,
    };
    let told = terminal::render(&view, detail);
    let lines: Vec<&str> = told.lines().collect();
    for screen in [&lines[..24], &lines[lines.len() - 24..]] {
        let screen = screen.join("\n");
        for cause in [
            "source=git with image ≥ v4.3",
            "source=wheel with proxy=true",
            "network=ipv6",
        ] {
            assert!(
                screen.contains(cause),
                "{cause} is not on the screen:\n{screen}"
            );
        }
    }
    insta::assert_snapshot!(told);
}

/// One cell in which each of these steps failed for its reason.
fn of_failures(paths: &[&'static str]) -> RunView {
    let cells = product(&[("db", names(1))]);
    view(&cells, |_, _| {
        let fails = |path: &&'static str| did(path, Ended::Failed("it broke".to_owned()));
        Played::of(paths.iter().map(fails).collect())
    })
}

#[test]
fn a_failure_of_a_loop_has_the_same_id_whichever_items_fail() {
    let ids = |paths: &[&'static str]| -> Vec<String> {
        let found = findings(&of_failures(paths), None).findings;
        found.into_iter().map(|finding| finding.id).collect()
    };
    let both = ids(&["p/1[a]", "p/1[b]"]);
    assert_eq!(both.len(), 1);
    assert_eq!(ids(&["p/1[b]"]), both);
    assert_ne!(ids(&["p/2[b]"]), both);
}

#[test]
fn a_page_has_no_id_twice_although_findings_share_theirs() {
    let cells = product(&[("db", names(2))]);
    let view = view(&cells, |index, _| {
        let failed = |path| did(path, Ended::Failed("it broke".to_owned()));
        let items: &[&'static str] = if index == 0 { &["p/1[a]"] } else { &["p/1[b]"] };
        Played::of(items.iter().copied().map(failed).collect())
    });
    let found = findings(&view, None).findings;
    assert_eq!(found.len(), 2);
    assert_eq!(found[0].id, found[1].id);
    let page = phalanx_report::html::render(&view, None);
    assert_eq!(
        page.matches(&format!("id=\"f-{}\"", found[0].id)).count(),
        1
    );
}

#[test]
fn the_id_of_a_lost_agent_is_the_same_for_any_agent() {
    let id = |agent: &str| {
        let cells = product(&[("db", names(1))]);
        let view = view(&cells, |_, _| Played {
            agent: agent.to_owned(),
            lost: Some(format!("agent {agent} didn't answer for 10s")),
            ..Played::of(Vec::new())
        });
        findings(&view, None).findings[0].id.clone()
    };
    assert_eq!(id("runner-1"), id("other"));
}

#[test]
fn of_too_many_failures_those_in_most_cells_are_kept_and_the_rest_is_counted() {
    let cells = product(&[("number", (0..1_205).map(Value::from).collect())]);
    let word = |index: usize| -> String {
        let letter = |at: u32| char::from(b'a' + (index / 26_usize.pow(at) % 26) as u8);
        (0..3).map(letter).collect()
    };
    let view = view(&cells, |index, _| {
        // The last ones fail alike.
        let reason = word(index.min(1_200));
        Played::of(vec![did("p/0", Ended::Failed(reason))])
    });
    let found = findings(&view, None);
    assert_eq!((found.findings.len(), found.left_out), (1_000, 201));
    assert_eq!(found.findings[0].cells.len(), 5);
    let detail = Detail {
        width: 100,
        style: Style::PLAIN,
        verbose: false,
    };
    let text = terminal::render(&view, detail);
    assert!(
        text.contains("201 other failures, too many to tell apart"),
        "{text}"
    );
}

#![allow(clippy::unwrap_used)]
use super::*;
use proptest::prelude::*;
use serde_json::json;

fn matrix(value: Value) -> Matrix {
    let list = |key: &str| {
        let entries = value
            .get(key)
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default();
        entries
            .into_iter()
            .map(|e| e.as_object().unwrap().clone())
            .collect()
    };
    Matrix {
        written: value["written"].as_bool().unwrap_or(false),
        axes: value["axes"]
            .as_array()
            .unwrap()
            .iter()
            .map(|axis| {
                (
                    axis[0].as_str().unwrap().to_owned(),
                    axis[1].as_array().unwrap().clone(),
                )
            })
            .collect(),
        exclude: list("exclude"),
        include: list("include"),
    }
}

fn expanded(value: Value) -> Value {
    let combinations = combinations(&matrix(value)).unwrap();
    combinations
        .into_iter()
        .map(|c| Value::Object(c.into_iter().collect()))
        .collect()
}

#[test]
fn the_example_of_githubs_documentation() {
    let result = expanded(json!({
        "axes": [["fruit", ["apple", "pear"]], ["animal", ["cat", "dog"]]],
        "include": [
            {"color": "green"},
            {"color": "pink", "animal": "cat"},
            {"fruit": "apple", "shape": "circle"},
            {"fruit": "banana"},
            {"fruit": "banana", "animal": "cat"},
        ],
    }));
    assert_eq!(
        result,
        json!([
            {"fruit": "apple", "animal": "cat", "color": "pink", "shape": "circle"},
            {"fruit": "apple", "animal": "dog", "color": "green", "shape": "circle"},
            {"fruit": "pear", "animal": "cat", "color": "pink"},
            {"fruit": "pear", "animal": "dog", "color": "green"},
            {"fruit": "banana"},
            {"fruit": "banana", "animal": "cat"},
        ])
    );
}

#[test]
fn an_include_of_an_excluded_combination_is_a_cell_of_its_own() {
    let result = expanded(json!({
        "axes": [["os", ["a", "b"]], ["v", [1, 2]]],
        "exclude": [{"os": "a"}],
        "include": [{"os": "a", "v": 2, "x": true}],
    }));
    assert_eq!(
        result,
        json!([{"os": "b", "v": 1}, {"os": "b", "v": 2}, {"os": "a", "v": 2, "x": true}])
    );
}

#[test]
fn an_include_without_anything_new_adds_nothing() {
    let result = expanded(json!({"axes": [["v", [1, 2]]], "include": [{"v": 1}]}));
    assert_eq!(result, json!([{"v": 1}, {"v": 2}]));
}

#[test]
fn without_axes_each_include_is_a_cell_and_without_anything_there_is_one() {
    assert_eq!(
        expanded(json!({"axes": [], "include": [{"a": 1}, {"a": 2}]})),
        json!([{"a": 1}, {"a": 2}])
    );
    assert_eq!(expanded(json!({"axes": []})), json!([{}]));
}

#[test]
fn maps_and_lists_match_in_part() {
    let axes = json!([["v", [{"node": 12, "npm": 6}, {"node": 14, "npm": 6}, ["x", "y"], "s"]]]);
    assert_eq!(
        expanded(json!({"axes": axes, "exclude": [{"v": {"node": 12}}, {"v": ["x"]}]})),
        json!([{"v": {"node": 14, "npm": 6}}, {"v": "s"}])
    );
}

#[test]
fn leaves_compare_as_githubs_equality_does() {
    for (a, b, equal) in [
        (json!("Linux"), json!("linux"), true),
        (json!("1.8"), json!(1.8), true),
        (json!(1), json!(1.0), true),
        (json!(null), json!(0), true),
        (json!(true), json!(1), true),
        (json!(""), json!(0), true),
        (json!("0x10"), json!(16), true),
        (json!("v1.8"), json!(1.8), false),
        (json!("nan"), json!("x"), false),
        (json!([1]), json!(1), false),
        (json!("true"), json!(true), false),
    ] {
        assert_eq!(loosely_equal(&a, &b), equal, "{a} {b}");
        assert_eq!(loosely_equal(&b, &a), equal, "{b} {a}");
    }
}

#[test]
fn mistakes_are_named() {
    let error = |value| combinations(&matrix(value)).unwrap_err();
    let axes = json!([["a", [1, 2]]]);
    assert_eq!(
        error(json!({"axes": [["a", []]]})),
        MatrixError::EmptyAxis { axis: "a".into() }
    );
    assert_eq!(
        error(json!({"axes": axes, "exclude": [{"a": 1}, {"a": 2}]})),
        MatrixError::AllExcluded { product: 2 }
    );
    assert_eq!(
        error(json!({"axes": axes, "exclude": [{"b": 1}]})),
        MatrixError::UnknownAxis {
            key: "b".into(),
            entry: 0
        }
    );
    assert_eq!(
        error(json!({"axes": axes, "include": [{}]})),
        MatrixError::EmptyEntry {
            list: "include",
            entry: 0
        }
    );
    let wide: Vec<u32> = (0..2_000).collect();
    assert!(matches!(
        error(json!({"axes": [["a", wide], ["b", wide]]})),
        MatrixError::TooMany {
            count: 4_000_000,
            ..
        }
    ));
}

#[test]
fn a_matrix_that_comes_out_empty_is_a_mistake_and_none_is_one_cell() {
    let empty = matrix(json!({"written": true, "axes": []}));
    assert_eq!(combinations(&empty), Err(MatrixError::Empty));
    let none = matrix(json!({"axes": []}));
    assert_eq!(combinations(&none).unwrap().len(), 1);
}

#[test]
fn what_would_not_end_or_not_fit_is_refused_before_anything_is_made() {
    let error = |value| combinations(&matrix(value)).unwrap_err();
    let ten: Vec<u32> = (0..10).collect();
    let nine: Vec<_> = (0..9).map(|at| json!([format!("a{at}"), ten])).collect();
    let message = error(json!({ "axes": nine })).to_string();
    assert!(message.starts_with("the matrix has 1000000000 combinations, and at most 1000000 are possible: a0 10 × a1 10"), "{message}");
    let thousand: Vec<u32> = (0..1_000).collect();
    let long: Vec<String> = (0..20)
        .map(|at| format!("{at}{}", "x".repeat(60_000)))
        .collect();
    assert!(matches!(
        error(json!({"axes": [["a", long], ["b", thousand]]})),
        MatrixError::TooLarge { .. }
    ));
    assert!(matches!(
        error(json!({"axes": [["a", ["x".repeat(70_000)]]]})),
        MatrixError::LargeValue { .. }
    ));
    let entries: Vec<_> = (0..1_000).map(|at| json!({ "a": at })).collect();
    assert!(matches!(
        error(json!({"axes": [["a", thousand], ["b", thousand]], "exclude": entries})),
        MatrixError::TooManyEntries { .. }
    ));
    let wide: serde_json::Map<String, Value> =
        (0..300).map(|at| (format!("k{at}"), json!(1))).collect();
    assert!(matches!(
        error(json!({"axes": [["a", [1]]], "include": [wide]})),
        MatrixError::TooManyKeys { .. }
    ));
}

/// Applies the sentences of GitHub's documentation one after the other, as simply as possible.
fn oracle(matrix: &Matrix) -> Vec<Vec<(String, Value)>> {
    let mut product: Vec<Vec<(String, Value)>> = vec![vec![]];
    for (axis, values) in &matrix.axes {
        let mut longer = vec![];
        for combination in &product {
            for value in values {
                let mut combination = combination.clone();
                combination.push((axis.clone(), value.clone()));
                longer.push(combination);
            }
        }
        product = longer;
    }
    if matrix.axes.is_empty() {
        product.clear();
    }
    let get = |c: &Vec<(String, Value)>, key: &str| {
        c.iter().find(|(k, _)| k == key).map(|(_, v)| v.clone())
    };
    product.retain(|c| {
        !matrix
            .exclude
            .iter()
            .any(|entry| entry.iter().all(|(k, v)| get(c, k).as_ref() == Some(v)))
    });
    let original = product.clone();
    let mut cells = product;
    let mut new = vec![];
    for entry in &matrix.include {
        let mut added = false;
        for (cell, original) in cells.iter_mut().zip(&original) {
            let overwrites = entry
                .iter()
                .any(|(k, v)| get(original, k).is_some_and(|o| o != *v));
            if overwrites {
                continue;
            }
            added = true;
            for (k, v) in entry {
                match cell.iter_mut().find(|(known, _)| known == k) {
                    Some(known) => known.1 = v.clone(),
                    None => cell.push((k.clone(), v.clone())),
                }
            }
        }
        if !added {
            new.push(entry.iter().map(|(k, v)| (k.clone(), v.clone())).collect());
        }
    }
    cells.extend(new);
    cells
}

fn value() -> impl Strategy<Value = Value> {
    // These values are equal by both notions of equality or by neither, because the oracle's is strict.
    prop_oneof![
        (2i64..5).prop_map(Value::from),
        prop_oneof!["x", "y", "z"].prop_map(Value::from),
        Just(json!({"k": "v"})),
        Just(json!(["l"])),
    ]
}

fn entries(max: usize) -> impl Strategy<Value = Vec<Map<String, Value>>> {
    let entry =
        proptest::collection::btree_map(prop_oneof!["a", "b", "c", "new", "other"], value(), 1..4);
    proptest::collection::vec(entry.prop_map(|e| e.into_iter().collect()), 0..max)
}

proptest! {
    #[test]
    fn the_matrix_equals_the_naive_reading_of_the_documentation(
        axes in proptest::collection::btree_map(prop_oneof!["a", "b", "c"], proptest::collection::vec(value(), 1..4), 0..4),
        exclude in entries(4),
        include in entries(5),
    ) {
        let axes: IndexMap<String, Vec<Value>> = axes.into_iter().collect();
        let exclude = exclude
            .into_iter()
            .filter(|entry| entry.keys().all(|key| axes.contains_key(key)))
            .collect();
        let matrix = Matrix { written: false, axes, exclude, include };
        let sorted = |cells: Vec<Vec<(String, Value)>>| -> Vec<Value> {
            cells.into_iter().map(|c| Value::Object(c.into_iter().collect())).collect()
        };
        let expected = sorted(oracle(&matrix));
        match combinations(&matrix) {
            Ok(found) => {
                let found: Vec<Value> = found.into_iter().map(|c| Value::Object(c.into_iter().collect())).collect();
                let expected = if expected.is_empty() { vec![json!({})] } else { expected };
                prop_assert_eq!(found, expected);
            }
            Err(MatrixError::AllExcluded { .. }) => prop_assert!(expected.is_empty()),
            Err(error) => prop_assert!(false, "{}", error),
        }
    }
}

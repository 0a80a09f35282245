//! The matrix: from axes, `exclude` and `include` to combinations, by GitHub's rules.
//!
//! The product is in the order written, the last axis fastest. `exclude` removes each combination that an entry
//! matches. Each `include` entry is added to every combination that its axis values match, later entries over earlier
//! ones; one that matches none becomes a combination of its own. As in GitHub's runner, an entry matches by its leaves:
//! maps and lists match in part, and leaves compare as `==` does there ([`loosely_equal`]).
//!
//! Values come in evaluated; nothing here knows specs, names or cells.

use indexmap::IndexMap;
use serde_json::{Map, Value};

/// The most combinations that are ever made, whatever is configured: more is a mistake, and would eat the memory.
pub const MAX_CELLS: usize = 1_000_000;

/// A matrix with its values.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Matrix {
    /// Axes in the order written, none of them empty.
    pub axes: IndexMap<String, Vec<Value>>,
    /// Partial combinations that are left out.
    pub exclude: Vec<Map<String, Value>>,
    /// Entries that are added.
    pub include: Vec<Map<String, Value>>,
}

/// One combination: axis values in the order of the axes, then keys that `include` added.
pub type Combination = IndexMap<String, Value>;

/// Why there are no combinations.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MatrixError {
    /// An axis has no values.
    #[error("axis `{axis}` has no values, so there are no cells")]
    EmptyAxis {
        /// Which.
        axis: String,
    },
    /// Nothing is left.
    #[error("`exclude` removes all {product} combinations, so there are no cells")]
    AllExcluded {
        /// How many there were.
        product: usize,
    },
    /// More than [`MAX_CELLS`].
    #[error("the matrix has more than {MAX_CELLS} combinations: {sizes}")]
    TooMany {
        /// Values per axis.
        sizes: String,
    },
    /// An entry of `exclude` names something that isn't an axis.
    #[error("`exclude` names `{key}`, which is not an axis")]
    UnknownAxis {
        /// The name.
        key: String,
        /// Which entry.
        entry: usize,
    },
    /// An entry says nothing.
    #[error("an entry of `{list}` is empty")]
    EmptyEntry {
        /// `include` or `exclude`.
        list: &'static str,
        /// Which entry.
        entry: usize,
    },
}

impl Matrix {
    /// How many combinations its axes have, before anything is excluded or included.
    pub fn product(&self) -> usize {
        let sizes = self.axes.values().map(Vec::len);
        sizes.fold(usize::from(!self.axes.is_empty()), usize::saturating_mul)
    }
}

/// All combinations, in order.
pub fn combinations(matrix: &Matrix) -> Result<Vec<Combination>, MatrixError> {
    let product = size(matrix)?;
    let exclude = filters(matrix, &matrix.exclude, "exclude")?;
    let include = filters(matrix, &matrix.include, "include")?;
    if let Some((key, entry)) = exclude
        .iter()
        .enumerate()
        .find_map(|(n, f)| Some((f.extra.keys().next()?, n)))
    {
        return Err(MatrixError::UnknownAxis {
            key: key.clone(),
            entry,
        });
    }
    let mut used = vec![false; include.len()];
    let mut out = Vec::new();
    let mut indexes = vec![0; matrix.axes.len()];
    for _ in 0..product {
        if !exclude.iter().any(|filter| filter.matches(&indexes)) {
            let mut combination = at(matrix, &indexes);
            for (filter, used) in include.iter().zip(&mut used) {
                if filter.matches(&indexes) {
                    *used = true;
                    combination.extend(filter.extra.iter().map(|(k, v)| (k.clone(), v.clone())));
                }
            }
            out.push(combination);
        }
        advance(matrix, &mut indexes);
    }
    let unmatched = matrix.include.iter().zip(used).filter(|(_, used)| !used);
    out.extend(unmatched.map(|(entry, _)| in_axis_order(matrix, entry)));
    match (out.is_empty(), product) {
        (false, _) => Ok(out),
        // No matrix at all is one cell without values.
        (true, 0) => Ok(vec![Combination::new()]),
        (true, product) => Err(MatrixError::AllExcluded { product }),
    }
}

/// The size of the product; 0 without axes.
fn size(matrix: &Matrix) -> Result<usize, MatrixError> {
    if matrix.axes.is_empty() {
        return Ok(0);
    }
    if let Some((axis, _)) = matrix.axes.iter().find(|(_, values)| values.is_empty()) {
        return Err(MatrixError::EmptyAxis { axis: axis.clone() });
    }
    matrix
        .axes
        .values()
        .try_fold(1usize, |size, values| {
            size.checked_mul(values.len()).filter(|n| *n <= MAX_CELLS)
        })
        .ok_or_else(|| MatrixError::TooMany {
            sizes: sizes(matrix),
        })
}

/// `a 3 × b 4`, for messages.
pub fn sizes(matrix: &Matrix) -> String {
    let sizes = matrix
        .axes
        .iter()
        .map(|(axis, values)| format!("{axis} {}", values.len()));
    sizes.collect::<Vec<_>>().join(" × ")
}

fn at(matrix: &Matrix, indexes: &[usize]) -> Combination {
    matrix
        .axes
        .iter()
        .zip(indexes)
        .map(|((axis, values), index)| {
            (
                axis.clone(),
                values.get(*index).cloned().unwrap_or_default(),
            )
        })
        .collect()
}

/// The next combination's indexes: the last axis is the fastest.
fn advance(matrix: &Matrix, indexes: &mut [usize]) {
    for (index, values) in indexes.iter_mut().zip(matrix.axes.values()).rev() {
        *index += 1;
        if *index < values.len() {
            return;
        }
        *index = 0;
    }
}

fn in_axis_order(matrix: &Matrix, entry: &Map<String, Value>) -> Combination {
    let of_axes = matrix
        .axes
        .keys()
        .filter_map(|axis| entry.get_key_value(axis));
    let extra = entry
        .iter()
        .filter(|(key, _)| !matrix.axes.contains_key(*key));
    of_axes
        .chain(extra)
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

/// An entry, compared with every value of its axes once.
struct Filter {
    /// Of each axis that the entry names: its position, and which of its values match.
    axes: Vec<(usize, Vec<bool>)>,
    /// What the entry says besides.
    extra: Map<String, Value>,
}

impl Filter {
    fn matches(&self, indexes: &[usize]) -> bool {
        self.axes.iter().all(|(axis, matching)| {
            let index = indexes.get(*axis).copied().unwrap_or(usize::MAX);
            matching.get(index).copied().unwrap_or(false)
        })
    }
}

fn filters(
    matrix: &Matrix,
    entries: &[Map<String, Value>],
    list: &'static str,
) -> Result<Vec<Filter>, MatrixError> {
    let filter = |(entry, values): (usize, &Map<String, Value>)| {
        if values.is_empty() {
            return Err(MatrixError::EmptyEntry { list, entry });
        }
        let mut filter = Filter {
            axes: Vec::new(),
            extra: Map::new(),
        };
        for (key, wanted) in values {
            match matrix.axes.get_full(key) {
                Some((axis, _, values)) => {
                    let matching = values.iter().map(|value| matches(wanted, value)).collect();
                    filter.axes.push((axis, matching));
                }
                None => {
                    filter.extra.insert(key.clone(), wanted.clone());
                }
            }
        }
        Ok(filter)
    };
    entries.iter().enumerate().map(filter).collect()
}

/// Whether every leaf of `wanted` equals what stands at its place in `value`; what is missing there is null.
fn matches(wanted: &Value, value: &Value) -> bool {
    match wanted {
        Value::Object(map) => map
            .iter()
            .all(|(key, wanted)| matches(wanted, value.get(key).unwrap_or(&Value::Null))),
        Value::Array(items) => items
            .iter()
            .enumerate()
            .all(|(index, wanted)| matches(wanted, value.get(index).unwrap_or(&Value::Null))),
        leaf => loosely_equal(leaf, value),
    }
}

/// GitHub's `==`: texts without regard to case; different kinds of scalars as numbers, where null is 0, bools are 0
/// and 1, and a text is the number it spells; a list or map equals no scalar.
pub fn loosely_equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::String(a), Value::String(b)) => a.to_uppercase() == b.to_uppercase(),
        (Value::Null, Value::Null) => true,
        (Value::Bool(a), Value::Bool(b)) => a == b,
        (Value::Number(a), Value::Number(b)) if a.is_i64() && b.is_i64() => a == b,
        _ => matches!((as_number(a), as_number(b)), (Some(a), Some(b)) if a == b),
    }
}

fn as_number(value: &Value) -> Option<f64> {
    match value {
        Value::Null => Some(0.0),
        Value::Bool(b) => Some(f64::from(u8::from(*b))),
        Value::Number(n) => n.as_f64(),
        Value::String(text) => spelled(text.trim()),
        Value::Array(_) | Value::Object(_) => None,
    }
}

fn spelled(text: &str) -> Option<f64> {
    let radix = |digits: &str, radix| {
        u32::from_str_radix(digits, radix)
            .ok()
            .map(|n| f64::from(n as i32))
    };
    match text {
        "" => Some(0.0),
        "Infinity" | "+Infinity" => Some(f64::INFINITY),
        "-Infinity" => Some(f64::NEG_INFINITY),
        _ => match (text.strip_prefix("0x"), text.strip_prefix("0o")) {
            (Some(digits), _) => radix(digits, 16),
            (_, Some(digits)) => radix(digits, 8),
            _ if text.contains(|c: char| c.is_alphabetic() && !matches!(c, 'e' | 'E')) => None,
            _ => text.parse().ok(),
        },
    }
}

#[cfg(test)]
mod tests;

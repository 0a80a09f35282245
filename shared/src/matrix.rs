//! Expands axes, `exclude` and `include` into combinations, by GitHub's rules.
//!
//! Combinations come in the order written; the last axis varies fastest. `exclude` removes each combination that one of
//! its entries matches. Each `include` entry is added to every combination that its axis values match, and later
//! entries overwrite earlier ones. An entry that matches no combination becomes one of its own. As in GitHub's runner,
//! an entry is compared leaf by leaf: maps and lists match in part, and leaves compare as with GitHub's `==`
//! ([`loosely_equal`]).
//!
//! Values are already evaluated. Nothing here knows about specs, names or cells.
//!
//! stage: axis values: combinations by GitHub's rules

use crate::expr::weight;
use indexmap::{IndexMap, IndexSet};
use serde_json::{Map, Value};

/// Maximum number of combinations, whatever is configured. A larger matrix is a mistake and would exhaust memory.
pub const MAX_CELLS: usize = 1_000_000;

/// Maximum number of keys that a cell's values may have.
pub const MAX_KEYS: usize = 256;

/// Maximum size of one axis value, or of one value that `include` adds, in bytes.
pub const MAX_VALUE: u64 = 64 << 10;

/// Maximum size of all values of all combinations together, in bytes.
pub const MAX_BYTES: u64 = 512 << 20;

/// Maximum amount to compare: number of `include` and `exclude` entries times the bytes of all axis values.
const MAX_COMPARED: u64 = 2 << 30;

/// Maximum number of match tests: number of combinations times number of entries.
const MAX_ASKED: u64 = 500_000_000;

/// Evaluated matrix of a spec.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Matrix {
    /// Whether the spec has a matrix; without one there is a single cell.
    pub written: bool,
    /// Axes in the order written. An axis without values is an error.
    pub axes: IndexMap<String, Vec<Value>>,
    /// Partial combinations to leave out.
    pub exclude: Vec<Map<String, Value>>,
    /// Entries to add.
    pub include: Vec<Map<String, Value>>,
}

/// One combination: axis values in the order of the axes, then the keys that `include` adds.
pub type Combination = IndexMap<String, Value>;

/// Reason why a matrix gives no combinations.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MatrixError {
    /// An axis has no values.
    #[error("axis `{axis}` has no values, so there are no cells")]
    EmptyAxis {
        /// Name of the axis.
        axis: String,
    },
    /// `exclude` removes every combination.
    #[error("`exclude` removes all {product} combinations, so there are no cells")]
    AllExcluded {
        /// Number of combinations before exclusion.
        product: usize,
    },
    /// The matrix is written but holds nothing. As in GitHub, that is an error, not the same as having no matrix.
    #[error("the matrix is empty, so there are no cells")]
    Empty,
    /// The cells have more than [`MAX_KEYS`] keys.
    #[error("the cells have {keys} keys, and at most {MAX_KEYS} are possible")]
    TooManyKeys {
        /// Number of keys.
        keys: usize,
    },
    /// A value is larger than [`MAX_VALUE`].
    #[error("a value of `{key}` has {bytes} bytes, and at most {MAX_VALUE} are possible")]
    LargeValue {
        /// Axis, or key that `include` adds.
        key: String,
        /// Size of the value in bytes.
        bytes: u64,
    },
    /// All values together are larger than [`MAX_BYTES`].
    #[error("the values of all combinations have more than {} MiB: {sizes}", MAX_BYTES >> 20)]
    TooLarge {
        /// Number of values per axis, as text.
        sizes: String,
    },
    /// Comparing the entries with the matrix would take too long.
    #[error(
        "comparing {entries} entries of `include` and `exclude` with this matrix would take too long: {sizes}"
    )]
    TooManyEntries {
        /// Number of entries.
        entries: usize,
        /// Number of values per axis, as text.
        sizes: String,
    },
    /// There are more than [`MAX_CELLS`] combinations.
    #[error("the matrix has {count} combinations, and at most {MAX_CELLS} are possible: {sizes}")]
    TooMany {
        /// Number of combinations.
        count: u128,
        /// Number of values per axis, as text.
        sizes: String,
    },
    /// An entry of `exclude` names something that is not an axis.
    #[error("`exclude` names `{key}`, which is not an axis")]
    UnknownAxis {
        /// Unknown name.
        key: String,
        /// Index of the entry.
        entry: usize,
    },
    /// An entry has no keys.
    #[error("an entry of `{list}` is empty")]
    EmptyEntry {
        /// `include` or `exclude`.
        list: &'static str,
        /// Index of the entry.
        entry: usize,
    },
}

impl Matrix {
    /// Returns the number of combinations of the axes, before `exclude` and `include`; 0 without axes.
    pub fn product(&self) -> usize {
        let sizes = self.axes.values().map(Vec::len);
        sizes.fold(usize::from(!self.axes.is_empty()), usize::saturating_mul)
    }
}

/// Returns all combinations, in order.
pub fn combinations(matrix: &Matrix) -> Result<Vec<Combination>, MatrixError> {
    let product = size(matrix)?;
    check_cost(matrix, product)?;
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
    let mut bytes = 0_u64;
    for _ in 0..product {
        if !exclude.iter().any(|filter| filter.matches(&indexes)) {
            let mut combination = at(matrix, &indexes);
            for (filter, used) in include.iter().zip(&mut used) {
                if filter.matches(&indexes) {
                    *used = true;
                    combination.extend(filter.extra.iter().map(|(k, v)| (k.clone(), v.clone())));
                }
            }
            bytes += size_of(&combination);
            out.push(combination);
        }
        if bytes > MAX_BYTES {
            return Err(MatrixError::TooLarge {
                sizes: sizes(matrix),
            });
        }
        advance(matrix, &mut indexes);
    }
    let unmatched = matrix.include.iter().zip(used).filter(|(_, used)| !used);
    out.extend(unmatched.map(|(entry, _)| in_axis_order(matrix, entry)));
    match (out.is_empty(), product) {
        (false, _) => Ok(out),
        (true, 0) if matrix.written => Err(MatrixError::Empty),
        // Without a matrix there is one cell, which has no values.
        (true, 0) => Ok(vec![Combination::new()]),
        (true, product) => Err(MatrixError::AllExcluded { product }),
    }
}

/// Returns the `exclude` entries that name a value their axis doesn't have: index of the entry, and the axis.
pub fn unmatched_excludes(matrix: &Matrix) -> Vec<(usize, String)> {
    let unknown = |entry: &Map<String, Value>| {
        entry.iter().find_map(|(key, wanted)| {
            let values = matrix.axes.get(key)?;
            let missing = !values.iter().any(|value| matches(wanted, value));
            missing.then(|| key.clone())
        })
    };
    let entries = matrix.exclude.iter().enumerate();
    entries
        .filter_map(|(at, entry)| Some((at, unknown(entry)?)))
        .collect()
}

/// Returns the number of combinations of the axes; 0 without axes.
fn size(matrix: &Matrix) -> Result<usize, MatrixError> {
    if matrix.axes.is_empty() {
        return Ok(0);
    }
    if let Some((axis, _)) = matrix.axes.iter().find(|(_, values)| values.is_empty()) {
        return Err(MatrixError::EmptyAxis { axis: axis.clone() });
    }
    let axes = matrix.axes.values();
    let count = axes.fold(1_u128, |count, values| {
        count.saturating_mul(values.len() as u128)
    });
    usize::try_from(count)
        .ok()
        .filter(|count| *count <= MAX_CELLS)
        .ok_or_else(|| MatrixError::TooMany {
            count,
            sizes: sizes(matrix),
        })
}

/// Returns the keys that combinations can have: the axes, and the keys that `include` adds.
pub fn keys(matrix: &Matrix) -> IndexSet<&str> {
    let axes = matrix.axes.keys();
    axes.chain(matrix.include.iter().flat_map(Map::keys))
        .map(String::as_str)
        .collect()
}

/// Checks what the matrix would cost before expanding it, because the spec may be hostile.
fn check_cost(matrix: &Matrix, product: usize) -> Result<(), MatrixError> {
    let keys = keys(matrix).len();
    if keys > MAX_KEYS {
        return Err(MatrixError::TooManyKeys { keys });
    }
    let small = |key: &String, value: &Value| {
        let (key, bytes) = (key.clone(), weight(value));
        match bytes > MAX_VALUE {
            true => Err(MatrixError::LargeValue { key, bytes }),
            false => Ok(bytes),
        }
    };
    let mut of_axes = 0;
    for (axis, values) in &matrix.axes {
        for value in values {
            of_axes += small(axis, value)?;
        }
    }
    for (key, value) in matrix.include.iter().flatten() {
        small(key, value)?;
    }
    let entries = matrix.include.len() + matrix.exclude.len();
    if entries as u64 * of_axes > MAX_COMPARED || entries as u64 * product as u64 > MAX_ASKED {
        return Err(MatrixError::TooManyEntries {
            entries,
            sizes: sizes(matrix),
        });
    }
    Ok(())
}

fn size_of(combination: &Combination) -> u64 {
    let values = combination.iter();
    values
        .map(|(key, value)| key.len() as u64 + weight(value))
        .sum()
}

/// Returns the number of values per axis for messages, such as `a 3 × b 4`.
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

/// Moves to the indexes of the next combination; the last axis varies fastest.
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

/// Entry of `include` or `exclude`, compared once with every value of its axes.
struct Filter {
    /// For each axis that the entry names: its position, and which of its values match.
    axes: Vec<(usize, Vec<bool>)>,
    /// Keys of the entry that are not axes.
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

/// Returns whether every leaf of `wanted` equals the value at the same place in `value`, where a missing value is null.
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

/// Compares two values as GitHub's `==` does. Texts compare without regard to case. Scalars of different kinds compare
/// as numbers: null is 0, bools are 0 and 1, and a text is the number it spells. A list or map equals no scalar.
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

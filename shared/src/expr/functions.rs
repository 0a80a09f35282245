//! The functions that expressions may call, and the environment with their definitions.
//!
//! The `cel` crate provides the standard library, optionals, `strings` and `lists`. This module adds `first`, `last`,
//! `fromJSON`, `fromTOML`, `matches` with a cache of compiled patterns, and the iteration of macros, in key order and
//! metered. `file` and defined functions belong to a [`super::Scope`].

use super::convert::from_json;
use super::meter;
use super::weight::{PER_VALUE, weight_of};
use cel::common::types::{
    CelBool, CelInt, CelList, CelMap, CelMapKey, CelOptional, CelString, DYN_TYPE, INT_TYPE,
    LIST_TYPE, STRING_TYPE,
};
use cel::common::value::{CowVal, Val};
use cel::{DeclarationError, Env, ExecutionError, extensions};
use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

/// Wraps the range of a macro when an expression is parsed: see [`each`].
pub(super) const EACH: &str = "@each";
/// `matches` with a cache. Calls of `matches` are renamed to it, because the crate's own function can't be replaced.
pub(super) const MATCHES: &str = "@matches";
/// `lists.range`, metered.
pub(super) const RANGE: &str = "@range";
/// `distinct`, metered: it compares all elements with each other.
pub(super) const DISTINCT: &str = "@distinct";
/// Wraps the list of an `in`, metered.
pub(super) const AMONG: &str = "@among";
/// `join` with a separator, `replace` and `split`: the size of their result doesn't follow from the sizes of their
/// arguments alone.
pub(super) const JOIN: &str = "@join";
pub(super) const REPLACE: &str = "@replace";
pub(super) const SPLIT: &str = "@split";
/// Wraps a value that becomes part of a new value, or is passed to a function that makes one: its size is counted.
pub(super) const HELD: &str = "@held";
/// Wraps a value that is compared or searched: reading it takes steps.
pub(super) const SEEN: &str = "@seen";

/// Returns whether a function only counts the values that pass through it.
pub(super) fn is_wrapper(name: &str) -> bool {
    matches!(name, EACH | AMONG | HELD | SEEN)
}

/// Maximum length of a list that `lists.range` makes.
const MAX_RANGE: u32 = 1_000_000;

/// Name, numbers of arguments as a function, numbers of arguments as a method (the target not counted).
type Signature = (&'static str, &'static [usize], &'static [usize]);

/// All functions that an expression may call, except defined ones.
#[rustfmt::skip]
const SIGNATURES: &[Signature] = &[
    // standard library
    ("size", &[1], &[0]), ("type", &[1], &[]), ("dyn", &[1], &[]),
    ("bool", &[1], &[]), ("int", &[1], &[]), ("uint", &[1], &[]), ("double", &[1], &[]),
    ("string", &[1], &[]), ("bytes", &[1], &[]), ("duration", &[1], &[]), ("timestamp", &[1], &[]),
    ("contains", &[], &[1]), ("startsWith", &[], &[1]), ("endsWith", &[], &[1]), ("matches", &[2], &[1]),
    ("getFullYear", &[], &[0, 1]), ("getMonth", &[], &[0, 1]), ("getDayOfYear", &[], &[0, 1]),
    ("getDayOfMonth", &[], &[0, 1]), ("getDate", &[], &[0, 1]), ("getDayOfWeek", &[], &[0, 1]),
    ("getHours", &[], &[0, 1]), ("getMinutes", &[], &[0, 1]), ("getSeconds", &[], &[0, 1]),
    ("getMilliseconds", &[], &[0, 1]),
    // macros
    ("has", &[1], &[]), ("all", &[], &[2]), ("exists", &[], &[2]), ("exists_one", &[], &[2]),
    ("existsOne", &[], &[2]), ("map", &[], &[2, 3]), ("filter", &[], &[2]),
    // optionals
    ("optional.of", &[1], &[]), ("optional.none", &[0], &[]), ("optional.ofNonZeroValue", &[1], &[]),
    ("hasValue", &[], &[0]), ("value", &[], &[0]), ("or", &[], &[1]), ("orValue", &[], &[1]),
    ("optMap", &[], &[2]), ("optFlatMap", &[], &[2]),
    // strings
    ("charAt", &[], &[1]), ("indexOf", &[], &[1, 2]), ("lastIndexOf", &[], &[1, 2]),
    ("lowerAscii", &[], &[0]), ("upperAscii", &[], &[0]), ("replace", &[], &[2, 3]), ("split", &[], &[1, 2]),
    ("substring", &[], &[1, 2]), ("trim", &[], &[0]), ("join", &[], &[0, 1]), ("format", &[], &[1]),
    ("strings.quote", &[1], &[]),
    // lists; `reverse` also works on strings
    ("distinct", &[], &[0]), ("flatten", &[], &[0, 1]), ("lists.range", &[1], &[]), ("reverse", &[], &[0]),
    ("slice", &[], &[2]), ("sort", &[], &[0]), ("sortBy", &[], &[2]), ("first", &[], &[0]), ("last", &[], &[0]),
    // added by Phalanx
    ("fromJSON", &[1], &[]), ("fromTOML", &[1], &[]), ("file", &[1], &[]),
];

/// Prefixes of function names, before the dot.
pub(super) const NAMESPACES: [&str; 3] = ["optional", "strings", "lists"];

/// Names of types, which are values in CEL: `type(x) == list`.
pub(super) const TYPES: [&str; 14] = [
    "bool",
    "int",
    "uint",
    "double",
    "string",
    "bytes",
    "list",
    "map",
    "null_type",
    "type",
    "optional_type",
    "dyn",
    "timestamp",
    "duration",
];

/// Returns the names of all built-in functions, for suggestions.
pub fn builtin_functions() -> impl Iterator<Item = &'static str> {
    SIGNATURES.iter().map(|(name, ..)| *name)
}

/// Returns whether a name is a CEL type; contexts and results can't have such a name.
pub fn is_type_name(name: &str) -> bool {
    TYPES.contains(&name)
}

/// Returns the numbers of arguments that a built-in takes, as a function and as a method.
pub fn arities(name: &str) -> Option<(&'static [usize], &'static [usize])> {
    SIGNATURES
        .iter()
        .find(|(known, ..)| *known == name)
        .map(|(_, global, method)| (*global, *method))
}

/// Returns the environment of all expressions: built once, immutable.
pub(super) fn environment() -> Result<&'static Arc<Env>, &'static str> {
    static ENV: LazyLock<Result<Arc<Env>, String>> = LazyLock::new(|| {
        let mut env = Env::stdlib();
        register(&mut env).map_err(|e| e.to_string())?;
        Ok(Arc::new(env))
    });
    ENV.as_ref().map_err(String::as_str)
}

fn register(env: &mut Env) -> Result<(), DeclarationError> {
    env.add_extension(extensions::strings)?;
    env.add_extension(extensions::lists)?;
    env.add_overload(EACH, "each_dyn", vec![DYN_TYPE], each)?;
    env.add_overload(AMONG, "among_dyn", vec![DYN_TYPE], among)?;
    env.add_overload(HELD, "held_dyn", vec![DYN_TYPE], held)?;
    env.add_overload(SEEN, "seen_dyn", vec![DYN_TYPE], seen)?;
    env.add_member_overload(JOIN, "list_join", LIST_TYPE, vec![STRING_TYPE], join)?;
    env.add_member_overload(
        REPLACE,
        "text_replace",
        STRING_TYPE,
        vec![STRING_TYPE, STRING_TYPE],
        replace,
    )?;
    let some = vec![STRING_TYPE, STRING_TYPE, INT_TYPE];
    env.add_member_overload(REPLACE, "text_replace_some", STRING_TYPE, some, replace)?;
    env.add_member_overload(SPLIT, "text_split", STRING_TYPE, vec![STRING_TYPE], split)?;
    let some = vec![STRING_TYPE, INT_TYPE];
    env.add_member_overload(SPLIT, "text_split_some", STRING_TYPE, some, split)?;
    env.add_overload(RANGE, "range_int", vec![INT_TYPE], range)?;
    env.add_member_overload(DISTINCT, "list_distinct", LIST_TYPE, vec![], distinct)?;
    env.add_member_overload("first", "list_first", LIST_TYPE, vec![], |args| {
        end(args, false)
    })?;
    env.add_member_overload("last", "list_last", LIST_TYPE, vec![], |args| {
        end(args, true)
    })?;
    env.add_overload(
        "fromJSON",
        "string_from_json",
        vec![STRING_TYPE],
        parse_json,
    )?;
    env.add_overload(
        "fromTOML",
        "string_from_toml",
        vec![STRING_TYPE],
        parse_toml,
    )?;
    env.add_overload(
        MATCHES,
        "string_matches",
        vec![STRING_TYPE, STRING_TYPE],
        matches,
    )?;
    env.add_member_overload(
        MATCHES,
        "member_matches",
        STRING_TYPE,
        vec![STRING_TYPE],
        matches,
    )
}

type Result_<'b, 'v> = Result<CowVal<'b, 'v>, ExecutionError>;

fn text<'a>(
    args: &'a [CowVal<'_, '_>],
    index: usize,
    function: &str,
) -> Result<&'a str, ExecutionError> {
    args.get(index)
        .and_then(|arg| arg.downcast_ref::<CelString>())
        .map(|text| text.inner())
        .ok_or_else(|| ExecutionError::function_error(function, "a string is expected"))
}

/// Passes to a macro the list itself, or a map's keys in order: a `HashMap` is unordered, and digests depend on the
/// order. Each element costs one of the evaluation's steps, so nested macros can't run for hours.
fn each<'b, 'v>(mut args: Vec<CowVal<'b, 'v>>) -> Result_<'b, 'v> {
    let Some(range) = args.pop() else {
        return Err(ExecutionError::invalid_argument_count(1, 0));
    };
    let length = range.as_sizer().map_or(1, |sizer| *sizer.size().inner());
    meter::spend(u64::try_from(length).unwrap_or(0) + 1)?;
    let Some(map) = range.downcast_ref::<CelMap>() else {
        return Ok(range);
    };
    let mut keys: Vec<CelMapKey<'v>> = map.inner().keys().cloned().collect();
    keys.sort();
    let keys = keys.into_iter().map(key_value).collect::<Vec<_>>();
    Ok(CowVal::owned(CelList::from(keys)))
}

/// Comparisons of values per step, because they are cheaper than a macro's step.
const COMPARISONS_PER_STEP: u64 = 16;

fn among<'b, 'v>(mut args: Vec<CowVal<'b, 'v>>) -> Result_<'b, 'v> {
    let Some(list) = args.pop() else {
        return Err(ExecutionError::invalid_argument_count(1, 0));
    };
    let length = list
        .downcast_ref::<CelList>()
        .map_or(0, |list| list.inner().len() as u64);
    meter::spend(length / COMPARISONS_PER_STEP)?;
    Ok(list)
}

fn held<'b, 'v>(mut args: Vec<CowVal<'b, 'v>>) -> Result_<'b, 'v> {
    let Some(value) = args.pop() else {
        return Err(ExecutionError::invalid_argument_count(1, 0));
    };
    meter::hold(weight_of(value.as_ref()))?;
    Ok(value)
}

fn seen<'b, 'v>(mut args: Vec<CowVal<'b, 'v>>) -> Result_<'b, 'v> {
    let Some(value) = args.pop() else {
        return Err(ExecutionError::invalid_argument_count(1, 0));
    };
    meter::read(weight_of(value.as_ref()))?;
    Ok(value)
}

fn join<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Result_<'b, 'v> {
    let separator = text(&args, 1, "join")?;
    let list = args.first().and_then(|list| list.downcast_ref::<CelList>());
    let mut parts = Vec::new();
    for item in list.map(|list| list.inner()).unwrap_or_default() {
        let part = item.downcast_ref::<CelString>();
        let part = part.ok_or_else(|| {
            let message = format!(
                "a list of texts is expected, and an item is of type {}",
                item.get_type().name()
            );
            ExecutionError::function_error("join", message)
        })?;
        parts.push(part.inner());
    }
    meter::hold(parts.len() as u64 * separator.len() as u64)?;
    Ok(CowVal::owned(CelString::from(parts.join(separator))))
}

/// Returns the optional last argument of `replace` and `split`; `None` if it is negative.
fn times(args: &[CowVal<'_, '_>], index: usize) -> Option<usize> {
    let times = args.get(index)?.downcast_ref::<CelInt>()?;
    usize::try_from(*times.inner()).ok()
}

fn replace<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Result_<'b, 'v> {
    let (all, from) = (text(&args, 0, "replace")?, text(&args, 1, "replace")?);
    let (to, most) = (
        text(&args, 2, "replace")?,
        times(&args, 3).unwrap_or(usize::MAX),
    );
    let found = all.matches(from).take(most).count();
    meter::hold(found as u64 * to.len() as u64)?;
    Ok(CowVal::owned(CelString::from(all.replacen(from, to, most))))
}

/// Splits a text as cel-go does: into at most `most` parts, the last with the rest; an empty separator splits between
/// characters.
fn split<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Result_<'b, 'v> {
    let (all, by) = (text(&args, 0, "split")?, text(&args, 1, "split")?);
    let most = times(&args, 2).unwrap_or(usize::MAX);
    let cuts = all.matches(by).take(most).count() as u64;
    meter::hold((cuts + 1) * PER_VALUE)?;
    let parts: Vec<&str> = match (most, by.is_empty()) {
        (0, _) => Vec::new(),
        (most, false) => all.splitn(most, by).collect(),
        (most, true) => {
            let mut parts = Vec::new();
            let mut rest = all;
            while let Some(first) = rest.chars().next().filter(|_| parts.len() + 1 < most) {
                let (head, tail) = rest.split_at(first.len_utf8());
                parts.push(head);
                rest = tail;
            }
            parts.extend((!rest.is_empty()).then_some(rest));
            parts
        }
    };
    let parts = parts
        .into_iter()
        .map(|part| Box::new(CelString::from(part.to_owned())) as Box<dyn Val + 'v>);
    Ok(CowVal::owned(CelList::from(parts.collect::<Vec<_>>())))
}

fn range<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Result_<'b, 'v> {
    let end = args
        .first()
        .and_then(|arg| arg.downcast_ref::<CelInt>())
        .and_then(|end| u32::try_from(*end.inner()).ok())
        .filter(|end| *end <= MAX_RANGE)
        .ok_or_else(|| {
            let message = format!("a number from 0 to {MAX_RANGE} is expected");
            ExecutionError::function_error("lists.range", message)
        })?;
    meter::spend(end.into())?;
    meter::hold(u64::from(end) * PER_VALUE)?;
    let items = (0..end).map(|n| Box::new(CelInt::from(i64::from(n))) as Box<dyn Val + 'v>);
    Ok(CowVal::owned(CelList::from(items.collect::<Vec<_>>())))
}

/// Returns the first of each set of equal elements, in order.
fn distinct<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Result_<'b, 'v> {
    let mut unique: Vec<Box<dyn Val + 'v>> = Vec::new();
    let list = args.first().and_then(|list| list.downcast_ref::<CelList>());
    for item in list.map(|list| list.inner()).unwrap_or_default() {
        meter::spend(unique.len() as u64 / COMPARISONS_PER_STEP)?;
        if !unique.iter().any(|seen| seen.equals(item.as_ref())) {
            unique.push(item.clone());
        }
    }
    Ok(CowVal::owned(CelList::from(unique)))
}

fn key_value<'v>(key: CelMapKey<'v>) -> Box<dyn Val + 'v> {
    match key {
        CelMapKey::Bool(key) => Box::new(key),
        CelMapKey::Int(key) => Box::new(key),
        CelMapKey::UInt(key) => Box::new(key),
        CelMapKey::String(key) => Box::new(key),
    }
}

/// Implements `first()` and `last()`, which return an optional, as in cel-go.
fn end<'b, 'v>(args: Vec<CowVal<'b, 'v>>, last: bool) -> Result_<'b, 'v> {
    let element = args
        .first()
        .and_then(|list| list.downcast_ref::<CelList>())
        .and_then(|list| match last {
            true => list.inner().last(),
            false => list.inner().first(),
        });
    Ok(CowVal::owned(match element {
        Some(element) => CelOptional::of(element.clone_as_boxed()),
        None => CelOptional::none(),
    }))
}

fn parse_json<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Result_<'b, 'v> {
    let text = text(&args, 0, "fromJSON")?;
    hold_parsed(text, b",[{")?;
    let value = serde_json::from_str(text)
        .map_err(|e| ExecutionError::function_error("fromJSON", format!("not JSON: {e}")))?;
    Ok(CowVal::Owned(from_json(&value)))
}

/// Counts the maximum that a text can contain: one value for each character that begins one.
fn hold_parsed(text: &str, signs: &[u8]) -> Result<(), ExecutionError> {
    let values = text.bytes().filter(|byte| signs.contains(byte)).count() as u64;
    meter::hold(text.len() as u64 + 2 * values * PER_VALUE)
}

fn parse_toml<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Result_<'b, 'v> {
    let text = text(&args, 0, "fromTOML")?;
    hold_parsed(text, b",[{=")?;
    let value: toml::Table = text.parse().map_err(|e: toml::de::Error| {
        ExecutionError::function_error("fromTOML", format!("not TOML: {}", e.message()))
    })?;
    Ok(CowVal::Owned(from_json(&toml_to_json(toml::Value::Table(
        value,
    )))))
}

/// Converts TOML to JSON; dates and times become text.
fn toml_to_json(value: toml::Value) -> serde_json::Value {
    match value {
        toml::Value::String(text) => text.into(),
        toml::Value::Integer(n) => n.into(),
        toml::Value::Float(n) => n.into(),
        toml::Value::Boolean(b) => b.into(),
        toml::Value::Datetime(at) => at.to_string().into(),
        toml::Value::Array(items) => items.into_iter().map(toml_to_json).collect(),
        toml::Value::Table(table) => serde_json::Value::Object(
            table
                .into_iter()
                .map(|(key, value)| (key, toml_to_json(value)))
                .collect(),
        ),
    }
}

fn matches<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Result_<'b, 'v> {
    let (all, pattern) = (text(&args, 0, "matches")?, text(&args, 1, "matches")?);
    if pattern.len() > PATTERN_BYTES {
        let message = format!(
            "the pattern has {} bytes, more than {PATTERN_BYTES}",
            pattern.len()
        );
        return Err(ExecutionError::function_error("matches", message));
    }
    // In the worst case a search takes text × pattern.
    meter::spend((all.len() as u64).saturating_mul(pattern.len() as u64) / SEARCHED_PER_STEP)?;
    let regex = compiled(pattern)?;
    Ok(CowVal::owned(CelBool::from(regex.is_match(all))))
}

/// Maximum bytes of a pattern, because compiling takes hundreds of bytes of memory per byte.
const PATTERN_BYTES: usize = 16 << 10;
/// Characters of a text times characters of a pattern that one step searches.
const SEARCHED_PER_STEP: u64 = 4096;

/// Compiles a pattern. A bounded number of compiled patterns is kept, because a check may run thousands of times.
fn compiled(pattern: &str) -> Result<regex::Regex, ExecutionError> {
    const KEPT: usize = 64;
    const COMPILED_BYTES: usize = 1 << 20;
    static CACHE: LazyLock<Mutex<HashMap<String, regex::Regex>>> = LazyLock::new(Mutex::default);
    if let Some(regex) = CACHE
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .get(pattern)
    {
        return Ok(regex.clone());
    }
    let regex = regex::RegexBuilder::new(pattern)
        .size_limit(COMPILED_BYTES)
        .dfa_size_limit(COMPILED_BYTES)
        .build()
        .map_err(|e| ExecutionError::function_error("matches", regex_error(&e)))?;
    let mut cache = CACHE.lock().unwrap_or_else(PoisonError::into_inner);
    if cache.len() >= KEPT {
        cache.clear();
    }
    cache.insert(pattern.to_owned(), regex.clone());
    Ok(regex)
}

/// Returns the last line of the crate's error text, which contains the reason.
fn regex_error(error: &regex::Error) -> String {
    let text = error.to_string();
    let last = text.lines().last().unwrap_or_default();
    format!(
        "not a regular expression: {}",
        last.trim_start_matches("error: ")
    )
}

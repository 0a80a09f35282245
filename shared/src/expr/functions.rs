//! The functions that expressions may call, and the environment that holds their definitions.
//!
//! The standard library, optionals, `strings` and `lists` are the `cel` crate's. Added here: `first`, `last`,
//! `fromJSON`, `fromTOML`, `matches` with a cache of compiled patterns, and the iteration of the macros,
//! in key order and metered. `file` and defined functions belong to a [`super::Scope`].

use super::convert::from_json;
use super::meter;
use cel::common::types::{
    CelBool, CelInt, CelList, CelMap, CelMapKey, CelOptional, CelString, DYN_TYPE, INT_TYPE,
    LIST_TYPE, STRING_TYPE,
};
use cel::common::value::{CowVal, Val};
use cel::{DeclarationError, Env, ExecutionError, extensions};
use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

/// What a macro iterates over, wrapped around it when an expression is parsed: see [`each`].
pub(super) const EACH: &str = "@each";
/// `matches` with a cache; calls of `matches` are renamed to it, since the crate's own can't be replaced.
pub(super) const MATCHES: &str = "@matches";
/// `lists.range`, metered.
pub(super) const RANGE: &str = "@range";
/// `distinct`, metered: it compares each element with each.
pub(super) const DISTINCT: &str = "@distinct";
/// The list of an `in`, wrapped around it, metered.
pub(super) const AMONG: &str = "@among";

/// The longest list that `lists.range` makes.
const MAX_RANGE: u32 = 1_000_000;

/// Name, numbers of arguments as a function, numbers of arguments as a method (the target not counted).
type Signature = (&'static str, &'static [usize], &'static [usize]);

/// Every function that an expression may call besides defined ones.
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
    // lists; `reverse` is of strings, too
    ("distinct", &[], &[0]), ("flatten", &[], &[0, 1]), ("lists.range", &[1], &[]), ("reverse", &[], &[0]),
    ("slice", &[], &[2]), ("sort", &[], &[0]), ("sortBy", &[], &[2]), ("first", &[], &[0]), ("last", &[], &[0]),
    // Phalanx's own
    ("fromJSON", &[1], &[]), ("fromTOML", &[1], &[]), ("file", &[1], &[]),
];

/// What may stand before the dot of a function's name.
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

/// The names of all built-in functions, for suggestions.
pub fn builtin_functions() -> impl Iterator<Item = &'static str> {
    SIGNATURES.iter().map(|(name, ..)| *name)
}

/// Whether a name is a type of CEL, which no context or result may be called.
pub fn is_type_name(name: &str) -> bool {
    TYPES.contains(&name)
}

/// The numbers of arguments that a built-in takes, as a function and as a method.
pub(super) fn arities(name: &str) -> Option<(&'static [usize], &'static [usize])> {
    SIGNATURES
        .iter()
        .find(|(known, ..)| *known == name)
        .map(|(_, global, method)| (*global, *method))
}

/// The environment of all expressions: built once, immutable.
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

/// Hands a macro the list itself, or a map's keys in order; a `HashMap` has none, and digests depend on it.
/// Each element costs one of the evaluation's steps, so nested macros can't run for hours.
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

/// Comparing values is cheaper than a macro's step.
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
    let items = (0..end).map(|n| Box::new(CelInt::from(i64::from(n))) as Box<dyn Val + 'v>);
    Ok(CowVal::owned(CelList::from(items.collect::<Vec<_>>())))
}

/// The first of each set of equal elements, in order.
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

/// `first()` and `last()` give an optional, as in cel-go.
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
    let value = serde_json::from_str(text(&args, 0, "fromJSON")?)
        .map_err(|e| ExecutionError::function_error("fromJSON", format!("not JSON: {e}")))?;
    Ok(CowVal::Owned(from_json(&value)))
}

fn parse_toml<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Result_<'b, 'v> {
    let value: toml::Table =
        text(&args, 0, "fromTOML")?
            .parse()
            .map_err(|e: toml::de::Error| {
                ExecutionError::function_error("fromTOML", format!("not TOML: {}", e.message()))
            })?;
    Ok(CowVal::Owned(from_json(&toml_to_json(toml::Value::Table(
        value,
    )))))
}

/// As JSON; dates and times become text.
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
    let regex = compiled(text(&args, 1, "matches")?)?;
    Ok(CowVal::owned(CelBool::from(
        regex.is_match(text(&args, 0, "matches")?),
    )))
}

/// Compiled patterns are kept, a bounded number of them: a check may run thousands of times.
fn compiled(pattern: &str) -> Result<regex::Regex, ExecutionError> {
    const KEPT: usize = 256;
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
        .build()
        .map_err(|e| ExecutionError::function_error("matches", regex_error(&e)))?;
    let mut cache = CACHE.lock().unwrap_or_else(PoisonError::into_inner);
    if cache.len() >= KEPT {
        cache.clear();
    }
    cache.insert(pattern.to_owned(), regex.clone());
    Ok(regex)
}

/// The last line of the crate's drawing says what is wrong.
fn regex_error(error: &regex::Error) -> String {
    let text = error.to_string();
    let last = text.lines().last().unwrap_or_default();
    format!(
        "not a regular expression: {}",
        last.trim_start_matches("error: ")
    )
}

//! Converts between JSON and CEL values. JSON integers become ints; maps are converted back with sorted keys.

use super::weight::MAX_LEVELS;
use base64::Engine;
use cel::common::types::{
    CelBool, CelBytes, CelDouble, CelDuration, CelInt, CelList, CelMap, CelMapKey, CelNull,
    CelOptional, CelString, CelTimestamp, CelType, CelUInt,
};
use cel::common::value::Val;
use serde_json::{Map, Number, Value};
use std::collections::{BTreeMap, HashMap};

/// Converts a JSON value to a CEL value.
pub(super) fn from_json(value: &Value) -> Box<dyn Val> {
    match value {
        Value::Null => Box::new(CelNull),
        Value::Bool(b) => Box::new(CelBool::from(*b)),
        Value::Number(n) => from_number(n),
        Value::String(text) => Box::new(CelString::from(text.clone())),
        Value::Array(items) => Box::new(CelList::from(
            items.iter().map(from_json).collect::<Vec<_>>(),
        )),
        Value::Object(map) => {
            let entries = map
                .iter()
                .map(|(key, value)| (map_key(key), from_json(value)))
                .collect::<HashMap<_, _>>();
            Box::new(CelMap::from(entries))
        }
    }
}

/// Prefix of the keys that [`int_key`] makes.
const INT_KEY: char = '\u{1}';

/// Returns the key for a map that expressions index by an integer (`steps.vm[101]`, `port[8080]`), because JSON has no
/// integer keys.
pub fn int_key(key: i64) -> String {
    format!("{INT_KEY}{key}")
}

fn map_key(key: &str) -> CelMapKey<'static> {
    let int: Option<i64> = key.strip_prefix(INT_KEY).and_then(|key| key.parse().ok());
    match int {
        Some(int) => CelMapKey::Int(CelInt::from(int)),
        None => CelMapKey::from(key.to_owned()),
    }
}

fn from_number(n: &Number) -> Box<dyn Val> {
    match (n.as_i64(), n.as_u64()) {
        (Some(int), _) => Box::new(CelInt::from(int)),
        (None, Some(uint)) => Box::new(CelUInt::from(uint)),
        (None, None) => Box::new(CelDouble::from(n.as_f64().unwrap_or(f64::NAN))),
    }
}

/// Converts a CEL value to JSON, or returns a description of the part that JSON can't represent. An optional becomes
/// its value or null, a type its name, bytes become base64, times RFC 3339 and durations `1.5s`, as `string()` writes
/// them.
pub(super) fn to_json(value: &(dyn Val + '_)) -> Result<Value, String> {
    within(value, MAX_LEVELS)
}

fn within(value: &(dyn Val + '_), levels: usize) -> Result<Value, String> {
    let inside = || {
        let too_deep = || format!("the value has more than {MAX_LEVELS} levels of lists and maps");
        levels.checked_sub(1).ok_or_else(too_deep)
    };
    if let Some(text) = value.downcast_ref::<CelString>() {
        return Ok(Value::String(text.inner().to_owned()));
    }
    if let Some(list) = value.downcast_ref::<CelList>() {
        let levels = inside()?;
        return list
            .inner()
            .iter()
            .map(|item| within(item.as_ref(), levels))
            .collect();
    }
    if let Some(map) = value.downcast_ref::<CelMap>() {
        let levels = inside()?;
        let sorted = map
            .inner()
            .iter()
            .map(|(key, value)| Ok((key_text(key), within(value.as_ref(), levels)?)))
            .collect::<Result<BTreeMap<_, _>, String>>()?;
        return Ok(Value::Object(sorted.into_iter().collect::<Map<_, _>>()));
    }
    if let Some(optional) = value.downcast_ref::<CelOptional>() {
        return optional
            .option()
            .map_or(Ok(Value::Null), |value| within(value, levels));
    }
    scalar(value)
}

fn scalar(value: &(dyn Val + '_)) -> Result<Value, String> {
    if value.downcast_ref::<CelNull>().is_some() {
        Ok(Value::Null)
    } else if let Some(b) = value.downcast_ref::<CelBool>() {
        Ok(Value::Bool(*b.inner()))
    } else if let Some(int) = value.downcast_ref::<CelInt>() {
        Ok(Value::from(*int.inner()))
    } else if let Some(uint) = value.downcast_ref::<CelUInt>() {
        Ok(Value::from(*uint.inner()))
    } else if let Some(double) = value.downcast_ref::<CelDouble>() {
        Number::from_f64(*double.inner())
            .map(Value::Number)
            .ok_or_else(|| format!("the number {} has no JSON", double.inner()))
    } else if let Some(bytes) = value.downcast_ref::<CelBytes>() {
        Ok(base64::engine::general_purpose::STANDARD
            .encode(bytes.inner())
            .into())
    } else if let Some(at) = value.downcast_ref::<CelTimestamp>() {
        Ok(at
            .inner()
            .to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true)
            .into())
    } else if let Some(span) = value.downcast_ref::<CelDuration>() {
        Ok(seconds(*span.inner()).into())
    } else if let Some(name) = value.downcast_ref::<CelType>() {
        Ok(name.name().into())
    } else {
        Err(format!(
            "a value of type {} has no JSON",
            value.get_type().name()
        ))
    }
}

fn seconds(span: chrono::Duration) -> String {
    let nanos = span.subsec_nanos().unsigned_abs();
    let sign = if span < chrono::Duration::zero() {
        "-"
    } else {
        ""
    };
    let fraction = match nanos {
        0 => String::new(),
        _ => format!(".{}", format!("{nanos:09}").trim_end_matches('0')),
    };
    format!("{sign}{}{fraction}s", span.num_seconds().unsigned_abs())
}

fn key_text(key: &CelMapKey<'_>) -> String {
    match key {
        CelMapKey::String(key) => key.inner().to_owned(),
        CelMapKey::Int(key) => key.inner().to_string(),
        CelMapKey::UInt(key) => key.inner().to_string(),
        CelMapKey::Bool(key) => key.inner().to_string(),
    }
}

//! Resolves plain scalars by YAML 1.2's core schema. Only `true` and `false` (also capitalized) are bools; `yes`, `on`
//! and `No` are texts.

use crate::node::NodeValue;

/// Reason why a plain scalar has no value.
pub enum Unfit {
    /// An integer beyond 64 bits.
    TooBig,
    /// `.inf` or `.nan`: JSON has no such numbers.
    NotFinite,
}

/// Returns the value of a plain scalar.
pub fn resolve(text: &str) -> Result<NodeValue, Unfit> {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Ok(NodeValue::Null),
        "true" | "True" | "TRUE" => return Ok(NodeValue::Bool(true)),
        "false" | "False" | "FALSE" => return Ok(NodeValue::Bool(false)),
        _ => {}
    }
    if !text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.')) {
        return Ok(NodeValue::Text(text.to_owned()));
    }
    if let Some(number) = integer(text) {
        return number.map(NodeValue::Int).ok_or(Unfit::TooBig);
    }
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    if matches!(unsigned, ".inf" | ".Inf" | ".INF") || matches!(text, ".nan" | ".NaN" | ".NAN") {
        return Err(Unfit::NotFinite);
    }
    if is_decimal(unsigned) {
        return match text.parse::<f64>() {
            Ok(number) if number.is_finite() => Ok(NodeValue::Float(number)),
            _ => Err(Unfit::TooBig),
        };
    }
    Ok(NodeValue::Text(text.to_owned()))
}

/// Parses an integer. Returns `Some(None)` for one that doesn't fit into 64 bits.
fn integer(text: &str) -> Option<Option<i64>> {
    for (prefix, radix) in [("0x", 16), ("0o", 8)] {
        if let Some(digits) = text.strip_prefix(prefix) {
            let fits = !digits.is_empty() && digits.chars().all(|c| c.is_digit(radix));
            return fits.then(|| i64::from_str_radix(digits, radix).ok());
        }
    }
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let fits = !digits.is_empty() && digits.bytes().all(|c| c.is_ascii_digit());
    fits.then(|| text.parse().ok())
}

/// Returns whether a text matches `[0-9]* . [0-9]* ( [eE] [-+]? [0-9]+ )?` with a digit before the exponent.
fn is_decimal(text: &str) -> bool {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (text, None),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = |part: &str| part.bytes().all(|c| c.is_ascii_digit());
    let exponent = exponent.is_none_or(|part| {
        let part = part.strip_prefix(['+', '-']).unwrap_or(part);
        !part.is_empty() && digits(part)
    });
    digits(whole) && digits(fraction) && !(whole.is_empty() && fraction.is_empty()) && exponent
}

/// Returns how a number is spelled when read back, if that differs from the source: `1.10` is the number 1.1.
pub fn changed_spelling(text: &str, value: &NodeValue) -> Option<String> {
    let NodeValue::Float(number) = value else {
        return None;
    };
    let shown = format!("{number:?}");
    let plain = text.bytes().all(|c| c.is_ascii_digit() || c == b'.');
    (plain && text.contains('.') && !text.starts_with('.') && shown != text).then_some(shown)
}

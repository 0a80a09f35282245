//! The forms in which a secret's value can appear in output.
//!
//! Base64 has three alignments, because the bytes before the value shift it. Percent-encoding depends on the encoder,
//! and escapes depend on the language. Each form is a pattern of its own.

use super::MIN_CHARS;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use percent_encoding::{AsciiSet, CONTROLS, NON_ALPHANUMERIC, percent_encode};
use std::collections::BTreeSet;

/// Returns all forms of a value, also without surrounding white space and with CRLF line breaks, and the escaped forms of
/// its lines. Forms shorter than [`MIN_CHARS`] bytes are left out.
pub(super) fn of(value: &str) -> BTreeSet<Vec<u8>> {
    let mut forms = BTreeSet::new();
    let trimmed = value.trim();
    let crlf = trimmed.replace("\r\n", "\n").replace('\n', "\r\n");
    for value in [value, trimmed, &crlf] {
        every_form(value, &mut forms);
    }
    for line in trimmed.lines().map(str::trim) {
        if line.chars().count() >= MIN_CHARS && line.len() < trimmed.len() {
            escaped(line, &mut forms);
        }
    }
    forms.retain(|form| form.len() >= MIN_CHARS);
    forms
}

fn every_form(value: &str, forms: &mut BTreeSet<Vec<u8>>) {
    escaped(value, forms);
    percent(value, forms);
    base64(value, forms);
    let hex = hex::encode(value);
    forms.insert(hex.to_uppercase().into_bytes());
    forms.insert(hex.into_bytes());
}

/// Adds the value itself, and its forms as a string of JSON, HTML and the shell.
fn escaped(value: &str, forms: &mut BTreeSet<Vec<u8>>) {
    let mut add = |form: String| {
        forms.insert(form.into_bytes());
    };
    add(value.to_owned());
    for style in [
        Json::Plain,
        Json::Slash,
        Json::Html,
        Json::AsciiLower,
        Json::AsciiUpper,
    ] {
        let once = json(value, style);
        add(json(&once, style));
        add(once);
    }
    html(value, &mut add);
    add(value.replace('\'', r"'\''"));
    add(value.replace('\'', r#"'"'"'"#));
    add(value
        .replace('\\', r"\\")
        .replace('\'', r"\'")
        .replace('\n', r"\n"));
}

/// Styles in which encoders escape JSON strings.
#[derive(Clone, Copy, PartialEq)]
enum Json {
    /// Escapes only the characters that must be escaped.
    Plain,
    /// Also escapes `/`, as PHP does.
    Slash,
    /// Also escapes `<`, `>` and `&`, as Go does.
    Html,
    /// Also escapes everything beyond ASCII, as Python does.
    AsciiLower,
    /// Like `AsciiLower`, with upper-case hexadecimal digits.
    AsciiUpper,
}

fn json(value: &str, style: Json) -> String {
    let mut out = String::with_capacity(value.len());
    for c in value.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '/' if style == Json::Slash => out.push_str("\\/"),
            '<' | '>' | '&' if style == Json::Html => {
                out.push_str(&format!("\\u{:04x}", c as u32));
            }
            c if (c as u32) < 0x20 => out.push_str(&format!("\\u{:04x}", c as u32)),
            c if !c.is_ascii() && matches!(style, Json::AsciiLower | Json::AsciiUpper) => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    out.push_str(&match style {
                        Json::AsciiUpper => format!("\\u{unit:04X}"),
                        _ => format!("\\u{unit:04x}"),
                    });
                }
            }
            c => out.push(c),
        }
    }
    out
}

fn html(value: &str, add: &mut impl FnMut(String)) {
    let basic = value
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;");
    for quote in ["\"", "&quot;", "&#34;", "&#x22;"] {
        for apostrophe in ["'", "&#39;", "&#x27;", "&apos;"] {
            add(basic.replace('"', quote).replace('\'', apostrophe));
        }
    }
}

/// RFC 3986: only unreserved characters stay unencoded.
const STRICT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~');
/// JavaScript's `encodeURIComponent`.
const COMPONENT: &AsciiSet = &STRICT
    .remove(b'!')
    .remove(b'*')
    .remove(b'\'')
    .remove(b'(')
    .remove(b')');
/// HTML forms, as browsers send them; a space becomes `+`.
const FORM: &AsciiSet = &STRICT.remove(b'*').add(b'~');
/// Sets of the URL standard, as HTTP clients use them for parts of a URL.
const QUERY: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'#').add(b'<').add(b'>');
const SPECIAL_QUERY: &AsciiSet = &QUERY.add(b'\'');
const PATH: &AsciiSet = &QUERY.add(b'?').add(b'^').add(b'`').add(b'{').add(b'}');
const SEGMENT: &AsciiSet = &PATH.add(b'/').add(b'%');
const USERINFO: &AsciiSet = &PATH
    .add(b'/')
    .add(b':')
    .add(b';')
    .add(b'=')
    .add(b'@')
    .add(b'[')
    .add(b'\\')
    .add(b']')
    .add(b'|');

fn percent(value: &str, forms: &mut BTreeSet<Vec<u8>>) {
    let mut add = |form: String| {
        forms.insert(lower_digits(&form).into_bytes());
        forms.insert(form.into_bytes());
    };
    let sets = [
        NON_ALPHANUMERIC,
        STRICT,
        COMPONENT,
        FORM,
        QUERY,
        SPECIAL_QUERY,
        PATH,
        SEGMENT,
        USERINFO,
    ];
    for set in sets {
        let encoded = percent_encode(value.as_bytes(), set).to_string();
        add(encoded.replace("%20", "+"));
        add(percent_encode(encoded.as_bytes(), STRICT).to_string());
        add(encoded);
    }
    add(value.bytes().map(|byte| format!("%{byte:02X}")).collect());
}

/// Returns the text with the digits after each `%` in lower case.
fn lower_digits(encoded: &str) -> String {
    let mut digits = 0;
    encoded
        .chars()
        .map(|c| match (c, digits) {
            ('%', _) => {
                digits = 2;
                c
            }
            (_, 0) => c,
            _ => {
                digits -= 1;
                c.to_ascii_lowercase()
            }
        })
        .collect()
}

/// Line lengths at which `base64`, OpenSSL and MIME break their output.
const LINES: [usize; 2] = [64, 76];

fn base64(value: &str, forms: &mut BTreeSet<Vec<u8>>) {
    for (padded, bare) in [(&STANDARD, &STANDARD_NO_PAD), (&URL_SAFE, &URL_SAFE_NO_PAD)] {
        for ending in ["", "\n", "\r\n"] {
            let encoded = padded.encode(format!("{value}{ending}"));
            for width in LINES {
                let lines = encoded
                    .as_bytes()
                    .chunks(width)
                    .filter(|line| line.len() >= 2 * MIN_CHARS);
                forms.extend(lines.map(<[u8]>::to_vec));
            }
            forms.insert(encoded.into_bytes());
        }
        for before in 0..3 {
            let mut shifted = vec![0; before];
            shifted.extend_from_slice(value.as_bytes());
            let encoded = bare.encode(&shifted).into_bytes();
            // Characters that share bits with a neighbouring byte are left out: the first ones after `before` bytes,
            // and the last.
            let from = [0, 2, 3][before];
            let to = shifted.len() * 8 / 6;
            forms.extend(encoded.get(from..to).map(<[u8]>::to_vec));
        }
    }
}

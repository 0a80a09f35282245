//! The text of an answer: decoded by its byte order mark, else by the charset of its content type, else as UTF-8.
//!
//! Only charsets that are still in common use are known. Bytes beyond ASCII in other charsets are not guessed.

use std::borrow::Cow;

/// On the web, ISO 8859-1 and ASCII mean Windows-1252: these are its characters from 0x80 to 0x9f.
const WINDOWS_1252: [u16; 32] = [
    0x20ac, 0x81, 0x201a, 0x192, 0x201e, 0x2026, 0x2020, 0x2021, 0x2c6, 0x2030, 0x160, 0x2039,
    0x152, 0x8d, 0x17d, 0x8f, 0x90, 0x2018, 0x2019, 0x201c, 0x201d, 0x2022, 0x2013, 0x2014, 0x2dc,
    0x2122, 0x161, 0x203a, 0x153, 0x9d, 0x17e, 0x178,
];

/// The known charsets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Charset {
    /// UTF-8; invalid bytes become U+FFFD.
    Utf8,
    /// UTF-16, little endian.
    Utf16Le,
    /// UTF-16, big endian.
    Utf16Be,
    /// ISO 8859-1 as browsers read it.
    Windows1252,
}

/// Returns the charset of an answer and the length in bytes of its byte order mark. The error is the name of an unknown
/// charset.
pub fn detect(content_type: &str, bytes: &[u8]) -> Result<(Charset, usize), String> {
    for (mark, charset) in [
        (&b"\xef\xbb\xbf"[..], Charset::Utf8),
        (b"\xff\xfe", Charset::Utf16Le),
        (b"\xfe\xff", Charset::Utf16Be),
    ] {
        if bytes.starts_with(mark) {
            return Ok((charset, mark.len()));
        }
    }
    let Some(name) = parameter(content_type) else {
        return Ok((Charset::Utf8, 0));
    };
    let charset = match name.to_ascii_lowercase().as_str() {
        "" | "utf-8" | "utf8" => Charset::Utf8,
        "utf-16" | "utf-16le" => Charset::Utf16Le,
        "utf-16be" => Charset::Utf16Be,
        "iso-8859-1" | "iso8859-1" | "latin1" | "latin-1" | "windows-1252" | "cp1252"
        | "us-ascii" | "ascii" => Charset::Windows1252,
        _ => return Err(name.to_owned()),
    };
    Ok((charset, 0))
}

/// Decodes an answer. An unknown charset is decoded as UTF-8.
pub fn text<'b>(content_type: &str, bytes: &'b [u8]) -> Cow<'b, str> {
    let (charset, mark) = detect(content_type, bytes).unwrap_or((Charset::Utf8, 0));
    let bytes = bytes.get(mark..).unwrap_or_default();
    match charset {
        Charset::Utf8 => String::from_utf8_lossy(bytes),
        Charset::Utf16Le => Cow::Owned(utf16(bytes, u16::from_le_bytes)),
        Charset::Utf16Be => Cow::Owned(utf16(bytes, u16::from_be_bytes)),
        Charset::Windows1252 => Cow::Owned(bytes.iter().map(|byte| windows_1252(*byte)).collect()),
    }
}

fn utf16(bytes: &[u8], unit: fn([u8; 2]) -> u16) -> String {
    let (pairs, rest) = bytes.as_chunks::<2>();
    let mut text =
        String::from_utf16_lossy(&pairs.iter().map(|pair| unit(*pair)).collect::<Vec<_>>());
    if !rest.is_empty() {
        text.push(char::REPLACEMENT_CHARACTER);
    }
    text
}

fn windows_1252(byte: u8) -> char {
    let special = byte
        .checked_sub(0x80)
        .and_then(|index| WINDOWS_1252.get(usize::from(index)));
    special
        .and_then(|code| char::from_u32(u32::from(*code)))
        .unwrap_or(char::from(byte))
}

/// Returns the charset parameter without quotes.
fn parameter(content_type: &str) -> Option<&str> {
    content_type.split(';').skip(1).find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.trim()
            .eq_ignore_ascii_case("charset")
            .then(|| value.trim().trim_matches('"'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_order_mark_decides_and_is_no_part_of_the_text() {
        assert_eq!(
            text("text/plain; charset=latin1", b"\xef\xbb\xbf{\xc3\xa9}"),
            "{é}"
        );
        assert_eq!(text("application/json", b"\xff\xfeh\0\xe9\0"), "hé");
        assert_eq!(text("", b"\xfe\xff\0h\0\xe9"), "hé");
    }

    #[test]
    fn the_content_type_decides_else_and_utf_8_without_it() {
        assert_eq!(
            text("text/html;CHARSET=\"ISO-8859-1\"", b"caf\xe9 \x80"),
            "café €"
        );
        assert_eq!(text("text/plain; a=b; charset=utf-16be", b"\0a\0b"), "ab");
        assert_eq!(text("text/plain; charset=utf-16", b"a\0b"), "a\u{fffd}");
        assert_eq!(text("text/plain", "café".as_bytes()), "café");
        assert_eq!(
            text("text/plain; charset=latin1", &[0x9f, 0xa0, 0xff, 0x41]),
            "Ÿ\u{a0}ÿA"
        );
    }

    #[test]
    fn a_charset_that_isnt_known_is_named() {
        assert_eq!(
            detect("text/plain; charset=koi8-r", b"x"),
            Err("koi8-r".to_owned())
        );
        assert_eq!(text("text/plain; charset=koi8-r", b"x"), "x");
    }
}

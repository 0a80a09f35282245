//! Tells what a file is by its first bytes and its name.

/// Number of bytes that tell whether a file is text.
const HEAD: usize = 8 << 10;

/// Returns whether the beginning of a file is text: UTF-8 without NUL.
fn is_text(head: &[u8]) -> bool {
    let head = head.get(..HEAD).unwrap_or(head);
    let is_utf8 = match std::str::from_utf8(head) {
        Ok(_) => true,
        // The last character may be cut.
        Err(error) => error.error_len().is_none(),
    };
    is_utf8 && !head.contains(&0)
}

/// Returns whether a file is a picture, a video, an archive or a document whose bytes show no text. Text that only begins
/// like one isn't.
pub fn is_medium(head: &[u8]) -> bool {
    medium(head).is_some() && !is_text(head)
}

/// Returns the type of a medium by its first bytes.
fn medium(head: &[u8]) -> Option<&'static str> {
    let starts = |magic: &[u8]| head.starts_with(magic);
    let at = |offset: usize, magic: &[u8]| {
        head.get(offset..offset + magic.len())
            .is_some_and(|bytes| bytes == magic)
    };
    let medium = if starts(b"\x89PNG\r\n\x1a\n") {
        "image/png"
    } else if starts(b"\xff\xd8\xff") {
        "image/jpeg"
    } else if starts(b"GIF87a") || starts(b"GIF89a") {
        "image/gif"
    } else if starts(b"RIFF") && at(8, b"WEBP") {
        "image/webp"
    } else if starts(b"\x1a\x45\xdf\xa3") {
        "video/webm"
    } else if at(4, b"ftyp") {
        "video/mp4"
    } else if starts(b"PK\x03\x04") {
        "application/zip"
    } else if starts(b"\x1f\x8b") {
        "application/gzip"
    } else if starts(b"%PDF-") {
        "application/pdf"
    } else {
        return None;
    };
    Some(medium)
}

/// Returns the media type. Content that a browser runs (HTML, SVG, scripts) is named as what it is; whether it is shown
/// is decided where it would be.
pub fn media_type(path: &str, head: &[u8]) -> &'static str {
    if let Some(medium) = medium(head) {
        return medium;
    }
    if !is_text(head) {
        return "application/octet-stream";
    }
    let extension = path.rsplit('/').next().unwrap_or(path);
    let extension = extension.rsplit_once('.').map_or("", |(_, end)| end);
    match extension.to_ascii_lowercase().as_str() {
        "json" | "har" => "application/json",
        "xml" => "application/xml",
        "html" | "htm" => "text/html",
        "svg" => "image/svg+xml",
        "csv" => "text/csv",
        "md" => "text/markdown",
        "js" | "mjs" => "text/javascript",
        _ => "text/plain",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_decides_and_a_name_only_says_which_text_it_is() {
        for (path, head, expected) in [
            ("a.txt", &b"\x89PNG\r\n\x1a\nrest"[..], "image/png"),
            ("a.png", b"plain", "text/plain"),
            ("a.png", b"\0\0", "application/octet-stream"),
            ("shot", b"\xff\xd8\xff\xe0", "image/jpeg"),
            ("v", b"\0\0\0\x18ftypmp42", "video/mp4"),
            ("a/report.HTML", b"<html>", "text/html"),
            ("x.svg", b"<svg>", "image/svg+xml"),
            ("empty", b"", "text/plain"),
        ] {
            assert_eq!(media_type(path, head), expected, "{path}");
        }
    }

    #[test]
    fn a_log_with_a_foreign_byte_and_text_that_begins_like_a_picture_are_no_media() {
        assert!(is_medium(b"\x89PNG\r\n\x1a\n"));
        assert!(is_medium(b"GIF89a\x00\xff"));
        assert!(!is_medium(b"GIF89a of the day: a text"));
        assert!(!is_medium(b"r\xe9sum\xe9: a log in Latin-1"));
        assert!(!is_medium(b"a hole\0\0\0 after it was truncated"));
    }

    #[test]
    fn a_character_that_is_cut_is_still_text() {
        assert!(is_text("ä".as_bytes().get(..1).unwrap_or_default()));
        assert!(!is_text(b"\xff\xfe"));
    }
}

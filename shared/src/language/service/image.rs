//! Checks image references: `[HOST[:PORT]/]NAME[:TAG][@DIGEST]`.

/// Maximum length of a tag.
const MAX_TAG: usize = 128;

/// Returns the problem with a reference, if there is one.
pub fn problem(text: &str) -> Option<&'static str> {
    if text.contains('$') {
        return Some("it holds `$`");
    }
    if text.is_empty() {
        return Some("it is empty");
    }
    let (text, digest) = match text.split_once('@') {
        Some((text, digest)) => (text, Some(digest)),
        None => (text, None),
    };
    let slash = text.rfind('/').map_or(0, |at| at + 1);
    let colon = text.get(slash..).and_then(|last| last.rfind(':'));
    let (name, tag) = match colon.map(|at| text.split_at(slash + at)) {
        Some((name, tag)) => (name, Some(tag.get(1..).unwrap_or_default())),
        None => (text, None),
    };
    let path = match name.split_once('/') {
        Some((host, path)) if is_host(host) => path,
        _ => name,
    };
    if path.split('/').any(|part| !is_component(part)) {
        return Some("a name is lower case letters, digits, and `.`, `_`, `-` between them");
    }
    match (tag, digest) {
        (Some(""), _) => Some("the tag after `:` is empty"),
        (Some(tag), _) if !is_tag(tag) => Some("a tag is letters, digits, `_`, `.` and `-`"),
        (_, Some(digest)) if !is_digest(digest) => {
            Some("a digest is an algorithm and hexadecimal digits")
        }
        _ => None,
    }
}

/// Returns whether a reference names the same image for ever: by its digest, or by an engine's id `sha256:…`.
pub fn is_fixed(text: &str) -> bool {
    match text.split_once('@') {
        Some(_) => problem(text).is_none(),
        None => is_id(text),
    }
}

/// Returns whether a reference is an engine's id of an image: no registry has it.
pub fn is_id(text: &str) -> bool {
    text.starts_with("sha256:") && is_digest(text)
}

/// Returns whether the first part of a name is a registry's host.
pub(crate) fn is_host(part: &str) -> bool {
    part == "localhost" || part.contains(['.', ':']) || part.chars().any(|c| c.is_ascii_uppercase())
}

fn is_component(part: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    part.starts_with(plain)
        && part.ends_with(plain)
        && part
            .chars()
            .all(|c| plain(c) || matches!(c, '.' | '_' | '-'))
}

fn is_tag(tag: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    tag.len() <= MAX_TAG
        && tag.starts_with(plain)
        && tag.chars().all(|c| plain(c) || matches!(c, '.' | '-'))
}

fn is_digest(digest: &str) -> bool {
    digest.split_once(':').is_some_and(|(algorithm, hex)| {
        !algorithm.is_empty() && hex.len() >= 32 && hex.bytes().all(|c| c.is_ascii_hexdigit())
    })
}

#[cfg(test)]
mod tests {
    use super::{is_fixed, is_id, problem};

    #[test]
    fn only_digests_and_ids_name_one_image_for_ever() {
        let digest = format!("sha256:{}", "0a".repeat(32));
        let named = format!("localhost:5000/db:16@{digest}");
        assert!(is_fixed(&named) && !is_id(&named));
        assert!(is_fixed(&digest) && is_id(&digest));
        for text in [
            "db",
            "db:16",
            "sha256:0a",
            "sha256",
            "db@",
            "db@sha256:0a",
            "$x@",
        ] {
            assert!(!is_fixed(text), "{text}");
        }
    }

    #[test]
    fn references_that_the_engine_refuses_are_found() {
        let digest = format!("a@sha256:{}", "0a".repeat(32));
        for good in [
            "a",
            "bb:1",
            "library/postgres:17-alpine",
            "ghcr.io/o/n.a_m-e:v1.2_x",
            "localhost:5000/x",
            "localhost/x/y:t",
            "10.0.0.1:5000/a/b:c",
            "[::1]:5000/a",
            &digest,
        ] {
            assert_eq!(problem(good), None, "{good}");
        }
        for bad in [
            "",
            "$X",
            "a:${X}",
            "bb:",
            "/bb",
            "a//b",
            "Upper",
            "a/Upper:1",
            "a b",
            "a:b c",
            "a:-x",
            "a@sha256:zz",
            "a:b:c",
        ] {
            assert!(problem(bad).is_some(), "{bad}");
        }
    }
}

//! Joins and compares paths without access to any file system.

/// Normalizes a path: removes `.`, and each `..` that follows a directory name.
pub fn tidy(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            ".." if path.starts_with('/') => {}
            _ => parts.push(part),
        }
    }
    let root = if path.starts_with('/') { "/" } else { "" };
    format!("{root}{}", parts.join("/"))
}

/// Returns a path as seen from where `folder` is seen from; an absolute path stays what it is.
pub fn join(folder: &str, path: &str) -> String {
    if path.starts_with('/') || folder.is_empty() {
        tidy(path)
    } else {
        tidy(&format!("{folder}/{path}"))
    }
}

/// Returns the directory of a file; the empty text is the current one.
pub fn folder(path: &str) -> &str {
    match path.rsplit_once('/') {
        Some(("", _)) => "/",
        Some((folder, _)) => folder,
        None => "",
    }
}

/// Returns the way from one directory to another, both tidy. Returns `None` if only the file system knows it: one of
/// them is absolute, or it leads down into a directory that has no name here.
pub fn relative(from: &str, to: &str) -> Option<String> {
    if from.starts_with('/') != to.starts_with('/') {
        return None;
    }
    let parts = |path: &str| -> Vec<String> {
        let parts = path.split('/').filter(|part| !part.is_empty());
        parts.map(str::to_owned).collect()
    };
    let (from, to) = (parts(from), parts(to));
    let same = from.iter().zip(&to).take_while(|(a, b)| a == b).count();
    let up = from.get(same..).unwrap_or_default();
    if up.iter().any(|part| part == "..") {
        return None;
    }
    let mut way = vec!["..".to_owned(); up.len()];
    way.extend(to.into_iter().skip(same));
    Some(way.join("/"))
}

/// Returns whether a path is in a directory, or is the directory itself. Both are tidy.
pub fn is_within(path: &str, folder: &str) -> bool {
    relative(folder, path).is_some_and(|way| way != ".." && !way.starts_with("../"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_tidied_without_a_file_system() {
        for (path, tidied) in [
            ("a/./b.yaml", "a/b.yaml"),
            ("a/../b.yaml", "b.yaml"),
            ("../b.yaml", "../b.yaml"),
            ("/../b", "/b"),
            ("a//b", "a/b"),
            ("../../a/../b", "../../b"),
        ] {
            assert_eq!(tidy(path), tidied);
        }
    }

    #[test]
    fn the_way_between_two_directories_is_found_by_their_names() {
        for (from, to, way) in [
            ("", "", Some("")),
            ("", "a/b", Some("a/b")),
            ("a", "a/b", Some("b")),
            ("a/b", "a", Some("..")),
            ("a", "b", Some("../b")),
            ("", "../x", Some("../x")),
            ("../a", "../b", Some("../b")),
            ("../a", "", None),
            ("/a", "b", None),
            ("/a", "/a/b", Some("b")),
        ] {
            assert_eq!(relative(from, to).as_deref(), way, "{from} to {to}");
        }
        assert!(is_within("a/b", "a") && is_within("a", "a") && is_within("x", ""));
        assert!(!is_within("ab", "a") && !is_within("../x", "") && !is_within("/x", ""));
    }

    #[test]
    fn a_file_s_directory_may_be_the_current_one() {
        for (path, found) in [("a/b", "a"), ("a", ""), ("/a", "/"), ("../a", "..")] {
            assert_eq!(folder(path), found);
        }
    }
}

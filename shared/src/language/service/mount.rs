//! Parses mounts in Compose's short form `SOURCE:TARGET[:OPTIONS]`, and checks their paths.

use super::{Mount, MountKind};

/// Problem with a mount, and advice on how to write it.
pub struct Unfit {
    pub problem: String,
    pub help: &'static str,
}

const HOW: &str = "write `./path:/target:ro` for a path of the workspace, `name:/target` for a volume of the cell, or `/target`";

/// Parses `[SOURCE:]TARGET[:OPTIONS]`.
pub fn short(text: &str) -> Result<Mount, Unfit> {
    let unfit = |why: &str| Unfit {
        problem: format!("`{text}` is no mount: {why}"),
        help: HOW,
    };
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, options) = match parts.as_slice() {
        [target] => (None, *target, ""),
        [source, target] if target.starts_with('/') => (Some(*source), *target, ""),
        [target, options] if target.starts_with('/') => (None, *target, *options),
        [source, target] => (Some(*source), *target, ""),
        [source, target, options] => (Some(*source), *target, *options),
        _ => return Err(unfit("it has too many colons")),
    };
    if !target.starts_with('/') {
        return Err(unfit("the path in the container is absolute"));
    }
    let (mut read_only, mut no_copy) = (false, false);
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option {
            "ro" => read_only = true,
            "nocopy" => no_copy = true,
            "rw" | "z" | "Z" | "cached" | "delegated" | "consistent" | "private" | "rprivate" => {}
            "shared" | "rshared" | "slave" | "rslave" => {
                return Err(unfit("mounts are not shared with the host"));
            }
            _ => return Err(unfit("its options are `ro`, `rw` and `nocopy`")),
        }
    }
    let kind = match source {
        None => MountKind::Anonymous,
        Some(source) => kind(source).map_err(|why| unfit(&why))?,
    };
    Ok(Mount {
        kind,
        target: target.to_owned(),
        read_only,
        tmpfs_size: None,
        tmpfs_mode: None,
        no_copy,
    })
}

/// Returns whether a source is a path or a volume's name.
fn kind(source: &str) -> Result<MountKind, String> {
    if source.starts_with(['.', '/', '~']) {
        return path(source).map(|()| MountKind::Bind(source.to_owned()));
    }
    volume_name(source).map(|()| MountKind::Named(source.to_owned()))
}

/// Checks a path in the workspace or on the host. Returns the problem with it.
pub fn path(source: &str) -> Result<(), String> {
    if source.starts_with('~') {
        return Err("there is no home directory".into());
    }
    if source.is_empty() {
        return Err("the path is empty".into());
    }
    if source.starts_with('/') {
        return Ok(());
    }
    let mut depth = 0_i32;
    for part in source.split('/') {
        match part {
            "" | "." => {}
            ".." => depth -= 1,
            _ => depth += 1,
        }
        if depth < 0 {
            return Err("the path leaves the workspace".into());
        }
    }
    Ok(())
}

/// Checks the name of a volume. Returns the problem with it.
pub fn volume_name(name: &str) -> Result<(), String> {
    if name.contains('/') {
        return Err("a path of the workspace starts with `./`".into());
    }
    let fits = name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'));
    fits.then_some(())
        .ok_or_else(|| "a volume's name is letters, digits, `_`, `.` and `-`".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compose_s_short_forms_are_read() {
        let read = |text: &str| {
            short(text)
                .ok()
                .map(|mount| (mount.kind, mount.target, mount.read_only))
        };
        let bind = |path: &str| MountKind::Bind(path.to_owned());
        assert_eq!(read("./a:/b:ro"), Some((bind("./a"), "/b".into(), true)));
        assert_eq!(read(".:/b"), Some((bind("."), "/b".into(), false)));
        assert_eq!(
            read("/etc/x:/b:rw,z"),
            Some((bind("/etc/x"), "/b".into(), false))
        );
        assert_eq!(
            read("data:/b"),
            Some((MountKind::Named("data".into()), "/b".into(), false))
        );
        assert_eq!(read("/b"), Some((MountKind::Anonymous, "/b".into(), false)));
        for text in [
            "",
            "a",
            "a:b",
            "a/b:/c",
            "../a:/b",
            "./a/../../b:/c",
            "~/a:/b",
            "a:/b:xx",
            "a:/b:ro:x",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}

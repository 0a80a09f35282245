//! Parses mounts in Compose's short form `SOURCE:TARGET[:OPTIONS]`, and checks their paths.

use super::{Mount, MountKind, Propagation};

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
    let mut propagation = None;
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option {
            "ro" => read_only = true,
            "nocopy" => no_copy = true,
            "rw" | "z" | "Z" | "cached" | "delegated" | "consistent" => {}
            other => match other.parse() {
                Ok(found) => propagation = Some(found),
                Err(_) => {
                    return Err(unfit(
                        "its options are `ro`, `rw`, `nocopy`, and `rslave` or another propagation",
                    ));
                }
            },
        }
    }
    let kind = match source {
        None => MountKind::Anonymous,
        Some(source) => kind(source).map_err(|why| unfit(&why))?,
    };
    if let Some(why) = propagation.and_then(|propagation| not_propagated(&kind, propagation)) {
        return Err(unfit(why));
    }
    Ok(Mount {
        kind,
        target: target.to_owned(),
        read_only,
        tmpfs_size: None,
        tmpfs_mode: None,
        no_copy,
        subpath: None,
        propagation,
    })
}

/// Returns why a mount can't have a propagation, or `None` if it can.
pub fn not_propagated(kind: &MountKind, propagation: Propagation) -> Option<&'static str> {
    match kind {
        // A mount that stays there would keep the agent from removing its copy of the workspace.
        MountKind::Bind(path) if propagation.reaches_host() && !path.starts_with('/') => Some(
            "mounts are not shared with the agent's copy of the workspace: only a path of its host can be `shared`",
        ),
        MountKind::Bind(_) => None,
        _ => Some("only a path has a propagation"),
    }
}

/// Checks a path in a volume. Returns the problem with it.
pub fn subpath(path: &str) -> Result<(), String> {
    match path {
        "" => Err("the path is empty".into()),
        _ if path.starts_with('/') => Err("the path is relative to the volume".into()),
        _ if path.split('/').any(|part| part == "..") => Err("the path leaves the volume".into()),
        _ => Ok(()),
    }
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
    fn only_paths_of_the_host_are_shared_with_it() {
        let of = |text: &str| short(text).ok().and_then(|mount| mount.propagation);
        assert_eq!(of("/mnt:/b:rshared"), Some(Propagation::Rshared));
        assert_eq!(of("./a:/b:slave"), Some(Propagation::Slave));
        let why = short("./a:/b:shared").err().map(|unfit| unfit.problem);
        assert!(why.is_some_and(|why| why.contains("copy of the workspace")));
    }

    #[test]
    fn a_subpath_stays_in_its_volume() {
        assert!(subpath("a/b").is_ok());
        for wrong in ["", "/a", "a/../../b"] {
            assert!(subpath(wrong).is_err(), "{wrong}");
        }
    }

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
        assert_eq!(
            read("/mnt:/b:ro,rslave"),
            Some((bind("/mnt"), "/b".into(), true))
        );
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
            "a:/b:rslave",
            "./a:/b:rshared",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}

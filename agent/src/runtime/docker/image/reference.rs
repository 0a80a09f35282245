//! Image references: their registry, and the default tag. Pure.

/// Key of Docker Hub in Docker's configuration.
pub(super) const HUB: &str = "https://index.docker.io/v1/";

/// Returns the registry's key in Docker's configuration.
pub(super) fn registry(reference: &str) -> &str {
    match reference.split_once('/') {
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => key(host),
        _ => HUB,
    }
}

/// Returns a registry host's key in Docker's configuration.
pub(super) fn key(host: &str) -> &str {
    match host {
        "docker.io" | "index.docker.io" | "registry-1.docker.io" => HUB,
        host => host,
    }
}

/// Returns the reference with a tag: without one the engine would pull every tag.
pub(super) fn tagged(reference: &str) -> String {
    let last = reference.rsplit('/').next().unwrap_or(reference);
    match last.contains([':', '@']) {
        true => reference.to_owned(),
        false => format!("{reference}:latest"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_registry_is_the_first_part_if_it_looks_like_a_host() {
        assert_eq!(registry("postgres:17"), HUB);
        assert_eq!(registry("library/postgres"), HUB);
        assert_eq!(registry("docker.io/library/postgres"), HUB);
        assert_eq!(registry("ghcr.io/a/b:1"), "ghcr.io");
        assert_eq!(registry("localhost/a"), "localhost");
        assert_eq!(registry("reg:5000/a"), "reg:5000");
    }

    #[test]
    fn latest_is_meant_only_without_tag_and_digest() {
        assert_eq!(tagged("reg:5000/a"), "reg:5000/a:latest");
        assert_eq!(tagged("a:1"), "a:1");
        assert_eq!(tagged("a@sha256:00"), "a@sha256:00");
    }
}

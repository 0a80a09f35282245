//! Which of an image's digests names what a service runs.

/// Returns the digest `REPOSITORY@sha256:…` of the repository from which the image was asked for, or else the first one.
/// `None` if the image came from no registry.
pub(super) fn of<'a>(image: &str, digests: &'a [String]) -> Option<&'a str> {
    let repository = repository(image);
    let same = digests.iter().find(|digest| {
        let name = digest.split('@').next().unwrap_or_default();
        name == repository
    });
    same.or(digests.first()).map(String::as_str)
}

/// Returns an image's name without its tag and digest, as the engine writes it: Docker Hub's `docker.io/library/` is left
/// out.
fn repository(image: &str) -> &str {
    let name = image.split('@').next().unwrap_or_default();
    let name = match name.rsplit_once(':') {
        // A colon before a slash belongs to the registry's port.
        Some((name, tag)) if !tag.contains('/') => name,
        _ => name,
    };
    let hub = name.strip_prefix("docker.io/").unwrap_or(name);
    hub.strip_prefix("library/").unwrap_or(hub)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_of_the_repository_that_was_asked_for_is_taken() {
        let digests = ["mirror:5000/postgres@sha256:aa", "postgres@sha256:bb"].map(String::from);
        for (image, digest) in [
            ("postgres", "postgres@sha256:bb"),
            ("postgres:17", "postgres@sha256:bb"),
            ("docker.io/library/postgres:17", "postgres@sha256:bb"),
            ("mirror:5000/postgres", "mirror:5000/postgres@sha256:aa"),
            ("mirror:5000/postgres:17", "mirror:5000/postgres@sha256:aa"),
            ("postgres@sha256:bb", "postgres@sha256:bb"),
            ("renamed:1", "mirror:5000/postgres@sha256:aa"),
        ] {
            assert_eq!(of(image, &digests), Some(digest), "{image}");
        }
        assert_eq!(of("built:1", &[]), None);
    }
}

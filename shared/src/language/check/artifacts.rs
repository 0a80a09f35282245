//! Checks `artifacts` of steps, services and cells.

use super::position::Position;
use super::reference::{Checker, suggest};
use crate::language::model::{Artifact, Service};
use crate::node::holds_interpolation;

impl<'s> Checker<'s, '_> {
    /// Checks entries; `owner` is the service in which they stand.
    pub fn artifacts(
        &mut self,
        artifacts: &'s [Artifact],
        owner: Option<&'s Service>,
        at: &Position<'s>,
    ) {
        for artifact in artifacts {
            self.template(&artifact.from, at);
            self.maybe_template(artifact.name.as_ref(), at);
            self.maybe_node(artifact.max.as_ref(), at);
            if !holds_interpolation(&artifact.from.text) {
                self.artifact_path(artifact, owner);
            }
            let name = artifact.name.as_ref();
            if let Some(name) = name.filter(|name| !holds_interpolation(&name.text))
                && let Some(problem) = Artifact::problem_of_name(&name.text)
            {
                let help = "a name is a relative path, such as `screenshots/login.png`";
                self.report(
                    name.span,
                    format!("`{}`: {problem}", name.text),
                    Some(help.to_owned()),
                );
            }
        }
    }

    fn artifact_path(&mut self, artifact: &Artifact, owner: Option<&Service>) {
        let from = &artifact.from;
        let services = &self.names.spec.services;
        let named = |name: &str| services.iter().find(|known| known.name.text == name);
        let (service, path) = match owner {
            Some(owner) => (Some(owner), from.text.as_str()),
            None => match Artifact::split(&from.text, |name| named(name).is_some()) {
                (None, path) => (None, path),
                (Some(name), path) => match named(name) {
                    Some(service) => (Some(service), path),
                    None => {
                        let help = suggest(name, self.names.services.iter().copied(), "service");
                        let message = format!("there is no service `{name}`");
                        return self.report(from.span, message, help);
                    }
                },
            },
        };
        let up = path.split('/').any(|part| part == "..");
        let (problem, help) = match service {
            _ if path.is_empty() || path.ends_with('/') => (
                "it names no file",
                "write a glob for all files of a directory: `DIR/**`",
            ),
            _ if up => ("it holds `..`", "name the files from their directory on"),
            None if path.starts_with('/') => (
                "a path in the workspace doesn't begin with `/`",
                "`SERVICE:/path` is a path in a service",
            ),
            Some(service) if !service.process && !path.starts_with('/') => (
                "a path in a container begins with `/`",
                "write `SERVICE:/path`, or `/path` in the service itself",
            ),
            _ => return,
        };
        self.report(
            from.span,
            format!("`{path}`: {problem}"),
            Some(help.to_owned()),
        );
    }
}

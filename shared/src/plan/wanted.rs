//! Images that a cell needs, as far as they are known before it runs. Agents pull and build them while the cell waits.

use crate::diagnostic::{Severity, Span};
use crate::expr::{canonical_json, value_to_node};
use crate::id::RunId;
use crate::language::service::{
    NamedContext, PullPolicy as Policy, ServiceConfig, decode_service, image,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use std::borrow::Borrow;
use std::cmp::Ordering;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// Maximum bytes of a definition. An image with a longer one is prepared by the cell itself.
pub const MAX_DEFINITION: usize = 64 << 10;

/// An image that a cell needs. Two with the same id are the same image. Cheap to clone.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct WantedImage(Arc<Wanted>);

/// The parts of a [`WantedImage`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Wanted {
    /// The image's name if it is only pulled; else a text with a space, which no name has, and a digest of the rest.
    pub id: String,
    /// What is done, for display: `pull postgres:17`, `build web`.
    pub what: String,
    /// The keys of the service's definition that say how the image is made.
    pub definition: Value,
    /// Digest of the workspace, if files of it are needed.
    pub workspace: Option<String>,
    /// The run for which it is pulled or built anew.
    pub run: Option<RunId>,
}

/// Keys of a definition that say how the image is made.
pub(super) const KEYS: [&str; 4] = ["image", "build", "platform", "pull_policy"];

impl WantedImage {
    /// Makes one of its parts.
    pub fn new(parts: Wanted) -> Self {
        WantedImage(Arc::new(parts))
    }

    /// Returns an image that is pulled if it isn't there.
    pub fn plain(image: &str) -> Self {
        let definition = Map::from_iter([("image".to_owned(), Value::from(image))]);
        WantedImage::new(Wanted {
            id: image.to_owned(),
            what: format!("pull {image}"),
            definition: Value::Object(definition),
            workspace: None,
            run: None,
        })
    }

    /// Returns the image of an evaluated definition, or `None` if nothing can be done ahead of the cell: the image must be
    /// there already, the definition is invalid, or the build gets secrets, which travel only with an offer.
    pub(super) fn of(
        service: &str,
        definition: Map<String, Value>,
        workspace: Option<&str>,
    ) -> Option<Anew> {
        if let (1, Some(Value::String(image))) = (definition.len(), definition.get("image")) {
            // The usual case; a run may have many thousand cells.
            return image::problem(image.trim()).is_none().then(|| Anew {
                image: WantedImage::plain(image),
                anew: false,
            });
        }
        let definition = Value::Object(definition);
        let config = config(service, &definition)?;
        let policy = config.pull_policy;
        let (what, anew, local) = match (&config.build, &config.image) {
            _ if policy == Policy::Never => return None,
            (Some(build), _) if !build.secrets.is_empty() || !build.ssh.is_empty() => return None,
            // Only the whole spec says how the other service's image is made.
            (Some(build), _) if build.contexts.iter().any(NamedContext::is_service) => return None,
            (Some(build), _) => {
                let remote = build.is_remote();
                let anew = policy == Policy::Build || build.no_cache || build.pull || remote;
                (format!("build {service}"), anew, !remote)
            }
            (None, Some(image)) if config.platform.is_none() && policy == Policy::Missing => {
                return Some(Anew {
                    image: WantedImage::plain(image),
                    anew: false,
                });
            }
            (None, Some(image)) => (format!("pull {image}"), policy == Policy::Always, false),
            (None, None) => return None,
        };
        let workspace = workspace.filter(|_| local).map(str::to_owned);
        let text = canonical_json(&definition);
        if text.len() > MAX_DEFINITION {
            return None;
        }
        let mut hash = Sha256::new();
        hash.update(workspace.as_deref().unwrap_or_default());
        hash.update([0]);
        hash.update(text);
        let image = WantedImage::new(Wanted {
            id: format!("image {}", hex::encode(hash.finalize())),
            what,
            definition,
            workspace,
            run: None,
        });
        Some(Anew { image, anew })
    }

    /// Returns its id.
    pub fn id(&self) -> &str {
        &self.0.id
    }

    /// Returns what is done, for display.
    pub fn what(&self) -> &str {
        &self.0.what
    }

    /// Returns its parts.
    pub fn parts(&self) -> &Wanted {
        &self.0
    }

    /// Returns the image's name, if an agent of an earlier version can pull it by that alone.
    pub fn name(&self) -> Option<&str> {
        let by_name = !self.0.id.contains(' ');
        by_name.then_some(self.0.id.as_str())
    }

    /// Returns the definition as a runtime takes it; `None` if it is invalid.
    pub fn config(&self) -> Option<ServiceConfig> {
        config("image", &self.0.definition)
    }
}

/// An image that may have to be made anew for each run.
#[derive(Clone, Debug)]
pub(super) struct Anew {
    pub image: WantedImage,
    pub anew: bool,
}

impl Anew {
    /// Returns the image as this run needs it.
    pub fn of_run(&self, run: &RunId) -> WantedImage {
        if !self.anew {
            return self.image.clone();
        }
        let parts = self.image.parts().clone();
        WantedImage::new(Wanted {
            id: format!("{} {run}", parts.id),
            run: Some(run.clone()),
            ..parts
        })
    }
}

fn config(service: &str, definition: &Value) -> Option<ServiceConfig> {
    let mut findings = Vec::new();
    let node = value_to_node(definition, Span::default());
    let config = decode_service(service, &node, &mut findings);
    let valid = findings
        .iter()
        .all(|finding| finding.severity != Severity::Error);
    valid.then_some(config)
}

impl From<&str> for WantedImage {
    fn from(image: &str) -> Self {
        WantedImage::plain(image)
    }
}

impl PartialEq for WantedImage {
    fn eq(&self, other: &Self) -> bool {
        self.id() == other.id()
    }
}

impl Eq for WantedImage {}

impl PartialOrd for WantedImage {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for WantedImage {
    fn cmp(&self, other: &Self) -> Ordering {
        self.id().cmp(other.id())
    }
}

impl Hash for WantedImage {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.id().hash(state);
    }
}

impl Borrow<str> for WantedImage {
    fn borrow(&self) -> &str {
        self.id()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn of(definition: Value, workspace: Option<&str>) -> Option<Anew> {
        let Value::Object(definition) = definition else {
            return None;
        };
        WantedImage::of("web", definition, workspace)
    }

    #[test]
    fn an_image_that_is_only_pulled_goes_by_its_name() {
        let db = of(json!({ "image": "db:1" }), Some("w")).unwrap();
        let run = RunId::from("r");
        assert_eq!(db.of_run(&run).name(), Some("db:1"));
        assert_eq!(db.of_run(&run), WantedImage::from("db:1"));
        let other = of(json!({ "image": "db:1", "platform": "linux/arm64" }), None).unwrap();
        assert_eq!(other.of_run(&run).name(), None);
        assert_eq!(other.of_run(&run).what(), "pull db:1");
    }

    #[test]
    fn builds_differ_by_definition_and_workspace_and_not_by_service_or_run() {
        let build = |args: Value, workspace| {
            let made = of(
                json!({ "build": { "context": "web", "args": args } }),
                workspace,
            );
            made.unwrap().of_run(&"r".into())
        };
        let one = build(json!({ "V": "1" }), Some("w"));
        assert_eq!(one, build(json!({ "V": "1" }), Some("w")));
        assert_ne!(one, build(json!({ "V": "2" }), Some("w")));
        assert_ne!(one, build(json!({ "V": "1" }), Some("x")));
        assert_eq!(one.parts().workspace.as_deref(), Some("w"));
        assert_eq!(one.config().unwrap().build.unwrap().context, "web");
    }

    #[test]
    fn what_is_made_anew_belongs_to_one_run() {
        for definition in [
            json!({ "image": "db", "pull_policy": "always" }),
            json!({ "build": { "context": ".", "no_cache": true } }),
            json!({ "build": "https://host/repo.git" }),
        ] {
            let image = of(definition, Some("w")).unwrap();
            assert_ne!(image.of_run(&"r".into()), image.of_run(&"s".into()));
        }
        let remote = of(json!({ "build": "https://host/repo.git" }), Some("w")).unwrap();
        assert_eq!(remote.image.parts().workspace, None);
    }

    #[test]
    fn what_needs_the_cell_is_left_to_it() {
        for definition in [
            json!({ "image": "db", "pull_policy": "never" }),
            json!({ "build": { "context": ".", "secrets": ["token"] } }),
            json!({ "build": { "context": "/etc/../x:y", "args": 5 } }),
            json!({ "image": "NO IMAGE" }),
            json!({ "build": { "context": ".", "dockerfile_inline": "#".repeat(MAX_DEFINITION) } }),
            json!({}),
        ] {
            assert!(of(definition.clone(), None).is_none(), "{definition}");
        }
    }
}

//! The README's first example is the one in `examples/shop`, which drives an untouched Compose file by its axes.
#![allow(clippy::unwrap_used)]

use phalanx_shared::diagnostic::Source;
use phalanx_shared::language::load;

fn file(path: &str) -> String {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    std::fs::read_to_string(format!("{root}/{path}")).unwrap()
}

#[test]
fn the_first_screen_is_an_example_that_drives_an_untouched_compose_file() {
    let readme = file("README.md");
    let (_, rest) = readme.split_once("```yaml\n").unwrap();
    let (shown, _) = rest.split_once("```").unwrap();
    let text = file("examples/shop/spec.yaml");
    assert_eq!(shown, text);
    let main = Source {
        name: "spec.yaml".into(),
        text,
    };
    let loaded = load(main, &mut |path| {
        Ok(Source {
            name: path.into(),
            text: file(&format!("examples/shop/{path}")),
        })
    });
    let warned: Vec<&str> = loaded
        .diagnostics
        .iter()
        .map(|found| found.message.as_str())
        .collect();
    // The host port of the file.
    assert_eq!(warned.len(), 1, "{warned:?}");
    let spec = loaded.spec.unwrap();
    let axes: usize = spec.strategy.axes.len();
    assert_eq!((axes, spec.services.len()), (2, 2));
    let image = spec.services[1].definition.get("image").unwrap();
    let image = image.as_text().unwrap();
    assert!(image.contains("inputs.redis"), "{image}");
}

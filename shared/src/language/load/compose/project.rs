//! Loads the Compose files of a project into one tree: `include`, `extends` and the merge of several files, in the order
//! in which docker compose does it.
//!
//! Each file is expanded with the variables of its project, gets what it includes, has its services merged over those
//! that they extend, and is merged over the files before it. At the end, all paths are relative to the workspace.

use super::reader::{File, Reader};
use super::{extends, merge, rebase, unique};
use crate::diagnostic::Diagnostic;
use crate::language::load::paths;
use crate::language::quantity;
use crate::language::shape::check::found;
use crate::node::{Entry, Node, NodeValue, Text};

/// Sections whose entries a project takes over from the files that it includes.
const SECTIONS: [&str; 6] = [
    "services", "volumes", "networks", "secrets", "configs", "models",
];

/// Files of one project, the later ones over the earlier ones.
struct Model {
    /// Paths of the files as written, and tidy.
    files: Vec<(Text, String)>,
    /// Directory that the files' paths are relative to.
    folder: String,
}

/// One entry of `include`.
struct Include {
    paths: Vec<Text>,
    folder: Option<Text>,
    env_files: Vec<Text>,
}

/// Loads the files that a spec names. `root` is the spec's directory, where the workspace begins.
/// Without a name in the files, the project has the spec's.
pub fn load(root: &str, named: &[Text], name: &str, reader: &mut Reader<'_, '_>) -> Option<Node> {
    let files: Vec<(Text, String)> = named
        .iter()
        .map(|path| (path.clone(), paths::join(root, &path.text)))
        .collect();
    let (first, joined) = files.first()?;
    let folder = paths::folder(joined).to_owned();
    reader.within.push(folder.clone());
    let Some(way) = paths::relative(root, &folder) else {
        let span = first.span;
        let help = "name the Compose file by a path within the workspace";
        reader.error(
            span,
            format!("the way from `{root}` to `{folder}` is unknown"),
            help,
        );
        return None;
    };
    let of_files = project_name(&files, reader);
    let name = of_files.unwrap_or_else(|| name.to_owned());
    reader.variables.name_project(&name);
    let model = Model { files, folder };
    let mut tree = merged(&model, &mut Vec::new(), reader)?;
    rebase::file(&mut tree, &way, reader.diagnostics);
    Some(tree)
}

/// Returns the name in the last file that has one.
fn project_name(files: &[(Text, String)], reader: &mut Reader<'_, '_>) -> Option<String> {
    for (named, joined) in files.iter().rev() {
        // Errors in the files are reported when they are loaded.
        let mut ignored = Vec::new();
        let Some((file, text)) = reader.files.read_at(joined, named, &mut ignored) else {
            continue;
        };
        let Some((mut tree, _)) = reader.files.parse_compose(file, &text, &mut ignored) else {
            continue;
        };
        let NodeValue::Map(entries) = &mut tree.value else {
            continue;
        };
        entries.retain(|entry| entry.key.text == "name");
        reader
            .variables
            .expand(&mut tree, &mut Vec::new(), &mut ignored);
        let name = tree.get("name").and_then(quantity::spelling);
        // A name that differs between cells names no project.
        if let Some(name) = name.filter(|name| !name.contains("${{")) {
            return Some(name);
        }
    }
    None
}

/// Loads and merges the files of a project. `above` are the files that include it.
fn merged(model: &Model, above: &mut Vec<String>, reader: &mut Reader<'_, '_>) -> Option<Node> {
    let mut tree: Option<Node> = None;
    for (named, joined) in &model.files {
        let Some(mut file) = reader.open(joined, named) else {
            continue;
        };
        above.push(joined.clone());
        include(&mut file, model, above, reader);
        above.pop();
        if let Some(tree) = &mut tree {
            file.resets.apply(tree);
        }
        let file = extends::resolve(file, &model.folder, reader);
        let mut both = match tree.take() {
            Some(earlier) => merge::files(earlier, file.tree, reader.diagnostics),
            None => file.tree,
        };
        unique::enforce(&mut both);
        tree = Some(both);
    }
    tree
}

/// Adds what a file includes to its tree, and removes the key.
fn include(file: &mut File, model: &Model, above: &mut Vec<String>, reader: &mut Reader<'_, '_>) {
    let NodeValue::Map(sections) = &mut file.tree.value else {
        return;
    };
    let Some(at) = sections
        .iter()
        .position(|entry| entry.key.text == "include")
    else {
        return;
    };
    let written = sections.remove(at).value;
    if !matches!(written.value, NodeValue::List(_) | NodeValue::Null) {
        let message = format!("`include` takes a list, not {}", found(&written));
        reader.error(written.span, message, INCLUDE);
    }
    for item in written.items() {
        let Some(entry) = read(item, reader) else {
            continue;
        };
        if let Some(tree) = included(&entry, model, above, reader) {
            take_over(&mut file.tree, tree, reader);
        }
    }
}

const INCLUDE: &str =
    "write `include: [FILE]`, or entries `{ path: FILE, project_directory: DIR, env_file: FILE }`";

/// Reads an entry of `include`.
fn read(item: &Node, reader: &mut Reader<'_, '_>) -> Option<Include> {
    if let Some(path) = text(item) {
        return Some(Include {
            paths: vec![path],
            folder: None,
            env_files: Vec::new(),
        });
    }
    for entry in item.entries() {
        let known = ["path", "project_directory", "env_file"];
        if !known.contains(&entry.key.text.as_str()) {
            let message = format!("unknown key `{}` in `include`", entry.key.text);
            reader.error(entry.key.span, message, INCLUDE);
        }
    }
    let paths = item.get("path").and_then(texts).unwrap_or_default();
    let folder = item.get("project_directory").filter(|node| !node.is_null());
    let env_files = item.get("env_file").filter(|node| !node.is_null());
    let (folder, env_files) = (folder.map(text), env_files.map(texts));
    if paths.is_empty() || folder == Some(None) || env_files == Some(None) {
        let message = format!("an entry of `include` names a file, not {}", found(item));
        reader.error(item.span, message, INCLUDE);
        return None;
    }
    Some(Include {
        paths,
        folder: folder.flatten(),
        env_files: env_files.flatten().unwrap_or_default(),
    })
}

fn text(node: &Node) -> Option<Text> {
    let text = node.as_text()?.to_owned();
    let span = node.span;
    Some(Text { text, span })
}

/// Returns a text or a list of texts.
fn texts(node: &Node) -> Option<Vec<Text>> {
    match &node.value {
        NodeValue::List(items) => items.iter().map(text).collect(),
        _ => Some(vec![text(node)?]),
    }
}

/// Loads an included project, with its paths relative to the project that includes it.
fn included(
    entry: &Include,
    outer: &Model,
    above: &mut Vec<String>,
    reader: &mut Reader<'_, '_>,
) -> Option<Node> {
    let mut files = Vec::new();
    for path in &entry.paths {
        let joined = reader.place(&outer.folder, path)?;
        if above.contains(&joined) {
            let message = format!(
                "`{}` includes itself: {} → {joined}",
                path.text,
                above.join(" → ")
            );
            let help = "an included file can't include one that includes it";
            reader.error(path.span, message, help);
            return None;
        }
        files.push((path.clone(), joined));
    }
    let folder = match &entry.folder {
        Some(folder) => reader.place(&outer.folder, folder)?,
        None => paths::folder(&files.first()?.1).to_owned(),
    };
    let place = entry.paths.first()?;
    let Some(way) = paths::relative(&outer.folder, &folder) else {
        let message = format!("the way from `{}` to `{folder}` is unknown", outer.folder);
        reader.error(
            place.span,
            message,
            "name the file by a path within the workspace",
        );
        return None;
    };
    let mut env_files = Vec::new();
    for path in entry
        .env_files
        .iter()
        .filter(|path| path.text != "/dev/null")
    {
        env_files.push((path.clone(), reader.place(&outer.folder, path)?));
    }
    reader
        .variables
        .enter(reader.files, &env_files, reader.diagnostics);
    let tree = merged(&Model { files, folder }, above, reader);
    let tree = tree.map(|mut tree| {
        reader.variables.give_environment(&mut tree);
        tree
    });
    reader.variables.leave();
    let mut tree = tree?;
    rebase::file(&mut tree, &way, reader.diagnostics);
    Some(tree)
}

/// Adds the services, volumes and so on of an included project. Two different ones of one name are an error.
fn take_over(tree: &mut Node, included: Node, reader: &mut Reader<'_, '_>) {
    let (NodeValue::Map(sections), NodeValue::Map(more)) = (&mut tree.value, included.value) else {
        return;
    };
    for section in more {
        if !SECTIONS.contains(&section.key.text.as_str()) {
            continue;
        }
        let name = section.key.text.clone();
        match sections.iter_mut().find(|known| known.key.text == name) {
            Some(known) if !known.value.is_null() => {
                let what = name.trim_end_matches('s');
                add(&mut known.value, section.value, what, reader.diagnostics);
            }
            Some(known) => known.value = section.value,
            None => sections.push(section),
        }
    }
}

fn add(known: &mut Node, more: Node, what: &str, diagnostics: &mut Vec<Diagnostic>) {
    let (NodeValue::Map(known), NodeValue::Map(more)) = (&mut known.value, more.value) else {
        return;
    };
    let index = known.iter().enumerate();
    let index: std::collections::HashMap<String, usize> = index
        .map(|(at, entry)| (entry.key.text.clone(), at))
        .collect();
    let mut new: Vec<Entry> = Vec::new();
    for entry in more {
        match index.get(&entry.key.text).and_then(|at| known.get(*at)) {
            None => new.push(entry),
            Some(here) if same(&here.value, &entry.value) => {}
            Some(here) => {
                let name = &entry.key.text;
                let message = format!(
                    "the {what} `{name}` is also in another file, and one of the two is included"
                );
                diagnostics.push(
                    Diagnostic::error(here.key.span, message)
                        .with_related(entry.key.span, "written here")
                        .with_help(
                            "rename one; to change an included one, include a second file over it: `include: [{ path: [FILE, OVERRIDE] }]`",
                        ),
                );
            }
        }
    }
    known.extend(new);
}

/// Returns whether two values are the same, wherever they are written.
fn same(one: &Node, other: &Node) -> bool {
    match (&one.value, &other.value) {
        (NodeValue::List(one), NodeValue::List(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(a, b)| same(a, b))
        }
        (NodeValue::Map(one), NodeValue::Map(other)) => {
            let there: std::collections::HashMap<&str, &Node> = other
                .iter()
                .map(|entry| (entry.key.text.as_str(), &entry.value))
                .collect();
            one.len() == other.len()
                && one.iter().all(|entry| {
                    let there = there.get(entry.key.text.as_str());
                    there.is_some_and(|there| same(&entry.value, there))
                })
        }
        (one, other) => one == other,
    }
}

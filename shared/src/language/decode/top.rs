//! Decodes the top level of a spec, and of a file that it includes.

use super::fields::Fields;
use super::{define, http, matrix, step};
use crate::diagnostic::Diagnostic;
use crate::language::keys::top::{INCLUDED, SPEC};
use crate::language::model::{
    CellSettings, CoverageRow, Define, InputDecl, InputType, Phase, Require, Session, Strategy,
};
use crate::language::quantity;
use crate::language::shape::check;
use crate::language::shape::name::is_extension;
use crate::node::{Entry, Node, NodeValue, Text};

/// Parts that any file of a spec may hold.
#[derive(Debug, Default)]
pub(crate) struct Parts {
    /// Paths of the files to include.
    pub include: Vec<Text>,
    pub inputs: Vec<InputDecl>,
    pub coverage: Vec<CoverageRow>,
    pub vars: Vec<(Text, Node)>,
    /// Services as written; `extends` is resolved once all files have been read.
    pub services: Vec<Entry>,
    pub sessions: Vec<Session>,
    pub define: Vec<Define>,
}

/// Parts that only the main file may hold.
#[derive(Debug)]
pub(crate) struct Main {
    pub name: Option<String>,
    pub require: Vec<Require>,
    pub strategy: Strategy,
    pub cell: CellSettings,
    pub secrets: Vec<Text>,
    pub workspace: Vec<Text>,
    pub network: Option<Node>,
    /// Paths of the Compose files.
    pub compose: Vec<Text>,
    /// Active profiles of the Compose files, if the spec names them.
    pub profiles: Option<Vec<Text>>,
    /// Values of the Compose file's variables.
    pub variables: Vec<(Text, Node)>,
    /// Files with further values.
    pub env_files: Vec<Text>,
    pub default_session: Option<Text>,
    pub phases: Vec<Phase>,
}

/// Decodes the main file.
pub(crate) fn main(node: &Node, diagnostics: &mut Vec<Diagnostic>) -> (Main, Parts) {
    if !matches!(node.value, NodeValue::Map(_)) {
        let found = check::found(node);
        diagnostics.push(
            Diagnostic::error(node.span, format!("a spec is a map, not {found}"))
                .with_help("it begins with `name:` and has `phases:`; see docs/spec.md"),
        );
    } else {
        check::check_table(&SPEC, node, "the spec", diagnostics);
    }
    let fields = Fields::of(node);
    let phases = fields.entries("phases");
    if let Some(entry) = fields.entry("phases")
        && phases.is_empty()
        && matches!(entry.value.value, NodeValue::Map(_))
    {
        diagnostics.push(Diagnostic::error(entry.key.span, "`phases` has no phase"));
    }
    let main = Main {
        name: fields.string("name"),
        require: require(&fields, diagnostics),
        strategy: matrix::strategy(fields.get("strategy"), fields.span),
        cell: matrix::cell(fields.get("cell")),
        secrets: secrets(&fields, diagnostics),
        workspace: fields
            .get("workspace")
            .map(|node| step::names(Fields::of(node).items("include")))
            .unwrap_or_default(),
        network: fields.node("network"),
        compose: of_stack(&fields, "compose").unwrap_or_default(),
        profiles: of_stack(&fields, "profiles"),
        variables: fields
            .get("stack")
            .map_or(&[][..], |node| Fields::of(node).entries("variables"))
            .iter()
            .map(|entry| (entry.key.clone(), entry.value.clone()))
            .collect(),
        env_files: of_stack(&fields, "env-file").unwrap_or_default(),
        default_session: fields
            .get("defaults")
            .and_then(|node| node.get("http"))
            .and_then(|node| Fields::of(node).text("session")),
        phases: phases
            .iter()
            .filter(|entry| !is_extension(&entry.key.text))
            .map(|entry| step::phase(entry, diagnostics))
            .collect(),
    };
    (main, parts(&fields, diagnostics))
}

/// Decodes an included file.
pub(crate) fn included(node: &Node, diagnostics: &mut Vec<Diagnostic>) -> Parts {
    if !matches!(node.value, NodeValue::Map(_)) {
        let found = check::found(node);
        diagnostics.push(Diagnostic::error(
            node.span,
            format!("an included file is a map, not {found}"),
        ));
    } else {
        check::check_table(&INCLUDED, node, "the included file", diagnostics);
    }
    parts(&Fields::of(node), diagnostics)
}

fn parts(fields: &Fields<'_>, diagnostics: &mut Vec<Diagnostic>) -> Parts {
    let pairs = |key: &str| {
        let entries = fields.entries(key).iter();
        entries.filter(|entry| !is_extension(&entry.key.text))
    };
    Parts {
        include: step::names(fields.items("include")),
        inputs: pairs("inputs")
            .map(|entry| input(entry, diagnostics))
            .collect(),
        coverage: pairs("coverage")
            .filter_map(|entry| {
                Some(CoverageRow {
                    key: entry.key.clone(),
                    title: entry.value.as_text()?.to_owned(),
                })
            })
            .collect(),
        vars: pairs("vars")
            .map(|entry| (entry.key.clone(), entry.value.clone()))
            .collect(),
        services: pairs("services").cloned().collect(),
        sessions: pairs("sessions").map(session).collect(),
        define: pairs("define")
            .filter_map(|entry| define::define(entry, diagnostics))
            .collect(),
    }
}

/// Decodes a key of `stack` that takes one text or a list of them.
fn of_stack(fields: &Fields<'_>, key: &str) -> Option<Vec<Text>> {
    let stack = Fields::of(fields.get("stack")?);
    stack.entry(key)?;
    Some(match stack.text(key) {
        Some(text) => vec![text],
        None => step::names(stack.items(key)),
    })
}

fn require(fields: &Fields<'_>, diagnostics: &mut Vec<Diagnostic>) -> Vec<Require> {
    let items = fields.items("require").iter();
    items
        .filter_map(|item| {
            let fields = Fields::of(item);
            Some(Require {
                that: fields.expr("that", diagnostics)?,
                message: fields.template("message")?,
            })
        })
        .collect()
}

fn secrets(fields: &Fields<'_>, diagnostics: &mut Vec<Diagnostic>) -> Vec<Text> {
    let names = step::names(fields.items("secrets"));
    for (at, name) in names.iter().enumerate() {
        if let Some(earlier) = names.iter().take(at).find(|other| other.text == name.text) {
            diagnostics.push(
                Diagnostic::error(name.span, format!("duplicate secret `{}`", name.text))
                    .with_related(earlier.span, "first written here"),
            );
        }
    }
    names
}

fn session(entry: &Entry) -> Session {
    let fields = Fields::of(&entry.value);
    Session {
        name: entry.key.clone(),
        base: fields.template("base"),
        headers: fields.node("headers"),
        tls: fields.get("tls").map(http::tls),
    }
}

fn input(entry: &Entry, diagnostics: &mut Vec<Diagnostic>) -> InputDecl {
    let fields = Fields::of(&entry.value);
    let options = fields.items("options").to_vec();
    let kind = match fields.string("type").as_deref() {
        Some("boolean") => InputType::Boolean,
        Some("number") => InputType::Number,
        Some("list") => InputType::List,
        Some("choice") => InputType::Choice,
        Some("string") if options.is_empty() => InputType::String,
        _ if !options.is_empty() => InputType::Choice,
        _ => InputType::String,
    };
    let input = InputDecl {
        name: entry.key.clone(),
        kind,
        options,
        default: fields.node("default"),
        description: fields.string("description"),
    };
    check_input(&input, &fields, diagnostics);
    input
}

/// Checks what an input's shape can't express: whether options and default fit the type.
fn check_input(input: &InputDecl, fields: &Fields<'_>, diagnostics: &mut Vec<Diagnostic>) {
    let name = &input.name.text;
    let options = fields.entry("options");
    match (input.kind, options) {
        (InputType::Choice, Some(_)) => {}
        (InputType::Choice, None) => diagnostics.push(
            Diagnostic::error(
                input.name.span,
                format!("the choice `{name}` lacks `options`"),
            )
            .with_help("list the allowed values: `options: [a, b]`"),
        ),
        (_, Some(options)) => diagnostics.push(
            Diagnostic::error(
                options.key.span,
                format!("`options` don't go with the type of `{name}`"),
            )
            .with_help("leave `type` out, or write `type: choice`"),
        ),
        _ => {}
    }
    let Some(default) = &input.default else {
        return;
    };
    let list = matches!(default.value, NodeValue::List(_));
    let problem = match input.kind {
        InputType::Boolean if !matches!(default.value, NodeValue::Bool(_)) => {
            "`true` or `false`".to_owned()
        }
        InputType::Number if !matches!(default.value, NodeValue::Int(_) | NodeValue::Float(_)) => {
            "a number".to_owned()
        }
        InputType::String if list => "a text".to_owned(),
        InputType::Choice => {
            let options: Vec<String> = input
                .options
                .iter()
                .filter_map(quantity::spelling)
                .collect();
            let fits = quantity::spelling(default).is_some_and(|text| options.contains(&text));
            if fits || options.is_empty() {
                return;
            }
            let options: Vec<&str> = options.iter().map(String::as_str).collect();
            format!("one of {}", check::list(&options, "or"))
        }
        _ => return,
    };
    diagnostics.push(Diagnostic::error(
        default.span,
        format!(
            "the default of `{name}` is not {problem}, but {}",
            check::found(default)
        ),
    ));
}

//! Decodes phases and steps.

use super::artifact::artifacts;
use super::fields::{Fields, expression, template, text_of};
use super::http;
use crate::diagnostic::{Diagnostic, Span};
use crate::language::model::{
    Action, Capture, CaseRow, Command, ContainerAction, ContainerVerb, Cp, Exec, ForEach, Phase,
    Poll, ResultFormat, Retry, Run, SkipIf, Snapshot, Sse, Step, TestResults, Use, Wait,
};
use crate::node::{Entry, Expr, Node, NodeValue};
use strum::VariantArray;

/// Decodes a phase: a list of steps, or a map with `steps`.
pub fn phase(entry: &Entry, diagnostics: &mut Vec<Diagnostic>) -> Phase {
    let fields = Fields::of(&entry.value);
    let list = match &entry.value.value {
        NodeValue::List(items) => items.as_slice(),
        _ => fields.items("steps"),
    };
    if list.is_empty() && matches!(entry.value.value, NodeValue::List(_) | NodeValue::Map(_)) {
        diagnostics.push(Diagnostic::error(
            entry.key.span,
            format!("the phase `{}` has no steps", entry.key.text),
        ));
    }
    Phase {
        name: entry.key.clone(),
        when: fields.expr("when", diagnostics),
        reason: fields.template("reason"),
        until: fields.until("until"),
        timeout: fields.node("timeout"),
        always: fields.flag("always"),
        continue_on_failure: fields.flag("continue-on-failure"),
        verifies: fields.template("verifies"),
        steps: steps(list, diagnostics),
    }
}

/// Decodes a list of steps.
pub fn steps(items: &[Node], diagnostics: &mut Vec<Diagnostic>) -> Vec<Step> {
    items.iter().map(|item| step(item, diagnostics)).collect()
}

fn step(node: &Node, diagnostics: &mut Vec<Diagnostic>) -> Step {
    let fields = Fields::of(node);
    Step {
        id: fields.text("id"),
        name: fields.template("name"),
        when: fields.expr("when", diagnostics),
        reason: fields.template("reason"),
        until: fields.until("until"),
        otherwise: steps(fields.items("else"), diagnostics),
        foreach: foreach(&fields),
        timeout: fields.node("timeout"),
        retry: retry(&fields),
        poll: poll(&fields, diagnostics),
        skip: skip(&fields, diagnostics),
        capture: captures(&fields, diagnostics),
        expect: expectations(&fields, diagnostics),
        verifies: fields.template("verifies"),
        case_rows: case_rows(&fields),
        results: results(&fields).map(Box::new),
        artifacts: artifacts(&fields),
        always: fields.flag("always"),
        continue_on_failure: fields.flag("continue-on-failure"),
        snapshot: snapshot(&fields, diagnostics).map(Box::new),
        action: action(&fields, diagnostics),
        span: step_span(node),
    }
}

/// Returns the span of the step's first key, which is enough to identify the step.
fn step_span(node: &Node) -> Span {
    Fields::of(node).span
}

fn action(fields: &Fields<'_>, diagnostics: &mut Vec<Diagnostic>) -> Action {
    let known = fields
        .get("http")
        .and_then(|node| Some(Action::Http(Box::new(http::request(node)?))))
        .or_else(|| fields.get("sse").and_then(|node| sse(node, diagnostics)))
        .or_else(|| fields.get("exec").and_then(exec))
        .or_else(|| fields.get("run").and_then(run))
        .or_else(|| fields.get("container").and_then(container))
        .or_else(|| fields.get("wait").and_then(wait))
        .or_else(|| fields.get("cp").and_then(cp))
        .or_else(|| use_define(fields));
    if let Some(action) = known {
        return action;
    }
    for (key, parallel) in [("steps", false), ("parallel", true)] {
        let Some(entry) = fields.entry(key) else {
            continue;
        };
        let inner = entry.value.items();
        if inner.is_empty() && matches!(entry.value.value, NodeValue::List(_)) {
            diagnostics.push(Diagnostic::error(
                entry.key.span,
                format!("`{key}` has no steps"),
            ));
        }
        let inner = steps(inner, diagnostics);
        return if parallel {
            Action::Parallel(inner)
        } else {
            Action::Steps(inner)
        };
    }
    Action::Check
}

fn sse(node: &Node, diagnostics: &mut Vec<Diagnostic>) -> Option<Action> {
    let fields = Fields::of(node);
    Some(Action::Sse(Box::new(Sse {
        request: http::request(node)?,
        until: fields.expr("until", diagnostics),
        timeout: fields.node("timeout"),
    })))
}

fn command(fields: &Fields<'_>) -> Option<Command> {
    match fields.node("command") {
        Some(words) => Some(Command::Words(words)),
        None => fields.template("script").map(Command::Script),
    }
}

fn exec(node: &Node) -> Option<Action> {
    let fields = Fields::of(node);
    Some(Action::Exec(Exec {
        service: fields.template("service")?,
        command: command(&fields)?,
        stdin: fields.template("stdin"),
        env: fields.node("env"),
        user: fields.template("user"),
        workdir: fields.template("workdir"),
    }))
}

fn run(node: &Node) -> Option<Action> {
    if let Some(script) = template(node) {
        return Some(Action::Run(Run {
            command: Command::Script(script),
            env: None,
            workdir: None,
        }));
    }
    let fields = Fields::of(node);
    Some(Action::Run(Run {
        command: command(&fields)?,
        env: fields.node("env"),
        workdir: fields.template("workdir"),
    }))
}

fn container(node: &Node) -> Option<Action> {
    let fields = Fields::of(node);
    let (verb, service) = ContainerVerb::VARIANTS
        .iter()
        .find_map(|verb| Some((*verb, fields.template(verb.as_str())?)))?;
    Some(Action::Container(ContainerAction { verb, service }))
}

fn wait(node: &Node) -> Option<Action> {
    let fields = Fields::of(node);
    if let Some(time) = fields.node("for") {
        return Some(Action::Wait(Wait::For(time)));
    }
    let service = fields.template("service")?;
    Some(Action::Wait(match fields.string("until").as_deref() {
        Some("exited") => Wait::Exited(service),
        _ => Wait::Ready(service),
    }))
}

fn cp(node: &Node) -> Option<Action> {
    let fields = Fields::of(node);
    Some(Action::Cp(Cp {
        from: fields.template("from")?,
        to: fields.template("to")?,
    }))
}

fn use_define(fields: &Fields<'_>) -> Option<Action> {
    Some(Action::Use(Use {
        define: fields.text("use")?,
        with: fields
            .entries("with")
            .iter()
            .map(|entry| (entry.key.clone(), entry.value.clone()))
            .collect(),
    }))
}

fn foreach(fields: &Fields<'_>) -> Option<ForEach> {
    let entry = fields.entries("foreach").first()?;
    Some(ForEach {
        variable: entry.key.clone(),
        items: entry.value.clone(),
    })
}

fn retry(fields: &Fields<'_>) -> Option<Retry> {
    let fields = Fields::of(fields.get("retry")?);
    Some(Retry {
        times: fields.node("times")?,
        delay: fields.node("delay"),
    })
}

fn poll(fields: &Fields<'_>, diagnostics: &mut Vec<Diagnostic>) -> Option<Poll> {
    let fields = Fields::of(fields.get("poll")?);
    Some(Poll {
        until: fields.expr("until", diagnostics)?,
        timeout: fields.node("timeout"),
        interval: fields.node("interval"),
    })
}

fn skip(fields: &Fields<'_>, diagnostics: &mut Vec<Diagnostic>) -> Option<SkipIf> {
    let fields = Fields::of(fields.get("skip")?);
    Some(SkipIf {
        condition: fields.expr("if", diagnostics)?,
        reason: fields.template("reason")?,
        until: fields.until("until"),
    })
}

fn snapshot(fields: &Fields<'_>, diagnostics: &mut Vec<Diagnostic>) -> Option<Snapshot> {
    let span = fields.entry("snapshot")?.key.span;
    let fields = Fields::of(fields.get("snapshot")?);
    Some(Snapshot {
        services: names(fields.items("services")),
        key: match fields.get("key") {
            Some(node) if matches!(node.value, NodeValue::List(_)) => node
                .items()
                .iter()
                .filter_map(|item| expression(item, diagnostics))
                .collect(),
            Some(node) => expression(node, diagnostics).into_iter().collect(),
            None => Vec::new(),
        },
        max_age: fields.node("max-age"),
        max_size: fields.node("max-size"),
        span,
    })
}

fn results(fields: &Fields<'_>) -> Option<TestResults> {
    let fields = Fields::of(fields.get("results")?);
    let formats = ResultFormat::VARIANTS.iter();
    let mut named = formats.filter_map(|format| Some((*format, fields.node(format.as_str())?)));
    let (format, files) = named.next()?;
    let from = fields.template("from");
    Some(TestResults {
        format,
        files,
        from,
    })
}

/// Decodes `verifies` with patterns of test cases.
fn case_rows(fields: &Fields<'_>) -> Vec<CaseRow> {
    let entries = fields.entries("verifies").iter();
    entries
        .map(|entry| CaseRow {
            row: entry.key.clone(),
            patterns: match &entry.value.value {
                NodeValue::List(items) => names(items),
                _ => text_of(&entry.value).into_iter().collect(),
            },
        })
        .collect()
}

/// Decodes the entries of `capture`.
pub fn captures(fields: &Fields<'_>, diagnostics: &mut Vec<Diagnostic>) -> Vec<Capture> {
    let entries = fields.entries("capture").iter();
    entries
        .filter_map(|entry| {
            let secret = entry.value.get("secret");
            let value = expression(secret.unwrap_or(&entry.value), diagnostics)?;
            Some(Capture {
                name: entry.key.clone(),
                value,
                secret: secret.is_some(),
            })
        })
        .collect()
}

/// Decodes `expect`: one expression or a list.
pub fn expectations(fields: &Fields<'_>, diagnostics: &mut Vec<Diagnostic>) -> Vec<Expr> {
    let Some(node) = fields.get("expect") else {
        return Vec::new();
    };
    match &node.value {
        NodeValue::List(items) => items
            .iter()
            .filter_map(|item| expression(item, diagnostics))
            .collect(),
        _ => expression(node, diagnostics).into_iter().collect(),
    }
}

/// Returns the names in a list of texts.
pub fn names(items: &[Node]) -> Vec<crate::node::Text> {
    items.iter().filter_map(text_of).collect()
}

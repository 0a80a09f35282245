//! The name of a step in reports: its `name`, or else a text derived from its action.

use crate::context::evaluate::Evaluate;
use phalanx_shared::expr::EvalError;
use phalanx_shared::language::model::{Action, Command, ContainerVerb, Step, Wait};
use phalanx_shared::mask::shortened;
use phalanx_shared::node::{Expr, NodeValue, Template};

/// Maximum number of characters of a derived name.
const MAX: usize = 80;

/// Returns the step's evaluated name.
pub fn name(step: &Step, evaluate: Evaluate<'_>) -> Result<String, EvalError> {
    match &step.name {
        Some(name) => evaluate.text(name),
        None => Ok(made(step, evaluate)),
    }
}

/// Returns the step's name, evaluated as far as possible.
pub fn lenient(step: &Step, evaluate: Evaluate<'_>) -> String {
    match &step.name {
        Some(name) => evaluate.known_text(name),
        None => made(step, evaluate),
    }
}

fn made(step: &Step, evaluate: Evaluate<'_>) -> String {
    let text = |template: &Template| evaluate.known_text(template);
    let made = match &step.action {
        Action::Http(http) => format!("{} {}", http.method.as_str(), text(&path(&http.url))),
        Action::Sse(sse) => format!("stream {}", text(&path(&sse.request.url))),
        Action::Exec(exec) => format!("exec {}: {}", text(&exec.service), command(&exec.command)),
        Action::Run(run) => format!("run: {}", command(&run.command)),
        Action::Container(action) => format!("{} {}", verb(action.verb), text(&action.service)),
        Action::Wait(Wait::Ready(service)) => format!("wait for {}", text(service)),
        Action::Wait(Wait::Exited(service)) => format!("wait for the end of {}", text(service)),
        Action::Wait(Wait::For(_)) => "wait".to_owned(),
        Action::Cp(cp) => format!("cp {} {}", text(&cp.from), text(&cp.to)),
        Action::Use(used) => used.define.text.clone(),
        Action::Steps(steps) => format!("{} steps", steps.len()),
        Action::Parallel(steps) => format!("{} steps at once", steps.len()),
        Action::Check => step.expect.first().map_or("check".to_owned(), expression),
    };
    // Mask before collapsing white space, which may be part of a secret.
    let masked = evaluate.scope.masks().text(&made).into_owned();
    let line = masked.split_whitespace().collect::<Vec<_>>().join(" ");
    shortened(&line, MAX + 1).into_owned()
}

/// Removes a service's address from the start of a URL, because it isn't known yet and differs between attempts.
fn path(url: &Template) -> Template {
    let rest = url.text.strip_prefix("${{").and_then(|rest| {
        let (expression, path) = rest.split_once("}}")?;
        (expression.trim_start().starts_with("services") && !path.is_empty()).then_some(path)
    });
    Template {
        text: rest.unwrap_or(&url.text).to_owned(),
        span: url.span,
    }
}

fn expression(expr: &Expr) -> String {
    expr.text.clone()
}

fn command(command: &Command) -> String {
    match command {
        Command::Script(script) => script
            .text
            .trim()
            .lines()
            .next()
            .unwrap_or_default()
            .to_owned(),
        Command::Words(node) => match &node.value {
            NodeValue::Text(text) => text.clone(),
            NodeValue::List(words) => {
                let words = words.iter().filter_map(|word| match &word.value {
                    NodeValue::Text(text) => Some(text.clone()),
                    NodeValue::Int(number) => Some(number.to_string()),
                    _ => None,
                });
                words.collect::<Vec<_>>().join(" ")
            }
            _ => String::new(),
        },
    }
}

fn verb(verb: ContainerVerb) -> &'static str {
    match verb {
        ContainerVerb::Run => "run service",
        verb => verb.as_str(),
    }
}

//! A spec from a job of a GitHub workflow: `strategy`, `services`, `env` and the steps with `run` are taken over; what
//! isn't is named, each with its line.

mod expression;
mod matrix;
mod services;
mod steps;

use super::draft::{Draft, Remark, head};
use super::yaml::{Entry, Item, Yaml, entry, remarked, write};
use expression::Known;
use phalanx_shared::diagnostic::{Diagnostic, Severity};
use phalanx_shared::language::parse::parse;
use phalanx_shared::node::{Entry as Part, Node, NodeValue};
use steps::Common;

/// Where a workflow comes from, and which job of it is meant.
#[derive(Clone, Copy, Debug)]
pub struct From<'a> {
    /// Path of the workflow, for messages and comments.
    pub path: &'a str,
    /// Text of the workflow.
    pub text: &'a str,
    /// Name of the job; without one, the first with a matrix, else the first.
    pub job: Option<&'a str>,
}

/// Returns whether a workflow has a job with a matrix.
pub fn has_matrix(text: &str) -> bool {
    let root = parse(0, text, &mut Vec::new());
    let jobs = root.as_ref().and_then(|root| root.get("jobs"));
    let mut jobs = jobs.map_or(&[][..], Node::entries).iter();
    jobs.any(|job| is_matrix(&job.value))
}

fn is_matrix(job: &Node) -> bool {
    let strategy = job.get("strategy");
    strategy.is_some_and(|strategy| strategy.get("matrix").is_some())
}

/// Makes a spec of a job. `file` is the name of the spec.
///
/// # Errors
/// Returns what is wrong with the workflow, with places in it.
pub fn draft(file: &str, from: From<'_>) -> Result<Draft, Vec<Diagnostic>> {
    let mut found = Vec::new();
    let root = parse(0, from.text, &mut found);
    found.retain(|found| found.severity == Severity::Error);
    let root = match root {
        Some(root) if found.is_empty() => root,
        _ => return Err(found),
    };
    let mut remarks = Vec::new();
    let job = choose(&root, from.job, &mut remarks).map_err(|why| vec![why])?;
    let made = translate(&root, job, &mut remarks);
    if made.steps.iter().all(|step| step.value.is_none()) && made.services.is_empty() {
        let why = format!(
            "the job `{}` has nothing to take over: no `run` step and no service",
            job.key.text
        );
        let advice = remarks.first().map_or_else(
            || "name another job by --job".to_owned(),
            |first| format!("line {}: {}", first.line, first.text),
        );
        return Err(vec![Diagnostic::error(job.key.span, why).with_help(advice)]);
    }
    remarks.sort();
    remarks.dedup();
    let origin = format!("from the job `{}` of {}", job.key.text, from.path);
    let spec = head(file, &origin) + &write(&made.spec(job));
    Ok(Draft { spec, remarks })
}

/// Returns the job to take.
fn choose<'n>(
    root: &'n Node,
    wanted: Option<&str>,
    remarks: &mut Vec<Remark>,
) -> Result<&'n Part, Diagnostic> {
    let jobs = root.get("jobs").map_or(&[][..], Node::entries);
    let list = |jobs: &[&Part]| {
        let names = jobs.iter().map(|job| format!("`{}`", job.key.text));
        names.collect::<Vec<_>>().join(", ")
    };
    let all: Vec<&Part> = jobs.iter().collect();
    if let Some(wanted) = wanted {
        let job = jobs.iter().find(|job| job.key.text == wanted);
        return job.ok_or_else(|| {
            Diagnostic::error(root.span, format!("the workflow has no job `{wanted}`"))
                .with_help(format!("its jobs are {}", list(&all)))
        });
    }
    let with_matrix: Vec<&Part> = jobs.iter().filter(|job| is_matrix(&job.value)).collect();
    let candidates = if with_matrix.is_empty() {
        all
    } else {
        with_matrix
    };
    let (first, others) = candidates.split_first().ok_or_else(|| {
        Diagnostic::error(root.span, "the workflow has no jobs")
            .with_help("a workflow has a map `jobs`: is this file one?")
    })?;
    if !others.is_empty() {
        let why = format!(
            "`{}` is the job taken over; --job takes another: {}",
            first.key.text,
            list(others)
        );
        remarks.push(Remark::new(first.key.span.line, why));
    }
    Ok(first)
}

/// What a job becomes.
struct Made {
    strategy: Vec<Entry>,
    cell: Vec<Entry>,
    env: Vec<Entry>,
    services: Vec<Entry>,
    waits: Vec<Item>,
    steps: Vec<Item>,
}

fn translate(root: &Node, job: &Part, remarks: &mut Vec<Remark>) -> Made {
    let job_node = &job.value;
    let mut known = Known::default();
    let strategy = job_node
        .get("strategy")
        .map(|node| matrix::strategy(node, &mut known, remarks));
    let empty = Node {
        value: NodeValue::Null,
        span: job.key.span,
    };
    let services = job_node.get("services").unwrap_or(&empty);
    let container = job_node.get("container");
    services::note_ports(services, container.is_none(), &mut known);
    let mut env = Vec::new();
    for (what, node) in [
        ("the workflow", root.get("env")),
        ("the job", job_node.get("env")),
    ] {
        let Some(node) = node else { continue };
        for variable in services::environment(what, node, &known, remarks) {
            env.retain(|other: &Entry| other.key != variable.key);
            env.push(variable);
        }
        known.env = env.iter().filter_map(text_entry).collect();
    }
    let mut made = Vec::new();
    let mut waits = Vec::new();
    for service in services.entries() {
        let name = &service.key.text;
        let what = format!("the service `{name}`");
        let definition = services::definition(&what, &service.value, &known, remarks);
        if definition.iter().any(|entry| entry.key == "image") {
            made.push(entry(name, Yaml::Map(definition)));
            waits.push(wait(name));
        }
    }
    let inside = container.and_then(|node| {
        let name = if services.get("job").is_some() {
            "job-container"
        } else {
            "job"
        };
        let container = job_container(node, &env, &known, remarks)?;
        made.push(entry(name, Yaml::Map(container)));
        Some(name)
    });
    let minutes = job_node
        .get("timeout-minutes")
        .and_then(steps::whole_minutes)
        .unwrap_or(60);
    let default = |key: &str| {
        let of = |node: &Node| text_of(node.get("defaults")?.get("run")?.get(key)?);
        of(job_node).or_else(|| of(root))
    };
    let common = Common {
        inside,
        env: inside.is_none() && !env.is_empty(),
        shell: default("shell"),
        directory: default("working-directory"),
        minutes,
    };
    let steps = steps::steps(
        job_node.get("steps").unwrap_or(&empty),
        &common,
        &known,
        remarks,
    );
    note_rest(root, job, &known, remarks);
    Made {
        strategy: strategy.unwrap_or_default(),
        cell: cell(job_node, minutes, &known, remarks),
        env: if common.env { env } else { Vec::new() },
        services: made,
        waits,
        steps,
    }
}

fn text_entry(entry: &Entry) -> Option<(String, String)> {
    match &entry.value {
        Yaml::Text(text) => Some((entry.key.clone(), text.clone())),
        _ => None,
    }
}

/// Returns the service that a job's steps run in. It does nothing itself, and sees the files of the workspace.
fn job_container(
    node: &Node,
    env: &[Entry],
    known: &Known,
    remarks: &mut Vec<Remark>,
) -> Option<Vec<Entry>> {
    let mut container = services::definition("the container of the job", node, known, remarks);
    container.iter().find(|entry| entry.key == "image")?;
    let mut all = env.to_vec();
    container.retain_mut(|entry| {
        let Yaml::Map(own) = &mut entry.value else {
            return true;
        };
        if entry.key != "environment" {
            return true;
        }
        for variable in own.drain(..) {
            all.retain(|other| other.key != variable.key);
            all.push(variable);
        }
        false
    });
    if !all.is_empty() {
        container.push(entry("environment", Yaml::Map(all)));
    }
    let files = Yaml::text(".:/workspace");
    match container.iter_mut().find(|entry| entry.key == "volumes") {
        Some(Entry {
            value: Yaml::List(items),
            ..
        }) => items.push(Item {
            above: Vec::new(),
            value: Some(files),
        }),
        _ => container.push(entry("volumes", Yaml::list([files]))),
    }
    container.retain(|entry| !matches!(entry.key.as_str(), "entrypoint" | "working_dir"));
    container.push(entry("working_dir", Yaml::text("/workspace")));
    container.push(entry(
        "entrypoint",
        Yaml::list(["tail", "-f", "/dev/null"].map(Yaml::text)),
    ));
    container.push(entry("init", Yaml::Plain("true".to_owned())));
    Some(container)
}

fn wait(service: &str) -> Item {
    Item {
        above: Vec::new(),
        value: Some(Yaml::map([
            ("name", Yaml::text(format!("{service} is ready"))),
            ("wait", Yaml::map([("service", Yaml::text(service))])),
            ("timeout", Yaml::text("10m")),
        ])),
    }
}

fn cell(job: &Node, minutes: i64, known: &Known, remarks: &mut Vec<Remark>) -> Vec<Entry> {
    let mut entries = vec![entry("timeout", Yaml::text(format!("{minutes}m")))];
    if let Some(node) = job.get("timeout-minutes")
        && steps::whole_minutes(node).is_none()
    {
        let why = "`timeout-minutes` is not taken over: it is no whole number";
        remarks.push(Remark::new(node.span.line, why));
    }
    if let Some(node) = job.get("continue-on-error") {
        let translated = match &node.value {
            NodeValue::Bool(value) => Ok(value.to_string()),
            _ => known.condition(&text_of(node).unwrap_or_default()),
        };
        if translated.as_ref().is_ok_and(|text| text != "false") {
            let why = "`continue-on-error` only marks a cell in reports (`experimental`): its failure fails the run";
            remarks.push(Remark::new(node.span.line, why));
        }
        match translated {
            Ok(text) if text == "true" || text == "false" => {
                entries.push(entry("experimental", Yaml::Plain(text)));
            }
            Ok(text) => entries.push(entry(
                "experimental",
                Yaml::text(format!("${{{{ {text} }}}}")),
            )),
            Err(why) => remarks.push(Remark::new(
                node.span.line,
                format!("`continue-on-error` is not taken over: {why}"),
            )),
        }
    }
    entries
}

/// Names the keys of the job and the workflow that say something about the test and have no counterpart.
fn note_rest(root: &Node, job: &Part, known: &Known, remarks: &mut Vec<Remark>) {
    for part in job.value.entries() {
        let why = match part.key.text.as_str() {
            "strategy" | "services" | "env" | "steps" | "container" | "timeout-minutes" | "continue-on-error" | "name" | "defaults" => continue,
            "runs-on" => {
                let text = text_of(&part.value).unwrap_or_default();
                let axis = known.matrix.keys().find(|axis| text.contains(&format!("matrix.{axis}")));
                match axis {
                    Some(axis) => format!("every cell runs on this machine: leave the values of `{axis}` out that it isn't"),
                    None => continue,
                }
            }
            "if" => "the workflow that runs Phalanx has the condition".to_owned(),
            "needs" => "a spec has no jobs that wait for each other: what they make must be there, or made by a step".to_owned(),
            "outputs" => "no other job reads them: see `--report json=FILE`".to_owned(),
            "uses" => "the job is a workflow of its own: take that file over".to_owned(),
            "permissions" | "concurrency" | "environment" => "the workflow that runs Phalanx has it".to_owned(),
            _ => "it has no counterpart".to_owned(),
        };
        let key = &part.key;
        remarks.push(Remark::new(
            key.span.line,
            format!("`{}` is not taken over: {why}", key.text),
        ));
    }
    for part in root.entries() {
        if part.key.text == "concurrency" {
            let why = "`concurrency` is not taken over: the workflow that runs Phalanx has it";
            remarks.push(Remark::new(part.key.span.line, why));
        }
    }
}

impl Made {
    fn spec(self, job: &Part) -> Vec<Entry> {
        let named = job.value.get("name").and_then(text_of);
        let name = named.filter(|name| !name.contains("${{"));
        let mut spec = vec![entry(
            "name",
            Yaml::text(name.unwrap_or(job.key.text.clone())),
        )];
        let say = |text: &str| vec![String::new(), text.to_owned()];
        if !self.strategy.is_empty() {
            let above = "The matrix, by the rules of GitHub. All cells run at once; `fail-fast` and `max-parallel` are here too.";
            spec.push(remarked(say(above), "strategy", Yaml::Map(self.strategy)));
        }
        spec.push(entry("cell", Yaml::Map(self.cell)));
        spec.push(remarked(
            say("The files that the steps see, without those that .gitignore names. Each cell has a copy of its own."),
            "workspace",
            Yaml::map([("include", Yaml::list([Yaml::text("**")]))]),
        ));
        if !self.env.is_empty() {
            let env = Yaml::Anchored("env", Box::new(Yaml::Map(self.env)));
            spec.push(remarked(say("Variables of all steps."), "x-env", env));
        }
        if !self.services.is_empty() {
            let above = "Each cell has its own, on a network of its own.";
            spec.push(remarked(say(above), "services", Yaml::Map(self.services)));
        }
        let mut phases = Vec::new();
        if !self.waits.is_empty() {
            phases.push(entry("services", Yaml::List(self.waits)));
        }
        if self.steps.iter().any(|step| step.value.is_some()) {
            phases.push(entry("steps", Yaml::List(self.steps)));
        } else if let Some(last) = phases.last_mut() {
            last.above = self.steps.into_iter().flat_map(|step| step.above).collect();
        }
        spec.push(remarked(
            say("A step fails if its command does. Checks say more: `expect: [\"stdout.contains('ready')\"]`."),
            "phases",
            Yaml::Map(phases),
        ));
        spec
    }
}

/// Returns a scalar as GitHub reads it.
fn text_of(node: &Node) -> Option<String> {
    match &node.value {
        NodeValue::Text(text) => Some(text.clone()),
        NodeValue::Bool(value) => Some(value.to_string()),
        NodeValue::Int(value) => Some(value.to_string()),
        NodeValue::Float(value) => Some(value.to_string()),
        NodeValue::Null | NodeValue::List(_) | NodeValue::Map(_) => None,
    }
}

#[cfg(test)]
mod tests;

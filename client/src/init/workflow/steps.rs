//! The steps of a job: `run` becomes a command with the shell that GitHub would use; everything else is named.

use super::expression::{Known, host_of, port_of};
use super::services::environment;
use super::text_of;
use crate::init::draft::Remark;
use crate::init::yaml::{Entry, Item, Yaml, entry};
use phalanx_shared::node::{Node, NodeValue};

/// What the steps of a job have in common.
pub struct Common<'a> {
    /// The service that they run in; without one, they run on the machine.
    pub inside: Option<&'a str>,
    /// Whether there is a map of variables with the anchor `env`.
    pub env: bool,
    /// Shell of steps that name none.
    pub shell: Option<String>,
    /// Working directory of steps that name none.
    pub directory: Option<String>,
    /// Time limit in minutes.
    pub minutes: i64,
}

/// Files that GitHub's runner reads after a step.
const RUNNER_FILES: [&str; 3] = ["GITHUB_ENV", "GITHUB_OUTPUT", "GITHUB_PATH"];

/// Returns the steps, and what is left of those that aren't taken over as comments.
pub fn steps(
    node: &Node,
    common: &Common<'_>,
    known: &Known,
    remarks: &mut Vec<Remark>,
) -> Vec<Item> {
    let items = node.items().iter();
    items
        .filter_map(|step| step_of(step, common, known, remarks))
        .collect()
}

/// A step, or a part of one, that is not taken over.
struct Dropped {
    line: u32,
    what: String,
    why: String,
}

impl Dropped {
    fn new(line: u32, what: impl Into<String>, why: impl Into<String>) -> Dropped {
        Dropped {
            line,
            what: what.into(),
            why: why.into(),
        }
    }
}

fn step_of(
    step: &Node,
    common: &Common<'_>,
    known: &Known,
    remarks: &mut Vec<Remark>,
) -> Option<Item> {
    let made = match step.get("uses") {
        Some(uses) => uses_of(uses, step, remarks).map_or(Ok(None), Err),
        None => command_of(step, common, known, remarks).map(Some),
    };
    match made {
        Ok(None) => None,
        Ok(Some(entries)) => {
            note_rest(step, remarks);
            Some(Item {
                above: Vec::new(),
                value: Some(Yaml::Map(entries)),
            })
        }
        Err(Dropped { line, what, why }) => {
            let text = format!("{what} is not taken over: {why}");
            remarks.push(Remark::new(line, text.clone()));
            Some(Item {
                above: vec![format!("line {line}: {text}")],
                value: None,
            })
        }
    }
}

/// Returns why an action is not taken over. The files of a checkout travel by `workspace`.
fn uses_of(uses: &Node, step: &Node, remarks: &mut Vec<Remark>) -> Option<Dropped> {
    let action = uses.as_text().unwrap_or_default();
    if action.split('@').next() != Some("actions/checkout") {
        return Some(Dropped::new(
            uses.span.line,
            format!("`uses: {action}`"),
            advice(action),
        ));
    }
    if let Some(with) = step.get("with") {
        let why = "the files of this directory are used, whatever it checks out";
        let text = format!("`with` of `{action}` is not taken over: {why}");
        remarks.push(Remark::new(with.span.line, text));
    }
    None
}

fn command_of(
    step: &Node,
    common: &Common<'_>,
    known: &Known,
    remarks: &mut Vec<Remark>,
) -> Result<Vec<Entry>, Dropped> {
    let run = step.get("run").ok_or_else(|| {
        Dropped::new(
            step.span.line,
            "the step",
            "it has neither `run` nor `uses`",
        )
    })?;
    let line = run.span.line;
    let text = text_of(run).ok_or_else(|| Dropped::new(line, "this `run`", "it is no text"))?;
    let script = known
        .text(&text)
        .map_err(|why| Dropped::new(line, "this `run`", why))?;
    let mut entries = Vec::new();
    if let Some(Ok(name)) = step
        .get("name")
        .and_then(text_of)
        .map(|name| known.text(&name))
    {
        entries.push(entry("name", Yaml::text(name)));
    }
    if let Some(condition) = step.get("if") {
        let text = text_of(condition).unwrap_or_default();
        let what = || format!("the step with `if: {}`", text.trim());
        let guard = guarded(condition, known);
        entries.append(&mut guard.map_err(|why| Dropped::new(condition.span.line, what(), why))?);
    }
    let shell = step.get("shell").and_then(text_of).or(common.shell.clone());
    let mut command = shell_of(shell.as_deref(), common.inside.is_some()).ok_or_else(|| {
        let what = format!("a `run` with `shell: {}`", shell.unwrap_or_default());
        Dropped::new(line, what, "only bash, sh and python are")
    })?;
    command.push(Yaml::text(&script));
    let directory = step.get("working-directory").and_then(text_of);
    let directory = directory
        .or(common.directory.clone())
        .map(|text| known.text(&text));
    let directory = directory.transpose();
    let directory =
        directory.map_err(|why| Dropped::new(line, "a step with this `working-directory`", why))?;
    note_script(line, &script, known, remarks);
    let mut action = Vec::new();
    action.extend(
        common
            .inside
            .map(|service| entry("service", Yaml::text(service))),
    );
    action.push(entry("command", Yaml::list(command)));
    action.extend(step_environment(step, &script, common, known, remarks));
    action.extend(directory.map(|directory| entry("workdir", Yaml::text(directory))));
    let verb = if common.inside.is_some() {
        "exec"
    } else {
        "run"
    };
    entries.push(entry(verb, Yaml::Map(action)));
    let minutes = minutes(step, common, remarks);
    entries.push(entry("timeout", Yaml::text(format!("{minutes}m"))));
    Ok(entries)
}

fn advice(action: &str) -> &'static str {
    match action.split(['/', '@']).nth(1) {
        Some(name) if name.starts_with("setup-") => {
            "install what it sets up on this machine, or run the steps in an image that has it (`exec`)"
        }
        Some(name) if name.contains("artifact") || name == "cache" => {
            "reports are written by `--report KIND=FILE`"
        }
        _ => "write what it does as a `run` step",
    }
}

/// Returns the keys that say when the step runs.
fn guarded(condition: &Node, known: &Known) -> Result<Vec<Entry>, String> {
    let text = match &condition.value {
        NodeValue::Bool(value) => value.to_string(),
        _ => text_of(condition).ok_or("it is no expression")?,
    };
    let inner = text.trim().trim_start_matches("${{").trim_end_matches("}}");
    match inner.trim() {
        "success()" | "" => return Ok(Vec::new()),
        "always()" => return Ok(vec![entry("always", Yaml::Plain("true".to_owned()))]),
        _ => {}
    }
    let when = known.condition(&text)?;
    let reason = format!("the workflow runs it only if {when}");
    Ok(vec![
        entry("when", Yaml::text(when)),
        entry("reason", Yaml::text(reason)),
    ])
}

/// Returns the command of a shell, without the script; `None` for a shell that has none here.
fn shell_of(shell: Option<&str>, in_container: bool) -> Option<Vec<Yaml>> {
    let words: &[&str] = match shell.map(str::trim) {
        None if in_container => &["sh", "-e", "-c"],
        None => &["bash", "-e", "-c"],
        Some("bash") => &["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c"],
        Some("sh") => &["sh", "-e", "-c"],
        Some("python") => &["python3", "-c"],
        Some(_) => return None,
    };
    Some(words.iter().map(|word| Yaml::text(*word)).collect())
}

/// Notes what a script takes for granted.
fn note_script(line: u32, script: &str, known: &Known, remarks: &mut Vec<Remark>) {
    for file in RUNNER_FILES.iter().filter(|file| script.contains(**file)) {
        let advice = "later steps don't see what it writes there: use `capture`, or a file";
        remarks.push(Remark::new(
            line,
            format!("the script writes to `{file}`: {advice}"),
        ));
    }
    for (port, (service, inner)) in &known.published {
        let digits = port.to_string();
        let written = script
            .split(|c: char| !c.is_ascii_digit())
            .any(|word| word == digits);
        if written {
            remarks.push(Remark::new(
                line,
                format!(
                    "the script names port {port}: here `{service}` has the port `${{{{ {} }}}}` at `${{{{ {} }}}}`",
                    port_of(service, *inner),
                    host_of(service)
                ),
            ));
        }
    }
}

fn step_environment(
    step: &Node,
    script: &str,
    common: &Common<'_>,
    known: &Known,
    remarks: &mut Vec<Remark>,
) -> Option<Entry> {
    let mut own = match step.get("env") {
        Some(env) => environment("a step", env, known, remarks),
        None => Vec::new(),
    };
    let files = RUNNER_FILES.iter().chain(["GITHUB_STEP_SUMMARY"].iter());
    for file in files.filter(|file| script.contains(**file)) {
        own.push(entry(*file, Yaml::text("/dev/null")));
    }
    let shared = || Yaml::Plain("*env".to_owned());
    match (common.env, own.is_empty()) {
        (false, true) => None,
        (true, true) => Some(entry("env", shared())),
        (false, false) => Some(entry("env", Yaml::Map(own))),
        (true, false) => {
            own.insert(0, entry("<<", shared()));
            Some(entry("env", Yaml::Map(own)))
        }
    }
}

fn minutes(step: &Node, common: &Common<'_>, remarks: &mut Vec<Remark>) -> i64 {
    match step.get("timeout-minutes") {
        None => common.minutes,
        Some(node) => whole_minutes(node).unwrap_or_else(|| {
            let why = "`timeout-minutes` is not taken over: it is no whole number";
            remarks.push(Remark::new(node.span.line, why));
            common.minutes
        }),
    }
}

/// Returns a number of minutes, at most a week.
pub fn whole_minutes(node: &Node) -> Option<i64> {
    match node.value {
        NodeValue::Int(minutes @ 1..=10_080) => Some(minutes),
        _ => None,
    }
}

fn note_rest(step: &Node, remarks: &mut Vec<Remark>) {
    for part in step.entries() {
        let why = match part.key.text.as_str() {
            "continue-on-error" => {
                "a step that may fail has no counterpart: `expect` what is allowed instead"
            }
            "id" | "name" | "run" | "if" | "env" | "shell" | "working-directory"
            | "timeout-minutes" => continue,
            _ => "it has no counterpart",
        };
        let key = &part.key;
        remarks.push(Remark::new(
            key.span.line,
            format!("`{}` is not taken over: {why}", key.text),
        ));
    }
}

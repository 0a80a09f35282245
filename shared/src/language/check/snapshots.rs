//! Checks `snapshot`: whether what a group of steps makes can be saved and restored, so that the rest of the cell sees the
//! same as if the steps had run.

use super::inner_steps;
use super::reference::{Checker, suggest};
use crate::diagnostic::{Diagnostic, Span};
use crate::language::model::{Action, DefineBody, Phase, Service, Snapshot, Step};
use crate::language::reads::Reads;
use crate::language::service::{dependencies, has_several, mounts_as_written};
use crate::node::{Expr, Node};
use std::collections::BTreeSet;

/// Contexts whose values are known before any service starts.
const EARLY: [&str; 4] = ["inputs", "matrix", "vars", "workspace"];
/// Where in-memory files hold nothing that a cell could miss after a restart.
const FLEETING: [&str; 4] = ["/tmp", "/run", "/var/run", "/dev/shm"];

impl Checker<'_, '_> {
    /// Checks all snapshots of the spec.
    pub fn snapshots(&mut self) {
        let spec = self.names.spec;
        let defines = spec.define.iter().flat_map(|define| match &define.body {
            DefineBody::Steps { steps, .. } => steps.as_slice(),
            DefineBody::Value(_) => &[],
        });
        let mut misplaced = Vec::new();
        defines.for_each(|step| find(step, &mut misplaced));
        let top = spec.phases.iter().flat_map(|phase| &phase.steps);
        for step in top {
            let inner = inner_steps(step).iter().chain(&step.otherwise);
            inner.for_each(|step| find(step, &mut misplaced));
        }
        for span in misplaced {
            let help = "what it restores is decided before the services start: put the group directly under a phase";
            self.report(
                span,
                "`snapshot` belongs on a group directly in a phase".to_owned(),
                Some(help.to_owned()),
            );
        }
        let mut first: Option<Span> = None;
        let mut before = Vec::new();
        for phase in &spec.phases {
            for step in &phase.steps {
                let Some(snapshot) = &step.snapshot else {
                    before.push(step);
                    continue;
                };
                if let Some(first) = first {
                    let problem = Diagnostic::error(snapshot.span, "a spec has one snapshot")
                        .with_related(first, "the other one")
                        .with_help("put the steps into one group, or save only what takes longest");
                    self.diagnostics.push(problem);
                    continue;
                }
                first = Some(snapshot.span);
                self.snapshot(phase, step, snapshot, &before);
            }
        }
    }

    fn snapshot(&mut self, phase: &Phase, step: &Step, snapshot: &Snapshot, before: &[&Step]) {
        let spec = self.names.spec;
        let reads = Reads::of(spec, [step]);
        let named: BTreeSet<&str> = snapshot
            .services
            .iter()
            .map(|name| name.text.as_str())
            .collect();
        if snapshot.services.is_empty() {
            let help = "name the services whose files the steps change: `services: [db]`";
            self.report(
                snapshot.span,
                "the snapshot names no service".to_owned(),
                Some(help.to_owned()),
            );
        }
        let mut seen = BTreeSet::new();
        for name in &snapshot.services {
            if !seen.insert(name.text.as_str()) {
                self.report(name.span, format!("`{}` is named twice", name.text), None);
                continue;
            }
            match spec.services.iter().find(|one| one.name.text == name.text) {
                Some(service) => self.saved_service(service, name.span, &named),
                None => {
                    let known = spec.services.iter().map(|one| one.name.text.as_str());
                    let help = suggest(&name.text, known, "service");
                    self.report(
                        name.span,
                        format!("there is no service `{}`", name.text),
                        help,
                    );
                }
            }
        }
        for when in phase.when.iter().chain(&step.when) {
            self.known_early(when, "whether the group runs", "`when`");
        }
        for key in &snapshot.key {
            self.known_early(key, "the key", "`key`");
        }
        for read in reads.references.iter().filter(|read| read.root == "steps") {
            let id = read.path.first().and_then(|first| first.key.name());
            if id.is_none_or(|id| !reads.ids.contains(id)) {
                let what = id.map_or("a computed step".to_owned(), |id| format!("`steps.{id}`"));
                let message = format!("{what} is read by a group with `snapshot`, and isn't in it");
                let help = "whether the group runs is decided before any step: move that step into the group, or what reads it out of it";
                self.report(read.span, message, Some(help.to_owned()));
            }
        }
        self.before_snapshot(&named, before, snapshot);
        self.beside_snapshot(&named, &reads, snapshot);
    }

    /// Reports what of a service can't be saved.
    fn saved_service(&mut self, service: &Service, at: Span, named: &BTreeSet<&str>) {
        let name = &service.name.text;
        if service.process {
            let help = "only containers can be saved; a process keeps its state in memory and in files of the machine";
            return self.report(at, format!("`{name}` is a process"), Some(help.to_owned()));
        }
        if has_several(&service.definition) {
            let help = "its files are those of several containers: take it out of the snapshot";
            let message = format!("`{name}` has several replicas");
            return self.report(at, message, Some(help.to_owned()));
        }
        for mount in mounts_as_written(&service.definition) {
            let target = mount.target.as_deref().unwrap_or("/");
            if mount.memory && !is_fleeting(target) {
                let problem = Diagnostic::error(
                    mount.span,
                    format!("`{name}` keeps {target} in memory, which can't be saved"),
                );
                let help = "use a volume, or take the service out of the snapshot; files in memory below /tmp, /run and /dev/shm are fine: they are lost at every restart";
                self.diagnostics
                    .push(problem.with_related(at, "saved here").with_help(help));
            }
            if mount.writable_bind {
                let problem = Diagnostic::error(
                    mount.span,
                    format!(
                        "`{name}` may write to {target}, which is a directory of the agent's machine and can't be restored"
                    ),
                );
                let help = "mount it read-only (`:ro`), or use a volume";
                self.diagnostics
                    .push(problem.with_related(at, "saved here").with_help(help));
            }
            let Some(volume) = &mount.volume else {
                continue;
            };
            let others = self.names.spec.services.iter();
            let sharer = others
                .filter(|other| !named.contains(other.name.text.as_str()))
                .find(|other| {
                    let theirs = mounts_as_written(&other.definition);
                    theirs.iter().any(|one| one.volume.as_ref() == Some(volume))
                });
            if let Some(other) = sharer {
                let other = &other.name.text;
                let message =
                    format!("`{other}` uses the volume {volume} of `{name}` and isn't named");
                let help = format!("name it too: `services: [{name}, {other}, …]`");
                self.report(at, message, Some(help));
            }
        }
        let reads = Reads::of_node(self.names.spec, &service.definition);
        if let Some(secret) = reads.references.iter().find(|read| read.root == "secrets") {
            let message = format!(
                "`{name}` is given a secret, and its files are saved: if it writes the secret to them, it stays on the agent until the snapshot is removed"
            );
            self.diagnostics
                .push(Diagnostic::warning(secret.span, message).with_help(
                    "another value gives another snapshot; the saved image holds no environment",
                ));
        }
    }

    /// Reports an expression that must be known before the services start.
    fn known_early(&mut self, expr: &Expr, what: &str, key: &str) {
        let reads = Reads::of_node(
            self.names.spec,
            &Node {
                value: crate::node::NodeValue::Text(format!("${{{{ {} }}}}", expr.text)),
                span: expr.span,
            },
        );
        let late = reads
            .references
            .iter()
            .find(|read| !EARLY.contains(&read.root.as_str()));
        if let Some(late) = late {
            let message = format!(
                "`{}` isn't known when {what} is decided, before the services start",
                late.root
            );
            let help = format!("{key} may read inputs, matrix, vars and workspace");
            self.report(expr.span, message, Some(help));
        }
    }

    /// Reports steps before the group that would see restored services where a first cell sees fresh ones.
    fn before_snapshot(&mut self, named: &BTreeSet<&str>, before: &[&Step], snapshot: &Snapshot) {
        let reads = Reads::of(self.names.spec, before.iter().copied());
        let touched = reads.services.iter();
        let touched = touched.filter(|(name, _)| named.contains(name.as_str()));
        let touched: Vec<_> = touched
            .map(|(name, span)| (format!("`{name}`"), *span))
            .chain(
                reads
                    .computed_service
                    .map(|span| ("a computed service".to_owned(), span)),
            )
            .collect();
        for (what, span) in touched {
            let message =
                format!("{what} is used before the group whose snapshot restores its files");
            let help = "the step would see what the group has made, but only in a restored cell: move it into the group or after it";
            let problem = Diagnostic::error(span, message)
                .with_related(snapshot.span, "the snapshot")
                .with_help(help);
            self.diagnostics.push(problem);
        }
    }

    /// Warns about effects of the group that aren't saved, and about what a restart disturbs.
    fn beside_snapshot(&mut self, named: &BTreeSet<&str>, reads: &Reads, snapshot: &Snapshot) {
        let spec = self.names.spec;
        let container = |name: &str| {
            let of_name = spec.services.iter().find(|one| one.name.text == name);
            of_name.is_some()
        };
        for (name, span) in &reads.services {
            if !named.contains(name.as_str()) && container(name) {
                let message = format!(
                    "`{name}` is used in the group and isn't saved: in a restored cell it hasn't seen these steps"
                );
                let help = "name it in `services` if the steps change it";
                self.diagnostics
                    .push(Diagnostic::warning(*span, message).with_help(help));
            }
        }
        for service in spec.services.iter().filter(|one| !one.manual) {
            let name = &service.name.text;
            if named.contains(name.as_str()) || reads.services.contains_key(name) {
                continue;
            }
            let on = dependencies(&service.definition);
            if let Some(on) = on.iter().find(|on| named.contains(on.text.as_str())) {
                let message = format!(
                    "`{name}` depends on `{}`, which is stopped and started again when the snapshot is made",
                    on.text
                );
                let help = format!(
                    "name `{name}` in `services` too, or let a step start it afterwards (`start: manual`)"
                );
                self.diagnostics.push(
                    Diagnostic::warning(on.span, message)
                        .with_related(snapshot.span, "the snapshot")
                        .with_help(help),
                );
            }
        }
        if let Some(span) = reads.host.first() {
            let message = "the group runs commands on the agent's machine: what they change there isn't restored";
            let help = "if the command changes the workspace, the cell makes no snapshot; the key covers the whole workspace";
            self.diagnostics
                .push(Diagnostic::warning(*span, message).with_help(help));
        }
        for (root, what) in [("run", "run"), ("cell", "cell")] {
            let read = reads.references.iter().find(|read| read.root == root);
            if let Some(read) = read {
                let message =
                    format!("the group reads `{root}`, so its snapshot fits only this {what}");
                let help = "move what reads it out of the group";
                self.diagnostics
                    .push(Diagnostic::warning(read.span, message).with_help(help));
            }
        }
    }
}

/// Finds the snapshots on a step and inside it.
fn find(step: &Step, found: &mut Vec<Span>) {
    found.extend(step.snapshot.iter().map(|snapshot| snapshot.span));
    if let Action::Steps(steps) | Action::Parallel(steps) = &step.action {
        steps.iter().for_each(|step| find(step, found));
    }
    step.otherwise.iter().for_each(|step| find(step, found));
}

fn is_fleeting(target: &str) -> bool {
    FLEETING.iter().any(|place| {
        target
            .strip_prefix(place)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    })
}

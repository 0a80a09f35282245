//! Warns about secrets in the words of a command. Masking can't hide them from the machine's other users.

use super::reference::Checker;
use crate::diagnostic::Diagnostic;
use crate::expr::TemplateProgram;
use crate::node::{Node, NodeValue, Template};

impl Checker<'_, '_> {
    /// Warns about secrets in a word or script.
    pub fn exposed(&mut self, template: &Template) {
        let Ok(program) = TemplateProgram::parse(template) else {
            return;
        };
        for reference in program.references().filter(|found| found.root == "secrets") {
            let name = reference.path.first().and_then(|key| key.key.name());
            let name = name.map_or_else(String::new, |name| format!(".{name}"));
            let message = format!(
                "`secrets{name}` is among the words of a command, which every user of the machine can read in /proc while it runs"
            );
            let help = "give it in `env` (`environment` of a service), through `stdin` of an `exec`, or in a file";
            self.diagnostics
                .push(Diagnostic::warning(reference.span, message).with_help(help));
        }
    }

    /// Warns about secrets in all words of a tree.
    pub fn exposed_in(&mut self, node: &Node) {
        match &node.value {
            NodeValue::Text(text) => self.exposed(&Template {
                text: text.clone(),
                span: node.span,
            }),
            NodeValue::List(items) => items.iter().for_each(|item| self.exposed_in(item)),
            NodeValue::Map(entries) => entries
                .iter()
                .for_each(|entry| self.exposed_in(&entry.value)),
            _ => {}
        }
    }

    /// Warns about secrets in the commands of a service's definition.
    pub fn exposed_by_service(&mut self, definition: &Node) {
        let health = definition.get("healthcheck");
        let commands = [
            definition.get("process"),
            definition.get("command"),
            definition.get("entrypoint"),
            health.and_then(|health| health.get("test")),
        ];
        for command in commands.into_iter().flatten() {
            self.exposed_in(command);
        }
    }
}

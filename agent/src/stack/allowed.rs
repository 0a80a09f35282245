//! Asks the agent's policy about a service's definition: when it was evaluated, and before anything is done for it.

use crate::context::CellContext;
use crate::runtime::contract::{Fault, RuntimeError};
use phalanx_shared::diagnostic::Span;
use phalanx_shared::language::model::Service;
use phalanx_shared::language::service::ServiceConfig;
use phalanx_shared::policy::{Need, Refusal, Rule, of_service};

/// Asks about what is known without the evaluation: a process is a command on the host. Its evaluation reserves ports.
pub fn in_advance(context: &CellContext, service: &Service) -> Result<(), RuntimeError> {
    match service.process {
        true => judged(context, service, &[Need::run()]),
        false => Ok(()),
    }
}

/// Asks about an evaluated definition.
pub fn evaluated(
    context: &CellContext,
    service: &Service,
    config: &ServiceConfig,
) -> Result<(), RuntimeError> {
    judged(context, service, &of_service(config))
}

fn judged(context: &CellContext, service: &Service, needs: &[Need]) -> Result<(), RuntimeError> {
    let Some(refusal) = context.guard.policy().refuses_one(needs) else {
        return Ok(());
    };
    let place = context.place(place(service, &refusal)).unwrap_or_default();
    let why = format!("{place}: {refusal}; {}", refusal.help());
    Err(RuntimeError::of(&service.name.text, Fault::Policy, why))
}

/// Returns the place of the key that a refusal is about.
fn place(service: &Service, refusal: &Refusal) -> Span {
    let keys = keys(refusal.need.rule);
    let written = &refusal.need.what;
    let entries = || {
        let entries = service.definition.entries().iter();
        entries.filter(|entry| keys.contains(&entry.key.text.as_str()))
    };
    // Of several, the one that names it: a path, a namespace.
    let names =
        |text: &serde_json::Value| !written.is_empty() && text.to_string().contains(written);
    let named = entries().find(|entry| names(&entry.value.to_json()));
    let found = named.or_else(|| entries().next());
    found.map_or(service.name.span, |entry| entry.key.span)
}

/// Returns the keys of a definition that a rule is about.
fn keys(rule: Rule) -> &'static [&'static str] {
    match rule {
        Rule::Run => &["process"],
        Rule::Paths => &[
            "volumes",
            "env_file",
            "label_file",
            "secrets",
            "configs",
            "build",
            "working_dir",
        ],
        Rule::EngineSocket => &["volumes", "build", "secrets", "configs"],
        Rule::Privileged => &["privileged", "post_start", "pre_stop"],
        Rule::Capabilities => &["cap_add"],
        Rule::Devices => &["devices", "device_cgroup_rules", "gpus", "deploy"],
        Rule::SecurityOpt => &["security_opt"],
        Rule::Namespaces => &[
            "network_mode",
            "pid",
            "ipc",
            "uts",
            "userns_mode",
            "cgroup",
            "build",
            "volumes",
        ],
        Rule::CgroupParent => &["cgroup_parent"],
        Rule::Runtimes => &["runtime"],
        Rule::NetworkOptions => &["networks"],
        Rule::EngineOptions => &[
            "oom_score_adj",
            "oom_kill_disable",
            "cpu_rt_period",
            "cpu_rt_runtime",
            "storage_opt",
            "annotations",
        ],
        Rule::Registries => &["image", "build"],
        Rule::BuildUrls => &["build"],
        Rule::NestedMounts => &["volumes"],
        Rule::Environment | Rule::Http => &[],
    }
}

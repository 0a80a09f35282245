//! The agents with their capacity, and the open runs that wait for it.

use super::super::board::Region;
use super::frame::moment;
use super::runs::short;
use maud::{Markup, html};
use phalanx_proto::v1;
use phalanx_report::text::{clean, plural};
use phalanx_shared::time::Timestamp;

/// Returns the regions of the page: the agents, with buttons to drain them if that is offered, and the queue.
pub fn regions(agents: &[v1::AgentSummary], open: &[v1::RunSummary], drains: bool) -> Vec<Region> {
    vec![
        Region::part("agents", "page", list(agents, drains)),
        Region::part("queue", "page", queue(open)),
    ]
}

fn list(agents: &[v1::AgentSummary], drains: bool) -> Markup {
    html! {
        section #agents {
            h1 { "Agents" }
            @if agents.is_empty() {
                p.quiet { "No agent has connected since the start: " code { "phalanx agent" } " runs one." }
            } @else {
                table.list {
                    thead { tr {
                        th scope="col" { "agent" }
                        th scope="col" { "state" }
                        th scope="col" { "slots" }
                        th scope="col" { "reserved" }
                        th scope="col" { "labels" }
                        th scope="col" { "last message" }
                        @if drains { th scope="col" { span.sr { "action" } } }
                    } }
                    tbody { @for agent in agents { (row(agent, drains)) } }
                }
            }
        }
    }
}

fn row(agent: &v1::AgentSummary, drains: bool) -> Markup {
    let state = match agent.state() {
        v1::AgentState::Connected => "connected",
        v1::AgentState::Draining => "draining",
        v1::AgentState::Disconnected => "disconnected",
        v1::AgentState::Lost => "lost",
        v1::AgentState::Unspecified => "unknown",
    };
    let taken = agent.attempts.len();
    html! {
        tr {
            th scope="row" { (clean(&agent.name)) " " code.quiet title=(agent.agent_id) { (short(&agent.agent_id)) } }
            td { span class={ "agent " (state) } { (state) } @if !agent.reason.is_empty() { p.quiet { (clean(&agent.reason)) } } }
            td {
                meter min="0" max=(agent.slots) value=(taken) { (taken) }
                " " (taken) " of " (agent.slots)
            }
            td { (reserved(agent)) }
            td { @for label in &agent.labels { span.tag { (clean(label)) } " " } }
            td { (moment(Timestamp(agent.heard_us))) }
            @if drains { td { @if agent.state() == v1::AgentState::Connected { (drain(agent)) } } }
        }
    }
}

fn reserved(agent: &v1::AgentSummary) -> Markup {
    let cpus = |resources: &Option<v1::Resources>| {
        resources
            .as_ref()
            .map_or(0.0, |r| r.millicpus as f64 / 1_000.0)
    };
    let gib = |resources: &Option<v1::Resources>| {
        let bytes = resources.as_ref().map_or(0, |r| r.memory_bytes);
        bytes as f64 / f64::from(1 << 30)
    };
    html! {
        (format!("{:.1} of {:.1} CPUs, ", cpus(&agent.reserved), cpus(&agent.resources)))
        (format!("{:.1} of {:.1} GiB", gib(&agent.reserved), gib(&agent.resources)))
    }
}

/// The page's script adds the token, so that one rendering serves every page, and shows the button.
fn drain(agent: &v1::AgentSummary) -> Markup {
    html! {
        form.action.js hidden method="post" action={ "/agents/" (agent.agent_id) "/drain" } {
            button type="submit" title="Let it finish its cells and leave" { "Drain" }
        }
    }
}

fn queue(open: &[v1::RunSummary]) -> Markup {
    let waiting: Vec<_> = open.iter().filter(|run| run.queued > 0).collect();
    html! {
        section #queue {
            h2 { "Queue" }
            @if waiting.is_empty() { p.quiet { "No cell waits." } } @else {
                ul {
                    @for run in waiting {
                        li {
                            a href={ "/runs/" (run.run_id) "#waits" } { (clean(&run.spec)) }
                            " " code.quiet { (short(&run.run_id)) } ": "
                            (plural(usize::try_from(run.queued).unwrap_or(usize::MAX), "cell")) " waiting, "
                            (run.running) " running"
                        }
                    }
                }
            }
        }
    }
}

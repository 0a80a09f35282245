//! `phalanx scale-hint`: says how many agents the cells of a coordinator want.

use super::error::CliError;
use super::{Context, connect, exit, say};
use phalanx_proto::v1;
use phalanx_shared::language::quantity;
use phalanx_shared::plan::Resources;
use serde_json::json;
use std::collections::BTreeSet;

/// Say how many agents the cells want, for programs that start and stop agents
///
/// Counts the cells that run and those that more agents would start: `max-parallel` and limits of labels are taken into
/// account. Agents that are started by it should end by themselves: `phalanx agent --idle-exit 5m`, or `--once`.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  phalanx scale-hint --slots 4                       how many agents of 4 slots are wanted
  phalanx scale-hint --label docker --label gpu      how many that offer these labels, for cells that want no others
  phalanx scale-hint --slots 4 --memory 16GiB --max 20 --format json")]
pub struct Args {
    /// Slots of an agent
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    slots: u32,
    /// Count only cells that want no other labels than these; repeatable [default: all cells]
    #[arg(long = "label", value_name = "LABEL")]
    labels: Vec<String>,
    /// CPUs that an agent lets cells reserve: 8, 0.5 [default: no limit]
    #[arg(long, value_name = "CPUS", value_parser = millicpus)]
    cpus: Option<u64>,
    /// Memory that an agent lets cells reserve: 16GiB [default: no limit]
    #[arg(long, value_name = "SIZE", value_parser = memory)]
    memory: Option<u64>,
    /// Smallest answer
    #[arg(long, default_value_t = 0)]
    min: u64,
    /// Largest answer [default: no limit]
    #[arg(long)]
    max: Option<u64>,
    /// Output format
    #[arg(long, value_enum, default_value_t = Format::Number)]
    format: Format,
}

/// Output format of a hint.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    /// The number alone.
    Number,
    /// The number, and what it is made of.
    Json,
}

fn millicpus(text: &str) -> Result<u64, &'static str> {
    let cpus = quantity::millicpus(text).filter(|cpus| *cpus > 0);
    cpus.ok_or("not a number of CPUs; write 8 or 0.5")
}

fn memory(text: &str) -> Result<u64, &'static str> {
    let bytes = quantity::bytes(text).filter(|bytes| *bytes > 0);
    bytes.ok_or("not a size; write 16GiB or 512MiB")
}

/// Runs the command.
pub async fn run(args: Args, context: &Context) -> Result<u8, CliError> {
    if args.max.is_some_and(|max| max < args.min) {
        return Err(CliError::usage("--max is less than --min"));
    }
    let connection = connect::to_coordinator(context).await?;
    let answer = connection.client().demand(v1::DemandRequest {}).await?;
    connection.close().await;
    let wanted = answer.into_inner().wanted;
    let (agents, all) = (agents(&args, &wanted), wanted.iter().map(of_labels));
    let text = match args.format {
        Format::Number => format!("{agents}\n"),
        Format::Json => format!(
            "{:#}\n",
            json!({ "agents": agents, "wanted": all.collect::<Vec<_>>() })
        ),
    };
    say::to_stdout(text)?;
    Ok(exit::OK)
}

/// Returns how many agents are wanted.
fn agents(args: &Args, wanted: &[v1::Wanted]) -> u64 {
    let offered: BTreeSet<&String> = args.labels.iter().collect();
    let fitting = wanted
        .iter()
        .filter(|of| offered.is_empty() || of.labels.iter().all(|label| offered.contains(label)));
    let (mut slots, mut cpus, mut memory) = (0u64, 0u64, 0u64);
    for of in fitting {
        let resources = Resources::from(of.resources.unwrap_or_default());
        slots = slots.saturating_add(of.startable.saturating_add(of.placed));
        cpus = cpus.saturating_add(resources.millicpus);
        memory = memory.saturating_add(resources.memory_bytes);
    }
    let by_slots = slots.div_ceil(args.slots.max(1).into());
    let by = |sum: u64, each: Option<u64>| each.map_or(0, |each| sum.div_ceil(each.max(1)));
    let agents = by_slots
        .max(by(cpus, args.cpus))
        .max(by(memory, args.memory));
    agents.max(args.min).min(args.max.unwrap_or(u64::MAX))
}

fn of_labels(of: &v1::Wanted) -> serde_json::Value {
    let resources = Resources::from(of.resources.unwrap_or_default());
    json!({
        "labels": of.labels,
        "waiting": of.waiting,
        "startable": of.startable,
        "placed": of.placed,
        "millicpus": resources.millicpus,
        "memory_bytes": resources.memory_bytes,
        "subnets": resources.subnets,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args() -> Args {
        Args {
            slots: 4,
            labels: vec![],
            cpus: None,
            memory: None,
            min: 0,
            max: None,
            format: Format::Number,
        }
    }

    fn wanted(labels: &[&str], startable: u64, placed: u64) -> v1::Wanted {
        let cells = startable + placed;
        v1::Wanted {
            labels: labels.iter().map(|label| (*label).to_owned()).collect(),
            waiting: startable + 100,
            startable,
            placed,
            resources: Some(v1::Resources {
                millicpus: cells * 1_000,
                memory_bytes: cells << 30,
                subnets: 0,
            }),
        }
    }

    #[test]
    fn the_scarcest_of_slots_cpus_and_memory_decides() {
        let all = [wanted(&["docker"], 5, 2), wanted(&[], 1, 1)];
        let of = |args: &Args| agents(args, &all);
        assert_eq!(of(&args()), 3);
        let cpus = Args {
            cpus: Some(2_000),
            ..args()
        };
        assert_eq!(of(&cpus), 5);
        let memory = Args {
            memory: Some(1 << 30),
            ..cpus
        };
        assert_eq!(of(&memory), 9);
    }

    #[test]
    fn agents_are_wanted_only_for_cells_whose_labels_they_offer() {
        let all = [
            wanted(&["docker"], 8, 0),
            wanted(&["docker", "gpu"], 4, 0),
            wanted(&[], 4, 0),
        ];
        let labels = |labels: &[&str]| Args {
            labels: labels.iter().map(|label| (*label).to_owned()).collect(),
            ..args()
        };
        assert_eq!(agents(&labels(&["docker"]), &all), 3);
        assert_eq!(agents(&labels(&["docker", "gpu"]), &all), 4);
        assert_eq!(agents(&labels(&["arm"]), &all), 1);
    }

    #[test]
    fn the_answer_stays_between_its_bounds() {
        let bounded = Args {
            min: 1,
            max: Some(3),
            ..args()
        };
        assert_eq!(agents(&bounded, &[]), 1);
        assert_eq!(agents(&bounded, &[wanted(&[], 1_000, 0)]), 3);
        assert_eq!(agents(&bounded, &[wanted(&[], u64::MAX >> 34, 0)]), 3);
    }
}

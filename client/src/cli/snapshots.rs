//! `phalanx snapshots`: lists the snapshots of stacks, and removes some.

use super::error::CliError;
use super::runs::Format;
use super::{Context, connect, exit, say};
use phalanx_proto::v1::{HeldSnapshot, SnapshotNotRemoved, SnapshotSummary};
use phalanx_report::style::Tone;
use phalanx_report::table::Table;
use phalanx_report::text::{bytes, clean, duration, plural, short_key};
use phalanx_shared::error_code::ErrorCode;
use phalanx_shared::time::Timestamp;
use serde_json::{Value, json};

/// Shortest beginning of a key that names it. A shorter one is probably a mistake.
const SHORTEST: usize = 4;
/// Maximum number of keys that an error names.
const NAMED: usize = 5;

/// List snapshots of stacks, or remove some
#[derive(clap::Args, Clone, Debug)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
Without --coordinator these are the snapshots of this machine's state directory, else those of all agents. SETUP is how long
the steps took that a restored cell doesn't run.

Examples:
  phalanx snapshots                               those of this machine, the most recently used first
  phalanx snapshots --format json                 the same for programs
  phalanx --coordinator http://ci:7100 snapshots  those of a fleet, with the agents that keep them
  phalanx snapshots rm 3f2a                       remove one, on every agent that keeps it"
)]
pub struct Args {
    #[command(subcommand)]
    action: Option<Action>,
    /// Output format
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

#[derive(clap::Subcommand, Clone, Debug)]
enum Action {
    Rm(Rm),
}

/// Remove snapshots with their images
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "\
A cell that restores one at this moment runs its steps instead. The next run makes the snapshot again.

Examples:
  phalanx snapshots rm 3f2a 90c1          by the beginnings of their keys
  phalanx snapshots rm --spec shop -n     print which snapshots of a spec would be removed
  phalanx snapshots rm --all              all of them")]
struct Rm {
    /// Keys, or their beginnings of at least four digits
    #[arg(value_name = "KEY", required_unless_present_any = ["all", "spec"], conflicts_with_all = ["all", "spec"])]
    keys: Vec<String>,
    /// Remove all snapshots
    #[arg(long, conflicts_with = "spec")]
    all: bool,
    /// Remove the snapshots of the spec with this name
    #[arg(long, value_name = "NAME")]
    spec: Option<String>,
    /// Print what would be removed
    #[arg(long, short = 'n')]
    dry_run: bool,
}

/// Runs the command.
pub async fn run(args: Args, context: &Context) -> Result<u8, CliError> {
    let found = connect::snapshots(context).await?;
    match (args.action, args.format) {
        (Some(Action::Rm(args)), _) => return remove(args, found, context).await,
        (None, Format::Table) if found.is_empty() => context
            .voice
            .note("no snapshots: `snapshot` of a group of setup steps makes them"),
        (None, Format::Table) => {
            let table = table(&found, super::now());
            say::to_stdout(context.voice.table(&table))?;
            let size = found.iter().map(|one| of(one).bytes).sum();
            context.voice.note(&format!(
                "{}, {}",
                plural(found.len(), "snapshot"),
                bytes(size)
            ));
        }
        (None, Format::Json) => {
            let all: Vec<Value> = found.iter().map(json).collect();
            say::to_stdout(format!("{:#}\n", json!({ "snapshots": all })))?;
        }
    }
    Ok(exit::OK)
}

async fn remove(args: Rm, found: Vec<SnapshotSummary>, context: &Context) -> Result<u8, CliError> {
    let chosen = chosen(&args, found)?;
    if args.dry_run {
        return told(&chosen, "would go", context);
    }
    let keys: Vec<String> = chosen.iter().map(|one| of(one).key.clone()).collect();
    let removed = connect::remove_snapshots(context, keys).await?;
    told(&removed.removed, "removed", context)?;
    for SnapshotNotRemoved { snapshot, reason } in &removed.left {
        let Some(snapshot) = snapshot else { continue };
        let (line, reason) = (line(snapshot), clean(reason));
        context
            .voice
            .note(&format!("not removed: {line}: {reason}"));
    }
    match removed.left.len() {
        0 => Ok(exit::OK),
        left => {
            let left = plural(left, "snapshot");
            let error = CliError::errored(format!("{left} could not be removed"));
            Err(error.with_help("phalanx snapshots lists what is there; cells may still use it"))
        }
    }
}

fn told(of: &[SnapshotSummary], verb: &str, context: &Context) -> Result<u8, CliError> {
    let text: String = of.iter().map(|one| format!("{}\n", line(one))).collect();
    say::to_stdout(text)?;
    let size = of.iter().map(|one| self::of(one).bytes).sum();
    let count = plural(of.len(), "snapshot");
    context
        .voice
        .note(&format!("{count} {verb}, {}", bytes(size)));
    Ok(exit::OK)
}

/// Returns the snapshots that the user means.
fn chosen(args: &Rm, found: Vec<SnapshotSummary>) -> Result<Vec<SnapshotSummary>, CliError> {
    if args.all {
        return Ok(found);
    }
    if let Some(spec) = &args.spec {
        let specs: Vec<String> = found.iter().map(|one| of(one).spec.clone()).collect();
        let chosen: Vec<SnapshotSummary> = found
            .into_iter()
            .filter(|one| of(one).spec == *spec)
            .collect();
        return match chosen.is_empty() {
            true => Err(no_spec(spec, &specs)),
            false => Ok(chosen),
        };
    }
    let mut chosen: Vec<SnapshotSummary> = Vec::new();
    for text in &args.keys {
        let key = key_of(text, &found)?.to_owned();
        if !chosen.iter().any(|one| of(one).key == key) {
            // The same key may be kept on several machines.
            chosen.extend(found.iter().filter(|one| of(one).key == key).cloned());
        }
    }
    Ok(chosen)
}

/// Returns the key that begins with a text.
fn key_of<'a>(text: &str, found: &'a [SnapshotSummary]) -> Result<&'a str, CliError> {
    if text.len() < SHORTEST {
        let message = format!("`{text}` is too short for a snapshot's key");
        return Err(CliError::usage(message)
            .with_help(format!("write at least {SHORTEST} digits, or --all")));
    }
    let wanted = text.to_ascii_lowercase();
    let all = found.iter().filter_map(|one| one.snapshot.as_ref());
    let matching = all.map(|held| held.key.as_str());
    let mut matching: Vec<&str> = matching.filter(|key| key.starts_with(&wanted)).collect();
    matching.sort_unstable();
    matching.dedup();
    match matching.as_slice() {
        [one] => Ok(one),
        [] => Err(CliError::usage(format!("there is no snapshot `{text}`"))
            .with_help("phalanx snapshots lists them")
            .explained_by(ErrorCode::Unknown)),
        many => {
            let shown: Vec<&str> = many.iter().take(NAMED).copied().collect();
            let message = format!("`{text}` means {} snapshots", many.len());
            Err(CliError::usage(message)
                .with_help(format!("write more of it: {}", shown.join(", ")))
                .explained_by(ErrorCode::Unknown))
        }
    }
}

fn no_spec(spec: &str, specs: &[String]) -> CliError {
    let error = CliError::usage(format!("there is no snapshot of a spec `{spec}`"))
        .explained_by(ErrorCode::Unknown);
    let near = specs
        .iter()
        .min_by_key(|known| strsim::damerau_levenshtein(known, spec));
    match near {
        Some(near) => error.with_help(format!("did you mean `{}`?", clean(near))),
        None => error.with_help("phalanx snapshots lists them: there are none"),
    }
}

fn of(one: &SnapshotSummary) -> HeldSnapshot {
    one.snapshot.clone().unwrap_or_default()
}

fn line(one: &SnapshotSummary) -> String {
    let held = of(one);
    let at = match one.agents.is_empty() {
        true => String::new(),
        false => format!(" on {}", clean(&one.agents.join(", "))),
    };
    format!(
        "snapshot {} of {}: {}{at}",
        short_key(&held.key),
        clean(&held.spec),
        clean(&held.group)
    )
}

/// Returns the name of the cell that made it; its id in manifests of earlier versions.
fn cell(held: &HeldSnapshot) -> &str {
    match held.cell_name.is_empty() {
        true => &held.cell,
        false => &held.cell_name,
    }
}

fn table(found: &[SnapshotSummary], now: Timestamp) -> Table {
    let fleet = found.iter().any(|one| !one.agents.is_empty());
    let titles = [
        "KEY", "SPEC", "GROUP", "SIZE", "SETUP", "MADE", "USED", "CELL", "RUN",
    ];
    let agents = fleet.then_some("AGENTS");
    let mut table = Table::new(titles.into_iter().chain(agents));
    for one in found {
        let held = of(one);
        let agents = (Tone::Plain, one.agents.join(" "));
        let row = [
            (Tone::Strong, short_key(&held.key).into_owned()),
            (Tone::Plain, held.spec.clone()),
            (Tone::Plain, held.group.clone()),
            (Tone::Plain, bytes(held.bytes)),
            (Tone::Good, duration(held.setup_us)),
            (Tone::Dim, ago(held.made_us, now)),
            (Tone::Dim, ago(held.used_us, now)),
            (Tone::Plain, cell(&held).to_owned()),
            (Tone::Dim, held.run_id.clone()),
        ];
        table.row(row.into_iter().chain(fleet.then_some(agents)));
    }
    table
}

/// Returns how long ago a time was, in its largest unit: `3d ago`.
fn ago(us: i64, now: Timestamp) -> String {
    let seconds = now.since(Timestamp(us)).as_secs();
    let text = match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m", seconds / 60),
        3_600..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    };
    format!("{text} ago")
}

fn json(one: &SnapshotSummary) -> Value {
    let held = of(one);
    json!({
        "key": held.key,
        "family": (!held.family.is_empty()).then_some(&held.family),
        "spec": held.spec,
        "group": held.group,
        "bytes": held.bytes,
        "setup_us": held.setup_us,
        "save_us": held.save_us,
        "made": Timestamp(held.made_us).to_rfc3339(),
        "used": Timestamp(held.used_us).to_rfc3339(),
        "run": held.run_id,
        "cell": { "id": held.cell, "name": cell(&held) },
        "agents": one.agents,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn snapshot(key: &str, spec: &str, agent: &str) -> SnapshotSummary {
        SnapshotSummary {
            snapshot: Some(HeldSnapshot {
                key: key.to_owned(),
                spec: spec.to_owned(),
                ..HeldSnapshot::default()
            }),
            agents: vec![agent.to_owned()],
        }
    }

    fn all() -> Vec<SnapshotSummary> {
        vec![
            snapshot("abcd1111", "shop", "a"),
            snapshot("abcd2222", "shop", "a"),
            snapshot("abcd1111", "shop", "b"),
            snapshot("ffff0000", "blog", "b"),
        ]
    }

    fn rm(keys: &[&str], spec: Option<&str>, all: bool) -> Rm {
        Rm {
            keys: keys.iter().map(|key| (*key).to_owned()).collect(),
            all,
            spec: spec.map(str::to_owned),
            dry_run: false,
        }
    }

    fn keys(args: &Rm) -> Result<Vec<String>, CliError> {
        let chosen = chosen(args, all())?;
        Ok(chosen
            .iter()
            .map(|one| format!("{}@{}", of(one).key, one.agents[0]))
            .collect())
    }

    #[test]
    fn a_snapshot_is_named_by_the_beginning_of_its_key_on_all_machines() {
        let args = rm(&["ABCD1", "abcd1111"], None, false);
        assert_eq!(keys(&args).unwrap(), ["abcd1111@a", "abcd1111@b"]);
        assert_eq!(keys(&rm(&[], Some("blog"), false)).unwrap(), ["ffff0000@b"]);
        assert_eq!(keys(&rm(&[], None, true)).unwrap().len(), 4);
    }

    #[test]
    fn what_names_none_or_several_is_refused_with_advice() {
        let wrong = |args: &Rm| {
            let error = keys(args).unwrap_err();
            assert_eq!(error.code, exit::USAGE);
            (error.message, error.help.unwrap())
        };
        let (message, help) = wrong(&rm(&["abcd"], None, false));
        assert!(message.contains("2 snapshots") && help.contains("abcd1111, abcd2222"));
        let (message, _) = wrong(&rm(&["0000"], None, false));
        assert!(message.contains("no snapshot `0000`"), "{message}");
        let (message, _) = wrong(&rm(&["abc"], None, false));
        assert!(message.contains("too short"), "{message}");
        let (_, help) = wrong(&rm(&[], Some("shpo"), false));
        assert_eq!(help, "did you mean `shop`?");
    }

    #[test]
    fn times_are_told_in_their_largest_unit() {
        let at = |seconds: i64| ago(0, Timestamp(seconds * 1_000_000));
        let told = [5, 61, 7_200, 200_000].map(at);
        assert_eq!(told, ["5s ago", "1m ago", "2h ago", "2d ago"]);
    }
}

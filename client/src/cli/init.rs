//! `phalanx init`: writes a first spec, made of what the directory already has. Overwrites nothing.

use super::diagnostics::{Style, render};
use super::error::CliError;
use super::{Context, exit, say, validate};
use crate::init::draft::{Draft, SCHEMA};
use crate::init::{compose, starter, workflow};
use crate::spec_file;
use phalanx_report::style::Tone;
use phalanx_shared::diagnostic::{Diagnostic, Severity, Source, Sources};
use phalanx_shared::language::schema::schema;
use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

/// Write a first spec, from a Compose file, a GitHub workflow or nothing
///
/// Without an option it takes the Compose file of this directory, else a workflow with a matrix, else it writes a spec
/// that runs at once and says what to replace. It also writes the schema for editors (.phalanx/spec.schema.json) and an
/// entry in .gitignore. Existing files stay as they are.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  phalanx init                                        from what this directory has
  phalanx init --from-compose deploy/compose.yaml     from this Compose file
  phalanx init --from-compose base.yaml --from-compose test.yaml     from both, merged
  phalanx init --from-workflow .github/workflows/test.yml --job e2e
  phalanx init --output - --from-workflow test.yml    prints the spec")]
pub struct Args {
    /// Take over the services of a Compose file; more than once: of several that are merged, in this order
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath, conflicts_with = "from_workflow")]
    from_compose: Vec<PathBuf>,
    /// Take over matrix, services, variables and commands of a GitHub workflow; says by line what it could not
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    from_workflow: Option<PathBuf>,
    /// Job of the workflow; by default the first with a matrix
    #[arg(long, value_name = "JOB", requires = "from_workflow")]
    job: Option<String>,
    /// Path of the spec; `-` prints it and writes nothing [default: phalanx.yaml, beside a Compose file that is named]
    #[arg(long, short, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    output: Option<PathBuf>,
}

impl Args {
    /// Returns the path of the spec.
    fn output(&self) -> PathBuf {
        match (&self.output, self.from_compose.first()) {
            (Some(output), _) => output.clone(),
            (None, Some(compose)) => compose.with_file_name(DEFAULT),
            (None, None) => PathBuf::from(DEFAULT),
        }
    }
}

/// Name of a spec.
const DEFAULT: &str = "phalanx.yaml";

/// Names of a Compose file, as `docker compose` looks for them.
const COMPOSE_NAMES: [&str; 4] = [
    "compose.yaml",
    "compose.yml",
    "docker-compose.yaml",
    "docker-compose.yml",
];
/// Names of a file with values of variables, in this order.
const ENV_NAMES: [&str; 4] = [".env", ".env.example", ".env.sample", "example.env"];
/// Where GitHub looks for workflows.
const WORKFLOWS: &str = ".github/workflows";
/// Line of `.gitignore`: reports, and the schema of the installed version.
const IGNORED: &str = "/.phalanx/";

/// What a spec is made of.
enum Origin {
    Compose(PathBuf),
    Workflow(PathBuf),
    Nothing,
}

/// Runs the command.
pub fn run(args: &Args, context: &Context) -> Result<u8, CliError> {
    let output = args.output();
    let print = output == Path::new("-");
    let folder = match output.parent() {
        Some(parent) if !print && !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    };
    if !folder.is_dir() {
        return Err(CliError::usage(format!(
            "there is no directory {}",
            folder.display()
        )));
    }
    let there = !print && output.symlink_metadata().is_ok();
    if !there {
        let origin = origin(args, &folder)?;
        let (draft, source) = draft(args, &output, &origin, &folder)?;
        tell(&draft, &source, context);
        if print {
            say::to_stdout(&draft.spec)?;
            return Ok(exit::OK);
        }
        create(&output, &draft.spec)?;
        say::to_stderr(&format!(
            "wrote {} {}\n",
            output.display(),
            described(&origin)
        ));
    } else {
        say::to_stderr(&format!(
            "{} is there already and stays as it is; another name: --output FILE\n",
            output.display()
        ));
    }
    write_schema(&folder, context)?;
    ignore(&folder)?;
    checked(&output, context)
}

fn described(origin: &Origin) -> String {
    match origin {
        Origin::Compose(path) | Origin::Workflow(path) => format!("from {}", path.display()),
        Origin::Nothing => "with a service of its own, to be replaced by yours".to_owned(),
    }
}

/// Returns what the arguments name, or what the directory has.
fn origin(args: &Args, folder: &Path) -> Result<Origin, CliError> {
    if let Some(path) = args.from_compose.first() {
        return Ok(Origin::Compose(path.clone()));
    }
    if let Some(path) = &args.from_workflow {
        return Ok(Origin::Workflow(path.clone()));
    }
    let compose = COMPOSE_NAMES.iter().map(|name| folder.join(name));
    if let Some(path) = compose.into_iter().find(|path| path.is_file()) {
        return Ok(Origin::Compose(plain(&path)));
    }
    let workflows = workflows(folder);
    let found = workflows.into_iter().find(|path| {
        let text = spec_file::read(&path.to_string_lossy()).map(|source| source.text);
        text.is_ok_and(|text| workflow::has_matrix(&text))
    });
    Ok(found.map_or(Origin::Nothing, |path| Origin::Workflow(plain(&path))))
}

/// Returns a path without a leading `./`.
fn plain(path: &Path) -> PathBuf {
    path.strip_prefix(".").unwrap_or(path).to_owned()
}

/// Returns the workflows of the directory, by name.
fn workflows(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder.join(WORKFLOWS)) else {
        return Vec::new();
    };
    let paths = entries
        .take(1000)
        .filter_map(|entry| Some(entry.ok()?.path()));
    let is_yaml = |path: &PathBuf| {
        path.extension()
            .is_some_and(|end| end == "yml" || end == "yaml")
    };
    let mut paths: Vec<PathBuf> = paths.filter(is_yaml).collect();
    paths.sort();
    paths
}

fn draft(
    args: &Args,
    output: &Path,
    origin: &Origin,
    folder: &Path,
) -> Result<(Draft, Source), CliError> {
    let file = output.file_name().filter(|name| *name != "-");
    let file = file.map_or(DEFAULT.into(), |name| name.to_string_lossy());
    let (path, made) = match origin {
        Origin::Nothing => {
            let nothing = Source {
                name: String::new(),
                text: String::new(),
            };
            return Ok((starter::draft(&file, &project(folder)), nothing));
        }
        Origin::Workflow(path) => {
            let source = read(path)?;
            let from = workflow::From {
                path: &source.name,
                text: &source.text,
                job: args.job.as_deref(),
            };
            (source.clone(), workflow::draft(&file, from))
        }
        Origin::Compose(path) => {
            let source = read(path)?;
            let further = args.from_compose.get(1..).unwrap_or_default();
            let made = from_compose(&file, (path, further), &source, folder)?;
            (source, made)
        }
    };
    made.map(|draft| (draft, path.clone())).map_err(|found| {
        let sources = Sources { files: vec![path] };
        say::to_stderr(&render(&found, &sources, Style::of(&std::io::stderr())));
        CliError::said(exit::USAGE)
    })
}

fn from_compose(
    file: &str,
    (path, further): (&Path, &[PathBuf]),
    source: &Source,
    folder: &Path,
) -> Result<Result<Draft, Vec<Diagnostic>>, CliError> {
    let name = beside(path, folder)?;
    let mut over = Vec::new();
    for path in further {
        over.push(beside(path, folder)?);
    }
    // Like `docker compose`, which reads it only if no files are named.
    if over.is_empty() {
        over.extend(override_of(&name).filter(|over| folder.join(over).is_file()));
    }
    let env = ENV_NAMES.iter().find_map(|name| {
        let text = fs::read_to_string(folder.join(name)).ok()?;
        Some((*name, text))
    });
    let env = env.filter(|_| source.text.contains('$'));
    let look = |path: &str| {
        let meta = fs::metadata(folder.join(path)).ok()?;
        Some(match meta.is_dir() {
            true => compose::Kind::Directory,
            false => compose::Kind::File,
        })
    };
    let from = compose::From {
        path: &name,
        text: &source.text,
        over: &over,
        env_file: env.as_ref().map(|(path, text)| (*path, text.as_str())),
        look: &look,
        read: &|path| {
            spec_file::read(&folder.join(path).to_string_lossy())
                .ok()
                .map(|source| source.text)
        },
    };
    Ok(compose::draft(file, &project(folder), &from))
}

/// Returns the name of the file that `docker compose` reads over one with a usual name.
fn override_of(name: &str) -> Option<String> {
    let (stem, end) = name.rsplit_once('.')?;
    COMPOSE_NAMES
        .contains(&name)
        .then(|| format!("{stem}.override.{end}"))
}

/// Returns the name of a Compose file, which stands beside the spec: both name their files relative to themselves.
fn beside(path: &Path, folder: &Path) -> Result<String, CliError> {
    let missing = |error| CliError::usage(format!("can't read {}: {error}", path.display()));
    fs::metadata(path).map_err(missing)?;
    let root = fs::canonicalize(folder).map_err(missing)?;
    // The file itself may be a link.
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let parent = fs::canonicalize(parent).map_err(missing)?;
    let name = path.file_name().filter(|_| parent == root);
    name.map(|name| name.to_string_lossy().into_owned())
        .ok_or_else(|| {
            let place = path.with_file_name(DEFAULT);
            CliError::usage("the spec stands beside its Compose file")
                .with_help(format!("--output {}", place.display()))
        })
}

fn read(path: &Path) -> Result<Source, CliError> {
    let name = path.to_string_lossy();
    spec_file::read(&name).map_err(|why| CliError::usage(format!("can't read {name}: {why}")))
}

/// Returns the name of the project: that of its directory.
fn project(folder: &Path) -> String {
    let full = fs::canonicalize(folder).unwrap_or_default();
    let name = full
        .file_name()
        .map(|name| name.to_string_lossy().into_owned());
    name.unwrap_or_else(|| "project".to_owned())
}

/// Prints what was not taken over, each with its place.
fn tell(draft: &Draft, source: &Source, context: &Context) {
    let style = context.voice.stderr_style();
    for remark in &draft.remarks {
        let place = style.paint(Tone::Dim, &format!("{}:{}:", source.name, remark.line));
        say::to_stderr(&format!("{place} {}\n", remark.text));
    }
}

/// Writes a file that must not exist yet.
fn create(path: &Path, text: &str) -> Result<(), CliError> {
    let file = OpenOptions::new().write(true).create_new(true).open(path);
    let written = file.and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|error| cannot_write(path, &error))
}

fn cannot_write(path: &Path, error: &std::io::Error) -> CliError {
    CliError::errored(format!("can't write {}: {error}", path.display()))
}

/// Writes the schema of this version beside the spec, for editors.
fn write_schema(folder: &Path, context: &Context) -> Result<(), CliError> {
    let path = folder.join(SCHEMA);
    let text = format!("{:#}\n", schema());
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(|error| cannot_write(parent, &error))?;
    }
    match fs::read_to_string(&path) {
        Ok(there) if there == text => Ok(()),
        Ok(_) => {
            let shown = plain(&path);
            context.voice.note(&format!(
                "{} is of another version: phalanx schema > {}",
                shown.display(),
                shown.display()
            ));
            Ok(())
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            create(&path, &text)?;
            say::to_stderr(&format!("wrote {}\n", plain(&path).display()));
            Ok(())
        }
        Err(error) => Err(cannot_write(&path, &error)),
    }
}

/// Adds the entry to `.gitignore`, unless it is there.
fn ignore(folder: &Path) -> Result<(), CliError> {
    let path = folder.join(".gitignore");
    let there = match fs::read(&path) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
        Err(error) => return Err(cannot_write(&path, &error)),
    };
    let known = [IGNORED, "/.phalanx", ".phalanx/", ".phalanx"];
    if there.lines().any(|line| known.contains(&line.trim())) {
        return Ok(());
    }
    let gap = if there.is_empty() || there.ends_with('\n') {
        ""
    } else {
        "\n"
    };
    let file = OpenOptions::new().append(true).create(true).open(&path);
    let written = file.and_then(|mut file| {
        file.write_all(format!("{gap}# reports and the schema of Phalanx\n{IGNORED}\n").as_bytes())
    });
    written.map_err(|error| cannot_write(&path, &error))?;
    say::to_stderr(&format!("added {IGNORED} to {}\n", plain(&path).display()));
    Ok(())
}

/// Prints what is wrong with the spec, and how to go on.
fn checked(output: &Path, context: &Context) -> Result<u8, CliError> {
    let path = output.to_string_lossy();
    let loaded = validate::checked(&path);
    let errors = loaded
        .diagnostics
        .iter()
        .filter(|found| found.severity == Severity::Error);
    if errors.count() > 0 {
        say::to_stderr(&render(
            &loaded.diagnostics,
            &loaded.sources,
            Style::of(&std::io::stderr()),
        ));
        return Err(
            CliError::usage(format!("{path} can't run yet, for the reasons above"))
                .with_help(format!("phalanx validate {path} checks it again")),
        );
    }
    context.voice.note(&match loaded.diagnostics.len() {
        0 => format!("next: phalanx run {path}"),
        1 => format!("next: phalanx run {path} (phalanx validate has 1 warning)"),
        count => format!("next: phalanx run {path} (phalanx validate has {count} warnings)"),
    });
    Ok(exit::OK)
}

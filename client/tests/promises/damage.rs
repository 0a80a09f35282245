//! Damaged rows, full disks, unwritable directories: one failure stops nothing else.

use crate::rig::{BOUND, Coordinator, Fleet, eventually};
use crate::{Need, Test};
use serde_json::Value;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool};
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

pub fn tests() -> Vec<Test> {
    vec![
        (
            Need::Nothing,
            "a journal that was killed starts as it is, and one without its shm file too",
            whole_journals_start,
        ),
        (
            Need::Nothing,
            "a damaged journal is refused at the start, with what was found and what to do",
            damage_is_found_at_the_start,
        ),
        (
            Need::Nothing,
            "bytes changed anywhere in a journal are found, or harm single runs only",
            random_damage_never_stops_a_list,
        ),
        (
            Need::Nothing,
            "an open run whose rows can't be read is parked and named, all others go on",
            unreadable_open_runs_are_parked,
        ),
        (
            Need::Nothing,
            "a finished run whose row can't be read breaks no list",
            unreadable_finished_runs_are_listed,
        ),
        (
            Need::Nothing,
            "a run that ended the coordinator three times is not brought back a fourth time",
            a_run_that_ends_the_coordinator_is_parked,
        ),
        (
            Need::Nothing,
            "an open run with large events is brought back in little memory",
            large_events_are_replayed_in_little_memory,
        ),
        (
            Need::Nothing,
            "a logs directory that is none is named, and costs the logs only",
            logs_without_a_directory,
        ),
        (
            Need::Nothing,
            "state directories and files are their user's alone, also those of earlier versions",
            state_is_private,
        ),
        (
            Need::Nothing,
            "the logs of one attempt are bounded on the coordinator's disk, and the gap says why",
            logs_of_an_attempt_are_bounded,
        ),
        (
            Need::Nothing,
            "the logs of all cells that an agent runs at a time are bounded too, and the gaps say why",
            logs_of_an_agent_are_bounded,
        ),
        (
            Need::Root,
            "a noisy cell fills no disk: the journal goes on, and the gap says why",
            a_noisy_cell_fills_no_disk,
        ),
        (
            Need::Root,
            "a disk that becomes full costs a run nothing but time, and who watches it is told",
            a_disk_that_fills_up_in_the_middle,
        ),
        (
            Need::Root,
            "a disk that turns read-only is told, and the run goes on when it is repaired",
            a_disk_that_turns_read_only,
        ),
        (
            Need::Nothing,
            "who watches a run is told when its logs can't be stored, and when they can again",
            watchers_are_told_of_problems,
        ),
        (
            Need::Root,
            "a disk that became read-only is said at the start, and all goes on when it is writable again",
            a_disk_that_became_read_only,
        ),
        (
            Need::Root,
            "a state directory that can't be written is said by every command",
            a_read_only_state_directory,
        ),
        (
            Need::Nothing,
            "a workspace that a cell changed on its agent is not given to the next one",
            a_poisoned_workspace_is_fetched_again,
        ),
        (
            Need::Engine,
            "what an agent left that never returns is removed by another one of its machine, and nobody else's",
            abandoned_objects_are_removed,
        ),
        (
            Need::Engine,
            "what an agent without a directory left in the engine is removed when it is dead, and not while it lives",
            objects_without_a_home_are_removed,
        ),
        (
            Need::Nothing,
            "host processes of an agent that never returns are ended by another one, with its directory or without, and nobody else's",
            abandoned_processes_are_ended,
        ),
    ]
}

const HELLO: &str = "name: hello\nphases: { t: [ { run: echo hello } ] }\n";

/// A coordinator's directory with two finished runs and one in progress, as left by `kill -9`.
struct Base {
    fleet: Fleet,
    open: String,
    finished: Vec<String>,
}

fn base() -> &'static Base {
    static BASE: OnceLock<Base> = OnceLock::new();
    BASE.get_or_init(|| {
        let fleet = Fleet::new();
        let at = fleet.serve();
        let mut agent = fleet.agent("a", &at.url(), 4);
        fleet.wait_for_state(&at, "a", "connected");
        fs::write(fleet.path("hello.yaml"), HELLO).unwrap();
        let finished = [(); 2].map(|()| hello(&fleet, &at)).to_vec();
        let run = fleet.submit(&at, "run", &[]);
        run.wait_at_gate(&[1, 2, 3, 4], 1);
        at.killed();
        agent.kill();
        Base {
            fleet,
            open: run.id,
            finished,
        }
    })
}

/// Runs the small spec to its end. Returns the run's id.
fn hello(fleet: &Fleet, at: &Coordinator) -> String {
    let (code, stdout, stderr) = fleet.call(at, &["submit", "hello.yaml"]);
    assert_eq!(code, Some(0), "{stderr}");
    let id = stdout.trim().to_owned();
    let (code, _, stderr) = fleet.call(at, &["watch", &id, "-q"]);
    assert_eq!(code, Some(0), "{stderr}");
    id
}

/// Returns a copy of the base with damage to its coordinator's directory.
fn damaged(damage: impl FnOnce(&Path)) -> Fleet {
    let fleet = Fleet::new();
    copy(&base().fleet.path("state"), &fleet.path("state"));
    fs::write(fleet.path("hello.yaml"), HELLO).unwrap();
    damage(&fleet.path("state/coordinator"));
    fleet
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn sql(directory: &Path, statement: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let options = SqliteConnectOptions::new().filename(directory.join("journal.db"));
        let pool = SqlitePool::connect_with(options).await.unwrap();
        let statement = sqlx::AssertSqlSafe(statement.to_owned());
        sqlx::raw_sql(statement).execute(&pool).await.unwrap();
        pool.close().await;
    });
}

/// Moves everything into the database file, as an orderly end does.
fn checkpointed(directory: &Path) -> PathBuf {
    sql(directory, "PRAGMA wal_checkpoint(TRUNCATE)");
    directory.join("journal.db")
}

fn flip(file: &Path, at: impl Iterator<Item = u64>) {
    let file = File::options().read(true).write(true).open(file).unwrap();
    for at in at {
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[!byte[0]], at).unwrap();
    }
}

fn length(file: &Path) -> u64 {
    file.metadata().unwrap().len()
}

fn cut(file: &Path, to: u64) {
    let file = File::options().write(true).open(file).unwrap();
    file.set_len(to).unwrap();
}

/// Starts a coordinator that must refuse to start. Returns its output.
fn refused(fleet: &Fleet) -> String {
    let bound = BOUND.as_secs().to_string();
    let serve = fleet.phalanx(&["serve", "--listen", "127.0.0.1:0", "--http", ""]);
    let mut bounded = Command::new("timeout");
    bounded
        .arg(&bound)
        .arg(serve.get_program())
        .args(serve.get_args());
    bounded
        .env_clear()
        .envs(serve.get_envs().filter_map(|(k, v)| Some((k, v?))))
        .stdin(Stdio::null());
    let output = bounded.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(!said.contains("panicked"), "{said}");
    said
}

/// Returns the rows of `phalanx runs` by the run's id.
fn runs(fleet: &Fleet, at: &Coordinator) -> Vec<(String, Value)> {
    let list = fleet.json(at, &["runs", "--format", "json"]);
    let rows = list["runs"].as_array().unwrap().iter();
    rows.map(|row| (row["run"].as_str().unwrap().to_owned(), row.clone()))
        .collect()
}

/// Checks that work continues: with an agent, a new run passes.
fn goes_on(fleet: &Fleet, at: &Coordinator) {
    let _agent = fleet.agent("new", &at.url(), 4);
    fleet.wait_for_state(at, "new", "connected");
    hello(fleet, at);
}

fn whole_journals_start() {
    let without_shm = |directory: &Path| fs::remove_file(directory.join("journal.db-shm")).unwrap();
    let untouched: [&dyn Fn(&Path); 2] = [&|_: &Path| {}, &without_shm];
    for damage in untouched {
        let fleet = damaged(damage);
        let at = fleet.serve();
        let rows = runs(&fleet, &at);
        assert_eq!(rows.len(), 3);
        assert!(
            rows.iter().all(|(_, row)| row["problem"].is_null()),
            "{rows:?}"
        );
        assert_eq!(at.get("/healthz").1, "ok\n");
    }
}

fn damage_is_found_at_the_start() {
    let lost = "lost its newest entries";
    type Trial = (&'static str, &'static str, fn(&Path));
    let trials: [Trial; 11] = [
        ("the wal cut by half", lost, |d| {
            let wal = d.join("journal.db-wal");
            cut(&wal, length(&wal) / 2);
        }),
        ("the wal removed", lost, |d| {
            // Everything since the start is in the WAL; the database file has only the schema from an earlier orderly
            // start.
            fs::remove_file(d.join("journal.db-wal")).unwrap();
            fs::remove_file(d.join("journal.db-shm")).unwrap();
        }),
        ("bytes of the wal changed", lost, |d| {
            let wal = d.join("journal.db-wal");
            let bytes = length(&wal);
            flip(&wal, (100..bytes).step_by(1_000));
        }),
        ("the file emptied", lost, |d| cut(&checkpointed(d), 0)),
        ("the header destroyed", "not a database", |d| {
            flip(&checkpointed(d), 0..100);
        }),
        ("the file cut by half", "damaged", |d| {
            let file = checkpointed(d);
            cut(&file, length(&file) / 2);
        }),
        ("the heads of pages changed", "damaged", |d| {
            let file = checkpointed(d);
            let bytes = length(&file);
            flip(&file, (4_096..bytes).step_by(4_096));
        }),
        ("a later layout", "later version", |d| {
            sql(d, "PRAGMA user_version = 99");
        }),
        ("a later change", "later version", |d| {
            sql(
                d,
                "INSERT INTO _sqlx_migrations (version, description, installed_on, success, checksum, execution_time) VALUES (99, 'later', datetime(), 1, x'00', 1)",
            );
        }),
        ("another checksum", "change 2", |d| {
            sql(
                d,
                "UPDATE _sqlx_migrations SET checksum = x'00' WHERE version = 2",
            );
        }),
        ("a table dropped", "table runs is missing", |d| {
            sql(d, "DROP TABLE runs");
        }),
    ];
    for (name, expected, damage) in trials {
        let fleet = damaged(damage);
        let said = refused(&fleet);
        assert!(said.contains(expected), "{name}: {said}");
        assert!(said.contains("journal.db"), "{name}: {said}");
        let helps = ["backup", "another state directory"];
        assert!(
            helps.iter().any(|help| said.contains(help)),
            "{name}: {said}"
        );
    }
    // A user can continue with the remaining entries.
    let fleet = damaged(|d| {
        let wal = d.join("journal.db-wal");
        // Most of it are the tables, which come first.
        cut(&wal, length(&wal) / 10 * 9);
        fs::remove_file(d.join("journal.db.mark")).unwrap();
    });
    let at = fleet.serve();
    assert!(!runs(&fleet, &at).is_empty());
}

fn random_damage_never_stops_a_list() {
    let mut started = 0;
    for seed in 1..=6u64 {
        let fleet = damaged(|d| {
            let file = checkpointed(d);
            let bytes = length(&file);
            // Any sequence works that hits other places for each seed.
            let mut state = seed;
            let places = std::iter::repeat_with(|| {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                100 + (state >> 33) % (bytes - 100)
            });
            flip(&file, places.take(2 + 3 * usize::try_from(seed).unwrap()));
        });
        let mut process = fleet.phalanx(&["serve", "--listen", "127.0.0.1:0", "--http", ""]);
        let log = fleet.path("try.log");
        process.stderr(File::create(&log).unwrap());
        let mut child = process.spawn().unwrap();
        let listens = eventually("it listens or says why not", || {
            let said = fs::read_to_string(&log).unwrap();
            match child.try_wait().unwrap() {
                Some(status) => {
                    assert_eq!(status.code(), Some(3), "seed {seed}: {said}");
                    assert!(
                        said.contains("damaged") || said.contains("later version"),
                        "seed {seed}: {said}"
                    );
                    Some(false)
                }
                None => said.contains("coordinator at").then_some(true),
            }
        });
        let _ = child.kill();
        let _ = child.wait();
        let said = fs::read_to_string(&log).unwrap();
        assert!(!said.contains("panicked"), "seed {seed}: {said}");
        if listens {
            started += 1;
            let at = fleet.serve();
            let rows = runs(&fleet, &at);
            assert!(!rows.is_empty(), "seed {seed}");
        }
    }
    println!("{started} of 6 started");
}

fn unreadable_open_runs_are_parked() {
    let open = base().open.clone();
    let of = |statement: &str| statement.replace("OPEN", &format!("'{open}'"));
    let trials = [
        (
            "event 3 of run",
            "UPDATE events SET kind = '{\"kind\":' WHERE run = OPEN AND position = 3",
        ),
        (
            "event 2 of run",
            "DELETE FROM events WHERE run = OPEN AND position = 2",
        ),
        (
            "event 1 of run",
            "DELETE FROM events WHERE run = OPEN AND position = 1",
        ),
        ("plan", "DELETE FROM events WHERE run = OPEN"),
        (
            "submission",
            "UPDATE runs SET submission = 'x' WHERE run = OPEN",
        ),
    ];
    for (expected, statement) in trials {
        // The mark names an event of this run as the newest, which was deleted on purpose.
        let fleet = damaged(|d| {
            sql(d, &of(statement));
            fs::remove_file(d.join("journal.db.mark")).unwrap();
        });
        let at = fleet.serve();
        let rows = runs(&fleet, &at);
        assert_eq!(rows.len(), 3, "{statement}: {rows:?}");
        for (run, row) in &rows {
            let problem = row["problem"].as_str().unwrap_or_default();
            assert_eq!(
                *run == open,
                problem.contains(expected),
                "{statement}: {row}"
            );
        }
        let (_, table, _) = fleet.call(&at, &["runs"]);
        assert!(table.contains("damaged"), "{table}");
        let (status, body) = at.get("/healthz");
        assert!(status.contains("200"), "{status}");
        assert!(body.contains(&format!("run {open} is parked")), "{body}");
        at.process.wait_for("the run is parked");
        let (code, _, said) = fleet.call(&at, &["cancel", &open]);
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains("parked"), "{said}");
        // A client that watches it gets an error and ends.
        let (code, _, said) = fleet.call(&at, &["watch", &open, "-q"]);
        assert_ne!(code, Some(0), "{said}");
        goes_on(&fleet, &at);
    }
}

fn unreadable_finished_runs_are_listed() {
    let finished = base().finished[0].clone();
    // Lists don't read the submission; a command that needs it reports the error.
    let fleet = damaged(|d| {
        sql(
            d,
            &format!("UPDATE runs SET submission = 'x' WHERE run = '{finished}'"),
        );
    });
    let at = fleet.serve();
    assert_eq!(runs(&fleet, &at).len(), 3);
    let (code, _, said) = fleet.call(&at, &["rerun", &finished]);
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("submission"), "{said}");
    drop(at);
    for change in ["outcome = 'great'", "counts = '{'", "cells = 'many'"] {
        let fleet = damaged(|d| {
            sql(
                d,
                &format!("UPDATE runs SET {change} WHERE run = '{finished}'"),
            );
        });
        let at = fleet.serve();
        let rows = runs(&fleet, &at);
        assert_eq!(rows.len(), 3, "{change}");
        for (run, row) in &rows {
            let column = change.split_once(' ').unwrap().0;
            let problem = row["problem"].as_str().unwrap_or_default();
            assert_eq!(
                *run == finished,
                problem.contains(column),
                "{change}: {row}"
            );
        }
        goes_on(&fleet, &at);
    }
}

fn a_run_that_ends_the_coordinator_is_parked() {
    let open = base().open.clone();
    let note = |fleet: &Fleet| fleet.path(&format!("state/coordinator/bringing/{open}"));
    let with = |deaths: &'static str| {
        let open = open.clone();
        damaged(move |d| {
            fs::create_dir_all(d.join("bringing")).unwrap();
            fs::write(d.join("bringing").join(open), deaths).unwrap();
        })
    };
    let fleet = with("2");
    let at = fleet.serve();
    assert_eq!(at.get("/healthz").1, "ok\n");
    assert!(!note(&fleet).exists(), "it survived");
    drop(at);
    let fleet = with("3");
    let at = fleet.serve();
    let (_, body) = at.get("/healthz");
    assert!(body.contains("ended 3 times"), "{body}");
    assert!(note(&fleet).exists(), "the next start knows, too");
    goes_on(&fleet, &at);
}

fn large_events_are_replayed_in_little_memory() {
    let open = base().open.clone();
    let fleet = damaged(|d| {
        sql(
            d,
            &format!(
                "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 60), \
                 last AS (SELECT max(position) AS p FROM events WHERE run = '{open}'), \
                 one AS (SELECT cell, attempt, max(seq) AS s FROM events WHERE run = '{open}' AND cell IS NOT NULL GROUP BY cell, attempt LIMIT 1) \
                 INSERT INTO events (run, position, cell, attempt, seq, at_us, mono_us, kind) \
                 SELECT '{open}', last.p + i, one.cell, one.attempt, one.s + i, 1, 1, \
                 '{{\"kind\":\"note\",\"message\":\"' || replace(hex(zeroblob(3500000)), '0', 'n') || '\"}}' FROM n, last, one"
            ),
        );
    });
    let at = fleet.serve();
    assert_eq!(at.get("/healthz").1, "ok\n");
    let peak = at.process.peak_mib();
    assert!(peak < 320, "{peak} MiB for 400 MiB of events");
}

fn logs_without_a_directory() {
    let fleet = damaged(|d| {
        let _ = fs::remove_dir_all(d.join("logs"));
        fs::write(d.join("logs"), "").unwrap();
    });
    let at = fleet.serve();
    let (status, body) = at.get("/healthz");
    assert!(status.contains("503"), "{status} {body}");
    assert!(body.contains("logs can't be stored"), "{body}");
    let _agent = fleet.agent("new", &at.url(), 4);
    fleet.wait_for_state(&at, "new", "connected");
    fs::write(fleet.path("noisy.yaml"), noisy(1_000)).unwrap();
    let id = noisy_run(&fleet, &at);
    let (_, shown, _) = fleet.call(&at, &["show", &id, "--format", "json"]);
    assert!(
        shown.contains("can't write to"),
        "the gap says why: {shown}"
    );
}

/// Returns every path below a directory, including itself, that other users can access.
fn open_to_others(directory: &Path, but: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let Ok(meta) = directory.metadata() else {
        // The file was renamed meanwhile.
        return found;
    };
    let mode = meta.permissions().mode();
    if mode & 0o077 != 0 {
        found.push(directory.to_owned());
    }
    if directory.is_dir() {
        for entry in fs::read_dir(directory).unwrap() {
            let entry = entry.unwrap();
            if !but.iter().any(|name| entry.file_name() == *name) {
                found.extend(open_to_others(&entry.path(), but));
            }
        }
    }
    found
}

fn state_is_private() {
    let fleet = Fleet::new();
    fs::write(fleet.path("hello.yaml"), HELLO).unwrap();
    let coordinator = fleet.path("state/coordinator");
    let agent_directory = fleet.path("agent-a");
    for round in 0..2 {
        let at = fleet.serve();
        let mut agent = fleet.agent("a", &at.url(), 4);
        fleet.wait_for_state(&at, "a", "connected");
        hello(&fleet, &at);
        assert_eq!(open_to_others(&coordinator, &[]), [] as [PathBuf; 0]);
        let limits = fs::read_to_string(format!("/proc/{}/limits", at.process.id())).unwrap();
        let core = limits.lines().find(|line| line.contains("core file"));
        let core: Vec<&str> = core.unwrap().split_whitespace().collect();
        assert_eq!(core[4..6], ["0", "0"]);
        // The files in these directories belong to the cells; other users can't get in.
        let of_cells = ["attempts"];
        assert_eq!(
            open_to_others(&agent_directory, &of_cells),
            [] as [PathBuf; 0]
        );
        at.killed();
        agent.kill();
        if round == 0 {
            // Set the modes that an earlier version left.
            for directory in [&coordinator, &agent_directory] {
                let chmod = Command::new("chmod")
                    .arg("-R")
                    .arg("a+rX")
                    .arg(directory)
                    .status();
                assert!(chmod.unwrap().success());
            }
            assert!(!open_to_others(&coordinator, &[]).is_empty());
        }
    }
    // Local runs are checked too.
    let (code, _, stderr) = {
        let output = fleet.phalanx(&["run", "hello.yaml"]).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), (), stderr)
    };
    assert_eq!(code, Some(0), "{stderr}");
    for name in ["state/runs", "state/agents"] {
        let open = open_to_others(&fleet.path(name), &["attempts", "runs"]);
        let inner: Vec<&PathBuf> = open
            .iter()
            .filter(|path| **path != fleet.path(name))
            .collect();
        assert!(inner.is_empty(), "{inner:?}");
    }
}

/// Returns a spec with a process service that prints this many bytes in lines and is ready then.
fn noisy(bytes: u64) -> String {
    format!(
        "name: noisy\nservices:\n  n: {{ process: [sh, -c, \"yes 0123456789012345678901234567890123456789012345678901234567890123456789 | head -c {bytes}; echo; echo done; exec sleep 100\"], ready: {{ log: done, timeout: 100s }} }}\nphases: {{ t: [ {{ exec: {{ service: n, command: ['true'] }} }} ] }}\n"
    )
}

/// Submits the noisy spec and waits for its end. Returns the run's id.
fn noisy_run(fleet: &Fleet, at: &Coordinator) -> String {
    let (code, stdout, stderr) = fleet.call(at, &["submit", "noisy.yaml"]);
    assert_eq!(code, Some(0), "{stderr}");
    let id = stdout.trim().to_owned();
    let (code, _, stderr) = fleet.call(at, &["watch", &id, "-q"]);
    assert_eq!(code, Some(0), "{stderr}");
    id
}

/// Returns the output of `phalanx logs` for a run of the noisy spec.
fn noisy_logs(fleet: &Fleet, at: &Coordinator) -> String {
    let id = noisy_run(fleet, at);
    let logs = fleet
        .phalanx(&["logs", &id, "noisy"])
        .env("PHALANX_COORDINATOR", at.url())
        .output();
    let logs = logs.unwrap();
    let text = [logs.stdout, logs.stderr].concat();
    String::from_utf8_lossy(&text).into_owned()
}

fn logs_of_an_attempt_are_bounded() {
    let fleet = Fleet::new();
    fs::write(fleet.path("noisy.yaml"), noisy(8 << 20)).unwrap();
    let settings = fleet.path(".config/phalanx/config.toml");
    fs::create_dir_all(settings.parent().unwrap()).unwrap();
    fs::write(settings, "[logs]\nattempt_mib = 1\n").unwrap();
    let at = fleet.serve();
    let _agent = fleet.agent("a", &at.url(), 4);
    fleet.wait_for_state(&at, "a", "connected");
    let logs = noisy_logs(&fleet, &at);
    let gap = "over the limit of 1 MiB for the logs of one attempt";
    let tail: String = logs
        .chars()
        .rev()
        .take(500)
        .collect::<Vec<_>>()
        .into_iter()
        .rev()
        .collect();
    assert!(logs.contains(gap), "{tail}");
    assert!(logs.len() < 3 << 20, "{}", logs.len());
    assert_eq!(at.get("/healthz").1, "ok\n");
}

fn logs_of_an_agent_are_bounded() {
    let fleet = Fleet::new();
    let gate = fleet.path("gate");
    let spec = noisy(700_000)
        .replace(
            "services:",
            "strategy: { matrix: { n: [1, 2, 3, 4] } }\nservices:",
        )
        .replace(
            "command: ['true'] } }",
            &format!(
                "command: ['true'] }} }}, {{ run: \"until [ -e {} ]; do sleep 0.1; done\" }}",
                gate.display()
            ),
        );
    fs::write(fleet.path("noisy.yaml"), spec).unwrap();
    let at = fleet.serve_within(&[("PHALANX_LOGS__AGENT_MIB", "1")], 1_024);
    let _agent = fleet.agent("a", &at.url(), 4);
    fleet.wait_for_state(&at, "a", "connected");
    let (code, stdout, stderr) = fleet.call(&at, &["submit", "noisy.yaml"]);
    assert_eq!(code, Some(0), "{stderr}");
    let kept = || at.metric("phalanx_log_bytes_total");
    eventually("the budget is spent", || (kept() > 900_000.0).then_some(()));
    // Chunks that are still on their way are refused.
    std::thread::sleep(Duration::from_secs(2));
    assert!(kept() <= 1_048_576.0, "{}", kept());
    fs::write(gate, "").unwrap();
    let id = stdout.trim();
    let (code, _, stderr) = fleet.call(&at, &["watch", id, "-q"]);
    assert_eq!(code, Some(0), "{stderr}");
    let cells = fs::read_dir(fleet.path("state/coordinator/logs").join(id)).unwrap();
    let gaps = cells.filter(|cell| {
        let index = cell.as_ref().unwrap().path().join("1/index");
        let index = fs::read_to_string(index).unwrap_or_default();
        index.contains("over the limit of 1 MiB for the logs of all attempts that an agent holds")
    });
    assert!(gaps.count() >= 2);
    assert_eq!(at.get("/healthz").1, "ok\n");
}

/// A file system of its own, unmounted when dropped.
struct Disk(PathBuf);

impl Disk {
    fn mount(at: PathBuf, size: &str) -> Disk {
        fs::create_dir_all(&at).unwrap();
        let options = format!("size={size}");
        let mut mount = Command::new("mount");
        let mount = mount
            .args(["-t", "tmpfs", "-o", &options, "tmpfs"])
            .arg(&at);
        assert!(mount.status().unwrap().success());
        Disk(at)
    }
}

impl Disk {
    fn remount(&self, how: &str) {
        let options = format!("remount,{how}");
        let mut mount = Command::new("mount");
        let mount = mount.args(["-o", &options]).arg(&self.0);
        assert!(mount.status().unwrap().success());
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

fn a_noisy_cell_fills_no_disk() {
    let fleet = Fleet::new();
    let _disk = Disk::mount(fleet.path("state"), "20m");
    fs::write(fleet.path("noisy.yaml"), noisy(30 << 20)).unwrap();
    fs::write(fleet.path("hello.yaml"), HELLO).unwrap();
    let at = fleet.serve();
    let _agent = fleet.agent("a", &at.url(), 4);
    fleet.wait_for_state(&at, "a", "connected");
    let logs = noisy_logs(&fleet, &at);
    assert!(logs.contains("kept for the journal"));
    let (status, body) = at.get("/healthz");
    assert!(status.contains("503"), "{status}");
    assert!(
        body.contains("logs can't be stored") && body.contains("kept for the journal"),
        "{body}"
    );
    // The journal and runs continue, also after a restart.
    hello(&fleet, &at);
    let at = {
        let address = at.killed();
        fleet.serve_at(&address)
    };
    fleet.wait_for_state(&at, "a", "connected");
    hello(&fleet, &at);
}

/// A client that watches a run in lines, and its output.
struct Watching {
    child: std::process::Child,
    log: PathBuf,
}

impl Watching {
    fn start(fleet: &Fleet, at: &Coordinator, run: &str) -> Watching {
        let log = fleet.path("watch.log");
        let mut watch = fleet.phalanx(&["watch", run]);
        watch.env("PHALANX_COORDINATOR", at.url());
        watch
            .stdout(Stdio::null())
            .stderr(File::create(&log).unwrap());
        let child = watch.spawn().unwrap();
        Watching { child, log }
    }

    fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    fn wait_for(&self, text: &str) {
        eventually(&format!("`{text}` is said"), || {
            self.said().contains(text).then_some(())
        });
    }

    fn end(mut self) -> String {
        let code = eventually("it ends", || self.child.try_wait().unwrap());
        assert_eq!(code.code(), Some(0), "{}", self.said());
        self.said()
    }
}

/// Returns the lines of a watching client that report a problem or its end.
fn lines_of<'a>(said: &'a str, mark: &str) -> Vec<&'a str> {
    said.lines().filter(|line| line.contains(mark)).collect()
}

fn watchers_are_told_of_problems() {
    let fleet = Fleet::new();
    let at = fleet.serve();
    let _agent = fleet.agent("a", &at.url(), 4);
    fleet.wait_for_state(&at, "a", "connected");
    let run = fleet.submit(&at, "run", &[]);
    run.wait_at_gate(&[1, 2, 3, 4], 1);
    let watching = Watching::start(&fleet, &at, &run.id);
    let logs = fleet.path("state/coordinator/logs");
    let _ = fs::remove_dir_all(&logs);
    fs::write(&logs, "").unwrap();
    watching.wait_for("coordinator | logs can't be stored");
    fs::remove_file(&logs).unwrap();
    watching.wait_for("coordinator | over: logs can't be stored");
    // Each problem is reported once, although the client asks repeatedly.
    std::thread::sleep(Duration::from_secs(5));
    run.open_gate();
    let said = watching.end();
    assert_eq!(lines_of(&said, "can't be stored").len(), 2, "{said}");
}

fn a_disk_that_fills_up_in_the_middle() {
    let fleet = Fleet::new();
    let state = fleet.path("state");
    let _disk = Disk::mount(state.clone(), "30m");
    let at = fleet.serve();
    let _agent = fleet.agent("a", &at.url(), 4);
    fleet.wait_for_state(&at, "a", "connected");
    let run = fleet.submit(&at, "run", &[]);
    run.wait_at_gate(&[1, 2, 3, 4], 1);
    let watching = Watching::start(&fleet, &at, &run.id);
    // No byte is left, not even for SQLite's WAL.
    let ballast = state.join("ballast");
    let mut file = File::create(&ballast).unwrap();
    while std::io::Write::write_all(&mut file, &[0; 4_096]).is_ok() {}
    while std::io::Write::write_all(&mut file, &[0]).is_ok() {}
    watching.wait_for("coordinator | logs can't be stored");
    run.open_gate();
    for n in 1..=4 {
        eventually("the agent goes on", || {
            (run.marks(n).len() == 2).then_some(())
        });
    }
    watching.wait_for("coordinator | the journal can't be written");
    let unhealthy = || {
        let (status, body) = at.get("/healthz");
        (status.contains("503") && body.contains("the journal can't be written")).then_some(())
    };
    eventually("it is unhealthy", unhealthy);
    let shown = fleet.show(&at, &run);
    assert!(shown["outcome"].is_null(), "{shown:#}");
    let (code, _, stderr) = fleet.call(&at, &["submit", "gate.yaml", "--input", "place=x"]);
    assert_eq!(code, Some(3), "{stderr}");
    assert!(stderr.contains("journal can't be written"), "{stderr}");
    drop(file);
    fs::remove_file(&ballast).unwrap();
    watching.end();
    let shown = fleet.finished(&at, &run);
    assert_eq!(shown["outcome"], "passed", "{shown:#}");
    assert!(crate::rig::attempts(&shown).iter().all(|(_, n)| *n == 1));
    eventually("it is well again", || {
        at.get("/healthz").0.contains("200").then_some(())
    });
}

/// A disk with ext4, which the kernel makes read-only after an error.
struct Ext4 {
    image: PathBuf,
    at: PathBuf,
}

impl Ext4 {
    fn mount(fleet: &Fleet, at: PathBuf) -> Option<Ext4> {
        let image = fleet.path("disk.img");
        File::create(&image).unwrap();
        cut(&image, 40 << 20);
        fs::create_dir_all(&at).unwrap();
        let disk = Ext4 { image, at };
        let made = runs_well(Command::new("mkfs.ext4").arg("-q").arg(&disk.image));
        (made && disk.mounted()).then_some(disk)
    }

    fn mounted(&self) -> bool {
        let mut mount = Command::new("mount");
        runs_well(mount.args(["-o", "loop"]).arg(&self.image).arg(&self.at))
    }

    fn turns_read_only(&self) {
        let mut remount = Command::new("mount");
        assert!(runs_well(
            remount.args(["-o", "remount,abort"]).arg(&self.at)
        ));
    }

    fn repaired(&self) {
        assert!(runs_well(Command::new("umount").arg(&self.at)));
        // Its exit code says that something was repaired.
        runs_well(Command::new("fsck.ext4").arg("-y").arg(&self.image));
        assert!(self.mounted());
    }
}

impl Drop for Ext4 {
    fn drop(&mut self) {
        runs_well(Command::new("umount").arg("-l").arg(&self.at));
    }
}

fn runs_well(command: &mut Command) -> bool {
    let output = command.stdin(Stdio::null()).output();
    output.is_ok_and(|output| output.status.success())
}

fn a_disk_that_turns_read_only() {
    let fleet = Fleet::new();
    let Some(disk) = Ext4::mount(&fleet, fleet.path("state")) else {
        return println!("this machine mounts no image");
    };
    let at = fleet.serve();
    let _agent = fleet.agent("a", &at.url(), 4);
    fleet.wait_for_state(&at, "a", "connected");
    let run = fleet.submit(&at, "run", &[]);
    run.wait_at_gate(&[1, 2, 3, 4], 1);
    let watching = Watching::start(&fleet, &at, &run.id);
    disk.turns_read_only();
    watching.wait_for("coordinator | logs can't be stored");
    run.open_gate();
    for n in 1..=4 {
        eventually("the agent goes on", || {
            (run.marks(n).len() == 2).then_some(())
        });
    }
    watching.wait_for("coordinator | the journal can't be written");
    let body = at.get("/healthz").1;
    assert!(body.to_lowercase().contains("read"), "{body}");
    let address = at.killed();
    disk.repaired();
    let at = fleet.serve_at(&address);
    let said = watching.end();
    assert!(!said.contains("lost"), "{said}");
    let shown = fleet.finished(&at, &run);
    assert_eq!(shown["outcome"], "passed", "{shown:#}");
    assert!(crate::rig::attempts(&shown).iter().all(|(_, n)| *n == 1));
    eventually("it is well again", || {
        at.get("/healthz").0.contains("200").then_some(())
    });
    at.killed();
}

fn a_poisoned_workspace_is_fetched_again() {
    let fleet = Fleet::new();
    fs::write(fleet.path("f"), "honest\n").unwrap();
    let spec = "name: s\ninputs: { agent: {} }\nworkspace: { include: [f] }\nphases:\n  t:\n    - run: \"cat f; for w in ${{ inputs.agent }}/workspaces/*/f; do echo poisoned > $w; done\"\n      expect: [ stdout.contains('honest') ]\n";
    fs::write(fleet.path("s.yaml"), spec).unwrap();
    let at = fleet.serve();
    let _agent = fleet.agent("a", &at.url(), 4);
    fleet.wait_for_state(&at, "a", "connected");
    let held = |text: &str| {
        let entries = fs::read_dir(fleet.path("agent-a/workspaces"))
            .unwrap()
            .flatten();
        let texts = entries.map(|entry| fs::read_to_string(entry.path().join("f")).unwrap());
        texts.filter(|found| found.contains(text)).count()
    };
    let input = format!("agent={}", fleet.path("agent-a").display());
    for _ in 0..3 {
        let (code, _, stderr) = fleet.call(&at, &["run", "s.yaml", "--input", &input]);
        assert_eq!(code, Some(0), "{stderr}");
        assert_eq!(held("poisoned"), 1, "the attack works");
    }
}

fn abandoned_objects_are_removed() {
    let lab = crate::engine_lab::Lab::new();
    let fleet = Fleet::new();
    let spec = format!(
        "name: ct\ncell: {{ attempts: 1 }}\nservices: {{ x: {{ image: '{}', command: [sleep, '600'] }} }}\nphases: {{ t: [ {{ exec: {{ service: x, command: [sleep, '600'] }} }} ] }}\n",
        lab.image
    );
    fs::write(fleet.path("ct.yaml"), spec).unwrap();
    let at = fleet.serve();
    let held = |name: &str| -> usize {
        let id = fs::read_to_string(fleet.path(&format!("agent-{name}/agent-id"))).unwrap();
        let label = format!("label=phalanx.agent={}", id.trim());
        let containers = crate::engine_lab::docker(&["ps", "-aq", "--filter", &label]);
        let networks = crate::engine_lab::docker(&["network", "ls", "-q", "--filter", &label]);
        containers.lines().count() + networks.lines().count()
    };
    let mut agents = Vec::new();
    for name in ["gone", "lives"] {
        agents.push(fleet.agent(name, &at.url(), 1));
        fleet.wait_for_state(&at, name, "connected");
        let (code, _, stderr) = fleet.call(&at, &["submit", "ct.yaml"]);
        assert_eq!(code, Some(0), "{stderr}");
        eventually("its container and its network stand", || {
            (held(name) == 2).then_some(())
        });
    }
    agents[0].kill();
    assert_eq!(held("gone"), 2);
    let mut another = fleet.agent("another", &at.url(), 1);
    eventually("nothing of it is left", || {
        (held("gone") == 0).then_some(())
    });
    assert_eq!(held("lives"), 2, "somebody is this one");
    // The identity still works.
    let mut back = fleet.agent("gone", &at.url(), 1);
    fleet.wait_for_state(&at, "gone", "connected");
    for run in fleet.json(&at, &["runs", "--open", "--format", "json"])["runs"]
        .as_array()
        .unwrap()
    {
        fleet.call(&at, &["cancel", run["run"].as_str().unwrap(), "--force"]);
    }
    for name in ["gone", "lives", "another"] {
        eventually("the run's end removes the rest", || {
            (held(name) == 0).then_some(())
        });
    }
    another.kill();
    back.kill();
}

/// Returns the id of an agent from its directory.
fn id_of(fleet: &Fleet, name: &str) -> String {
    let id = fs::read_to_string(fleet.path(&format!("agent-{name}/agent-id"))).unwrap();
    id.trim().to_owned()
}

fn objects_without_a_home_are_removed() {
    let lab = crate::engine_lab::Lab::new();
    let fleet = Fleet::new();
    let spec = format!(
        "name: ct\ncell: {{ attempts: 1 }}\nservices: {{ x: {{ image: '{}', command: [sleep, '600'] }} }}\nphases: {{ t: [ {{ exec: {{ service: x, command: [sleep, '600'] }} }} ] }}\n",
        lab.image
    );
    fs::write(fleet.path("ct.yaml"), spec).unwrap();
    let at = fleet.serve();
    let held = |id: &str| -> usize {
        let label = format!("label=phalanx.agent={id}");
        let containers = crate::engine_lab::docker(&["ps", "-aq", "--filter", &label]);
        let networks = crate::engine_lab::docker(&["network", "ls", "-q", "--filter", &label]);
        containers.lines().count() + networks.lines().count()
    };
    let (mut agents, mut ids, mut runs) = (Vec::new(), Vec::new(), Vec::new());
    for name in ["gone", "lives"] {
        agents.push(fleet.agent(name, &at.url(), 1));
        fleet.wait_for_state(&at, name, "connected");
        ids.push(id_of(&fleet, name));
        let (code, stdout, stderr) = fleet.call(&at, &["submit", "ct.yaml"]);
        assert_eq!(code, Some(0), "{stderr}");
        runs.push(stdout.trim().to_owned());
        eventually("its container and its network stand", || {
            (held(ids.last().unwrap()) == 2).then_some(())
        });
    }
    for name in ["gone", "lives"] {
        fs::remove_dir_all(fleet.path(&format!("agent-{name}"))).unwrap();
    }
    agents[0].kill();
    fleet.call(&at, &["cancel", &runs[0], "--force"]);
    assert_eq!(held(&ids[0]), 2);
    let mut another = fleet.agent("another", &at.url(), 1);
    eventually("nothing of it is left", || {
        (held(&ids[0]) == 0).then_some(())
    });
    assert_eq!(held(&ids[1]), 2, "somebody is this one");
    agents[1].kill();
    fleet.call(&at, &["cancel", &runs[1], "--force"]);
    another.kill();
    let _third = fleet.agent("third", &at.url(), 1);
    eventually("nor of the other one", || {
        (held(&ids[1]) == 0).then_some(())
    });
}

/// Returns the processes with an agent's mark, and whether each is a warden.
fn marked(agent: &str) -> Vec<(i32, bool)> {
    let mark = format!("PHALANX_ATTEMPT={agent}/");
    let numbers = fs::read_dir("/proc").unwrap().flatten();
    let numbers = numbers.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let of = |pid: i32| {
        let environment = fs::read(format!("/proc/{pid}/environ")).ok()?;
        let mut entries = environment.split(|byte| *byte == 0);
        let warden = entries.clone().any(|e| e.starts_with(b"PHALANX_WARDEN="));
        let ours = entries.any(|entry| entry.starts_with(mark.as_bytes()));
        ours.then_some((pid, warden))
    };
    numbers.filter_map(of).collect()
}

fn signal(pid: i32, signal: nix::sys::signal::Signal) {
    // A process that already ended is fine as well.
    let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal);
}

fn abandoned_processes_are_ended() {
    use nix::sys::signal::Signal::{SIGKILL, SIGSTOP};
    for directory_stays in [true, false] {
        let fleet = Fleet::new();
        let spec = "name: p\nservices: { x: { process: [sh, -c, 'setsid sleep 600 & setsid sleep 600 & echo up; exec sleep 600'], ready: { log: up } } }\nphases: { t: [ { exec: { service: x, command: [sleep, '600'] } } ] }\n";
        fs::write(fleet.path("p.yaml"), spec).unwrap();
        let at = fleet.serve();
        let (mut agents, mut ids, mut runs) = (Vec::new(), Vec::new(), Vec::new());
        for name in ["gone", "lives"] {
            agents.push(fleet.agent(name, &at.url(), 1));
            fleet.wait_for_state(&at, name, "connected");
            ids.push(id_of(&fleet, name));
            let (code, stdout, stderr) = fleet.call(&at, &["submit", "p.yaml"]);
            assert_eq!(code, Some(0), "{stderr}");
            runs.push(stdout.trim().to_owned());
            eventually("its processes run", || {
                (marked(ids.last().unwrap()).len() >= 5).then_some(())
            });
        }
        // Kill the agent and its wardens at once, so that no process is left to end what they had begun.
        let wardens = marked(&ids[0]).into_iter().filter(|(_, warden)| *warden);
        let wardens: Vec<i32> = wardens.map(|(pid, _)| pid).collect();
        wardens.iter().for_each(|pid| signal(*pid, SIGSTOP));
        agents[0].kill();
        wardens.iter().for_each(|pid| signal(*pid, SIGKILL));
        fleet.call(&at, &["cancel", &runs[0], "--force"]);
        std::thread::sleep(Duration::from_secs(1));
        assert!(!marked(&ids[0]).is_empty(), "the attack works");
        if !directory_stays {
            fs::remove_dir_all(fleet.path("agent-gone")).unwrap();
        }
        let before = marked(&ids[1]).len();
        let another = fleet.agent("another", &at.url(), 1);
        eventually("nothing of it is left", || {
            marked(&ids[0]).is_empty().then_some(())
        });
        // Whichever agent of the host looks first cleans up.
        eventually("an agent of the host says so", || {
            let said = another.said() + &agents[1].said();
            said.contains("cleaned up after an agent that is gone")
                .then_some(())
        });
        assert_eq!(marked(&ids[1]).len(), before, "somebody is this one");
        fleet.call(&at, &["cancel", &runs[1], "--force"]);
        eventually("the end of the run is the end of its processes", || {
            marked(&ids[1]).is_empty().then_some(())
        });
    }
}

fn a_disk_that_became_read_only() {
    let fleet = Fleet::new();
    let disk = Disk::mount(fleet.path("state"), "64m");
    fs::write(fleet.path("hello.yaml"), HELLO).unwrap();
    let at = fleet.serve();
    let _agent = fleet.agent("a", &at.url(), 4);
    fleet.wait_for_state(&at, "a", "connected");
    let run = hello(&fleet, &at);
    let address = at.killed();
    disk.remount("ro");
    let said = refused(&fleet);
    assert!(said.contains("state/coordinator"), "{said}");
    assert!(
        said.to_lowercase().contains("read-only") || said.contains("readonly"),
        "{said}"
    );
    disk.remount("rw");
    let at = fleet.serve_at(&address);
    fleet.wait_for_state(&at, "a", "connected");
    assert!(runs(&fleet, &at).iter().any(|(known, _)| *known == run));
    hello(&fleet, &at);
}

fn a_read_only_state_directory() {
    let fleet = Fleet::new();
    let disk = Disk::mount(fleet.path("state"), "1m");
    disk.remount("ro");
    fs::write(fleet.path("hello.yaml"), HELLO).unwrap();
    // There is nothing to list or remove.
    let commands: [(&[&str], i32); 5] = [
        (&["serve", "--listen", "127.0.0.1:0", "--http", ""], 3),
        (&["run", "hello.yaml"], 3),
        (&["agent", "--coordinator", "http://127.0.0.1:9"], 3),
        (&["runs"], 0),
        (&["gc"], 0),
    ];
    for (arguments, expected) in commands {
        let output = fleet.phalanx(arguments).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(
            output.status.code(),
            Some(expected),
            "{arguments:?}: {said}"
        );
        if expected == 3 {
            let path = fleet.path("state");
            assert!(
                said.contains(path.to_str().unwrap()),
                "{arguments:?}: {said}"
            );
            assert!(
                said.contains("Read-only file system"),
                "{arguments:?}: {said}"
            );
        }
    }
}

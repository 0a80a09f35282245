//! Large quantities: many cells, runs over years, endless output.

use crate::rig::{Coordinator, Fleet, Process, eventually};
use crate::{Need, Test};
use phalanx_proto::v1;
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::time::Duration;

pub fn tests() -> Vec<Test> {
    vec![
        (
            Need::Nothing,
            "a run of thousands of cells is listed, shown, brought back and cancelled, and keeps no other one out",
            many_cells,
        ),
        (
            Need::Nothing,
            "a journal of thousands of runs starts, lists and finds in little memory",
            many_runs,
        ),
        (
            Need::Nothing,
            "old runs and their logs are forgotten while the coordinator serves",
            old_runs,
        ),
        (
            Need::Nothing,
            "output without end takes no memory, in lines or without a line break",
            much_output,
        ),
        (
            Need::Nothing,
            "a spec of 3 MiB is taken, one beyond the limit is refused with the limit",
            heavy_specs,
        ),
    ]
}

const SMALL: &str = "name: small\nphases: { t: [ { run: \"true\" } ] }\n";

fn submit(fleet: &Fleet, at: &Coordinator, name: &str, text: &str, more: &[&str]) -> String {
    fs::write(fleet.path(name), text).unwrap();
    let (code, stdout, stderr) = fleet.call(at, &[&["submit", name], more].concat());
    assert_eq!(code, Some(0), "{stderr}");
    stdout.trim().to_owned()
}

fn passes(fleet: &Fleet, at: &Coordinator, run: &str) {
    let (code, _, stderr) = fleet.call(at, &["watch", run, "-q"]);
    assert_eq!(code, Some(0), "{stderr}");
}

const CELLS: usize = 4_000;

fn many_cells() {
    let fleet = Fleet::new();
    let at = fleet.serve();
    // Each value has a kilobyte, so the plan is larger than gRPC's default limit for messages.
    let pad = "\"${{ lists.range(1).map(x, lists.range(1000).map(y, 'x').join()) }}\"";
    let spec = format!(
        "name: many\ncell: {{ runs-on: [nobody] }}\nstrategy: {{ matrix: {{ n: \"${{{{ lists.range({CELLS}) }}}}\", pad: {pad} }} }}\nphases: {{ t: [ {{ run: \"true\" }} ] }}\n"
    );
    let run = submit(&fleet, &at, "many.yaml", &spec, &[]);
    let _agent = fleet.agent("a", &at.url(), 4);
    for more in [&[][..], &["--priority", "5"]] {
        let small = submit(&fleet, &at, "small.yaml", SMALL, more);
        passes(&fleet, &at, &small);
    }
    let told = |at: &Coordinator| {
        let shown = fleet.json(at, &["show", &run, "--format", "json"]);
        assert_eq!(shown["cells"].as_array().map(Vec::len), Some(CELLS));
        let runs = fleet.json(at, &["runs", "--format", "json"]);
        let rows = runs["runs"].as_array().unwrap();
        let row = rows.iter().find(|row| row["run"] == run.as_str()).unwrap();
        assert_eq!(row["cells"], CELLS, "{row}");
        let (code, _, stderr) = fleet.call(at, &["logs", &run, "no-such-cell"]);
        assert_eq!(code, Some(2), "{stderr}");
        assert!(stderr.contains("the run has no cell"), "{stderr}");
    };
    told(&at);
    let first = tokio::runtime::Runtime::new().unwrap().block_on(async {
        let request = v1::WatchRequest {
            run_id: run.clone(),
            from_position: 1,
            follow: false,
        };
        let mut client = at.client().await.max_decoding_message_size(1 << 30);
        let mut events = client.watch(request).await.unwrap().into_inner();
        events.message().await.unwrap().unwrap().event.unwrap()
    });
    let bytes = first.payload_json.len();
    assert!(bytes > 4 << 20, "the plan has {bytes} bytes only");
    let address = at.killed();
    let at = fleet.serve_at(&address);
    told(&at);
    let (code, _, stderr) = fleet.call(&at, &["cancel", &run]);
    assert_eq!(code, Some(0), "{stderr}");
    let (code, _, stderr) = fleet.call(&at, &["watch", &run, "-q"]);
    assert_eq!(code, Some(130), "{stderr}");
    let peak = at.process.peak_mib();
    println!("{CELLS} cells, {} MiB of plan: {peak} MiB", bytes >> 20);
    assert!(peak < 500, "{peak} MiB");
}

fn sql(directory: &Path, statement: &str) {
    use sqlx::sqlite::{SqliteConnectOptions, SqlitePool};
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let options = SqliteConnectOptions::new().filename(directory.join("journal.db"));
        let pool = SqlitePool::connect_with(options).await.unwrap();
        let statement = sqlx::AssertSqlSafe(statement.to_owned());
        sqlx::raw_sql(statement).execute(&pool).await.unwrap();
        pool.close().await;
    });
}

const RUNS: usize = 2_000;

fn many_runs() {
    let fleet = Fleet::new();
    let mut at = fleet.serve();
    let mut agent = fleet.agent("a", &at.url(), 4);
    let comment = format!("# {}\n", "x".repeat(77)).repeat(768);
    let run = submit(&fleet, &at, "small.yaml", &format!("{SMALL}{comment}"), &[]);
    passes(&fleet, &at, &run);
    eventually("its stack is gone", || {
        let (_, shown, _) = fleet.call(&at, &["show", &run, "--format", "json"]);
        serde_json::from_str::<Value>(&shown).unwrap()["outcome"]
            .is_string()
            .then_some(())
    });
    agent.kill();
    at.process.kill();
    let directory = fleet.path("state/coordinator");
    // One run per minute, each with a submission of 60 KB and its plan.
    sql(
        &directory,
        &format!(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {RUNS}) \
             INSERT INTO runs (run, submitted_us, spec, digest, cells, submission, finished_us, outcome, counts, cancel, settled, workspace) \
             SELECT printf('%08x-0000-7000-8000-%012d', i + 268435456, i), submitted_us - i * 60000000, spec, digest, cells, submission, \
             finished_us - i * 60000000, outcome, counts, cancel, 1, workspace FROM n, runs WHERE run = '{run}'; \
             INSERT INTO events (run, position, cell, attempt, seq, at_us, mono_us, kind) \
             SELECT r.run, e.position, e.cell, e.attempt, e.seq, e.at_us, e.mono_us, e.kind FROM runs r, events e WHERE e.run = '{run}' AND r.run != '{run}'"
        ),
    );
    fs::remove_file(directory.join("journal.db.mark")).unwrap();
    let bytes = fs::metadata(directory.join("journal.db")).unwrap().len();
    assert!(bytes > 100 << 20, "{bytes} bytes of journal");
    let at = fleet.serve();
    let listed = fleet.json(&at, &["runs", "-n", "10000", "--format", "json"]);
    assert_eq!(listed["runs"].as_array().map(Vec::len), Some(RUNS + 1));
    for begin in ["10000005", "10000006", "10000007"] {
        let (code, stdout, stderr) = fleet.call(&at, &["show", begin]);
        assert_eq!(code, Some(0), "{stderr}");
        assert!(stdout.contains(begin), "{stdout}");
    }
    let (code, _, stderr) = fleet.call(&at, &["show", "1000"]);
    assert_eq!(code, Some(2), "{stderr}");
    assert!(stderr.contains(&format!("means {RUNS} runs")), "{stderr}");
    assert!(stderr.len() < 1_000, "{stderr}");
    let peak = at.process.peak_mib();
    println!("{RUNS} runs, {} MiB of journal: {peak} MiB", bytes >> 20);
    assert!(peak < 150, "{peak} MiB");
    let (code, _, stderr) = fleet.call(&at, &["gc", "--older-than", "10h"]);
    assert_eq!(code, Some(0), "{stderr}");
    let listed = fleet.json(&at, &["runs", "-n", "10000", "--format", "json"]);
    assert!(listed["runs"].as_array().unwrap().len() < 602);
}

fn old_runs() {
    let fleet = Fleet::new();
    let mut at = fleet.serve();
    let mut agent = fleet.agent("a", &at.url(), 4);
    let runs = ["old.yaml", "new.yaml"].map(|name| {
        let run = submit(&fleet, &at, name, SMALL, &[]);
        passes(&fleet, &at, &run);
        run
    });
    agent.kill();
    at.process.kill();
    let directory = fleet.path("state/coordinator");
    let logs = |run: &str| directory.join("logs").join(run);
    for run in &runs {
        fs::create_dir_all(logs(run).join("cell")).unwrap();
    }
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let now = now.unwrap().as_micros();
    // Runs are kept for a day; the old run expires soon after the start.
    let day = 86_400_000_000;
    let [old, new] = &runs;
    sql(
        &directory,
        &format!(
            "UPDATE runs SET settled = 1, finished_us = CASE run WHEN '{old}' THEN {} ELSE {now} END",
            now - day + 5_000_000
        ),
    );
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        use phalanx_coordinator::serve::server::{Listener, Options, start};
        use phalanx_coordinator::supervisor::Settings;
        let options = Options {
            settings: Settings {
                keep_runs_for: Some(Duration::from_secs(86_400)),
                tidy_every: Duration::from_millis(200),
                ..Settings::default()
            },
            ..Options::below(&directory)
        };
        let socket = tokio::net::UnixListener::bind(fleet.path("socket")).unwrap();
        let server = start(options, Listener::Unix(socket)).await.unwrap();
        let store = server.handle.journal.store().clone();
        let known = async || {
            let rows = store.runs(10, false, None).await.unwrap();
            rows.iter()
                .map(|row| row.run.to_string())
                .collect::<Vec<_>>()
        };
        let deadline = std::time::Instant::now() + crate::rig::BOUND;
        while known().await.contains(old) || logs(old).exists() {
            assert!(std::time::Instant::now() < deadline);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert_eq!(known().await, std::slice::from_ref(new));
        assert!(logs(new).exists());
        server.stop().await;
    });
}

/// Runs a command that must end with this code, and checks the memory of the agent afterwards.
fn costs(fleet: &Fleet, at: &Coordinator, agent: &Process, spec: &str, most: u64) {
    fs::write(fleet.path("noisy.yaml"), spec).unwrap();
    let (code, _, stderr) = fleet.call(at, &["run", "noisy.yaml"]);
    assert_eq!(code, Some(0), "{stderr}");
    let peaks = [agent.peak_mib(), at.process.peak_mib()];
    println!("peaks of agent and coordinator: {peaks:?} MiB");
    assert!(
        peaks.iter().all(|peak| *peak < most),
        "{peaks:?} MiB: {spec}"
    );
}

fn much_output() {
    let fleet = Fleet::new();
    let at = fleet.serve();
    let agent = fleet.agent("a", &at.url(), 4);
    let lines = "yes 0123456789012345678901234567890123456789012345678901234567890123456789 | head -c 60000000";
    let one_line = "head -c 60000000 /dev/zero | tr '\\\\0' x";
    for print in [lines, one_line] {
        costs(
            &fleet,
            &at,
            &agent,
            &format!("name: step\nphases: {{ t: [ {{ run: \"{print}\" }} ] }}\n"),
            200,
        );
    }
    let service = format!(
        "name: service\nservices: {{ n: {{ process: [sh, -c, \"{lines}; echo; echo done; exec sleep 100\"], ready: {{ log: done, timeout: 100s }} }} }}\nphases: {{ t: [ {{ exec: {{ service: n, command: ['true'] }} }} ] }}\n"
    );
    costs(&fleet, &at, &agent, &service, 250);
}

fn heavy_specs() {
    let fleet = Fleet::new();
    let at = fleet.serve();
    let comment = format!("# {}\n", "x".repeat(77));
    let heavy = |mib: usize| format!("{SMALL}{}", comment.repeat((mib << 20) / 80));
    submit(&fleet, &at, "heavy.yaml", &heavy(3), &[]);
    fs::write(fleet.path("heavy.yaml"), heavy(10)).unwrap();
    let (code, _, stderr) = fleet.call(&at, &["submit", "heavy.yaml"]);
    assert_eq!(code, Some(2), "{stderr}");
    assert!(
        stderr.len() < 2_000 && stderr.contains("it is bigger than 4 MiB"),
        "{stderr}"
    );
}
